//! What a node does for those connected to it. A bootstrap is this and a relay; a member serves a part of it.
//!
//! [`Server`] is a machine: each input comes with its time, and what is to be done is what the call returns. Order of calls:
//! [`Server::handle_connected`] when a link is up, [`Server::handle_request`] for each request of its peer,
//! [`Server::handle_disconnected`] when the last link is gone; [`Server::handle_timeout`] at [`Server::poll_timeout`];
//! [`Server::follow_revocations`] after anything that may have taught the gate more.

mod bucket;
mod instances;
mod origins;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::path::AllocationId;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Revocations, Revoked, SignedRevocations};
use overlay_proto::time::UnixTime;

use crate::admission::{Admitted, AdmittedTable, Gatekeeper};
use crate::messages::{Allocation, Presence, RefusedReason, Request, Response};
use crate::records::{Records, RefusedRecord, Stored};
use bucket::TokenBucket;
use instances::{Instances, Twins};
use origins::Origins;
use rendezvous::Rendezvous;
pub use rendezvous::{CARD_LIFETIME, MAX_CARDS_HELD};

/// An addressee that has not answered after this long counts as not connected; well below the time
/// after which the sender takes this node for dead.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);

/// How often lapsed state is removed, and the longest a forwarded envelope waits beyond its time.
const TICK: Duration = Duration::from_secs(1);

/// How often the ends of all memberships that are connected are looked at; they are dates, with a tolerance of
/// minutes.
const EXPIRY_LOOK: Duration = Duration::from_secs(60);

/// The UDP relay that a bootstrap runs beside its control plane. Called between two requests: must not block on
/// anything slow.
pub trait Relay {
    /// A new allocation for the admitted member `peer`.
    ///
    /// # Errors
    /// `Busy` when the member's share or the relay is full.
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason>;

    /// More peers whose datagrams the allocation accepts.
    ///
    /// # Errors
    /// `Invalid` when the allocation is unknown or not `peer`'s.
    fn permit(
        &self,
        peer: PeerId,
        allocation: AllocationId,
        peers: &[PeerId],
    ) -> Result<(), RefusedReason>;

    /// `peer` is revoked, or its membership has ended: its allocation ends, and nobody may send to it.
    fn revoke(&self, peer: PeerId);
}

/// What a call to the [`Server`] needs of others.
pub struct Means<'a> {
    /// The gate, which has the books.
    pub gate: &'a dyn Gatekeeper,
    /// The relay of a bootstrap; `None` on a member, which serves no member then.
    pub relay: Option<&'a dyn Relay>,
    /// The records of the DHT.
    pub records: &'a mut Records,
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The monotonic one.
    pub now: Instant,
    /// The wall clock: since 1970, UTC; zero where it is set before that.
    pub wall: Duration,
}

impl Times {
    const fn unix(&self) -> UnixTime {
        UnixTime(self.wall.as_secs())
    }
}

/// Whoever asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Its proved name.
    pub peer: PeerId,
    /// Where its newest connection comes from; `None` where it has dialled none.
    pub seen: Option<SocketAddr>,
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This is the answer.
    Answer(Response),
    /// This is the answer, and the operator is to hear that two machines have the identity of the asker.
    Twins {
        /// The answer.
        answer: Response,
        /// Where the two are connected from.
        addrs: [SocketAddr; 2],
    },
    /// An envelope for this node itself: `Delivered` when it is taken, `Busy` when there is no room.
    Take {
        /// The sender, according to the carrier.
        from: PeerId,
        /// Opaque.
        envelope: Vec<u8>,
    },
    /// Put `request` to `to`; what it says, or that it says nothing until `until`, goes through [`answer_of_forward`]. Where
    /// it is not connected the answer is `NotConnected`.
    Forward {
        /// The addressee.
        to: PeerId,
        /// What it is asked.
        request: Request,
        /// When the sender is told that there is no answer.
        until: Instant,
    },
}

/// The answer to a sender whose addressee said `answer`, or nothing.
#[must_use]
pub fn answer_of_forward(answer: Option<Response>) -> Response {
    match answer {
        Some(answer @ (Response::Delivered | Response::Refused(_))) => answer,
        _ => Response::NotConnected,
    }
}

/// The lists of `held` that `before` lacks, encoded.
fn new_lists(before: &Revocations, held: &Revocations) -> Vec<Vec<u8>> {
    let new = |list: &&SignedRevocations| !before.lists().contains(list);
    let lists = held.lists().iter().filter(new);
    lists.map(SignedRevocations::encode).collect()
}

/// What is to be done since the gate has learnt more, in an admission, from a request or from the node itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Followed {
    /// They are out: their connections are to be closed.
    pub cut_off: Vec<PeerId>,
    /// All others who are connected: they are to be told. Who does not answer is to be hung up on, and asks for the lists
    /// when it comes back.
    pub told: Vec<PeerId>,
    /// What they are told, encoded: the lists that were not known before.
    pub lists: Vec<Vec<u8>>,
}

