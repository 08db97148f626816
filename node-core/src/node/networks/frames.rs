//! Frames that the fast path could not place.

use std::sync::Arc;

use overlay_proto::directory::{LateFrame, LateVerdict, LocalVerdict, Resolution};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{EthernetFrame, classify};
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{MacKey, NetIndex, PuntReason};
use overlay_proto::wire::{Forwarded, InnerHeader, SAFE_DATAGRAM, max_frame, split};

use crate::floods::Flood;
use crate::node::effects::{Effect, TapFrame};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

/// The parts of a frame that the slow path decides by.
struct Addresses {
    src: MacKey,
    dst: MacKey,
}

impl Addresses {
    fn of(frame: &EthernetFrame<'_>) -> Self {
        let vlan = frame.vlan();
        Self {
            src: MacKey {
                vlan,
                mac: frame.src(),
            },
            dst: MacKey {
                vlan,
                mac: frame.dst(),
            },
        }
    }
}

impl Node {
    /// A frame from a local tap whose source or destination the `Fib` did not know.
    pub(crate) fn handle_local_frame(&mut self, tick: Tick, net: NetIndex, bytes: Vec<u8>) {
        let Ok(frame) = EthernetFrame::parse(&bytes) else {
            return self.outside.drops.count(DropReason::MalformedFrame);
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        if !src.mac.is_claimable() {
            return self.outside.drops.count(DropReason::MacReserved);
        }
        if dst.mac.is_bridge_reserved() && !(dst.mac.is_bpdu() && self.carries_bpdus(net)) {
            return self.outside.drops.count(DropReason::BridgeReserved);
        }
        if self.networks.stands_by(net, src.vlan) {
            return self.outside.drops.count(DropReason::StandingBy);
        }
        let evidence = classify(&frame);
        let (me, probe_mac) = (
            self.standing.identity.me,
            self.standing.identity.probe_mac(),
        );
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let owner = network.directory.owner(tick.now, &src);
        if owner.is_some_and(|owner| owner != me) {
            // It moved here, or it went round by a LAN that another node is plugged into as well.
            network.lan.machine.handle_suspicion(tick.now, src.vlan);
        }
        network.lan.machine.handle_vlan(tick.now, src.vlan);
        let is_answer = dst.mac == probe_mac;
        if src.mac == probe_mac || (is_answer && network.local.contains_key(&src)) {
            // A guest answers our own question; the workers have noted that they heard it.
            return self.learn_addresses(tick, net, &bytes);
        }
        let ips: Vec<_> = evidence.ips.iter().collect();
        let directory = &mut network.directory;
        let verdict = if evidence.whole_machine {
            directory.handle_machine_frame(tick.now, src, evidence.class)
        } else {
            directory.handle_local_frame(tick.now, src, evidence.class, &ips)
        };
        self.touch_network(net);
        match verdict {
            // For us alone: a guest that nobody claimed answers our question.
            _ if is_answer => {}
            LocalVerdict::Forward => {
                // The claim goes first: the peer checks the frame's source against it.
                self.settle_network(tick, net);
                self.send_local_frame(tick, net, dst, bytes);
            }
            LocalVerdict::Hold => {
                let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
                    return;
                };
                let left = network.waiting.for_owner.push(tick.now, src, bytes);
                self.outside.drops.add(DropReason::PendingOverflow, left);
            }
            LocalVerdict::Drop(reason) => self.outside.drops.count(reason),
        }
    }

    fn carries_bpdus(&self, net: NetIndex) -> bool {
        let network = self.networks.all.get(usize::from(net.0));
        network.is_some_and(|network| network.switches().bpdu)
    }

    /// A frame of one of our guests tells an address of it, or that the machine has come here; the fast
    /// path has sent it.
    pub(crate) fn learn_addresses(&mut self, tick: Tick, net: NetIndex, bytes: &[u8]) {
        let Ok(frame) = EthernetFrame::parse(bytes) else {
            return;
        };
        let Addresses { src, .. } = Addresses::of(&frame);
        if self.networks.stands_by(net, src.vlan) {
            return;
        }
        let evidence = classify(&frame);
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if network.directory.owner(tick.now, &src) == Some(self.standing.identity.me) {
            let ips: Vec<_> = evidence.ips.iter().collect();
            let directory = &mut network.directory;
            // Our claim stands, so the verdict is to forward, which was done.
            let _ = if evidence.whole_machine {
                directory.handle_machine_frame(tick.now, src, evidence.class)
            } else {
                directory.handle_local_frame(tick.now, src, evidence.class, &ips)
            };
            self.touch_network(net);
        }
    }

