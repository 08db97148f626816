//! What others ask of this node: the driver carries what [`control_proto::serving::Server`] decides.

use std::time::Instant;

use control_proto::messages::{RefusedReason, Request, Response};
use control_proto::serving::{Asker, Step, Times, answer_of_forward};
use host_services::clocks;
use libp2p::request_response::ResponseChannel;
use overlay_proto::ids::PeerId;

use super::{Asked, Driver, MAX_PENDING_REQUESTS};
use crate::addr;
use crate::event::ControlEvent;

/// An envelope on its last leg.
pub(super) struct Forwarded {
    channel: ResponseChannel<Response>,
    until: Instant,
}

/// Both clocks, now.
pub(super) fn times() -> Times {
    Times {
        now: Instant::now(),
        wall: clocks::wall(),
    }
}

impl Driver {
    /// Serves one request of the admitted node `peer`.
    pub(super) fn handle_request(
        &mut self,
        peer: PeerId,
        request: Request,
        channel: ResponseChannel<Response>,
    ) {
        let seen = addr::to_libp2p(peer)
            .and_then(|peer| self.inbound.get(&peer))
            .and_then(|link| link.remote);
        let (server, mut means) = self.serving();
        let step = server.handle_request(times(), Asker { peer, seen }, request, &mut means);
        let response = match step {
            Step::Answer(response) => response,
            Step::Twins { answer, addrs } => {
                self.tell(ControlEvent::Twins { peer, addrs });
                answer
            }
            Step::Take { from, envelope } => self.take_envelope(from, envelope),
            Step::Forward { to, request, until } => {
                return self.forward(to, request, Forwarded { channel, until });
            }
        };
        self.respond(channel, response);
    }

    /// Tells the senders of envelopes that nobody answered for.
    pub(super) fn expire_forwarded(&mut self, now: Instant) {
        let late: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, asked)| matches!(asked, Asked::Forwarded(one) if one.until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(Asked::Forwarded(one)) = self.asked.insert(id, Asked::Nobody) {
                self.finish_forwarded(one, None);
            }
        }
    }

    /// The addressee's answer, passed on to the sender.
    pub(super) fn finish_forwarded(&mut self, one: Forwarded, answer: Option<Response>) {
        self.respond(one.channel, answer_of_forward(answer));
    }

    fn forward(&mut self, to: PeerId, request: Request, one: Forwarded) {
        let target = addr::to_libp2p(to).filter(|target| self.swarm.is_connected(target));
        let Some(target) = target else {
            return self.finish_forwarded(one, None);
        };
        if self.asked.len() >= MAX_PENDING_REQUESTS {
            let busy = Response::Refused(RefusedReason::Busy);
            return self.finish_forwarded(one, Some(busy));
        }
        let control = &mut self.swarm.behaviour_mut().control;
        let id = control.send_request(&target, request);
        self.asked.insert(id, Asked::Forwarded(one));
    }

    fn take_envelope(&mut self, from: PeerId, envelope: Vec<u8>) -> Response {
        match self
            .news
            .listener
            .try_send(ControlEvent::Signal { from, envelope })
        {
            Ok(()) => Response::Delivered,
            Err(_) => Response::Refused(RefusedReason::Busy),
        }
    }

    fn respond(&mut self, channel: ResponseChannel<Response>, response: Response) {
        // The asker may have gone meanwhile.
        let _ = self
            .swarm
            .behaviour_mut()
            .control
            .send_response(channel, response);
    }
}
