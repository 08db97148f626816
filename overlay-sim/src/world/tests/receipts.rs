//! Nobody is a member without the receipt of the witness that its invite names (TRUST.md 4).

use node_core::api::{AttachRequest, BootstrapState};

use overlay_proto::membership::CLOCK_TOLERANCE;
use overlay_proto::time::UnixTime;

use super::*;

const WAITS: &str = "this node is no member yet: the witness of its invite";

/// A world with two bootstraps; the first is everybody's witness.
fn two_bootstraps(seed: u64) -> Lab {
    let config = Config {
        bootstraps: 2,
        ..Config::default()
    };
    Lab::empty(seed, config)
}

/// When each host's node joined, as `number` knows of `of`.
fn joined(lab: &mut Lab, number: usize, of: usize) -> Option<UnixTime> {
    let Response::Members(members) = lab.ask(number, Request::Members { network: None }) else {
        panic!("no members");
    };
    let peer = lab.peer(of);
    members.iter().find(|one| one.node == peer)?.joined
}

#[test]
fn trust_4_the_first_receipt_comes_with_the_admission() {
    let mut lab = Lab::of(60, 2);
    lab.within(S(1), |lab| lab.meets(1, 2));
    for number in [1, 2] {
        assert!(joined(&mut lab, 1, number).is_some());
        let status = lab.status(number);
        assert_eq!((status.refused, status.warnings), (None, Vec::new()));
    }
}

#[test]
fn who_waits_for_the_witness_reads_so_and_is_a_member_when_the_witness_is_up() {
    let mut lab = two_bootstraps(61);
    let old = lab.add(&Terms::of(&[0]));
    lab.go(S(10));
    lab.world.cut_off_bootstrap(0, true);
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.go(S(60));
    assert!(lab.warns(newcomer, WAITS));
    assert!(!lab.meets(old, newcomer));
    assert_eq!(lab.members(old), [old]);
    assert_eq!(lab.hear(newcomer), NOBODY);
    lab.world.cut_off_bootstrap(0, false);
    // It dials every five seconds.
    lab.within(S(6), |lab| lab.meets(old, newcomer));
    lab.go(S(1));
    assert!(!lab.warns(newcomer, WAITS));
    assert_eq!(lab.hear(newcomer), [old]);
    // From then on it knows both.
    lab.world.cut_off_bootstrap(0, true);
    lab.go(S(10));
    let states = lab.status(newcomer).bootstraps;
    let up = states.iter().filter(|one| one.state == BootstrapState::Up);
    assert_eq!((states.len(), up.count()), (2, 1));
}

#[test]
fn a_witness_that_cannot_write_its_books_refuses_and_says_why_until_it_can() {
    let mut lab = Lab::of(62, 1);
    lab.go(S(5));
    lab.world.set_mood(0, Mood::FullDisk);
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.go(S(20));
    assert!(lab.warns(newcomer, "the witness cannot keep its books"));
    assert!(!lab.meets(1, newcomer));
    lab.world.set_mood(0, Mood::Well);
    lab.within(S(6), |lab| lab.meets(1, newcomer));
    assert_eq!(lab.status(newcomer).refused, None);
}

#[test]
fn an_invite_whose_receipt_got_lost_is_not_used_up() {
    let mut lab = Lab::of(63, 1);
    lab.go(S(5));
    lab.world.set_mood(0, Mood::Mute);
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.go(S(8));
    // The use is counted; nobody told the node.
    assert!(lab.warns(newcomer, WAITS) && !lab.meets(1, newcomer));
    lab.world.set_mood(0, Mood::Well);
    lab.within(S(6), |lab| lab.meets(1, newcomer));
    let since = joined(&mut lab, 1, newcomer).unwrap();
    assert_eq!(
        since,
        UnixTime(Config::default().wall.0 + 5),
        "of the first time"
    );
}

