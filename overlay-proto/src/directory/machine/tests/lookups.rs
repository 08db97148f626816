//! Finding an owner: neighbours, the DHT alone, the silent printer; refresh and withdrawal.

use super::cluster::{Cluster, peer};
use crate::directory::claims::MAX_CLAIMS_PER_SIGNER;
use crate::directory::machine::{DirectoryAction, LocalVerdict, Resolution};
use crate::directory::tests::support::mac_key;
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass::Ordinary;
use crate::ethernet::MacAddr;
use crate::switching::MacKey;

#[test]
fn without_replication_the_dht_alone_resolves() {
    let mut cluster = Cluster::new(3, false);
    let key = mac_key(1);
    cluster.frame(0, key, Ordinary);
    // The record is put within the jitter of a change, or of the DHT becoming ready.
    cluster.run_ms(5000);
    assert_eq!(cluster.owners(key), [Some(0), None, None]);
    let now = cluster.now;
    assert_eq!(cluster.nodes[2].resolve(now, key), Resolution::Pending);
    cluster.drain(2);
    assert_eq!(
        cluster.nodes[2].resolve(now, key),
        Resolution::Remote(peer(0), 1)
    );
    assert!(cluster.heard_action(2, |action| *action == DirectoryAction::Resolved { key }));
    // A move goes the same way: the newer record replaces the older.
    cluster.move_to(1, key);
    cluster.run_ms(1000);
    let fresh = cluster.fresh(2);
    cluster.nodes[2] = fresh;
    cluster.connect(2);
    let now = cluster.now;
    cluster.nodes[2].resolve(now, key);
    cluster.drain(2);
    assert_eq!(cluster.nodes[2].owner(now, &key), Some(peer(1)));
}

#[test]
fn a_late_joiner_learns_all_from_any_member() {
    let mut cluster = Cluster::new(3, true);
    for mac in 0..40 {
        cluster.frame(usize::from(mac % 2), mac_key(mac), Ordinary);
    }
    cluster.run_ms(500);
    let fresh = cluster.fresh(2);
    cluster.nodes[2] = fresh;
    cluster.connect(2);
    cluster.run_ms(500);
    let now = cluster.now;
    assert_eq!(cluster.nodes[2].entries(now).count(), 40);
    assert_eq!(cluster.nodes[2].members().count(), 3);
    assert_eq!(
        cluster.nodes[2].resolve(now, mac_key(7)),
        Resolution::Remote(peer(1), 1)
    );
}

#[test]
fn who_has_wakes_the_silent_printer() {
    let mut cluster = Cluster::new(3, true);
    let printer = mac_key(9);
    cluster.attached[1].insert(printer);
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].resolve(now, printer), Resolution::Pending);
    cluster.drain(0);
    cluster.run_ms(200);
    assert!(cluster.all_see(printer, Some(1)));
    assert!(cluster.heard_action(0, |action| *action
        == DirectoryAction::Resolved { key: printer }));
}

#[test]
fn nobody_has_it_and_is_not_asked_again_for_two_seconds() {
    let mut cluster = Cluster::new(3, true);
    let key = mac_key(9);
    let now = cluster.now;
    cluster.nodes[0].resolve(now, key);
    cluster.drain(0);
    cluster.run_ms(2010);
    assert!(cluster.heard_action(0, |action| *action == DirectoryAction::Unresolved { key }));
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].resolve(now, key), Resolution::Negative);
    assert_eq!(cluster.dht_gets, 1);
    // A push clears it.
    cluster.frame(2, key, Ordinary);
    cluster.run_ms(50);
    let now = cluster.now;
    assert_eq!(
        cluster.nodes[0].resolve(now, key),
        Resolution::Remote(peer(2), 1)
    );
}

#[test]
fn a_refused_source_is_never_looked_up() {
    let mut cluster = Cluster::new(2, true);
    let group = MacKey {
        vlan: mac_key(1).vlan,
        mac: MacAddr::BROADCAST,
    };
    let now = cluster.now;
    assert_eq!(cluster.nodes[0].resolve(now, group), Resolution::Negative);
    assert!(matches!(
        cluster.frame(0, group, Ordinary),
        LocalVerdict::Drop(_)
    ));
}

