//! How members that have never met come to know each other: cards, greetings, what is remembered.

use std::net::Ipv4Addr;

use super::*;
use crate::net::nat::NatBehaviour;

/// How the warning begins.
const CLOCK: &str = "this host's clock is";

/// An invite that names these bootstraps; the first of them is its witness.
fn by(bootstraps: &[usize]) -> Terms {
    Terms {
        witness: bootstraps[0],
        bootstraps: bootstraps.to_vec(),
        ..Terms::of(&[0])
    }
}

/// A world with two bootstraps that do not know each other, and a node for each of these sets of them.
fn of_two_bootstraps(seed: u64, named: &[&[usize]]) -> Lab {
    let config = Config {
        bootstraps: 2,
        ..Config::default()
    };
    let mut lab = Lab::empty(seed, config);
    for bootstraps in named {
        lab.add(&by(bootstraps));
    }
    lab
}

/// Gives a host another address on the internet, as a provider does over night.
fn move_to(lab: &mut Lab, number: usize, last: u8) {
    let host = lab.host(number);
    let old = lab.world.net().addresses(host).next().unwrap();
    let new = IpAddr::from([45, 1, last, 9]);
    let net = lab.world.net();
    net.add_address(host, Net::INTERNET, new).unwrap();
    net.remove_address(host, Net::INTERNET, old).unwrap();
}

#[test]
fn two_newcomers_meet_within_a_second() {
    let mut lab = Lab::of(20, 2);
    let took = lab.within(S(1), |lab| lab.meets(1, 2) && lab.meets(2, 1));
    assert!(lab.reaches(1, 2), "after {took:?}");
    assert_eq!(lab.why(1, 2), None);
}

