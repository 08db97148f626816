//! A network's keys change (TRUST.md 8, ADR 13).

use overlay_proto::ids::NetworkId;
use overlay_proto::membership::{EPOCH_OVERLAP, SignedEpoch};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use super::*;

/// The epoch of `lab` as a host keeps it, signed.
fn signed_epoch(lab: &Lab, number: usize) -> (NetworkId, SignedEpoch) {
    let membership = lab.world.hosts[&lab.host(number)].disk.membership.as_ref();
    let membership = membership.unwrap();
    let id = membership.networks()[0].id;
    (id, membership.signed_epoch(&id).unwrap().clone())
}

/// The epochs that the hosts say they are in.
fn epochs(lab: &mut Lab) -> Vec<u64> {
    let all = 1..=lab.hosts.len();
    all.map(|number| lab.epoch(number)).collect()
}

#[test]
fn trust_8_a_new_epoch_reaches_all_members_but_the_revoked_and_no_frame_waits_for_it() {
    let mut lab = Lab::settled(40, 5);
    let line = lab.revocation(5);
    let said = lab.does(1, line);
    assert!(said.contains("new keys for: lab"), "{said}");
    let took = lab.within(MS(200), |lab| epochs(lab)[..4] == [2; 4]);
    assert_eq!(lab.epoch(5), 1, "after {took:?}");
    // Sessions are not touched: what is sent meanwhile gets there at once.
    for _ in 0..10 {
        assert_eq!(lab.hear(1), [2, 3, 4]);
    }
    assert_eq!(lab.epoch(5), 1);
    assert_eq!(lab.drops(2, DropReason::CertificateRefused), 0);
}

#[test]
fn an_epoch_gets_through_where_datagrams_are_lost_and_swapped() {
    let mut lab = Lab::settled(41, 4);
    for number in 1..=4 {
        lab.set_access(number, bad_access());
    }
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.within(S(5), |lab| epochs(lab)[..3] == [2; 3]);
    assert_eq!(lab.epoch(4), 1);
}

/// One has the line, three hears of it by two alone.
#[test]
fn an_epoch_goes_from_member_to_member() {
    let mut lab = Lab::settled(55, 4);
    lab.block(1, 3, true);
    lab.go(S(30));
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.within(MS(300), |lab| epochs(lab)[..3] == [2; 3]);
}

/// The channel gives the message up, and the session outlives that: nobody would say it again by itself.
#[test]
fn an_epoch_whose_message_got_lost_is_handed_on_again() {
    for cut in [10, 25, 40, 60] {
        let mut lab = Lab::settled(56, 3);
        let line = lab.revocation(3);
        lab.block(1, 2, true);
        lab.does(1, line);
        lab.go(S(cut));
        lab.block(1, 2, false);
        let took = lab.within(S(12), |lab| epochs(lab)[..2] == [2; 2]);
        lab.within(S(12), |lab| lab.meets(1, 2));
        assert_eq!(lab.hear(1), [2], "cut for {cut} s; {took:?}");
    }
}

#[test]
fn who_was_off_during_the_change_gets_the_epoch_from_whom_it_remembers() {
    for (seed, off) in [(42, 30), (44, 40 * DAY)] {
        let mut lab = Lab::settled(seed, 4);
        lab.kill(3);
        let line = lab.revocation(4);
        lab.does(1, line);
        // Virtual days of idle nodes cost real seconds: they sleep, too, in the last of these.
        if off > DAY {
            lab.go(S(60));
            for number in [1, 2, 4] {
                lab.kill(number);
            }
        }
        lab.go(S(off));
        if off > DAY {
            for number in [1, 2, 4] {
                lab.start(number);
            }
        }
        lab.start(3);
        let took = lab.within(S(7), |lab| epochs(lab)[..3] == [2; 3]);
        lab.go(S(1));
        assert_eq!(lab.hear(3), [1, 2], "off for {off} s; {took:?}");
        assert!(!lab.meets(3, 4));
    }
}

/// Its key came by an invite, so it has no document to hand on at first (ADR 13).
#[test]
fn who_joined_again_in_the_new_epoch_hands_it_on_too() {
    let mut lab = Lab::settled(57, 4);
    lab.kill(2);
    lab.kill(4);
    let line = lab.revocation(3);
    lab.does(1, line);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    lab.world.join(lab.hosts[1], &invite).unwrap();
    lab.start(2);
    lab.within(S(7), |lab| lab.meets(2, 1));
    lab.go(S(2));
    lab.kill(1);
    lab.start(4);
    lab.within(S(7), |lab| lab.meets(4, 2) && lab.epoch(4) == 2);
    assert_eq!(lab.hear(4), [2]);
}