#[test]
fn a_claim_lives_while_its_owner_does() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    cluster.attached[0].insert(key);
    cluster.frame(0, key, Ordinary);
    // The guest is silent, but answers probes.
    cluster.run_ms(1_500_000);
    assert!(cluster.all_see(key, Some(0)));
    // It goes without a word: three probes, then the claim is withdrawn.
    cluster.attached[0].clear();
    cluster.run_ms(340_000);
    assert!(cluster.all_see(key, None));
}

#[test]
fn a_claim_whose_owner_vanished_dies() {
    let mut cluster = Cluster::new(3, true);
    let key = mac_key(1);
    cluster.attached[0].insert(key);
    cluster.frame(0, key, Ordinary);
    cluster.run_ms(1000);
    let fresh = cluster.fresh(0);
    cluster.nodes[0] = fresh;
    cluster.loss = 100;
    cluster.run_ms(590_000);
    assert_eq!(cluster.owners(key)[1], Some(0));
    cluster.run_ms(15_000);
    assert_eq!(cluster.owners(key)[1], None);
    cluster.loss = 0;
    cluster.run_ms(60_000);
    assert!(cluster.all_see(key, None));
}

#[test]
fn addresses_travel_with_the_claim() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    let ip = "192.0.2.7".parse().unwrap();
    cluster.frame(0, key, Ordinary);
    cluster.run_ms(100);
    cluster.frame_from(0, key, ip);
    cluster.run_ms(1500);
    let now = cluster.now;
    let entry = cluster.nodes[1].entries(now).next().unwrap();
    assert_eq!(
        (entry.ips, entry.owner, entry.local),
        (vec![ip], peer(0), false)
    );
}

#[test]
fn a_thousand_claims_go_to_the_dht_a_few_at_a_time_and_within_five_seconds() {
    let mut cluster = Cluster::new(1, false);
    cluster.run_ms(5000);
    let (start, node) = (cluster.now, &mut cluster.nodes[0]);
    for mac in 0..1000_u16 {
        let [high, low] = mac.to_be_bytes();
        let mut key = mac_key(low);
        key.mac.0[4] = high;
        let heard = node.handle_local_frame(start, key, Ordinary, &[]);
        assert_eq!(heard, LocalVerdict::Forward);
    }
    let (mut puts, mut most) = (0, 0);
    for ms in (0..5000).step_by(10) {
        let now = start + core::time::Duration::from_millis(ms);
        node.handle_timeout(now);
        let actions = std::iter::from_fn(|| node.poll_action());
        let new = actions.filter(|action| matches!(action, DirectoryAction::DhtPut { .. }));
        let new = new.count();
        (puts, most) = (puts + new, most.max(new));
    }
    assert_eq!((puts, most), (1000, 24));
}

#[test]
fn a_mac_that_could_not_be_claimed_costs_nothing() {
    let mut cluster = Cluster::new(1, false);
    let (now, node) = (cluster.now, &mut cluster.nodes[0]);
    let key = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut key = mac_key(low);
        key.mac.0[4] = high;
        key
    };
    let most = u16::try_from(MAX_CLAIMS_PER_SIGNER).unwrap();
    for number in 0..most {
        let heard = node.handle_local_frame(now, key(number), Ordinary, &[]);
        assert_eq!(heard, LocalVerdict::Forward);
    }
    let heard = node.handle_local_frame(now, key(most), Ordinary, &[]);
    assert_eq!(heard, LocalVerdict::Drop(DropReason::ClaimOverflow));
    assert!(node.local.get(&key(most)).is_none(), "it is not remembered");
    // Those that are claimed are heard as before.
    let heard = node.handle_local_frame(now, key(7), Ordinary, &[]);
    assert_eq!(heard, LocalVerdict::Forward);
}
