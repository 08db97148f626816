//! Coalesces frames on their way to the taps: consecutive frames of a flow are written as one GSO frame.
//!
//! A *run* is what one [`Merger`] holds: a frame, and those that continue it. There is a run for each of
//! a few flows, so frames of several flows can be coalesced even if they come in turn. A run is written
//! when a frame of its flow comes that does not continue it, when its slot is needed for another flow,
//! and at the end of the batch. Nothing is held back in the hope of more frames.
//!
//! Frames of one flow are always written in the order in which they came. Different flows may overtake
//! each other. If the flow of a frame cannot be determined (a fragment, for example), the frame is
//! written after everything that came before it, and before everything that comes later.

use arrayvec::ArrayVec;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::PeerCounters;
use overlay_proto::wire::{Selector, SessionIndex};
use tap_bridge::TxFrame;
use tap_bridge::offload::{FrameChecksum, Merger};

use super::delivery::{Place, Taps};
use super::flow::flow_hash;
use super::punt::Context;

/// Flows that are coalesced at the same time. 19 KiB; a single flow touches one of them.
const MAX_RUNS: usize = 16;

/// Where a frame came from. All frames of a run have one origin and the same headers, so the `Fib` is
/// asked only for the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) session: SessionIndex,
    pub(super) selector: Selector,
}

/// Where a run is written to, and what counts it.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) origin: Origin,
    pub(super) place: Place,
    pub(super) counters: &'a PeerCounters,
}

struct Run<'a> {
    flow: u64,
    target: Target<'a>,
    /// Empty once the run has been written.
    merger: Merger<'a>,
    frames: usize,
    bytes: usize,
}

/// The runs of one batch of datagrams.
pub(super) struct Runs<'a> {
    runs: ArrayVec<Run<'a>, MAX_RUNS>,
    /// The run that got the previous frame. The next frame mostly belongs to it, too.
    latest: usize,
    merges_udp: bool,
}

impl<'a> Runs<'a> {
    /// Coalesces UDP only if the taps accept coalesced UDP.
    #[inline]
    pub(super) fn new(merges_udp: bool) -> Self {
        Self {
            runs: ArrayVec::new(),
            latest: 0,
            merges_udp,
        }
    }

    /// Adds the frame to its flow's run if it continues the run; otherwise returns the frame.
    pub(super) fn join(
        &mut self,
        origin: Origin,
        frame: &'a mut [u8],
        checksum: FrameChecksum,
    ) -> Result<(), &'a mut [u8]> {
        let Some(run) = self.runs.get_mut(self.latest) else {
            return Err(frame);
        };
        let frame = match run.join(origin, frame, checksum) {
            Ok(()) => return Ok(()),
            Err(frame) => frame,
        };
        // There is no other run to look for.
        if self.runs.len() == 1 {
            return Err(frame);
        }
        let Some(index) = self.index_of(flow_hash(frame)) else {
            return Err(frame);
        };
        let Some(run) = self.runs.get_mut(index) else {
            return Err(frame);
        };
        run.join(origin, frame, checksum)?;
        self.latest = index;
        Ok(())
    }

    /// Begins a run with a frame that continues none. The previous run of the same flow is written
    /// first.
    ///
    /// # Errors
    /// `MalformedFrame` if the checksum is said to be partial and the frame has no checksum to complete
    /// (TRUST.md 16).
    pub(super) fn begin(
        &mut self,
        target: Target<'a>,
        frame: &'a mut [u8],
        checksum: FrameChecksum,
        out: &mut Out<'_, '_>,
    ) -> Result<(), DropReason> {
        let bytes = frame.len();
        if checksum == FrameChecksum::Complete {
            // Such a frame is never coalesced, and mostly comes alone: a ping, an ARP request.
            self.flush(out);
            if out.write(target.place, TxFrame::plain(frame)) {
                target.counters.received(bytes);
            }
            return Ok(());
        }
        let flow = flow_hash(frame);
        let index = self.place_for(flow, target);
        let Some(run) = self.runs.get_mut(index) else {
            return Err(DropReason::TapError);
        };
        run.write(out);
        let pushed = run.merger.push(frame, checksum);
        pushed.map_err(|_| DropReason::MalformedFrame)?;
        (run.flow, run.target) = (flow, target);
        (run.frames, run.bytes) = (1, bytes);
        self.latest = index;
        if run.merger.is_opaque() {
            let others = self.runs.iter_mut().enumerate();
            let others = others.filter(|(other, _)| *other != index);
            others.for_each(|(_, run)| run.write(out));
            self.flush(out);
        }
        Ok(())
    }

    /// Writes all runs.
    pub(super) fn flush(&mut self, out: &mut Out<'_, '_>) {
        for run in &mut self.runs {
            run.write(out);
        }
    }

    fn index_of(&self, flow: u64) -> Option<usize> {
        self.runs.iter().position(|run| run.flow == flow)
    }

    /// The slot for the flow's run: the one it has, a free one, or that of another flow. The hash
    /// chooses the other flow, so that most flows keep their slots when there are more flows than slots.
    fn place_for(&mut self, flow: u64, target: Target<'a>) -> usize {
        if let Some(index) = self.index_of(flow) {
            return index;
        }
        if self.runs.is_full() {
            return flow as usize % MAX_RUNS;
        }
        self.runs.push(Run {
            flow,
            target,
            merger: Merger::for_tap(self.merges_udp),
            frames: 0,
            bytes: 0,
        });
        self.runs.len() - 1
    }
}

