//! Joining a network of many: how long from the start of a node until its guest reaches that of a given member.
//!
//! Hosts are 50 ms apart, as in the lab's test of the same (`tests/tests/joining.rs`), whose machine does not carry a
//! hundred of them. `FARLAN_LONG=1 cargo test --release -p overlay-sim joining -- --nocapture` has 45 and 100 members.

use std::net::Ipv4Addr;
use std::time::Duration;

use overlay_proto::ethernet::MacAddr;

use super::tests::{base, ip};
use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::nat::NatBehaviour;

/// Newcomers, one after the other.
const NEWCOMERS: u8 = 20;

/// How often a newcomer's guest asks.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What is asked of joining (ADR 39).
const MEDIAN: Duration = Duration::from_secs(1);
const WORST: Duration = Duration::from_secs(3);

fn mac(number: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 1, 0, number])
}

/// A broadcast that asks for 10.0.0.`to`, as ARP does.
fn asks(from: u8, to: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(from).0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(from).0);
    frame.extend([10, 0, 0, from]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, to]);
    frame
}

fn answers(from: u8, to: u8) -> Vec<u8> {
    let mut frame = mac(to).0.to_vec();
    frame.extend(mac(from).0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(mac(from).0);
    frame.extend([10, 0, 0, from]);
    frame.extend(mac(to).0);
    frame.extend([10, 0, 0, to]);
    frame
}

/// Hosts behind NATs that preserve ports, or on the internet, in turn.
fn add(world: &mut World, number: u8) -> (HostId, GuestId) {
    let access = AccessBehaviour::both(LinkBehaviour::with_delay(Duration::from_millis(25)));
    let wan = Ipv4Addr::new(45, 1, number, 1);
    let name = format!("home {number}");
    let place = if number.is_multiple_of(2) {
        (Net::INTERNET, IpAddr::V4(wan))
    } else {
        let nat = [NatBehaviour::PORT_PRESERVING];
        let realm = world.net().add_chain(&name, &nat, wan, access).unwrap();
        (realm, ip("192.168.1.2"))
    };
    let host = world.add_host(&name, place, access, &[0]).unwrap();
    let guest = world.add_guest(host, "lab", mac(number)).unwrap();
    world.start(host).unwrap();
    (host, guest)
}

fn hears(world: &World, guest: GuestId, frame: &[u8]) -> bool {
    world.inbox(guest).any(|got| got.frame == frame)
}

/// How long each newcomer takes to reach one of `members`, each another.
fn joining(members: u8) -> Vec<Duration> {
    let mut world = World::new(u64::from(members), base(), Config::default()).unwrap();
    let there: Vec<_> = (0..members).map(|number| add(&mut world, number)).collect();
    world.run_until(Duration::from_secs(60)).unwrap();
    let mut times = Vec::new();
    for number in members..members + NEWCOMERS {
        let to = (number - members).wrapping_mul(37) % members;
        let (_, known) = there[usize::from(to)];
        let start = world.now();
        let (host, guest) = add(&mut world, number);
        let mut answered = false;
        while !hears(&world, guest, &answers(to, number)) {
            world.send(guest, &asks(number, to));
            if hears(&world, known, &asks(number, to)) && !answered {
                world.send(known, &answers(to, number));
                answered = true;
            }
            let at = world.now() + ASK_EVERY;
            world.run_until(at).unwrap();
            assert!(world.now() < start + 20 * WORST, "{number} reaches nobody");
        }
        times.push(world.now() - start);
        world.kill(host);
        let at = world.now() + Duration::from_secs(5);
        world.run_until(at).unwrap();
    }
    times.sort();
    times
}

#[test]
fn a_newcomer_reaches_any_member_within_a_second() {
    let long = std::env::var_os("FARLAN_LONG").is_some();
    let sizes: &[u8] = if long { &[45, 100] } else { &[12] };
    for members in sizes {
        let times = joining(*members);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{members} members: median {median:?}, worst of {NEWCOMERS} {worst:?}");
        assert!(median <= MEDIAN, "{members} members: {times:?}");
        assert!(worst <= WORST, "{members} members: {times:?}");
    }
}
