//! Hosts in sites behind NATs, on one internet, and the datagrams between them.
//!
//! The network is a tree of *realms* (address realms, RFC 2663): the internet is the root; a site, or a provider behind a
//! CGN, is a realm below another one. Between a realm and its parent is a gateway, one [`Nat`] for each address family
//! that leads there, with an access link on its outer side. Hosts are attached to one or more realms. So the same
//! address may be in many sites, chains of NATs are as long as one likes, and homes share a CGN by having the same parent.
//!
//! # How a datagram travels
//!
//! [`Net::send`] lets it climb at once: over the host's link, through the gateways on the way out, up to the first realm
//! that knows the destination. From there it descends when its time comes: over the access link of whoever has the
//! address, through that gateway, and so on. What a NAT on the way in says is asked at the time of arrival, since
//! mappings come and go meanwhile; a NAT on the way out is passed at the time of sending, which is early by the delays
//! of the links before it (none, mostly). A destination that a gateway itself has turns round there (hairpin).
//!
//! A datagram costs one event, and one more for each link with a rate or jitter, or gateway, that it meets further down; each
//! event costs a few look-ups in sorted tables. Nothing is kept for pairs of hosts.
//!
//! # What it does not do
//!
//! No ARP, no routes but the tree, no multicast, no IP fragments, and no TCP: [`Net::tcp_reachable`] says who could
//! connect to whom. Sockets are the simulation's: a datagram for any port of a running host is delivered.

mod build;
mod reach;
mod travel;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::link::{Dropped, Link, LinkBehaviour};
use super::nat::{Nat, Refused};
use super::queue::Queue;
use super::trace::Trace;

pub use build::BuildError;
pub use travel::{Arrival, Delivery, Report};

/// A host of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(u32);

impl HostId {
    /// Counted from 0 in the order in which hosts were added.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The host with this number; of no host if there are not as many.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

/// An address realm of a [`Net`], and the gateway between it and its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RealmId(u32);

/// What is attached to a realm: a host, or the gateway of a realm below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// A host, on all its interfaces.
    Host(HostId),
    /// The gateway of this realm, on its outer side.
    Realm(RealmId),
}

/// Why a datagram was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// Its sender or its receiver is not running.
    HostDown,
    /// Its source is no address of its sender.
    NotOwnAddress,
    /// No realm on its way knows the destination, or no gateway leads there in this address family.
    NoRoute,
    /// A host or a gateway on its way is unplugged.
    CutOff,
    /// A partition lies between the two.
    Partitioned,
    /// A link lost it.
    OnALink,
    /// The queue of a link was full.
    QueueFull,
    /// It was larger than the MTU of a link.
    TooLarge,
    /// A gateway lets no UDP through.
    UdpBlocked,
    /// It was for the sender's own gateway, which turns nothing round.
    NoHairpin,
    /// A gateway had no port for it.
    NoPort,
    /// Nothing was mapped where it was sent to.
    NoMapping,
    /// The filter of a NAT or firewall.
    Filtered,
}

impl Lost {
    /// A number of its own, for digests.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }

    const fn name(self) -> &'static str {
        match self {
            Self::HostDown => "the host is down",
            Self::NotOwnAddress => "the source is no address of the sender",
            Self::NoRoute => "no route",
            Self::CutOff => "cut off",
            Self::Partitioned => "a partition",
            Self::OnALink => "on a link",
            Self::QueueFull => "the queue of a link was full",
            Self::TooLarge => "larger than the MTU",
            Self::UdpBlocked => "UDP is blocked",
            Self::NoHairpin => "the NAT does no hairpins",
            Self::NoPort => "the NAT has no port left",
            Self::NoMapping => "nothing is mapped there",
            Self::Filtered => "the filter of a NAT or firewall",
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Refused> for Lost {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::UdpBlocked => Self::UdpBlocked,
            Refused::NoHairpin => Self::NoHairpin,
            Refused::NoPort => Self::NoPort,
            Refused::NoMapping => Self::NoMapping,
            Refused::Filtered => Self::Filtered,
        }
    }
}

impl From<Dropped> for Lost {
    fn from(dropped: Dropped) -> Self {
        match dropped {
            Dropped::Lost => Self::OnALink,
            Dropped::QueueFull => Self::QueueFull,
            Dropped::TooLarge | Dropped::Told(_) => Self::TooLarge,
        }
    }
}

/// The link between a station and its realm, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessBehaviour {
    /// From the station into the realm.
    pub up: LinkBehaviour,
    /// From the realm to the station.
    pub down: LinkBehaviour,
}

impl AccessBehaviour {
    /// The same both ways.
    #[must_use]
    pub const fn both(link: LinkBehaviour) -> Self {
        Self {
            up: link,
            down: link,
        }
    }

    /// No delay, no loss, no limit but the MTU of an Ethernet.
    pub const PERFECT: Self = Self::both(LinkBehaviour::PERFECT);
}

/// Where a station is in its realm. What lies between two stations takes as many microseconds as their places are apart in
/// the plane, beside [`Net::set_medium`]: distances without a table of pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// To the east, µs.
    pub x: i32,
    /// To the north, µs.
    pub y: i32,
}

impl Place {
    fn distance(self, other: Self) -> Duration {
        let side = |a: i32, b: i32| u64::from(a.abs_diff(b));
        let (x, y) = (side(self.x, other.x), side(self.y, other.y));
        Duration::from_micros((x * x).saturating_add(y * y).isqrt())
    }
}

/// A link as it is, and what is between it and others.
#[derive(Debug)]
struct Access {
    up: Link,
    down: Link,
    connected: bool,
    island: u32,
    place: Place,
}

