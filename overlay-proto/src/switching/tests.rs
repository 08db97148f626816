use std::sync::Arc;
use std::time::Instant;

use nat_traversal::path::Path;
use proptest::prelude::*;

use super::*;
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, PeerId};
use crate::session::{RawSplit, Role, Session, SessionNames, SharedNetwork, Suite};
use crate::wire::{Selector, SessionIndex};

const LAB: NetworkId = NetworkId([1; 32]);
const OTHER: NetworkId = NetworkId([2; 32]);
const NET: NetIndex = NetIndex(0);
const OURS: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const ALICES: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const BOBS: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 3]);
const NOBODYS: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
const LLDP: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

fn key(mac: MacAddr) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac,
    }
}

/// A session over which `networks` were agreed, with selectors of their own for each direction.
fn session(peer: u8, networks: &[NetworkId]) -> Arc<Session> {
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let shared = (100..)
        .zip(networks)
        .map(|(number, network)| SharedNetwork {
            network: *network,
            send: Selector(number),
            receive: Selector(number + 1000),
        });
    let names = SessionNames {
        peer: PeerId([peer; 32]),
        local_index: SessionIndex(u32::from(peer)),
        remote_index: SessionIndex(u32::from(peer) + 1),
        networks: shared.collect(),
    };
    let split = RawSplit {
        to_responder: [3; 32],
        to_initiator: [4; 32],
    };
    Arc::new(Session::new(names, &split, Suite::Aes256Gcm, Role::Initiator, now).unwrap())
}

fn peer(number: u8, session: Option<Arc<Session>>, path: bool) -> FibPeer {
    FibPeer {
        peer: PeerId([number; 32]),
        session,
        path: path.then(|| Path::direct("192.0.2.1:1".parse().unwrap())),
        datagram_limit: 1200,
        counters: Arc::default(),
    }
}

/// We hold one MAC, Alice (slot 0) and Bob (slot 1) one each.
fn fib(alice: FibPeer, bob: FibPeer) -> Fib {
    let macs = [
        (key(OURS), MacEntry::Local(Arc::default())),
        (key(ALICES), MacEntry::Remote(PeerSlot(0), 1)),
        (key(BOBS), MacEntry::Remote(PeerSlot(1), 1)),
    ];
    Fib {
        networks: vec![FibNetwork {
            id: LAB,
            macs: macs.into_iter().collect(),
            flood: vec![PeerSlot(0), PeerSlot(1)],
            punt_broadcast: None,
            clamp: true,
            twins: FibMap::default(),
            standby: None,
            bpdu: false,
            ports: Arc::default(),
        }],
        peers: vec![alice, bob],
        ..Fib::default()
    }
}

fn usual() -> (Fib, FibSession) {
    let alice = session(1, &[LAB]);
    let from = FibSession {
        session: Arc::clone(&alice),
        peer: PeerSlot(0),
    };
    let bob = peer(2, Some(session(2, &[LAB])), true);
    (fib(peer(1, Some(alice), true), bob), from)
}

