//! Whoever is revoked is cut off everywhere (TRUST.md 8, ADR 12).

use node_core::api::BootstrapState;
use overlay_proto::SeededEntropy;
use overlay_proto::membership::{AuthorityKey, Page, RevocationList, Revoked, SignedRevocations};
use overlay_proto::wire::peer_message::PeerMessage;

use super::leaving::{leave, rejoin};
use super::*;

#[test]
fn trust_8_whoever_is_revoked_at_one_node_is_cut_off_at_all() {
    revoke(7, false);
}

#[test]
fn trust_8_the_members_tell_each_other_when_no_bootstrap_does() {
    revoke(7, true);
}

/// One of five is revoked at another, with a bootstrap or without.
fn revoke(seed: u64, cut: bool) {
    let mut lab = Lab::settled(seed, 5);
    for number in 1..=5 {
        assert_eq!(lab.hear(number).len(), 4);
    }
    lab.world.cut_bootstrap(cut);
    lab.go(S(1));
    let line = lab.world.revocation_of(lab.hosts[4]).unwrap();
    let said = lab.does(1, line);
    assert!(said.contains("is in force"), "{said}");
    lab.within(MS(100), |lab| {
        (1..=4).all(|number| lab.report(number, 5).is_none())
    });
    assert_eq!(lab.hear(5), NOBODY);
    assert_eq!(lab.hear(1), [2, 3, 4]);
    lab.go(S(20));
    assert_eq!(lab.hear(5), NOBODY);
    for number in 1..=4 {
        assert_eq!(lab.members(number), [1, 2, 3, 4]);
        assert_eq!(lab.holder(number, 5), None);
    }
}

#[test]
fn who_is_revoked_ends_its_sessions_and_reads_what_to_do() {
    let mut lab = Lab::settled(100, 3);
    let line = lab.world.revocation_of(lab.hosts[2]).unwrap();
    lab.does(1, line);
    // The bootstrap shows it the list when it dials again, within 5 s.
    lab.go(S(6));
    assert!(peers(&mut lab.world, lab.hosts[2]).is_empty());
    let refused = lab.status(3).refused.unwrap();
    assert!(refused.contains("for a new invite"), "{refused}");
    assert!(lab.warns(3, "this node is not admitted"));
    let states = lab.status(3).bootstraps;
    assert!(states.iter().all(|one| one.state == BootstrapState::Down));
    // It dials nobody, now and after a restart: nobody refuses anything.
    let before = [1, 2].map(|number| lab.drops(number, DropReason::Revoked));
    lab.go(S(30));
    lab.kill(3);
    lab.start(3);
    lab.go(S(30));
    assert!(peers(&mut lab.world, lab.hosts[2]).is_empty());
    assert!(lab.status(3).refused.is_some());
    let after = [1, 2].map(|number| lab.drops(number, DropReason::Revoked));
    assert_eq!(before, after);
}

#[test]
fn a_new_invite_lets_a_host_in_again_whose_invite_was_revoked() {
    let mut lab = Lab::settled(101, 3);
    let line = lab
        .world
        .revocation_of_invite(lab.hosts[2], Along::default());
    lab.does(1, line.unwrap());
    lab.go(S(1));
    assert_eq!(lab.hear(3), NOBODY);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    lab.world.join(lab.hosts[2], &invite).unwrap();
    lab.within(S(7), |lab| lab.meets(1, 3) && lab.meets(2, 3));
    assert_eq!(lab.hear(3), [1, 2]);
    assert_eq!(lab.status(3).refused, None);
}

#[test]
fn a_new_invite_does_not_help_a_node_that_was_revoked_by_its_name() {
    let mut lab = Lab::settled(102, 3);
    let line = lab.world.revocation_of(lab.hosts[2]).unwrap();
    lab.does(1, line);
    lab.go(S(1));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    lab.world.join(lab.hosts[2], &invite).unwrap();
    lab.go(S(20));
    assert_eq!(lab.hear(3), NOBODY);
    assert!(!lab.meets(1, 3));
}

