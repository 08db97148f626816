use super::*;
use serde_json::json;

fn lab_network() -> NetworkReport {
    NetworkReport {
        name: "lab".parse().unwrap(),
        tap: Some("fl-lab".to_owned()),
        bridge: Some("br-lab".to_owned()),
        nic: Some("eth1".to_owned()),
        vms: vec!["web1".to_owned()],
        mtu: 1_500,
        epoch: 1,
        offload: Some(true),
        clamp: Some(false),
        bpdu: Some(false),
        shared: Vec::new(),
        ports: Vec::new(),
    }
}

#[test]
fn status_is_the_contract() {
    let peer = PeerId([7; 32]);
    let report = StatusReport {
        node: peer,
        name: "ash".to_owned(),
        name_signed: true,
        overlay: OverlayId([1; 32]),
        version: "0.1.0".to_owned(),
        uptime_s: 1,
        workers: 2,
        tasks: 9,
        member_until: None,
        warnings: Vec::new(),
        refused: None,
        bootstraps: vec![BootstrapReport {
            node: peer,
            addresses: vec!["/ip4/192.0.2.1/tcp/22611".to_owned()],
            state: BootstrapState::Up,
            why: None,
            data: vec!["192.0.2.1:22611".parse().unwrap()],
            udp: Some(true),
            clock_ahead_s: Some(-1),
        }],
        listen: vec!["0.0.0.0:22611".parse().unwrap()],
        nat: NatReport {
            mapping: Mapping::AddressAndPortDependent,
            filtering: Filtering::Unknown,
            reflexive: vec!["192.0.2.4:5".parse().unwrap()],
            observers: 2,
        },
        networks: vec![lab_network()],
        peers: vec![PeerReport {
            node: peer,
            name: ShownName::unsigned("oak"),
            path: PathReport {
                kind: PathKind::Direct,
                remote: Some("192.0.2.4:5".parse().unwrap()),
                via: None,
                why: None,
                why_text: None,
                rtt_ms: Some(1.2),
                mtu: Some(1_472),
            },
            suite: Some("aes-256-gcm".to_owned()),
            heard_s: Some(3),
            tx_bytes: 0,
            rx_bytes: 0,
        }],
        drops: BTreeMap::from([("unknown_mac".to_owned(), 0)]),
        unknown: Vec::new(),
    };
    let expected = json!({
        "node": peer.to_string(), "name": "ash", "name_signed": true, "overlay": OverlayId([1; 32]).to_string(),
        "version": "0.1.0", "member_until": null, "warnings": [], "refused": null,
        "bootstraps": [{"node": peer.to_string(), "addresses": ["/ip4/192.0.2.1/tcp/22611"],
            "state": "up", "why": null, "data": ["192.0.2.1:22611"], "udp": true,
            "clock_ahead_s": -1}],
        "uptime_s": 1, "workers": 2, "tasks": 9, "listen": ["0.0.0.0:22611"],
        "nat": {"mapping": "address-and-port-dependent", "filtering": "unknown",
                "reflexive": ["192.0.2.4:5"], "observers": 2},
        "networks": [{"name": "lab", "tap": "fl-lab", "bridge": "br-lab", "nic": "eth1",
            "vms": ["web1"], "mtu": 1500, "epoch": 1, "offload": true, "clamp": false,
            "bpdu": false, "shared": []}],
        "peers": [{"node": peer.to_string(), "name": "oak", "name_signed": false,
            "path": {"kind": "direct", "remote": "192.0.2.4:5", "via": null, "why": null, "why_text": null,
                     "rtt_ms": 1.2, "mtu": 1472},
            "suite": "aes-256-gcm", "heard_s": 3,
            "tx_bytes": 0, "rx_bytes": 0}],
        "drops": {"unknown_mac": 0},
        "unknown": []
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}

#[test]
fn unknown_macs_are_the_contract() {
    let report = UnknownMacReport {
        network: "lab".parse().unwrap(),
        vlan: 100,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        asked: 2,
        dropped: 3,
        since_s: 4,
        last_s: 1,
    };
    let expected = json!({"network": "lab", "vlan": 100, "mac": "52:54:00:00:00:01",
        "asked": 2, "dropped": 3, "since_s": 4, "last_s": 1});
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}

#[test]
fn macs_are_the_contract() {
    let report = [MacReport {
        network: "lab".parse().unwrap(),
        vlan: 0,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        node: PeerId([7; 32]),
        name: ShownName::signed("ash"),
        local: true,
        generation: 3,
        contested: 0,
        kind: ClaimKind::Learned,
        ips: vec!["10.0.0.5".parse().unwrap()],
        age_s: 1.0,
    }];
    let expected = json!([{"network": "lab", "vlan": 0, "mac": "52:54:00:00:00:01",
        "node": PeerId([7; 32]).to_string(), "name": "ash", "name_signed": true, "local": true,
        "generation": 3, "contested": 0, "kind": "learned",
        "ips": ["10.0.0.5"], "age_s": 1.0}]);
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
}

#[test]
fn addresses() {
    assert!(matches!("52:54:00:00:00:01".parse(), Ok(MacOrIp::Mac(_))));
    assert!(matches!("2001:db8::1".parse(), Ok(MacOrIp::Ip(_))));
    assert!("host".parse::<MacOrIp>().is_err());
}
