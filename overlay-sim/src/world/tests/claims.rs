//! Which node holds which MAC: guests that answer, guests that are silent, guests that move, a DHT that is of no help
//! (docs/DIRECTORY.md).

use std::net::Ipv4Addr;

use super::*;

fn ip_of(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap())
}

/// From now on the guest of a host answers ARP requests within 5 ms.
fn let_answer(lab: &mut Lab, number: usize) {
    let guest = lab.guest(number);
    lab.world.let_answer(guest, Some((ip_of(number), MS(5))));
}

#[test]
fn a_guest_that_answers_the_nodes_question_keeps_its_mac_and_a_silent_one_is_given_up() {
    let mut lab = Lab::settled(150, 3);
    let_answer(&mut lab, 2);
    // Idle for half the life of a claim, then three questions 10 s apart.
    lab.go(S(5 * MINUTE - 20));
    assert_eq!((lab.holder(1, 2), lab.holder(1, 3)), (Some(2), Some(3)));
    lab.go(S(60));
    assert_eq!((lab.holder(1, 2), lab.holder(1, 3)), (Some(2), None));
    // A frame finds it all the same, and its first word makes it known.
    assert!(lab.reaches(1, 3));
    lab.speak(3);
    lab.within(MS(200), |lab| lab.holder(1, 3) == Some(3));
}

#[test]
fn a_guest_that_is_plugged_out_is_given_up_where_it_was() {
    let mut lab = Lab::settled(151, 2);
    let guest = lab.guest(2);
    lab.world.unplug(guest);
    lab.within(S(1), |lab| lab.holder(1, 2).is_none());
    assert!(!lab.reaches(1, 2));
    lab.go(S(4));
    let unknown = lab.status(1).unknown;
    assert!(unknown.iter().any(|one| one.mac == mac(2)), "{unknown:?}");
}

#[test]
fn a_guest_that_moves_is_reached_at_once_and_its_way_back_too() {
    let mut lab = Lab::settled(152, 4);
    let guest = lab.guest(2);
    for to in [3, 4, 2, 3] {
        lab.world.plug(guest, lab.host(to)).unwrap();
        lab.world.send(guest, &arp(2, 2));
        lab.within(MS(200), |lab| {
            [1, 2, 3, 4].map(|at| lab.holder(at, 2)) == [Some(to); 4]
        });
        assert!(lab.reaches(1, 2) && lab.reaches(2, 1));
    }
}

#[test]
fn a_move_gets_through_where_datagrams_are_lost_and_swapped() {
    let mut lab = Lab::settled(153, 4);
    for number in 1..=4 {
        lab.set_access(number, bad_access());
    }
    let guest = lab.guest(2);
    lab.world.plug(guest, lab.host(3)).unwrap();
    lab.world.send(guest, &arp(2, 2));
    lab.within(S(3), |lab| {
        [1, 2, 3, 4].map(|at| lab.holder(at, 2)) == [Some(3); 4]
    });
}

#[test]
fn a_host_that_was_away_does_not_take_back_what_has_moved() {
    let mut lab = Lab::settled(154, 3);
    let guest = lab.guest(2);
    lab.go(S(10));
    lab.kill(2);
    lab.go(S(5));
    lab.world.plug(guest, lab.host(3)).unwrap();
    lab.world.send(guest, &arp(2, 2));
    lab.go(S(2));
    lab.start(2);
    lab.within(S(6), |lab| lab.meets(2, 1));
    lab.go(S(5));
    assert_eq!([1, 2, 3].map(|at| lab.holder(at, 2)), [Some(3); 3]);
    assert!(lab.reaches(1, 2));
}

/// Somebody gives a guest the MAC of another one's guest, and sends.
#[test]
fn a_mac_whose_guest_is_there_cannot_be_taken_by_an_ordinary_frame() {
    let mut lab = Lab::settled(155, 3);
    let_answer(&mut lab, 1);
    let thief = lab.world.add_guest(lab.hosts[2], "lab", mac(1)).unwrap();
    for number in 0..20 {
        lab.world.send(thief, &unicast(1, 2, 900 + number));
        lab.go(MS(500));
    }
    assert_eq!([1, 2, 3].map(|at| lab.holder(at, 1)), [Some(1); 3]);
    assert!(!has(&lab.world, lab.guests[1], &unicast(1, 2, 900)));
    assert!(lab.drops(3, DropReason::MacHeldElsewhere) > 0);
    assert!(lab.reaches(2, 1) && lab.reaches(1, 2));
}

#[test]
fn a_dht_that_forgets_or_shows_old_records_misleads_nobody_who_has_neighbours() {
    for mood in [StoreMood::Forgets, StoreMood::Stale] {
        let mut lab = Lab::settled(156, 4);
        lab.world.set_store(0, mood);
        let guest = lab.guest(2);
        lab.world.plug(guest, lab.host(3)).unwrap();
        lab.world.send(guest, &arp(2, 2));
        lab.go(S(10));
        // Who comes now asks the DHT and its neighbours.
        let newcomer = lab.add(&Terms::of(&[0]));
        lab.within(S(1), |lab| lab.meets(newcomer, 1));
        assert!(lab.reaches(newcomer, 2), "{mood:?}");
        assert_eq!(lab.holder(newcomer, 2), Some(3), "{mood:?}");
    }
}
