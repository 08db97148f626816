//! Our own addresses: interfaces, reflectors, relay allocations.
//!
//! Everything here ends in one list of candidates with a sequence that grows whenever the list
//! changes; the driver tells it to peers and lays it down at the rendezvous.

mod udp_reach;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nat_traversal::candidate::{
    Candidate, CandidateFilter, CandidateKind, MAX_CANDIDATES, select_local,
};
use nat_traversal::entropy::Entropy;
use nat_traversal::host::LocalAddresses;
use nat_traversal::nat_kind::{Mapping, NatKinds, Observer};
use nat_traversal::path::{AllocationId, Path, RelayName, SocketId};
use nat_traversal::reflector::{ReflectorClient, ReflectorEvent};
use nat_traversal::relay::{RelayClient, RelayClientEvent, RelayKey};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::DatagramKind;

pub use self::udp_reach::UdpAnswer;
use self::udp_reach::UdpReach;
pub use self::views::Addresses;
use crate::questions::Allocation;

/// Relays in use at once: one per bootstrap of the invite, and no more than this.
const MAX_RELAYS: usize = 4;

/// A relay that does not answer is asked for an allocation again after this.
const ALLOCATE_AGAIN: Duration = Duration::from_secs(30);

/// After a bootstrap is up, how long its first answers (reflexive address, relay) are waited for
/// before candidates are shown without them: three round trips of 100 ms.
const SETTLING: Duration = Duration::from_millis(300);

/// The keys of our allocations, as the `Fib` has them.
pub type RelayKeys = std::collections::BTreeMap<AllocationId, RelayKey>;

/// A datagram to send on one of our sockets.
#[derive(Debug)]
pub struct UnderlayDatagram {
    /// To whom.
    pub to: SocketAddr,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// What the driver has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderlayEvent {
    /// The list of candidates is another one.
    CandidatesChanged,
    /// The filter for the candidates of peers is another one.
    FilterChanged,
    /// The relay at this bootstrap answers.
    RelayBound(PeerId),
    /// The relay at this bootstrap does not know us any more: ask for a new allocation.
    RelayLost(PeerId),
}

/// A relay that we have an allocation at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySpot {
    /// Its bootstrap: what a peer's candidate says.
    pub relay: RelayName,
    /// The address that we use; the peer may use another.
    pub ours: SocketAddr,
    /// Our allocation.
    pub own: AllocationId,
}

/// A bootstrap with its reflectors, and its relay once we have an allocation.
#[derive(Debug)]
struct Infra {
    /// Its addresses that we have a socket for.
    data_addrs: Vec<SocketAddr>,
    relay: Option<Relay>,
    /// When an allocation was last asked for.
    asked: Option<Instant>,
    /// Allocations that never answered: the next one is bound at another address.
    failures: usize,
    /// By how many seconds its clock is ahead of ours, once it has said.
    clock_ahead_s: Option<i64>,
}

#[derive(Debug)]
struct Relay {
    client: RelayClient,
    /// Answers our keep-alives.
    bound: bool,
    /// Did so once.
    worked: bool,
}

/// Our own addresses.
#[derive(Debug)]
pub struct Underlay {
    /// The bound data-path ports; a family without a socket is missing.
    ports: BTreeMap<SocketId, u16>,
    filter: CandidateFilter,
    /// The host's addresses for peers, the best first.
    hosts: Vec<IpAddr>,
    reflector: ReflectorClient,
    nats: NatKinds,
    udp: UdpReach,
    /// At most [`MAX_RELAYS`], all of them pinned by an invite; [`Underlay::keep_infra`] removes others.
    infra: BTreeMap<PeerId, Infra>,
    relay_keys: RelayKeys,
    candidates: Vec<Candidate>,
    /// How our NAT maps; told together with the candidates.
    mapping: Mapping,
    sequence: u64,
    settled_at: Option<Instant>,
    datagrams: VecDeque<UnderlayDatagram>,
    events: VecDeque<UnderlayEvent>,
}