#[test]
fn trust_4_an_invite_for_one_lets_in_one() {
    let mut lab = Lab::of(64, 1);
    lab.go(S(5));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let [first, second] = [(); 2].map(|()| {
        let number = lab.add_by(&invite);
        lab.go(S(1));
        number
    });
    lab.go(S(60));
    assert!(lab.meets(1, first) && !lab.meets(1, second));
    assert!(lab.warns(second, "has been used by as many"));
    assert_eq!(lab.members(1), [1, first]);
    assert_eq!(lab.hear(second), NOBODY);
    assert_eq!(lab.hear(1), [first]);
    // The one that came first has its receipt also after its disk was lost with it.
    assert_eq!(lab.status(first).refused, None);
}

/// An invite that can be used for the first minute of the world, with the ten minutes of grace.
fn used_within_a_minute() -> Terms {
    let made_ago = S(20 * MINUTE);
    Terms {
        made_ago,
        join_for: made_ago + S(MINUTE) - CLOCK_TOLERANCE,
        ..Terms::of(&[0])
    }
}

#[test]
fn trust_4_an_invite_counts_until_ten_minutes_after_its_end() {
    for (seed, wait, is_in) in [(65, 55, true), (66, 65, false)] {
        let mut lab = Lab::of(seed, 1);
        let invite = lab.world.invite(&used_within_a_minute()).unwrap();
        let newcomer = lab.add_off(&invite);
        lab.go(S(wait));
        lab.start(newcomer);
        lab.go(S(10));
        assert_eq!(lab.meets(1, newcomer), is_in);
        assert_eq!(
            lab.warns(newcomer, "the invite could be used until"),
            !is_in
        );
    }
}

/// The clock of the witness counts, not that of whoever joins.
#[test]
fn a_clock_that_is_behind_makes_no_invite_last_longer() {
    let mut lab = Lab::of(67, 1);
    let invite = lab.world.invite(&used_within_a_minute()).unwrap();
    let newcomer = lab.add_off(&invite);
    lab.go(S(65));
    lab.world.set_clock(lab.host(newcomer), -3_600);
    lab.start(newcomer);
    lab.go(S(10));
    assert!(!lab.meets(1, newcomer));
    assert!(lab.warns(newcomer, "the invite could be used until"));
}

#[test]
fn a_receipt_that_was_not_on_disk_at_a_kill_is_given_again() {
    let mut lab = Lab::of(68, 1);
    lab.go(S(5));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let newcomer = lab.add_off(&invite);
    let host = lab.host(newcomer);
    let slow = DiskManner {
        delay: Some(S(30)),
        ..DiskManner::default()
    };
    lab.world.set_disk(host, slow);
    lab.start(newcomer);
    lab.go(S(10));
    // It counts when it is written; the gate shows it at once.
    assert!(!lab.meets(1, newcomer));
    lab.kill(newcomer);
    lab.world.set_disk(host, DiskManner::default());
    lab.start(newcomer);
    lab.within(S(1), |lab| lab.meets(1, newcomer));
    assert_eq!(lab.hear(newcomer), [1]);
}

#[test]
fn a_receipt_that_the_disk_refuses_counts_until_the_restart() {
    let mut lab = Lab::of(69, 1);
    lab.go(S(5));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let newcomer = lab.add_off(&invite);
    let host = lab.host(newcomer);
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    lab.world.set_disk(host, full);
    lab.start(newcomer);
    lab.within(S(1), |lab| lab.meets(1, newcomer));
    assert!(lab.warns(newcomer, "is not kept"));
    lab.kill(newcomer);
    lab.world.cut_bootstrap(true);
    lab.start(newcomer);
    lab.go(S(20));
    // Nobody takes a certificate without it, and the witness cannot be asked.
    assert!(!lab.meets(1, newcomer) && lab.warns(newcomer, WAITS));
    lab.world.cut_bootstrap(false);
    lab.within(S(6), |lab| lab.meets(1, newcomer));
}