    /// Sends a frame whose source is ours to wherever its destination is.
    pub(crate) fn send_local_frame(
        &mut self,
        tick: Tick,
        net: NetIndex,
        dst: MacKey,
        bytes: Vec<u8>,
    ) {
        if dst.mac.is_group() {
            return self.flood(tick, net, bytes, Arc::default());
        }
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        match network.directory.resolve(tick.now, dst) {
            Resolution::Local => {}
            Resolution::Remote(peer, _) => self.send_or_wait(tick, net, peer, bytes),
            Resolution::Pending => {
                let left = network.waiting.for_lookup.push(tick.now, dst, bytes);
                self.outside.drops.add(DropReason::PendingOverflow, left);
                self.touch_network(net);
            }
            Resolution::Negative => {
                if network.directory.handle_unknown_frame(tick.now, dst) {
                    let left = network.waiting.for_lookup.push(tick.now, dst, bytes);
                    self.outside.drops.add(DropReason::PendingOverflow, left);
                    self.touch_network(net);
                } else {
                    self.outside.drops.count(DropReason::UnknownMac);
                }
            }
        }
    }

    /// Sends `bytes` to `peer`, or lets it wait until a session is there. What the channel holds goes first: a claim in
    /// it may be that of the frame's source.
    fn send_or_wait(&mut self, tick: Tick, net: NetIndex, peer: PeerId, bytes: Vec<u8>) {
        self.settle_channel(tick, peer);
        if self.send_frame(net, peer, &bytes) {
            return;
        }
        let left = self.networks.for_session.push(tick.now, (net, peer), bytes);
        self.outside.drops.add(DropReason::PendingOverflow, left);
        self.reach(tick, peer);
    }

    /// Sends what waited for a session with `peer`: broadcasts, then what is for a guest there.
    pub(crate) fn release_for_session(&mut self, tick: Tick, peer: PeerId) {
        self.settle_channel(tick, peer);
        for index in 0..self.networks.all.len() {
            let Ok(net) = u16::try_from(index).map(NetIndex) else {
                return;
            };
            let floods = self.networks.all.get_mut(index).map(|one| &mut one.floods);
            let mut floods = floods.map(std::mem::take).unwrap_or_default();
            floods.offer(tick.now, peer, |frame| self.send_frame(net, peer, frame));
            if let Some(network) = self.networks.all.get_mut(index) {
                network.floods = floods;
            }
            for frame in self.networks.for_session.take((net, peer)) {
                self.send_or_wait(tick, net, peer, frame);
            }
        }
    }

    /// Sends one copy to every member but those that `had` one, in order: by the fast path, which could not send to all; see
    /// `docs/adr/0004-head-end-replication.md`. Those without a session get it as soon as they have one: else the first ARP request
    /// of a guest would be lost. One that is away is not waited for.
    pub(crate) fn flood(&mut self, tick: Tick, net: NetIndex, bytes: Vec<u8>, had: Arc<[PeerId]>) {
        let mut flood = Flood::new(tick.now, bytes, had);
        for id in self.networks.members_of(net, self.standing.identity.me) {
            if flood.was_had_by(&id) {
                continue;
            }
            // A claim in the channel may be that of the frame's source.
            self.settle_channel(tick, id);
            let known = self.peers.known.get(&id);
            let away = known.is_some_and(|peer| peer.is_away(tick.now));
            if self.send_frame(net, id, &flood.frame) {
                flood.note_had(id);
            } else if !away {
                flood.note_missed(id);
                self.reach(tick, id);
            }
        }
        if let Some(network) = self.networks.all.get_mut(usize::from(net.0)) {
            let lost = network.floods.push(flood);
            self.outside.drops.add(DropReason::PendingOverflow, lost);
        }
    }

    /// Seals one frame to `peer` on the slow path's lane; `false` if there is no session or path.
    pub(crate) fn send_frame(&mut self, net: NetIndex, peer: PeerId, bytes: &[u8]) -> bool {
        self.send_marked(net, peer, 0, None, bytes)
    }