#[test]
fn a_card_is_laid_down_at_each_bootstrap_that_the_invite_names() {
    // What one tells to those of the other is only what the first node has brought.
    let mut lab = of_two_bootstraps(21, &[&[0, 1], &[1], &[0]]);
    lab.within(S(7), |lab| lab.meets(1, 2) && lab.meets(1, 3));
    assert_eq!(lab.hear(1), [2, 3]);
    // One of them is enough for a newcomer, and for those that it has introduced none is needed.
    lab.world.cut_off_bootstrap(0, true);
    let newcomer = lab.add(&by(&[1, 0]));
    lab.within(S(3), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    assert_eq!(lab.hear(1), [2, 3, newcomer]);
}

#[test]
fn who_shares_no_bootstrap_with_a_member_reads_why_it_is_not_reached() {
    let mut lab = of_two_bootstraps(22, &[&[0, 1], &[1], &[0]]);
    lab.go(S(60));
    // Two and three hear of each other by the first one's roster, and nobody carries a greeting.
    assert_eq!(lab.members(2), [1, 2, 3]);
    assert_eq!(lab.why(2, 3).as_deref(), Some("peer-offline"));
    assert_eq!(lab.hear(2), [1]);
    // The frames for three do not make those for one wait.
    assert!(lab.reaches(2, 1));
}

#[test]
fn answers_of_a_bootstrap_that_get_lost_are_asked_for_again() {
    let mut lab = Lab::of(23, 1);
    lab.go(S(5));
    let newcomer = lab.add(&Terms::of(&[0]));
    // Admitted, and its card is on its way.
    lab.go(MS(30));
    lab.world.set_mood(0, Mood::Mute);
    lab.go(S(10));
    assert!(!lab.meets(newcomer, 1));
    lab.world.set_mood(0, Mood::Well);
    // The question counts as lost after 10 s, and is asked again a second later.
    let took = lab.within(S(2), |lab| lab.meets(newcomer, 1));
    assert!(lab.reaches(newcomer, 1), "after {took:?}");
}

#[test]
fn a_bootstrap_that_restarts_has_the_cards_again_before_a_newcomer_asks() {
    let mut lab = Lab::settled(24, 2);
    lab.world.restart_bootstrap(0);
    // They dial it within 5 s.
    lab.go(S(6));
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
    assert_eq!(lab.hear(newcomer), [1, 2]);
}

/// Where the NAT lets in only what was asked for, both have to speak at about the same time.
#[test]
fn a_greeting_opens_the_nat_of_whoever_is_greeted() {
    let mut lab = Lab::of(25, 1);
    let nat = [NatBehaviour::PORT_PRESERVING];
    let wan = Ipv4Addr::new(45, 3, 0, 1);
    let realm = lab.world.net().add_chain("home", &nat, wan, access());
    lab.go(S(5));
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let place = (realm.unwrap(), ip("192.168.1.2"));
    let host = lab.world.add_invited("home", place, access(), &invite);
    lab.hosts.push(host.unwrap());
    let guest = lab.world.add_guest(lab.host(2), "lab", mac(2)).unwrap();
    lab.guests.push(guest);
    lab.start(2);
    lab.within(S(2), |lab| lab.meets(1, 2));
    // The bootstrap carries no frame any more, and no greeting.
    lab.go(S(5));
    lab.world.cut_bootstrap(true);
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
}

#[test]
fn an_envelope_that_is_brought_again_is_dropped_as_replayed() {
    let mut lab = Lab::settled(26, 2);
    let before = [1, 2].map(|number| lab.drops(number, DropReason::Replayed));
    lab.world.replay_envelopes(0);
    lab.go(S(1));
    let after = [1, 2].map(|number| lab.drops(number, DropReason::Replayed));
    let more: u64 = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .sum();
    assert!(more > 0, "nobody has noticed");
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
}

#[test]
fn an_old_card_changes_nothing_for_who_is_met_and_leads_nobody_astray_for_long() {
    let mut lab = Lab::settled(27, 2);
    move_to(&mut lab, 2, 102);
    lab.go(S(60));
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
    // From now on the bootstrap shows the card with the address that two had at first.
    lab.world.show_first_cards(0);
    lab.go(S(300));
    let remote = lab.report(1, 2).unwrap().path.remote.unwrap();
    assert_eq!(remote.ip(), ip("45.1.102.9"));
    assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
    let newcomer = lab.add(&Terms::of(&[0]));
    lab.within(S(2), |lab| lab.meets(newcomer, 2));
}

#[test]
fn who_is_killed_while_it_is_introduced_is_met_after_its_restart() {
    for died in [10, 50, 70, 90, 110, 150, 400] {
        let mut lab = Lab::of(28, 1);
        lab.go(S(5));
        let newcomer = lab.add(&Terms::of(&[0]));
        lab.go(MS(died));
        lab.kill(newcomer);
        lab.go(S(3));
        lab.start(newcomer);
        let took = lab.within(S(2), |lab| lab.meets(newcomer, 1) && lab.meets(1, newcomer));
        assert!(lab.reaches(1, newcomer), "killed at {died} ms; {took:?}");
    }
}

#[test]
fn a_disk_that_is_full_or_slow_keeps_nobody_from_being_met() {
    for manner in [
        DiskManner {
            is_full: true,
            ..DiskManner::default()
        },
        DiskManner {
            delay: Some(S(20)),
            ..DiskManner::default()
        },
    ] {
        let mut lab = Lab::settled(29, 2);
        lab.world.set_disk(lab.hosts[0], manner);
        // Beyond the reserve of numbers that is on disk.
        lab.go(S(15 * MINUTE));
        let newcomer = lab.add(&Terms::of(&[0]));
        lab.within(S(1), |lab| lab.meets(newcomer, 1) && lab.meets(newcomer, 2));
        assert_eq!(lab.hear(1), [2, newcomer]);
        assert_eq!(lab.warns(1, "is not kept"), manner.is_full);
        assert!(!lab.warns(2, "is not kept"));
    }
}

#[test]
fn a_member_that_was_away_is_met_by_what_is_remembered_without_a_bootstrap() {
    for away in [30, HOUR] {
        let mut lab = Lab::settled(30, 2);
        lab.kill(2);
        lab.go(S(away));
        lab.world.cut_bootstrap(true);
        lab.start(2);
        let took = lab.within(S(6), |lab| lab.meets(2, 1) && lab.meets(1, 2));
        // The answer to the handshake may be on its way.
        lab.go(S(1));
        assert!(lab.reaches(1, 2), "after {away} s and {took:?}");
    }
}

#[test]
fn a_broadcast_does_not_wait_for_who_is_away_and_reaches_it_when_it_is_back() {
    let mut lab = Lab::settled(31, 3);
    lab.kill(3);
    lab.go(S(60));
    assert_eq!(lab.hear(1), [2]);
    let dropped = lab.drops(1, DropReason::PendingTimeout);
    assert_eq!(lab.hear(1), [2]);
    lab.go(S(5));
    assert_eq!(lab.drops(1, DropReason::PendingTimeout), dropped);
    lab.start(3);
    lab.within(S(2), |lab| lab.meets(1, 3));
    lab.go(S(1));
    assert_eq!(lab.hear(1), [2, 3]);
}

/// ADR 28: what two says in the run after counts although its numbers were of the future before.
#[test]
fn a_node_whose_clock_was_ahead_is_found_at_its_new_address_when_the_clock_is_right() {
    let mut lab = Lab::of(32, 1);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let two = lab.add_off(&invite);
    lab.world.set_clock(lab.host(two), 7_200);
    lab.start(two);
    lab.go(S(60));
    assert!(lab.reaches(1, two));
    lab.kill(two);
    lab.world.set_clock(lab.host(two), 0);
    move_to(&mut lab, two, 99);
    lab.start(two);
    lab.within(S(6), |lab| lab.meets(1, two) && lab.meets(two, 1));
    lab.speak(two);
    lab.go(S(1));
    assert!(lab.reaches(two, 1));
    assert!(lab.reaches(1, two));
    assert_eq!(lab.drops(1, DropReason::HandshakeReplayed), 0);
}

/// The same kill within 5 s of the last handshake: what was saved is below what peers have seen (ADR 43).
#[test]
fn a_kill_before_the_timestamp_is_saved_makes_no_handshake_look_old() {
    let mut lab = Lab::of(33, 1);
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let two = lab.add_off(&invite);
    lab.world.set_clock(lab.host(two), 7_200);
    lab.start(two);
    // Handshakes every two minutes; one was just made, and the timestamp of the one before is on the disk.
    lab.go(S(10));
    lab.world.restore(lab.host(two));
    lab.go(MS(500));
    lab.kill(two);
    lab.world.set_clock(lab.host(two), 0);
    lab.start(two);
    lab.within(S(6), |lab| lab.meets(1, two) && lab.meets(two, 1));
    assert_eq!(lab.drops(1, DropReason::HandshakeReplayed), 0);
    assert!(lab.reaches(1, two));
}

#[test]
fn nodes_whose_clocks_differ_by_minutes_meet_and_one_that_is_hours_off_is_told() {
    let mut lab = Lab::empty(34, Config::default());
    for ahead in [540, -540, 0] {
        let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
        let number = lab.add_off(&invite);
        lab.world.set_clock(lab.host(number), ahead);
        lab.start(number);
    }
    lab.within(S(2), |lab| {
        lab.meets(1, 2) && lab.meets(2, 3) && lab.meets(1, 3)
    });
    assert_eq!(lab.hear(1), [2, 3]);
    assert!(lab.warns(1, CLOCK) && lab.warns(2, CLOCK) && !lab.warns(3, CLOCK));
    // It jumps, by an administrator's hand: the sessions end, and are there again.
    lab.world.set_clock(lab.host(3), 300);
    lab.within(S(2), |lab| lab.meets(1, 3) && lab.meets(3, 2));
    assert_eq!(lab.hear(3), [1, 2]);
}
