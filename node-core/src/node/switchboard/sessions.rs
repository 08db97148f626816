//! What a session that begins or ends means to the others; what comes in sessions.

use anyhow::Result;
use nat_traversal::path::{Path, PathKind};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::tunnels::TunnelEvent;
use overlay_proto::wire::{DatagramKind, InnerHeader, SessionIndex, sizes};

use super::run::Node;
use crate::node::effects::Sized;
use crate::node::peers::handling::Inner;
use crate::node::peers::memory;
use crate::node::peers::sending::send_on;
use crate::node::tick::Tick;

impl Node {
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
            self.peers.try_again(id);
            self.reach(tick, id);
        }
    }

    /// A datagram that is no sealed data: a handshake, or for the underlay.
    pub(crate) fn handle_datagram(&mut self, tick: Tick, path: Path, bytes: &[u8]) {
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
    pub(crate) fn handle_inner(
        &mut self,
        tick: Tick,
        session: SessionIndex,
        id: PeerId,
        path: Path,
        header: InnerHeader,
        body: &[u8],
    ) {
        let received = body.len() + sizes::SEALING;
        self.peers
            .handle_opened(tick, session, id, (path, received));
        if !self.peers.known.contains_key(&id) {
            return;
        }
        match self
            .peers
            .handle_inner(tick, &mut self.outside, id, header.kind, body)
        {
            Some(Inner::Probe(message)) => {
                self.handle_pong(tick.now, id, &message);
                let keys = self.candidates.underlay.relay_keys();
                let out = &mut self.outside;
                self.peers
                    .answer_probe(tick, out, keys, (id, path), message);
            }
            Some(Inner::Message(message)) => self.handle_message(tick, id, &message),
            None => {}
        }
        self.touch_peer(id);
    }

    /// Drains the tunnels.
    pub(crate) fn settle_tunnels(&mut self, tick: Tick) {
        while let Some(event) = self.peers.tunnels.poll_event() {
            self.handle_tunnel_event(tick, event);
        }
        if self.fib_is_stale() {
            // The peer may use a new session as soon as it has our answer: the workers first.
            self.publish(tick.now);
        }
        while let Some(transmit) = self.peers.tunnels.poll_transmit() {
            let keys = self.candidates.underlay.relay_keys();
            send_on(&mut self.outside, keys, &transmit.path, &transmit.bytes);
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
                let from = (path, received);
                self.peers.note_established(tick, id, &peer_chain, from);
            }
            TunnelEvent::Usable {
                peer: id,
                path,
                received,
                ..
            } => {
                tracing::info!(peer = %id, kind = ?path.kind(), remote = %path.remote, "session established");
                let from = (path, received);
                self.peers.note_usable(tick, &mut self.outside, id, from);
                self.gain_neighbour(tick, id);
            }
            TunnelEvent::Rekeyed { peer: id, .. } => {
                tracing::debug!(peer = %id, "session rekeyed");
                self.peers.note_rekeyed(&mut self.outside, id);
                self.gain_neighbour(tick, id);
            }
            TunnelEvent::Closed { peer, reason, .. } => {
                tracing::debug!(peer = %peer, ?reason, "session closed");
                if self.peers.tunnels.current(peer).is_none() {
                    tracing::info!(peer = %peer, ?reason, "no session any more");
                    self.networks.handle_neighbour_down(tick, peer);
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
        let begun = self.peers.take_begun(id);
        self.networks.handle_neighbour_up(tick, id, &begun);
        let (sequence, candidates) = self.candidates.underlay.candidates();
        let candidates = candidates.to_vec();
        self.tell_candidates(tick, id, sequence, &candidates);
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

    /// A datagram was refused by the kernel.
    pub fn handle_unsent(&mut self, tick: Tick, reason: DropReason, probe: Option<&Sized>) {
        self.peers.handle_unsent(tick, &self.outside, reason, probe);
    }

    /// Takes the peers of the run before; the first housekeeping dials them.
    pub fn recall_peers(&mut self, tick: Tick, saved: Result<Option<Vec<u8>>>) {
        for kept in memory::read(saved) {
            if kept.id != self.standing.identity.me
                && !self.standing.revocations.held.names_node(kept.id)
                && let Some(new) = self.new_peer(tick, kept.id)
            {
                new.recall(tick.now, kept);
            }
        }
    }

    /// Drains the machines of one peer.
    pub(crate) fn settle_peer(&mut self, tick: Tick, id: PeerId) {
        let Some(news) = self.peers.settle_paths(&mut self.outside, id) else {
            return;
        };
        for (observer, addr) in news.observed {
            let underlay = &mut self.candidates.underlay;
            underlay.handle_observed(tick.now, observer, addr);
        }
        if self.peers.tunnels.current(id).is_none() {
            // Nothing can be sealed: challenges would only use up the budget of their addresses.
            return;
        }
        let keys = self.candidates.underlay.relay_keys();
        self.peers
            .send_challenges(tick, &mut self.outside, keys, id);
        self.settle_channel(tick, id);
        if news.found {
            self.release_for_session(tick, id);
        } else if news.lost {
            // The peer may have moved or restarted: a handshake finds it where no challenge does.
            self.reach(tick, id);
        }
    }
}
