//! What comes from peers: handshakes, probes, messages on the channel; and what became of their paths.

use std::net::SocketAddr;

use nat_traversal::agent::{PathEvent, ProbeMessage};
use nat_traversal::candidate::CandidateFilter;
use nat_traversal::nat_kind::Mapping;
use nat_traversal::path::Path;
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::Chain;
use overlay_proto::wire::{InnerKind, SessionIndex};

use super::Peers;
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// Something sealed that others are to look at.
pub(crate) enum Inner {
    /// A challenge or an answer.
    Probe(ProbeMessage),
    /// A whole message of the channel.
    Message(Vec<u8>),
}

/// What became of the paths to a peer.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct PathNews {
    /// A path was chosen or proven.
    pub(crate) found: bool,
    /// No path works.
    pub(crate) lost: bool,
    /// Which address saw this node at which address.
    pub(crate) observed: Vec<(SocketAddr, SocketAddr)>,
}

impl Peers {
    /// A sealed packet of `id` was opened.
    pub(crate) fn handle_opened(
        &mut self,
        tick: Tick,
        session: SessionIndex,
        id: PeerId,
        (path, received): (Path, usize),
    ) {
        self.tunnels
            .handle_opened(tick.now, session, path, received);
        if let Some(peer) = self.known.get_mut(&id) {
            peer.agent.handle_received(path, received);
            peer.heard.on = Some(path);
            peer.heard.at = Some(tick.now);
            peer.agent.handle_traffic(tick.now, path);
            self.turns.touch(id);
        }
    }

    /// Somebody sends, from where a peer was met before, under a session that we do not have: the
    /// peer is there and does not know that we have restarted. A handshake goes out now instead of
    /// when its turn comes. The stray proves nothing, so all it can do is bounded: towards the
    /// address where the peer was proven last, no other, once a second, within what silent
    /// addresses may get.
    pub(crate) fn handle_stray(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        filter: &CandidateFilter,
        path: Path,
    ) {
        let tunnels = &self.tunnels;
        let Some(peer) = self.known.values_mut().find(|peer| {
            peer.whereabouts.was_met_on(&path, filter) && tunnels.current(peer.id).is_none()
        }) else {
            return;
        };
        let (id, Some(static_key)) = (peer.id, peer.static_key) else {
            return;
        };
        if !peer.attempts.may_answer_stray(tick.now)
            || !self.probe_budget.take(tick.now, path.remote.ip())
            || self.tunnels.repeat(id, path)
        {
            return;
        }
        let entropy = &mut out.entropy;
        self.tunnels
            .connect(tick.now, tick.wall, entropy, id, static_key, &[path]);
    }

    /// What failed before with `id` may work now.
    pub(crate) fn try_again(&mut self, id: PeerId) {
        if let Some(peer) = self.known.get_mut(&id) {
            peer.try_again();
        }
    }

    /// The body of something sealed that is no frame.
    pub(crate) fn handle_inner(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        id: PeerId,
        kind: InnerKind,
        body: &[u8],
    ) -> Option<Inner> {
        let peer = self.known.get_mut(&id)?;
        let refused = match kind {
            InnerKind::Probe => match ProbeMessage::decode(body) {
                Ok(message) => return Some(Inner::Probe(message)),
                Err(_) => DropReason::ControlMalformed,
            },
            InnerKind::Control => match peer.channel.handle_packet(tick.now, body) {
                Ok(message) => return message.map(Inner::Message),
                Err(reason) => reason,
            },
            InnerKind::KeepAlive => return None,
            InnerKind::Frame | InnerKind::Piece(_) => DropReason::UnknownFlags,
        };
        out.drops.count(refused);
        None
    }

    /// The NAT of `id` maps like this, it says; ours like `own`.
    pub(crate) fn note_mapping(&mut self, id: PeerId, own: Mapping, theirs: Mapping) {
        if let Some(peer) = self.known.get_mut(&id) {
            peer.whereabouts.mapping = theirs;
            peer.agent.set_nat(own, theirs, false);
        }
    }

