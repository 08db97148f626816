//! Frames on their way to the taps, those of one flow that follow each other as one.
//!
//! A *run* is what one [`Merger`] holds: a frame, and those that continue it. There is one for each of
//! a few flows, so that flows whose frames come in turn are merged as well as one that comes alone.
//! A run is written when a frame of its flow comes that does not continue it, when its place is
//! needed, and at the end of the batch: nothing waits for what may come.
//!
//! Frames of one flow are never written in another order than they came. The order of flows among each
//! other is free. A frame whose flow cannot be told, a fragment for one, is written after all that came
//! before it, and before all that comes.

use arrayvec::ArrayVec;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::PeerCounters;
use overlay_proto::wire::{Selector, SessionIndex};
use tap_bridge::TxFrame;
use tap_bridge::offload::{FrameChecksum, Merger};

use super::delivery::{Place, Taps};
use super::flow::flow_hash;
use super::punt::Context;

/// Flows that are merged at once. 19 KiB, of which a flow alone touches one.
const MAX_RUNS: usize = 16;

/// Whose a frame is. One verdict of the `Fib` serves all frames of a run: they have one origin and the
/// same headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) session: SessionIndex,
    pub(super) selector: Selector,
}

/// Where a run goes.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) origin: Origin,
    pub(super) place: Place,
    pub(super) counters: &'a PeerCounters,
}

struct Run<'a> {
    flow: u64,
    target: Target<'a>,
    /// Holds nothing when the run was written.
    merger: Merger<'a>,
    frames: usize,
    bytes: usize,
}

/// The runs of one batch.
pub(super) struct Runs<'a> {
    runs: ArrayVec<Run<'a>, MAX_RUNS>,
    /// Which of them got the last frame: it mostly gets the next one.
    latest: usize,
    merges_udp: bool,
}

impl<'a> Runs<'a> {
    /// Merges UDP only if the taps take it.
    #[inline]
    pub(super) fn new(merges_udp: bool) -> Self {
        Self {
            runs: ArrayVec::new(),
            latest: 0,
            merges_udp,
        }
    }

    /// Takes the frame if it continues its flow's run, or gives it back.
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
        // Without a second run there is nothing to look for.
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

    /// Begins a run with a frame that continues none; the flow's last one is written.
    ///
    /// # Errors
    /// `MalformedFrame`: its checksum is said to be partial, and it has none to complete
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
            // Never merged, and mostly alone: a ping, an ARP request.
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

    /// Writes what there is.
    pub(super) fn flush(&mut self, out: &mut Out<'_, '_>) {
        for run in &mut self.runs {
            run.write(out);
        }
    }

    fn index_of(&self, flow: u64) -> Option<usize> {
        self.runs.iter().position(|run| run.flow == flow)
    }

    /// The place of the flow's run: the one it has, a new one, or somebody else's. Whose, the hash says:
    /// of more flows than places, in turn, most keep theirs.
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
    use std::time::Instant;

    use overlay_proto::ids::PeerId;
    use overlay_proto::switching::{DropCounters, Fib, NetIndex};
    use proptest::prelude::*;
    use tap_bridge::offload::{HEADROOM, Plan, plan};
    use tap_bridge::{FrameBatch, FrameQueue, MemoryTap};
    use tokio::sync::mpsc;

    use super::super::readahead::Tap;
    use super::*;

    /// What a guest sends.
    #[derive(Debug, Clone, Copy)]
    enum Kind {
        /// UDP whose checksum is known to be right.
        Udp,
        /// The same, not known.
        Unknown,
        /// UDP without a checksum, which is right, too.
        Bare,
        /// A fragment of UDP: no ports.
        Fragment,
        /// One whose sender says that its checksum is right, which nobody can know.
        Claimed,
    }

    /// A datagram of the flow: its number is the identification, and behind the header.
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
        // Any checksum, or none: nobody here looks whether it is right.
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

    /// Gives frames in batches to runs. Returns what the guest gets, cut again, as flow and number, and
    /// how many writes it was.
    fn deliver(frames: &[(u8, Kind)], batch: usize) -> (Vec<(u8, u16)>, usize) {
        let (mut guest, queue) = MemoryTap::pair_with(true).unwrap();
        let mut taps = Taps(vec![Tap::new(NetIndex(0), Box::new(queue))]);
        let (fib, drops, counters) = (
            Fib::default(),
            DropCounters::default(),
            PeerCounters::default(),
        );
        let (punts, _punted) = mpsc::channel(1);
        let context = Context {
            fib: &fib,
            drops: &drops,
            punts: &punts,
            beacons: &punts,
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
        // Of more flows than there are places, most still are.
        let turns: Vec<_> = (0..800).map(|n| ((n % 20) as u8, Kind::Udp)).collect();
        let (got, writes) = deliver(&turns, 400);
        assert_eq!(got.len(), 800);
        assert!(writes < 500, "{writes}");
    }

    proptest! {
        /// Nothing is lost, and no frame passes another between the same addresses.
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
