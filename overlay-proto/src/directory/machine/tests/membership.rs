//! Who may claim; what a restart keeps; leaving.

use std::time::Duration;

use super::cluster::{Cluster, peer};
use crate::directory::card::{Card, OpenedCard};
use crate::directory::machine::DirectoryAction;
use crate::directory::messages::DirectoryMessage;
use crate::directory::roster::RENEWAL;
use crate::directory::signed::Signed;
use crate::directory::tests::support::{NETWORK, OVERLAY, claim, mac_key, test_node};
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass::Ordinary;

#[test]
fn a_claim_waits_until_its_signers_chain_is_known() {
    let mut cluster = Cluster::new(3, true);
    // Node 2 starts anew and knows node 1 only; node 0 is known to node 1.
    cluster.frame(0, mac_key(1), Ordinary);
    cluster.run_ms(100);
    cluster.nodes[2] = cluster.fresh(2);
    let now = cluster.now;
    cluster.nodes[2].handle_member(now, peer(1), true, &[2]);
    let signed = cluster.nodes[1]
        .claims
        .get(&mac_key(1))
        .unwrap()
        .claim
        .signed
        .clone();
    cluster
        .tell(1, 2, DirectoryMessage::Claims(vec![signed]))
        .unwrap();
    assert_eq!(cluster.owners(mac_key(1))[2], None);
    cluster.run_ms(100);
    assert_eq!(cluster.owners(mac_key(1))[2], Some(0));
}

#[test]
fn trust_5_claims_without_the_right_are_refused_and_void() {
    let mut cluster = Cluster::new(3, true);
    cluster.frame(2, mac_key(1), Ordinary);
    cluster.run_ms(100);
    assert!(cluster.all_see(mac_key(1), Some(2)));
    let now = cluster.now;
    cluster.nodes[0].handle_member(now, peer(2), false, &[3]);
    assert_eq!(cluster.owners(mac_key(1))[0], None);
    assert_eq!(
        cluster.forge(2, 0, &claim(2, 1, 1)),
        Err(DropReason::ClaimRights)
    );
    cluster.nodes[1].handle_member_gone(now, peer(2));
    assert_eq!(cluster.owners(mac_key(1))[1], None);
    assert_eq!(cluster.nodes[1].members().count(), 2);
}

#[test]
fn a_restart_keeps_generations_and_roster() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    for round in 0..4 {
        cluster.move_to(round % 2, key);
        cluster.run_ms(4000);
    }
    assert!(cluster.all_see(key, Some(1)));
    let snapshot = cluster.nodes[1].snapshot();
    let mut fresh = cluster.fresh(1);
    let now = cluster.now;
    fresh.restore(now, &snapshot).unwrap();
    assert!(fresh.restore(now, &snapshot[..snapshot.len() - 1]).is_err());
    assert_eq!(fresh.members().count(), 2);
    cluster.nodes[1] = fresh;
    cluster.attached[1].insert(key);
    cluster.frame(1, key, Ordinary);
    let generation = cluster.nodes[1].entries(now).next().unwrap().generation;
    assert_eq!(generation, 4);
    cluster.connect(1);
    cluster.run_ms(1000);
    assert!(cluster.all_see(key, Some(1)));
    assert_eq!(cluster.nodes[1].members().count(), 2);
}

#[test]
fn a_claim_of_its_own_that_a_node_forgot_is_taken_over() {
    let mut cluster = Cluster::new(2, true);
    let key = mac_key(1);
    cluster.attached[0].insert(key);
    cluster.frame(0, key, Ordinary);
    cluster.run_ms(100);
    // State lost, and nothing heard yet: the others show it what it said.
    cluster.nodes[0] = cluster.fresh(0);
    cluster.connect(0);
    cluster.run_ms(500);
    assert!(cluster.all_see(key, Some(0)));
    // It is not attached any more after the next restart: withdrawn after three probes.
    cluster.attached[0].clear();
    cluster.nodes[0] = cluster.fresh(0);
    cluster.connect(0);
    cluster.run_ms(40_000);
    assert!(cluster.all_see(key, None));
}

