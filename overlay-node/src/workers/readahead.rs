//! Frames that wait to be sent, read ahead from the taps.
//!
//! All that waits in a tap is read at once, into batches that are used again. So frames of sparse
//! flows ([`SparseFlows`]) go out before those that wait; these keep their order. A worker that has
//! rested reads one frame first: if it is sparse, it is sent before the tap is asked for more.

use std::collections::VecDeque;
use std::io;

use overlay_proto::switching::NetIndex;
use tap_bridge::batch::MAX_FRAME_BYTES;
use tap_bridge::offload::HEADROOM;
use tap_bridge::{FrameBatch, FrameQueue, VnetHdr};

use super::sparse::{REST_MS, SparseFlows};

/// Batches that all taps of a worker have at most, 3 MiB in all; one more for each tap.
const BATCHES: usize = 24;

/// Frames of a batch, which a worker sends at once.
const FRAMES: usize = 64;

/// Bytes of a batch, of two super-frames: what passes waits no longer than it takes to seal so many of
/// each tap, a quarter of a millisecond.
const BYTES: usize = 2 * (HEADROOM + MAX_FRAME_BYTES);

/// One queue of a tap, and what was read from it.
pub(super) struct Tap {
    /// The tap's network.
    pub(super) net: NetIndex,
    /// Where its frames are read and written.
    pub(super) queue: Box<dyn FrameQueue>,
    /// May it hold any frame that was not read?
    pub(super) is_readable: bool,
    /// When it was written to last without a look for an answer, ms.
    written_ms: u64,
    /// Did the guest answer at once the last time?
    answers: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    frames: FrameBatch,
    /// When it was read, ms.
    read_ms: u64,
    /// Frames that have passed already, the first one's bit lowest.
    passed: u64,
}

/// A batch's frames have each a bit.
const _: () = assert!(FRAMES <= u64::BITS as usize);

/// Memory for what is read ahead.
#[derive(Default)]
pub(super) struct Readahead {
    /// Empty batches, the one that became free last on top. Never more than were in use at once.
    free: Vec<FrameBatch>,
    /// Batches in use.
    used: usize,
}

impl Tap {
    pub(super) fn new(net: NetIndex, queue: Box<dyn FrameQueue>) -> Self {
        Self {
            net,
            queue,
            is_readable: true,
            written_ms: u64::MAX,
            answers: true,
            waiting: VecDeque::new(),
        }
    }

    /// To be told of what was written to it. A guest that answers at once is looked at before the worker
    /// sleeps: a look costs less than a wake-up, but more than nothing.
    pub(super) fn note_written(&mut self, now_ms: u64) {
        if self.answers {
            self.is_readable = true;
        } else {
            self.written_ms = now_ms;
        }
    }

    /// What a look has found.
    fn note_read(&mut self, now_ms: u64, found: bool) {
        self.answers = found && (self.answers || self.written_ms == now_ms);
    }

