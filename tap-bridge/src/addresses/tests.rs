//! Between what the kernel tells and what is told to it.

use super::*;
use crate::link::LinkKind;
use overlay_proto::ethernet::MacAddr;

fn link() -> Link {
    Link {
        index: 7,
        name: "eth0".to_owned(),
        kind: LinkKind::Other,
        master: None,
        mtu: 1500,
        mac: MacAddr::ZERO,
        up: true,
        alias: None,
        is_loopback: false,
        carrier: true,
        bridge: None,
        learns: false,
    }
}

#[test]
fn what_is_read_is_what_is_written() {
    let address = HostAddress {
        ip: "192.0.2.1".parse().unwrap(),
        peer: None,
        prefix: 24,
        scope: 0,
        flags: 0x200,
        label: Some(":1".to_owned()),
        broadcast: Some("192.0.2.255".parse().unwrap()),
        valid_s: 900,
        preferred_s: 300,
        metric: Some(50),
        protocol: 0,
    };
    let message = address.to_message(&link(), address.flags);
    assert_eq!(
        HostAddress::from_message(&message, "eth0"),
        Some(address.clone())
    );
    let route = HostRoute {
        to: "198.51.100.0".parse().unwrap(),
        prefix: 24,
        gateway: Some("192.0.2.254".parse().unwrap()),
        source: Some(address.ip),
        metric: 7,
        table: 1000,
        protocol: 4,
        scope: 0,
        tos: 0,
        onlink: true,
        preference: None,
        expires_s: None,
        metrics: vec![(2, 1400)],
    };
    let message = route.to_message(&link());
    assert_eq!(
        HostRoute::from_message(&message, &link()).unwrap(),
        Some(route)
    );
}

#[test]
fn routes_that_cannot_be_put_back_are_refused() {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(7));
    let object = DefaultNla::new(RTA_NH_ID, vec![1, 0, 0, 0]);
    message.attributes.push(RouteAttribute::Other(object));
    let refused = HostRoute::from_message(&message, &link()).unwrap_err();
    assert!(refused.to_string().contains("default"), "{refused}");
    // By another interface it is no matter of ours.
    message.attributes.remove(0);
    message.attributes.push(RouteAttribute::Oif(8));
    assert_eq!(HostRoute::from_message(&message, &link()).unwrap(), None);
}
