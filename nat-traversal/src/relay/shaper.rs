//! How fast one owner sends through the relay: a rate, and a short queue for what comes too early.
//!
//! A rate that only drops makes TCP stumble: it finds out by losing whole windows. So what is
//! above the rate waits, for some milliseconds at most, and leaves at the rate. Only what the
//! queue does not hold is dropped.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::forwarding::RelayRun;
use crate::bucket::TokenBucket;

/// What waits leaves in runs of so many bytes, if there are so many: a run is one system call.
const RUN_BYTES: usize = 16_384;

/// What a run in the queue counts beside its bytes, so that small datagrams cannot make the queue
/// longer than it says.
const RUN_OVERHEAD: usize = 128;

/// A run, or what is left of it.
#[derive(Debug)]
struct Waiting {
    to: SocketAddr,
    mark: u8,
    segment: usize,
    bytes: Vec<u8>,
    sent: usize,
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
}

impl Shaper {
    pub(super) const fn new(now: Instant, per_second: f64, burst: f64) -> Self {
        Self {
            bucket: TokenBucket::new(now, per_second, burst),
            burst,
            waiting: VecDeque::new(),
            held: 0,
        }
    }

    /// Takes the price of one datagram that shall leave at once.
    pub(super) fn take(&mut self, now: Instant, len: usize) -> bool {
        self.waiting.is_empty() && self.bucket.take(now, price(len))
    }

    /// How many bytes of a run of `len` may leave at once: whole datagrams. Their price is taken.
    pub(super) fn pass(&mut self, now: Instant, len: usize, segment: usize) -> usize {
        if !self.waiting.is_empty() {
            return 0;
        }
        let passing = whole(self.bucket.available(now), len, segment);
        self.bucket.take(now, price(passing));
        passing
    }

    /// Lets as much of a run wait as there is `room` for, whole datagrams. Gives the bytes that wait.
    pub(super) fn hold(&mut self, run: &RelayRun<'_>, room: usize) -> usize {
        // A datagram above the burst would never leave.
        if run.segment as f64 > self.burst {
            return 0;
        }
        let room = room.saturating_sub(self.held + RUN_OVERHEAD);
        let len = whole(room as f64, run.bytes.len(), run.segment);
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
        });
        len
    }

    /// Hands out what may leave now.
    pub(super) fn release(&mut self, now: Instant, send: &mut dyn FnMut(RelayRun<'_>)) {
        while let Some(first) = self.waiting.front_mut() {
            let left = first.bytes.len() - first.sent;
            let step = step(left, first.segment, self.burst);
            let available = self.bucket.available(now);
            if available < price(step) {
                return;
            }
            let passing = whole(available, left, first.segment);
            self.bucket.take(now, price(passing));
            let range = first.sent..first.sent + passing;
            send(RelayRun {
                to: first.to,
                segment: first.segment,
                mark: first.mark,
                bytes: first.bytes.get(range).unwrap_or_default(),
            });
            first.sent += passing;
            self.held -= passing;
            if first.sent == first.bytes.len() {
                self.held -= RUN_OVERHEAD;
                self.waiting.pop_front();
            }
        }
        // What a burst of runs took is given back.
        self.waiting.shrink_to(8);
    }

    /// When [`Self::release`] has something to hand out; `None` when nothing waits.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let first = self.waiting.front()?;
        let step = step(first.bytes.len() - first.sent, first.segment, self.burst);
        Some(self.bucket.ready_at(price(step)))
    }

    /// Bytes that wait, with the overhead of their runs.
    pub(super) const fn held(&self) -> usize {
        self.held
    }
}

/// How much has to leave at once: a short run, at least one datagram, never above the burst.
fn step(left: usize, segment: usize, burst: f64) -> usize {
    let most = RUN_BYTES.max(segment).min(left);
    whole(burst, most, segment).max(segment.min(left))
}

/// The whole datagrams among the first `room` bytes of a run of `len`.
fn whole(room: f64, len: usize, segment: usize) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and a negative room is none"
    )]
    let room = room as usize;
    if room >= len {
        len
    } else {
        room - room % segment.max(1)
    }
}

fn price(len: usize) -> f64 {
    len as f64
}

/// Bytes for `time` at `per_second`, at least `least`.
pub(super) fn bytes_for(per_second: f64, time: Duration, least: f64) -> f64 {
    (per_second * time.as_secs_f64()).max(least)
}