/// What is kept for, and about, those who are connected.
pub struct Server {
    local: PeerId,
    /// Others may store records here.
    kad_server: bool,
    admitted: AdmittedTable,
    rendezvous: Rendezvous,
    origins: Origins,
    instances: Instances,
    /// One for each connected member that has asked; removed with its last connection.
    buckets: BTreeMap<PeerId, TokenBucket>,
    next_sweep: Instant,
    next_expiry: Instant,
    /// Those of the gate that have been followed.
    revocations: Arc<Revocations>,
}

impl Server {
    /// A node named `local`, to which come those of `admitted`; its gate begins with `revocations`.
    #[must_use]
    pub fn new(
        local: PeerId,
        kad_server: bool,
        admitted: AdmittedTable,
        revocations: Arc<Revocations>,
        now: Instant,
    ) -> Self {
        Self {
            local,
            kad_server,
            admitted,
            rendezvous: Rendezvous::default(),
            origins: Origins::default(),
            instances: Instances::default(),
            buckets: BTreeMap::new(),
            next_sweep: now + TICK,
            next_expiry: now + EXPIRY_LOOK,
            revocations,
        }
    }

    /// A link to `peer` is up: by which invite a member came in is known for as long as something of it is here.
    pub fn handle_connected(&mut self, peer: PeerId, now: Instant) {
        if let Some(Admitted::Member { invite, .. }) = self.admitted.get(&peer) {
            self.origins.note(peer, invite, now);
        }
    }

    /// The last link to `peer` is gone.
    pub fn handle_disconnected(&mut self, peer: PeerId) {
        self.buckets.remove(&peer);
        self.admitted.handle_disconnected(&peer);
    }

    /// A request of the admitted node `asker`.
    pub fn handle_request(
        &mut self,
        times: Times,
        asker: Asker,
        request: Request,
        means: &mut Means<'_>,
    ) -> Step {
        let (peer, now) = (asker.peer, times.now);
        // A bootstrap carries the envelopes of all members, so the limit is not for it.
        if !self.admitted.is_infra(&peer) && !self.may_ask(peer, now) {
            return Step::Answer(Response::Refused(RefusedReason::RateLimited));
        }
        if !request.within_bounds() {
            return Step::Answer(Response::Refused(RefusedReason::TooLarge));
        }
        Step::Answer(match request {
            Request::Forward { to, envelope } if to != self.local => {
                return Step::Forward {
                    to,
                    request: Request::Deliver {
                        from: peer,
                        envelope,
                    },
                    until: now + DELIVERY_TIMEOUT,
                };
            }
            Request::Forward { envelope, .. } => {
                return Step::Take {
                    from: peer,
                    envelope,
                };
            }
            Request::Deliver { from, envelope } => return Step::Take { from, envelope },
            Request::Present { incarnation } => {
                return self.present(asker, incarnation, now, means);
            }
            Request::GetRecord { key } => {
                let held = means.records.get(&key, now);
                Response::Record(held.map(|held| held.value.clone()))
            }
            Request::PutRecord { key, value } if self.kad_server => {
                put_record(means.records.put_from(peer, key, value, now))
            }
            Request::Receipt { chain } => {
                Response::Receipt(means.gate.receipt(peer, &chain, times.unix()))
            }
            Request::Revocations { list } => take_revocations(peer, &list, means.gate),
            Request::Clock => {
                Response::Clock(u64::try_from(times.wall.as_millis()).unwrap_or(u64::MAX))
            }
            request => self.serve_member(peer, request, now, means.relay),
        })
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.next_sweep
    }

    /// Removes what lapsed, if it is time. Returns those of the `connected` whose membership has ended: what they
    /// had here is gone, and they are to be disconnected. Who has another certificate comes back with it.
    pub fn handle_timeout(
        &mut self,
        times: Times,
        connected: &[PeerId],
        means: &mut Means<'_>,
    ) -> Vec<PeerId> {
        let now = times.now;
        if now < self.next_sweep {
            return Vec::new();
        }
        self.next_sweep = now + TICK;
        // Thousands may be connected, and twice as many known.
        let sorted: BTreeSet<PeerId> = connected.iter().copied().collect();
        self.admitted.sweep(|peer| sorted.contains(peer), now);
        self.origins.sweep(now, |peer| sorted.contains(peer));
        self.rendezvous.sweep(now);
        self.instances.sweep(now);
        means.records.sweep(now);
        if now < self.next_expiry {
            return Vec::new();
        }
        self.next_expiry = now + EXPIRY_LOOK;
        let has_ended = |peer: &&PeerId| {
            matches!(
                self.admitted.get(peer),
                Some(Admitted::Member { until, .. }) if means.gate.has_ended(until, times.unix())
            )
        };
        let ended: Vec<PeerId> = connected.iter().filter(has_ended).copied().collect();
        self.rendezvous.remove(|peer| ended.contains(peer));
        means.records.remove_sources(|peer| ended.contains(peer));
        for peer in &ended {
            tracing::info!(%peer, "its membership has ended: disconnected");
            revoke_allocations(means.relay, *peer);
        }
        ended
    }

