//! A NAT or firewall for UDP of one address family: [`NatBehaviour`] is what it does, [`Nat`] what it remembers.
//!
//! It remembers three things, each bounded by [`NatBehaviour::table`] and forgotten after [`NatBehaviour::expiry`]:
//! *mappings*, from an inside endpoint (and the destination as far as the mapping depends on it) to an external one;
//! *permits*, who was sent to from a mapping, for the filter; and *taken tuples*, see [`Unsolicited::Accepted`].
//! A datagram costs a few look-ups in sorted tables, O(log n).

mod behaviour;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nat_traversal::entropy::SeededEntropy;
use nat_traversal::nat_kind::{Filtering, Mapping};

pub use behaviour::{NatBehaviour, PortChoice, UNREPLIED, Unsolicited};

use super::aging::Aging;
use super::random::below;

/// The lowest external port that is given; a preserved one may be lower.
const FIRST_PORT: u16 = 1_024;

/// The translated endpoint, if the datagram passes: its source on the way out, its destination on the way in.
pub type Verdict = Result<SocketAddr, Refused>;

/// Why a datagram does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// No UDP passes here.
    UdpBlocked,
    /// It is for an external endpoint of this NAT and comes from the inside, which this one does not do.
    NoHairpin,
    /// All ports are taken.
    NoPort,
    /// Nothing is mapped there.
    NoMapping,
    /// Its source was not sent to.
    Filtered,
}

/// For whom a mapping is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct MappingKey {
    inside: SocketAddr,
    /// As far as the mapping depends on it, port 0 if only the address counts.
    remote: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Mapped {
    external: SocketAddr,
    /// Never used again, so that permits of an ended mapping open nothing for whom has its port next.
    id: u64,
}

/// A NAT or firewall with what it remembers.
#[derive(Debug)]
pub struct Nat {
    behaviour: NatBehaviour,
    wan: IpAddr,
    chance: SeededEntropy,
    mappings: Aging<MappingKey, Mapped>,
    /// Whose an external endpoint is; one entry for each of `mappings`.
    externals: BTreeMap<SocketAddr, MappingKey>,
    /// By mapping and remote as far as the filter looks.
    permits: Aging<(u64, SocketAddr), ()>,
    /// Tuples that the router itself has, by external port.
    taken: Aging<(u16, SocketAddr), ()>,
    /// External port to inside endpoint; as many as the configuration says.
    forwards: BTreeMap<u16, SocketAddr>,
    next_id: u64,
    next_port: u16,
}

