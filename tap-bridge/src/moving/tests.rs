//! The plan against a small model of the kernel's rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::addresses::FOREVER;

/// What the kernel would hold, as far as the plan depends on it.
#[derive(Debug, Clone, PartialEq)]
struct Host {
    mac: MacAddr,
    open: bool,
    bridge_ipv6: bool,
    plugged: bool,
    nic_ipv6: bool,
    nic: HostNetwork,
    bridge: HostNetwork,
}

impl Host {
    fn at(&mut self, place: Place) -> &mut HostNetwork {
        match place {
            Place::Nic => &mut self.nic,
            Place::Bridge => &mut self.bridge,
        }
    }

    fn speaks(&self, place: Place, ip: &IpAddr) -> bool {
        ip.is_ipv4()
            || match place {
                Place::Nic => self.nic_ipv6,
                Place::Bridge => self.bridge_ipv6,
            }
    }

    /// The kernel's rules; `Err` is its refusal.
    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::OpenBridge { ipv6 } => {
                self.open = true;
                self.bridge_ipv6 = *ipv6;
            }
            Step::CloseBridge { .. } => {
                self.open = false;
                self.bridge_ipv6 = false;
                let sixes = |ip: &IpAddr| ip.is_ipv6();
                self.bridge.addresses.retain(|a| !sixes(&a.ip));
                self.bridge.routes.retain(|r| !sixes(&r.to));
            }
            Step::Mac { from, to } => {
                if self.mac != *from {
                    return Err(format!("{from} is not the address"));
                }
                self.mac = *to;
            }
            Step::Plug => self.plugged = true,
            Step::Unplug => self.plugged = false,
            Step::Quiet => {
                self.nic_ipv6 = false;
                self.nic.addresses.retain(|a| a.ip.is_ipv4());
                self.nic.routes.retain(|r| r.to.is_ipv4());
            }
            Step::Speak => self.nic_ipv6 = true,
            Step::RemoveRoute(place, route) => {
                self.at(*place).routes.retain(|one| one != route);
            }
            Step::RemoveAddress(place, address) => {
                let network = self.at(*place);
                network.addresses.retain(|one| one != address);
                // Its own route goes, those that name it, and all with the last address.
                network
                    .routes
                    .retain(|route| route.source != Some(address.ip));
                if address.ip.is_ipv4() && !network.addresses.iter().any(|a| a.ip.is_ipv4()) {
                    network.routes.retain(|route| route.to.is_ipv6());
                }
            }
            Step::AddAddress(place, address) => {
                if !self.speaks(*place, &address.ip) {
                    return Err(format!("no IPv6 for {address}"));
                }
                let network = self.at(*place);
                network.addresses.retain(|one| !one.is_same(address));
                network.addresses.push(address.clone());
                if address.ip.is_ipv4() {
                    network.routes.push(connected(address));
                }
            }
            Step::AddRoute(place, route) => {
                if !self.speaks(*place, &route.to) {
                    return Err(format!("no IPv6 for {route}"));
                }
                let network = self.at(*place);
                if let Some(gateway) = route.gateway
                    && !network.routes.iter().any(|r| covers(r, &gateway))
                {
                    return Err(format!("nothing leads to {gateway}"));
                }
                if let Some(source) = route.source
                    && !network.addresses.iter().any(|a| a.ip == source)
                {
                    return Err(format!("{source} is not here"));
                }
                if !network.routes.iter().any(|one| one.is_same(route)) {
                    network.routes.push(route.clone());
                }
            }
        }
        Ok(())
    }

    fn sorted(&self) -> Self {
        let mut sorted = self.clone();
        for network in [&mut sorted.nic, &mut sorted.bridge] {
            let text = |one: &HostAddress| format!("{one:?}");
            network.addresses.sort_by_key(text);
            network.routes.sort_by_key(|route| format!("{route:?}"));
        }
        sorted
    }
}

fn covers(route: &HostRoute, ip: &IpAddr) -> bool {
    route.gateway.is_none()
        && route.to.is_ipv4() == ip.is_ipv4()
        && prefix_of(*ip, route.prefix) == route.to
}

fn prefix_of(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

fn route(to: IpAddr, prefix: u8) -> HostRoute {
    HostRoute {
        to,
        prefix,
        gateway: None,
        source: None,
        metric: 0,
        table: 254,
        protocol: 4,
        scope: 0,
        tos: 0,
        onlink: false,
        preference: None,
        expires_s: None,
        metrics: Vec::new(),
    }
}

fn connected(address: &HostAddress) -> HostRoute {
    HostRoute {
        protocol: 2,
        source: address.ip.is_ipv4().then_some(address.ip),
        ..route(prefix_of(address.ip, address.prefix), address.prefix)
    }
}

fn address(v6: bool, host: u8, net: u8) -> HostAddress {
    let ip: IpAddr = if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(192, 0, net, host).into()
    };
    HostAddress {
        ip,
        peer: None,
        prefix: if v6 { 64 } else { 24 },
        scope: 0,
        flags: 0,
        label: None,
        broadcast: None,
        valid_s: FOREVER,
        preferred_s: FOREVER,
        metric: None,
        protocol: 0,
    }
}

