//! Whole frames on their way from peers to the taps: judged by the `Fib`, and merged ([`Runs`]). They
//! stay where their datagrams were opened.
//!
//! With several workers a tap has several queues, and the kernel learns from a write to one that the
//! guest's answers belong to it: so both directions of a flow come to one worker. If both ends
//! learned, two that begin at once would swap their queues for ever, and with each swap the order
//! could break. So the end with the smaller name *leads*: it learns nothing, its flows stay where the
//! hash puts them, and the other end follows. What is not IP is one flow to the kernel whoever
//! sent it: from that nobody learns.

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, ethertype};
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{Accept, FibPeer, FibSession, MacKey, NetIndex, PuntReason};
use overlay_proto::wire::{InnerHeader, L4Checksum, SessionIndex, max_frame};
use tap_bridge::offload::{self, FrameChecksum, Marks, Merger};
use tap_bridge::{Offload, TxFrame};

use super::punt::{Context, Punt};
use super::readahead::Tap;
use super::runs::{Origin, Out, Runs, Target};

/// The taps of a worker.
#[derive(Default)]
pub(super) struct Taps(pub(super) Vec<Tap>);

/// Where a frame is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) net: NetIndex,
    /// Does the tap learn from it which worker the flow belongs to?
    pub(super) learnt: bool,
}

impl Taps {
    /// Does the network's tap want frames as they are on a wire?
    fn is_plain(&self, net: NetIndex) -> bool {
        let tap = self.0.iter().find(|tap| tap.net == net);
        tap.is_some_and(|tap| tap.queue.offload() == Offload::Off)
    }

    /// Do all of them take UDP super-frames? Those that take none at all get plain frames.
    pub(super) fn take_udp(&self) -> bool {
        let mut queues = self.0.iter().map(|tap| tap.queue.offload());
        queues.all(|offload| offload != Offload::Tcp)
    }

    /// Writes one frame; `false`, and counted, when the tap did not take it.
    pub(super) fn write(
        &mut self,
        context: &Context<'_>,
        place: Place,
        frame: TxFrame<'_>,
    ) -> bool {
        let frames = 1 + frame.rest.len() as u64;
        let Some(tap) = self.0.iter_mut().find(|tap| tap.net == place.net) else {
            context.drops.add(DropReason::TapError, frames);
            return false;
        };
        tap.note_written(context.now_ms);
        let queue = &mut tap.queue;
        let report = if place.learnt {
            queue.write_batch(&[frame])
        } else {
            queue.write_unlearnt(&[frame])
        };
        if report.full > 0 {
            context.drops.add(DropReason::TapFull, frames);
        }
        if report.failed > 0 {
            context.drops.add(DropReason::TapError, frames);
        }
        report.written == 1
    }
}

/// The way to the taps for one batch of datagrams.
pub(super) struct Delivery<'a> {
    pub(super) context: Context<'a>,
    taps: &'a mut Taps,
    runs: Runs<'a>,
    marks: Marks,
    /// TOS or traffic class of the datagram that is at hand.
    pub(super) outer_mark: u8,
    /// The session of the datagram before; the next mostly has the same.
    latest: Option<&'a FibSession>,
}

impl<'a> Delivery<'a> {
    #[inline]
    pub(super) fn new(context: Context<'a>, taps: &'a mut Taps, marks: Marks) -> Self {
        let runs = Runs::new(taps.take_udp());
        Self {
            context,
            taps,
            runs,
            marks,
            outer_mark: 0,
            latest: None,
        }
    }

