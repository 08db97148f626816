//! Frames that the slow path sends: those that had to wait, that go to all, that are passed on.

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::wire::{Forwarded, InnerHeader, SAFE_DATAGRAM, max_frame, split};

use super::Peers;
use crate::node::outside::Outside;
use crate::underlay::RelayKeys;

/// The top eight bits of a frame's id are the lane, which is 0 here: no worker uses the same id.
const FRAME_IDS: u32 = 0x00ff_ffff;

impl Peers {
    /// Seals one frame of `network` to `id`; `false` if there is no session or path. `passed_on`: how often the frame was
    /// passed on, and whose it is. `keys`: those of our own allocations.
    pub(crate) fn send_frame(
        &mut self,
        id: PeerId,
        network: NetworkId,
        passed_on: Option<(u8, Forwarded)>,
        frame: &[u8],
        keys: &RelayKeys,
        out: &mut Outside,
    ) -> bool {
        let selector = self.tunnels.current(id).and_then(|session| {
            let mut shared = session.networks.iter();
            let shared = shared.find(|shared| shared.network == network)?;
            Some(shared.send)
        });
        let Some(selector) = selector else {
            return false;
        };
        let header = InnerHeader {
            hops: passed_on.map_or(0, |(hops, _)| hops),
            forwarded: passed_on.map(|(_, mark)| mark),
            ..InnerHeader::frame(selector)
        };
        let limit = SAFE_DATAGRAM - passed_on.map_or(0, |_| Forwarded::LEN);
        let sent = if frame.len() <= max_frame(limit) {
            self.seal_to(id, (&header, frame), keys, out)
        } else {
            self.send_pieces(id, (header, limit), frame, keys, out)
        };
        if sent && let Some(peer) = self.known.get(&id) {
            peer.counters.sent(frame.len());
        }
        sent
    }

    /// `whole`: the header that the frame would have in one datagram.
    fn send_pieces(
        &mut self,
        id: PeerId,
        (whole, limit): (InnerHeader, usize),
        frame: &[u8],
        keys: &RelayKeys,
        out: &mut Outside,
    ) -> bool {
        let Some(plan) = split(frame.len(), limit) else {
            out.drops.count(DropReason::FrameTooLarge);
            return true;
        };
        self.next_frame_id = (self.next_frame_id + 1) & FRAME_IDS;
        for (piece, range) in plan.pieces(self.next_frame_id) {
            let Some(part) = frame.get(range) else {
                return true;
            };
            let header = InnerHeader {
                hops: whole.hops,
                forwarded: whole.forwarded,
                ..InnerHeader::piece(whole.selector, piece)
            };
            if !self.seal_to(id, (&header, part), keys, out) {
                return false;
            }
        }
        true
    }
}
