//! A new epoch: where records lie, and what the old key is still good for.

use super::cluster::{Cluster, peer};
use crate::directory::claim::VerifiedClaim;
use crate::directory::machine::{DirectoryAction, Resolution};
use crate::directory::messages::DirectoryMessage;
use crate::directory::record::{RecordKey, seal_record};
use crate::directory::signed::Signed;
use crate::directory::tests::support::{EPOCH_KEY, NETWORK, OVERLAY, claim, mac_key, test_node};
use crate::ethernet::EvidenceClass::Ordinary;
use crate::membership::certificate_hash;
use crate::switching::MacKey;

const NEXT_KEY: [u8; 32] = [0x2e; 32];

fn dht_key(epoch_key: &[u8; 32], key: MacKey) -> [u8; 32] {
    RecordKey::derive(epoch_key, &key).dht_key()
}

fn resolve(cluster: &mut Cluster, node: usize, key: MacKey) -> Resolution {
    let now = cluster.now;
    let first = cluster.nodes[node].resolve(now, key);
    assert_eq!(first, Resolution::Pending);
    cluster.drain(node);
    cluster.nodes[node].resolve(now, key)
}

#[test]
fn trust_8_an_epoch_change_publishes_anew_and_reads_both() {
    let mut cluster = Cluster::new(3, false);
    let (early, late) = (mac_key(1), mac_key(2));
    cluster.frame(0, early, Ordinary);
    cluster.frame(2, late, Ordinary);
    cluster.run_ms(5000);
    // Nodes 0 and 1 know of the new epoch, node 2 does not yet.
    let now = cluster.now;
    for node in [0, 1] {
        cluster.nodes[node].set_epoch(now, NEXT_KEY, Some(EPOCH_KEY));
    }
    assert!(!cluster.dht.contains_key(&dht_key(&NEXT_KEY, early)));
    cluster.run_ms(5000);
    assert!(cluster.dht.contains_key(&dht_key(&NEXT_KEY, early)));
    assert!(!cluster.dht.contains_key(&dht_key(&NEXT_KEY, late)));
    assert_eq!(
        resolve(&mut cluster, 1, late),
        Resolution::Remote(peer(2), 1)
    );
    assert_eq!(
        resolve(&mut cluster, 1, early),
        Resolution::Remote(peer(0), 1)
    );
    // What was published before the change is still found by who missed it.
    assert_eq!(
        resolve(&mut cluster, 2, early),
        Resolution::Remote(peer(0), 1)
    );

    // The overlap is over: nobody looks under the old key any more.
    let fresh = cluster.fresh(1);
    cluster.nodes[1] = fresh;
    cluster.connect(1);
    let now = cluster.now;
    cluster.nodes[1].set_epoch(now, NEXT_KEY, None);
    cluster.drain(1);
    let before = cluster.dht_gets;
    assert_eq!(resolve(&mut cluster, 1, late), Resolution::Pending);
    assert_eq!(cluster.dht_gets, before + 1);
}

#[test]
fn a_look_up_goes_on_under_the_new_key() {
    let mut cluster = Cluster::new(2, false);
    let (sought, missing) = (mac_key(1), mac_key(3));
    let now = cluster.now;
    cluster.nodes[0].set_epoch(now, NEXT_KEY, Some(EPOCH_KEY));
    cluster.frame(0, sought, Ordinary);
    cluster.run_ms(5000);
    cluster.nodes[1].resolve(cluster.now, missing);
    cluster.drain(1);
    cluster.run_ms(2100);
    let now = cluster.now;
    assert_eq!(cluster.nodes[1].resolve(now, missing), Resolution::Negative);
    assert_eq!(resolve(&mut cluster, 1, sought), Resolution::Pending);
    cluster.nodes[1].set_epoch(now, NEXT_KEY, Some(EPOCH_KEY));
    cluster.drain(1);
    assert_eq!(
        cluster.nodes[1].resolve(now, sought),
        Resolution::Remote(peer(0), 1)
    );
    assert!(cluster.heard_action(1, |action| *action
        == DirectoryAction::Resolved { key: sought }));
    // Nobody had it under the old key; that says nothing about the new one.
    assert_eq!(cluster.nodes[1].resolve(now, missing), Resolution::Pending);
}

