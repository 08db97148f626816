//! What a node keeps for one peer: a handshake of its own, and up to four sessions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::path::Path;

use crate::handshake::{Cookie, Initiation, put_mac2};
use crate::ids::PeerId;
use crate::session::{DEAD_AFTER, REKEY_AFTER, Session};
use crate::wire::SessionIndex;

/// Sessions that only receive: the previous one, and one that lost to a crossing one.
pub(super) const MAX_OLDER: usize = 2;
/// Paths on which one message 1 goes out.
pub(super) const MAX_PATHS: usize = 8;
/// The responder leaves the rekeying to the initiator this long after it was due: more than a
/// whole handshake takes.
const RESPONDER_PATIENCE: Duration = Duration::from_secs(20);
/// The packet counts of a session are looked at this often. At a million packets per second that
/// is 10 million, far below what separates "rekey" from "dead".
const COUNT_CHECK: Duration = Duration::from_secs(10);
/// Timers are at least this far away, so that no state can make a driver spin.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// When to say something again: intervals double from `interval` up to `longest`.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    next: Instant,
    interval: Duration,
    longest: Duration,
    until: Instant,
}

impl Backoff {
    pub(super) fn new(now: Instant, first: Duration, longest: Duration, life: Duration) -> Self {
        Self {
            next: now + first,
            interval: first,
            longest,
            until: now + life,
        }
    }

    /// Is it time? If so, the next time is set.
    pub(super) fn due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.interval = (self.interval * 2).min(self.longest);
        self.next = now + self.interval;
        true
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    fn deadline(&self) -> Instant {
        self.next.min(self.until)
    }
}

/// A handshake that we began and that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) initiation: Initiation,
    pub(super) message: Vec<u8>,
    pub(super) index: SessionIndex,
    pub(super) paths: Vec<Path>,
    /// What the responder asked for, by the path on which it sees us; at most one for each of
    /// `paths`. They live shorter than the secret behind them is kept.
    pub(super) cookies: Vec<(Path, Cookie)>,
    pub(super) resend: Backoff,
}

impl Pending {
    /// Message 1 as it goes out on `path`.
    pub(super) fn message_for(&self, path: &Path) -> Vec<u8> {
        let mut message = self.message.clone();
        if let Some((_, cookie)) = self.cookies.iter().find(|(of, _)| of == path) {
            put_mac2(&mut message, cookie);
        }
        message
    }
}

/// A session of this peer.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: Arc<Session>,
    /// The peer's run of its process.
    pub(super) incarnation: u32,
    /// Our own handshake that was under way when the peer's message 1 came.
    pub(super) crossed: Option<SessionIndex>,
    /// Keep-alives that go out until the peer is heard under this session.
    pub(super) greeting: Option<Backoff>,
    /// The greeting ended unheard.
    pub(super) unheard: bool,
}

impl Held {
    /// Must `self`, just completed, leave the sending to `current`?
    ///
    /// Only if the two handshakes crossed: then the one that the lower PeerId began sends, at
    /// both ends.
    fn yields_to(&self, current: &Self, me: PeerId, peer: PeerId) -> bool {
        if self.session.was_initiator() {
            current.crossed == Some(self.session.local_index) && peer < me
        } else {
            self.crossed == Some(current.session.local_index) && me < peer
        }
    }
}

/// A session that we answered and that no packet has confirmed.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) held: Held,
    /// SHA-256 of message 1: the same request gets the same response.
    pub(super) request: [u8; 32],
    pub(super) response: Vec<u8>,
    pub(super) expires: Instant,
}

/// What became of a completed session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// It sends, and the peer is new or has restarted.
    Fresh,
    /// It sends from now on, instead of another one.
    Rekeyed,
    /// It only receives.
    Aside,
}

/// All state of one peer. It goes when nothing is left in it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) static_key: [u8; 32],
    pub(super) pending: Option<Pending>,
    pub(super) next: Option<Next>,
    pub(super) current: Option<Held>,
    /// Newest first, at most [`MAX_OLDER`].
    pub(super) older: VecDeque<Held>,
    pub(super) wanted: bool,
    pub(super) path: Option<Path>,
    /// No new handshake of our own before.
    pub(super) retry_at: Option<Instant>,
    /// The place in the timer queue.
    pub(super) deadline: Option<Instant>,
}

