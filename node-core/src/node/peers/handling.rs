//! What comes from peers, and what their machines have to say.

use std::net::SocketAddr;
use std::time::Instant;

use nat_traversal::agent::{PathEvent, ProbeMessage};
use nat_traversal::candidate::CandidateFilter;
use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::PeerMessage;
use overlay_proto::wire::{InnerHeader, InnerKind, SAFE_DATAGRAM, SessionIndex};

use super::Peers;
use super::undelivered::Owed;
use crate::node::effects::Sized;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::underlay::RelayKeys;

/// What was in a sealed datagram that is no frame, as far as others are concerned.
#[derive(Debug)]
#[must_use]
pub(crate) enum Inner {
    /// Nothing.
    Nothing,
    /// An answer or a question about the path: whoever pings waits for some.
    Probe(ProbeMessage),
    /// A message that was not seen before.
    Message(Vec<u8>),
}

/// What became of the paths to a peer.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct PathNews {
    /// There is a path that was not proven before, or another one.
    pub(crate) opened: bool,
    /// No path works.
    pub(crate) lost: bool,
    /// Who saw us where.
    pub(crate) observed: Vec<(SocketAddr, SocketAddr)>,
}

impl Peers {
    /// The machines of `id` may have outputs.
    pub(crate) fn touch(&mut self, id: PeerId) {
        self.turns.touch(id);
    }

    /// When the machines of `id` are next due.
    pub(crate) fn timer_of(&self, id: PeerId) -> Option<Instant> {
        let in_session = self.tunnels.current(id).is_some();
        self.known.get(&id)?.poll_timeout(in_session)
    }

    /// Timers of sessions and paths.
    pub(crate) fn handle_timeout(&mut self, tick: Tick, out: &mut Outside) {
        self.tunnels
            .handle_timeout(tick.now, tick.wall, &mut out.entropy);
        for id in self.turns.due(tick.now) {
            // It may have become later since.
            let is_due = self.timer_of(id).is_some_and(|due| due <= tick.now);
            if let Some(peer) = self.known.get_mut(&id).filter(|_| is_due) {
                peer.agent.handle_timeout(tick.now);
            }
            self.touch(id);
        }
    }

    /// A datagram of so many bytes was opened in a session.
    pub(crate) fn handle_opened(
        &mut self,
        now: Instant,
        session: SessionIndex,
        id: PeerId,
        (path, received): (Path, usize),
    ) {
        self.tunnels.handle_opened(now, session, path, received);
        if let Some(peer) = self.known.get_mut(&id) {
            peer.agent.handle_received(path, received);
            peer.heard.on = Some(path);
            peer.heard.at = Some(now);
            peer.agent.handle_traffic(now, path);
            self.touch(id);
        }
    }

    /// Something sealed that is no frame.
    pub(crate) fn handle_inner(
        &mut self,
        now: Instant,
        id: PeerId,
        kind: InnerKind,
        body: &[u8],
        out: &mut Outside,
    ) -> Inner {
        let Some(peer) = self.known.get_mut(&id) else {
            return Inner::Nothing;
        };
        self.turns.touch(id);
        match kind {
            InnerKind::Probe => match ProbeMessage::decode(body) {
                Ok(message) => return Inner::Probe(message),
                Err(_) => out.drops.count(DropReason::ControlMalformed),
            },
            InnerKind::Control => match peer.channel.handle_packet(now, body) {
                Ok(Some(message)) => return Inner::Message(message),
                Ok(None) => {}
                Err(reason) => out.drops.count(reason),
            },
            InnerKind::KeepAlive => {}
            InnerKind::Frame | InnerKind::Piece(_) => out.drops.count(DropReason::UnknownFlags),
        }
        Inner::Nothing
    }

