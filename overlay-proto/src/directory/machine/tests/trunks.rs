//! A machine on a trunk: its MAC has a claim in each of its VLANs.

use super::cluster::{Cluster, peer};
use crate::directory::machine::{DirectoryAction, LocalVerdict};
use crate::directory::tests::support::mac_key;
use crate::ethernet::EvidenceClass::{Announced, Ordinary, Strong};
use crate::ethernet::VlanId;
use crate::switching::MacKey;

/// The MAC in VLANs 0, 100 and 200.
fn keys() -> [MacKey; 3] {
    [0, 100, 200].map(|vlan| MacKey {
        vlan: VlanId::new(vlan).unwrap(),
        ..mac_key(1)
    })
}

/// A machine at node 0 that has just talked in these VLANs, of three nodes.
fn trunk_at_0(vlans: &[MacKey]) -> Cluster {
    let mut cluster = Cluster::new(3, true);
    for key in vlans {
        cluster.attached[0].insert(*key);
        cluster.frame(0, *key, Ordinary);
    }
    cluster.run_ms(100);
    cluster
}

fn machine_frame(cluster: &mut Cluster, node: usize, key: MacKey) -> LocalVerdict {
    let verdict = cluster.nodes[node].handle_machine_frame(cluster.now, key, Strong);
    cluster.drain(node);
    verdict
}

#[test]
fn one_rarp_moves_all_vlans() {
    // Also where the machine never said a word in the VLAN of the RARP.
    for vlans in [&keys()[..], &keys()[1..]] {
        let mut cluster = trunk_at_0(vlans);
        assert_eq!(
            machine_frame(&mut cluster, 1, keys()[0]),
            LocalVerdict::Forward
        );
        cluster.run_ms(60);
        for key in keys() {
            assert!(cluster.all_see(key, Some(1)), "{key:?}");
        }
    }
}

#[test]
fn one_announcement_by_a_hook_moves_all_vlans() {
    let mut cluster = trunk_at_0(&keys());
    let now = cluster.now;
    cluster.nodes[1].handle_announce(now, keys()[0]).unwrap();
    cluster.drain(1);
    cluster.run_ms(60);
    for key in keys() {
        assert!(cluster.all_see(key, Some(1)), "{key:?}");
    }
}

#[test]
fn a_word_about_one_vlan_asks_for_the_others() {
    for class in [Strong, Ordinary] {
        let mut cluster = trunk_at_0(&keys());
        // The old host heard it in all VLANs a moment ago; it has no port for it any more.
        cluster.attached[0].clear();
        cluster.run_ms(300);
        cluster.attached[1].extend(keys());
        for _ in 0..4 {
            cluster.frame(1, keys()[1], class);
            cluster.run_ms(245);
        }
        for key in keys() {
            assert!(cluster.all_see(key, Some(1)), "{class:?} {key:?}");
        }
    }
}

#[test]
fn masters_of_two_vlans_on_two_hosts_do_not_disturb_each_other() {
    let [untagged, tagged, _] = keys();
    let mut cluster = Cluster::new(3, true);
    for (node, key) in [(0, untagged), (1, tagged)] {
        cluster.attached[node].insert(key);
        cluster.frame(node, key, Strong);
    }
    cluster.run_ms(100);
    // Each refreshes its announcement; then a third becomes master of the untagged VLAN.
    for second in 0..20 {
        let master = if second < 10 { 0 } else { 2 };
        cluster.frame(master, untagged, Strong);
        cluster.frame(1, tagged, Strong);
        cluster.run_ms(1000);
        assert!(cluster.all_see(untagged, Some(master)), "{second}");
        assert!(cluster.all_see(tagged, Some(1)), "{second}");
    }
}

#[test]
fn a_master_of_two_vlans_gives_up_one_of_them() {
    let [untagged, tagged, _] = keys();
    let mut cluster = trunk_at_0(&[untagged, tagged]);
    cluster.attached[0].remove(&untagged);
    cluster.attached[1].insert(untagged);
    cluster.frame(1, untagged, Strong);
    for _ in 0..5 {
        cluster.run_ms(300);
        cluster.frame(0, tagged, Ordinary);
        assert!(cluster.all_see(tagged, Some(0)));
    }
    assert!(cluster.all_see(untagged, Some(1)));
}