/// A NIC as an administrator may have set it up: addresses, the routes that come with them, and
/// static routes by routers on those.
fn network() -> impl Strategy<Value = HostNetwork> {
    let addresses = prop::collection::btree_set((any::<bool>(), 1..20_u8, 1..4_u8), 0..6);
    let routes = prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, 0..3_u32), 0..6);
    (addresses, routes, any::<bool>()).prop_map(|(addresses, extra, sourced)| {
        let mut network = HostNetwork::default();
        for (v6, host, net) in addresses {
            let one = address(v6, host, net);
            let own = connected(&one);
            if !network.routes.contains(&own) {
                network.routes.push(own);
            }
            network.addresses.push(one);
        }
        for (by, to, metric) in extra {
            if network.addresses.is_empty() {
                break;
            }
            let by = by.get(&network.addresses).clone();
            let v6 = by.ip.is_ipv6();
            let target = address(v6, 0, 100 + to);
            let (to, prefix) = match to {
                0 => (prefix_of(target.ip, 0), 0),
                _ => (target.ip, target.prefix),
            };
            let gateway = match by.ip {
                IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) | 0xff)),
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) | 0xff)),
            };
            let new = HostRoute {
                gateway: Some(gateway),
                source: (sourced && !v6).then_some(by.ip),
                metric,
                ..route(to, prefix)
            };
            if !network.routes.iter().any(|one| one.is_same(&new)) {
                network.routes.push(new);
            }
        }
        // The kernel need not tell what is on the link first.
        network.routes.reverse();
        network
    })
}

const BRIDGE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NIC_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn scene(what: &HostNetwork) -> (Host, NicFacts) {
    let frame = NicFacts {
        bridge_mac: BRIDGE_MAC,
        nic_mac: NIC_MAC,
        nic_ipv6: true,
    };
    let host = Host {
        mac: BRIDGE_MAC,
        open: false,
        bridge_ipv6: false,
        plugged: false,
        nic_ipv6: true,
        nic: what.clone(),
        bridge: HostNetwork::default(),
    };
    (host, frame)
}

proptest! {
    #[test]
    fn all_is_on_the_bridge_then_and_on_the_nic_again_after_the_way_back(what in network()) {
        let (before, frame) = scene(&what);
        let mut host = before.clone();
        for step in plan(Place::Bridge, &what, frame) {
            host.take(&step).map_err(TestCaseError::fail)?;
        }
        prop_assert!(host.plugged && host.open);
        prop_assert_eq!(host.mac, NIC_MAC);
        prop_assert_eq!(&host.nic, &HostNetwork::default());
        let moved = Host { nic: host.bridge.clone(), ..before.clone() };
        prop_assert_eq!(&moved.sorted().nic, &before.sorted().nic);
        for step in plan(Place::Nic, &host.bridge.clone(), frame) {
            host.take(&step).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(host.sorted(), before.sorted());
    }

    #[test]
    fn wherever_it_stops_the_steps_done_can_be_undone(what in network(), cut in any::<prop::sample::Index>()) {
        let (before, frame) = scene(&what);
        let steps = plan(Place::Bridge, &what, frame);
        let done = &steps[..cut.index(steps.len() + 1)];
        let mut host = before.clone();
        for step in done {
            host.take(step).map_err(TestCaseError::fail)?;
        }
        for step in undo(done) {
            host.take(&step).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(host.sorted(), before.sorted());
    }

    #[test]
    fn an_inverse_of_an_inverse_is_the_step(what in network()) {
        let (_, frame) = scene(&what);
        for step in plan(Place::Bridge, &what, frame) {
            prop_assert_eq!(step.inverse().inverse(), step);
        }
    }
}

#[test]
fn a_bare_nic_has_nothing_to_move() {
    let mut what = HostNetwork::default();
    let mut local = address(true, 1, 1);
    local.ip = "fe80::1".parse().unwrap();
    what.routes
        .push(route(prefix_of(local.ip, 64), local.prefix));
    what.addresses.push(local);
    assert!(what.is_bare() && !what.has_ipv6());
    what.addresses.push(address(false, 1, 1));
    assert!(!what.is_bare());
}
