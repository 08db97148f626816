//! Sessions begin and end, messages leave: what peers, networks, candidates and standing have to do with each other then.

use anyhow::Result;
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::Chain;
use overlay_proto::tunnels::TunnelEvent;
use overlay_proto::wire::peer_message::PeerMessage;

use crate::node::peers::memory::recalled;
use crate::node::peers::undelivered::Owed;
use crate::node::switchboard::run::Node;
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
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.try_again();
            }
            self.reach(tick, id);
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
            self.outside.send_on(
                self.candidates.underlay.relay_keys(),
                &transmit.path,
                &transmit.bytes,
            );
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
                let shown = Chain::decode(&peer_chain).ok();
                let invite = shown.map(|chain| chain.claimed_invite());
                self.standing.theirs.note_invite(id, invite);
                let in_session = self.peers.tunnels.current(id).is_some();
                if let Some(peer) = self.peers.known.get_mut(&id) {
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
        let begun: Vec<_> = shared.into_iter().filter(|n| !before.contains(n)).collect();
        self.networks.handle_neighbour_up(tick, id, &begun);
        self.tell_candidates(tick, id);
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

    /// The peer says it goes, or its session is of no use any more.
    pub(crate) fn close_peer(&mut self, tick: Tick, id: PeerId) {
        self.peers.tunnels.close(tick.now, id);
    }

    /// Drains the machines of one peer.
    pub(crate) fn settle_peer(&mut self, tick: Tick, id: PeerId) {
        let news = self.peers.take_path_news(id, &mut self.outside);
        for (observer, addr) in news.observed {
            self.candidates
                .underlay
                .handle_observed(tick.now, observer, addr);
        }
        let keys = self.candidates.underlay.relay_keys();
        if !self
            .peers
            .send_probes(tick.now, id, keys, &mut self.outside)
        {
            return;
        }
        self.settle_channel(tick, id);
        if news.opened {
            self.release_for_session(tick, id);
        } else if news.lost {
            // The peer may have moved or restarted: a handshake finds it where no challenge does.
            self.reach(tick, id);
        }
    }

    /// Queues a message for `peer`; it goes out with the next settling.
    pub(crate) fn send_message(&mut self, tick: Tick, id: PeerId, message: &PeerMessage<'_>) {
        let owed = self.peers.queue(tick.now, id, message, &self.outside);
        self.note_owed(id, owed);
    }

    /// Sends what waits on the channel, if there are a session and a path.
    pub(crate) fn settle_channel(&mut self, tick: Tick, id: PeerId) {
        let keys = self.candidates.underlay.relay_keys();
        let owed = self
            .peers
            .settle_channel(tick.now, id, keys, &mut self.outside);
        for owed in owed {
            self.note_owed(id, owed);
        }
    }

    pub(crate) fn note_owed(&mut self, id: PeerId, owed: Owed) {
        match owed {
            Owed::Numbers => self.standing.revocations.owe(id),
            Owed::Epoch(tag) => self.standing.theirs.owe_epoch(id, tag),
            Owed::Candidates | Owed::Nothing => {}
        }
    }

    /// Says again what is owed.
    pub(crate) fn say_again(&mut self, tick: Tick) {
        let (sequence, _) = self.candidates.underlay.candidates();
        for id in self.peers.untold(sequence) {
            self.tell_candidates(tick, id);
        }
        self.spread_epochs(tick);
        for id in self.standing.revocations.take_owed() {
            if self.peers.tunnels.current(id).is_none() {
                // The next session begins with them.
                continue;
            }
            let held = self.standing.revocations.held.state();
            self.send_message(tick, id, &PeerMessage::ListsHeld(held));
            let shared = self.peers.known.get(&id).map(|peer| peer.shared.clone());
            self.tell_epochs(tick, id, &shared.unwrap_or_default());
        }
    }

    /// Takes the peers of the run before; the first housekeeping dials them.
    pub fn recall_peers(&mut self, tick: Tick, saved: Result<Option<Vec<u8>>>) {
        for peer in recalled(saved) {
            if peer.id != self.standing.identity.me
                && !self.standing.revocations.held.names_node(peer.id)
                && let Some(new) = self.new_peer(tick, peer.id)
            {
                new.recall(tick.now, peer);
            }
        }
    }
}
