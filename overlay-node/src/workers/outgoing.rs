//! The way of a frame out: guest -> tap -> parse -> `Fib::forward` -> encrypt ("seal") -> socket.
//!
//! [`Outgoing::handle_frame`] begins where a frame has been read from a tap. The kernel may hand over a
//! *GSO frame*: one large TCP or UDP frame that stands for many segments. The `Fib` is asked once for
//! it; then it is segmented, and each segment becomes a frame of its own in its own datagram.

use std::ops::Range;
use std::sync::Arc;

use nat_traversal::path::Path;
use node_core::punt::charges::{Cause, Payer};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, VlanId, classify, ethertype};
use overlay_proto::segment::is_for_nodes;
use overlay_proto::session::Session;
use overlay_proto::switching::{FibNetwork, FibPeer, Forward, MacKey, NetIndex, PuntReason};
use overlay_proto::wire::{INNER_LEN, InnerHeader, L4Checksum, Lane, Selector, max_frame, split};
use tap_bridge::VnetHdr;
use tap_bridge::offload::{self, Cutter, FrameChecksum, HEADROOM, Plan};

use super::copies::{Copies, Copy};
use super::outbox::Outbox;
use super::punt::{Context, Punt};

/// A frame id has the lane in its top 8 bits and a number in these lower ones.
const FRAME_ID_BITS: u32 = 24;

const _: () = assert!(INNER_LEN <= HEADROOM);

