//! Two agents on a virtual clock, behind NATs that are data: mapping x filtering (RFC 4787).

#![allow(
    clippy::disallowed_methods,
    reason = "a simulation needs one instant to start from"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::*;
use crate::candidate::CandidateKind;
use crate::entropy::SeededEntropy;
use crate::nat_kind::{Filtering, Mapping};
use crate::path::{AllocationId, RelayRoute};

/// Between the two sides, each way.
pub(super) const ONE_WAY: Duration = Duration::from_millis(25);
/// Through the relay, each way.
pub(super) const RELAY_ONE_WAY: Duration = Duration::from_millis(40);

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A NAT as data.
#[derive(Debug, Clone)]
pub(super) struct Nat {
    pub(super) mapping: Mapping,
    pub(super) filtering: Filtering,
    pub(super) ip: IpAddr,
    next_port: u16,
    /// (destination as far as the mapping depends on it, outer port)
    mapped: Vec<(Option<SocketAddr>, u16)>,
    /// (outer port, destination that was sent to)
    open: BTreeSet<(u16, SocketAddr)>,
}

impl Nat {
    fn new(mapping: Mapping, filtering: Filtering, ip: IpAddr) -> Self {
        Self {
            mapping,
            filtering,
            ip,
            next_port: 40_000,
            mapped: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// The outer source of a packet to `to`.
    fn outbound(&mut self, to: SocketAddr) -> SocketAddr {
        let key = match self.mapping {
            Mapping::AddressAndPortDependent => Some(to),
            Mapping::AddressDependent => Some(SocketAddr::new(to.ip(), 0)),
            _ => None,
        };
        let known = self
            .mapped
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, port)| *port);
        let port = known.unwrap_or_else(|| {
            self.next_port += 7;
            self.mapped.push((key, self.next_port));
            self.next_port
        });
        self.open.insert((port, to));
        SocketAddr::new(self.ip, port)
    }

    /// Whether a packet from `from` to `port` comes in.
    fn inbound(&self, from: SocketAddr, port: u16) -> bool {
        if !self.mapped.iter().any(|(_, mapped)| *mapped == port) {
            return false;
        }
        match self.filtering {
            Filtering::AddressAndPortDependent => self.open.contains(&(port, from)),
            Filtering::AddressDependent => {
                let sent_to =
                    |(open, to): &(u16, SocketAddr)| *open == port && to.ip() == from.ip();
                self.open.iter().any(sent_to)
            }
            _ => true,
        }
    }

    /// Lets nothing in that is not asked for from now on; the mappings stay.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    /// Forgets everything, as a router that restarts; new ports from now on.
    pub(super) fn reboot(&mut self) {
        self.mapped.clear();
        self.open.clear();
        self.next_port += 1_000;
    }
}

pub(super) struct Side {
    pub(super) agent: PathAgent,
    pub(super) nat: Nat,
    pub(super) events: Vec<(Duration, PathEvent)>,
    pub(super) relay: Path,
    pub(super) direct_sent: usize,
    budget: ProbeBudget,
    reflexive: SocketAddr,
}

/// A datagram under way: when it arrives, at whom, on which path as the receiver sees it.
struct Flight(Instant, usize, Path, ProbeMessage);

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) sides: [Side; 2],
    pub(super) relay_up: bool,
    pub(super) direct_up: bool,
    /// The largest sealed datagram that passes, direct and relayed.
    pub(super) direct_mtu: usize,
    pub(super) relay_mtu: usize,
    entropy: SeededEntropy,
    flights: Vec<Flight>,
}

/// What a side's NAT does.
pub(super) type Kind = (Mapping, Filtering);

impl World {
    /// Two sides behind NATs of these kinds, with a session over the relay; candidates are told.
    pub(super) fn new(kinds: [Kind; 2]) -> Self {
        let start = Instant::now();
        let mut index = 0;
        let sides = kinds.map(|(mapping, filtering)| {
            index += 1;
            Side::new(start, index, mapping, filtering)
        });
        let mut world = Self {
            start,
            now: start,
            sides,
            relay_up: true,
            direct_up: true,
            direct_mtu: 1_472,
            relay_mtu: 1_444,
            entropy: SeededEntropy::new(42),
            flights: Vec::new(),
        };
        for index in 0..2 {
            let relay = world.sides[index].relay;
            world.sides[index].agent.set_relay(start, Some(relay));
            world.sides[index].agent.handle_established(start, relay, 0);
            world.tell_candidates(index, 1);
        }
        world.drive();
        world
    }

