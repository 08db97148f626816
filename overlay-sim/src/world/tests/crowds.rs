//! Many nodes in all sorts of sites.

use std::net::Ipv4Addr;

use super::*;
use crate::net::nat::NatBehaviour;

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
