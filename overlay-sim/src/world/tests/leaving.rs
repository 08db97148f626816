//! A node leaves the overlay for good, and joins again.

use node_core::api::AttachRequest;
use overlay_proto::directory::{DirectoryMessage, Presence, RosterEntry, Signed};
use overlay_proto::handshake::static_public;
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use super::*;

/// Until the command is answered: the host is changed, the last word has its time, the disk forgets.
const LEFT: Duration = Duration::from_millis(1_800);

/// Leaves; what the user reads.
pub(super) fn leave(lab: &mut Lab, number: usize) -> String {
    let host = lab.host(number);
    assert_eq!(lab.world.ask(host, Request::Leave), None);
    lab.go(LEFT);
    let mut replies = lab.world.take_replies(host);
    match replies.pop() {
        Some((_, Response::Done(line) | Response::Error(line))) => line,
        other => panic!("{other:?}"),
    }
}

/// Joins by a new invite, starts, and attaches.
pub(super) fn rejoin(lab: &mut Lab, number: usize) {
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let host = lab.host(number);
    lab.world.join(host, &invite).unwrap();
    lab.start(number);
    let attach = AttachRequest::new("lab".parse().unwrap());
    lab.does(number, Request::Attach(attach));
}

#[test]
fn who_leaves_is_forgotten_by_all_at_once() {
    let mut lab = Lab::settled(120, 4);
    let host = lab.host(4);
    assert_eq!(lab.world.ask(host, Request::Leave), None);
    lab.go(MS(300));
    for number in [1, 2, 3] {
        assert!(!lab.knows(number).contains(&4));
        assert_eq!(lab.holder(number, 4), None);
    }
    lab.go(LEFT - MS(300));
    let replies = lab.world.take_replies(host);
    let [(_, Response::Done(line))] = &*replies else {
        panic!("{replies:?}");
    };
    assert!(line.contains("the others know"), "{line}");
    assert!(!lab.world.is_running(host));
    assert!(lab.world.start(host).is_err(), "nothing is left of it");
    // What is for its guest is for nobody.
    assert!(!lab.reaches(1, 4));
    lab.go(S(4));
    let unknown = lab.status(1).unknown;
    assert!(unknown.iter().any(|one| one.mac == mac(4)), "{unknown:?}");
    assert_eq!(lab.hear(1), [2, 3]);
}

#[test]
fn the_last_word_gets_through_where_datagrams_are_lost_and_swapped() {
    let mut lab = Lab::settled(121, 4);
    for number in 1..=4 {
        lab.set_access(number, bad_access());
    }
    leave(&mut lab, 4);
    lab.within(S(1), |lab| {
        (1..=3).all(|number| lab.report(number, 4).is_none())
    });
}

#[test]
fn who_was_off_hears_of_it_from_the_others() {
    let mut lab = Lab::settled(122, 4);
    lab.kill(2);
    lab.go(S(5));
    leave(&mut lab, 4);
    lab.go(S(30));
    lab.world.cut_bootstrap(true);
    lab.start(2);
    lab.within(S(7), |lab| lab.meets(2, 1) && lab.report(2, 4).is_none());
    lab.go(S(20));
    assert_eq!(lab.knows(2), [1, 3]);
}

#[test]
fn where_nobody_is_left_to_say_so_a_leaver_is_one_that_is_offline() {
    let mut lab = Lab::settled(123, 2);
    lab.kill(2);
    lab.go(S(5));
    leave(&mut lab, 1);
    lab.start(2);
    lab.go(S(60));
    assert_eq!(lab.why(2, 1).as_deref(), Some("peer-offline"));
}

/// The bootstrap knows nothing of leaving: the card lies there until it lapses.
#[test]
fn the_card_that_a_leaver_leaves_behind_leads_a_newcomer_astray_for_seconds() {
    let mut lab = Lab::settled(124, 3);
    leave(&mut lab, 3);
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    assert_eq!(lab.hear(newcomer), [1, 2]);
    lab.within(S(5), |lab| lab.report(newcomer, 3).is_none());
    lab.go(S(30));
    assert!(lab.report(1, 3).is_none() && lab.report(newcomer, 3).is_none());
}

#[test]
fn a_slow_disk_makes_the_user_wait_and_a_full_one_is_told() {
    let mut lab = Lab::settled(125, 3);
    let slow = DiskManner {
        delay: Some(S(4)),
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[1], slow);
    let host = lab.host(2);
    assert_eq!(lab.world.ask(host, Request::Leave), None);
    lab.go(LEFT);
    assert!(lab.world.is_running(host), "not forgotten yet");
    // Everything else is refused meanwhile.
    let said = lab.fails(2, Request::Status);
    assert!(said.contains("is leaving the overlay"), "{said}");
    lab.go(S(9));
    assert!(!lab.world.is_running(host));
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[2], full);
    let said = leave(&mut lab, 3);
    assert!(
        said.contains("no space left") && said.contains("run `farlan leave` again"),
        "{said}"
    );
    assert_eq!(lab.knows(1), NOBODY);
}

