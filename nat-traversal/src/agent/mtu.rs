//! How large a datagram the path carries: path MTU by probing (RFC 8899), the machine of one path.
//!
//! All sizes here are bytes of the sealed datagram. Until more is proven it is [`SAFE_DATAGRAM`].
//! Only an answered challenge of that size proves a size; ICMP is forged too easily.
//!
//! **Search.** Between what passed and the smallest size that did not: first what an underlay of
//! MTU 1,500 carries, which is mostly the answer after one round trip; above the sizes that are
//! usual, one step of [`GRAIN`], because an answer costs a round trip and a silence three waits;
//! then what jumbo frames carry; then halving, at a usual size where one lies near the middle.
//! It ends when both ends are [`GRAIN`] apart.
//!
//! **A size fails** when three challenges of it got no answer, while a short challenge sent
//! meanwhile did. Without the second half the path itself is in doubt, and the round begins again.
//! Losses here say nothing about congestion, and nothing is slowed down for them.
//!
//! **Later,** and only if frames went out since: the size is confirmed every 30 s, or at once when
//! frames went out, nothing came back and a short challenge was answered; a confirmation that
//! fails is a black hole, so back to the safe size and search. One step more is tried after 30 s,
//! 1 min, .. 10 min: a path may grow, and a lossy one may have failed a size that passes. A pair
//! that is idle probes nothing.

use std::time::{Duration, Instant};

use super::{PathAgent, PathEvent};
use crate::path::Path;
use crate::sizes::{self, MAX_UNDERLAY_MTU, SAFE_DATAGRAM};

/// A size is found this exactly, in bytes.
pub(super) const GRAIN: usize = 8;
/// Challenges of one size (`MAX_PROBES` of RFC 8899 section 5.1.2).
const TRIES: usize = 3;
/// An answer is waited for two RTTs, but at least so long: a busy host answers late.
const ANSWER_FLOOR: Duration = Duration::from_millis(250);
/// .. and at most so long. All three ids of a round stay open, so nine seconds in all.
const ANSWER_CEILING: Duration = Duration::from_secs(3);
/// .. and so long while the RTT is not known.
const ANSWER_UNKNOWN: Duration = Duration::from_secs(1);
/// First wait when short challenges are not answered either; doubles up to 64 times.
const DOUBT_FIRST: Duration = Duration::from_secs(1);
/// Between confirmations while frames go out: 50 bytes a second.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// Suspicion confirms no more often. Frames that nobody answers raise it every 2 s.
const SUSPECT_GAP: Duration = Duration::from_secs(5);
/// First wait before a larger size is tried again; doubles ..
const RAISE_FIRST: Duration = Duration::from_secs(30);
/// .. up to this (`PMTU_RAISE_TIMER` of RFC 8899 section 5.1.1).
const RAISE_CAP: Duration = Duration::from_secs(600);

/// IP MTUs that are usual, ascending: IPv6's smallest, a common choice for tunnels, WireGuard, VXLAN,
/// Google Cloud, 6in4, PPPoE, Ethernet, Google Cloud's jumbo, jumbo frames.
const USUAL: [usize; 10] = [
    1_280,
    1_400,
    1_420,
    1_450,
    1_460,
    1_480,
    1_492,
    ETHERNET,
    8_896,
    MAX_UNDERLAY_MTU,
];
const ETHERNET: usize = 1_500;

/// What a round of challenges of one size is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Does more pass?
    Search,
    /// Does what passed on an earlier use of this path?
    Recall,
    /// Does what is in use still pass?
    Confirm,
}

/// Up to three challenges of one size.
#[derive(Debug)]
struct Round {
    purpose: Purpose,
    size: usize,
    /// When the first one left.
    began: Option<Instant>,
    /// When something is due; none while a challenge waits to leave.
    due: Option<Instant>,
    /// At most [`TRIES`].
    sent: Vec<(u64, Instant)>,
    /// A short challenge, sent since the round began, was answered.
    short_answered: bool,
    /// How often the round began again.
    doubts: u32,
}

impl Round {
    const fn new(purpose: Purpose, size: usize) -> Self {
        Self {
            purpose,
            size,
            began: None,
            due: None,
            sent: Vec::new(),
            short_answered: false,
            doubts: 0,
        }
    }

    /// Neither size nor path answered: wait, then from the start.
    fn begin_again(&mut self, now: Instant) {
        self.due = Some(now + DOUBT_FIRST * (1 << self.doubts.min(6)));
        self.doubts = self.doubts.saturating_add(1);
        self.began = None;
        self.sent.clear();
        self.short_answered = false;
    }
}

