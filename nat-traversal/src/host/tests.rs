use super::*;

fn link(index: u32, name: &str) -> HostLink {
    HostLink {
        index,
        name: name.to_owned(),
        kind: LinkKind::Other,
        is_loopback: name == "lo",
        is_running: true,
        master: None,
        lower: None,
    }
}

fn above(index: u32, name: &str, lower: u32) -> HostLink {
    HostLink {
        lower: Some(lower),
        ..link(index, name)
    }
}

fn pair(index: u32, name: &str, other: u32) -> HostLink {
    HostLink {
        kind: LinkKind::Pair,
        ..above(index, name, other)
    }
}

fn port(master: u32, link: HostLink) -> HostLink {
    HostLink {
        master: Some(master),
        ..link
    }
}

fn address(net: &str, link: u32) -> HostAddress {
    HostAddress {
        net: net.parse().unwrap(),
        link,
        is_deprecated: false,
        is_temporary: false,
        is_unusable: false,
    }
}

fn route(to: &str, link: u32) -> HostRoute {
    HostRoute {
        to: to.parse().unwrap(),
        link,
    }
}

fn way(link: u32, source: &str) -> WayOut {
    WayOut {
        to: "192.0.2.1".parse().unwrap(),
        link,
        source: Some(source.parse().unwrap()),
        gateway: None,
    }
}

fn lab(role: BridgeRole) -> AttachedNetwork {
    AttachedNetwork {
        tap: "fl-lab".to_owned(),
        bridge: "br-lab".to_owned(),
        role,
        given: vec!["10.9.0.50".parse().unwrap()],
    }
}

/// A host with a NIC, a bridge of a network and its tap.
fn host() -> HostView {
    HostView {
        links: vec![
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "br-lab"),
            port(
                3,
                HostLink {
                    kind: LinkKind::Tun,
                    ..link(4, "fl-lab")
                },
            ),
        ],
        addresses: vec![
            address("127.0.0.1/8", 1),
            address("192.168.1.10/24", 2),
            address("10.9.0.50/24", 3),
        ],
        routes: vec![route("192.168.1.0/24", 2), route("10.9.0.0/24", 3)],
        ways_out: vec![way(2, "192.168.1.10")],
    }
}

fn told(view: &HostView, role: BridgeRole) -> Vec<String> {
    let underlay = view.underlay(&[lab(role)]);
    underlay.told.iter().map(IpAddr::to_string).collect()
}

fn overlay(view: &HostView, role: BridgeRole) -> Vec<String> {
    let underlay = view.underlay(&[lab(role)]);
    underlay.overlay.iter().map(IpNet::to_string).collect()
}

#[test]
fn whatever_stands_on_the_bridge_is_no_underlay() {
    let mut view = host();
    view.links.extend([
        // A pair with one end in the bridge, a VLAN above the other, and a bridge with that as a port.
        port(3, pair(10, "below", 11)),
        pair(11, "above", 10),
        port(13, above(12, "above.5", 11)),
        link(13, "br-five"),
        // A macvlan, and one above it.
        above(14, "card", 3),
        above(15, "card.7", 14),
        // A bond with such a port.
        link(16, "bond0"),
        port(16, above(17, "card2", 3)),
    ]);
    let inside = ["10.50.0.1/24", "10.51.0.1/24", "10.52.0.1/24"];
    for (net, link) in inside.iter().zip([11, 13, 15]) {
        view.addresses.push(address(net, link));
        view.routes.push(route(net, link));
    }
    view.addresses.push(address("10.53.0.1/24", 16));
    // A network of pods whose next hop is on the bridge.
    view.routes.push(route("10.42.2.0/24", 3));
    assert_eq!(told(&view, BridgeRole::Network), ["192.168.1.10"]);
    let prefixes = overlay(&view, BridgeRole::Network);
    for net in [
        "10.9.0.0/24",
        "10.42.2.0/24",
        "10.50.0.1/24",
        "10.52.0.1/24",
    ] {
        assert!(prefixes.contains(&net.to_owned()), "{net}: {prefixes:?}");
    }
    assert!(!prefixes.contains(&"192.168.1.0/24".to_owned()));
}

#[test]
fn what_only_has_a_port_or_a_pair_elsewhere_stays_underlay() {
    let mut view = host();
    view.links.extend([
        // A container's pair: the other end is in another namespace.
        port(
            20,
            HostLink {
                lower: None,
                ..pair(21, "box", 0)
            },
        ),
        link(20, "docker0"),
        // The end that is a port leads out of the bridge, not into it.
        port(3, pair(22, "vm1", 23)),
        pair(23, "veth9", 22),
    ]);
    view.addresses.push(address("172.17.0.1/16", 20));
    view.addresses.push(address("10.60.0.1/24", 22));
    let told = told(&view, BridgeRole::Network);
    assert_eq!(told, ["192.168.1.10", "10.60.0.1", "172.17.0.1"]);
}

