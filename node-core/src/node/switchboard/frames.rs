//! Frames that the fast path could not place: what the networks decide of them, and how they leave.

use std::sync::Arc;

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::EthernetFrame;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{NetIndex, PuntReason};
use overlay_proto::wire::Forwarded;

use crate::floods::Flood;
use crate::node::effects::{Effect, TapFrame};
use crate::node::networks::frames::{Addressed, Delivery, Way};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// A frame from a local tap whose source or destination the `Fib` did not know.
    pub(crate) fn handle_local_frame(&mut self, tick: Tick, net: NetIndex, bytes: Vec<u8>) {
        let own = self.own();
        let placed = self
            .networks
            .handle_local_frame(tick, &self.outside, own, net, bytes);
        if let Some(frame) = placed {
            // The claim goes first: the peer checks the frame's source against it.
            self.settle_network(tick, net);
            self.send_local_frame(tick, net, frame);
        }
    }

    /// A frame of one of our guests tells something of it; the fast path has sent it.
    pub(crate) fn learn_addresses(&mut self, tick: Tick, net: NetIndex, bytes: &[u8]) {
        let own = self.own();
        self.networks.learn_addresses(tick, own, net, bytes);
    }

    /// Sends a frame whose source is ours to wherever its destination is.
    fn send_local_frame(&mut self, tick: Tick, net: NetIndex, frame: Addressed) {
        match self.networks.find_way(tick, &self.outside, net, frame) {
            Way::ToAll(bytes) => self.flood(tick, net, bytes, Arc::default()),
            Way::To(peer, bytes) => self.send_or_wait(tick, net, peer, bytes),
            Way::None => {}
        }
    }

    /// Sends `bytes` to `peer`, or lets it wait until a session is there. What the channel holds goes first: a claim in
    /// it may be that of the frame's source.
    fn send_or_wait(&mut self, tick: Tick, net: NetIndex, peer: PeerId, bytes: Vec<u8>) {
        self.settle_channel(tick, peer);
        if self.send_frame(net, peer, &bytes) {
            return;
        }
        self.networks
            .wait_for_session(tick, &self.outside, net, peer, bytes);
        self.reach(tick, peer);
    }

    /// Sends what waited for a session with `peer`: broadcasts, then what is for a guest there.
    pub(crate) fn release_for_session(&mut self, tick: Tick, peer: PeerId) {
        self.settle_channel(tick, peer);
        for net in self.networks.indices() {
            let keys = self.candidates.underlay.relay_keys();
            let (peers, out) = (&mut self.peers, &mut self.outside);
            self.networks
                .offer_floods(tick, net, peer, |network, frame| {
                    peers.send_frame(peer, network, None, frame, keys, out)
                });
            for frame in self.networks.for_session.take((net, peer)) {
                self.send_or_wait(tick, net, peer, frame);
            }
        }
    }

    /// Sends one copy to every member but those that `had` one, in order: by the fast path, which could not send to all; see
    /// `docs/adr/0004-head-end-replication.md`. Those without a session get it as soon as they have one: else the first ARP request
    /// of a guest would be lost.
    pub(crate) fn flood(&mut self, tick: Tick, net: NetIndex, bytes: Vec<u8>, had: Arc<[PeerId]>) {
        let me = self.standing.identity.me;
        let mut flood = Flood::new(tick.now, bytes, had);
        for id in self.networks.members_of(net, me) {
            if flood.was_had_by(&id) {
                continue;
            }
            // A claim in the channel may be that of the frame's source.
            self.settle_channel(tick, id);
            let known = self.peers.known.get(&id);
            let away = known.is_some_and(|peer| peer.is_away(tick.now));
            let sent = self.send_frame(net, id, &flood.frame);
            if flood.note_tried(id, sent, away) {
                self.reach(tick, id);
            }
        }
        self.networks.keep_flood(&self.outside, net, flood);
    }

    /// Seals one frame to `peer` on the slow path's lane; `false` if there is no session or path.
    pub(crate) fn send_frame(&mut self, net: NetIndex, peer: PeerId, bytes: &[u8]) -> bool {
        self.send_marked(net, peer, None, bytes)
    }

    /// As [`Node::send_frame`]; with `passed_on` for another node.
    fn send_marked(
        &mut self,
        net: NetIndex,
        peer: PeerId,
        passed_on: Option<(u8, Forwarded)>,
        bytes: &[u8],
    ) -> bool {
        let Some(network) = self.networks.id_of(net) else {
            return false;
        };
        let keys = self.candidates.underlay.relay_keys();
        self.peers
            .send_frame(peer, network, passed_on, bytes, keys, &mut self.outside)
    }

    /// A frame from `peer` that the fast path would not deliver.
    pub(crate) fn handle_peer_frame(
        &mut self,
        tick: Tick,
        net: NetIndex,
        peer: PeerId,
        reason: PuntReason,
        bytes: Vec<u8>,
    ) {
        let (own, out) = (self.own(), &mut self.outside);
        let delivery = self
            .networks
            .handle_peer_frame(tick, out, own, net, (peer, reason), bytes);
        self.deliver(net, peer, delivery);
    }

    /// A frame that `peer` passes on for another node.
    pub(crate) fn handle_forwarded(
        &mut self,
        tick: Tick,
        net: NetIndex,
        (peer, hops, mark): (PeerId, u8, Forwarded),
        bytes: Vec<u8>,
    ) {
        let (own, out) = (self.own(), &mut self.outside);
        let delivery =
            self.networks
                .handle_forwarded(tick, out, own, net, (peer, hops, mark), bytes);
        self.deliver(net, peer, delivery);
    }

    fn deliver(&mut self, net: NetIndex, from: PeerId, delivery: Delivery) {
        match delivery {
            Delivery::Here(bytes) => self.deliver_here(net, from, bytes),
            Delivery::Onward {
                to,
                hops,
                mark,
                bytes,
            } => {
                // It is late already: no waiting for a session.
                if !self.send_marked(net, to, Some((hops, mark)), &bytes) {
                    self.outside.drops.count(DropReason::NoSession);
                }
            }
            Delivery::None => {}
        }
    }

    /// Writes a frame from `peer` to the tap.
    fn deliver_here(&mut self, net: NetIndex, peer: PeerId, bytes: Vec<u8>) {
        if EthernetFrame::parse(&bytes).is_ok_and(|frame| self.publication.is_twin(net, &frame)) {
            return self.outside.drops.count(DropReason::MacTwin);
        }
        let peer = self.peers.known.get(&peer);
        let from = peer.map(|peer| Arc::clone(&peer.counters));
        let write = TapFrame { net, bytes, from };
        self.outside.effects.push(Effect::Write(write));
    }

    /// Something in the directory of `net` changed: frames that waited for it may go on.
    pub(crate) fn release_waiting(&mut self, tick: Tick, net: NetIndex) {
        let own = self.own();
        let ready = self.networks.take_ready(tick, own, net);
        for (peer, frame) in ready.arrived {
            let out = &mut self.outside;
            let delivery = self.networks.deliver(tick, out, own, net, (peer, frame));
            self.deliver(net, peer, delivery);
        }
        for frame in ready.leaving {
            self.send_local_frame(tick, net, frame);
        }
    }
}