#[test]
fn who_loses_one_of_two_certificates_goes_on_with_the_other_and_is_told() {
    let config = Config {
        networks: vec!["lab", "home"],
        ..Config::default()
    };
    let mut lab = Lab::with(112, 1, config);
    lab.add(&Terms::of(&[0, 1]));
    lab.settle();
    let invite = lab.world.invite(&Terms::of(&[1])).unwrap();
    let host = lab.host(1);
    lab.world.join(host, &invite).unwrap();
    lab.go(S(5));
    let line = lab.world.revocation_of_invite(host, Along::default());
    lab.does(2, line.unwrap());
    lab.go(S(1));
    lab.within(S(7), |lab| lab.meets(1, 2) && lab.meets(2, 1));
    lab.go(S(1));
    assert_eq!(lab.hear(1), [2], "{:?}", lab.status(2).drops);
    assert_eq!(lab.status(1).refused, None);
    assert!(lab.warns(1, "the membership in home was revoked"));
    assert!(!lab.warns(1, "the membership in lab"));
    let home = Request::Members {
        network: Some("home".parse().unwrap()),
    };
    let Response::Members(members) = lab.ask(2, home) else {
        panic!("no members");
    };
    assert!(
        members.iter().all(|one| one.node != lab.peer(1)),
        "{members:?}"
    );
}

#[test]
fn who_was_off_learns_it_from_the_first_member_that_it_meets() {
    let mut lab = Lab::settled(103, 4);
    lab.kill(2);
    let line = lab.world.revocation_of(lab.hosts[3]).unwrap();
    lab.does(1, line);
    lab.go(S(60));
    lab.world.cut_bootstrap(true);
    // The revoked one does not want to know, and waits for it.
    lab.world.make_deaf(lab.hosts[3]);
    lab.start(2);
    lab.within(S(6), |lab| lab.meets(2, 1) && lab.report(2, 4).is_none());
    assert_eq!(lab.hear(4), NOBODY);
    lab.go(S(20));
    assert_eq!(lab.hear(4), NOBODY);
    assert_eq!(lab.hear(2), [1, 3]);
}

/// The revoked node goes on as if nothing had been said.
#[test]
fn who_does_not_want_to_know_is_refused_by_all_and_introduced_to_nobody() {
    let mut lab = Lab::settled(104, 3);
    lab.world.make_deaf(lab.hosts[2]);
    let line = lab.world.revocation_of(lab.hosts[2]).unwrap();
    lab.does(1, line);
    lab.go(S(60));
    assert_eq!(lab.hear(3), NOBODY);
    assert!(lab.drops(1, DropReason::Revoked) > 0);
    assert!(lab.status(3).refused.is_some(), "the bootstrap says why");
    // Its card is gone from the rendezvous, and no member speaks of it.
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    lab.go(S(20));
    assert!(lab.report(newcomer, 3).is_none());
    assert_eq!(lab.members(newcomer), [1, 2, newcomer]);
}

#[test]
fn a_list_that_was_not_on_disk_at_a_kill_comes_again() {
    let mut lab = Lab::settled(105, 4);
    lab.world.cut_bootstrap(true);
    let slow = DiskManner {
        delay: Some(S(5)),
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[1], slow);
    lab.go(S(60));
    let line = lab.world.revocation_of(lab.hosts[3]).unwrap();
    lab.does(1, line);
    lab.go(S(1));
    lab.kill(2);
    lab.world.set_disk(lab.hosts[1], DiskManner::default());
    lab.start(2);
    lab.within(S(6), |lab| lab.meets(2, 1));
    // One sent it to the run before a moment ago, and does not send 63 KiB again at once.
    lab.within(S(15), |lab| lab.report(2, 4).is_none());
    assert_eq!(lab.hear(4), NOBODY);
    // It is on the disk now: also who meets nobody knows.
    lab.go(S(10));
    lab.kill(2);
    lab.cut(2, true);
    lab.start(2);
    lab.go(S(1));
    assert!(lab.report(2, 4).is_none());
    lab.cut(2, false);
}

#[test]
fn a_list_that_the_disk_refuses_counts_all_the_same() {
    let mut lab = Lab::settled(106, 3);
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    for host in [0, 1] {
        lab.world.set_disk(lab.hosts[host], full);
    }
    let line = lab.world.revocation_of(lab.hosts[2]).unwrap();
    lab.does(1, line);
    lab.within(MS(200), |lab| lab.report(2, 3).is_none());
    assert_eq!(lab.hear(3), NOBODY);
}