#[test]
fn a_longer_prefix_beside_the_overlay_is_an_exception() {
    let mut view = host();
    for (to, link) in [("10.0.0.0/8", 3), ("10.7.0.0/16", 2), ("0.0.0.0/0", 2)] {
        view.routes.push(route(to, link));
    }
    let underlay = view.underlay(&[lab(BridgeRole::Network)]);
    assert_eq!(underlay.beside, ["10.7.0.0/16".parse().unwrap()]);
    let filter = crate::candidate::CandidateFilter {
        overlay_prefixes: underlay.overlay,
        beside_overlay: underlay.beside,
        ..Default::default()
    };
    let inside = |ip: &str| filter.is_in_overlay(ip.parse().unwrap());
    assert!(inside("10.1.2.3") && inside("10.9.0.51"));
    assert!(!inside("10.7.0.1") && !inside("192.168.1.11"));
}

#[test]
fn a_default_route_over_the_bridge_is_told_and_refuses_nothing() {
    let mut view = host();
    for to in ["0.0.0.0/0", "128.0.0.0/1", "2000::/3"] {
        view.routes.push(route(to, 3));
    }
    assert_eq!(view.underlay(&[lab(BridgeRole::Network)]).lost_way, None);
    view.ways_out = vec![way(3, "10.9.0.50")];
    let underlay = view.underlay(&[lab(BridgeRole::Network)]);
    assert_eq!(underlay.overlay, ["10.9.0.0/24".parse().unwrap()]);
    let lost = underlay.lost_way.unwrap();
    assert_eq!((&lost.way, &*lost.link), (&way(3, "10.9.0.50"), "br-lab"));
    assert_eq!(lost.route, Some("128.0.0.0/1".parse().unwrap()));
    // The host's address in the network is none of the underlay even then.
    assert_eq!(underlay.told, ["192.168.1.10".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_bridge_with_the_hosts_own_nic_is_underlay() {
    let mut view = host();
    view.links[1].master = Some(3);
    view.addresses[1].link = 3;
    view.routes[0].link = 3;
    view.ways_out[0].link = 3;
    assert_eq!(told(&view, BridgeRole::Uplink), ["192.168.1.10"]);
    assert!(overlay(&view, BridgeRole::Uplink).is_empty());
    assert_eq!(told(&view, BridgeRole::Users), ["192.168.1.10"]);
    assert!(overlay(&view, BridgeRole::Users).is_empty());
    // No way out by it, or no NIC on it: guests only.
    view.links[1].master = None;
    assert!(told(&view, BridgeRole::Users).is_empty());
    assert!(view.underlay(&[lab(BridgeRole::Users)]).lost_way.is_some());
    view.links[1].master = Some(3);
    view.ways_out.clear();
    assert!(told(&view, BridgeRole::Users).is_empty());
    assert_eq!(overlay(&view, BridgeRole::Users).len(), 2);
}

#[test]
fn the_address_that_leads_out_comes_first_and_deprecated_ones_last() {
    let mut view = host();
    for n in 17..27 {
        let bridge = n + 100;
        view.links.push(link(bridge, &format!("docker{n}")));
        view.addresses
            .push(address(&format!("172.{n}.0.1/16"), bridge));
    }
    for n in 1..10 {
        view.addresses.push(HostAddress {
            is_deprecated: true,
            ..address(&format!("2001:db8::{n}/64"), 2)
        });
    }
    view.addresses.push(HostAddress {
        is_temporary: true,
        ..address("2001:db8::dead/64", 2)
    });
    view.addresses.push(address("2001:db8::beef/64", 2));
    let told = told(&view, BridgeRole::Network);
    let first = [
        "192.168.1.10",
        "2001:db8::beef",
        "2001:db8::dead",
        "172.17.0.1",
    ];
    assert_eq!(told[..4], first);
    assert_eq!(told[13], "2001:db8::1");
    assert_eq!(told.len(), 22);
}

#[test]
fn what_cannot_be_used_is_not_told_and_own_all_the_same() {
    let mut view = host();
    view.links.push(HostLink {
        is_running: false,
        ..link(9, "docker0")
    });
    view.addresses.push(address("172.17.0.1/16", 9));
    view.addresses.push(address("fe80::1/64", 2));
    view.addresses.push(HostAddress {
        is_unusable: true,
        ..address("2001:db8::1/64", 2)
    });
    let underlay = view.underlay(&[lab(BridgeRole::Network)]);
    assert_eq!(underlay.told, ["192.168.1.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(underlay.own.len(), 6);
}