#[test]
fn a_newcomer_hears_of_the_others_from_a_few_of_those_it_meets() {
    let mut cluster = Cluster::new(30, true);
    let newcomer = 0;
    cluster.nodes[newcomer] = cluster.fresh(newcomer);
    cluster.received[newcomer] = 0;
    for shown in 1..21 {
        cluster.meet(newcomer, shown);
    }
    cluster.run_ms(250);
    assert_eq!(cluster.nodes[newcomer].members().count(), 30);
    let entry = cluster.nodes[1]
        .roster
        .get(&peer(2))
        .unwrap()
        .signed
        .clone();
    let whole_roster = 59
        * DirectoryMessage::Roster(vec![entry])
            .encode()
            .unwrap()
            .len();
    let heard = cluster.received[newcomer] / whole_roster;
    assert!(heard <= 4, "as much as {heard} rosters");
}

#[test]
fn what_was_not_compared_for_many_at_once_is_soon() {
    let mut cluster = Cluster::new(8, true);
    // Each has more MACs than it shows by itself, and all of them meet all others in one moment.
    let macs = |node: u8| (40 * node..40 * (node + 1)).take(36).map(mac_key);
    for node in 0..6_u8 {
        cluster.nodes[usize::from(node)] = cluster.fresh(usize::from(node));
    }
    cluster.loss = 100;
    for node in 0..6_u8 {
        for key in macs(node) {
            cluster.frame(usize::from(node), key, Ordinary);
        }
    }
    cluster.loss = 0;
    for node in 0..8 {
        cluster.connect(node);
    }
    cluster.run_ms(3_000);
    for node in 0..6_u8 {
        let all_see = |key| cluster.all_see(key, Some(usize::from(node)));
        assert!(macs(node).all(all_see), "not all of node {node}");
    }
}

#[test]
fn a_member_says_once_a_day_that_it_is_there_still() {
    let mut cluster = Cluster::new(2, true);
    let said = |cluster: &Cluster| {
        let member = cluster.nodes[1].member(&peer(0)).unwrap();
        member.entry.incarnation
    };
    let first = said(&cluster);
    cluster.now += RENEWAL - Duration::from_secs(60);
    cluster.run_ms(6_000);
    assert_eq!(said(&cluster), first);
    cluster.now += Duration::from_secs(60);
    cluster.run_ms(6_000);
    assert!(said(&cluster) >= first + RENEWAL.as_secs());
}

#[test]
fn leaving_withdraws_and_tells() {
    let mut cluster = Cluster::new(2, true);
    cluster.frame(0, mac_key(1), Ordinary);
    cluster.run_ms(100);
    let now = cluster.now;
    cluster.nodes[0].handle_leave(now).unwrap();
    cluster.drain(0);
    cluster.run_ms(100);
    assert!(cluster.all_see(mac_key(1), None));
    assert_eq!(cluster.nodes[1].members().count(), 1);
    assert!(cluster.nodes[1].has_left(&peer(0)) && !cluster.nodes[1].has_left(&peer(1)));
}

#[test]
fn a_card_brings_an_unknown_member() {
    let mut cluster = Cluster::new(2, true);
    let now = cluster.now;
    cluster.nodes[0] = cluster.fresh(0);
    let entry = cluster.nodes[1]
        .roster
        .get(&peer(1))
        .unwrap()
        .signed
        .clone();
    let card = Card {
        entry,
        chain: vec![2],
        static_document: Vec::new(),
        candidates: Vec::new(),
        sequence: 1,
        name: String::new(),
    };
    let signed = Signed::seal(&card, &test_node(2), &OVERLAY).unwrap();
    let opened = OpenedCard::open(&signed, &OVERLAY, &NETWORK).unwrap();
    let wall = cluster.wall();
    cluster.nodes[0].handle_card(now, wall, &opened).unwrap();
    cluster.drain(0);
    assert_eq!(cluster.nodes[0].members().count(), 1);
    assert!(cluster.heard_action(0, |action| *action == DirectoryAction::RosterChanged));
}
