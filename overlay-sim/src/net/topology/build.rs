//! How a network is built, and changed while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{
    Access, AccessBehaviour, Host, HostId, Interface, Net, Place, Realm, RealmId, Station, Tally,
};
use crate::net::link::Link;
use crate::net::nat::{Nat, NatBehaviour};
use crate::net::queue::Queue;
use crate::net::random::stream;
use crate::net::trace::Trace;

/// Why something cannot be built so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildError {
    /// There is no such realm, or the internet was meant to have a gateway.
    NoSuchRealm,
    /// There is no such host.
    NoSuchHost,
    /// The host is not attached to the realm.
    NotAttached,
    /// The host is attached to the realm already.
    AttachedAlready,
    /// Somebody in this realm, or in one above that reaches the same addresses, has it.
    AddressTaken,
    /// Gateways come before the addresses behind them.
    InUse,
    /// A gateway with an address of its own translates; one without does not.
    WrongBehaviour,
    /// More than 2^32 of a kind.
    TooMany,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchRealm => "no such realm, or one without a gateway",
            Self::NoSuchHost => "no such host",
            Self::NotAttached => "the host is not attached to the realm",
            Self::AttachedAlready => "the host is attached to the realm already",
            Self::AddressTaken => "the address is somebody else's",
            Self::InUse => "there are addresses behind the gateway already",
            Self::WrongBehaviour => {
                "the behaviour translates, or does not, unlike what was asked for"
            }
            Self::TooMany => "too many",
        })
    }
}

impl std::error::Error for BuildError {}

/// The result of building something.
type Built<T> = Result<T, BuildError>;

