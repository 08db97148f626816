//! Whole nodes meet.

use std::time::{Duration, Instant};

use node_core::api::{PeerReport, Request, Response};
use overlay_proto::ethernet::MacAddr;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
fn base() -> Instant {
    Instant::now()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// An ARP request for 10.0.0.`to` of the guest `from`.
fn arp(from: u8, to: u8) -> Vec<u8> {
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
fn unicast(from: u8, to: u8, number: u64) -> Vec<u8> {
    let mut frame = mac(to).0.to_vec();
    frame.extend(mac(from).0);
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend([0; 40]);
    frame
}

fn has(world: &World, guest: GuestId, frame: &[u8]) -> bool {
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
        let access = AccessBehaviour::both(crate::net::link::LinkBehaviour::with_delay(
            Duration::from_millis(10),
        ));
        let host = world.add_host(name, place, access, &[0]).unwrap();
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
