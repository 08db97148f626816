//! What ends: certificates, the signature over a node's x25519 key, claims (TRUST.md 8, 10).

use overlay_proto::directory::CLAIM_TTL;
use overlay_proto::membership::CLOCK_TOLERANCE;

use super::*;

/// A membership that counts until `END`, with the ten minutes of grace: it was made before the world began.
fn that_ends() -> Terms {
    let made_ago = S(20 * MINUTE);
    let counts_for = made_ago + END - CLOCK_TOLERANCE;
    Terms {
        made_ago,
        join_for: counts_for,
        member_for: counts_for,
        ..Terms::of(&[0])
    }
}

/// When the membership of the third host counts no more.
const END: Duration = Duration::from_secs(60);

/// How late it is noticed at the latest that a certificate has ended: it is looked at every 30 s, with the housekeeping
/// of every 5 s.
const NOTICED: Duration = Duration::from_secs(36);

/// Two hosts whose memberships last, and a third whose membership ends. They have met.
fn one_of_three_ends(seed: u64) -> Lab {
    let mut lab = Lab::of(seed, 2);
    lab.add(&that_ends());
    lab.settle();
    lab
}

/// A host joins again, for a year, and the line of the node that says so.
fn renew(lab: &mut Lab, number: usize) {
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    let host = lab.host(number);
    lab.world.join(host, &invite).unwrap();
}

/// Goes on until the clock of the world says so many seconds since its start.
fn until(lab: &mut Lab, second: Duration) {
    lab.world.run_until(second).unwrap();
}

#[test]
fn trust_8_whose_certificate_has_ended_is_cut_off_within_half_a_minute() {
    let mut lab = one_of_three_ends(80);
    until(&mut lab, END - S(2));
    // Ten minutes of grace, for clocks.
    assert_eq!(lab.hear(3), [1, 2]);
    until(&mut lab, END + NOTICED);
    for number in [1, 2] {
        assert!(!lab.meets(number, 3));
        assert_eq!(lab.holder(number, 3), None, "its claims are void");
        assert_eq!(lab.members(number), [1, 2]);
    }
    assert_eq!(lab.hear(3), NOBODY);
    assert_eq!(lab.hear(1), [2]);
    assert!(lab.warns(3, "the membership in lab ended on"));
    // It dials and is refused, by the bootstrap and by the others.
    lab.go(S(60));
    assert!(lab.status(3).refused.is_some());
    assert!(!lab.meets(1, 3) && !lab.warns(1, "the membership in lab"));
}

#[test]
fn trust_8_a_membership_that_is_renewed_in_time_costs_no_frame() {
    let mut lab = one_of_three_ends(81);
    until(&mut lab, END / 2);
    assert!(lab.warns(3, "the membership in lab ended on"));
    renew(&mut lab, 3);
    lab.go(S(2));
    assert!(!lab.warns(3, "the membership in lab"));
    until(&mut lab, END - S(5));
    for _ in 0..22 {
        assert_eq!(lab.hear(3), [1, 2], "at {:?}", lab.world.now());
        assert_eq!(lab.hear(1), [2, 3], "at {:?}", lab.world.now());
    }
}

#[test]
fn trust_8_a_membership_that_is_renewed_late_brings_the_node_back_at_once() {
    let mut lab = one_of_three_ends(82);
    until(&mut lab, END + S(120));
    assert_eq!(lab.hear(3), NOBODY);
    renew(&mut lab, 3);
    lab.within(S(7), |lab| lab.meets(1, 3) && lab.meets(2, 3));
    assert_eq!(lab.hear(3), [1, 2]);
    assert_eq!(lab.members(1), [1, 2, 3]);
}

#[test]
fn a_renewal_is_learnt_by_a_member_that_was_away_meanwhile() {
    let mut lab = one_of_three_ends(83);
    until(&mut lab, END / 2);
    lab.kill(2);
    renew(&mut lab, 3);
    until(&mut lab, END + S(60));
    lab.world.cut_bootstrap(true);
    lab.start(2);
    lab.within(S(7), |lab| lab.meets(2, 3) && lab.meets(3, 2));
    lab.go(S(40));
    assert_eq!(lab.hear(3), [1, 2]);
    assert_eq!(lab.members(2), [1, 2, 3]);
}