impl<'a> Run<'a> {
    fn join(
        &mut self,
        origin: Origin,
        frame: &'a mut [u8],
        checksum: FrameChecksum,
    ) -> Result<(), &'a mut [u8]> {
        if self.target.origin != origin {
            return Err(frame);
        }
        let bytes = frame.len();
        self.merger.join(frame, checksum)?;
        self.frames += 1;
        self.bytes += bytes;
        Ok(())
    }

    fn write(&mut self, out: &mut Out<'_, '_>) {
        if let Some(merged) = self.merger.take()
            && out.write(self.target.place, merged.frame())
        {
            self.target.counters.received_all(self.frames, self.bytes);
        }
    }
}

/// Where runs are written to.
pub(super) struct Out<'o, 'c> {
    pub(super) context: &'o Context<'c>,
    pub(super) taps: &'o mut Taps,
}

impl Out<'_, '_> {
    fn write(&mut self, place: Place, frame: TxFrame<'_>) -> bool {
        self.taps.write(self.context, place, frame)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Instant;

    use node_core::punt::charges::Charges;
    use overlay_proto::ids::PeerId;
    use overlay_proto::switching::{DropCounters, Fib, NetIndex};
    use proptest::prelude::*;
    use tap_bridge::offload::{HEADROOM, Plan, plan};
    use tap_bridge::{FrameBatch, FrameQueue, MemoryTap};

    use super::super::handoff::handoff;
    use super::super::readahead::Tap;
    use super::*;

    /// What a guest sends in these tests.
    #[derive(Debug, Clone, Copy)]
    enum Kind {
        /// UDP with a checksum that was verified.
        Udp,
        /// UDP with a checksum that nobody has verified.
        Unknown,
        /// UDP without a checksum, which is allowed.
        Bare,
        /// A fragment of a UDP datagram. It has no ports.
        Fragment,
        /// A fragment that its sender marked as verified, which nobody can have done.
        Claimed,
    }

    /// A datagram of the flow. Its number is in the IP identification and in the payload.
    fn frame(flow: u8, number: u16, len: usize, kind: Kind) -> Vec<u8> {
        let mut out = vec![2; 12];
        out.extend([0x08, 0x00, 0x45, 0]);
        out.extend(u16::try_from(28 + len).unwrap().to_be_bytes());
        out.extend(number.to_be_bytes());
        let offset = if matches!(kind, Kind::Fragment | Kind::Claimed) {
            0x20
        } else {
            0x40
        };
        out.extend([offset, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, flow]);
        let sum = out[14..34].chunks(2).fold(0_u32, |sum, word| {
            sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
        });
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        out[24..26].copy_from_slice(&sum.to_be_bytes());
        out.extend([0, 9, 0, flow]);
        out.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
        // Any checksum, or none: nothing here verifies it.
        let sum = if matches!(kind, Kind::Bare) { 0 } else { 7 };
        out.extend([sum; 2]);
        out.extend(number.to_be_bytes());
        out.resize(42 + len, flow);
        out
    }

    fn checksum(kind: Kind) -> FrameChecksum {
        match kind {
            Kind::Udp | Kind::Bare | Kind::Claimed => FrameChecksum::Verified,
            Kind::Unknown | Kind::Fragment => FrameChecksum::Complete,
        }
    }

    /// Writes frames to runs, in batches. Returns what the guest gets, segmented again, as pairs of flow
    /// and number, and the number of writes.
    fn deliver(frames: &[(u8, Kind)], batch: usize) -> (Vec<(u8, u16)>, usize) {
        let (mut guest, queue) = MemoryTap::pair_with(true).unwrap();
        let mut taps = Taps(vec![Tap::new(NetIndex(0), Box::new(queue))]);
        let (fib, drops, counters) = (
            Fib::default(),
            DropCounters::default(),
            PeerCounters::default(),
        );
        let (senders, _punted) = handoff(1, Arc::default());
        let charges = Charges::new(1);
        let context = Context {
            fib: &fib,
            drops: &drops,
            punts: &senders[0],
            charges: &charges,
            me: PeerId([1; 32]),
            now: Instant::now(),
            now_ms: 0,
        };
        let target = Target {
            origin: Origin {
                session: SessionIndex(1),
                selector: Selector(1),
            },
            place: Place {
                net: NetIndex(0),
                learnt: true,
            },
            counters: &counters,
        };
        let mut numbers = HashMap::new();
        let mut sent: Vec<_> = frames
            .iter()
            .map(|&(flow, kind)| {
                let number = numbers.entry(flow).or_insert(0_u16);
                *number += 1;
                (frame(flow, *number, 100, kind), checksum(kind))
            })
            .collect();
        let (mut got, mut writes) = (Vec::new(), 0);
        let mut read = FrameBatch::default();
        for batch in sent.chunks_mut(batch) {
            let mut runs = Runs::new(true);
            let mut out = Out {
                context: &context,
                taps: &mut taps,
            };
            for (frame, checksum) in batch {
                if let Err(frame) = runs.join(target.origin, frame, *checksum) {
                    runs.begin(target, frame, *checksum, &mut out).unwrap();
                }
            }
            runs.flush(&mut out);
            while let count @ 1.. = guest.read_batch(&mut read).unwrap() {
                writes += count;
                for (header, buffer) in read.frames_mut() {
                    let mut take = |bytes: &[u8]| {
                        got.push((bytes[33], u16::from_be_bytes([bytes[42], bytes[43]])));
                    };
                    match plan(header, buffer, usize::MAX).unwrap() {
                        Plan::Whole(_) => take(&buffer[HEADROOM..]),
                        Plan::Segments(mut cutter) => {
                            while let Some(segment) = cutter.next(buffer) {
                                take(&buffer[segment]);
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(drops.occurred().count(), 0);
        let counted = counters
            .rx_frames
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(counted, frames.len() as u64);
        (got, writes)
    }

    #[test]
    fn flows_that_come_in_turn_are_merged_each() {
        let turns: Vec<_> = (0..640).map(|n| (n as u8 % 16, Kind::Udp)).collect();
        let (got, writes) = deliver(&turns, 320);
        assert_eq!(got.len(), 640);
        assert_eq!(writes, 32, "16 flows in 2 batches");
        // With more flows than slots, most are still coalesced.
        let turns: Vec<_> = (0..800).map(|n| ((n % 20) as u8, Kind::Udp)).collect();
        let (got, writes) = deliver(&turns, 400);
        assert_eq!(got.len(), 800);
        assert!(writes < 500, "{writes}");
    }

    proptest! {
        /// Nothing is lost, and no frame overtakes another one between the same addresses.
        #[test]
        fn every_flow_keeps_its_order(
            frames in prop::collection::vec(
                (0_u8..24, prop_oneof![8 => Just(Kind::Udp), 1 => Just(Kind::Unknown), 1 => Just(Kind::Bare),
                    1 => Just(Kind::Fragment), 1 => Just(Kind::Claimed)]),
                1..400,
            ),
            batch in 1_usize..200,
        ) {
            let (got, _) = deliver(&frames, batch);
            prop_assert_eq!(got.len(), frames.len());
            let mut last = HashMap::new();
            for (flow, number) in got {
                let before = last.insert(flow, number).unwrap_or(0);
                prop_assert_eq!(number, before + 1, "flow {}", flow);
            }
        }
    }
}