/// A newcomer's invite was made before the change: it looks for the others where they were.
#[test]
fn cards_are_laid_down_under_the_old_key_for_as_long_as_some_may_look_there() {
    let mut lab = Lab::settled(45, 3);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let line = lab.revocation(3);
    lab.does(1, line);
    // Those of before the change are gone.
    lab.world.restart_bootstrap(0);
    lab.go(S(20));
    let newcomer = lab.add_by(&invite);
    lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    lab.within(S(1), |lab| lab.epoch(newcomer) == 2);
    assert_eq!(lab.hear(newcomer), [1, 2]);
}

#[test]
fn trust_8_ten_minutes_after_the_change_nobody_is_met_under_the_old_key() {
    let mut lab = Lab::settled(58, 3);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let line = lab.revocation(3);
    lab.does(1, line);
    lab.go(EPOCH_OVERLAP + S(5));
    // The cards of before would lie there for ten minutes more.
    lab.world.restart_bootstrap(0);
    lab.go(S(6));
    let late = lab.add_by(&invite);
    lab.go(S(20));
    assert_eq!((lab.knows(late), lab.epoch(late)), (vec![], 1));
    // With an invite of now it is one of them.
    let newer = lab.world.invite(&Terms::of(&[0])).unwrap();
    lab.world.join(lab.host(late), &newer).unwrap();
    lab.within(S(3), |lab| lab.epoch(late) == 2 && lab.meets(late, 1));
    lab.go(S(1));
    assert_eq!(lab.hear(late), [1, 2]);
}

#[test]
fn an_epoch_that_was_not_on_disk_at_a_kill_is_asked_for_again() {
    let mut lab = Lab::settled(46, 4);
    let slow = DiskManner {
        delay: Some(S(3)),
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[1], slow);
    lab.go(S(30));
    let line = lab.revocation(4);
    lab.does(1, line);
    // It counts when it is on disk, which takes three seconds for each write that was in front of it.
    lab.go(S(1));
    assert_eq!(epochs(&mut lab)[..3], [2, 1, 2]);
    assert_eq!(lab.hear(2), [1, 3]);
    lab.kill(2);
    lab.world.set_disk(lab.hosts[1], DiskManner::default());
    lab.start(2);
    lab.within(S(7), |lab| lab.epoch(2) == 2);
    assert!(!lab.meets(2, 4));
}

#[test]
fn an_epoch_that_the_disk_refuses_counts_until_the_restart_and_comes_again_after_it() {
    let mut lab = Lab::settled(47, 4);
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[1], full);
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.within(S(1), |lab| epochs(lab)[..3] == [2; 3]);
    assert!(lab.warns(2, "is not kept"));
    lab.kill(2);
    lab.world.set_disk(lab.hosts[1], DiskManner::default());
    lab.start(2);
    assert_eq!(lab.epoch(2), 1);
    lab.within(S(7), |lab| lab.epoch(2) == 2);
    assert_eq!(lab.hear(2), [1, 3]);
}

#[test]
fn who_applies_a_line_and_has_a_full_disk_reads_so_and_nothing_of_the_epoch_counts() {
    let mut lab = Lab::settled(48, 3);
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[0], full);
    let line = lab.revocation(3);
    let said = lab.fails(1, line.clone());
    assert!(said.contains("no space left"), "{said}");
    lab.go(S(5));
    assert_eq!(epochs(&mut lab), [1, 1, 1]);
    // The list counts all the same: it only takes away.
    assert!(!lab.meets(1, 3) && !lab.meets(2, 3));
    lab.world.set_disk(lab.hosts[0], DiskManner::default());
    lab.does(1, line);
    lab.within(S(1), |lab| epochs(lab)[..2] == [2; 2]);
}

