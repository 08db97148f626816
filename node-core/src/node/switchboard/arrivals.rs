//! What arrives by the fast path, and whose it is: frames, datagrams, messages of peers.

use nat_traversal::path::{Path, PathKind};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::PeerMessage;
use overlay_proto::wire::{DatagramKind, InnerHeader, SessionIndex, sizes};

use crate::node::effects::Sized;
use crate::node::peers::handling::Inner;
use crate::node::peers::whereabouts::ListSource;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::punt::Punt;

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
            Punt::StandingBy { net, vlan } => self.networks.note_standby_vlan(tick, net, vlan),
            Punt::GoesRound { net, vlan } => self.networks.ask_for_loop(tick.now, net, vlan),
            Punt::PeerFrame {
                net,
                peer,
                hops,
                forwarded: Some(mark),
                frame,
                ..
            } => self.handle_forwarded(tick, net, (peer, hops, mark), frame.into_vec()),
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
                self.handle_inner(tick, session, peer, (path, header), &body);
            }
            Punt::Opened {
                session,
                peer,
                path,
                received,
            } => self
                .peers
                .handle_opened(tick.now, session, peer, (path, received)),
            Punt::Stray { path } => {
                let filter = self.candidates.underlay.filter();
                self.peers
                    .handle_stray(tick, path, filter, &mut self.outside);
            }
            Punt::Handshake { path, bytes } | Punt::Datagram { path, bytes } => {
                self.handle_datagram(tick, path, &bytes);
            }
            Punt::TapLost { net } => self.lose_tap(tick, net),
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
        (path, header): (Path, InnerHeader),
        body: &[u8],
    ) {
        let received = body.len() + sizes::SEALING;
        self.peers
            .handle_opened(tick.now, session, id, (path, received));
        let out = &mut self.outside;
        match self
            .peers
            .handle_inner(tick.now, id, header.kind, body, out)
        {
            Inner::Nothing => {}
            Inner::Probe(message) => {
                self.handle_pong(tick.now, id, &message);
                let keys = self.candidates.underlay.relay_keys();
                self.peers
                    .handle_probe(tick.now, id, (path, message), keys, &mut self.outside);
            }
            Inner::Message(message) => self.handle_message(tick, id, &message),
        }
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
            Ok(PeerMessage::ListPage(page)) => {
                self.standing.handle_list_page(&mut self.outside, id, page);
            }
            Ok(PeerMessage::GuestMtu { network, mtu }) => {
                self.handle_guest_mtu(tick, id, network, mtu);
            }
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// A datagram was refused.
    pub fn handle_unsent(&mut self, tick: Tick, reason: DropReason, probe: Option<&Sized>) {
        self.peers
            .handle_unsent(tick.now, reason, probe, &self.outside);
    }
}