/// The sending half of a worker.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Number of the next fragmented frame. It wraps around. At a million fragmented frames a second a
    /// number is used again after 16 s; the receiver forgets fragments after one.
    next_frame_id: u32,
    copies: Copies,
    /// Scratch space for flooding: sealing a frame may overwrite it, so each peer gets a fresh copy.
    copy: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            next_frame_id: 0,
            copies: Copies::new(),
            copy: Vec::new(),
        }
    }

    /// Forwards one frame that was read from the tap of `net`. `header` is the virtio header that came
    /// with it; `buffer` holds [`HEADROOM`] free bytes and then the frame, and is overwritten. The
    /// datagrams are sealed on `lane` and wait in `outbox` until it is flushed.
    pub(super) fn handle_frame(
        &mut self,
        context: &Context<'_>,
        (net, lane): (NetIndex, Lane),
        header: VnetHdr,
        buffer: &mut [u8],
        outbox: &mut Outbox,
    ) {
        let bytes = buffer.get(HEADROOM..).unwrap_or_default();
        let frame = match EthernetFrame::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => return context.drops.count(error.into()),
        };
        if context.fib.left_own_socket(&frame) {
            return context.drops.count(DropReason::OverlayOnItself);
        }
        if is_for_nodes(&frame) {
            if context.charge(Payer::Tap(net), Cause::Beacon) {
                let frame = bytes.into();
                context.punt(Punt::Beacon { net, frame });
            }
            return;
        }
        let src = MacKey {
            vlan: frame.vlan(),
            mac: frame.src(),
        };
        match context.fib.forward(net, src, frame.dst(), context.now_ms) {
            Forward::Unicast {
                peer,
                session,
                path,
                selector,
            } => {
                tell(context, net, &frame, bytes);
                let to = To {
                    lane,
                    peer,
                    session,
                    path,
                    selector,
                };
                if context.fib.clamps(net) {
                    to.clamp(header, buffer);
                }
                self.send(context, &to, header, buffer, outbox);
            }
            Forward::Flood { .. } if self.goes_round(context, (net, src.vlan), bytes) => {
                context.drops.count(DropReason::GoesRound);
            }
            Forward::Flood { network, punt } => {
                tell(context, net, &frame, bytes);
                self.flood(context, (network, lane), header, buffer, outbox);
                if let Some(had) = punt {
                    each_whole(context, net, header, buffer, |frame| {
                        let had = Arc::clone(had);
                        context.punt(Punt::LocalBroadcast { net, had, frame });
                    });
                }
            }
            Forward::Local => tell(context, net, &frame, bytes),
            Forward::Punt(reason) => punt_frames(context, net, reason, header, buffer),
            Forward::Drop(DropReason::StandingBy) => {
                context.drops.count(DropReason::StandingBy);
                if context.charge(Payer::Tap(net), Cause::Standby) {
                    let vlan = src.vlan;
                    context.punt(Punt::StandingBy { net, vlan });
                }
            }
            Forward::Drop(reason) => context.drops.count(reason),
        }
    }

    /// Has the broadcast `bytes` come so often that it must be in a loop? While that is only likely, it
    /// is forwarded, and the slow path is told.
    fn goes_round(
        &mut self,
        context: &Context<'_>,
        (net, vlan): (NetIndex, VlanId),
        bytes: &[u8],
    ) -> bool {
        let copy = self.copies.judge(context.now_ms, bytes);
        if copy != Copy::Passes && context.charge(Payer::Tap(net), Cause::Loop) {
            context.punt(Punt::GoesRound { net, vlan });
        }
        copy == Copy::TooMany
    }

    /// Sends a copy of the frame to every member of the network that has a session and a path (ingress
    /// replication).
    fn flood(
        &mut self,
        context: &Context<'_>,
        (network, lane): (&FibNetwork, Lane),
        header: VnetHdr,
        buffer: &[u8],
        outbox: &mut Outbox,
    ) {
        for &slot in &network.flood {
            let Some((peer, session, path, selector)) = context.fib.sendable(slot, network.id)
            else {
                // With `punt_broadcast` the slow path gets the frame, too, and takes care of this
                // member.
                if network.punt_broadcast.is_none() {
                    context.drops.count(DropReason::NoSession);
                }
                continue;
            };
            let to = To {
                lane,
                peer,
                session,
                path,
                selector,
            };
            let mut copy = std::mem::take(&mut self.copy);
            copy.clear();
            copy.extend_from_slice(buffer);
            self.send(context, &to, header, &mut copy, outbox);
            self.copy = copy;
        }
    }

    /// Seals a frame for one peer: a plain frame as it is, a GSO frame segment by segment.
    fn send(
        &mut self,
        context: &Context<'_>,
        to: &To<'_>,
        header: VnetHdr,
        buffer: &mut [u8],
        outbox: &mut Outbox,
    ) {
        outbox.carry(buffer.get(HEADROOM..).unwrap_or_default());
        match offload::plan(header, buffer, max_frame(to.limit())) {
            Ok(Plan::Whole(checksum)) => {
                let checksum = looked_at(checksum, buffer);
                let whole = HEADROOM..buffer.len();
                let len = whole.len();
                match self.send_one(context, to, checksum, buffer, whole, outbox) {
                    Ok(()) => to.peer.counters.sent(len),
                    Err(reason) => context.drops.count(reason),
                }
            }
            Ok(Plan::Segments(cutter)) => self.send_segments(context, to, cutter, buffer, outbox),
            Err(_) => context.drops.count(DropReason::MalformedFrame),
        }
    }

    fn send_segments(
        &mut self,
        context: &Context<'_>,
        to: &To<'_>,
        mut cutter: Cutter,
        buffer: &mut [u8],
        outbox: &mut Outbox,
    ) {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(segment) = cutter.next(buffer) {
            let len = segment.len();
            match self.send_one(context, to, FrameChecksum::Partial, buffer, segment, outbox) {
                Ok(()) => {
                    frames += 1;
                    bytes += len;
                }
                Err(reason) => context.drops.count(reason),
            }
        }
        to.peer.counters.sent_all(frames, bytes);
    }

    /// Seals the frame at `place`: into one datagram if it fits, otherwise in fragments. The sealed
    /// header is written into the bytes in front of the frame, so that the frame is not copied.
    fn send_one(
        &mut self,
        context: &Context<'_>,
        to: &To<'_>,
        checksum: FrameChecksum,
        buffer: &mut [u8],
        place: Range<usize>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let mut header = InnerHeader::frame(to.selector);
        header.checksum = on_the_wire(checksum);
        if place.len() > max_frame(to.limit()) {
            let frame = buffer.get(place).ok_or(DropReason::FrameTooLarge)?;
            return self.send_pieces(context, to, header.checksum, frame, outbox);
        }
        let start = place.start.checked_sub(INNER_LEN);
        let text = start.and_then(|start| buffer.get_mut(start..place.end));
        let text = text.ok_or(DropReason::FrameTooLarge)?;
        header.write(text);
        outbox.push(to.path, context, |out| {
            to.session.seal_text(to.lane, text, out)
        })
    }

    fn send_pieces(
        &mut self,
        context: &Context<'_>,
        to: &To<'_>,
        checksum: L4Checksum,
        frame: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let plan = split(frame.len(), to.limit()).ok_or(DropReason::FrameTooLarge)?;
        let number = self.next_frame_id & ((1 << FRAME_ID_BITS) - 1);
        self.next_frame_id = self.next_frame_id.wrapping_add(1);
        let frame_id = u32::from(to.lane.0) << FRAME_ID_BITS | number;
        for (piece, range) in plan.pieces(frame_id) {
            let body = frame.get(range).ok_or(DropReason::FrameTooLarge)?;
            let header = InnerHeader {
                checksum,
                ..InnerHeader::piece(to.selector, piece)
            };
            let mut inner = [0; InnerHeader::MAX_LEN];
            let inner_len = header.write(&mut inner);
            let inner = inner.get(..inner_len).unwrap_or_default();
            outbox.push(to.path, context, |out| {
                to.session.seal_into(to.lane, inner, body, out)
            })?;
        }
        Ok(())
    }
}

