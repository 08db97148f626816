//! A frame out: guest -> tap -> parse -> `Fib::forward` -> seal -> socket.

use std::sync::Arc;

use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, classify, ethertype};
use overlay_proto::session::Session;
use overlay_proto::switching::{FibPeer, Forward, MacKey, NetIndex};
use overlay_proto::wire::{InnerHeader, Lane, Selector, max_frame, split};

use super::outbox::Outbox;
use super::punt::{Context, Punt};

/// Frames that are shown to the slow path for the addresses in them, per second: a guest that
/// floods ARP must not push handshakes out of the queue.
const TOLD_PER_SECOND: u32 = 100;

/// Frame ids have the lane in the top 8 bits.
const FRAME_ID_BITS: u32 = 24;

/// The sending half of a worker.
#[derive(Debug)]
pub(super) struct Outgoing {
    lane: Lane,
    /// Wraps; at a million split frames a second a number comes again after 16 s, and its pieces
    /// are forgotten after one.
    next_frame_id: u32,
    /// The second that the clock shows, and what was told in it.
    told: (u64, u32),
}

impl Outgoing {
    pub(super) const fn new(lane: Lane) -> Self {
        Self {
            lane,
            next_frame_id: 0,
            told: (0, 0),
        }
    }

    /// One frame that the tap of `net` gave.
    pub(super) fn handle_frame(
        &mut self,
        context: &Context<'_>,
        net: NetIndex,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) {
        let frame = match EthernetFrame::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => return context.drops.count(error.into()),
        };
        if context.fib.is_own_datagram(&frame) {
            return context.drops.count(DropReason::OverlayOnItself);
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
                let to = To {
                    peer,
                    session,
                    path,
                    selector,
                };
                self.send(context, &to, bytes, outbox);
                self.tell(context, net, &frame, bytes);
            }
            Forward::Flood { network, punt } => {
                for &slot in &network.flood {
                    match context.fib.sendable(slot, network.id) {
                        Some((peer, session, path, selector)) => {
                            let to = To {
                                peer,
                                session,
                                path,
                                selector,
                            };
                            self.send(context, &to, bytes, outbox);
                        }
                        None => context.drops.count(DropReason::NoSession),
                    }
                }
                if punt {
                    let frame = bytes.into();
                    context.punt(Punt::LocalBroadcast { net, frame });
                }
                self.tell(context, net, &frame, bytes);
            }
            Forward::Local => self.tell(context, net, &frame, bytes),
            Forward::Punt(reason) => {
                let frame = bytes.into();
                context.punt(Punt::LocalFrame { net, reason, frame });
            }
            Forward::Drop(reason) => context.drops.count(reason),
        }
    }

    /// Shows the slow path a frame that tells an address of its source, a few times a second: what
    /// one frame tells, the next of its kind tells again.
    fn tell(
        &mut self,
        context: &Context<'_>,
        net: NetIndex,
        frame: &EthernetFrame<'_>,
        bytes: &[u8],
    ) {
        if !matches!(frame.ethertype(), ethertype::ARP | ethertype::IPV6) {
            return;
        }
        let second = context.now_ms / 1000;
        if second != self.told.0 {
            self.told = (second, 0);
        }
        if self.told.1 < TOLD_PER_SECOND && !classify(frame).ips.is_empty() {
            self.told.1 += 1;
            let frame = bytes.into();
            context.punt(Punt::LocalEvidence { net, frame });
        }
    }

    /// Seals a frame for one peer: in one datagram if it fits, else in pieces.
    fn send(&mut self, context: &Context<'_>, to: &To<'_>, frame: &[u8], outbox: &mut Outbox) {
        let sent = if frame.len() <= max_frame(to.limit()) {
            let header = InnerHeader::frame(to.selector);
            self.seal(context, to, &header, frame, outbox)
        } else {
            self.send_pieces(context, to, frame, outbox)
        };
        match sent {
            Ok(()) => to.peer.counters.sent(frame.len()),
            Err(reason) => context.drops.count(reason),
        }
    }

    fn send_pieces(
        &mut self,
        context: &Context<'_>,
        to: &To<'_>,
        frame: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let plan = split(frame.len(), to.limit()).ok_or(DropReason::FrameTooLarge)?;
        let number = self.next_frame_id & ((1 << FRAME_ID_BITS) - 1);
        self.next_frame_id = self.next_frame_id.wrapping_add(1);
        let frame_id = u32::from(self.lane.0) << FRAME_ID_BITS | number;
        for (piece, range) in plan.pieces(frame_id) {
            let body = frame.get(range).ok_or(DropReason::FrameTooLarge)?;
            let header = InnerHeader::piece(to.selector, piece);
            self.seal(context, to, &header, body, outbox)?;
        }
        Ok(())
    }

    fn seal(
        &self,
        context: &Context<'_>,
        to: &To<'_>,
        header: &InnerHeader,
        body: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let mut inner = [0; InnerHeader::MAX_LEN];
        let inner_len = header.write(&mut inner);
        let inner = inner.get(..inner_len).unwrap_or_default();
        outbox.push(to.path, context.fib, context.drops, |out| {
            to.session.seal_into(self.lane, inner, body, out)
        })
    }
}

/// Where a frame goes.
struct To<'a> {
    peer: &'a FibPeer,
    session: &'a Arc<Session>,
    path: &'a Path,
    selector: Selector,
}

impl To<'_> {
    /// The largest sealed datagram: what is proven on the path, and fits a slot.
    fn limit(&self) -> usize {
        self.peer.datagram_limit.min(Outbox::MAX_SEALED)
    }
}
