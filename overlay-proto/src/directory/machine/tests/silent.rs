//! Stations that only receive: frames for MACs that nobody claims, and pins.

use std::time::Duration;

use super::cluster::{Cluster, peer};
use crate::directory::claim::ClaimKind;
use crate::directory::machine::{
    DirectoryAction, LateFrame, LateVerdict, LocalVerdict, Resolution,
};
use crate::directory::tests::support::mac_key;
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass::{Ordinary, Strong};
use crate::ethernet::MacAddr;
use crate::switching::MacKey;
use crate::wire::Forwarded;

/// A frame for `key` at node 0, as the driver does it. Does it wait for the next question to all?
fn frame_for(cluster: &mut Cluster, key: MacKey) -> bool {
    let now = cluster.now;
    let waits = match cluster.nodes[0].resolve(now, key) {
        Resolution::Pending => true,
        Resolution::Negative => cluster.nodes[0].handle_unknown_frame(now, key),
        found => panic!("{found:?}"),
    };
    cluster.drain(0);
    waits
}

fn asked(cluster: &Cluster) -> usize {
    let asks = |(node, action): &&(usize, DirectoryAction)| {
        *node == 0 && matches!(action, DirectoryAction::AskAll { .. })
    };
    cluster.said.iter().filter(asks).count()
}

/// A frame from a guest of node `from`, as node 1 sees it.
fn stray(from: usize, dst: MacKey) -> LateFrame {
    LateFrame {
        dst,
        from: peer(from),
        origin: peer(from),
        hops: 0,
        mark: None,
    }
}

#[test]
fn each_second_one_frame_asks_for_a_mac_that_nobody_claims() {
    let mut cluster = Cluster::new(3, true);
    let key = mac_key(9);
    for _ in 0..200 {
        frame_for(&mut cluster, key);
        cluster.run_ms(100);
    }
    let asked = asked(&cluster);
    assert!((18..=21).contains(&asked), "{asked} in 20 s");
    let now = cluster.now;
    let told: Vec<_> = cluster.nodes[0].unknown(now).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].key, told[0].asked as usize), (key, asked));
    assert!(told[0].dropped > 0);
    // Its answer teaches.
    cluster.frame(2, key, Ordinary);
    cluster.run_ms(100);
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].unknown(now).count(), 0);
    assert_eq!(
        cluster.nodes[0].resolve(now, key),
        Resolution::Remote(peer(2), 1)
    );
}

#[test]
fn a_node_asks_for_ten_macs_a_second_at_most() {
    let mut cluster = Cluster::new(2, true);
    for _ in 0..50 {
        for mac in 0..100 {
            frame_for(&mut cluster, mac_key(mac));
        }
        cluster.run_ms(100);
    }
    let asked = asked(&cluster);
    assert!((40..=60).contains(&asked), "{asked} in 5 s");
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].unknown(now).count(), 64, "the bound");
    cluster.run_ms(610_000);
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].unknown(now).count(), 0);
}

#[test]
fn a_frame_for_an_unknown_mac_is_taken_within_the_budget_of_its_sender() {
    let mut cluster = Cluster::new(3, true);
    let (key, dropped) = (mac_key(9), LateVerdict::Drop(DropReason::UnknownMac));
    let now = cluster.now;
    let node = &mut cluster.nodes[1];
    for count in 0..100 {
        let verdict = node.late_frame(now, &stray(0, key));
        let expected = if count < 20 {
            LateVerdict::Undecided
        } else {
            dropped
        };
        assert_eq!(verdict, expected, "{count}");
    }
    assert_eq!(node.late_frame(now, &stray(2, key)), LateVerdict::Undecided);
    let later = now + Duration::from_secs(1);
    assert_eq!(
        node.late_frame(later, &stray(0, key)),
        LateVerdict::Undecided
    );
}

#[test]
fn only_what_comes_straight_from_its_source_for_an_address_of_nobody_is_taken() {
    let mut cluster = Cluster::new(3, true);
    let known = mac_key(1);
    cluster.frame(2, known, Ordinary);
    cluster.run_ms(100);
    let now = cluster.now;
    let node = &mut cluster.nodes[1];
    let refused = |verdict| matches!(verdict, LateVerdict::Drop(_));
    // Claimed by another: it gets its frames there.
    assert!(refused(node.late_frame(now, &stray(0, known))));
    let unknown = mac_key(9);
    let mark = Some(Forwarded {
        origin: 0,
        sequence: 0,
        generation: 9,
    });
    let marked = LateFrame {
        mark,
        hops: 1,
        ..stray(0, unknown)
    };
    assert!(refused(node.late_frame(now, &marked)));
    let for_another = LateFrame {
        origin: peer(2),
        ..stray(0, unknown)
    };
    assert!(refused(node.late_frame(now, &for_another)));
    let group = MacKey {
        mac: MacAddr::BROADCAST,
        ..unknown
    };
    assert!(refused(node.late_frame(now, &stray(0, group))));
}

