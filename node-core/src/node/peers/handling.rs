//! What goes to and from peers: handshakes, probes, messages on the channel.

use nat_traversal::agent::{PathEvent, ProbeMessage};
use nat_traversal::path::{Path, PathKind};
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::Chain;
use overlay_proto::tunnels::TunnelEvent;
use overlay_proto::wire::peer_message::PeerMessage;
use overlay_proto::wire::{
    DatagramKind, InnerHeader, InnerKind, Lane, SAFE_DATAGRAM, SessionIndex, sizes,
};

use crate::node::peers::peer::Peer;
use crate::node::peers::whereabouts::ListSource;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::punt::Punt;

/// The slow path's lane (TRUST.md 12).
const SLOW_LANE: Lane = Lane(0);

impl Node {
    /// One thing the fast path could not decide.
    pub fn handle_punt(&mut self, tick: Tick, punt: Punt) {
        match punt {
            Punt::LocalFrame { net, frame, .. } => {
                self.handle_local_frame(tick, net, frame.into_vec());
            }
            Punt::LocalBroadcast { net, had, frame } => {
                self.flood(tick, net, frame.into_vec(), had);
            }
            Punt::LocalEvidence { net, frame } => self.learn_addresses(tick, net, &frame),
            Punt::Beacon { net, frame } => self.handle_beacon(tick, net, frame.into_vec()),
            Punt::StandingBy { net, vlan } => self.note_standby_vlan(tick, net, vlan),
            Punt::GoesRound { net, vlan } => self.ask_for_loop(tick.now, net, vlan),
            Punt::PeerFrame {
                net,
                peer,
                hops,
                forwarded: Some(mark),
                frame,
                ..
            } => self.handle_forwarded(tick, net, peer, hops, mark, &frame),
            Punt::PeerFrame {
                net,
                peer,
                reason,
                frame,
                ..
            } => {
                self.handle_peer_frame(tick, net, peer, reason, frame.into_vec());
            }
            Punt::Inner {
                session,
                peer,
                path,
                header,
                body,
            } => {
                self.handle_inner(tick, session, peer, path, header, &body);
            }
            Punt::Opened {
                session,
                peer,
                path,
                received,
            } => self.handle_opened(tick, session, peer, (path, received)),
            Punt::Stray { path } => self.handle_stray(tick, path),
            Punt::Datagram { path, bytes } => self.handle_datagram(tick, path, &bytes),
            Punt::TapLost { net } => self.lose_tap(tick, net),
        }
    }

    fn handle_opened(
        &mut self,
        tick: Tick,
        session: SessionIndex,
        id: PeerId,
        (path, received): (Path, usize),
    ) {
        self.peers
            .tunnels
            .handle_opened(tick.now, session, path, received);
        if let Some(peer) = self.peers.known.get_mut(&id) {
            peer.agent.handle_received(path, received);
            peer.heard.on = Some(path);
            peer.heard.at = Some(tick.now);
            peer.agent.handle_traffic(tick.now, path);
            self.touch_peer(id);
        }
    }

    /// Somebody sends, from where a peer was met before, under a session that we do not have: the
    /// peer is there and does not know that we have restarted. A handshake goes out now instead of
    /// when its turn comes. The stray proves nothing, so all it can do is bounded: towards the
    /// address where the peer was proven last, no other, once a second, within what silent
    /// addresses may get.
    fn handle_stray(&mut self, tick: Tick, path: Path) {
        let filter = self.candidates.underlay.filter();
        let tunnels = &self.peers.tunnels;
        let Some(peer) = self.peers.known.values_mut().find(|peer| {
            peer.whereabouts.was_met_on(&path, filter) && tunnels.current(peer.id).is_none()
        }) else {
            return;
        };
        let (id, Some(static_key)) = (peer.id, peer.static_key) else {
            return;
        };
        if !peer.attempts.may_answer_stray(tick.now)
            || !self.peers.probe_budget.take(tick.now, path.remote.ip())
            || self.peers.tunnels.repeat(id, path)
        {
            return;
        }
        let entropy = &mut self.outside.entropy;
        self.peers
            .tunnels
            .connect(tick.now, tick.wall, entropy, id, static_key, &[path]);
    }

