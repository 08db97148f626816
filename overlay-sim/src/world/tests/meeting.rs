//! Two nodes meet, whatever stands between them.

use std::net::Ipv4Addr;

use nat_traversal::path::PathKind;

use super::*;
use crate::net::nat::NatBehaviour;

#[test]
fn two_nodes_meet_and_their_guests_talk() {
    let mut lab = Lab::of(1, 2);
    lab.go(S(5));
    assert_eq!(lab.hear(1), [2], "{:?}", lab.status(1));
    assert!(lab.reaches(2, 1), "{:?}", lab.status(2));
}

/// The pair of reports that say how two nodes reach each other.
fn paths(world: &mut World, hosts: [HostId; 2]) -> [Option<PathKind>; 2] {
    let names = hosts.map(|host| world.peer(host).unwrap());
    let [one, two] = hosts.map(|host| peers(world, host));
    let path = |reports: Vec<PeerReport>, of| {
        let found = reports.into_iter().find(|report| report.node == of);
        found.map(|report| report.path.kind)
    };
    [path(one, names[1]), path(two, names[0])]
}

/// Two hosts, each behind a NAT of its own, with a guest each.
fn two_behind(seed: u64, behaviour: NatBehaviour) -> (World, [HostId; 2], [GuestId; 2]) {
    let mut world = World::new(seed, base(), Config::default()).unwrap();
    let both = [1, 2].map(|number: u8| {
        let name = format!("home {number}");
        let wan = Ipv4Addr::new(45, number, 0, 1);
        let realm = world
            .net()
            .add_chain(&name, &[behaviour], wan, access())
            .unwrap();
        let place = (realm, ip("192.168.1.2"));
        let host = world
            .add_host(&name, place, AccessBehaviour::PERFECT, &[0])
            .unwrap();
        let guest = world.add_guest(host, "lab", mac(number)).unwrap();
        world.start(host).unwrap();
        (host, guest)
    });
    (
        world,
        both.map(|(host, _)| host),
        both.map(|(_, guest)| guest),
    )
}

/// Both guests hear from each other.
fn talk(world: &mut World, [first, second]: [GuestId; 2], number: u64) {
    let at = world.now();
    world.send(first, &unicast(1, 2, number));
    world.send(second, &unicast(2, 1, number));
    world.run_until(at + S(2)).unwrap();
    assert!(has(world, second, &unicast(1, 2, number)));
    assert!(has(world, first, &unicast(2, 1, number)));
}

#[test]
fn behind_nats_that_preserve_ports_the_path_is_direct() {
    let (mut world, hosts, guests) = two_behind(2, NatBehaviour::PORT_PRESERVING);
    world.run_until(S(5)).unwrap();
    talk(&mut world, guests, 1);
    world.run_until(S(20)).unwrap();
    talk(&mut world, guests, 2);
    assert_eq!(paths(&mut world, hosts), [Some(PathKind::Direct); 2]);
}

#[test]
fn behind_symmetric_nats_the_path_is_relayed() {
    let (mut world, hosts, guests) = two_behind(3, NatBehaviour::SYMMETRIC);
    world.run_until(S(10)).unwrap();
    talk(&mut world, guests, 1);
    world.run_until(S(20)).unwrap();
    talk(&mut world, guests, 2);
    assert_eq!(paths(&mut world, hosts), [Some(PathKind::Relayed); 2]);
}

/// Two public hosts with a guest each, whose nodes run.
fn two_public(seed: u64) -> (World, [HostId; 2], [GuestId; 2]) {
    let Lab {
        world,
        hosts,
        guests,
        ..
    } = Lab::of(seed, 2);
    (world, [hosts[0], hosts[1]], [guests[0], guests[1]])
}

#[test]
fn nodes_that_lost_their_power_meet_again_by_what_is_on_their_disks() {
    let (mut world, hosts, guests) = two_public(4);
    world.run_until(S(5)).unwrap();
    talk(&mut world, guests, 1);
    world.run_until(S(20)).unwrap();
    for host in hosts {
        world.kill(host);
    }
    world.run_until(S(23)).unwrap();
    assert!(!world.is_running(hosts[0]));
    // The bootstrap is away: whom they knew they find by themselves.
    world.cut_bootstrap(true);
    for host in hosts {
        world.start(host).unwrap();
    }
    world.run_until(S(30)).unwrap();
    talk(&mut world, guests, 2);
    assert_eq!(paths(&mut world, hosts), [Some(PathKind::Direct); 2]);
}

/// A history with a NAT, a restart, loss and jitter; its digest.
fn history(seed: u64) -> u64 {
    let (mut world, hosts, guests) = two_behind(seed, NatBehaviour::PORT_REWRITING);
    let lossy = LinkBehaviour {
        loss: Share::percent(5),
        jitter: Duration::from_millis(7),
        duplication: Share::percent(2),
        reordering: Share::percent(2),
        held_back: Duration::from_millis(15),
        ..LinkBehaviour::with_delay(Duration::from_millis(8))
    };
    for host in hosts {
        let station = Station::Host(host);
        world
            .net()
            .set_access(station, AccessBehaviour::both(lossy));
    }
    for round in 0..60 {
        world.run_until(S(round)).unwrap();
        world.send(guests[0], &unicast(1, 2, round));
        world.send(guests[1], &unicast(2, 1, round));
        match round {
            20 => world.kill(hosts[0]),
            25 => world.start(hosts[0]).unwrap(),
            _ => {}
        }
    }
    world.run_until(S(61)).unwrap();
    world.digest()
}

#[test]
fn the_same_seed_is_the_same_history() {
    assert_eq!(history(5), history(5));
    assert_ne!(history(5), history(6));
}
