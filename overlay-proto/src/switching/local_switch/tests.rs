#![allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]

use proptest::prelude::*;

use super::*;
use crate::ethernet::VlanId;

const A: PortId = PortId(1);
const B: PortId = PortId(2);
const C: PortId = PortId(3);

const fn mac(last: u16) -> MacAddr {
    let [high, low] = last.to_be_bytes();
    MacAddr([0x52, 0x54, 0, 0, high, low])
}

const fn key(last: u16) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac: mac(last),
    }
}

fn switch() -> (LocalSwitch, Instant) {
    let mut switch = LocalSwitch::default();
    for port in [A, B, C] {
        assert!(switch.plug(port, false));
    }
    (switch, Instant::now())
}

#[test]
fn two_sockets_talk_and_the_third_hears_only_what_is_for_all() {
    let (mut switch, now) = switch();
    let all = switch.ingress(now, A, key(1), MacAddr::BROADCAST);
    assert_eq!(all, LocalWay::Flood(vec![B, C]));
    assert_eq!(switch.ingress(now, B, key(2), mac(1)), LocalWay::Port(A));
    assert_eq!(switch.ingress(now, A, key(1), mac(2)), LocalWay::Port(B));
    // One that nobody has heard may be behind any port, or beyond.
    let unknown = switch.ingress(now, A, key(1), mac(9));
    assert_eq!(unknown, LocalWay::Flood(vec![B, C]));
}

#[test]
fn what_is_behind_the_same_port_is_filtered() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, A, key(1), MacAddr::BROADCAST);
    assert_eq!(switch.ingress(now, A, key(2), mac(1)), LocalWay::Filtered);
}

#[test]
fn from_beyond_a_frame_goes_to_its_station_or_to_all() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, B, key(2), MacAddr::BROADCAST);
    assert_eq!(switch.egress(now, key(7), mac(2)), LocalWay::Port(B));
    let all = switch.egress(now, key(7), MacAddr::BROADCAST);
    assert_eq!(all, LocalWay::Flood(vec![A, B, C]));
    assert_eq!(switch.port_of(now, &key(7)), None, "it teaches nothing");
}

#[test]
fn a_station_that_speaks_from_beyond_is_here_no_more() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, B, key(2), MacAddr::BROADCAST);
    let _ = switch.egress(now, key(2), MacAddr::BROADCAST);
    let out = switch.ingress(now, A, key(1), mac(2));
    assert_eq!(out, LocalWay::Flood(vec![B, C]));
}

#[test]
fn a_station_moves_and_vlans_are_apart() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, A, key(1), MacAddr::BROADCAST);
    let _ = switch.ingress(now, B, key(1), MacAddr::BROADCAST);
    assert_eq!(switch.ingress(now, C, key(3), mac(1)), LocalWay::Port(B));
    let tagged = MacKey {
        vlan: VlanId::new(7).unwrap(),
        mac: mac(3),
    };
    let out = switch.ingress(now, C, tagged, mac(1));
    assert_eq!(out, LocalWay::Flood(vec![A, B]));
}

#[test]
fn a_port_that_is_shut_sends_and_gets_nothing() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, B, key(2), MacAddr::BROADCAST);
    switch.set_shut(B, true);
    let shut = LocalWay::Drop(DropReason::PortShut);
    assert_eq!(switch.ingress(now, B, key(2), mac(1)), shut);
    let out = switch.ingress(now, A, key(1), mac(2));
    assert_eq!(out, LocalWay::Flood(vec![C]));
    assert_eq!(
        switch.egress(now, key(7), mac(2)),
        LocalWay::Flood(vec![A, C])
    );
    switch.set_shut(B, false);
    assert_eq!(switch.ingress(now, B, key(2), mac(1)), LocalWay::Port(A));
    assert_eq!(switch.egress(now, key(7), mac(2)), LocalWay::Port(B));
    switch.unplug(B);
    assert_eq!(switch.ingress(now, B, key(2), mac(1)), shut);
    assert_eq!(switch.port_of(now, &key(2)), None);
}