#[test]
fn a_renewal_gets_through_where_datagrams_are_lost_and_swapped() {
    let mut lab = one_of_three_ends(84);
    until(&mut lab, END / 2);
    for number in [1, 2, 3] {
        lab.set_access(number, bad_access());
    }
    renew(&mut lab, 3);
    until(&mut lab, END + NOTICED);
    for number in [1, 2, 3] {
        lab.set_access(number, access());
    }
    lab.go(S(1));
    assert!(lab.meets(1, 3) && lab.meets(2, 3));
    assert_eq!(lab.hear(3), [1, 2]);
}

#[test]
fn nobody_comes_back_by_what_a_restart_remembers() {
    let mut lab = one_of_three_ends(85);
    until(&mut lab, END / 2);
    lab.kill(1);
    until(&mut lab, END + NOTICED);
    lab.start(1);
    lab.within(S(2), |lab| lab.meets(1, 2));
    lab.go(S(30));
    assert!(!lab.meets(1, 3));
    assert_eq!(lab.members(1), [1, 2]);
    assert_eq!(lab.hear(3), NOBODY);
}

#[test]
fn who_restarts_with_an_ended_membership_is_told_to_join_again() {
    let mut lab = one_of_three_ends(91);
    until(&mut lab, END + NOTICED);
    lab.kill(3);
    let error = lab.world.start(lab.hosts[2]).unwrap_err();
    assert_eq!(error.to_string(), "this node's certificate does not count");
    renew(&mut lab, 3);
    lab.start(3);
    let took = lab.within(S(30), |lab| lab.meets(1, 3) && lab.meets(2, 3));
    assert!(took < S(6), "{took:?}");
    assert_eq!(lab.hear(3), [1, 2]);
}

#[test]
fn a_renewal_that_was_not_told_before_a_kill_counts_after_it() {
    let mut lab = one_of_three_ends(86);
    until(&mut lab, END / 2);
    renew(&mut lab, 3);
    // The receipt is on its way.
    lab.go(MS(15));
    lab.kill(3);
    until(&mut lab, END + NOTICED);
    assert_eq!(lab.members(1), [1, 2]);
    lab.start(3);
    let took = lab.within(S(30), |lab| lab.meets(1, 3) && lab.meets(2, 3));
    assert!(took < S(6), "{took:?}");
    assert_eq!(lab.hear(3), [1, 2]);
}

#[test]
fn a_membership_that_ends_in_one_of_two_networks_leaves_the_other_alone() {
    let config = Config {
        networks: vec!["lab", "home"],
        ..Config::default()
    };
    let mut lab = Lab::with(92, 1, config);
    lab.add(&Terms::of(&[0, 1]));
    lab.settle();
    let home = Terms {
        networks: vec![1],
        ..that_ends()
    };
    let invite = lab.world.invite(&home).unwrap();
    let host = lab.host(1);
    lab.world.join(host, &invite).unwrap();
    lab.go(S(2));
    assert_eq!(lab.status(1).networks.len(), 2);
    until(&mut lab, END + NOTICED);
    let chains = |lab: &Lab| {
        let membership = lab.world.hosts[&host].disk.membership.as_ref();
        membership.unwrap().chains().len()
    };
    assert_eq!(chains(&lab), 1, "the one that has ended is given up");
    lab.within(S(6), |lab| lab.meets(2, 1));
    assert_eq!(lab.hear(1), [2]);
    // The user reads for as long as it is so why nothing passes in the other one.
    lab.go(S(60));
    assert!(lab.warns(1, "the membership in home ended"));
    assert!(!lab.warns(1, "the membership in lab"));
}