impl Peer {
    pub(super) const fn new(static_key: [u8; 32]) -> Self {
        Self {
            static_key,
            pending: None,
            next: None,
            current: None,
            older: VecDeque::new(),
            wanted: false,
            path: None,
            retry_at: None,
            deadline: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_none()
            && self.next.is_none()
            && self.current.is_none()
            && self.older.is_empty()
    }

    /// All sessions that receive.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        let next = self.next.as_ref().map(|next| &next.held);
        next.into_iter()
            .chain(&self.current)
            .chain(&self.older)
            .map(|held| &held.session)
    }

    /// Puts a completed session in its place. `dropped` gets what has no place any more, and
    /// whether that is because the peer restarted.
    pub(super) fn install(
        &mut self,
        held: Held,
        me: PeerId,
        peer: PeerId,
        dropped: &mut Vec<(Held, bool)>,
    ) -> Installed {
        let outcome = match self.current.take() {
            None => {
                self.current = Some(held);
                Installed::Fresh
            }
            Some(old) if old.incarnation != held.incarnation => {
                dropped.push((old, true));
                dropped.extend(self.older.drain(..).map(|older| (older, true)));
                self.current = Some(held);
                Installed::Fresh
            }
            Some(old) if held.yields_to(&old, me, peer) => {
                self.older.push_front(held);
                self.current = Some(old);
                Installed::Aside
            }
            Some(old) => {
                self.older.push_front(old);
                self.current = Some(held);
                Installed::Rekeyed
            }
        };
        while self.older.len() > MAX_OLDER {
            dropped.extend(self.older.pop_back().map(|older| (older, false)));
        }
        outcome
    }

    /// Takes out the sessions that are past their limits. An older one steps up if the current
    /// one is gone.
    pub(super) fn take_dead(&mut self, now: Instant) -> Vec<Held> {
        let mut dead: Vec<Held> = self
            .current
            .take_if(|held| held.session.is_dead(now))
            .into_iter()
            .collect();
        let (gone, live): (VecDeque<Held>, VecDeque<Held>) = self
            .older
            .drain(..)
            .partition(|held| held.session.is_dead(now));
        dead.extend(gone);
        self.older = live;
        if self.current.is_none() {
            self.current = self.older.pop_front();
        }
        dead
    }

    /// Should we begin a handshake to replace the current session?
    pub(super) fn wants_rekey(&self, now: Instant) -> bool {
        let due = self.current.as_ref().is_some_and(|held| {
            let patience = if held.session.was_initiator() {
                Duration::ZERO
            } else {
                RESPONDER_PATIENCE
            };
            let by_now = now.checked_sub(patience).unwrap_or(now);
            held.unheard || held.session.needs_rekey(by_now)
        });
        due && self.wanted
            && self.pending.is_none()
            && self.retry_at.is_none_or(|retry_at| now >= retry_at)
    }

    /// When something is to be done next.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let pending = self.pending.as_ref().map(|p| p.resend.deadline());
        let next = self.next.as_ref().map(|next| next.expires);
        let dead = self
            .sessions()
            .map(|session| session.established_at() + DEAD_AFTER)
            .min();
        let greeting = self
            .current
            .iter()
            .chain(&self.older)
            .filter_map(|held| held.greeting.as_ref().map(Backoff::deadline))
            .min();
        let count = self.current.as_ref().map(|_| now + COUNT_CHECK);
        let rekey = self.rekey_deadline();
        [pending, next, dead, greeting, count, rekey]
            .into_iter()
            .flatten()
            .min()
            .map(|deadline| deadline.max(now + TIMER_GRAIN))
    }

    fn rekey_deadline(&self) -> Option<Instant> {
        if !self.wanted || self.pending.is_some() {
            return None;
        }
        let held = self.current.as_ref()?;
        let mut due = held.session.established_at() + REKEY_AFTER;
        if !held.session.was_initiator() {
            due += RESPONDER_PATIENCE;
        }
        Some(self.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }
}