impl Net {
    /// The internet, with nobody on it. Everything that chance decides follows from `seed` and from the names.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut net = Self {
            seed,
            realms: Vec::new(),
            hosts: Vec::new(),
            flights: Queue::new(),
            reports: 0,
            blocked: BTreeSet::new(),
            tally: Tally::default(),
            trace: Trace::default(),
        };
        let access = net.access_named("internet", AccessBehaviour::PERFECT);
        net.realms.push(Realm::new("internet", None, access));
        net
    }

    /// A realm below `parent`, with no gateway yet: nothing passes. `name` is for the streams of chance, so no
    /// other realm should have it; `access` is the link between the gateway and the parent.
    ///
    /// # Errors
    ///
    /// There is no such parent.
    pub fn add_realm(
        &mut self,
        name: &str,
        parent: RealmId,
        access: AccessBehaviour,
    ) -> Built<RealmId> {
        self.realm(parent).ok_or(BuildError::NoSuchRealm)?;
        let id = RealmId(u32::try_from(self.realms.len()).map_err(|_| BuildError::TooMany)?);
        let access = self.access_named(&format!("realm {name}"), access);
        self.realms.push(Realm::new(name, Some(parent), access));
        Ok(id)
    }

    /// The gateway of `realm` is a NAT with this outer address, for the family of that address.
    ///
    /// # Errors
    ///
    /// No such realm, one with addresses of that family already, an address that somebody has, or a behaviour that does
    /// not translate.
    pub fn put_nat(&mut self, realm: RealmId, behaviour: NatBehaviour, wan: IpAddr) -> Built<()> {
        if !behaviour.translates() {
            return Err(BuildError::WrongBehaviour);
        }
        let parent = self.parent_of_empty(realm, wan)?;
        self.register(parent, wan, Station::Realm(realm))?;
        self.put(realm, behaviour, wan)
    }

    /// The gateway of `realm` is a firewall or router without translation, for the family of `like`: addresses of that family
    /// inside are reached from the parent.
    ///
    /// # Errors
    ///
    /// No such realm, one with addresses of that family already, or a behaviour that translates.
    pub fn put_firewall(
        &mut self,
        realm: RealmId,
        behaviour: NatBehaviour,
        like: IpAddr,
    ) -> Built<()> {
        if behaviour.translates() {
            return Err(BuildError::WrongBehaviour);
        }
        self.parent_of_empty(realm, like)?;
        self.put(realm, behaviour, like)
    }

    /// A site behind gateways in a row, the one at the internet first (as [`NatBehaviour::CARRIER_GRADE`]). The first
    /// that translates has the address `public`, those behind it one of 100.64.0.0/10; `access` is the link of the
    /// first gateway, the others' are perfect. Gives the realm for the hosts.
    ///
    /// # Errors
    ///
    /// The address is somebody else's.
    pub fn add_chain(
        &mut self,
        name: &str,
        layers: &[NatBehaviour],
        public: Ipv4Addr,
        access: AccessBehaviour,
    ) -> Built<RealmId> {
        let (mut realm, mut wan) = (Self::INTERNET, public);
        let mut access = access;
        for (layer, behaviour) in (0u8..).zip(layers) {
            let name = format!("{name} {layer}");
            realm = self.add_realm(&name, realm, access)?;
            if behaviour.translates() {
                self.put_nat(realm, *behaviour, IpAddr::V4(wan))?;
                wan = Ipv4Addr::new(100, 64, layer, 2);
            } else {
                self.put_firewall(realm, *behaviour, IpAddr::V4(wan))?;
            }
            access = AccessBehaviour::PERFECT;
        }
        Ok(realm)
    }

    /// A running host that is attached to nothing. `name` is for the streams of chance.
    ///
    /// # Errors
    ///
    /// There are 2^32 already.
    pub fn add_host(&mut self, name: &str) -> Built<HostId> {
        let id = HostId(u32::try_from(self.hosts.len()).map_err(|_| BuildError::TooMany)?);
        self.hosts.push(Host {
            name: name.to_owned(),
            running: true,
            interfaces: Vec::new(),
        });
        Ok(id)
    }

    /// Gives the host an interface in `realm`, without an address. All its addresses there share the link.
    ///
    /// # Errors
    ///
    /// No such host or realm, or it has one there.
    pub fn attach(&mut self, host: HostId, realm: RealmId, access: AccessBehaviour) -> Built<()> {
        let below = self.realm(realm).ok_or(BuildError::NoSuchRealm)?;
        let name = self.name(host).ok_or(BuildError::NoSuchHost)?;
        let name = format!("host {name} in {}", below.name);
        let access = self.access_named(&name, access);
        let interfaces = &mut self
            .host_mut(host)
            .ok_or(BuildError::NoSuchHost)?
            .interfaces;
        if interfaces.iter().any(|known| known.realm == realm) {
            return Err(BuildError::AttachedAlready);
        }
        interfaces.push(Interface {
            realm,
            addresses: Vec::new(),
            access,
        });
        Ok(())
    }

    /// Takes the host's interface in `realm` away, with its addresses: half of roaming, [`Self::attach`] elsewhere is the
    /// other one. Datagrams under way to it are lost.
    ///
    /// # Errors
    ///
    /// No such host, or it has none there.
    pub fn detach(&mut self, host: HostId, realm: RealmId) -> Built<()> {
        let interfaces = &mut self
            .host_mut(host)
            .ok_or(BuildError::NoSuchHost)?
            .interfaces;
        let place = interfaces.iter().position(|known| known.realm == realm);
        let removed = interfaces.remove(place.ok_or(BuildError::NotAttached)?);
        for ip in removed.addresses {
            self.unregister(realm, ip);
        }
        Ok(())
    }

    /// Gives the host an address in a realm that it is attached to.
    ///
    /// # Errors
    ///
    /// It is not attached there, or somebody has the address.
    pub fn add_address(&mut self, host: HostId, realm: RealmId, ip: IpAddr) -> Built<()> {
        self.interface(host, realm)?;
        self.register(realm, ip, Station::Host(host))?;
        self.interface(host, realm)?.addresses.push(ip);
        Ok(())
    }

    /// Takes one address of a host in a realm away.
    ///
    /// # Errors
    ///
    /// It is not attached there or has no such address.
    pub fn remove_address(&mut self, host: HostId, realm: RealmId, ip: IpAddr) -> Built<()> {
        let addresses = &mut self.interface(host, realm)?.addresses;
        let place = addresses.iter().position(|known| *known == ip);
        addresses.remove(place.ok_or(BuildError::NotAttached)?);
        self.unregister(realm, ip);
        Ok(())
    }

    /// The provider gives the NAT of `realm` another address: it forgets its mappings.
    ///
    /// # Errors
    ///
    /// There is no NAT of that family, or somebody has the address.
    pub fn set_wan(&mut self, realm: RealmId, wan: IpAddr) -> Built<()> {
        let below = self.realm(realm).ok_or(BuildError::NoSuchRealm)?;
        let parent = below.parent.ok_or(BuildError::NoSuchRealm)?;
        let nat = below.nat(wan).filter(|nat| nat.behaviour().translates());
        let old = nat.ok_or(BuildError::WrongBehaviour)?.wan();
        self.register(parent, wan, Station::Realm(realm))?;
        self.unregister(parent, old);
        if let Some(nat) = self.realm_mut(realm).and_then(|below| below.nat_mut(wan)) {
            nat.set_wan(wan);
        }
        Ok(())
    }

    /// Whether the host runs. One that does not gets nothing and sends nothing; what its NAT remembers stays.
    pub fn set_running(&mut self, host: HostId, running: bool) {
        if let Some(host) = self.host_mut(host) {
            host.running = running;
        }
    }

    /// Plugs a host's interfaces, or a gateway's outer side, in or out.
    pub fn set_connected(&mut self, station: Station, connected: bool) {
        self.each_access(station, |access| access.connected = connected);
    }

    /// The links of a station behave otherwise from now on.
    pub fn set_access(&mut self, station: Station, behaviour: AccessBehaviour) {
        self.each_access(station, |access| {
            access.up.set_behaviour(behaviour.up);
            access.down.set_behaviour(behaviour.down);
        });
    }

    /// Where a station is in its realm.
    pub fn set_place(&mut self, station: Station, place: Place) {
        self.each_access(station, |access| access.place = place);
    }

    /// How long it takes from any station of a realm to any other, beside their links and places.
    pub fn set_medium(&mut self, realm: RealmId, delay: Duration) {
        if let Some(realm) = self.realm_mut(realm) {
            realm.medium = delay;
        }
    }

    /// A partition: in their common realm only stations of the same island reach each other. All are on island 0 at
    /// first. What is under way still arrives.
    pub fn set_island(&mut self, station: Station, island: u32) {
        self.each_access(station, |access| access.island = island);
    }

    /// Keeps what one station sends from another in their common realm, or lets it through again: failures
    /// that are not transitive, or one-way.
    pub fn block(&mut self, from: Station, to: Station, blocked: bool) {
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    fn each_access(&mut self, station: Station, mut change: impl FnMut(&mut Access)) {
        match station {
            Station::Realm(id) => {
                if let Some(realm) = self.realm_mut(id) {
                    change(&mut realm.access);
                }
            }
            Station::Host(id) => {
                let host = self.host_mut(id).into_iter();
                for interface in host.flat_map(|host| &mut host.interfaces) {
                    change(&mut interface.access);
                }
            }
        }
    }

    fn access_named(&self, name: &str, behaviour: AccessBehaviour) -> Access {
        let link = |behaviour, way| {
            let chance = stream(self.seed, &format!("link {name} {way}"));
            Link::new(behaviour, chance)
        };
        Access {
            up: link(behaviour.up, "up"),
            down: link(behaviour.down, "down"),
            connected: true,
            island: 0,
            place: Place::default(),
        }
    }

    fn interface(&mut self, host: HostId, realm: RealmId) -> Built<&mut Interface> {
        let host = self.host_mut(host).ok_or(BuildError::NoSuchHost)?;
        let mut interfaces = host.interfaces.iter_mut();
        let found = interfaces.find(|interface| interface.realm == realm);
        found.ok_or(BuildError::NotAttached)
    }

    fn parent_of_empty(&self, realm: RealmId, like: IpAddr) -> Built<RealmId> {
        let realm = self.realm(realm).ok_or(BuildError::NoSuchRealm)?;
        let parent = realm.parent.ok_or(BuildError::NoSuchRealm)?;
        let mut addresses = realm.owners.keys();
        if realm.nat(like).is_some() || addresses.any(|ip| ip.is_ipv4() == like.is_ipv4()) {
            return Err(BuildError::InUse);
        }
        Ok(parent)
    }

    fn put(&mut self, realm: RealmId, behaviour: NatBehaviour, wan: IpAddr) -> Built<()> {
        let family = if wan.is_ipv4() { "v4" } else { "v6" };
        let seed = self.seed;
        let below = self.realm_mut(realm).ok_or(BuildError::NoSuchRealm)?;
        let chance = stream(seed, &format!("nat {} {family}", below.name));
        let nat = Some(Nat::new(behaviour, wan, chance));
        match wan {
            IpAddr::V4(_) => below.v4 = nat,
            IpAddr::V6(_) => below.v6 = nat,
        }
        Ok(())
    }

    /// The realms in which an address that is added to `realm` is known, and whose it is there: it goes up through
    /// gateways that do not translate it.
    fn known_in(&self, realm: RealmId, ip: IpAddr, station: Station) -> Vec<(RealmId, Station)> {
        let mut known = vec![(realm, station)];
        let mut below = realm;
        while let Some(here) = self.realm(below)
            && let (Some(parent), Some(nat)) = (here.parent, here.nat(ip))
            && !nat.behaviour().translates()
        {
            known.push((parent, Station::Realm(below)));
            below = parent;
        }
        known
    }

    fn register(&mut self, realm: RealmId, ip: IpAddr, station: Station) -> Built<()> {
        let known = self.known_in(realm, ip, station);
        let has = |id| {
            self.realm(id)
                .is_none_or(|realm| realm.owners.contains_key(&ip))
        };
        if known.iter().any(|(id, _)| has(*id)) {
            return Err(BuildError::AddressTaken);
        }
        for (id, station) in known {
            if let Some(realm) = self.realm_mut(id) {
                realm.owners.insert(ip, station);
            }
        }
        Ok(())
    }

    fn unregister(&mut self, realm: RealmId, ip: IpAddr) {
        for (id, _) in self.known_in(realm, ip, Station::Realm(realm)) {
            if let Some(realm) = self.realm_mut(id) {
                realm.owners.remove(&ip);
            }
        }
    }
}

impl Realm {
    fn new(name: &str, parent: Option<RealmId>, access: Access) -> Self {
        Self {
            name: name.to_owned(),
            parent,
            v4: None,
            v6: None,
            access,
            medium: Duration::ZERO,
            owners: BTreeMap::new(),
        }
    }
}
