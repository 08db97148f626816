//! How fast one owner sends through the relay: a rate, and a short queue for what comes too early.
//!
//! A rate that only drops makes TCP stumble: it finds out by losing whole windows. So what is
//! above the rate waits, for some milliseconds, and leaves at the rate. A queue that stays long
//! loses one datagram now and then ([`Patience`]), which is all that TCP needs to be told; what
//! the queue does not hold is dropped.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::codec::HEADER_LEN;
use super::forwarding::RelayRun;
use crate::bucket::TokenBucket;

/// What waits leaves in runs of so many bytes, if there are so many: a run is one system call.
const RUN_BYTES: usize = 16_384;

/// What a run in the queue counts beside its bytes, so that small datagrams cannot make the queue
/// longer than it says.
const RUN_OVERHEAD: usize = 128;

/// How long something may wait without a datagram being lost for it, and how long it must have been
/// longer (the numbers of RFC 8289).
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// A run, or what is left of it.
#[derive(Debug)]
struct Waiting {
    to: SocketAddr,
    mark: u8,
    segment: usize,
    bytes: Vec<u8>,
    sent: usize,
    since: Instant,
}

impl Waiting {
    /// The next `len` bytes.
    fn run(&self, len: usize) -> RelayRun<'_> {
        RelayRun {
            to: self.to,
            segment: self.segment,
            mark: self.mark,
            bytes: self
                .bytes
                .get(self.sent..self.sent + len)
                .unwrap_or_default(),
        }
    }

    /// The next `len` bytes do not wait any more.
    const fn skip(&mut self, len: usize) -> usize {
        self.sent += len;
        len
    }
}

/// The rate of one owner and what waits for it.
#[derive(Debug)]
pub(super) struct Shaper {
    bucket: TokenBucket,
    burst: f64,
    /// Bounded by `queue_bytes` of the relay's configuration; emptied by [`Shaper::release`].
    waiting: VecDeque<Waiting>,
    /// Bytes that wait, with [`RUN_OVERHEAD`] for each run.
    held: usize,
    patience: Patience,
}

impl Shaper {
    pub(super) const fn new(now: Instant, per_second: f64, burst: f64) -> Self {
        Self {
            bucket: TokenBucket::new(now, per_second, burst),
            burst,
            waiting: VecDeque::new(),
            held: 0,
            patience: Patience::new(),
        }
    }

    /// Takes the price of one datagram that shall leave at once.
    pub(super) fn take(&mut self, now: Instant, len: usize) -> bool {
        self.waiting.is_empty() && self.bucket.take(now, price(len, len))
    }

    /// How many bytes of a run of `len` may leave at once: whole datagrams. Their price is taken.
    pub(super) fn pass(&mut self, now: Instant, len: usize, segment: usize) -> usize {
        if !self.waiting.is_empty() {
            return 0;
        }
        let passing = affordable(self.bucket.available(now), len, segment);
        self.bucket.take(now, price(passing, segment));
        passing
    }

    /// Lets as much of a run wait as there is `room` for, whole datagrams. Gives the bytes that wait.
    pub(super) fn hold(&mut self, now: Instant, run: &RelayRun<'_>, room: usize) -> usize {
        // A datagram above the burst would never leave.
        if price(run.segment, run.segment) > self.burst {
            return 0;
        }
        let room = room.saturating_sub(self.held + RUN_OVERHEAD);
        let len = whole(room, run.bytes.len(), run.segment);
        let Some(bytes) = run.bytes.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return 0;
        };
        self.held += len + RUN_OVERHEAD;
        self.waiting.push_back(Waiting {
            to: run.to,
            mark: run.mark,
            segment: run.segment,
            bytes: bytes.to_vec(),
            sent: 0,
            since: now,
        });
        len
    }

    /// Hands out what may leave now. Gives how many datagrams were lost because the queue stays long.
    pub(super) fn release(&mut self, now: Instant, send: &mut dyn FnMut(RelayRun<'_>)) -> u64 {
        let mut lost = 0;
        while let Some(first) = self.waiting.front_mut() {
            let left = first.bytes.len() - first.sent;
            let available = self.bucket.available(now);
            if available < step_price(left, first.segment, self.burst) {
                return lost;
            }
            let waited = now.saturating_duration_since(first.since);
            if self.patience.is_over(now, waited) {
                // The oldest: what tells its sender goes first. It costs the rate nothing.
                lost += 1;
                self.held -= first.skip(first.segment.min(left));
            } else {
                let passing = affordable(available, left, first.segment);
                self.bucket.take(now, price(passing, first.segment));
                send(first.run(passing));
                self.held -= first.skip(passing);
            }
            if first.sent == first.bytes.len() {
                self.held -= RUN_OVERHEAD;
                self.waiting.pop_front();
            }
        }
        self.patience = Patience::new();
        lost
    }

    /// When [`Self::release`] has something to hand out; `None` when nothing waits.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let first = self.waiting.front()?;
        let left = first.bytes.len() - first.sent;
        let step = step_price(left, first.segment, self.burst);
        Some(self.bucket.ready_at(step))
    }

    /// Bytes that wait, with the overhead of their runs.
    pub(super) const fn held(&self) -> usize {
        self.held
    }
}

