//! Whole nodes meet.

use std::time::{Duration, Instant};

use nat_traversal::path::PathKind;
use node_core::api::{PeerReport, Request, Response};
use overlay_proto::ethernet::MacAddr;

use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::nat::NatBehaviour;
use crate::net::random::Share;
use crate::net::topology::Station;

const S: fn(u64) -> Duration = Duration::from_secs;

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
pub(super) fn base() -> Instant {
    Instant::now()
}

fn access() -> AccessBehaviour {
    AccessBehaviour::both(LinkBehaviour::with_delay(Duration::from_millis(10)))
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) const fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// An ARP request for 10.0.0.`to` of the guest `from`.
pub(super) fn arp(from: u8, to: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(from).0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(from).0);
    frame.extend([10, 0, 0, from]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, to]);
    frame
}

/// A frame of an experimental type from one guest to another.
pub(super) fn unicast(from: u8, to: u8, number: u64) -> Vec<u8> {
    let mut frame = mac(to).0.to_vec();
    frame.extend(mac(from).0);
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend([0; 40]);
    frame
}

pub(super) fn has(world: &World, guest: GuestId, frame: &[u8]) -> bool {
    world.inbox(guest).any(|got| got.frame == frame)
}

fn peers(world: &mut World, host: HostId) -> Vec<PeerReport> {
    match world.ask(host, Request::Peers) {
        Some(Response::Peers(peers)) => peers,
        other => panic!("{other:?}"),
    }
}

/// Two public hosts with a guest each, whose nodes run.
fn two_public(seed: u64) -> (World, [HostId; 2], [GuestId; 2]) {
    let mut world = World::new(seed, base(), Config::default()).unwrap();
    let mut add = |name: &str, at: &str, last| {
        let place = (Net::INTERNET, ip(at));
        let host = world.add_host(name, place, access(), &[0]).unwrap();
        let guest = world.add_guest(host, "lab", mac(last)).unwrap();
        world.start(host).unwrap();
        (host, guest)
    };
    let (one, first) = add("one", "45.1.0.1", 1);
    let (two, second) = add("two", "45.2.0.1", 2);
    (world, [one, two], [first, second])
}

#[test]
fn two_nodes_meet_and_their_guests_talk() {
    let (mut world, [one, two], [first, second]) = two_public(1);
    world.run_until(S(5)).unwrap();
    world.send(first, &arp(1, 2));
    world.run_until(S(6)).unwrap();
    assert!(
        has(&world, second, &arp(1, 2)),
        "{:?}",
        peers(&mut world, one)
    );
    world.send(second, &unicast(2, 1, 7));
    world.run_until(S(7)).unwrap();
    assert!(
        has(&world, first, &unicast(2, 1, 7)),
        "{:?}",
        peers(&mut world, two)
    );
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

/// Several hosts on the internet, each with a guest.
fn many_public(seed: u64, count: u8) -> (World, Vec<HostId>, Vec<GuestId>) {
    let mut world = World::new(seed, base(), Config::default()).unwrap();
    let all = (1..=count).map(|number| {
        let place = (Net::INTERNET, IpAddr::from([45, 1, 0, number]));
        let name = format!("host {number}");
        let host = world.add_host(&name, place, access(), &[0]).unwrap();
        let guest = world.add_guest(host, "lab", mac(number)).unwrap();
        world.start(host).unwrap();
        (host, guest)
    });
    let (hosts, guests) = all.collect::<Vec<_>>().into_iter().unzip();
    (world, hosts, guests)
}

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
    let (mut world, hosts, guests) = many_public(seed, 5);
    world.run_until(S(10)).unwrap();
    for (number, guest) in (1..).zip(&guests) {
        world.send(*guest, &arp(number, 99));
    }
    world.run_until(S(12)).unwrap();
    for guest in &guests {
        let others = (1..=5).filter(|number| has(&world, *guest, &arp(*number, 99)));
        assert_eq!(others.count(), 4);
    }
    world.cut_bootstrap(cut);
    world.run_until(S(13)).unwrap();
    let revoked = world.peer(hosts[4]).unwrap();
    let line = world.revocation_of(hosts[4]).unwrap();
    world.ask(hosts[0], line);
    world.run_until(S(14)).unwrap();
    for host in &hosts[..4] {
        let left = peers(&mut world, *host);
        assert!(left.iter().all(|report| report.node != revoked), "{left:?}");
    }
    world.send(guests[4], &arp(5, 98));
    world.send(guests[0], &arp(1, 97));
    world.run_until(S(20)).unwrap();
    for guest in &guests[..4] {
        assert!(!has(&world, *guest, &arp(5, 98)));
    }
    assert!(has(&world, guests[1], &arp(1, 97)));
    assert!(!has(&world, guests[4], &arp(1, 97)));
}