impl Nat {
    /// A NAT with this external address, which remembers nothing. Without translation the address is not looked at. `chance`
    /// is its own stream.
    #[must_use]
    pub fn new(behaviour: NatBehaviour, wan: IpAddr, mut chance: SeededEntropy) -> Self {
        let limit = behaviour.table.clamp(1, NatBehaviour::MOST);
        let unreplied = behaviour.expiry.min(UNREPLIED);
        Self {
            behaviour,
            wan,
            next_port: port_by(&mut chance),
            chance,
            mappings: Aging::new(behaviour.expiry, limit),
            externals: BTreeMap::new(),
            permits: Aging::new(behaviour.expiry, limit),
            taken: Aging::new(unreplied, limit),
            forwards: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// What it does.
    #[must_use]
    pub const fn behaviour(&self) -> &NatBehaviour {
        &self.behaviour
    }

    /// Its external address.
    #[must_use]
    pub const fn wan(&self) -> IpAddr {
        self.wan
    }

    /// Everything but what the administrator set is forgotten, as by a router that restarts. Ports are given from
    /// another start.
    pub fn restart(&mut self) {
        self.mappings.clear();
        self.externals.clear();
        self.permits.clear();
        self.taken.clear();
        self.next_port = port_by(&mut self.chance);
    }

    /// The provider gives it another address; what it remembers is forgotten with the old one.
    pub fn set_wan(&mut self, wan: IpAddr) {
        self.restart();
        self.wan = wan;
    }

    /// Whatever comes to the external `port` goes to `inside`, which is seen at that port by everybody. Port 0 or an
    /// inside endpoint that is forwarded to already change nothing; without translation it has no effect.
    pub fn forward(&mut self, port: u16, inside: SocketAddr) {
        if port == 0 || self.forwards.values().any(|known| *known == inside) {
            return;
        }
        // Whose port it was so far gets another one.
        if let Some(key) = self.externals.remove(&SocketAddr::new(self.wan, port)) {
            self.mappings.remove(&key);
        }
        self.forwards.insert(port, inside);
    }

    /// Mappings that it holds, with those that have ended and are not swept yet.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// Mappings and permits that had to make room before they ended.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.mappings.evicted() + self.permits.evicted()
    }

    /// A datagram from the inside endpoint `src` to `dst`. Gives the source that the outside sees.
    ///
    /// # Errors
    ///
    /// Why it does not pass.
    pub fn outbound(&mut self, now: Duration, src: SocketAddr, dst: SocketAddr) -> Verdict {
        if self.behaviour.blocks_udp {
            return Err(Refused::UdpBlocked);
        }
        if self.behaviour.is_open() {
            return Ok(src);
        }
        let translates = self.behaviour.translates();
        if translates && dst.ip() == self.wan && !self.behaviour.hairpin {
            return Err(Refused::NoHairpin);
        }
        if let Some(external) = self.forwarded(src) {
            return Ok(external);
        }
        let mapped = self.mapping(now, src, dst)?;
        if let Some(key) = self.permit(mapped.id, dst)
            && self.permits.touch(now, &key).is_none()
        {
            while self.permits.make_room(now).is_some() {}
            self.permits.insert(now, key, ());
        }
        Ok(mapped.external)
    }

    /// A datagram from the outside endpoint `src` to the external `dst`. Gives the inside endpoint that it is for.
    ///
    /// # Errors
    ///
    /// Why it does not pass.
    pub fn inbound(&mut self, now: Duration, src: SocketAddr, dst: SocketAddr) -> Verdict {
        if self.behaviour.blocks_udp {
            return Err(Refused::UdpBlocked);
        }
        if self.behaviour.is_open() {
            return Ok(dst);
        }
        if self.behaviour.translates()
            && let Some(inside) = self.forwards.get(&dst.port())
        {
            return Ok(*inside);
        }
        let verdict = self.admit(now, src, dst);
        if verdict.is_err() {
            self.accept_itself(now, src, dst);
        }
        verdict
    }

    fn admit(&mut self, now: Duration, src: SocketAddr, dst: SocketAddr) -> Verdict {
        let key = *self.externals.get(&dst).ok_or(Refused::NoMapping)?;
        let mapped = self.mappings.get(now, &key).ok_or(Refused::NoMapping)?;
        let permit = self.permit(mapped.id, src);
        if permit.is_some_and(|permit| self.permits.get(now, &permit).is_none()) {
            return Err(Refused::Filtered);
        }
        if self.behaviour.inbound_refreshes {
            self.mappings.touch(now, &key);
            permit.and_then(|permit| self.permits.touch(now, &permit));
        }
        Ok(key.inside)
    }

    fn accept_itself(&mut self, now: Duration, src: SocketAddr, dst: SocketAddr) {
        let accepts = self.behaviour.unsolicited == Unsolicited::Accepted;
        let tuple = (dst.port(), src);
        if !accepts || !self.behaviour.translates() || self.taken.touch(now, &tuple).is_some() {
            return;
        }
        while self.taken.make_room(now).is_some() {}
        self.taken.insert(now, tuple, ());
    }

    /// What the filter asks for: nothing if it asks for nothing.
    fn permit(&self, id: u64, remote: SocketAddr) -> Option<(u64, SocketAddr)> {
        match self.behaviour.filtering {
            Filtering::EndpointIndependent | Filtering::None => None,
            Filtering::AddressDependent => Some((id, SocketAddr::new(remote.ip(), 0))),
            Filtering::AddressAndPortDependent | Filtering::Unknown => Some((id, remote)),
        }
    }

    fn forwarded(&self, inside: SocketAddr) -> Option<SocketAddr> {
        let mut forwards = self.forwards.iter();
        let (port, _) = forwards.find(|(_, known)| **known == inside)?;
        self.behaviour
            .translates()
            .then(|| SocketAddr::new(self.wan, *port))
    }

    /// The mapping for a datagram that goes out, a new one if there is none.
    fn mapping(
        &mut self,
        now: Duration,
        inside: SocketAddr,
        dst: SocketAddr,
    ) -> Result<Mapped, Refused> {
        let of_this_flow = MappingKey {
            inside,
            remote: Some(dst),
        };
        let remote = match self.behaviour.mapping {
            Mapping::EndpointIndependent | Mapping::None => None,
            Mapping::AddressDependent => Some(SocketAddr::new(dst.ip(), 0)),
            Mapping::AddressAndPortDependent | Mapping::Unknown => Some(dst),
        };
        let usual = MappingKey { inside, remote };
        if self.behaviour.unsolicited == Unsolicited::Accepted
            && let Some(shifted) = self.mappings.touch(now, &of_this_flow)
        {
            return Ok(shifted);
        }
        let Some(known) = self.mappings.touch(now, &usual) else {
            return self.map(now, usual, dst);
        };
        if !self.is_taken(now, known.external.port(), dst) {
            return Ok(known);
        }
        self.map(now, of_this_flow, dst)
    }

    fn map(&mut self, now: Duration, key: MappingKey, dst: SocketAddr) -> Result<Mapped, Refused> {
        while let Some((_, ended)) = self.mappings.make_room(now) {
            self.externals.remove(&ended.external);
        }
        let external = if self.behaviour.translates() {
            let port = self
                .free_port(now, key.inside.port(), dst)
                .ok_or(Refused::NoPort)?;
            SocketAddr::new(self.wan, port)
        } else {
            key.inside
        };
        let mapped = Mapped {
            external,
            id: self.next_id,
        };
        self.next_id += 1;
        self.mappings.insert(now, key, mapped);
        self.externals.insert(external, key);
        Ok(mapped)
    }

    fn free_port(&mut self, now: Duration, inside: u16, dst: SocketAddr) -> Option<u16> {
        let first = match self.behaviour.port {
            PortChoice::Preserving => inside,
            PortChoice::Rewriting => self.next_port,
            PortChoice::Random => port_by(&mut self.chance),
        };
        let port = std::iter::successors(Some(first), |port| Some(port_after(*port)))
            .take(usize::from(u16::MAX))
            .find(|port| self.is_free(now, *port, dst))?;
        if self.behaviour.port == PortChoice::Rewriting {
            self.next_port = port_after(port);
        }
        Some(port)
    }

    fn is_free(&self, now: Duration, port: u16, dst: SocketAddr) -> bool {
        port > 0
            && !self
                .externals
                .contains_key(&SocketAddr::new(self.wan, port))
            && !self.forwards.contains_key(&port)
            && !self.is_taken(now, port, dst)
    }

    /// Whether the router itself has the tuple of this port and remote. It never has that of a flow that an inside host began:
    /// what comes in on that one is admitted.
    fn is_taken(&self, now: Duration, port: u16, remote: SocketAddr) -> bool {
        self.behaviour.unsolicited == Unsolicited::Accepted
            && self.taken.get(now, &(port, remote)).is_some()
    }
}

fn port_by(chance: &mut SeededEntropy) -> u16 {
    let span = u64::from(u16::MAX - FIRST_PORT) + 1;
    u16::try_from(below(chance, span)).map_or(FIRST_PORT, |above| FIRST_PORT + above)
}

/// The next port to look at, round and round.
const fn port_after(port: u16) -> u16 {
    if port < FIRST_PORT || port == u16::MAX {
        FIRST_PORT
    } else {
        port + 1
    }
}