#[test]
fn trust_8_the_old_key_alone_brings_no_claim_in() {
    let mut cluster = Cluster::new(3, false);
    let key = mac_key(1);
    let (now, wall) = (cluster.now, cluster.wall());
    cluster.nodes[0].set_epoch(now, NEXT_KEY, Some(EPOCH_KEY));
    // Node 2 was revoked; it still has the key of the epoch before and makes a fine record.
    cluster.nodes[0].handle_member_gone(now, peer(2));
    let signed = Signed::seal(&claim(1, 1, 9), &test_node(3), &OVERLAY).unwrap();
    let made = VerifiedClaim::open(&signed, &OVERLAY, &NETWORK, 1_000).unwrap();
    assert_eq!(made.claim.key(), key);
    for epoch_key in [EPOCH_KEY, NEXT_KEY] {
        let record = seal_record(&RecordKey::derive(&epoch_key, &key), &OVERLAY, &made).unwrap();
        let taken = cluster.nodes[0].handle_dht_result(now, wall, key, Some(&record));
        assert!(taken.is_err());
        assert_eq!(cluster.nodes[0].owner(now, &key), None);
    }
    // The same record of a member is taken: it was not the key that failed.
    cluster.nodes[0].handle_member(now, peer(2), true, &[3]);
    let record = seal_record(&RecordKey::derive(&EPOCH_KEY, &key), &OVERLAY, &made).unwrap();
    cluster.nodes[0]
        .handle_dht_result(now, wall, key, Some(&record))
        .unwrap();
    assert_eq!(cluster.nodes[0].owner(now, &key), Some(peer(2)));
}

#[test]
fn trust_8_a_renewed_certificate_is_asked_for_before_the_old_one_ends() {
    let mut cluster = Cluster::new(3, true);
    let (now, renewed) = (cluster.now, vec![3, 99]);
    cluster.nodes[2].set_own_chain(true, &renewed);
    let hash = certificate_hash(&renewed);
    cluster.nodes[2]
        .set_own_entry(now, hash, [0; 32], Vec::new())
        .unwrap();
    cluster.drain(2);
    cluster.run_ms(100);
    for node in [0, 1] {
        let known = cluster.nodes[node].certificates();
        let mut of_it = known.filter(|(whose, _)| *whose == peer(2));
        assert_eq!(of_it.next().unwrap().1, renewed);
    }
    // A chain that nobody asked for is not looked at.
    let (node, chain) = (peer(2), vec![3, 1]);
    let told = DirectoryMessage::Chain { node, chain };
    cluster.tell(1, 0, told).unwrap();
    let mut known = cluster.nodes[0].certificates();
    assert!(known.any(|(_, chain)| chain == renewed));
}

#[test]
fn trust_8_an_expired_member_comes_back_with_a_new_certificate() {
    let mut cluster = Cluster::new(3, true);
    let key = mac_key(1);
    cluster.frame(2, key, Ordinary);
    cluster.run_ms(100);
    let now = cluster.now;
    for node in [0, 1] {
        cluster.nodes[node].handle_member_expired(now, peer(2));
        assert_eq!(cluster.nodes[node].owner(now, &key), None);
        assert_eq!(cluster.nodes[node].members().count(), 2);
    }
    // Its new certificate is asked for when it is next heard of, from whoever tells.
    cluster.nodes[1].handle_member(now, peer(2), true, &[3]);
    let signed = cluster.nodes[2]
        .claims
        .get(&key)
        .unwrap()
        .claim
        .signed
        .clone();
    let told = crate::directory::messages::pack_claims([signed]).remove(0);
    cluster.tell(1, 0, told).unwrap();
    assert_eq!(cluster.nodes[0].owner(now, &key), None);
    cluster.run_ms(100);
    assert_eq!(cluster.nodes[0].owner(cluster.now, &key), Some(peer(2)));
}