/// Many hosts in all sorts of sites, with restarts, a partition and a revocation; its digest.
fn crowd(seed: u64, count: u8) -> World {
    let mut world = World::new(seed, base(), Config::default()).unwrap();
    let nats = [
        NatBehaviour::PORT_PRESERVING,
        NatBehaviour::PORT_REWRITING,
        NatBehaviour::SYMMETRIC,
        NatBehaviour::FULL_CONE,
    ];
    let mut hosts = Vec::new();
    for number in 1..=count {
        let name = format!("home {number}");
        let wan = Ipv4Addr::new(45, 1, number, 1);
        let nat = nats[usize::from(number) % nats.len()];
        let place = if number % 5 == 0 {
            (Net::INTERNET, IpAddr::V4(wan))
        } else {
            let realm = world.net().add_chain(&name, &[nat], wan, access());
            (realm.unwrap(), ip("192.168.1.2"))
        };
        let host = world.add_host(&name, place, access(), &[0]).unwrap();
        let guest = world.add_guest(host, "lab", mac(number)).unwrap();
        hosts.push((host, guest));
        world.start(host).unwrap();
    }
    for round in 0..60 {
        world.run_until(S(round)).unwrap();
        for (number, (_, guest)) in (1..).zip(&hosts) {
            let to = 1 + (number + u8::try_from(round).unwrap()) % count;
            world.send(*guest, &unicast(number, to, round));
            if round % 10 == 0 {
                world.send(*guest, &arp(number, to));
            }
        }
        match round {
            20 => world.kill(hosts[0].0),
            22 => world.kill(hosts[1].0),
            25 => world.start(hosts[0].0).unwrap(),
            30 => world.start(hosts[1].0).unwrap(),
            35 => world.restore(hosts[4].0),
            40 => {
                let line = world.revocation_of(hosts[2].0).unwrap();
                world.ask(hosts[3].0, line);
            }
            _ => {}
        }
    }
    world.run_until(S(61)).unwrap();
    world
}

#[test]
fn the_same_seed_is_the_same_history_of_a_crowd() {
    let [one, two] = [(); 2].map(|()| crowd(8, 12).digest());
    assert_eq!(one, two);
}

/// Frames of the crowd that were sent from round `since` on and did not get there, but for those of the revoked.
fn missing(world: &World, count: u8, since: u64) -> Vec<(u64, u8, u8)> {
    let mut missing = Vec::new();
    for round in since..60 {
        for number in 1..=count {
            let to = 1 + (number + u8::try_from(round).unwrap()) % count;
            let frame = unicast(number, to, round);
            let gone = to == number || to == 3 || number == 3;
            if !gone && !has(world, GuestId(u32::from(to) - 1), &frame) {
                missing.push((round, number, to));
            }
        }
    }
    missing
}

#[test]
fn a_crowd_talks_whatever_sites_it_is_in_and_while_others_are_down() {
    let count = 12;
    let world = crowd(9, count);
    let down = |number: u8| match number {
        1 => 20..=25,
        2 => 22..=30,
        _ => 0..=0,
    };
    for (round, from, to) in missing(&world, count, 10) {
        let is_down = [from, to].map(|number| down(number).contains(&round));
        assert_ne!(is_down, [false; 2], "{round}: {from} to {to}");
    }
}

/// How fast the simulation is: `FARLAN_LONG=1 cargo test -p overlay-sim --release -- --nocapture thirty`.
#[test]
fn thirty_nodes_for_a_minute() {
    let long = std::env::var_os("FARLAN_LONG").is_some();
    let counts: &[u8] = if long { &[12, 30, 60] } else { &[6] };
    for count in counts.iter().copied() {
        let start = base();
        let world = crowd(10, count);
        println!(
            "{count} nodes, {:?} of virtual time in {:?}; {:?}; digest {:x}",
            world.now(),
            start.elapsed(),
            world.around.net.tally(),
            world.digest(),
        );
    }
}