    /// A challenge is answered on the path on which it came; an answer proves that path.
    pub(crate) fn handle_probe(
        &mut self,
        now: Instant,
        id: PeerId,
        (path, message): (Path, ProbeMessage),
        keys: &RelayKeys,
        out: &mut Outside,
    ) {
        let peer = self.known.get_mut(&id);
        let answer = peer.and_then(|peer| peer.agent.handle_probe(now, path, message));
        if let Some(answer) = answer {
            self.send_probe(id, &answer, keys, out);
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
        path: Path,
        filter: &CandidateFilter,
        out: &mut Outside,
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
        self.tunnels.connect(
            tick.now,
            tick.wall,
            &mut out.entropy,
            id,
            static_key,
            &[path],
        );
    }

    /// A datagram was refused. A challenge that asks for more than the own interface takes is no drop: the agent
    /// is told, and asks for less.
    pub(crate) fn handle_unsent(
        &mut self,
        now: Instant,
        reason: DropReason,
        probe: Option<&Sized>,
        out: &Outside,
    ) {
        let Some(probe) = probe.filter(|_| reason == DropReason::DatagramTooLarge) else {
            return out.drops.count(reason);
        };
        if let Some(peer) = self.known.get_mut(&probe.peer) {
            peer.agent.handle_too_big(now, probe.path, probe.len);
            self.touch(probe.peer);
        }
    }

    /// When the kernel has refused frames as too large, since the last look, an interface has become
    /// narrower: all peers are asked whether their size still passes. The workers do not say whose
    /// frame it was; a wrong guess is one probe.
    pub(crate) fn ask_sizes_again(&mut self, now: Instant, out: &Outside) {
        let refused = out.drops.get(DropReason::DatagramTooLarge);
        if std::mem::replace(&mut self.refused, refused) == refused {
            return;
        }
        for peer in self.known.values_mut() {
            if let Some(path) = peer.agent.chosen() {
                let size = peer.agent.path_mtu_payload();
                peer.agent.handle_too_big(now, path, size);
                self.turns.touch(peer.id);
            }
        }
    }

    /// What the path agent of a peer has found.
    pub(crate) fn take_path_news(&mut self, id: PeerId, out: &mut Outside) -> PathNews {
        let mut news = PathNews::default();
        let Some(peer) = self.known.get_mut(&id) else {
            return news;
        };
        while let Some(event) = peer.agent.poll_event() {
            match event {
                PathEvent::Chosen { path, why, .. } => {
                    tracing::info!(peer = %id, kind = ?path.kind(), remote = %path.remote, ?why, "path chosen");
                    news.opened = true;
                    self.changed |= peer.choose(path);
                    self.tunnels.set_path(id, path);
                    out.fib_stale = true;
                }
                PathEvent::Proven { .. } => {
                    news.opened = true;
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
                PathEvent::Observed { observer, addr, .. } => news.observed.push((observer, addr)),
            }
        }
        news
    }

    /// Sends the challenges that are due. `false`: there is no session, and nothing can be sealed: challenges would only use up the
    /// budget of their addresses.
    pub(crate) fn send_probes(
        &mut self,
        now: Instant,
        id: PeerId,
        keys: &RelayKeys,
        out: &mut Outside,
    ) -> bool {
        if self.tunnels.current(id).is_none() {
            return false;
        }
        while let Some(probe) = self.known.get_mut(&id).and_then(|peer| {
            let (budget, entropy) = (&mut self.probe_budget, &mut out.entropy);
            peer.agent.poll_transmit(now, budget, entropy)
        }) {
            self.send_probe(id, &probe, keys, out);
        }
        true
    }

    /// Queues a message for a peer; it goes out with the next settling. What is owed if there is no room for it.
    pub(crate) fn queue(
        &mut self,
        now: Instant,
        id: PeerId,
        message: &PeerMessage<'_>,
        out: &Outside,
    ) -> Owed {
        let Some(peer) = self.known.get_mut(&id) else {
            return Owed::Nothing;
        };
        self.turns.touch(id);
        let message = message.encode();
        match peer.channel.send(now, message.clone()) {
            Ok(()) => Owed::Nothing,
            Err(reason) => {
                out.drops.count(reason);
                self.note_undelivered(id, &message)
            }
        }
    }

    /// Sends what waits on the channel, if there are a session and a path. What is owed because it did not get there.
    pub(crate) fn settle_channel(
        &mut self,
        now: Instant,
        id: PeerId,
        keys: &RelayKeys,
        out: &mut Outside,
    ) -> Vec<Owed> {
        let mut owed = Vec::new();
        if self.tunnels.current(id).is_none() {
            return owed;
        }
        loop {
            let Some(peer) = self.known.get_mut(&id) else {
                return owed;
            };
            if !peer.agent.can_send(SAFE_DATAGRAM) {
                return owed;
            }
            let Some(packet) = peer.channel.poll_transmit(now) else {
                break;
            };
            let header = InnerHeader::plain(InnerKind::Control);
            self.seal_to(id, (&header, &packet), keys, out);
        }
        while let Some(message) = self
            .known
            .get_mut(&id)
            .and_then(|peer| peer.channel.poll_failed())
        {
            out.drops.count(DropReason::ControlOverflow);
            owed.push(self.note_undelivered(id, &message));
        }
        owed
    }
}