#[test]
fn a_pinned_mac_stays_without_a_word() {
    let mut cluster = Cluster::new(2, true);
    let (pinned, other) = (mac_key(1), mac_key(2));
    let now = cluster.now;
    cluster.nodes[0].pin(now, pinned).unwrap();
    cluster.frame(0, other, Ordinary);
    // Neither answers any probe.
    cluster.run_ms(1_500_000);
    assert!(cluster.all_see(pinned, Some(0)));
    assert!(cluster.all_see(other, None));
    let now = cluster.now;
    let entry = cluster.nodes[1].entries(now).next().unwrap();
    assert_eq!(entry.kind, ClaimKind::Pinned);
    // Taken back, it goes the way of the others.
    assert!(cluster.nodes[0].unpin(now, pinned));
    assert!(!cluster.nodes[0].unpin(now, pinned));
    cluster.run_ms(60_000);
    assert!(cluster.all_see(pinned, None));
}

#[test]
fn a_pin_outlives_a_restart() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    let now = cluster.now;
    cluster.nodes[0].pin(now, key).unwrap();
    cluster.drain(0);
    cluster.run_ms(1000);
    let mut fresh = cluster.fresh(0);
    fresh.restore_pin(key).unwrap();
    cluster.nodes[0] = fresh;
    cluster.connect(0);
    cluster.run_ms(1000);
    let now = cluster.now;
    cluster.nodes[0].handle_port_up(now);
    cluster.run_ms(1_000_000);
    assert!(cluster.all_see(key, Some(0)));
}

#[test]
fn a_pin_gives_way_to_a_real_move_and_does_not_come_back() {
    for class in [Strong, Ordinary] {
        let mut cluster = Cluster::new(3, true);
        let key = mac_key(1);
        let now = cluster.now;
        cluster.nodes[0].pin(now, key).unwrap();
        cluster.drain(0);
        cluster.run_ms(1000);
        cluster.attached[1].insert(key);
        cluster.frame(1, key, class);
        cluster.run_ms(1000);
        assert!(cluster.all_see(key, Some(1)), "{class:?}");
        cluster.run_ms(60_000);
        assert!(cluster.all_see(key, Some(1)));
        // Not even when the other gives it up: nobody knows that it came back.
        let now = cluster.now;
        cluster.nodes[1].handle_port_lost(now, &[key]);
        cluster.drain(1);
        cluster.run_ms(60_000);
        assert!(cluster.all_see(key, None));
        let now = cluster.now;
        cluster.nodes[0].handle_port_up(now);
        cluster.drain(0);
        cluster.run_ms(100);
        assert!(cluster.all_see(key, Some(0)));
    }
}

#[test]
fn a_pin_waits_while_its_port_is_gone() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    let now = cluster.now;
    cluster.nodes[0].pin(now, key).unwrap();
    cluster.nodes[0].handle_port_lost(now, &[key]);
    cluster.drain(0);
    cluster.run_ms(60_000);
    assert!(cluster.all_see(key, None));
    // A frame of it counts more than what the bridge says.
    assert_eq!(cluster.frame(0, key, Ordinary), LocalVerdict::Forward);
    cluster.run_ms(1_000_000);
    assert!(cluster.all_see(key, Some(0)));
}

#[test]
fn a_pin_takes_the_mac_when_the_operator_says_so() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    cluster.frame(1, key, Strong);
    cluster.run_ms(100);
    let now = cluster.now;
    cluster.nodes[0].pin(now, key).unwrap();
    cluster.drain(0);
    cluster.run_ms(100);
    assert!(cluster.all_see(key, Some(0)));
    // At a start it does not.
    cluster.nodes[1].restore_pin(key).unwrap();
    let now = cluster.now;
    cluster.nodes[1].handle_port_up(now);
    cluster.drain(1);
    cluster.run_ms(1000);
    assert!(cluster.all_see(key, Some(0)));
}
