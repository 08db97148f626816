//! Who could reach whom, without sending anything.

use std::net::IpAddr;

use super::{HostId, Net, RealmId, Station};

impl Net {
    /// Whether `from` can open a TCP connection to `to`, and keep it: outbound TCP passes every gateway, also one that
    /// blocks UDP; inbound TCP passes only routers without a filter. For a control plane in virtual time, which asks anew
    /// whenever something has changed. O(addresses x depth of the tree).
    #[must_use]
    pub fn tcp_reachable(&self, from: HostId, to: HostId) -> bool {
        let (Some(near), Some(far)) = (self.host(from), self.host(to)) else {
            return false;
        };
        let targets = || far.interfaces.iter().flat_map(|known| &known.addresses);
        let reaches = |realm, own: &IpAddr| {
            let mut targets = targets().filter(|target| target.is_ipv4() == own.is_ipv4());
            targets.any(|target| self.tcp_leads_to(from, realm, *target, to))
        };
        near.running
            && (near.interfaces.iter())
                .any(|own| own.addresses.iter().any(|ip| reaches(own.realm, ip)))
    }

    /// The address that `host`'s kernel would send from to `to`: one in a realm that knows the destination, else the
    /// first of its family in a realm that leads on.
    #[must_use]
    pub fn source_for(&self, host: HostId, to: IpAddr) -> Option<IpAddr> {
        let interfaces = &self.host(host)?.interfaces;
        let candidates = || {
            interfaces.iter().flat_map(|known| {
                let same = |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4();
                let addresses = known.addresses.iter().filter(same);
                addresses.filter_map(|ip| Some((*ip, self.realm(known.realm)?)))
            })
        };
        let on_link = candidates().find(|(_, realm)| realm.owners.contains_key(&to));
        let leads_on = || candidates().find(|(_, realm)| realm.nat(to).is_some());
        Some(on_link.or_else(leads_on)?.0)
    }

    fn tcp_leads_to(&self, from: HostId, realm: RealmId, target: IpAddr, to: HostId) -> bool {
        let (mut came, mut realm) = (Station::Host(from), realm);
        loop {
            let plugged = self.access(came, realm).is_some_and(|link| link.connected);
            let Some(here) = self.realm(realm).filter(|_| plugged) else {
                return false;
            };
            if let Some(owner) = here.owners.get(&target) {
                // Both directions: a connection needs answers.
                let cut = self.is_partitioned(realm, came, *owner)
                    || self.is_partitioned(realm, *owner, came);
                return !cut && self.tcp_enters(realm, *owner, target, to);
            }
            let (Some(parent), Some(_)) = (here.parent, here.nat(target)) else {
                return false;
            };
            came = Station::Realm(realm);
            realm = parent;
        }
    }

    fn tcp_enters(&self, realm: RealmId, station: Station, target: IpAddr, to: HostId) -> bool {
        let plugged = self.access(station, realm);
        if !plugged.is_some_and(|link| link.connected) {
            return false;
        }
        match station {
            Station::Host(id) => id == to && self.host(id).is_some_and(|host| host.running),
            Station::Realm(id) => {
                let below = self.realm(id);
                let nat = below.and_then(|below| below.nat(target));
                let open = nat.is_some_and(|nat| nat.behaviour().is_open());
                let owner = below.and_then(|below| below.owners.get(&target));
                open && owner.is_some_and(|owner| self.tcp_enters(id, *owner, target, to))
            }
        }
    }
}