#[test]
fn a_frame_goes_where_its_destination_is() {
    let (fib, _) = usual();
    match fib.forward(NET, key(OURS), BOBS, 7) {
        Forward::Unicast { peer, selector, .. } => {
            assert_eq!((peer.peer, selector), (PeerId([2; 32]), Selector(100)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        fib.forward(NET, key(OURS), OURS, 7),
        Forward::Local
    ));
    assert!(matches!(
        fib.forward(NET, key(OURS), MacAddr::BROADCAST, 7),
        Forward::Flood { punt: None, .. }
    ));
}

#[test]
fn who_stands_by_carries_nothing_round() {
    let (mut fib, from) = usual();
    let mut standby = VlanSet::all();
    standby.set(VlanId::new(7).unwrap(), false);
    fib.networks[0].standby = Some(Arc::new(standby));
    for dst in [BOBS, OURS, MacAddr::BROADCAST] {
        let forward = fib.forward(NET, key(OURS), dst, 7);
        assert!(matches!(forward, Forward::Drop(DropReason::StandingBy)));
    }
    let Some(MacEntry::Local(local)) = fib.networks[0].macs.get(&key(OURS)) else {
        panic!("not local");
    };
    assert_eq!(local.last_heard_ms(), 0, "it takes no evidence");
    let accept = |dst| fib.accept(&from, Selector(1100), key(ALICES), dst);
    let broadcast = accept(MacAddr::BROADCAST);
    assert!(matches!(broadcast, Accept::Drop(DropReason::StandingBy)));
    assert!(
        matches!(accept(OURS), Accept::Deliver(..)),
        "to one station"
    );
    // The VLAN that is ours.
    let tagged = MacKey {
        vlan: VlanId::new(7).unwrap(),
        mac: OURS,
    };
    let forward = fib.forward(NET, tagged, BOBS, 7);
    assert!(matches!(forward, Forward::Punt(PuntReason::SourceUnknown)));
}

#[test]
fn bpdus_pass_where_the_attachment_says_so() {
    let (mut fib, from) = usual();
    let bpdu = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
    let lldp = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    let ways = |fib: &Fib, dst| {
        let out = matches!(fib.forward(NET, key(OURS), dst, 7), Forward::Flood { .. });
        let accepted = fib.accept(&from, Selector(1100), key(ALICES), dst);
        (out, matches!(accepted, Accept::Deliver(..)))
    };
    assert_eq!(ways(&fib, bpdu), (false, false));
    fib.networks[0].bpdu = true;
    assert_eq!(ways(&fib, bpdu), (true, true));
    assert_eq!(
        ways(&fib, lldp),
        (false, false),
        "no other reserved address"
    );
}

#[test]
fn what_a_frame_costs_is_charged_to_its_port_or_to_the_newcomers() {
    let (mut fib, _) = usual();
    let ports = FibPorts {
        known: [(PortId(7), Arc::default())].into(),
        ..FibPorts::default()
    };
    fib.networks[0].ports = Arc::new(ports);
    let Some(MacEntry::Local(local)) = fib.networks[0].macs.get(&key(OURS)) else {
        panic!("not local");
    };
    let charged = |port| {
        let counters = fib.networks[0].ports.get(port).counters;
        (counters.punted(), counters.refused())
    };
    let lldp = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    let costs = |src| {
        for dst in [BOBS, MacAddr::BROADCAST, NOBODYS, lldp] {
            let _ = fib.forward(NET, key(src), dst, 7);
        }
    };
    costs(OURS);
    assert_eq!(charged(PortId::NEWCOMERS), (1, 1), "its port is not known");
    local.set_port(PortId(7));
    costs(OURS);
    assert_eq!(charged(PortId(7)), (1, 1));
    // One that is claimed elsewhere, and one that nobody knows.
    costs(ALICES);
    costs(NOBODYS);
    assert_eq!(charged(PortId(7)), (1, 1));
    assert_eq!(charged(PortId::NEWCOMERS), (1 + 6, 1 + 2));
    local.set_port(PortId(8));
    let port = fib.networks[0].port_of(&key(OURS));
    assert_eq!(port.id, PortId::NEWCOMERS, "that port is gone");
}

#[test]
fn a_local_source_is_marked_as_heard() {
    let (fib, _) = usual();
    let _ = fib.forward(NET, key(OURS), BOBS, 1234);
    let Some(MacEntry::Local(local)) = fib.networks[0].macs.get(&key(OURS)) else {
        panic!("not local");
    };
    assert_eq!(local.last_heard_ms(), 1234);
}

#[test]
fn what_the_fib_cannot_answer_is_punted() {
    let (known, _) = usual();
    let punt = |fib: &Fib, src, dst| match fib.forward(NET, key(src), dst, 0) {
        Forward::Punt(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(punt(&known, NOBODYS, BOBS), PuntReason::SourceUnknown);
    // A MAC that another host owns may have moved here: the directory judges.
    assert_eq!(punt(&known, ALICES, BOBS), PuntReason::SourceUnknown);
    assert_eq!(punt(&known, OURS, NOBODYS), PuntReason::DestinationUnknown);
    let slot = PeerSlot(1);
    for bob in [
        peer(2, None, true),
        peer(2, Some(session(2, &[LAB])), false),
        // In the overlay, but not in this network.
        peer(2, Some(session(2, &[OTHER])), true),
    ] {
        let fib = fib(peer(1, None, false), bob);
        assert_eq!(punt(&fib, OURS, BOBS), PuntReason::PeerNotReady(slot));
    }
}

#[test]
fn reserved_addresses_are_dropped_both_ways() {
    let (fib, from) = usual();
    let out = |src, dst| match fib.forward(NET, key(src), dst, 0) {
        Forward::Drop(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(out(MacAddr::BROADCAST, BOBS), DropReason::MacReserved);
    assert_eq!(out(OURS, LLDP), DropReason::BridgeReserved);
    let into = |src, dst| match fib.accept(&from, Selector(1100), key(src), dst) {
        Accept::Drop(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(into(MacAddr::ZERO, OURS), DropReason::MacReserved);
    assert_eq!(into(ALICES, LLDP), DropReason::BridgeReserved);
}

#[test]
fn trust_17_a_frame_is_delivered_only_if_its_sender_claims_its_source() {
    let (fib, from) = usual();
    let into = |src, dst| fib.accept(&from, Selector(1100), key(src), dst);
    assert!(matches!(into(ALICES, OURS), Accept::Deliver(NET, _)));
    assert!(matches!(
        into(ALICES, MacAddr::BROADCAST),
        Accept::Deliver(NET, _)
    ));
    for forged in [BOBS, OURS, NOBODYS] {
        for dst in [OURS, MacAddr::BROADCAST] {
            assert!(matches!(
                into(forged, dst),
                Accept::Punt(NET, PuntReason::SourceNotClaimed)
            ));
        }
    }
    // A late frame after a move, or a mistake: never written to the tap by the fast path.
    assert!(matches!(
        into(ALICES, BOBS),
        Accept::Punt(NET, PuntReason::DestinationNotHere)
    ));
    // The same MAC in another VLAN is another one.
    let tagged = MacKey {
        vlan: VlanId::new(5).unwrap(),
        mac: ALICES,
    };
    assert!(matches!(
        fib.accept(&from, Selector(1100), tagged, OURS),
        Accept::Punt(NET, PuntReason::SourceNotClaimed)
    ));
}

proptest! {
    /// Only the selector that we gave the peer for a network names it.
    #[test]
    fn only_agreed_selectors_name_a_network(number in any::<u32>()) {
        let (fib, from) = usual();
        let accepted = fib.accept(&from, Selector(number), key(ALICES), OURS);
        let agreed = number == 1100;
        prop_assert_eq!(matches!(accepted, Accept::Deliver(..)), agreed);
        if !agreed {
            prop_assert!(matches!(accepted, Accept::Drop(DropReason::UnknownNetwork)));
        }
    }
}

#[test]
fn a_peers_mac_that_a_guest_here_has_in_another_vlan_is_refused_where_it_is_said_so() {
    let (mut fib, from) = usual();
    let twin = MacKey {
        vlan: VlanId::new(10).unwrap(),
        mac: OURS,
    };
    let remote = MacEntry::Remote(PeerSlot(0), 1);
    fib.networks[0].macs.insert(twin, remote);
    let accepted = |fib: &Fib| match fib.accept(&from, Selector(1100), twin, MacAddr::BROADCAST) {
        Accept::Deliver(..) => true,
        Accept::Drop(DropReason::MacTwin) => false,
        other => panic!("{other:?}"),
    };
    assert!(
        accepted(&fib),
        "a bridge that filters VLANs tells them apart"
    );
    fib.networks[0].twins.insert(twin, ());
    assert!(!accepted(&fib));
}
