//! Frames that were read from the taps and wait to be sent.
//!
//! A worker reads everything that waits in a tap, into batches whose memory is reused. So it sees the
//! frames of sparse flows ([`SparseFlows`]) among the rest and sends them first; the rest keeps its
//! order. An idle worker reads one frame first: if that is of a sparse flow, it is sent before the
//! worker asks the tap for more.

use std::collections::VecDeque;
use std::io;

use overlay_proto::switching::NetIndex;
use tap_bridge::batch::MAX_FRAME_BYTES;
use tap_bridge::offload::HEADROOM;
use tap_bridge::{FrameBatch, FrameQueue, VnetHdr};

use super::sparse::{REST_MS, SparseFlows};

/// Batches for all taps of a worker together, 3 MiB in all; each tap may have one more.
const BATCHES: usize = 24;

/// Frames in one batch. A worker sends a batch at once.
const FRAMES: usize = 64;

/// Bytes in one batch, enough for two GSO frames. A sparse flow's frame waits at most until one batch of
/// each tap has been sealed, a quarter of a millisecond.
const BYTES: usize = 2 * (HEADROOM + MAX_FRAME_BYTES);

/// One queue of a tap, and the frames that were read from it.
pub(super) struct Tap {
    /// The tap's network.
    pub(super) net: NetIndex,
    /// The queue: frames are read from it and written to it.
    pub(super) queue: Box<dyn FrameQueue>,
    /// May the queue hold frames that were not read yet?
    pub(super) is_readable: bool,
    /// When a frame was last written to it without looking for an answer right after, ms.
    written_ms: u64,
    /// Did the guest answer within the same millisecond the last time?
    answers: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    frames: FrameBatch,
    /// When it was read, ms.
    read_ms: u64,
    /// A mask of the frames that were already sent; the lowest bit is the first frame.
    passed: u64,
}

/// The mask has a bit for each frame of a batch.
const _: () = assert!(FRAMES <= u64::BITS as usize);

/// The memory for the frames that wait.
#[derive(Default)]
pub(super) struct Readahead {
    /// Empty batches, as a stack: the one that became free last is used first. Never more than were in
    /// use at the same time.
    free: Vec<FrameBatch>,
    /// Number of batches in use.
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

    /// Called after a frame was written to the tap. If the guest tends to answer at once, the worker
    /// reads the tap once more before it sleeps. Such a read is cheaper than a wake-up, but not free.
    pub(super) fn note_written(&mut self, now_ms: u64) {
        if self.answers {
            self.is_readable = true;
        } else {
            self.written_ms = now_ms;
        }
    }

    /// Called after a read, with whether it found anything.
    fn note_read(&mut self, now_ms: u64, found: bool) {
        self.answers = found && (self.answers || self.written_ms == now_ms);
    }

    /// Are there frames that were read and not sent?
    pub(super) fn has_backlog(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes the waiting frames of `other`, which is the same tap with another queue.
    pub(super) fn takes_over(&mut self, other: &mut Self) {
        self.waiting.append(&mut other.waiting);
    }
}

impl Readahead {
    /// Reads what the tap holds, as far as there is room. Calls `pass` for the frames of sparse flows,
    /// to be sent at once. Returns how many frames were refused because the tap gave an invalid virtio
    /// header.
    ///
    /// If the worker was idle (`rested`), there is mostly a single frame. If that is of a sparse flow,
    /// the tap is not read again: the next `poll` says whether it holds more.
    ///
    /// # Errors
    /// The tap's device is gone. Frames that were read before are kept.
    pub(super) fn read(
        &mut self,
        tap: &mut Tap,
        (now_ms, rested): (u64, bool),
        sparse: &mut SparseFlows,
        mut pass: impl FnMut(VnetHdr, &mut [u8]),
    ) -> io::Result<usize> {
        let mut refused = 0;
        // The process stood still. A flow may seem silent only because nobody read its frames.
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
        // A batch of which every frame was sent at once takes no room, so this bound ends the loop for a
        // guest that sends sparse flows only.
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

    /// Calls `each` for the frames of the oldest batch that have not been sent, in order.
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

    /// Drops what was read from `tap`, because the tap is gone. Returns the number of frames.
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

/// Reads at most `limit` frames from the tap into `frames`. Returns the result of the read, and a mask
/// of the new frames that `passes` accepted.
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

    /// A frame without ports from guest `guest`: each guest is one flow.
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

    /// Guest 1 sends a lot; guest 2 sends a little in between.
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

    /// After a write the tap is read at once, as long as the guest answers within the same millisecond.
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
        // Every frame of the flood was counted or is still there; the first eight had been sent.
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