    /// Tells the candidates of the other side to `index`.
    pub(super) fn tell_candidates(&mut self, index: usize, seq: u64) {
        let reflexive = self.sides[1 - index].reflexive;
        let candidate = Candidate {
            kind: CandidateKind::Reflexive,
            addr: reflexive,
            allocation: None,
            relay: None,
        };
        let now = self.now;
        self.sides[index]
            .agent
            .set_remote_candidates(now, &[candidate], seq);
    }

    /// Lets so much time pass; `talking` reports frames both ways once in 500 ms, as the workers do.
    pub(super) fn run(&mut self, time: Duration, talking: bool) {
        let end = self.now + time;
        let mut tick = self.now;
        while self.now < end {
            let due = self
                .sides
                .iter()
                .filter_map(|side| side.agent.poll_timeout())
                .min();
            let arrival = self.flights.iter().map(|flight| flight.0).min();
            let next = [Some(end), talking.then_some(tick), due, arrival];
            self.now = next.into_iter().flatten().min().unwrap().max(self.now);
            if talking && tick <= self.now {
                tick += Duration::from_millis(500);
                self.talk();
            }
            self.deliver();
            for side in &mut self.sides {
                if side.agent.poll_timeout().is_some_and(|due| due <= self.now) {
                    side.agent.handle_timeout(self.now);
                }
            }
            self.drive();
        }
    }

    /// A frame each way over the chosen paths, as large as a datagram takes, without delay.
    fn talk(&mut self) {
        for index in 0..2 {
            let Some(path) = self.sides[index].agent.chosen() else {
                continue;
            };
            self.sides[index].agent.handle_sent(self.now);
            let size = self.sides[index].agent.path_mtu_payload();
            if let Some(seen) = self.transport(index, path, size) {
                self.sides[1 - index].agent.handle_traffic(self.now, seen);
            }
        }
    }

    /// The path on which the other side sees a datagram of `size` bytes that `index` sends on `path`.
    fn transport(&mut self, index: usize, path: Path, size: usize) -> Option<Path> {
        let (near, far) = match &mut self.sides {
            [a, b] if index == 0 => (a, b),
            [a, b] => (b, a),
        };
        if path.kind() == PathKind::Relayed {
            return (self.relay_up && size <= self.relay_mtu).then_some(far.relay);
        }
        near.direct_sent += 1;
        let source = near.nat.outbound(path.remote);
        let reaches = path.remote.ip() == far.nat.ip && far.nat.inbound(source, path.remote.port());
        (self.direct_up && reaches && size <= self.direct_mtu).then(|| Path::direct(source))
    }

    fn send(&mut self, index: usize, out: Outgoing) {
        let delay = match out.path.kind() {
            PathKind::Relayed => RELAY_ONE_WAY,
            _ => ONE_WAY,
        };
        let size = sizes::sealed_of_frame(out.padded_len);
        if let Some(seen) = self.transport(index, out.path, size) {
            self.flights
                .push(Flight(self.now + delay, 1 - index, seen, out.message));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, flying): (Vec<_>, Vec<_>) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|flight| flight.0 <= now);
        self.flights = flying;
        for Flight(_, index, path, message) in arrived {
            if let Some(answer) = self.sides[index].agent.handle_probe(now, path, message) {
                self.send(index, answer);
            }
        }
    }

    fn drive(&mut self) {
        for index in 0..2 {
            let side = &mut self.sides[index];
            while let Some(event) = side.agent.poll_event() {
                side.events.push((self.now - self.start, event));
            }
            loop {
                let side = &mut self.sides[index];
                let out = side
                    .agent
                    .poll_transmit(self.now, &mut side.budget, &mut self.entropy);
                let Some(out) = out else { break };
                self.send(index, out);
            }
        }
    }

    /// The kinds of path that the two sides send on.
    pub(super) fn kinds(&self) -> [PathKind; 2] {
        [0, 1].map(|index: usize| {
            let chosen = self.sides[index].agent.chosen();
            chosen.map_or(PathKind::None, |path| path.kind())
        })
    }
}

impl Side {
    fn new(now: Instant, index: u8, mapping: Mapping, filtering: Filtering) -> Self {
        let ip = IpAddr::from([203, 0, 113, index]);
        let mut nat = Nat::new(mapping, filtering, ip);
        let bootstrap = addr("192.0.2.1:22611");
        let reflexive = nat.outbound(bootstrap);
        let id = AllocationId(u64::from(index));
        let other = AllocationId(u64::from(3 - index));
        let filter = CandidateFilter {
            own_reflexive: vec![ip],
            ..CandidateFilter::default()
        };
        Self {
            agent: PathAgent::new(now, filter, index == 1),
            nat,
            events: Vec::new(),
            relay: Path::relayed(
                bootstrap,
                RelayRoute {
                    own: id,
                    peer: other,
                },
            ),
            direct_sent: 0,
            budget: ProbeBudget::new(),
            reflexive,
        }
    }
}
