//! What changes while datagrams are under way, and while NATs remember what was before.

use super::*;

#[test]
fn a_host_that_restarts_keeps_its_nat_and_one_that_roams_does_not() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_REWRITING], "203.0.113.1", 10);
    let seen = world.seen(host, INSIDE, SERVER);
    world.net.set_running(host, false);
    assert_eq!(world.send(host, INSIDE, addr(SERVER)), Err(Lost::HostDown));
    assert_eq!(world.pass(world.server, SERVER, seen), None);
    world.net.set_running(host, true);
    assert_eq!(world.pass(world.server, SERVER, seen).unwrap().host, host);
    // The provider gives the home another address.
    world.net.set_wan(home, ip("203.0.113.77")).unwrap();
    assert_eq!(world.pass(world.server, SERVER, seen), None);
    let moved = world.seen(host, INSIDE, SERVER);
    assert_eq!(moved.ip(), ip("203.0.113.77"));
    // Its router restarts.
    world.net.nat_mut(home, ip("0.0.0.0")).unwrap().restart();
    assert_ne!(world.seen(host, INSIDE, SERVER), moved);
    // The host goes elsewhere, while something is on its way to it.
    let seen = world.seen(host, INSIDE, SERVER);
    let cafe = world.home(&[Nats::SYMMETRIC], "203.0.113.3", 10).0;
    assert_eq!(world.send(world.server, SERVER, seen), Ok(()));
    world.net.detach(host, home).unwrap();
    assert!(world.arrivals().is_empty());
    assert_eq!(
        world.send(host, INSIDE, addr(SERVER)),
        Err(Lost::NotOwnAddress)
    );
    let perfect = AccessBehaviour::PERFECT;
    world.net.attach(host, cafe, perfect).unwrap();
    world
        .net
        .add_address(host, cafe, ip("192.168.1.99"))
        .unwrap();
    let from = "192.168.1.99:22611";
    assert_eq!(world.seen(host, from, SERVER).ip(), ip("203.0.113.3"));
}

/// An address that somebody gave up is free.
#[test]
fn addresses_go_on_to_others() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    world.net.set_wan(home, ip("203.0.113.2")).unwrap();
    let (other, _) = world.home(&[Nats::FULL_CONE], "203.0.113.1", 10);
    assert_ne!(home, other);
    world.net.detach(host, home).unwrap();
    let heir = world.inmate(home, 10);
    let seen = world.seen(heir, INSIDE, SERVER);
    assert_eq!(world.pass(world.server, SERVER, seen).unwrap().host, heir);
    world
        .net
        .remove_address(heir, home, addr(INSIDE).ip())
        .unwrap();
    let next = world.inmate(home, 10);
    assert_eq!(world.pass(world.server, SERVER, seen).unwrap().host, next);
}

/// Sends from the server to `to`, changes something while it is under way, and says why it was lost.
fn lost_under_way(world: &mut World, to: SocketAddr, change: impl FnOnce(&mut Net)) -> Lost {
    let before = world.net.tally().lost.clone();
    assert_eq!(world.send(world.server, SERVER, to), Ok(()));
    change(&mut world.net);
    assert!(world.arrivals().is_empty());
    let after = &world.net.tally().lost;
    let more = |(lost, count): &(&Lost, &u64)| before.get(lost).copied().unwrap_or(0) < **count;
    *after.iter().find(more).unwrap().0
}

#[test]
fn what_is_under_way_meets_what_is_there_when_it_arrives() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let other = world.other_server;
    let gate = Station::Realm(home);
    let seen = world.seen(host, INSIDE, SERVER);
    let to_other = addr(OTHER_SERVER);

    let lost = lost_under_way(&mut world, to_other, |net| {
        net.set_connected(Station::Host(other), false);
    });
    assert_eq!(lost, Lost::CutOff);
    world.net.set_connected(Station::Host(other), true);
    let lost = lost_under_way(&mut world, to_other, |net| net.set_running(other, false));
    assert_eq!(lost, Lost::HostDown);
    world.net.set_running(other, true);
    let lost = lost_under_way(&mut world, to_other, |net| {
        let internet = Net::INTERNET;
        net.remove_address(other, internet, to_other.ip()).unwrap();
    });
    assert_eq!(lost, Lost::NoRoute);

    let lost = lost_under_way(&mut world, seen, |net| net.set_connected(gate, false));
    assert_eq!(lost, Lost::CutOff);
    world.net.set_connected(gate, true);
    let lost = lost_under_way(&mut world, seen, |net| {
        net.nat_mut(home, seen.ip()).unwrap().restart();
    });
    assert_eq!(lost, Lost::NoMapping);
    let lost = lost_under_way(&mut world, seen, |net| {
        net.set_wan(home, ip("203.0.113.9")).unwrap();
    });
    assert_eq!(lost, Lost::NoRoute);
}

/// 15 ms under way: sent while the mapping lives, there when it has ended.
#[test]
fn a_mapping_may_end_before_a_datagram_arrives() {
    for (after, arrives) in [(119_980, true), (119_990, false)] {
        let mut world = World::new();
        let (_, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
        let mapped = world.now;
        let seen = world.seen(host, INSIDE, SERVER);
        world.now = mapped + ms(after);
        assert_eq!(world.pass(world.server, SERVER, seen).is_some(), arrives);
    }
}