    /// A handshake with `id` is through, which showed `chain`.
    pub(crate) fn note_established(
        &mut self,
        tick: Tick,
        id: PeerId,
        chain: &[u8],
        (path, received): (Path, usize),
    ) {
        let in_session = self.tunnels.current(id).is_some();
        if let Some(peer) = self.known.get_mut(&id) {
            let shown = Chain::decode(chain).ok();
            peer.shown.invite = shown.map(|chain| chain.claimed_invite());
            // A rekey moves no traffic: the address that a handshake came from proves
            // nothing. Without a path there is none to protect.
            if in_session && peer.agent.chosen().is_none() {
                peer.agent.handle_established(tick.now, path, received);
            }
            self.turns.touch(id);
        }
    }

    /// The first session with `id` can be used.
    pub(crate) fn note_usable(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        id: PeerId,
        (path, received): (Path, usize),
    ) {
        let channel = out.entropy.next_u32();
        if let Some(peer) = self.known.get_mut(&id) {
            peer.agent.handle_established(tick.now, path, received);
            peer.reached(channel);
        }
    }

    /// The session with `id` has a new key.
    pub(crate) fn note_rekeyed(&mut self, out: &mut Outside, id: PeerId) {
        let channel = out.entropy.next_u32();
        if let Some(peer) = self.known.get_mut(&id) {
            peer.rekeyed(channel);
        }
    }

    /// The networks of the session with `id` that were not in the one before.
    pub(crate) fn take_begun(&mut self, id: PeerId) -> Vec<NetworkId> {
        let session = self.tunnels.current(id);
        let shared = session.map(|session| session.networks.iter().map(|shared| shared.network));
        let shared: Vec<NetworkId> = shared.into_iter().flatten().collect();
        let peer = self.known.get_mut(&id);
        let before = peer.map(|peer| std::mem::replace(&mut peer.shared, shared.clone()));
        let before = before.unwrap_or_default();
        shared.into_iter().filter(|n| !before.contains(n)).collect()
    }

    /// What the agent of `id` has found; `None`: nobody knows it.
    pub(crate) fn settle_paths(&mut self, out: &mut Outside, id: PeerId) -> Option<PathNews> {
        let peer = self.known.get_mut(&id)?;
        let mut news = PathNews::default();
        while let Some(event) = peer.agent.poll_event() {
            match event {
                PathEvent::Chosen { path, why, .. } => {
                    tracing::info!(peer = %id, kind = ?path.kind(), remote = %path.remote, ?why, "path chosen");
                    news.found = true;
                    self.changed |= peer.choose(path);
                    self.tunnels.set_path(id, path);
                    out.fib_stale = true;
                }
                PathEvent::Proven { .. } => {
                    news.found = true;
                    out.fib_stale = true;
                }
                PathEvent::Lost => {
                    tracing::info!(peer = %id, "no path works");
                    news.lost = true;
                    out.fib_stale = true;
                }
                PathEvent::Mtu { path, payload } => {
                    tracing::debug!(peer = %id, remote = %path.remote, payload, "path MTU");
                    out.fib_stale = true;
                }
                PathEvent::Observed { observer, addr, .. } => {
                    news.observed.push((observer, addr));
                }
            }
        }
        Some(news)
    }

    /// When the kernel has refused frames as too large, since the last look, an interface has become
    /// narrower: all peers are asked whether their size still passes. The workers do not say whose
    /// frame it was; a wrong guess is one probe.
    pub(crate) fn ask_sizes_again(&mut self, tick: Tick, out: &Outside) {
        let refused = out.drops.get(DropReason::DatagramTooLarge);
        if std::mem::replace(&mut self.refused, refused) == refused {
            return;
        }
        for peer in self.known.values_mut() {
            if let Some(path) = peer.agent.chosen() {
                let size = peer.agent.path_mtu_payload();
                peer.agent.handle_too_big(tick.now, path, size);
                self.turns.touch(peer.id);
            }
        }
    }
}