    /// Is the admitted `peer` out by what has been followed, itself or with its invite? Its admission may have been
    /// judged by an older list.
    #[must_use]
    pub fn is_revoked(&self, peer: PeerId) -> bool {
        let held = &self.revocations;
        match self.admitted.get(&peer) {
            Some(Admitted::Member { invite, .. }) => held.check(peer, invite).is_err(),
            _ => held.names_node(peer),
        }
    }

    /// Has all that `gate` has learnt been followed?
    #[must_use]
    pub fn has_followed(&self, gate: &dyn Gatekeeper) -> bool {
        Arc::ptr_eq(&gate.revocations(), &self.revocations)
    }

    /// Follows what the gate has learnt: whoever is named has nothing here any more, and this is to be done about those
    /// who are `connected`.
    pub fn follow_revocations(&mut self, connected: &[PeerId], means: &mut Means<'_>) -> Followed {
        let held = means.gate.revocations();
        let before = std::mem::replace(&mut self.revocations, Arc::clone(&held));
        let connected = connected.iter().copied();
        let (cut_off, told) = connected.partition(|peer| self.is_revoked(*peer));
        self.drop_what_they_had(&held, means);
        Followed {
            cut_off,
            told,
            lists: new_lists(&before, &held),
        }
    }

    /// The cards, records and relay allocations of all whom `held` names are gone, also of members that were here lately.
    fn drop_what_they_had(&mut self, held: &Revocations, means: &mut Means<'_>) {
        let origins = &self.origins;
        self.rendezvous
            .remove(|peer| origins.is_revoked(*peer, held));
        let mut gone = origins.revoked(held);
        gone.extend(held.entries().filter_map(|entry| match entry {
            Revoked::Node(peer) => Some(*peer),
            Revoked::Invite(_) => None,
        }));
        gone.sort_unstable();
        gone.dedup();
        means
            .records
            .remove_sources(|peer| gone.binary_search(peer).is_ok());
        for peer in gone {
            revoke_allocations(means.relay, peer);
        }
    }

    fn may_ask(&mut self, peer: PeerId, now: Instant) -> bool {
        self.buckets
            .entry(peer)
            .or_insert_with(|| TokenBucket::new(now))
            .take(now)
    }

    /// A member says which run of its process it is. Only a bootstrap looks for twins.
    fn present(&mut self, asker: Asker, incarnation: u32, now: Instant, means: &Means<'_>) -> Step {
        let Some(seen) = asker.seen else {
            return Step::Answer(Response::Refused(RefusedReason::NotServed));
        };
        let twins = means.relay.and_then(|_| {
            let instances = &mut self.instances;
            instances.note(asker.peer, incarnation, seen, now)
        });
        let twin = twins.map(|twins| twins.other);
        let answer = Response::Present(Presence { seen, twin });
        match twins {
            Some(Twins {
                other,
                report: true,
            }) => Step::Twins {
                answer,
                addrs: [seen, other],
            },
            _ => Step::Answer(answer),
        }
    }

    /// The requests that only a bootstrap serves.
    fn serve_member(
        &mut self,
        peer: PeerId,
        request: Request,
        now: Instant,
        relay: Option<&dyn Relay>,
    ) -> Response {
        let Some(relay) = relay else {
            return Response::Refused(RefusedReason::NotServed);
        };
        let answer = match request {
            Request::Register { rendezvous, card } => self
                .rendezvous
                .register(rendezvous, peer, card, now)
                .map(Response::Cards)
                .ok_or(RefusedReason::Busy),
            Request::Allocate => relay.allocate(peer).map(Response::Allocation),
            Request::Permit { allocation, peers } => relay
                .permit(peer, allocation, &peers)
                .map(|()| Response::Done),
            _ => Err(RefusedReason::NotServed),
        };
        answer.unwrap_or_else(Response::Refused)
    }
}

fn put_record(stored: Stored) -> Response {
    match stored {
        Stored::Fresh | Stored::Same => Response::Done,
        Stored::Refused(RefusedRecord::Full) => Response::Refused(RefusedReason::Busy),
        Stored::Refused(RefusedRecord::Invalid | RefusedRecord::Older) => {
            Response::Refused(RefusedReason::Invalid)
        }
    }
}

fn take_revocations(peer: PeerId, list: &[u8], gate: &dyn Gatekeeper) -> Response {
    match gate.take_revocations(list) {
        Ok(_) => Response::Done,
        Err(error) => {
            tracing::warn!(%peer, %error, "a revocation list does not count");
            Response::Refused(RefusedReason::Invalid)
        }
    }
}

fn revoke_allocations(relay: Option<&dyn Relay>, peer: PeerId) {
    if let Some(relay) = relay {
        relay.revoke(peer);
    }
}
