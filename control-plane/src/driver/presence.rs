//! Which run of its process a node is: bootstraps find out by it that two machines have one identity.
//!
//! A member says its incarnation on each new link to a bootstrap. The bootstrap that has seen two of
//! them take turns says so to both, and to its operator.

use std::time::Instant;

use control_proto::messages::{Presence, Request, Response};
use libp2p::PeerId as Libp2pPeer;
use overlay_proto::ids::PeerId;

use super::{Asked, Driver, MAX_PENDING_REQUESTS};
use crate::addr;
use crate::event::ControlEvent;

impl Driver {
    /// This run is `incarnation` from now on: all bootstraps are told.
    pub(super) fn set_incarnation(&mut self, incarnation: u32) {
        self.incarnation = Some(incarnation);
        let infras: Vec<_> = self
            .swarm
            .connected_peers()
            .copied()
            .filter(|peer| {
                addr::from_libp2p(peer).is_some_and(|peer| self.admitted.is_infra(&peer))
            })
            .collect();
        for infra in infras {
            self.present(&infra);
        }
    }

    /// Tells a bootstrap which run this is.
    pub(super) fn present(&mut self, infra: &Libp2pPeer) {
        let Some(incarnation) = self.incarnation else {
            return;
        };
        let Some(peer) = addr::from_libp2p(infra) else {
            return;
        };
        if self.asked.len() < MAX_PENDING_REQUESTS {
            let request = Request::Present { incarnation };
            let id = (self.swarm.behaviour_mut().control).send_request(infra, request);
            self.asked.insert(id, Asked::Presence(peer));
        }
    }

    /// What the bootstrap `infra` says about who else there is.
    pub(super) fn handle_presence(&mut self, infra: PeerId, answer: &Response) {
        if let Response::Present(Presence {
            seen,
            twin: Some(twin),
        }) = *answer
        {
            self.dialer.handle_contested(infra, Instant::now());
            self.tell(ControlEvent::Twins {
                peer: self.local,
                addrs: [seen, twin],
            });
        }
    }
}