    /// Waits anything that was read?
    pub(super) fn has_backlog(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The same tap by another queue; what was read is kept.
    pub(super) fn takes_over(&mut self, other: &mut Self) {
        self.waiting.append(&mut other.waiting);
    }
}

impl Readahead {
    /// Reads what there is in the tap and room for; gives `pass` the frames among it that are
    /// sparse. Returns how many the tap should not have given: their header is not acceptable.
    ///
    /// What a worker finds that has `rested` is mostly a single frame. If that passes, the tap is not asked
    /// whether it holds more: the next `poll` says so.
    ///
    /// # Errors
    /// The tap is gone. What it gave before is there.
    pub(super) fn read(
        &mut self,
        tap: &mut Tap,
        (now_ms, rested): (u64, bool),
        sparse: &mut SparseFlows,
        mut pass: impl FnMut(VnetHdr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut refused = 0;
        // After a stand-still of the process: a flow's silence says nothing then.
        let too_old = |oldest: &Waiting| now_ms.saturating_sub(oldest.read_ms) >= REST_MS;
        let none_passes = tap.waiting.front().is_some_and(too_old);
        let mut limit = if rested { 1 } else { FRAMES };
        let mut passes = |header, buffer: &mut [u8]| {
            let frame = buffer.get(HEADROOM..).unwrap_or_default();
            let is_sparse = sparse.admit(now_ms, none_passes, header, frame);
            if is_sparse {
                pass(header, buffer);
            }
            is_sparse
        };
        // Batches of which all passes fill no place: a guest whose flows all are sparse has its end here.
        for round in 0..BATCHES {
            if self.used >= BATCHES && !tap.waiting.is_empty() {
                break;
            }
            let new = || FrameBatch::new(FRAMES, BYTES);
            let mut frames = self.free.pop().unwrap_or_else(new);
            frames.clear();
            let (mut read, mut passed) = add(tap, &mut frames, limit, &mut passes);
            if limit == 1 && !frames.is_empty() && passed == 0 {
                (read, passed) = add(tap, &mut frames, FRAMES, &mut passes);
            }
            limit = FRAMES;
            refused += frames.refused();
            tap.is_readable = frames.is_full();
            let is_empty = frames.is_empty();
            if round == 0 {
                tap.note_read(now_ms, !is_empty);
            }
            if passed.count_ones() as usize == frames.len() {
                self.free.push(frames);
            } else {
                self.used += 1;
                tap.waiting.push_back(Waiting {
                    frames,
                    read_ms: now_ms,
                    passed,
                });
            }
            if is_empty {
                return read.map(|_| refused);
            }
            if !tap.is_readable {
                break;
            }
        }
        Ok(refused)
    }

    /// Gives `each` the frames of the oldest batch of `tap` that have not passed, in their order.
    pub(super) fn next_batch(&mut self, tap: &mut Tap, mut each: impl FnMut(VnetHdr, &mut [u8])) {
        let Some(mut oldest) = tap.waiting.pop_front() else {
            return;
        };
        for (index, (header, buffer)) in oldest.frames.frames_mut().enumerate() {
            if oldest.passed & 1 << index == 0 {
                each(header, buffer);
            }
        }
        self.give_back(oldest);
    }

    /// Forgets what was read from `tap`, which is gone. Returns how many frames that were.
    pub(super) fn forget(&mut self, tap: &mut Tap) -> u64 {
        let mut forgotten = 0;
        while let Some(waiting) = tap.waiting.pop_front() {
            forgotten += waiting.frames.len() as u64 - u64::from(waiting.passed.count_ones());
            self.give_back(waiting);
        }
        forgotten
    }

    fn give_back(&mut self, waiting: Waiting) {
        self.used -= 1;
        self.free.push(waiting.frames);
    }
}

/// Adds what waits in the tap to `frames`, at most `limit`. Returns what the tap said, and the bits of
/// those among them that `passes` has let pass.
fn add(
    tap: &mut Tap,
    frames: &mut FrameBatch,
    limit: usize,
    passes: &mut impl FnMut(VnetHdr, &mut [u8]) -> bool,
) -> (io::Result<usize>, u64) {
    let known = frames.len();
    let read = tap.queue.read_more(frames, limit);
    let added = frames.frames_mut().enumerate().skip(known);
    let passed = added.filter_map(|(index, (header, buffer))| {
        let bit = 1 << index;
        passes(header, buffer).then_some(bit)
    });
    let passed = passed.fold(0, |bits: u64, bit: u64| bits | bit);
    (read, passed)
}

#[cfg(test)]
mod tests {
    use tap_bridge::{MemoryTap, TxFrame};

    use super::*;

    /// A frame without ports from guest `guest`: a flow for each guest.
    fn frame(guest: u8, number: usize) -> Vec<u8> {
        let mut out = vec![guest; 14];
        out.extend((number as u64).to_be_bytes());
        out.resize(60, 0);
        out
    }

    fn number(buffer: &[u8]) -> (u8, u64) {
        let frame = &buffer[HEADROOM..];
        (
            frame[0],
            u64::from_be_bytes(frame[14..22].try_into().unwrap()),
        )
    }

