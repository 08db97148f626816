//! What a revocation voids here, and who is told of it (TRUST.md 8).

use control_proto::messages::Request;
use overlay_proto::ids::PeerId;

use super::{Asked, Driver, MAX_PENDING_REQUESTS};
use crate::addr;
use crate::event::ControlEvent;

impl Driver {
    /// Has the gate learnt more, in an admission, from a request or from the node? Then whoever is
    /// named is cut off, everybody else who is connected is told, and so is the node.
    pub(super) fn follow_revocations(&mut self) {
        if self.server.has_followed(&*self.gate) {
            return;
        }
        let connected = self.connected_names();
        let (server, mut means) = self.serving();
        let followed = server.follow_revocations(&connected, &mut means);
        for peer in followed.cut_off {
            tracing::info!(%peer, "revoked: cut off");
            self.disconnect(peer);
        }
        self.push_lists(&followed.told, &followed.lists);
        self.tell(ControlEvent::RevocationsGrew);
    }

    /// Closes the connections with a revoked peer.
    pub(super) fn disconnect(&mut self, peer: PeerId) {
        if let Some(target) = addr::to_libp2p(peer) {
            // Not connected is what we want.
            let _ = self.swarm.disconnect_peer_id(target);
        }
    }

    /// Hands lists to some who are connected. Who does not answer is hung up on, and asks for them when it comes back.
    fn push_lists(&mut self, told: &[PeerId], lists: &[Vec<u8>]) {
        for peer in told {
            let Some(target) = addr::to_libp2p(*peer) else {
                continue;
            };
            for list in lists {
                if self.asked.len() >= MAX_PENDING_REQUESTS {
                    self.disconnect(*peer);
                    break;
                }
                let request = Request::Revocations { list: list.clone() };
                let control = &mut self.swarm.behaviour_mut().control;
                let id = control.send_request(&target, request);
                self.asked.insert(id, Asked::Pushed);
            }
        }
    }
}