    /// As [`Node::send_frame`], for a frame that is passed on `hops` times with `mark`.
    fn send_marked(
        &mut self,
        net: NetIndex,
        peer: PeerId,
        hops: u8,
        mark: Option<Forwarded>,
        bytes: &[u8],
    ) -> bool {
        let Some(network) = self
            .networks
            .all
            .get(usize::from(net.0))
            .map(|n| n.secret.id)
        else {
            return false;
        };
        let selector = self.peers.tunnels.current(peer).and_then(|session| {
            session
                .networks
                .iter()
                .find(|shared| shared.network == network)
                .map(|s| s.send)
        });
        let Some(selector) = selector else {
            return false;
        };
        let header = InnerHeader {
            hops,
            forwarded: mark,
            ..InnerHeader::frame(selector)
        };
        let limit = SAFE_DATAGRAM - mark.map_or(0, |_| Forwarded::LEN);
        let sent = if bytes.len() <= max_frame(limit) {
            self.seal_to(peer, &header, bytes)
        } else {
            self.send_pieces(peer, header, bytes, limit)
        };
        if sent && let Some(peer) = self.peers.known.get(&peer) {
            peer.counters.sent(bytes.len());
        }
        sent
    }

    /// `whole`: the header that the frame would have in one datagram.
    fn send_pieces(
        &mut self,
        peer: PeerId,
        whole: InnerHeader,
        bytes: &[u8],
        limit: usize,
    ) -> bool {
        let Some(plan) = split(bytes.len(), limit) else {
            self.outside.drops.count(DropReason::FrameTooLarge);
            return true;
        };
        // The top eight bits are the lane, which is 0 here: no worker uses the same id.
        self.networks.next_frame_id = (self.networks.next_frame_id + 1) & 0x00ff_ffff;
        for (piece, range) in plan.pieces(self.networks.next_frame_id) {
            let Some(part) = bytes.get(range) else {
                return true;
            };
            let header = InnerHeader {
                hops: whole.hops,
                forwarded: whole.forwarded,
                ..InnerHeader::piece(whole.selector, piece)
            };
            if !self.seal_to(peer, &header, part) {
                return false;
            }
        }
        true
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
        let Ok(frame) = EthernetFrame::parse(&bytes) else {
            return self.outside.drops.count(DropReason::MalformedFrame);
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let owner = network.directory.owner(tick.now, &src);
        match reason {
            PuntReason::SourceNotClaimed if owner != Some(peer) => {
                // The claim may be on its way; it reaches us on another lane than the frame.
                let left = network.waiting.for_claim.push(tick.now, (peer, src), bytes);
                self.outside.drops.add(DropReason::SourceNotClaimed, left);
                self.look_up_source(tick, net, src);
            }
            _ => self.deliver(tick, net, peer, dst, &bytes),
        }
    }

    /// A source that is not known here may be known to others: ask, as for a destination.
    fn look_up_source(&mut self, tick: Tick, net: NetIndex, src: MacKey) {
        if let Some(network) = self.networks.all.get_mut(usize::from(net.0)) {
            let _ = network.directory.resolve(tick.now, src);
            self.touch_network(net);
        }
    }

    /// Writes a checked frame to the tap, if its destination is here.
    fn deliver(&mut self, tick: Tick, net: NetIndex, peer: PeerId, dst: MacKey, bytes: &[u8]) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if !dst.mac.is_group()
            && network.directory.owner(tick.now, &dst) != Some(self.standing.identity.me)
        {
            let late = LateFrame {
                dst,
                from: peer,
                origin: peer,
                hops: 0,
                mark: None,
            };
            return self.handle_late(tick, net, &late, bytes);
        }
        if dst.mac.is_group() && network.lan.machine.is_shut(dst.vlan) {
            return self.outside.drops.count(DropReason::StandingBy);
        }
        self.deliver_here(net, peer, bytes);
    }

    /// A frame that `peer` passes on for another node.
    pub(crate) fn handle_forwarded(
        &mut self,
        tick: Tick,
        net: NetIndex,
        peer: PeerId,
        hops: u8,
        mark: Forwarded,
        bytes: &[u8],
    ) {
        let Ok(frame) = EthernetFrame::parse(bytes) else {
            return self.outside.drops.count(DropReason::MalformedFrame);
        };
        let Addresses { src, dst } = Addresses::of(&frame);
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let origin = network.directory.owner(tick.now, &src);
        let Some(origin) = origin.filter(|origin| *origin != self.standing.identity.me) else {
            return self.outside.drops.count(DropReason::SourceNotClaimed);
        };
        let late = LateFrame {
            dst,
            from: peer,
            origin,
            hops,
            mark: Some(mark),
        };
        self.handle_late(tick, net, &late, bytes);
    }