    /// Guest 1 sends a lot; guest 2 little, in between.
    #[test]
    fn sparse_flows_pass_and_the_rest_keeps_its_order() {
        let (mut guest, queue) = MemoryTap::pair().unwrap();
        let mut tap = Tap::new(NetIndex(0), Box::new(queue));
        let (mut readahead, mut sparse) = (Readahead::default(), SparseFlows::new());
        let sent: Vec<_> = (0..200)
            .map(|n| frame(if n % 50 == 49 { 2 } else { 1 }, n))
            .collect();
        let out: Vec<_> = sent.iter().map(|frame| TxFrame::plain(frame)).collect();
        assert_eq!(guest.write_batch(&out).written, 200);
        let (mut passed, mut rest) = (Vec::new(), Vec::new());
        for (rested, known) in [(true, 1), (false, 12)] {
            let read = readahead.read(&mut tap, (1_000, rested), &mut sparse, |_, frame| {
                passed.push(number(frame))
            });
            assert_eq!(read.unwrap(), 0);
            assert_eq!(passed.len(), known, "the worker has rested at first");
        }
        let first = (0..8).map(|n| (1, n));
        let expected: Vec<_> = first.chain([49, 99, 149, 199].map(|n| (2, n))).collect();
        assert_eq!(passed, expected);
        while !tap.waiting.is_empty() {
            readahead.next_batch(&mut tap, |_, frame| rest.push(number(frame)));
        }
        assert!(rest.is_sorted() && rest.iter().all(|(guest, _)| *guest == 1));
        assert_eq!(rest.len() + passed.len(), 200);
        assert_eq!(readahead.used, 0);
    }

    /// A guest that is looked at after a write for as long as it answers in the same millisecond.
    #[test]
    fn a_guest_that_answers_at_once_is_looked_at() {
        let (mut guest, queue) = MemoryTap::pair().unwrap();
        let mut tap = Tap::new(NetIndex(0), Box::new(queue));
        let (mut readahead, mut sparse) = (Readahead::default(), SparseFlows::new());
        let mut exchange = |tap: &mut Tap, written_ms, answered_ms| {
            tap.note_written(written_ms);
            let looked = tap.is_readable;
            if let Some(ms) = answered_ms {
                guest.write_batch(&[TxFrame::plain(&frame(1, 0))]);
                readahead
                    .read(tap, (ms, true), &mut sparse, |_, _| ())
                    .unwrap();
            } else if looked {
                readahead
                    .read(tap, (written_ms, true), &mut sparse, |_, _| ())
                    .unwrap();
            }
            assert!(!tap.is_readable);
            looked
        };
        assert!(exchange(&mut tap, 1_000, Some(1_000)), "nothing is known");
        assert!(exchange(&mut tap, 1_010, Some(1_010)));
        assert!(exchange(&mut tap, 1_020, None), "for the last time");
        for ms in [1_030, 1_040, 1_050] {
            assert!(!exchange(&mut tap, ms, Some(ms + 5)), "it sends, but later");
        }
        assert!(!exchange(&mut tap, 1_060, Some(1_060)), "an answer again");
        assert!(exchange(&mut tap, 1_070, Some(1_070)));
    }

    #[test]
    fn a_tap_that_floods_leaves_the_others_a_batch() {
        let pairs: Vec<_> = (0..3).map(|_| MemoryTap::pair().unwrap()).collect();
        let (mut readahead, mut sparse) = (Readahead::default(), SparseFlows::new());
        let mut taps = Vec::new();
        let mut guests = Vec::new();
        for (net, (guest, queue)) in pairs.into_iter().enumerate() {
            guests.push(guest);
            taps.push(Tap::new(
                NetIndex(u16::try_from(net).unwrap()),
                Box::new(queue),
            ));
        }
        let flood = frame(1, 0);
        let (mut written, mut passed) = (0, 0_u64);
        for _ in 0..20 {
            for guest in &mut guests {
                let report = guest.write_batch(&[TxFrame::plain(&flood); 64]);
                written += report.written as u64;
            }
            for tap in &mut taps {
                let read = readahead.read(tap, (1, false), &mut sparse, |_, _| passed += 1);
                assert_eq!(read.unwrap(), 0);
            }
        }
        assert!(readahead.used <= BATCHES + 2, "{}", readahead.used);
        assert!(taps.iter().all(|tap| !tap.waiting.is_empty()));
        // None of the flood was forgotten uncounted; the first eight frames of it had passed.
        let forgotten: u64 = taps.iter_mut().map(|tap| readahead.forget(tap)).sum();
        let (mut left, mut batch) = (0, FrameBatch::default());
        for tap in &mut taps {
            while let count @ 1.. = tap.queue.read_batch(&mut batch).unwrap() {
                left += count as u64;
            }
        }
        assert_eq!(forgotten + passed + left, written);
        assert_eq!(readahead.used, 0);
    }
}