/// Says when a queue has been long for so long that a datagram is to be lost: `CoDel` (RFC 8289). One
/// is lost after an interval, the next ones after ever shorter intervals, until the wait is short.
#[derive(Debug)]
struct Patience {
    /// When it ends, while waits are long.
    ends: Option<Instant>,
    /// Datagrams lost since then.
    lost: u32,
}

impl Patience {
    const fn new() -> Self {
        Self {
            ends: None,
            lost: 0,
        }
    }

    /// The oldest that waits has `waited` so long: is a datagram to be lost for it?
    fn is_over(&mut self, now: Instant, waited: Duration) -> bool {
        if waited < TARGET {
            *self = Self::new();
            return false;
        }
        match self.ends {
            None => {
                self.ends = Some(now + INTERVAL);
                false
            }
            Some(ends) if now < ends => false,
            Some(_) => {
                self.lost += 1;
                let next = INTERVAL.as_secs_f64() / f64::from(self.lost).sqrt();
                self.ends = Some(now + Duration::from_secs_f64(next));
                true
            }
        }
    }
}

/// The price of what has to leave at once: a short run, at least one datagram, never above the burst.
fn step_price(left: usize, segment: usize, burst: f64) -> f64 {
    let run = whole(RUN_BYTES.max(segment), left, segment);
    let most = affordable(burst, run, segment);
    price(most.max(segment.min(left)), segment)
}

/// The whole datagrams among the first `room` bytes of a run of `len`.
const fn whole(room: usize, len: usize, segment: usize) -> usize {
    if room >= len {
        len
    } else if segment == 0 {
        0
    } else {
        room - room % segment
    }
}

/// The whole datagrams of a run of `len` whose price is at most `tokens`.
fn affordable(tokens: f64, len: usize, segment: usize) -> usize {
    if tokens >= price(len, segment) {
        return len;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and no tokens buy nothing"
    )]
    let count = (tokens / price(segment, segment).max(1.0)) as usize;
    whole(count.saturating_mul(segment), len, segment)
}

/// What datagrams count: their payloads, for a relay's header is not the sender's choice.
fn price(len: usize, segment: usize) -> f64 {
    let headers = len.div_ceil(segment.max(1)) * HEADER_LEN;
    len.saturating_sub(headers) as f64
}

/// Bytes for `time` at `per_second`, at least `least`.
pub(super) fn bytes_for(per_second: f64, time: Duration, least: f64) -> f64 {
    (per_second * time.as_secs_f64()).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs one instant to start from"
    )]
    fn patience_ends_after_an_interval_and_then_ever_sooner() {
        let (start, mut patience) = (Instant::now(), Patience::new());
        let mut lost = Vec::new();
        for ms in 0..400 {
            let now = start + Duration::from_millis(ms);
            if patience.is_over(now, Duration::from_millis(8)) {
                lost.push(ms);
            }
        }
        assert_eq!(lost, [100, 200, 271, 329, 379]);
        assert!(!patience.is_over(start, Duration::from_millis(4)), "short");
        assert!(!patience.is_over(start, Duration::from_millis(8)), "anew");
    }
}