impl Underlay {
    /// `sequence` must be above those of all runs before.
    #[must_use]
    pub fn new(ports: BTreeMap<SocketId, u16>, sequence: u64) -> Self {
        Self {
            ports,
            filter: CandidateFilter::default(),
            hosts: Vec::new(),
            reflector: ReflectorClient::new(),
            nats: NatKinds::default(),
            udp: UdpReach::default(),
            infra: BTreeMap::new(),
            relay_keys: RelayKeys::new(),
            candidates: Vec::new(),
            mapping: Mapping::Unknown,
            sequence,
            settled_at: None,
            datagrams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The host's addresses, the best first, and what is not sent to. `true`: something has changed.
    pub fn set_host(&mut self, now: Instant, local: &LocalAddresses) -> bool {
        let mut filter = CandidateFilter {
            overlay_prefixes: local.overlay.clone(),
            beside_overlay: local.beside.clone(),
            own_addresses: local.own.clone(),
            own_subnets: local.subnets.clone(),
            own_reflexive: Vec::new(),
        };
        filter.own_reflexive.clone_from(&self.filter.own_reflexive);
        let filtered = filter != self.filter;
        if filtered {
            self.filter = filter;
            self.events.push_back(UnderlayEvent::FilterChanged);
        }
        if local.told == self.hosts {
            return filtered;
        }
        let sorted = |hosts: &[IpAddr]| hosts.iter().copied().collect::<BTreeSet<_>>();
        let others = sorted(&local.told) != sorted(&self.hosts);
        self.hosts.clone_from(&local.told);
        if others {
            for socket in [SocketId::V4, SocketId::V6] {
                let local = self.host_addrs(socket);
                self.nats.of_mut(socket).set_local(&local);
            }
            // Our mappings may be others now.
            self.ask_all_now(now);
        }
        self.rebuild();
        true
    }

    /// Asks reflectors and relays now how they see us.
    pub fn ask_all_now(&mut self, now: Instant) {
        self.reflector.ask_now(now);
        for relay in self.infra.values_mut().filter_map(|i| i.relay.as_mut()) {
            relay.client.check_now(now);
        }
    }

    /// The data port of a family; none without a socket.
    pub fn port(&self, socket: SocketId) -> Option<u16> {
        self.ports.get(&socket).copied()
    }

    /// Where the bootstraps are.
    pub fn infra_ips(&self) -> Vec<IpAddr> {
        let infra = self.infra.values();
        let mut ips: Vec<IpAddr> = infra
            .flat_map(|infra| infra.data_addrs.iter().map(SocketAddr::ip))
            .collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }

    /// The data sockets of a family, at each of the host's addresses.
    #[must_use]
    pub fn host_addrs(&self, socket: SocketId) -> Vec<SocketAddr> {
        let Some(&port) = self.ports.get(&socket) else {
            return Vec::new();
        };
        let addrs = self.hosts.iter().map(|ip| SocketAddr::new(*ip, port));
        addrs
            .filter(|addr| SocketId::for_addr(addr) == socket)
            .collect()
    }

    /// A bootstrap is up, with these reflector and relay addresses.
    pub fn add_infra(&mut self, now: Instant, peer: PeerId, data_addrs: &[SocketAddr]) {
        if self.infra.len() >= MAX_RELAYS && !self.infra.contains_key(&peer) {
            return;
        }
        let usable = data_addrs
            .iter()
            .filter(|addr| self.ports.contains_key(&SocketId::for_addr(addr)))
            .copied()
            .collect();
        let infra = self.infra.entry(peer).or_insert(Infra {
            data_addrs: Vec::new(),
            relay: None,
            asked: None,
            failures: 0,
            clock_ahead_s: None,
        });
        infra.data_addrs = usable;
        self.ask_reflectors(now);
        self.settled_at.get_or_insert(now + SETTLING);
    }

    /// The bootstraps are these: what was had of others is given up, and their places are free.
    pub fn keep_infra(&mut self, now: Instant, pinned: &BTreeSet<PeerId>) {
        let before = self.infra.len();
        self.infra.retain(|peer, _| pinned.contains(peer));
        if self.infra.len() < before {
            self.ask_reflectors(now);
            self.forget_relay_keys();
            self.rebuild();
        }
    }

    fn ask_reflectors(&mut self, now: Instant) {
        let infra = self.infra.values();
        let all: Vec<SocketAddr> = infra
            .flat_map(|infra| infra.data_addrs.iter().copied())
            .collect();
        self.reflector.set_reflectors(now, &all);
        self.udp.set(&all);
    }

    fn forget_relay_keys(&mut self) {
        let relays = self.infra.values().filter_map(|infra| infra.relay.as_ref());
        let ours: BTreeSet<AllocationId> = relays.map(|relay| relay.client.allocation()).collect();
        self.relay_keys.retain(|id, _| ours.contains(id));
    }

    /// We have an allocation at the relay of `peer`: bind it.
    pub fn add_allocation(&mut self, now: Instant, peer: PeerId, allocation: &Allocation) {
        let Some(infra) = self.infra.get_mut(&peer) else {
            return;
        };
        // One of its addresses may be of no use from here.
        let turn = infra.failures % infra.data_addrs.len().max(1);
        let Some(&addr) = infra.data_addrs.get(turn) else {
            return;
        };
        let key = allocation.key;
        let client = RelayClient::new(now, addr, allocation.id, key);
        infra.relay = Some(Relay {
            client,
            bound: false,
            worked: false,
        });
        self.relay_keys.insert(allocation.id, key);
        self.forget_relay_keys();
        self.rebuild();
    }

    /// An allocation was asked for at the relay of `peer`.
    pub fn note_asked(&mut self, now: Instant, peer: PeerId) {
        if let Some(infra) = self.infra.get_mut(&peer) {
            let failed = infra.relay.as_ref().is_some_and(|relay| !relay.worked);
            infra.failures += usize::from(failed);
            infra.asked = Some(now);
        }
    }

    /// Bootstraps whose relay does not answer and was not asked for an allocation lately.
    pub fn without_relay(&self, now: Instant) -> Vec<PeerId> {
        let silent = self.infra.iter().filter(|(_, infra)| {
            let lately = |at| now.duration_since(at) < ALLOCATE_AGAIN;
            !infra.relay.as_ref().is_some_and(|relay| relay.bound)
                && !infra.asked.is_some_and(lately)
        });
        silent.map(|(peer, _)| *peer).collect()
    }

    /// Is the first list of candidates worth showing?
    pub fn is_settled(&self, now: Instant) -> bool {
        let Some(settled_at) = self.settled_at else {
            return false;
        };
        // A host on the open Internet is seen as it is: the answer counts, not a new address in it. And the
        // allocation counts: it is bound by the time somebody who was shown it sends there.
        let complete = self.infra.values().any(|infra| {
            infra.relay.is_some() && self.udp.of(&infra.data_addrs) == UdpAnswer::Answers
        });
        complete || now >= settled_at
    }

    /// A datagram for the reflector client or a relay client.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        kind: DatagramKind,
        path: Path,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(), DropReason> {
        match kind {
            DatagramKind::ReflectorResponse => self
                .reflector
                .handle_response(now, path.remote, bytes, entropy)
                .map_err(|_| DropReason::ReflectorInvalid),
            DatagramKind::RelayChallenge | DatagramKind::RelayAck => {
                let relays = self
                    .infra
                    .values_mut()
                    .filter_map(|infra| infra.relay.as_mut());
                for relay in relays {
                    if relay
                        .client
                        .handle_datagram(now, path.remote, bytes)
                        .is_ok()
                    {
                        return Ok(());
                    }
                }
                Err(DropReason::RelayInvalid)
            }
            _ => Err(DropReason::UnknownDatagramKind),
        }
    }

    /// An authenticated peer told where it sees us: the second reflector.
    pub fn handle_observed(&mut self, now: Instant, observer: SocketAddr, seen: SocketAddr) {
        self.observe(now, (Observer::Peer, observer), seen);
        self.rebuild();
    }

    fn observe(&mut self, now: Instant, observer: (Observer, SocketAddr), seen: SocketAddr) {
        let socket = SocketId::for_addr(&seen);
        self.nats
            .of_mut(socket)
            .handle_observation(now, observer, seen);
    }

    /// Timers of the clients.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.reflector.handle_timeout(now, entropy);
        for relay in self
            .infra
            .values_mut()
            .filter_map(|infra| infra.relay.as_mut())
        {
            relay.client.handle_timeout(now);
        }
        self.drain(now);
    }

    /// The earliest timer. The end of settling is one, so that cards are laid down then.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let relays = self.infra.values().filter_map(|infra| infra.relay.as_ref());
        let relays = relays.filter_map(|relay| relay.client.poll_timeout());
        let settling = self.settled_at.filter(|at| *at > now);
        self.reflector
            .poll_timeout()
            .into_iter()
            .chain(relays)
            .chain(settling)
            .min()
    }