/// The disk still says that it is a member, and so it is; the others have heard that it left.
#[test]
fn who_is_killed_while_it_leaves_is_a_member_again() {
    for died in [210, 300, 1_000, 1_650] {
        let mut lab = Lab::settled(126, 3);
        let host = lab.host(3);
        assert_eq!(lab.world.ask(host, Request::Leave), None);
        lab.go(MS(died));
        assert_eq!(lab.knows(1).contains(&3), died < 220);
        lab.kill(3);
        lab.go(S(10));
        lab.start(3);
        lab.within(S(7), |lab| lab.meets(3, 1) && lab.meets(3, 2));
        lab.go(S(15));
        for number in 1..=3 {
            assert_eq!(lab.knows(number).len(), 2, "killed at {died} ms");
        }
        // All was detached on the host; an attach brings its guest back.
        let attach = AttachRequest::new("lab".parse().unwrap());
        lab.does(3, Request::Attach(attach));
        assert_eq!(lab.hear(3), [1, 2]);
        assert_eq!(lab.hear(1), [2, 3]);
    }
}

#[test]
fn who_joins_again_is_one_of_them_within_seconds() {
    let mut lab = Lab::settled(127, 3);
    leave(&mut lab, 3);
    lab.go(S(60));
    rejoin(&mut lab, 3);
    lab.within(S(2), |lab| lab.meets(3, 1) && lab.meets(3, 2));
    assert_eq!(lab.hear(3), [1, 2]);
    assert_eq!(lab.hear(1), [2, 3]);
    assert_eq!(lab.knows(1), [2, 3]);
}

/// Its word "left" is of the future, and nothing on its disk remembers it.
#[test]
fn who_left_with_a_clock_that_was_ahead_joins_again_all_the_same() {
    let mut lab = Lab::settled(128, 3);
    lab.world.set_clock(lab.hosts[2], 7_200);
    lab.go(S(10));
    leave(&mut lab, 3);
    lab.world.set_clock(lab.hosts[2], 0);
    lab.go(S(60));
    rejoin(&mut lab, 3);
    lab.go(S(20));
    lab.within(S(20), |lab| lab.meets(3, 1) && lab.meets(3, 2));
    assert_eq!(lab.hear(3), [1, 2]);
    assert_eq!(lab.hear(1), [2, 3]);
    lab.go(S(60));
    assert_eq!(lab.knows(1), [2, 3]);
}

#[test]
fn an_old_word_that_somebody_says_again_brings_no_leaver_back() {
    let mut lab = Lab::settled(129, 4);
    let host = &lab.world.hosts[&lab.host(4)];
    let membership = host.disk.membership.as_ref().unwrap();
    let network = membership.networks()[0].id;
    // What it said when it was new.
    let entry = RosterEntry {
        network,
        node: host.peer(),
        incarnation: Config::default().wall.0,
        certificate: membership.chains()[0].hash(),
        static_key: static_public(&host.disk.static_key.0),
        addresses: Vec::new(),
        presence: Presence::Joined,
    };
    let joined = Signed::seal(&entry, &host.key, &membership.overlay()).unwrap();
    let tag = NetworkTag::from(&network);
    leave(&mut lab, 4);
    lab.go(S(5));
    let body = DirectoryMessage::Roster(vec![joined]).encode().unwrap();
    let message = PeerMessage::Directory {
        network: tag,
        body: &body,
    };
    let [liar, other] = [lab.host(3), lab.host(1)];
    assert!(lab.world.lie(liar, other, &message));
    lab.go(S(30));
    for number in [1, 2, 3] {
        assert!(lab.report(number, 4).is_none());
    }
}

#[test]
fn a_leave_waits_for_the_attachment_that_is_being_changed() {
    let config = Config {
        change_delay: S(3),
        ..Config::default()
    };
    let mut lab = Lab::with(130, 2, config);
    lab.settle();
    let host = lab.host(2);
    let detach = || Request::Detach(AttachRequest::new("lab".parse().unwrap()));
    assert_eq!(lab.world.ask(host, detach()), None);
    assert_eq!(lab.world.ask(host, Request::Leave), None);
    lab.go(S(2));
    assert_eq!(lab.knows(1), [2]);
    lab.go(S(4) + MS(200));
    assert_eq!(lab.knows(1), NOBODY);
    lab.go(S(2));
    let replies = lab.world.take_replies(host);
    let done = |(_, response): &(_, Response)| matches!(response, Response::Done(_));
    assert!(
        replies.len() == 2 && replies.iter().all(done),
        "{replies:?}"
    );
}

#[test]
fn who_leaves_two_networks_leaves_those_who_are_in_one_of_them() {
    let config = Config {
        networks: vec!["lab", "home"],
        ..Config::default()
    };
    let mut lab = Lab::with(131, 1, config);
    lab.add(&Terms::of(&[0, 1]));
    lab.add(&Terms::of(&[0, 1]));
    lab.settle();
    leave(&mut lab, 3);
    assert!(lab.report(1, 3).is_none() && lab.report(2, 3).is_none());
    assert!(lab.meets(1, 2));
    assert_eq!(lab.hear(1), [2]);
}
