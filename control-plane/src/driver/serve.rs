//! What others ask of this node.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_services::clocks;
use libp2p::request_response::ResponseChannel;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{InviteId, Revocations, Revoked};

use super::{Asked, Driver, MAX_PENDING_REQUESTS};
use crate::addr;
use crate::event::ControlEvent;
use crate::infra::{InfraService, Instances, Origins, Rendezvous, TokenBucket, Twins};
use crate::messages::{RefusedReason, Request, Response};
use crate::records::{RefusedRecord, Stored};

/// An addressee that has not answered after this long counts as not connected; well below the time
/// after which the sender takes this node for dead.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);

/// What a node does for those connected to it. On a member `service` is `None`.
pub(super) struct Server {
    service: Option<Arc<dyn InfraService>>,
    kad_server: bool,
    rendezvous: Rendezvous,
    origins: Origins,
    instances: Instances,
    /// One for each connected member that has asked; removed with its last connection.
    buckets: HashMap<PeerId, TokenBucket>,
}

/// An envelope on its last leg.
pub(super) struct Forwarded {
    channel: ResponseChannel<Response>,
    until: Instant,
}

impl Server {
    pub(super) fn new(service: Option<Arc<dyn InfraService>>, kad_server: bool) -> Self {
        Self {
            service,
            kad_server,
            rendezvous: Rendezvous::default(),
            origins: Origins::default(),
            instances: Instances::default(),
            buckets: HashMap::new(),
        }
    }

    pub(super) fn sweep(&mut self, now: Instant, connected: impl Fn(&PeerId) -> bool) {
        self.rendezvous.sweep(now);
        self.origins.sweep(now, connected);
        self.instances.sweep(now);
    }

    /// A run of the process of `peer` is connected from `addr`. Only a bootstrap looks for twins.
    pub(super) fn note_run(
        &mut self,
        peer: PeerId,
        incarnation: u32,
        addr: SocketAddr,
        now: Instant,
    ) -> Option<Twins> {
        self.service.as_ref()?;
        self.instances.note(peer, incarnation, addr, now)
    }

    pub(super) fn note_origin(&mut self, peer: PeerId, invite: InviteId, now: Instant) {
        self.origins.note(peer, invite, now);
    }

    /// Drops the cards and relay allocations of all whom `held` names; says who of the members seen
    /// lately they are.
    pub(super) fn revoke(&mut self, held: &Revocations) -> HashSet<PeerId> {
        let origins = &self.origins;
        self.rendezvous
            .remove(|peer| origins.is_revoked(*peer, held));
        let mut gone: HashSet<PeerId> = origins.revoked(held).into_iter().collect();
        gone.extend(held.entries().filter_map(|entry| match entry {
            Revoked::Node(peer) => Some(*peer),
            Revoked::Invite(_) => None,
        }));
        if let Some(service) = &self.service {
            for peer in &gone {
                service.revoke(*peer);
            }
        }
        gone
    }

    /// The membership of `peer` has ended: its cards and its relay allocation go.
    pub(super) fn end(&mut self, peer: PeerId) {
        self.rendezvous.remove(|one| *one == peer);
        if let Some(service) = &self.service {
            service.revoke(peer);
        }
    }

    pub(super) fn handle_disconnected(&mut self, peer: PeerId) {
        self.buckets.remove(&peer);
    }

    fn may_ask(&mut self, peer: PeerId, now: Instant) -> bool {
        self.buckets
            .entry(peer)
            .or_insert_with(|| TokenBucket::new(now))
            .take(now)
    }

    /// The requests that only a bootstrap serves.
    fn infra(&mut self, peer: PeerId, request: Request, now: Instant) -> Response {
        let Some(service) = &self.service else {
            return Response::Refused(RefusedReason::NotServed);
        };
        let answer = match request {
            Request::Register { rendezvous, card } => self
                .rendezvous
                .register(rendezvous, peer, card, now)
                .map(Response::Cards)
                .ok_or(RefusedReason::Busy),
            Request::Allocate => service.allocate(peer).map(Response::Allocation),
            Request::Permit { allocation, peers } => service
                .permit(peer, allocation, &peers)
                .map(|()| Response::Done),
            _ => Err(RefusedReason::NotServed),
        };
        answer.unwrap_or_else(Response::Refused)
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
        let now = Instant::now();
        // A bootstrap carries the envelopes of all members, so the limit is not for it.
        if !self.admitted.is_infra(&peer) && !self.server.may_ask(peer, now) {
            return self.respond(channel, Response::Refused(RefusedReason::RateLimited));
        }
        if !request.within_bounds() {
            return self.respond(channel, Response::Refused(RefusedReason::TooLarge));
        }
        let response = match request {
            Request::Forward { to, envelope } if to != self.local => {
                return self.forward(peer, to, envelope, channel, now);
            }
            Request::Forward { envelope, .. } => self.take_envelope(peer, envelope),
            Request::Deliver { from, envelope } => self.take_envelope(from, envelope),
            Request::GetRecord { key } => {
                Response::Record(self.kad().store_mut().value(&key).map(<[u8]>::to_vec))
            }
            Request::PutRecord { key, value } => self.put_record(peer, key, value),
            Request::Receipt { chain } => Response::Receipt(self.gate.receipt(peer, &chain)),
            Request::Revocations { list } => self.take_revocations(peer, &list),
            Request::Clock => Response::Clock(unix_millis()),
            Request::Present { incarnation } => self.serve_present(peer, incarnation),
            request => self.server.infra(peer, request, now),
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
                self.respond(one.channel, Response::NotConnected);
            }
        }
    }

    /// The addressee's answer, passed on to the sender.
    pub(super) fn finish_forwarded(&mut self, one: Forwarded, answer: Option<Response>) {
        let response = match answer {
            Some(answer @ (Response::Delivered | Response::Refused(_))) => answer,
            _ => Response::NotConnected,
        };
        self.respond(one.channel, response);
    }

    fn forward(
        &mut self,
        from: PeerId,
        to: PeerId,
        envelope: Vec<u8>,
        channel: ResponseChannel<Response>,
        now: Instant,
    ) {
        let target = addr::to_libp2p(to).filter(|target| self.swarm.is_connected(target));
        let Some(target) = target else {
            return self.respond(channel, Response::NotConnected);
        };
        if self.asked.len() >= MAX_PENDING_REQUESTS {
            return self.respond(channel, Response::Refused(RefusedReason::Busy));
        }
        let request = Request::Deliver { from, envelope };
        let control = &mut self.swarm.behaviour_mut().control;
        let id = control.send_request(&target, request);
        let until = now + DELIVERY_TIMEOUT;
        self.asked
            .insert(id, Asked::Forwarded(Forwarded { channel, until }));
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

    fn put_record(&mut self, peer: PeerId, key: [u8; 32], value: Vec<u8>) -> Response {
        let Some(source) = addr::to_libp2p(peer).filter(|_| self.server.kad_server) else {
            return Response::Refused(RefusedReason::NotServed);
        };
        match self.kad().store_mut().put_from(source, key, value) {
            Stored::Fresh | Stored::Same => Response::Done,
            Stored::Refused(RefusedRecord::Full) => Response::Refused(RefusedReason::Busy),
            Stored::Refused(RefusedRecord::Invalid | RefusedRecord::Older) => {
                Response::Refused(RefusedReason::Invalid)
            }
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

/// The wall clock, in milliseconds since 1970; 0 where it is set before that.
fn unix_millis() -> u64 {
    u64::try_from(clocks::wall().as_millis()).unwrap_or(0)
}
