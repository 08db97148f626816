//! Finding the owner of a MAC that no claim here names.
//!
//! Two neighbours and the DHT are asked at once. When none of them knows, or after half a second,
//! a `WhoHas` goes to all, and again each second: a host that has the MAC on its bridge, silent until
//! now, claims it. After two seconds nobody has it, and for two more only frames for it ask all
//! (`unknown`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Directory, DirectoryAction, Resolution};
use crate::directory::messages::DirectoryMessage;
use crate::drop_reason::DropReason;
use crate::switching::MacKey;
use crate::time::UnixTime;

/// Look-ups under way and negative answers remembered.
const MAX_LOOKUPS: usize = 512;
/// A look-up takes no longer: the frames that wait for it do not, either.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// When to ask all, at the latest.
const WHO_HAS_AFTER: Duration = Duration::from_millis(500);
/// How long nobody has it.
const NEGATIVE_TIME: Duration = Duration::from_secs(2);
/// Neighbours asked.
const NEIGHBOURS_ASKED: usize = 2;
/// `WhoHas` sent, and local searches made for others, per second each.
pub(super) const WHO_HAS_PER_SECOND: u32 = 10;

#[derive(Debug, Clone, Copy)]
enum State {
    Pending {
        deadline: Instant,
        /// When to ask all, the next time.
        who_has_at: Instant,
        /// Who has not answered yet; the DHT counts once for each key it was asked under.
        open_questions: usize,
    },
    Negative {
        until: Instant,
    },
}

/// At most so many a second.
#[derive(Debug, Default)]
pub(super) struct PerSecond {
    since: Option<Instant>,
    count: u32,
}

impl PerSecond {
    /// Was something counted within the last second?
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        let recent = |since| now.saturating_duration_since(since) < Duration::from_secs(1);
        self.since.is_some_and(recent)
    }

    pub(super) fn take(&mut self, now: Instant, limit: u32) -> bool {
        let fresh = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1));
        if fresh {
            self.since = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count <= limit
    }
}

/// Bound: [`MAX_LOOKUPS`]; each is removed two seconds after it failed, at once when it succeeded.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    states: BTreeMap<MacKey, State>,
    who_has: PerSecond,
}

impl Lookups {
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.states
            .values()
            .map(|state| match *state {
                State::Pending {
                    deadline,
                    who_has_at,
                    ..
                } => who_has_at.min(deadline),
                State::Negative { until } => until,
            })
            .min()
    }

    /// An owner is known now; `true` if somebody waited for it.
    pub(super) fn found(&mut self, key: &MacKey) -> bool {
        matches!(self.states.remove(key), Some(State::Pending { .. }))
    }

    /// There is another place to look in: negative answers are forgotten, and the MACs that are
    /// looked for wait for one answer more.
    pub(super) fn ask_again(&mut self) -> Vec<MacKey> {
        self.states
            .retain(|_, state| matches!(state, State::Pending { .. }));
        for state in self.states.values_mut() {
            if let State::Pending { open_questions, .. } = state {
                *open_questions += 1;
            }
        }
        self.states.keys().copied().collect()
    }

    /// Is there room in the budget for a question to all?
    pub(super) fn may_ask_all(&mut self, now: Instant) -> bool {
        self.who_has.take(now, WHO_HAS_PER_SECOND)
    }

    fn has_room(&mut self) -> bool {
        if self.states.len() < MAX_LOOKUPS {
            return true;
        }
        let negative = self
            .states
            .iter()
            .find(|(_, state)| matches!(state, State::Negative { .. }))
            .map(|(key, _)| *key);
        negative.is_some_and(|key| self.states.remove(&key).is_some())
    }
}

impl Directory {
    /// Where is `key`? Starts a look-up if no claim here tells.
    pub fn resolve(&mut self, now: Instant, key: MacKey) -> Resolution {
        if !key.mac.is_claimable() {
            return Resolution::Negative;
        }
        if let Some(stored) = self.claims.live(now, &key) {
            let owner = stored.claim.signer();
            return if owner == self.me {
                Resolution::Local
            } else {
                Resolution::Remote(owner, stored.claim.claim.generation)
            };
        }
        match self.asking.lookups.states.get(&key) {
            Some(State::Pending { .. }) => return Resolution::Pending,
            Some(State::Negative { until }) if now < *until => return Resolution::Negative,
            _ => {}
        }
        if !self.asking.lookups.has_room() {
            return Resolution::Negative;
        }
        let asked = self.random_neighbours(NEIGHBOURS_ASKED);
        let who_has_at = now + WHO_HAS_AFTER;
        let in_dht = self.ask_dht_for(key);
        let state = State::Pending {
            deadline: now + LOOKUP_TIME,
            who_has_at,
            open_questions: asked.len() + in_dht,
        };
        self.asking.lookups.states.insert(key, state);
        self.wake(who_has_at);
        for peer in asked {
            self.actions.send(peer, DirectoryMessage::query(key));
        }
        Resolution::Pending
    }

    /// A record that the DHT has for `key`, or `None` once no more will come.
    ///
    /// # Errors
    /// [`DropReason::RecordInvalid`] and others for a record that does not count.
    pub fn handle_dht_result(
        &mut self,
        now: Instant,
        wall: UnixTime,
        key: MacKey,
        record: Option<&[u8]>,
    ) -> Result<(), DropReason> {
        self.set_wall(now, wall);
        let Some(bytes) = record else {
            self.question_answered(now, key);
            return Ok(());
        };
        let claim = self.open_record(now, &key, bytes)?;
        self.take_claim(now, None, claim)
    }

    /// One of those asked does not know.
    pub(super) fn question_answered(&mut self, now: Instant, key: MacKey) {
        let Some(State::Pending {
            who_has_at,
            open_questions,
            ..
        }) = self.asking.lookups.states.get_mut(&key)
        else {
            return;
        };
        let were_open = *open_questions > 0;
        *open_questions = open_questions.saturating_sub(1);
        if *open_questions == 0 && were_open {
            *who_has_at = now.min(*who_has_at);
            self.wake(now);
        }
    }

    pub(super) fn run_lookups(&mut self, now: Instant) {
        let mut failed = Vec::new();
        let mut ask_all = Vec::new();
        self.asking
            .lookups
            .states
            .retain(|_, state| !matches!(state, State::Negative { until } if *until <= now));
        for (key, state) in &mut self.asking.lookups.states {
            let State::Pending {
                deadline,
                who_has_at,
                ..
            } = state
            else {
                continue;
            };
            if *deadline <= now {
                failed.push(*key);
            } else if *who_has_at <= now {
                ask_all.push(*key);
            }
        }
        for key in ask_all {
            self.ask_all(now, key);
            let next = self.asking.unknowns.next_question(now, &key);
            if let Some(State::Pending { who_has_at, .. }) =
                self.asking.lookups.states.get_mut(&key)
            {
                *who_has_at = next;
            }
        }
        for key in failed {
            let until = now + NEGATIVE_TIME;
            self.asking
                .lookups
                .states
                .insert(key, State::Negative { until });
            self.actions.push(DirectoryAction::Unresolved { key });
        }
    }
}