    /// Ends all sessions, because their counters or their age cannot be trusted any more
    /// (TRUST.md 12), and begins new ones.
    pub fn end_all_sessions(&mut self, tick: Tick, why: &str) {
        tracing::warn!(why, "all sessions end and begin anew");
        self.begin_incarnation();
        self.peers.tunnels.close_all(tick.now);
        // Handled now: a peer is reached anew only when its old session is gone.
        self.settle_tunnels(tick);
        let all: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for id in all {
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.try_again();
            }
            self.reach(tick, id);
        }
    }

    /// A datagram that is no sealed data: a handshake, or for the underlay.
    fn handle_datagram(&mut self, tick: Tick, path: Path, bytes: &[u8]) {
        let direct = path.kind() == PathKind::Direct;
        if direct
            && self
                .candidates
                .underlay
                .filter()
                .admit_source(path.remote)
                .is_err()
        {
            return self.outside.drops.count(DropReason::OverlayOnItself);
        }
        let handled = match DatagramKind::parse(bytes) {
            Ok(
                DatagramKind::HandshakeInit
                | DatagramKind::HandshakeResponse
                | DatagramKind::CookieReply,
            ) => self.peers.tunnels.handle_datagram(
                tick.now,
                tick.wall,
                &mut self.outside.entropy,
                &self.standing.identity.verifier,
                bytes,
                path,
            ),
            Ok(kind) => self.candidates.underlay.handle_datagram(
                tick.now,
                kind,
                path,
                bytes,
                &mut self.outside.entropy,
            ),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = handled {
            tracing::debug!(remote = %path.remote, reason = reason.name(), "datagram dropped");
            self.outside.drops.count(reason);
        }
    }

    /// Something sealed that is no frame.
    fn handle_inner(
        &mut self,
        tick: Tick,
        session: SessionIndex,
        id: PeerId,
        path: Path,
        header: InnerHeader,
        body: &[u8],
    ) {
        let received = body.len() + sizes::SEALING;
        self.handle_opened(tick, session, id, (path, received));
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        match header.kind {
            InnerKind::Probe => match ProbeMessage::decode(body) {
                Ok(message) => {
                    self.handle_pong(tick.now, id, &message);
                    let Some(peer) = self.peers.known.get_mut(&id) else {
                        return;
                    };
                    if let Some(answer) = peer.agent.handle_probe(tick.now, path, message) {
                        self.send_probe(id, &answer);
                    }
                }
                Err(_) => self.outside.drops.count(DropReason::ControlMalformed),
            },
            InnerKind::Control => match peer.channel.handle_packet(tick.now, body) {
                Ok(Some(message)) => self.handle_message(tick, id, &message),
                Ok(None) => {}
                Err(reason) => self.outside.drops.count(reason),
            },
            InnerKind::KeepAlive => {}
            InnerKind::Frame | InnerKind::Piece(_) => {
                self.outside.drops.count(DropReason::UnknownFlags)
            }
        }
        self.touch_peer(id);
    }

    fn handle_message(&mut self, tick: Tick, id: PeerId, bytes: &[u8]) {
        match PeerMessage::decode(bytes) {
            Ok(PeerMessage::Directory { network, body }) => {
                self.handle_directory_message(tick, id, network, body);
            }
            Ok(PeerMessage::Candidates {
                sequence,
                mapping,
                candidates,
            }) => {
                if let Some(peer) = self.peers.known.get_mut(&id) {
                    peer.whereabouts.mapping = mapping;
                    peer.agent
                        .set_nat(self.candidates.underlay.nat().mapping(), mapping, false);
                }
                let list = ListSource::Session(sequence);
                self.learn_candidates(tick, id, list, candidates);
            }
            Ok(PeerMessage::EpochNumber { network, epoch }) => {
                self.handle_epoch_number(tick, id, network, epoch);
            }
            Ok(PeerMessage::Epoch { network, signed }) => {
                self.handle_epoch(tick, id, network, signed);
            }
            Ok(PeerMessage::ListsHeld(theirs)) => self.handle_lists_held(tick, id, theirs),
            Ok(PeerMessage::ListPage(page)) => self.handle_list_page(id, page),
            Ok(PeerMessage::GuestMtu { network, mtu }) => {
                self.handle_guest_mtu(tick, id, network, mtu);
            }
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// Queues a message for `peer`; it goes out with the next settling.
    pub(crate) fn send_message(&mut self, tick: Tick, id: PeerId, message: &PeerMessage<'_>) {
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        let message = message.encode();
        if let Err(reason) = peer.channel.send(tick.now, message.clone()) {
            self.outside.drops.count(reason);
            self.handle_undelivered(id, &message);
        }
        self.touch_peer(id);
    }

    /// Seals `body` to `peer` on the slow path's lane; `false` if there is no session or path.
    pub(crate) fn seal_to(&mut self, id: PeerId, header: &InnerHeader, body: &[u8]) -> bool {
        let sealed = body.len() + InnerHeader::MAX_LEN + sizes::SEALING;
        let peer = self.peers.known.get(&id);
        let peer = peer.filter(|peer| peer.agent.can_send(sealed));
        let Some(path) = peer.and_then(|peer| peer.agent.chosen()) else {
            return false;
        };
        let Some((len, datagram)) = self.seal(id, header, body) else {
            return false;
        };
        self.note_sent(id, path, len);
        self.send_on(path, datagram.get(..len).unwrap_or_default());
        true
    }

    pub(crate) fn note_sent(&mut self, id: PeerId, path: Path, bytes: usize) {
        if let Some(peer) = self.peers.known.get_mut(&id) {
            peer.agent.note_sent(path, bytes);
        }
    }

    /// Seals `body` to `peer`: the length of the datagram, and a buffer that begins with it.
    pub(crate) fn seal(
        &mut self,
        id: PeerId,
        header: &InnerHeader,
        body: &[u8],
    ) -> Option<(usize, [u8; sizes::MAX_UDP_PAYLOAD])> {
        let session = self.peers.tunnels.current(id)?;
        let mut inner = [0; InnerHeader::MAX_LEN];
        let written = header.write(&mut inner);
        let mut datagram = [0; sizes::MAX_UDP_PAYLOAD];
        let sealed = session.seal_into(SLOW_LANE, inner.get(..written)?, body, &mut datagram);
        match sealed {
            Ok(len) => Some((len, datagram)),
            Err(reason) => {
                self.outside.drops.count(reason);
                None
            }
        }
    }

    /// Drains the tunnels.
    pub(crate) fn settle_tunnels(&mut self, tick: Tick) {
        let mut moved = false;
        while let Some(event) = self.peers.tunnels.poll_event() {
            self.handle_tunnel_event(tick, event);
            moved = true;
        }
        let mut next = self.peers.tunnels.poll_transmit();
        // The peer may use a new session as soon as it has our answer: the workers first. Whatever else has changed is shown at the
        // end of the turn: in a network of a hundred the `Fib` is what a turn costs.
        if (moved || next.is_some()) && self.fib_is_stale() {
            self.publish(tick.now);
        }
        while let Some(transmit) = next {
            self.send_on(transmit.path, &transmit.bytes);
            next = self.peers.tunnels.poll_transmit();
        }
        self.outside
            .drops
            .add(DropReason::ControlOverflow, self.peers.tunnels.take_lost());
    }

    fn handle_tunnel_event(&mut self, tick: Tick, event: TunnelEvent) {
        self.outside.fib_stale = true;
        match event {
            TunnelEvent::Established {
                peer: id,
                session,
                path,
                received,
                peer_chain,
                static_key,
                lists,
                first,
                ..
            } => {
                let networks: Vec<_> = session.networks.iter().map(|n| n.network).collect();
                self.meet_in_handshake(tick, id, &networks, &peer_chain, static_key);
                self.compare_numbers(tick, id, lists.revocation, first);
                let in_session = self.peers.tunnels.current(id).is_some();
                if let Some(peer) = self.peers.known.get_mut(&id) {
                    let shown = Chain::decode(&peer_chain).ok();
                    peer.shown.invite = shown.map(|chain| chain.claimed_invite());
                    // A rekey moves no traffic: the address that a handshake came from proves
                    // nothing. Without a path there is none to protect.
                    if in_session && peer.agent.chosen().is_none() {
                        peer.agent.handle_established(tick.now, path, received);
                    }
                    self.touch_peer(id);
                }
            }
            TunnelEvent::Usable {
                peer: id,
                path,
                received,
                ..
            } => {
                tracing::info!(peer = %id, kind = ?path.kind(), remote = %path.remote, "session established");
                let channel = self.outside.entropy.next_u32();
                if let Some(peer) = self.peers.known.get_mut(&id) {
                    peer.agent.handle_established(tick.now, path, received);
                    peer.reached(channel);
                }
                self.gain_neighbour(tick, id);
            }
            TunnelEvent::Rekeyed { peer: id, .. } => {
                tracing::debug!(peer = %id, "session rekeyed");
                let channel = self.outside.entropy.next_u32();
                if let Some(peer) = self.peers.known.get_mut(&id) {
                    peer.rekeyed(channel);
                }
                self.gain_neighbour(tick, id);
            }
            TunnelEvent::Closed { peer, reason, .. } => {
                tracing::debug!(peer = %peer, ?reason, "session closed");
                if self.peers.tunnels.current(peer).is_none() {
                    tracing::info!(peer = %peer, ?reason, "no session any more");
                    self.lose_neighbour(tick, peer);
                }
            }
            TunnelEvent::HandshakeFailed { peer, reason } => {
                tracing::info!(peer = %peer, reason = reason.name(), "handshake failed");
                if reason == DropReason::Revoked {
                    // Known from a run before, which did not know yet.
                    self.cut_off(tick, peer);
                }
            }
        }
    }

    /// A session with `id` can be used: the directories of the networks that are new in it compare
    /// what they know.
    fn gain_neighbour(&mut self, tick: Tick, id: PeerId) {
        let (sequence, candidates) = self.candidates.underlay.candidates();
        let candidates = candidates.to_vec();
        let shared: Vec<_> = self
            .peers
            .tunnels
            .current(id)
            .map(|session| {
                session
                    .networks
                    .iter()
                    .map(|shared| shared.network)
                    .collect()
            })
            .unwrap_or_default();
        let before = self
            .peers
            .known
            .get_mut(&id)
            .map(|peer| std::mem::replace(&mut peer.shared, shared.clone()))
            .unwrap_or_default();
        for network in &mut self.networks.all {
            if shared.contains(&network.secret.id) && !before.contains(&network.secret.id) {
                network.directory.handle_neighbour_up(tick.now, id);
                self.networks.touched.insert(network.index);
            }
        }
        self.tell_candidates(tick, id, sequence, &candidates);
        let begun: Vec<_> = shared.into_iter().filter(|n| !before.contains(n)).collect();
        self.tell_epochs(tick, id, &begun);
        self.tell_mtus(tick, id, &begun);
        // Our claims go first: the peer checks the waiting frames' sources against them.
        for net in std::mem::take(&mut self.networks.touched) {
            self.settle_network(tick, net);
            self.touch_network(net);
        }
        self.settle_channel(tick, id);
        self.touch_peer(id);
        self.release_for_session(tick, id);
    }

    fn lose_neighbour(&mut self, tick: Tick, id: PeerId) {
        for network in &mut self.networks.all {
            network.directory.handle_neighbour_down(tick.now, id);
            self.networks.touched.insert(network.index);
        }
    }

    /// The peer says it goes, or its session is of no use any more.
    pub(crate) fn close_peer(&mut self, tick: Tick, id: PeerId) {
        self.peers.tunnels.close(tick.now, id);
    }

    /// Drains the machines of one peer.
    pub(crate) fn settle_peer(&mut self, tick: Tick, id: PeerId) {
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        let (mut chosen, mut proven, mut lost) = (false, false, false);
        while let Some(event) = peer.agent.poll_event() {
            match event {
                PathEvent::Chosen { path, why, .. } => {
                    tracing::info!(peer = %id, kind = ?path.kind(), remote = %path.remote, ?why, "path chosen");
                    chosen = true;
                    self.peers.changed |= peer.choose(path);
                    self.peers.tunnels.set_path(id, path);
                    self.outside.fib_stale = true;
                }
                PathEvent::Proven { .. } => {
                    proven = true;
                    self.outside.fib_stale = true;
                }
                PathEvent::Lost => {
                    tracing::info!(peer = %id, "no path works");
                    lost = true;
                    self.outside.fib_stale = true;
                }
                PathEvent::Mtu { path, payload } => {
                    tracing::debug!(peer = %id, remote = %path.remote, payload, "path MTU");
                    self.outside.fib_stale = true;
                }
                PathEvent::Observed { observer, addr, .. } => {
                    self.candidates
                        .underlay
                        .handle_observed(tick.now, observer, addr);
                }
            }
        }
        if self.peers.tunnels.current(id).is_none() {
            // Nothing can be sealed: challenges would only use up the budget of their addresses.
            return;
        }
        while let Some(probe) = self.peers.known.get_mut(&id).and_then(|peer| {
            let (budget, entropy) = (&mut self.peers.probe_budget, &mut self.outside.entropy);
            peer.agent.poll_transmit(tick.now, budget, entropy)
        }) {
            self.send_probe(id, &probe);
        }
        self.settle_channel(tick, id);
        if chosen || proven {
            self.release_for_session(tick, id);
        } else if lost {
            // The peer may have moved or restarted: a handshake finds it where no challenge does.
            self.reach(tick, id);
        }
    }

    /// When the kernel has refused frames as too large, since the last look, an interface has become
    /// narrower: all peers are asked whether their size still passes. The workers do not say whose
    /// frame it was; a wrong guess is one probe.
    pub(crate) fn ask_sizes_again(&mut self, tick: Tick) {
        let refused = self.outside.drops.get(DropReason::DatagramTooLarge);
        if std::mem::replace(&mut self.peers.refused, refused) == refused {
            return;
        }
        for peer in self.peers.known.values_mut() {
            if let Some(path) = peer.agent.chosen() {
                let size = peer.agent.path_mtu_payload();
                peer.agent.handle_too_big(tick.now, path, size);
                self.peers.turns.touch(peer.id);
            }
        }
    }

    /// Sends what waits on the channel, if there are a session and a path.
    pub(crate) fn settle_channel(&mut self, tick: Tick, id: PeerId) {
        if self.peers.tunnels.current(id).is_none() {
            return;
        }
        loop {
            let Some(peer) = self.peers.known.get_mut(&id) else {
                return;
            };
            if !peer.agent.can_send(SAFE_DATAGRAM) {
                return;
            }
            let Some(packet) = peer.channel.poll_transmit(tick.now) else {
                break;
            };
            self.seal_to(id, &InnerHeader::plain(InnerKind::Control), &packet);
        }
        let failed = |peer: &mut Peer| peer.channel.poll_failed();
        while let Some(message) = self.peers.known.get_mut(&id).and_then(failed) {
            self.outside.drops.count(DropReason::ControlOverflow);
            self.handle_undelivered(id, &message);
        }
    }
}