#[derive(Debug)]
struct Realm {
    name: String,
    parent: Option<RealmId>,
    v4: Option<Nat>,
    v6: Option<Nat>,
    /// On the outer side of the gateway; the internet's is not used.
    access: Access,
    /// Between any two stations.
    medium: Duration,
    /// Whose an address is; as many entries as addresses were added below, but for those behind a translation.
    owners: BTreeMap<IpAddr, Station>,
}

impl Realm {
    const fn nat(&self, like: IpAddr) -> Option<&Nat> {
        match like {
            IpAddr::V4(_) => self.v4.as_ref(),
            IpAddr::V6(_) => self.v6.as_ref(),
        }
    }

    const fn nat_mut(&mut self, like: IpAddr) -> Option<&mut Nat> {
        match like {
            IpAddr::V4(_) => self.v4.as_mut(),
            IpAddr::V6(_) => self.v6.as_mut(),
        }
    }
}

#[derive(Debug)]
struct Host {
    name: String,
    running: bool,
    interfaces: Vec<Interface>,
}

#[derive(Debug)]
struct Interface {
    realm: RealmId,
    addresses: Vec<IpAddr>,
    access: Access,
}

/// What became of the datagrams so far. At any time `sent + duplicated = delivered + lost + in flight`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that hosts have sent, with those that were lost at once.
    pub sent: u64,
    /// Copies that links made.
    pub duplicated: u64,
    /// Those that hosts got.
    pub delivered: u64,
    /// Bytes of the IP packets that hosts have sent.
    pub bytes: u64,
    /// Senders that were told of a datagram above an MTU.
    pub told: u64,
    lost: BTreeMap<Lost, u64>,
}

impl Tally {
    /// Those that were lost for this reason.
    #[must_use]
    pub fn lost(&self, reason: Lost) -> u64 {
        self.lost.get(&reason).copied().unwrap_or(0)
    }

    /// All that were lost.
    #[must_use]
    pub fn all_lost(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// A virtual network. It is built with [`Net::add_realm`], [`Net::add_host`] and the like; then [`Net::send`] takes
/// datagrams, and [`Net::deliver`] gives those that have arrived, when [`Net::next_at`] says so.
#[derive(Debug)]
pub struct Net {
    seed: u64,
    realms: Vec<Realm>,
    hosts: Vec<Host>,
    /// As much as its users send and links delay; a link with a rate holds what its queue holds.
    flights: Queue<travel::InFlight>,
    /// Those of `flights` that are reports and no datagrams.
    reports: usize,
    /// As many as [`Net::block`] was told.
    blocked: BTreeSet<(Station, Station)>,
    tally: Tally,
    trace: Trace,
}

impl Net {
    /// The root of all realms.
    pub const INTERNET: RealmId = RealmId(0);

    /// What became of the datagrams so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Datagrams that are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len().saturating_sub(self.reports)
    }

    /// The digest of everything that happened, and the last of it as text.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The same, to have lines kept.
    pub const fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// The name that a host was given.
    #[must_use]
    pub fn name(&self, host: HostId) -> Option<&str> {
        self.host(host).map(|host| host.name.as_str())
    }

    /// The realm below the internet in which `realm` is, itself perhaps: whose outer address is on the internet.
    #[must_use]
    pub fn outermost(&self, mut realm: RealmId) -> RealmId {
        while let Some(parent) = self.realm(realm).and_then(|here| here.parent)
            && parent != Self::INTERNET
        {
            realm = parent;
        }
        realm
    }

    /// All addresses of a host, in the order in which they were added.
    pub fn addresses(&self, host: HostId) -> impl Iterator<Item = IpAddr> {
        let host = self.host(host).into_iter();
        let interfaces = host.flat_map(|host| &host.interfaces);
        interfaces.flat_map(|known| known.addresses.iter().copied())
    }

    /// The gateway of `realm` for the family of `like`, to look into.
    #[must_use]
    pub fn nat(&self, realm: RealmId, like: IpAddr) -> Option<&Nat> {
        self.realm(realm)?.nat(like)
    }

    /// The same, to restart it or to forward a port.
    pub fn nat_mut(&mut self, realm: RealmId, like: IpAddr) -> Option<&mut Nat> {
        self.realm_mut(realm)?.nat_mut(like)
    }

    fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.get(index(id.0))
    }

    fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.hosts.get_mut(index(id.0))
    }

    fn realm(&self, id: RealmId) -> Option<&Realm> {
        self.realms.get(index(id.0))
    }

    fn realm_mut(&mut self, id: RealmId) -> Option<&mut Realm> {
        self.realms.get_mut(index(id.0))
    }

    /// The link between a station and a realm that it is attached to.
    fn access(&self, station: Station, realm: RealmId) -> Option<&Access> {
        match station {
            Station::Realm(id) => self.realm(id).map(|below| &below.access),
            Station::Host(id) => {
                let mut interfaces = self.host(id)?.interfaces.iter();
                let found = interfaces.find(|interface| interface.realm == realm)?;
                Some(&found.access)
            }
        }
    }

    fn access_mut(&mut self, station: Station, realm: RealmId) -> Option<&mut Access> {
        match station {
            Station::Realm(id) => self.realm_mut(id).map(|below| &mut below.access),
            Station::Host(id) => {
                let mut interfaces = self.host_mut(id)?.interfaces.iter_mut();
                let found = interfaces.find(|interface| interface.realm == realm)?;
                Some(&mut found.access)
            }
        }
    }

    /// Whether a partition keeps what `from` sends in their common `realm` from `to`.
    fn is_partitioned(&self, realm: RealmId, from: Station, to: Station) -> bool {
        let island = |station| self.access(station, realm).map(|access| access.island);
        island(from) != island(to) || self.blocked.contains(&(from, to))
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
