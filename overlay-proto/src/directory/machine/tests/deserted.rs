//! A node that carried a LAN falls silent there: another takes what it claimed, seen or not.

use super::cluster::{Cluster, peer};
use crate::directory::machine::DirectoryAction;
use crate::directory::messages::DirectoryMessage;
use crate::directory::tests::support::mac_key;
use crate::ethernet::EvidenceClass::{Ordinary, Strong};
use crate::ethernet::VlanId;
use crate::switching::MacKey;

const MACS: u8 = 20;

/// Node 0 claims 20 stations of the LAN; all three nodes know it.
fn lan() -> (Cluster, Vec<MacKey>) {
    let mut cluster = Cluster::new(3, true);
    let keys: Vec<MacKey> = (1..=MACS).map(mac_key).collect();
    for key in &keys {
        cluster.frame_from(0, *key, [10, 9, 0, key.mac.0[5]].into());
    }
    cluster.run_ms(100);
    (cluster, keys)
}

/// Node 1 carries the LAN from now on, and misses node 0 there.
fn miss(cluster: &mut Cluster) {
    let now = cluster.now;
    cluster.nodes[1].handle_owner_silent(now, peer(0), |_| true);
    cluster.drain(1);
}

fn have(cluster: &Cluster, key: MacKey, owner: Option<usize>) -> bool {
    cluster.owners(key)[1..] == [owner, owner]
}

#[test]
fn all_that_a_dead_node_claimed_of_the_lan_is_taken_within_half_a_second() {
    let (mut cluster, keys) = lan();
    cluster.cut_off(0);
    // The last one was its own guest, and died with it.
    let (guest, stations) = keys.split_last().unwrap();
    cluster.attached[1].extend(stations);
    miss(&mut cluster);
    let doubted = cluster.nodes[1].is_deserted(&peer(0), guest);
    assert!(doubted, "nobody is told to send there");
    cluster.run_ms(450);
    for key in &keys {
        assert!(have(&cluster, *key, Some(1)), "{:?}", cluster.owners(*key));
    }
    assert!(!cluster.nodes[1].is_deserted(&peer(0), guest));
    // The addresses come along: without them nobody could ask for the station.
    let now = cluster.now;
    let mut entries = cluster.nodes[2].entries(now);
    assert!(entries.all(|entry| entry.ips.len() == 1));
    drop(entries);
    cluster.run_ms(45_000);
    for key in stations {
        assert!(have(&cluster, *key, Some(1)), "it answered");
    }
    assert!(have(&cluster, *guest, None), "it did not");
}

#[test]
fn one_question_tells_whether_the_node_lives_and_what_it_claims_is_its_own_then() {
    let (mut cluster, keys) = lan();
    cluster.attached[0].extend(&keys);
    miss(&mut cluster);
    // Missed in each VLAN, one after the other.
    miss(&mut cluster);
    cluster.run_ms(2_000);
    for key in &keys {
        assert!(cluster.all_see(*key, Some(0)));
    }
    assert!(!cluster.nodes[1].is_deserted(&peer(0), &keys[0]));
    // What it gives up a moment later was behind the link that died.
    let now = cluster.now;
    cluster.nodes[0].handle_port_lost(now, &keys[..3]);
    cluster.drain(0);
    cluster.run_ms(60);
    for (n, key) in keys.iter().enumerate() {
        let owner = usize::from(n < 3);
        assert!(cluster.all_see(*key, Some(owner)), "{n}");
    }
    // Much later it is not.
    cluster.run_ms(10_000);
    let now = cluster.now;
    cluster.nodes[0].handle_port_lost(now, &keys[4..5]);
    cluster.drain(0);
    cluster.run_ms(60);
    assert!(cluster.all_see(keys[4], None));
}

#[test]
fn what_was_given_up_a_moment_before_is_taken_at_once() {
    let (mut cluster, keys) = lan();
    let now = cluster.now;
    cluster.nodes[0].handle_port_lost(now, &keys);
    cluster.drain(0);
    cluster.run_ms(1_000);
    assert!(cluster.all_see(keys[0], None));
    miss(&mut cluster);
    cluster.run_ms(60);
    for key in &keys {
        assert!(cluster.all_see(*key, Some(1)));
    }
}

#[test]
fn only_the_vlans_of_the_lan_count_and_only_while_they_are_carried() {
    let (mut cluster, keys) = lan();
    let tagged = MacKey {
        vlan: VlanId::new(5).unwrap(),
        ..mac_key(1)
    };
    cluster.frame(0, tagged, Ordinary);
    cluster.run_ms(100);
    cluster.cut_off(0);
    let now = cluster.now;
    let untagged = |vlan| vlan == VlanId::UNTAGGED;
    cluster.nodes[1].handle_owner_silent(now, peer(0), untagged);
    cluster.run_ms(500);
    assert!(have(&cluster, keys[0], Some(1)));
    assert!(have(&cluster, tagged, Some(0)));
    // Another node carries the VLAN before it is clear.
    let now = cluster.now;
    cluster.nodes[1].handle_owner_silent(now, peer(0), |_| true);
    cluster.nodes[1].handle_standby(|vlan| vlan == tagged.vlan);
    cluster.run_ms(500);
    assert!(have(&cluster, tagged, Some(0)));
}

#[test]
fn a_station_that_moves_meanwhile_is_where_it_went() {
    let (mut cluster, keys) = lan();
    cluster.cut_off(0);
    miss(&mut cluster);
    cluster.run_ms(100);
    cluster.frame(2, keys[0], Strong);
    cluster.run_ms(500);
    assert!(have(&cluster, keys[0], Some(2)));
    assert!(have(&cluster, keys[1], Some(1)));
    // A node that hears one of those taken over gets it from this node, which never heard it.
    cluster.attached[2].insert(keys[1]);
    cluster.frame(2, keys[1], Ordinary);
    cluster.run_ms(500);
    assert!(have(&cluster, keys[1], Some(2)));
}

#[test]
fn the_dead_are_not_asked_for_each_mac() {
    let (mut cluster, _) = lan();
    let now = cluster.now;
    cluster.nodes[1].handle_owner_silent(now, peer(0), |_| true);
    let mut asked = 0;
    while let Some(action) = cluster.nodes[1].poll_action() {
        let query = |message: &DirectoryMessage| matches!(message, DirectoryMessage::Query { .. });
        asked +=
            usize::from(matches!(&action, DirectoryAction::Send { message, .. } if query(message)));
    }
    assert_eq!(asked, 1);
}