    /// The session with this index of ours.
    pub(super) fn session(&mut self, index: SessionIndex) -> Option<&'a FibSession> {
        let is_latest = |from: &&FibSession| from.session.local_index == index;
        if let Some(from) = self.latest.filter(is_latest) {
            return Some(from);
        }
        self.latest = self.context.fib.sessions.get(&index);
        self.latest
    }

    /// A frame that came in one datagram, where it was opened.
    ///
    /// # Errors
    /// Why it is not delivered. One that goes to the slow path is no error.
    pub(super) fn take(
        &mut self,
        from: &'a FibSession,
        inner: &InnerHeader,
        frame: &'a mut [u8],
    ) -> Result<(), DropReason> {
        let checksum = from_the_wire(inner.checksum);
        let origin = Origin {
            session: from.session.local_index,
            selector: inner.selector,
        };
        let mut frame = frame;
        if !self.marks.inward(frame, self.outer_mark) {
            return Err(DropReason::CongestionMarked);
        }
        if inner.forwarded.is_none() {
            frame = match self.runs.join(origin, frame, checksum) {
                Ok(()) => return Ok(()),
                Err(frame) => frame,
            };
        }
        let Some((place, peer)) = self.judge(from, inner, frame)? else {
            return Ok(());
        };
        if self.taps.is_plain(place.net) {
            return self.write_plain(place, peer, checksum, frame);
        }
        let target = Target {
            origin,
            place,
            counters: &peer.counters,
        };
        let mut out = Out {
            context: &self.context,
            taps: self.taps,
        };
        self.runs.begin(target, frame, checksum, &mut out)
    }

    /// A frame that was rejoined from pieces.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn write_now(
        &mut self,
        from: &'a FibSession,
        inner: &InnerHeader,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        self.flush();
        // The mark of the piece that completes it speaks for all: one train carries them.
        if !self.marks.inward(frame, self.outer_mark) {
            return Err(DropReason::CongestionMarked);
        }
        let len = frame.len();
        let Some((place, peer)) = self.judge(from, inner, frame)? else {
            return Ok(());
        };
        let checksum = from_the_wire(inner.checksum);
        if self.taps.is_plain(place.net) {
            return self.write_plain(place, peer, checksum, frame);
        }
        let mut alone = Merger::new();
        alone.push(frame, checksum).map_err(refused)?;
        if let Some(merged) = alone.take()
            && self.taps.write(&self.context, place, merged.frame())
        {
            peer.counters.received(len);
        }
        Ok(())
    }

    fn write_plain(
        &mut self,
        place: Place,
        peer: &FibPeer,
        checksum: FrameChecksum,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        if checksum == FrameChecksum::Partial && !offload::complete(frame) {
            return Err(DropReason::MalformedFrame);
        }
        if self.taps.write(&self.context, place, TxFrame::plain(frame)) {
            peer.counters.received(frame.len());
        }
        Ok(())
    }

    /// Gives the tap what there is.
    pub(super) fn flush(&mut self) {
        let mut out = Out {
            context: &self.context,
            taps: self.taps,
        };
        self.runs.flush(&mut out);
    }

    /// Where the frame goes; `None` when the slow path has it now.
    fn judge(
        &mut self,
        from: &'a FibSession,
        inner: &InnerHeader,
        frame: &mut [u8],
    ) -> Result<Option<(Place, &'a FibPeer)>, DropReason> {
        let fib = self.context.fib;
        let parsed = EthernetFrame::parse(frame)?;
        if fib.is_for_own_socket(&parsed) {
            return Err(DropReason::OverlayOnItself);
        }
        let src = MacKey {
            vlan: parsed.vlan(),
            mac: parsed.src(),
        };
        let ip = matches!(parsed.ethertype(), ethertype::IPV4 | ethertype::IPV6);
        let learnt = ip && follows(self.context.me, from.session.peer);
        if inner.forwarded.is_some() {
            // Its source is another node's: only the slow path knows when that is right.
            let net = fib.network_of(&from.session, inner.selector);
            let net = net.ok_or(DropReason::UnknownNetwork)?;
            self.punt(from, inner, net, PuntReason::SourceNotClaimed, frame)?;
            return Ok(None);
        }
        match fib.accept(from, inner.selector, src, parsed.dst()) {
            Accept::Deliver(net, peer) => {
                if fib.clamps(net) {
                    let limit = max_frame(peer.datagram_limit);
                    offload::clamp_mss(frame, limit, from_the_wire(inner.checksum));
                }
                Ok(Some((Place { net, learnt }, peer)))
            }
            Accept::Punt(net, reason) => {
                self.punt(from, inner, net, reason, frame)?;
                Ok(None)
            }
            Accept::Drop(reason) => Err(reason),
        }
    }

    /// Shows the slow path a frame. It may write it at once, so what came before is written first.
    fn punt(
        &mut self,
        from: &FibSession,
        inner: &InnerHeader,
        net: NetIndex,
        reason: PuntReason,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        self.flush();
        // The slow path knows frames only as they are on a wire.
        if inner.checksum == L4Checksum::Partial && !offload::complete(bytes) {
            return Err(DropReason::MalformedFrame);
        }
        self.context.punt(Punt::PeerFrame {
            net,
            peer: from.session.peer,
            reason,
            hops: inner.hops,
            forwarded: inner.forwarded,
            frame: (&*bytes).into(),
        });
        Ok(())
    }
}

/// Does the node `me` put a flow with `peer` on the queue on which the peer's half of it comes?
fn follows(me: PeerId, peer: PeerId) -> bool {
    me > peer
}

const fn from_the_wire(checksum: L4Checksum) -> FrameChecksum {
    match checksum {
        L4Checksum::Complete => FrameChecksum::Complete,
        L4Checksum::Partial => FrameChecksum::Partial,
        L4Checksum::Verified => FrameChecksum::Verified,
    }
}

/// A frame whose checksum is said to be partial, and that has none to complete (TRUST.md 16).
const fn refused(_: offload::MergeError) -> DropReason {
    DropReason::MalformedFrame
}
