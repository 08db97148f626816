//! One path under probe: when the next challenge is due, which ones are open, what was learned.

use std::time::{Duration, Instant};

use super::choose::Tier;
use super::credit::Credit;
use super::mtu::Mtu;
use crate::path::Path;

/// When a burst probes, counted from its start. Both sides start at about the same time, so each
/// probe opens the sender's NAT for the other's; the first gaps cover RTTs up to a second, the
/// last ones a slow start of the other side.
pub(super) const BURST_MS: [u64; 7] = [0, 50, 150, 350, 750, 1_500, 3_000];
/// A burst ends so long after its start: a second, the longest RTT waited for, after the last probe.
const BURST_END: Duration = Duration::from_millis(4_000);
/// The chosen path is asked so often: many routers forget UDP after 30 s.
pub(super) const KEEP_CHOSEN: Duration = Duration::from_secs(15);
/// A relay in reserve is asked so often: it is only a reserve if it works.
pub(super) const KEEP_RESERVE: Duration = Duration::from_secs(60);
/// An unanswered keep-alive is repeated after that, or three RTTs.
const RETRY: Duration = Duration::from_secs(1);
/// Unanswered keep-alives until the path is dead.
const KEEP_LIMIT: u32 = 3;
/// Between challenges under suspicion, or two RTTs.
const URGENT: Duration = Duration::from_millis(300);
/// Unanswered challenges under suspicion until the path is dead: 1.5 s in all.
const URGENT_LIMIT: u32 = 5;
/// A challenge out of turn follows the last one no closer than that.
const ASK_BACK_GAP: Duration = Duration::from_millis(40);
/// Open challenges that are remembered; the oldest makes room.
const MAX_OPEN: usize = 8;

/// How the path is being probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not at all.
    Rest,
    /// At [`BURST_MS`] from the instant on; the number is the next step.
    Burst(Instant, usize),
    /// Every so often.
    Keep(Duration),
    /// Something is wrong: quickly, until an answer or death.
    Urgent,
}

/// What is due on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a challenge.
    Challenge,
    /// The burst ended without an answer.
    BurstOver,
    /// It is dead.
    Dead,
}

/// One path under probe.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) tier: Tier,
    /// Told by the peer, or our relay; others go when they stay silent.
    pub(super) listed: bool,
    /// It has answered, or a handshake came by it, and is not dead.
    pub(super) proven: bool,
    /// A handshake alone came by it: what may be sent until it answers.
    pub(super) credit: Option<Credit>,
    pub(super) rtt: Option<Duration>,
    pub(super) mode: Mode,
    /// Challenges sent since the last answer.
    pub(super) unanswered: u32,
    pub(super) heard: Option<Instant>,
    /// How large a datagram passes.
    pub(super) mtu: Mtu,
    last: Option<Instant>,
    /// At most [`MAX_OPEN`].
    open: Vec<(u64, Instant)>,
}

impl Probed {
    pub(super) fn new(path: &Path, tier: Tier, listed: bool) -> Self {
        Self {
            tier,
            listed,
            proven: false,
            credit: None,
            rtt: None,
            mode: Mode::Rest,
            unanswered: 0,
            heard: None,
            mtu: Mtu::new(path),
            last: None,
            open: Vec::new(),
        }
    }

    /// Starts a burst.
    pub(super) const fn burst(&mut self, now: Instant) {
        self.mode = Mode::Burst(now, 0);
        self.unanswered = 0;
    }

    /// Starts probing quickly.
    pub(super) fn suspect(&mut self) {
        if self.mode != Mode::Urgent {
            self.mode = Mode::Urgent;
            self.unanswered = 0;
            self.last = None;
        }
    }

    /// Asks at once, then every `every`: the first challenge measures and tells the peer.
    pub(super) const fn keep(&mut self, every: Duration) {
        self.mode = Mode::Keep(every);
        self.unanswered = 0;
        self.last = None;
    }