#[test]
fn a_list_gets_through_where_datagrams_are_lost_and_swapped() {
    let mut lab = Lab::settled(107, 4);
    lab.world.cut_bootstrap(true);
    for number in 1..=4 {
        lab.set_access(number, bad_access());
    }
    let line = lab.world.revocation_of(lab.hosts[3]).unwrap();
    lab.does(1, line);
    lab.within(S(5), |lab| {
        (1..=3).all(|number| lab.report(number, 4).is_none())
    });
    lab.go(S(5));
    assert_eq!(lab.hear(4), NOBODY);
}

#[test]
fn lists_of_both_halves_of_a_cut_network_are_one_when_it_is_whole() {
    let mut lab = Lab::settled(108, 5);
    // 1 and 2 are on one side, 3 on the other; 4 and 5 are revoked, each on one side.
    for one in [1, 2] {
        lab.block(one, 3, true);
    }
    lab.world.cut_bootstrap(true);
    let [first, second] = [4, 5].map(|gone| lab.world.revocation_of(lab.hosts[gone - 1]).unwrap());
    lab.does(1, first);
    lab.does(3, second);
    lab.go(S(30));
    for one in [1, 2] {
        lab.block(one, 3, false);
    }
    lab.within(S(20), |lab| {
        (1..=3).all(|number| lab.report(number, 5).is_none())
    });
    assert_eq!(lab.hear(4), NOBODY);
    assert_eq!(lab.hear(5), NOBODY);
    lab.within(S(60), |lab| lab.meets(1, 3));
    assert_eq!(lab.hear(1), [2, 3]);
}

#[test]
fn a_list_that_the_authority_did_not_sign_cuts_nobody_off() {
    let mut lab = Lab::settled(109, 3);
    let thief = AuthorityKey::generate(&mut SeededEntropy::new(1));
    let list = RevocationList {
        root_version: 1,
        number: 1,
        entries: vec![Revoked::Node(lab.peer(1))],
    };
    let overlay = lab.status(1).overlay;
    let list = SignedRevocations::sign(&thief, overlay, list).encode();
    let page = Page::split(&list).next().unwrap();
    let [liar, other] = [lab.host(3), lab.host(2)];
    assert!(lab.world.lie(liar, other, &PeerMessage::ListPage(page)));
    lab.go(S(1));
    assert_eq!(lab.drops(2, DropReason::ControlMalformed), 1);
    assert!(lab.meets(2, 1));
    assert_eq!(lab.hear(2), [1, 3]);
}

/// A second key of the authority: what it signs counts where its document is known (TRUST.md 1).
#[test]
fn trust_1_a_list_under_a_new_key_counts_where_the_document_is_known() {
    let mut lab = Lab::settled(110, 4);
    let along = Along {
        epochs: &[0],
        new_key: Some(1),
    };
    let line = lab.world.revocation_with(lab.hosts[3], along).unwrap();
    lab.does(1, line.clone());
    lab.go(S(5));
    assert!(lab.report(1, 4).is_none() && lab.epoch(1) == 2);
    // Two cannot check it, and keeps what it has.
    assert!(lab.drops(2, DropReason::ControlMalformed) > 0);
    assert!(lab.meets(2, 4) && lab.meets(2, 1) && lab.epoch(2) == 1);
    lab.does(2, line);
    lab.within(S(1), |lab| lab.report(2, 4).is_none() && lab.epoch(2) == 2);
    // All that was made under the first key counts on.
    assert!(lab.meets(1, 2));
    lab.kill(2);
    lab.start(2);
    lab.within(S(6), |lab| lab.meets(2, 1));
    assert_eq!(lab.epoch(2), 2);
}

/// After the theft of its key the authority retires it: every certificate under it is void.
#[test]
fn trust_1_certificates_under_a_retired_key_end_and_new_invites_bring_the_nodes_back() {
    let mut lab = Lab::settled(111, 3);
    let along = Along {
        epochs: &[0],
        new_key: Some(2),
    };
    let line = lab.world.revocation_with(lab.hosts[2], along).unwrap();
    lab.does(1, line.clone());
    lab.does(2, line);
    lab.go(S(36));
    for number in [1, 2] {
        assert!(!lab.meets(1, 2) && !lab.meets(number, 3));
        assert_eq!(lab.hear(number), NOBODY);
    }
    for number in [1, 2] {
        leave(&mut lab, number);
        rejoin(&mut lab, number);
    }
    lab.within(S(6), |lab| lab.meets(1, 2) && lab.meets(2, 1));
    lab.go(S(1));
    assert_eq!(lab.hear(1), [2]);
    assert_eq!(lab.hear(3), NOBODY);
}