/// Two hosts in `lab`, and a third in `lab` and `home`; the first joins `home`, too.
fn joining_home(seed: u64) -> (Lab, String) {
    let config = Config {
        networks: vec!["lab", "home"],
        bootstraps: 2,
        ..Config::default()
    };
    let mut lab = Lab::empty(seed, config);
    lab.add(&Terms::of(&[0]));
    lab.add(&Terms::of(&[0, 1]));
    lab.settle();
    let terms = Terms {
        witness: 1,
        ..Terms::of(&[1])
    };
    let invite = lab.world.invite(&terms).unwrap();
    (lab, invite)
}

/// Guests of the network `home`, one at each of the first two hosts; does the first one's frame get there?
fn home_carries(lab: &mut Lab) -> bool {
    let mut attach = |number: usize| {
        let home = AttachRequest::new("home".parse().unwrap());
        let _ = lab.ask(number, Request::Attach(home));
        let last = 100 + u8::try_from(number).unwrap();
        let host = lab.host(number);
        lab.world.add_guest(host, "home", mac(last)).unwrap()
    };
    let [one, two] = [1, 2].map(&mut attach);
    lab.world.send(one, &arp(101, 102));
    lab.go(S(1));
    has(&lab.world, two, &arp(101, 102))
}

#[test]
fn a_second_invite_brings_its_receipt_while_the_node_runs() {
    let (mut lab, invite) = joining_home(70);
    let host = lab.host(1);
    lab.world.join(host, &invite).unwrap();
    lab.within(S(1), |lab| lab.status(1).networks.len() == 2);
    lab.go(S(2));
    assert!(home_carries(&mut lab));
    // The first network went on.
    assert_eq!(lab.hear(1), [2]);
}

#[test]
fn a_witness_that_does_not_answer_is_asked_again_after_a_minute() {
    let (mut lab, invite) = joining_home(71);
    lab.world.set_mood(1, Mood::Mute);
    let host = lab.host(1);
    lab.world.join(host, &invite).unwrap();
    lab.go(S(20));
    lab.world.set_mood(1, Mood::Well);
    let has_all = |lab: &mut Lab| {
        let membership = lab.world.hosts[&host].disk.membership.as_ref();
        membership.unwrap().without_receipt().count() == 0
    };
    assert!(!has_all(&mut lab));
    // Lost after 10 s; a minute later, with the next look at what is due.
    lab.within(S(60), has_all);
    lab.go(S(2));
    assert!(home_carries(&mut lab));
}

#[test]
fn a_network_without_its_receipt_carries_nothing_and_the_others_go_on() {
    let (mut lab, invite) = joining_home(72);
    lab.world.cut_off_bootstrap(1, true);
    lab.go(S(6));
    let host = lab.host(1);
    lab.world.join(host, &invite).unwrap();
    lab.go(S(30));
    assert!(!home_carries(&mut lab));
    assert!(lab.warns(1, WAITS));
    assert_eq!(lab.hear(1), [2]);
    lab.world.cut_off_bootstrap(1, false);
    lab.go(S(8));
    assert!(!lab.warns(1, WAITS));
    lab.world.send(GuestId(2), &arp(101, 103));
    lab.go(S(1));
    assert!(has(&lab.world, GuestId(3), &arp(101, 103)));
}

#[test]
fn an_invite_that_was_revoked_before_its_use_lets_nobody_in() {
    let mut lab = Lab::of(73, 1);
    lab.go(S(5));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let newcomer = lab.add_off(&invite);
    let host = lab.host(newcomer);
    let line = lab.world.revocation_of_invite(host, Along::default());
    lab.does(1, line.unwrap());
    lab.start(newcomer);
    lab.go(S(20));
    assert!(!lab.meets(1, newcomer));
    assert!(
        lab.warns(
            newcomer,
            "the authority has revoked this node or its invite"
        ),
        "{:?}",
        lab.status(newcomer)
    );
    assert_eq!(lab.members(1), [1]);
}