#[test]
fn a_clock_that_jumps_a_year_ahead_ends_all_for_its_host_alone_until_it_is_right() {
    let mut lab = Lab::settled(87, 3);
    lab.world
        .set_clock(lab.hosts[1], i64::try_from(400 * DAY).unwrap());
    lab.go(NOTICED);
    assert!(!lab.meets(2, 1) && !lab.meets(2, 3));
    assert!(lab.warns(2, "the membership in lab ended on"));
    assert_eq!(lab.hear(1), [3]);
    lab.world.set_clock(lab.hosts[1], 0);
    lab.within(NOTICED, |lab| lab.meets(2, 1) && lab.meets(2, 3));
    lab.go(NOTICED);
    assert!(!lab.warns(2, "the membership in lab"));
    assert_eq!(lab.hear(2), [1, 3]);
    assert_eq!(lab.hear(1), [2, 3]);
}

/// The authority has signed later dates than the one that the clock says (TRUST.md 9).
#[test]
fn a_clock_that_falls_back_to_1970_makes_no_ended_membership_count() {
    let mut lab = one_of_three_ends(88);
    until(&mut lab, END + S(60));
    // A document of now tells one what time it is at least.
    let invite = lab.world.invite(&Terms::of(&[0])).unwrap();
    lab.world.join(lab.hosts[0], &invite).unwrap();
    lab.go(S(1));
    lab.kill(1);
    lab.start(1);
    lab.go(S(2));
    lab.world.set_clock(lab.hosts[0], -1_800_000_000);
    lab.within(S(2), |lab| lab.meets(1, 2));
    lab.go(S(60));
    assert!(!lab.meets(1, 3));
    assert_eq!(lab.members(1), [1, 2]);
    assert_eq!(lab.hear(1), [2]);
}

#[test]
fn the_key_of_the_handshakes_is_signed_again_a_month_before_its_signature_ends() {
    let terms = Terms {
        member_for: S(800 * DAY),
        ..Terms::of(&[0])
    };
    let mut lab = Lab::empty(89, Config::default());
    lab.add(&terms);
    lab.add(&terms);
    lab.settle();
    let signed = |lab: &Lab, number: usize| lab.world.hosts[&lab.host(number)].disk.static_key.1;
    assert_eq!((signed(&lab, 1), signed(&lab, 2)), (1, 1));
    // A disk that is full then is asked again.
    let full = DiskManner {
        is_full: true,
        ..DiskManner::default()
    };
    lab.world.set_disk(lab.hosts[0], full);
    let mut set = |days: u64| {
        for host in lab.hosts.clone() {
            lab.world
                .set_clock(host, i64::try_from(days * DAY).unwrap());
        }
        lab.go(NOTICED);
        (signed(&lab, 1), signed(&lab, 2))
    };
    assert_eq!(set(330), (1, 1));
    assert_eq!(set(336), (1, 2));
    lab.world.set_disk(lab.hosts[0], DiskManner::default());
    lab.go(NOTICED);
    assert_eq!((signed(&lab, 1), signed(&lab, 2)), (2, 2));
    // A month later the first signature has ended, and the nodes meet by the second.
    for host in lab.hosts.clone() {
        lab.world.set_clock(host, i64::try_from(370 * DAY).unwrap());
    }
    lab.within(S(2), |lab| lab.meets(1, 2));
    assert_eq!(lab.hear(1), [2]);
}

#[test]
fn the_macs_of_a_host_that_is_gone_are_nobodys_after_ten_minutes() {
    let mut lab = Lab::settled(90, 3);
    for number in [1, 2] {
        let ip = [10, 0, 0, u8::try_from(number).unwrap()];
        let guest = lab.guest(number);
        lab.world.let_answer(guest, Some((ip.into(), MS(5))));
    }
    lab.kill(3);
    lab.go(CLAIM_TTL - S(30));
    assert_eq!(lab.holder(1, 3), Some(3));
    lab.go(S(40));
    assert_eq!((lab.holder(1, 3), lab.holder(2, 3)), (None, None));
    // Those of hosts that are there are refreshed.
    assert_eq!((lab.holder(1, 2), lab.holder(2, 1)), (Some(2), Some(1)));
}