/// The path MTU of one path. It probes only between [`Mtu::start`] and [`Mtu::stop`].
#[derive(Debug)]
pub(super) struct Mtu {
    /// Proven since the start, or [`SAFE_DATAGRAM`].
    payload: usize,
    /// The smallest size that does not pass, or one more than the largest that is tried.
    above: usize,
    /// The largest that is tried.
    cap: usize,
    ethernet: usize,
    usual: [usize; USUAL.len()],
    /// Proven in an earlier use of the path.
    remembered: Option<usize>,
    round: Option<Round>,
    /// A confirmation has interrupted a search.
    interrupted: bool,
    /// When `payload` was proven last.
    confirmed: Option<Instant>,
    /// When the last search ended.
    searched: Option<Instant>,
    raises: u32,
}

impl Mtu {
    /// Nothing is known about `path` yet.
    pub(super) fn new(path: &Path) -> Self {
        let cap = sizes::sealed_of_ip_mtu(MAX_UNDERLAY_MTU, path);
        Self {
            payload: SAFE_DATAGRAM,
            above: cap + 1,
            cap,
            ethernet: sizes::sealed_of_ip_mtu(ETHERNET, path),
            usual: USUAL.map(|mtu| sizes::sealed_of_ip_mtu(mtu, path)),
            remembered: None,
            round: None,
            interrupted: false,
            confirmed: None,
            searched: None,
            raises: 0,
        }
    }

    /// The largest sealed datagram to send, in bytes.
    pub(super) const fn payload(&self) -> usize {
        self.payload
    }

    /// Frames use the path from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.stop();
        match self.remembered {
            Some(size) => self.round = Some(Round::new(Purpose::Recall, size)),
            None => self.search_on(now),
        }
    }

    /// Frames do not use the path any more, or it is dead. What was proven is asked first when it
    /// is used again.
    pub(super) fn stop(&mut self) {
        if self.payload > SAFE_DATAGRAM {
            self.remembered = Some(self.payload);
        }
        self.payload = SAFE_DATAGRAM;
        self.above = self.cap + 1;
        self.round = None;
        self.interrupted = false;
        self.confirmed = None;
        self.searched = None;
        self.raises = 0;
    }

    /// When [`Self::handle_timeout`] has something to do; `used`: when frames went out last.
    pub(super) fn due_at(&self, used: Option<Instant>) -> Option<Instant> {
        match &self.round {
            Some(round) => round.due,
            None => self
                .confirm_at(used)
                .into_iter()
                .chain(self.raise_at(used))
                .min(),
        }
    }

    fn confirm_at(&self, used: Option<Instant>) -> Option<Instant> {
        let since = self.confirmed.filter(|_| self.payload > SAFE_DATAGRAM)?;
        (used? > since).then(|| since + CONFIRM_EVERY)
    }

    fn raise_at(&self, used: Option<Instant>) -> Option<Instant> {
        let since = self.searched.filter(|_| self.payload < self.cap)?;
        let wait = RAISE_FIRST * (1 << self.raises.min(5));
        (used? > since).then(|| since + wait.min(RAISE_CAP))
    }

    /// What is due by time. `true`: a short challenge is to be sent as well.
    pub(super) fn handle_timeout(&mut self, now: Instant, used: Option<Instant>) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let Some(round) = &mut self.round else {
            if due(self.raise_at(used)) {
                self.above = self.cap + 1;
                self.raises = self.raises.saturating_add(1);
                let size = (self.payload + GRAIN).min(self.cap);
                self.round = Some(Round::new(Purpose::Search, size));
            } else if due(self.confirm_at(used)) {
                self.confirm();
            }
            return false;
        };
        if !due(round.due) {
            return false;
        }
        if round.sent.len() < TRIES {
            // The next challenge waits to leave.
            round.due = None;
            return true;
        }
        if round.short_answered {
            self.failed(now);
        } else {
            round.begin_again(now);
        }
        false
    }

    /// The size of the challenge that is to leave now.
    pub(super) fn to_send(&self) -> Option<usize> {
        let round = self.round.as_ref().filter(|round| round.due.is_none())?;
        Some(round.size)
    }

    /// That challenge leaves with `id`.
    pub(super) fn sent(&mut self, now: Instant, id: u64, rtt: Option<Duration>) {
        if let Some(round) = &mut self.round {
            let wait = rtt.map_or(ANSWER_UNKNOWN, |rtt| rtt * 2);
            round.due = Some(now + wait.clamp(ANSWER_FLOOR, ANSWER_CEILING));
            round.began.get_or_insert(now);
            round.sent.push((id, now));
        }
    }

    /// An answer came; when its challenge had left, if it was one of ours.
    pub(super) fn answered(&mut self, now: Instant, id: u64) -> Option<Instant> {
        let round = self.round.as_ref()?;
        let (_, at) = *round.sent.iter().find(|(sent, _)| *sent == id)?;
        let (purpose, size) = (round.purpose, round.size);
        self.round = None;
        if size > self.payload {
            self.raises = 0;
        }
        self.payload = size;
        self.confirmed = Some(now);
        match purpose {
            Purpose::Confirm if !std::mem::take(&mut self.interrupted) => {}
            // Larger sizes have failed before, most likely.
            Purpose::Recall if size + GRAIN < self.above => {
                self.round = Some(Round::new(Purpose::Search, size + GRAIN));
            }
            _ => self.search_on(now),
        }
        Some(at)
    }

    /// A short challenge on the path, sent at `sent`, was answered.
    pub(super) fn short_answered(&mut self, sent: Instant) {
        if let Some(round) = &mut self.round {
            round.short_answered |= round.began.is_some_and(|began| began <= sent);
        }
    }

    /// Frames went out and nothing came back, but the path lives: do large ones pass?
    pub(super) fn suspect(&mut self, now: Instant) {
        let long_ago = |at| now.saturating_duration_since(at) >= SUSPECT_GAP;
        if self.round.is_none()
            && self.payload > SAFE_DATAGRAM
            && self.confirmed.is_some_and(long_ago)
        {
            self.confirm();
        }
    }

    /// The own host has refused to send a sealed datagram of `size` bytes on this path.
    pub(super) fn too_big(&mut self, now: Instant, size: usize) {
        match &self.round {
            // No need to ask the path.
            Some(round) if round.size == size => self.failed(now),
            Some(round) if round.purpose == Purpose::Confirm => {}
            _ if size <= self.payload && self.payload > SAFE_DATAGRAM => {
                self.interrupted = self.round.is_some();
                self.confirm();
            }
            _ => {}
        }
    }

    fn confirm(&mut self) {
        self.round = Some(Round::new(Purpose::Confirm, self.payload));
    }

    /// The size of the round does not pass.
    fn failed(&mut self, now: Instant) {
        let Some(round) = self.round.take() else {
            return;
        };
        if round.purpose != Purpose::Search {
            // A black hole, or the path is another than it was.
            self.payload = SAFE_DATAGRAM;
            self.remembered = None;
            self.interrupted = false;
            self.raises = 0;
        }
        self.above = round.size;
        self.search_on(now);
    }

    fn search_on(&mut self, now: Instant) {
        self.round = self
            .next_size()
            .map(|size| Round::new(Purpose::Search, size));
        if self.round.is_none() {
            self.searched = Some(now);
        }
    }

    /// Which size to try next; none when the search is over. Always between the two ends.
    fn next_size(&self) -> Option<usize> {
        let (low, high) = (self.payload, self.above);
        if high.saturating_sub(low) <= GRAIN {
            return None;
        }
        if self.usual.contains(&low) {
            // Two usual sizes may be next to each other.
            let close = |size: &usize| low < *size && *size < high && *size <= low + 2 * GRAIN;
            let next = self.usual.iter().copied().find(close);
            return Some(next.unwrap_or(low + GRAIN));
        }
        let nothing_failed = high > self.cap;
        if (low == SAFE_DATAGRAM || nothing_failed) && low < self.ethernet && self.ethernet < high {
            return Some(self.ethernet);
        }
        if nothing_failed {
            return Some(self.cap);
        }
        let (middle, quarter) = (low + (high - low) / 2, (high - low) / 4);
        let near = self.usual.iter().copied();
        let near = near.filter(|size| size.abs_diff(middle) <= quarter);
        Some(
            near.min_by_key(|size| size.abs_diff(middle))
                .unwrap_or(middle),
        )
    }
}