/// Shows the slow path a frame that contains an IP address of its source (ARP, neighbour discovery),
/// so that the directory learns the address. The rate is limited: the guest's next such frame says
/// the same again.
fn tell(context: &Context<'_>, net: NetIndex, frame: &EthernetFrame<'_>, bytes: &[u8]) {
    if !matches!(
        frame.ethertype(),
        ethertype::ARP | ethertype::RARP | ethertype::IPV6
    ) {
        return;
    }
    let payer = Payer::Tap(net);
    if !context
        .charges
        .can_pay(context.now_ms, payer, Cause::Address)
    {
        return;
    }
    let evidence = classify(frame);
    if evidence.whole_machine || !evidence.ips.is_empty() {
        context.charge(payer, Cause::Address);
        let frame = bytes.into();
        context.punt(Punt::LocalEvidence { net, frame });
    }
}

/// Hands a frame to the slow path that the `Fib` has no destination for.
fn punt_frames(
    context: &Context<'_>,
    net: NetIndex,
    reason: PuntReason,
    header: VnetHdr,
    buffer: &mut [u8],
) {
    each_whole(context, net, header, buffer, |frame| {
        context.punt(Punt::LocalFrame { net, reason, frame });
    });
}

/// Calls `each` with every frame that `buffer` stands for, as it would look on a wire: segmented, with
/// complete checksums. The slow path handles only such frames. Each is charged to the tap of `net`, before it is copied.
fn each_whole(
    context: &Context<'_>,
    net: NetIndex,
    header: VnetHdr,
    buffer: &mut [u8],
    mut each: impl FnMut(Box<[u8]>),
) {
    let mut give = |bytes: &[u8], checksum| {
        if !context.charge_frame(Payer::Tap(net)) {
            return;
        }
        let mut frame: Box<[u8]> = bytes.into();
        if checksum == FrameChecksum::Partial && !offload::complete(&mut frame) {
            return context.drops.count(DropReason::MalformedFrame);
        }
        each(frame);
    };
    match offload::plan(header, buffer, usize::MAX) {
        Ok(Plan::Whole(checksum)) => give(buffer.get(HEADROOM..).unwrap_or_default(), checksum),
        Ok(Plan::Segments(mut cutter)) => {
            while let Some(segment) = cutter.next(buffer) {
                let bytes = buffer.get(segment).unwrap_or_default();
                give(bytes, FrameChecksum::Partial);
            }
        }
        Err(_) => context.drops.count(DropReason::MalformedFrame),
    }
}

/// Verifies the checksum of a frame from a guest without offload, which has computed the checksum
/// itself. The receiver may coalesce frames whose checksum is known to be right. That saves more than
/// the check costs: 70 ns for a full frame.
fn looked_at(checksum: FrameChecksum, buffer: &[u8]) -> FrameChecksum {
    let frame = buffer.get(HEADROOM..).unwrap_or_default();
    if checksum == FrameChecksum::Complete && offload::verify(frame) {
        FrameChecksum::Verified
    } else {
        checksum
    }
}

/// The same in the sealed header (TRUST.md 15).
const fn on_the_wire(checksum: FrameChecksum) -> L4Checksum {
    match checksum {
        FrameChecksum::Complete => L4Checksum::Complete,
        FrameChecksum::Partial => L4Checksum::Partial,
        FrameChecksum::Verified => L4Checksum::Verified,
    }
}

/// The destination of a frame: a peer, and how to reach it.
struct To<'a> {
    lane: Lane,
    peer: &'a FibPeer,
    session: &'a Arc<Session>,
    path: &'a Path,
    selector: Selector,
}

impl To<'_> {
    /// The largest sealed datagram: what is proven to pass on the path, and what fits a slot of the send
    /// buffer.
    fn limit(&self) -> usize {
        self.peer.datagram_limit.min(Outbox::MAX_SEALED)
    }

    /// Lowers the MSS in a TCP SYN, so that each segment of the connection fits into one datagram.
    fn clamp(&self, header: VnetHdr, buffer: &mut [u8]) {
        let checksum = if header.needs_checksum() {
            FrameChecksum::Partial
        } else {
            FrameChecksum::Complete
        };
        let frame = buffer.get_mut(HEADROOM..).unwrap_or_default();
        offload::clamp_mss(frame, max_frame(self.limit()), checksum);
    }
}
