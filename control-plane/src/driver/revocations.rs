//! What a revocation voids here, and who is told of it (TRUST.md 8).

use std::sync::Arc;

use control_proto::messages::Request;
use control_proto::serving::new_lists;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::Revocations;

use super::{Asked, Driver, MAX_PENDING_REQUESTS};
use crate::addr;
use crate::event::ControlEvent;

impl Driver {
    /// Has the gate learnt more, in an admission, from a request or from the node? Then whoever is
    /// named is cut off, everybody else who is connected is told, and so is the node.
    pub(super) fn follow_revocations(&mut self) {
        let held = self.gate.revocations();
        if Arc::ptr_eq(&held, &self.revocations) {
            return;
        }
        let before = std::mem::replace(&mut self.revocations, Arc::clone(&held));
        self.cut_off(&held);
        self.push_lists(&before, &held);
        self.tell(ControlEvent::RevocationsGrew);
    }

    /// Is `peer` out by what has been followed? Its admission may have been judged by an older list.
    pub(super) fn is_revoked(&self, peer: PeerId) -> bool {
        self.server.is_revoked(peer, &self.revocations)
    }

    /// Closes the connections with a revoked peer.
    pub(super) fn disconnect(&mut self, peer: PeerId) {
        if let Some(target) = addr::to_libp2p(peer) {
            // Not connected is what we want.
            let _ = self.swarm.disconnect_peer_id(target);
        }
    }

    fn cut_off(&mut self, held: &Revocations) {
        for peer in self.connected().into_iter().map(|one| one.peer) {
            if self.is_revoked(peer) {
                tracing::info!(%peer, "revoked: cut off");
                self.disconnect(peer);
            }
        }
        let (server, mut means) = self.serving();
        server.handle_revoked(held, &mut means);
    }

    /// Hands the lists that are new to all who are connected. Who does not answer is hung up on, and
    /// asks for them when it comes back.
    fn push_lists(&mut self, before: &Revocations, held: &Revocations) {
        let new = new_lists(before, held);
        for peer in self.connected().into_iter().map(|one| one.peer) {
            let Some(target) = addr::to_libp2p(peer).filter(|_| !self.is_revoked(peer)) else {
                continue;
            };
            for list in &new {
                if self.asked.len() >= MAX_PENDING_REQUESTS {
                    self.disconnect(peer);
                    break;
                }
                let request = Request::Revocations { list: list.clone() };
                let id = self
                    .swarm
                    .behaviour_mut()
                    .control
                    .send_request(&target, request);
                self.asked.insert(id, Asked::Pushed);
            }
        }
    }
}
