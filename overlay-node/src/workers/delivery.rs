//! The way of a decrypted frame to the tap: the `Fib` checks it, [`Runs`] coalesces it with others of
//! its flow. The frame is not copied; it stays where its datagram was decrypted.
//!
//! With several workers a tap has several queues. When a worker writes a frame to its queue, the kernel
//! learns that the answers of that flow belong to the same queue, so both directions of a flow come to
//! one worker. If the nodes at both ends learned like this, two flows that begin at the same time could
//! make them swap queues for ever, and a swap can reorder frames. So only one end learns, the one with
//! the larger node id; at the other end flows stay where the kernel's hash puts them. The kernel counts
//! everything that is not IP as a single flow, whoever sent it: from such frames no end learns.

use node_core::punt::charges::Payer;
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

/// A worker's queue of each tap.
#[derive(Default)]
pub(super) struct Taps(pub(super) Vec<Tap>);

/// Where a frame is written, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) net: NetIndex,
    /// Does the tap learn from this frame which queue its flow belongs to?
    pub(super) learnt: bool,
}

impl Taps {
    /// Does the tap of this network take only plain frames, without offload?
    fn is_plain(&self, net: NetIndex) -> bool {
        let tap = self.0.iter().find(|tap| tap.net == net);
        tap.is_some_and(|tap| tap.queue.offload() == Offload::Off)
    }

    /// Do all taps accept coalesced UDP frames? Taps without any offload do not matter here: they get
    /// plain frames anyway.
    pub(super) fn take_udp(&self) -> bool {
        let mut queues = self.0.iter().map(|tap| tap.queue.offload());
        queues.all(|offload| offload != Offload::Tcp)
    }

    /// Writes one frame. Returns `false`, and counts the drop, if the tap did not take it.
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

/// Delivers the frames of one batch of datagrams to the taps.
pub(super) struct Delivery<'a> {
    pub(super) context: Context<'a>,
    taps: &'a mut Taps,
    runs: Runs<'a>,
    marks: Marks,
    /// The TOS or traffic class of the datagram that is being handled.
    pub(super) outer_mark: u8,
    /// The session of the previous datagram. The next one mostly has the same.
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

    /// The session with this local index.
    pub(super) fn session(&mut self, index: SessionIndex) -> Option<&'a FibSession> {
        let is_latest = |from: &&FibSession| from.session.local_index == index;
        if let Some(from) = self.latest.filter(is_latest) {
            return Some(from);
        }
        self.latest = self.context.fib.sessions.get(&index);
        self.latest
    }

    /// Takes a frame that came in one datagram.
    ///
    /// # Errors
    /// Why the frame is not delivered. Handing it to the slow path is no error.
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

    /// Writes a frame that was reassembled from fragments.
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
        // The mark of the last fragment stands for all: the fragments of a frame are sent with one mark.
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

    /// Writes everything that has been coalesced to the taps.
    pub(super) fn flush(&mut self) {
        let mut out = Out {
            context: &self.context,
            taps: self.taps,
        };
        self.runs.flush(&mut out);
    }

    /// Decides where the frame goes. Returns `None` if the frame was handed to the slow path.
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
            // The sender forwards it for another node that claims the source MAC. Only the slow path
            // knows when that is allowed.
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

    /// Hands a frame to the slow path. The slow path may write it to the tap at once, so everything that
    /// came before it is written first.
    fn punt(
        &mut self,
        from: &FibSession,
        inner: &InnerHeader,
        net: NetIndex,
        reason: PuntReason,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let peer = from.session.peer;
        if !self.context.charge_frame(Payer::Peer(net, peer)) {
            return Ok(());
        }
        self.flush();
        // The slow path handles only frames as they are on a wire.
        if inner.checksum == L4Checksum::Partial && !offload::complete(bytes) {
            return Err(DropReason::MalformedFrame);
        }
        self.context.punt(Punt::PeerFrame {
            net,
            peer,
            reason,
            hops: inner.hops,
            forwarded: inner.forwarded,
            frame: (&*bytes).into(),
        });
        Ok(())
    }
}

/// Does the node `me` learn the queue of a flow with `peer` from the frames of that peer? See the head
/// of this module.
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

/// The frame is said to have a partial checksum, but has no checksum that could be completed (TRUST.md
/// 16).
const fn refused(_: offload::MergeError) -> DropReason {
    DropReason::MalformedFrame
}