#[test]
fn a_rarp_between_two_owners_asks_both() {
    let [untagged, tagged, other] = keys();
    let mut cluster = Cluster::new(4, true);
    for (node, key) in [(0, tagged), (1, other)] {
        cluster.attached[node].insert(key);
        cluster.frame(node, key, Ordinary);
    }
    cluster.run_ms(1000);
    // The one of node 0 has gone, the one of node 1 is a machine of its own.
    cluster.attached[0].clear();
    machine_frame(&mut cluster, 2, untagged);
    cluster.run_ms(700);
    assert!(cluster.all_see(untagged, Some(2)));
    assert!(cluster.all_see(tagged, Some(2)));
    assert!(cluster.all_see(other, Some(1)));
}

#[test]
fn an_owner_whose_port_is_in_doubt_does_not_answer_from_memory() {
    let key = keys()[1];
    let mut cluster = trunk_at_0(&keys());
    let now = cluster.now;
    cluster.attached[0].clear();
    cluster.nodes[0].handle_port_doubt(now, &keys());
    // A stamp of the workers from before comes after.
    cluster.nodes[0].heard(now, key);
    assert_eq!(cluster.frame(1, key, Ordinary), LocalVerdict::Hold);
    cluster.run_ms(60);
    assert!(cluster.all_see(key, Some(1)) || cluster.owners(key)[1] == Some(1));
    assert!(!cluster.heard_action(1, |action| matches!(
        action,
        DirectoryAction::HeldRefused { .. }
    )));
}

#[test]
fn a_port_that_is_lost_gives_the_mac_up_in_all_vlans_and_the_new_host_takes_it() {
    let [untagged, tagged, _] = keys();
    let mut cluster = trunk_at_0(&keys());
    // Node 1 hears it while node 0 still says that it is alive.
    assert_eq!(cluster.frame(1, tagged, Ordinary), LocalVerdict::Hold);
    cluster.run_ms(100);
    assert!(cluster.all_see(tagged, Some(0)));
    let now = cluster.now;
    cluster.nodes[0].handle_port_lost(now, &keys());
    cluster.drain(0);
    cluster.run_ms(60);
    // No further frame was needed.
    assert!(cluster.all_see(tagged, Some(1)));
    // What it did not hear, its bridge is asked for.
    assert!(cluster.heard_action(1, |action| *action
        == DirectoryAction::Vacated { key: untagged }));
    assert_eq!(cluster.owners(untagged), [None, None, None]);
}

#[test]
fn the_addresses_come_along() {
    let tagged = keys()[1];
    let mut cluster = trunk_at_0(&keys());
    let ip = "192.0.2.7".parse().unwrap();
    cluster.frame_from(0, tagged, ip);
    cluster.run_ms(2000);
    machine_frame(&mut cluster, 1, keys()[0]);
    cluster.run_ms(60);
    let now = cluster.now;
    let entry = cluster.nodes[2].entries(now).find(|e| e.key == tagged);
    let entry = entry.unwrap();
    assert_eq!((entry.owner, entry.ips), (peer(1), vec![ip]));
}

#[test]
fn the_operators_word_counts_among_several_owners_for_its_own_vlan() {
    let [untagged, tagged, other] = keys();
    let mut cluster = Cluster::new(3, true);
    for (node, key) in [(0, untagged), (0, tagged), (1, other)] {
        cluster.attached[node].insert(key);
        cluster.frame(node, key, Ordinary);
    }
    cluster.run_ms(100);
    let verdict = cluster.nodes[2].handle_machine_frame(cluster.now, untagged, Announced);
    assert_eq!(verdict, LocalVerdict::Forward);
    cluster.drain(2);
    cluster.run_ms(60);
    assert!(cluster.all_see(untagged, Some(2)));
    // The same machine as far as anybody knows.
    assert!(cluster.all_see(tagged, Some(2)));
    assert!(cluster.all_see(other, Some(1)));
}

#[test]
fn what_moves_takes_its_vlans_from_its_old_host_only() {
    let [untagged, tagged, _] = keys();
    let mut cluster = Cluster::new(3, true);
    for (node, key) in [(2, untagged), (1, tagged)] {
        cluster.attached[node].insert(key);
        cluster.frame(node, key, Ordinary);
    }
    cluster.run_ms(1000);
    // Node 0 hears both: the one has moved there, the other lives at node 1.
    cluster.frame(0, tagged, Ordinary);
    cluster.attached[2].clear();
    cluster.attached[0].insert(untagged);
    machine_frame(&mut cluster, 0, untagged);
    for _ in 0..7 {
        cluster.run_ms(100);
        assert!(cluster.all_see(tagged, Some(1)));
    }
    assert!(cluster.all_see(untagged, Some(0)));
}