impl PathAgent {
    /// The own host has refused to send a sealed datagram of `size` bytes on `path` (`EMSGSIZE`):
    /// an interface has a smaller MTU. The size that is in use is asked again at once.
    pub fn handle_too_big(&mut self, now: Instant, path: Path, size: usize) {
        self.clock = now;
        if self.chosen == Some(path)
            && let Some(probed) = self.paths.get_mut(&path)
        {
            probed.mtu.too_big(now, size);
            self.tell_mtu();
        }
    }

    /// What is due by time about the size of datagrams.
    pub(super) fn handle_mtu_timeout(&mut self, now: Instant) {
        let used = self.traffic.last;
        let Some(path) = self.chosen else { return };
        if let Some(probed) = self.paths.get_mut(&path)
            && probed.mtu.handle_timeout(now, used)
        {
            self.enqueue(path);
        }
        self.tell_mtu();
    }

    /// When that is.
    pub(super) fn mtu_due_at(&self) -> Option<Instant> {
        self.paths.get(&self.chosen?)?.mtu.due_at(self.traffic.last)
    }

    /// Tells the driver when datagrams on the chosen path may have another size than it was told.
    pub(super) fn tell_mtu(&mut self) {
        let payload = self.path_mtu_payload();
        if payload != self.told_mtu {
            self.told_mtu = payload;
            if let Some(path) = self.chosen {
                self.tell(PathEvent::Mtu { path, payload });
            }
        }
    }
}