    fn handle_late(&mut self, tick: Tick, net: NetIndex, late: &LateFrame, bytes: &[u8]) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let verdict = network.directory.late_frame(tick.now, late);
        self.touch_network(net);
        match verdict {
            LateVerdict::Deliver => self.deliver_here(net, late.from, bytes),
            // The forwarder writes it, too, and one copy is enough.
            LateVerdict::Undecided if self.networks.stands_by(net, late.dst.vlan) => {
                self.outside.drops.count(DropReason::StandingBy);
            }
            LateVerdict::Undecided if self.networks.has_undecided_port(net) => {
                // An entry from when it was elsewhere would send the frame back to our tap.
                self.networks
                    .free_on_bridge(&mut self.outside, net, late.dst);
                self.deliver_here(net, late.from, bytes);
            }
            LateVerdict::Undecided => self.outside.drops.count(DropReason::UnknownMac),
            LateVerdict::Forward { to, hops, mark } => {
                // It is late already: no waiting for a session.
                if !self.send_marked(net, to, hops, Some(mark), bytes) {
                    self.outside.drops.count(DropReason::NoSession);
                }
            }
            LateVerdict::Drop(reason) => self.outside.drops.count(reason),
        }
    }

    /// Writes a frame from `peer` to the tap.
    fn deliver_here(&mut self, net: NetIndex, peer: PeerId, bytes: &[u8]) {
        if EthernetFrame::parse(bytes).is_ok_and(|frame| self.is_twin(net, &frame)) {
            return self.outside.drops.count(DropReason::MacTwin);
        }
        let from = self
            .peers
            .known
            .get(&peer)
            .map(|peer| Arc::clone(&peer.counters));
        self.outside.effects.push(Effect::Write(TapFrame {
            net,
            bytes: bytes.to_vec(),
            from,
        }));
    }

    /// Something in the directory of `net` changed: frames that waited for it may go on.
    pub(crate) fn release_waiting(&mut self, tick: Tick, net: NetIndex) {
        let me = self.standing.identity.me;
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let mut claimed = Vec::new();
        for (peer, src) in network.waiting.for_claim.keys() {
            if network.directory.owner(tick.now, &src) == Some(peer) {
                claimed.extend(
                    network
                        .waiting
                        .for_claim
                        .take((peer, src))
                        .into_iter()
                        .map(|f| (peer, f)),
                );
            }
        }
        let mut ours = Vec::new();
        for src in network.waiting.for_owner.keys() {
            if network.directory.owner(tick.now, &src) == Some(me) {
                ours.extend(network.waiting.for_owner.take(src));
            }
        }
        let mut found = Vec::new();
        for dst in network.waiting.for_lookup.keys() {
            if network.directory.owner(tick.now, &dst).is_some() {
                found.extend(
                    network
                        .waiting
                        .for_lookup
                        .take(dst)
                        .into_iter()
                        .map(|f| (dst, f)),
                );
            }
        }
        for (peer, frame) in claimed {
            if let Ok(parsed) = EthernetFrame::parse(&frame) {
                let dst = Addresses::of(&parsed).dst;
                self.deliver(tick, net, peer, dst, &frame);
            }
        }
        for frame in ours {
            if let Ok(parsed) = EthernetFrame::parse(&frame) {
                let dst = Addresses::of(&parsed).dst;
                self.send_local_frame(tick, net, dst, frame);
            }
        }
        for (dst, frame) in found {
            self.send_local_frame(tick, net, dst, frame);
        }
    }

    /// Drops what waited too long.
    pub(crate) fn expire_waiting(&mut self, tick: Tick) {
        let drops = &self.outside.drops;
        for network in &mut self.networks.all {
            drops.add(DropReason::NoSession, network.floods.expire(tick.now));
            drops.add(
                DropReason::UnknownMac,
                network.waiting.for_lookup.expire(tick.now),
            );
            drops.add(
                DropReason::MacHeldElsewhere,
                network.waiting.for_owner.expire(tick.now),
            );
            drops.add(
                DropReason::SourceNotClaimed,
                network.waiting.for_claim.expire(tick.now),
            );
        }
        drops.add(
            DropReason::NoSession,
            self.networks.for_session.expire(tick.now),
        );
    }
}