    /// Frames came while it was under suspicion: the way back works, what is open still counts.
    pub(super) fn calm(&mut self) {
        self.mode = Mode::Keep(KEEP_CHOSEN);
        self.unanswered = self.unanswered.min(1);
    }

    /// Something authentic came from here: whether to ask back now, out of turn.
    pub(super) fn ask_back(&mut self, now: Instant) -> bool {
        let just = |last| now.saturating_duration_since(last) < ASK_BACK_GAP;
        if self.proven || self.last.is_some_and(just) {
            return false;
        }
        if !matches!(self.mode, Mode::Burst(..)) {
            // This challenge is the burst's first.
            self.mode = Mode::Burst(now, 1);
            self.unanswered = 0;
        }
        self.last = Some(now);
        self.unanswered += 1;
        true
    }

    /// Was a challenge answered in this life of the path?
    pub(super) const fn has_answered(&self) -> bool {
        self.proven && self.rtt.is_some()
    }

    /// Two challenges or more are open: the next may be lost, too.
    pub(super) const fn in_doubt(&self) -> bool {
        self.unanswered >= 2
    }

    /// When something is due; none at rest.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let rtt = self.rtt.unwrap_or_default();
        let since = |wait: Duration| Some(self.last.map_or(now, |last| last + wait));
        match self.mode {
            Mode::Rest => None,
            Mode::Burst(start, step) => Some(match BURST_MS.get(step) {
                Some(offset) => start + Duration::from_millis(*offset),
                None => start + BURST_END,
            }),
            Mode::Keep(every) if self.unanswered == 0 => since(every),
            Mode::Keep(_) => since(RETRY.max(rtt * 3)),
            Mode::Urgent => since(URGENT.max(rtt * 2).min(RETRY)),
        }
    }

    /// What is due now. A challenge counts as sent.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        if self.due_at(now)? > now {
            return None;
        }
        match self.mode {
            Mode::Rest => return None,
            Mode::Burst(start, step) => {
                if step >= BURST_MS.len() {
                    self.mode = Mode::Rest;
                    return Some(Due::BurstOver);
                }
                self.mode = Mode::Burst(start, step + 1);
            }
            Mode::Keep(_) if self.unanswered >= KEEP_LIMIT => return Some(Due::Dead),
            Mode::Urgent if self.unanswered >= URGENT_LIMIT => return Some(Due::Dead),
            Mode::Keep(_) | Mode::Urgent => {}
        }
        self.last = Some(now);
        self.unanswered += 1;
        Some(Due::Challenge)
    }

    /// A challenge with `id` leaves.
    pub(super) fn sent(&mut self, now: Instant, id: u64) {
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((id, now));
    }

    /// An answer came on this path; true if it answers an open challenge.
    pub(super) fn answered(&mut self, now: Instant, id: u64) -> bool {
        let sent = match self.open.iter().position(|(open, _)| *open == id) {
            Some(at) => {
                let (_, sent) = self.open.swap_remove(at);
                self.mtu.short_answered(sent);
                sent
            }
            None => match self.mtu.answered(now, id) {
                Some(sent) => sent,
                None => return false,
            },
        };
        let sample = now.saturating_duration_since(sent);
        // RFC 6298 section 2 smooths with 1/8; probes are rare, so 1/4 follows a change sooner.
        self.rtt = Some(match self.rtt {
            Some(rtt) => (rtt * 3 + sample) / 4,
            None => sample,
        });
        self.proven = true;
        self.credit = None;
        self.unanswered = 0;
        self.heard = Some(now);
        true
    }

    /// It is dead: what was learned is void.
    pub(super) fn die(&mut self) {
        self.proven = false;
        self.credit = None;
        self.rtt = None;
        self.mode = Mode::Rest;
        self.unanswered = 0;
        self.open.clear();
        self.mtu.stop();
    }
}