/// One that was kept from the list has a session with the revoked node, and is a member: it may have the key, and must
/// not hand it on.
#[test]
fn an_epoch_is_not_handed_on_by_a_member_that_lacks_the_list() {
    let mut lab = Lab::settled(49, 4);
    for host in [1, 3] {
        lab.world.make_deaf(lab.hosts[host]);
    }
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.within(S(1), |lab| epochs(lab)[..3] == [2; 3]);
    lab.go(S(60));
    assert!(
        lab.meets(2, 4),
        "who does not know of it goes on with the revoked one"
    );
    assert_eq!(lab.epoch(4), 1);
}

#[test]
fn an_epoch_of_a_member_that_was_offered_none_waits_for_its_certificate() {
    // Two hosts know each other only since the change, by cards under the new key.
    let mut lab = Lab::settled(50, 3);
    let line = lab.revocation(3);
    lab.does(1, line);
    lab.go(S(1));
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    assert_eq!(lab.epoch(newcomer), 2);
    assert_eq!(lab.hear(newcomer), [1, 2]);
}

#[test]
fn a_forged_epoch_and_an_old_one_change_nothing() {
    let mut lab = Lab::settled(51, 5);
    let line = lab.revocation(5);
    lab.does(1, line);
    lab.go(S(1));
    let (id, second) = signed_epoch(&lab, 1);
    let network = NetworkTag::from(&id);
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.go(S(1));
    assert_eq!(epochs(&mut lab)[..3], [3, 3, 3]);
    // A member shows the epoch of before once more.
    let old = second.encode();
    let [host, other] = [lab.host(2), lab.host(3)];
    let signed = &*old;
    assert!(
        lab.world
            .lie(host, other, &PeerMessage::Epoch { network, signed })
    );
    lab.go(S(1));
    assert_eq!(lab.epoch(3), 3);
    assert_eq!(lab.drops(3, DropReason::CertificateRefused), 0);
    // And one whose number is above, under a signature that is none.
    let (_, third) = signed_epoch(&lab, 1);
    let mut forged = third.encode();
    let number = forged.len() - 64 - 5 - 1 - 32 - 1;
    assert_eq!(forged[number], 3, "the number of the epoch");
    forged[number] = 9;
    let signed = &*forged;
    assert!(
        lab.world
            .lie(host, other, &PeerMessage::Epoch { network, signed })
    );
    lab.go(S(1));
    assert_eq!(lab.epoch(3), 3);
    assert_eq!(lab.drops(3, DropReason::CertificateRefused), 1);
    assert_eq!(lab.hear(3), [1, 2]);
}

#[test]
fn a_member_says_where_it_is_and_gets_what_it_lacks_only_once() {
    let mut lab = Lab::settled(52, 3);
    let line = lab.revocation(3);
    lab.does(1, line);
    lab.go(S(1));
    let (id, _) = signed_epoch(&lab, 1);
    let network = NetworkTag::from(&id);
    let [host, other] = [lab.host(2), lab.host(1)];
    // Two says that it is in the first epoch, as after a restart from a backup: it is told anew.
    let behind = PeerMessage::EpochNumber { network, epoch: 1 };
    assert!(lab.world.lie(host, other, &behind));
    lab.go(S(20));
    assert_eq!(epochs(&mut lab)[..2], [2, 2]);
    assert_eq!(lab.hear(1), [2]);
}

/// The overlap is counted by each node's own clock (ADR 13).
#[test]
fn a_clock_that_jumps_ends_the_overlap_here_and_costs_no_frame_for_long() {
    let mut lab = Lab::settled(53, 4);
    let line = lab.revocation(4);
    lab.does(1, line);
    lab.go(S(1));
    for ahead in [3_600, 0] {
        lab.world.set_clock(lab.hosts[1], ahead);
        lab.within(S(2), |lab| {
            lab.meets(2, 1) && lab.meets(2, 3) && lab.meets(1, 2)
        });
        assert_eq!(lab.hear(2), [1, 3]);
        assert_eq!(epochs(&mut lab)[..3], [2; 3]);
    }
}

#[test]
fn two_changes_one_after_the_other_leave_all_in_the_last() {
    let mut lab = Lab::settled(54, 5);
    lab.cut(3, true);
    let [first, second] = [5, 4].map(|gone| lab.revocation(gone));
    // The newer comes first to some.
    lab.does(1, second);
    lab.does(2, first);
    lab.go(S(20));
    lab.cut(3, false);
    lab.within(S(15), |lab| epochs(lab)[..3] == [3; 3]);
    lab.go(S(5));
    assert_eq!(lab.hear(1), [2, 3]);
}