    fn drain(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(transmit) = self.reflector.poll_transmit() {
            self.datagrams.push_back(UnderlayDatagram {
                to: transmit.to,
                bytes: transmit.bytes.to_vec(),
            });
        }
        while let Some(event) = self.reflector.poll_event() {
            match event {
                ReflectorEvent::Observed {
                    reflector, addr, ..
                } => {
                    self.udp.note(reflector, true);
                    self.observe(now, (Observer::Reflector, reflector), addr);
                    changed = true;
                }
                ReflectorEvent::Unanswered { socket, reflector } => {
                    self.udp.note(reflector, false);
                    self.nats.of_mut(socket).handle_silence(reflector);
                }
            }
        }
        for (peer, infra) in &mut self.infra {
            let Some(relay) = infra.relay.as_mut() else {
                continue;
            };
            while let Some((to, bytes)) = relay.client.poll_transmit() {
                self.datagrams.push_back(UnderlayDatagram {
                    to,
                    bytes: bytes.to_vec(),
                });
            }
            while let Some(event) = relay.client.poll_event() {
                relay.bound = matches!(event, RelayClientEvent::Bound { .. });
                relay.worked |= relay.bound;
                self.events.push_back(match relay.bound {
                    true => UnderlayEvent::RelayBound(*peer),
                    false => UnderlayEvent::RelayLost(*peer),
                });
                changed = true;
            }
        }
        if changed {
            self.rebuild();
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<UnderlayDatagram> {
        self.drain(now);
        self.datagrams.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<UnderlayEvent> {
        self.events.pop_front()
    }

    /// Makes the list of candidates anew; a change is an event.
    fn rebuild(&mut self) {
        let mut all = Vec::new();
        let mut add = |kind, addr, relay: Option<(RelayName, AllocationId)>| {
            let (relay, allocation) = relay.unzip();
            all.push(Candidate {
                kind,
                addr,
                allocation,
                relay,
            })
        };
        for socket in [SocketId::V4, SocketId::V6] {
            let hosts = self.host_addrs(socket);
            let reflexive = self.nats.of(socket).reflexive();
            for addr in &reflexive {
                if !hosts.contains(addr) {
                    add(CandidateKind::Reflexive, *addr, None);
                }
            }
            for addr in hosts {
                add(CandidateKind::Host, addr, None);
            }
        }
        for (name, relay) in self.relays() {
            let at = (name, relay.client.allocation());
            add(CandidateKind::Relayed, relay.client.relay(), Some(at));
        }
        let reflexive: Vec<IpAddr> = self.reflexive().iter().map(SocketAddr::ip).collect();
        if reflexive != self.filter.own_reflexive {
            self.filter.own_reflexive = reflexive;
            self.events.push_back(UnderlayEvent::FilterChanged);
        }
        let mut all = select_local(&all);
        all.truncate(MAX_CANDIDATES);
        let mapping = self.nat().mapping();
        if all != self.candidates || mapping != self.mapping {
            self.candidates = all;
            self.mapping = mapping;
            self.sequence += 1;
            if !self.events.contains(&UnderlayEvent::CandidatesChanged) {
                self.events.push_back(UnderlayEvent::CandidatesChanged);
            }
        }
    }

    /// The clock of a bootstrap is so many seconds ahead of ours.
    pub fn note_clock(&mut self, peer: &PeerId, ahead_s: i64) {
        if let Some(infra) = self.infra.get_mut(peer) {
            infra.clock_ahead_s = Some(ahead_s);
        }
    }
}

#[cfg(test)]
mod tests;