#[test]
fn what_is_for_bridges_and_from_nobody_goes_nowhere() {
    let (mut switch, now) = switch();
    let bpdu = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
    let reserved = LocalWay::Drop(DropReason::BridgeReserved);
    assert_eq!(switch.ingress(now, A, key(1), bpdu), reserved);
    assert_eq!(switch.egress(now, key(7), bpdu), reserved);
    assert_eq!(switch.port_of(now, &key(1)), None, "nor does it teach");
    switch.bpdu = true;
    let out = switch.ingress(now, A, key(1), bpdu);
    assert_eq!(out, LocalWay::Flood(vec![B, C]));
    let nobody = MacKey {
        mac: MacAddr::ZERO,
        ..key(1)
    };
    let out = switch.ingress(now, A, nobody, mac(2));
    assert_eq!(out, LocalWay::Drop(DropReason::MacReserved));
}

#[test]
fn who_says_nothing_is_forgotten() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, A, key(1), MacAddr::BROADCAST);
    let later = now + AGEING;
    assert_eq!(switch.port_of(later, &key(1)), None);
    switch.handle_timeout(later);
    assert!(switch.stations.is_empty());
    assert_eq!(switch.ports[&A].stations, 0);
}

#[test]
fn a_guest_that_makes_macs_up_displaces_its_own_and_nobody_elses() {
    let (mut switch, now) = switch();
    let _ = switch.ingress(now, B, key(9_999), MacAddr::BROADCAST);
    for n in 0..3_000_u16 {
        let at = now + Duration::from_millis(n.into());
        let _ = switch.ingress(at, A, key(n), MacAddr::BROADCAST);
    }
    assert_eq!(switch.ports[&A].stations, MAX_STATIONS);
    assert_eq!(switch.stations.len(), MAX_STATIONS + 1);
    assert_eq!(switch.port_of(now, &key(9_999)), Some(B));
    assert_eq!(switch.port_of(now, &key(2_999)), Some(A), "the newest");
    assert_eq!(switch.port_of(now, &key(0)), None, "the oldest");
}

#[test]
fn there_are_no_more_ports_than_fit() {
    let mut switch = LocalSwitch::default();
    for n in 1..=64 {
        assert!(switch.plug(PortId(n), false));
    }
    assert!(!switch.plug(PortId(65), false));
    assert!(switch.plug(PortId(64), true), "it is there");
}

proptest! {
    /// No frame goes back to the port that it came by, nor to one that is shut, and the counts are right.
    #[test]
    fn whatever_happens(steps in prop::collection::vec((0_u8..6, 1_u32..5, 0_u16..9, 0_u16..10), 0..200)) {
        let (mut switch, now) = switch();
        for (what, port, src, dst) in steps {
            let port = PortId(port);
            let dst = if dst == 9 { MacAddr::BROADCAST } else { mac(dst) };
            let (way, from) = match what {
                0 => {
                    switch.set_shut(port, src % 2 == 0);
                    continue;
                }
                1 if src == 0 => {
                    switch.unplug(port);
                    continue;
                }
                1 => {
                    switch.plug(port, false);
                    continue;
                }
                2 => (switch.egress(now, key(src), dst), None),
                _ => (switch.ingress(now, port, key(src), dst), Some(port)),
            };
            let to = match way {
                LocalWay::Port(one) => vec![one],
                LocalWay::Flood(all) => all,
                LocalWay::Filtered | LocalWay::Drop(_) => Vec::new(),
            };
            for one in to {
                prop_assert_ne!(Some(one), from);
                prop_assert!(!switch.ports[&one].is_shut);
            }
            for (id, port) in &switch.ports {
                let behind = switch.stations.values().filter(|one| one.port == *id);
                prop_assert_eq!(behind.count(), port.stations);
            }
        }
    }
}
