//! A broadcast comes to each member at most once, whoever sends it and however few members are ready when it is said.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::tests::{base, ip, mac};
use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::nat::NatBehaviour;
use crate::net::random::Share;
use crate::net::topology::Station;

const MEMBERS: u8 = 8;

/// How often a guest says something: less than the time between two members that are met.
const EVERY: Duration = Duration::from_millis(3);

/// Something that `from` says to all.
fn broadcast(from: u8, number: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(from).0);
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend([from; 42]);
    frame
}

/// A host with a guest: on the internet, or behind a NAT.
fn add(world: &mut World, number: u8) -> (HostId, GuestId) {
    let link = LinkBehaviour {
        loss: Share::percent(u32::from(number % 3)),
        jitter: Duration::from_millis(u64::from(number)),
        ..LinkBehaviour::with_delay(Duration::from_millis(5 * u64::from(number)))
    };
    let access = AccessBehaviour::both(link);
    let wan = Ipv4Addr::new(45, 1, number, 1);
    let name = format!("home {number}");
    let nat = match number % 3 {
        0 => None,
        1 => Some(NatBehaviour::PORT_REWRITING),
        _ => Some(NatBehaviour::SYMMETRIC),
    };
    let place = match nat {
        None => (Net::INTERNET, IpAddr::V4(wan)),
        Some(nat) => {
            let realm = world.net().add_chain(&name, &[nat], wan, access).unwrap();
            (realm, ip("192.168.1.2"))
        }
    };
    let host = world.add_host(&name, place, access, &[0]).unwrap();
    let guest = world.add_guest(host, "lab", mac(number)).unwrap();
    world.start(host).unwrap();
    (host, guest)
}

/// Both guests talk to all until `until`; `number` counts what they said.
fn talk(world: &mut World, guests: [(u8, GuestId); 2], number: &mut u32, until: Duration) {
    while world.now() < until {
        for (name, guest) in guests {
            world.send(guest, &broadcast(name, *number));
        }
        *number += 1;
        let at = world.now() + EVERY;
        if let Err(broken) = world.run_until(at) {
            panic!("at {at:?}: {broken}");
        }
    }
}

fn got(world: &World, guest: GuestId, from: u8) -> usize {
    let said = |frame: &[u8]| frame.get(6..12) == Some(&mac(from).0);
    world.inbox(guest).filter(|got| said(&got.frame)).count()
}

/// A member and a newcomer talk while the newcomer meets all, while a member restarts, and while another is cut off.
fn life(seed: u64) {
    let s = Duration::from_secs;
    let mut world = World::new(seed, base(), Config::default()).unwrap();
    let there: Vec<_> = (1..=MEMBERS).map(|n| add(&mut world, n)).collect();
    world.run_until(s(20)).unwrap();
    let (_, newcomer) = add(&mut world, MEMBERS + 1);
    let guests = [(1, there[0].1), (MEMBERS + 1, newcomer)];
    let mut number = 0;
    talk(&mut world, guests, &mut number, s(24));
    for (_, guest) in &there {
        assert!(got(&world, *guest, MEMBERS + 1) > 500, "seed {seed}");
    }
    world.kill(there[3].0);
    let cut = Station::Host(there[5].0);
    world.net().set_connected(cut, false);
    talk(&mut world, guests, &mut number, s(26));
    world.start(there[3].0).unwrap();
    world.net().set_connected(cut, true);
    talk(&mut world, guests, &mut number, s(30));
}

#[test]
fn a_broadcast_reaches_each_member_at_most_once() {
    // Each takes seconds without optimization.
    let seeds = if cfg!(debug_assertions) { 1 } else { 8 };
    for seed in 1..=seeds {
        life(seed);
    }
}
