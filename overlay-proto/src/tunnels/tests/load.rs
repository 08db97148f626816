//! Cookies under load.

use std::time::Duration;

use nat_traversal::path::Path;

use super::pair::*;
use crate::drop_reason::DropReason;
use crate::handshake::{COOKIE_LIFETIME, COOKIE_REPLY_LEN};
use crate::tunnels::{HALF_OPEN_UNDER_LOAD, MAX_REQUESTS_PER_SECOND, Tunnels};
use crate::wire::DatagramKind;

/// A message 1 of node `n` for node 1, as someone recorded it.
fn recorded(pair: &mut Pair, n: usize) -> Vec<u8> {
    let mut tunnels = Tunnels::new(config(n, 1), 0);
    let wall = pair.wall();
    let path = [Path::direct(addr(1))];
    let (now, keys) = (pair.now, &mut pair.keys);
    tunnels.connect(now, wall, keys, peer_id(1), static_key(1), &path);
    tunnels.poll_transmit().unwrap().bytes
}

/// Replays a request that node 1 has answered before, so often that it is under load.
fn flood(pair: &mut Pair) {
    let old = recorded(pair, 7);
    let from = Path::direct("203.0.113.9:9".parse().unwrap());
    pair.deliver(1, &old, from).unwrap();
    pair.nodes[1].tunnels.close(pair.now, peer_id(7));
    for _ in 1..MAX_REQUESTS_PER_SECOND {
        let outcome = pair.deliver(1, &old, from);
        assert_eq!(outcome, Err(DropReason::HandshakeReplayed));
    }
    let outcome = pair.deliver(1, &old, from);
    assert_eq!(outcome, Err(DropReason::HandshakeCookie));
    pair.flights.clear();
    pair.sent.clear();
    pair.nodes[1].events.clear();
    pair.nodes[1].drops.clear();
}

#[test]
fn trust_11_under_load_a_cookie_comes_first() {
    let mut pair = Pair::new(1);
    flood(&mut pair);
    pair.connect(0);
    pair.run_ms(45);
    // Asked back, nothing kept.
    let reply = pair.first_sent(DatagramKind::CookieReply, 0);
    assert_eq!(reply.len(), COOKIE_REPLY_LEN);
    assert!(pair.nodes[1].events.is_empty());
    assert_eq!(pair.nodes[1].drops, [DropReason::HandshakeCookie]);
    // The same message again, with mac2, is taken.
    pair.run_ms(100);
    let last = pair
        .sent
        .iter()
        .rev()
        .find(|f| f.to == 1 && f.bytes[0] == 1);
    let (first, last) = (
        pair.first_sent(DatagramKind::HandshakeInit, 1),
        &last.unwrap().bytes,
    );
    assert_eq!(first[..first.len() - 16], last[..last.len() - 16]);
    assert_ne!(first, *last);
    assert_eq!(pair.nodes[1].usable(), 1);
    pair.assert_talks();
}

#[test]
fn trust_11_a_cookie_is_worth_nothing_elsewhere_or_later() {
    let mut pair = Pair::new(2);
    flood(&mut pair);
    pair.connect(0);
    pair.run_ms(50);
    let with_mac2 = pair
        .sent
        .iter()
        .rev()
        .find(|f| f.to == 1)
        .unwrap()
        .bytes
        .clone();
    pair.flights.clear();
    let refused = Err(DropReason::HandshakeCookie);
    for other in ["192.0.0.1:4001", "192.0.0.2:4000", "[2001:db8::1]:4000"] {
        let path = Path::direct(other.parse().unwrap());
        assert_eq!(pair.deliver(1, &with_mac2, path), refused);
    }
    let mut bent = with_mac2.clone();
    *bent.last_mut().unwrap() ^= 1;
    assert_eq!(pair.deliver(1, &bent, Path::direct(addr(0))), refused);
    pair.now += COOKIE_LIFETIME;
    flood(&mut pair);
    assert_eq!(pair.deliver(1, &with_mac2, Path::direct(addr(0))), refused);
}

#[test]
fn trust_11_a_forged_cookie_reply_changes_nothing() {
    let mut pair = Pair::new(3);
    flood(&mut pair);
    pair.connect(0);
    pair.run_ms(25);
    let reply = pair.first_sent(DatagramKind::CookieReply, 0);
    pair.flights.clear();
    let (from, sent) = (Path::direct(addr(1)), pair.sent.len());
    for at in 0..reply.len() {
        let mut bent = reply.clone();
        bent[at] ^= 1;
        assert!(pair.deliver(0, &bent, from).is_err(), "byte {at}");
    }
    let elsewhere = Path::direct("203.0.113.9:9".parse().unwrap());
    let unexpected = Err(DropReason::HandshakeUnexpected);
    assert_eq!(pair.deliver(0, &reply, elsewhere), unexpected);
    assert_eq!(pair.sent.len(), sent);
    pair.deliver(0, &reply, from).unwrap();
    assert_eq!(pair.sent.len(), sent + 1);
    // A second time it says nothing new.
    pair.deliver(0, &reply, from).unwrap();
    assert_eq!(pair.sent.len(), sent + 1);
    pair.run_ms(200);
    pair.assert_talks();
}

#[test]
fn trust_11_made_up_addresses_get_half_of_the_room() {
    let mut pair = Pair::new(4);
    for n in 0..HALF_OPEN_UNDER_LOAD {
        let request = recorded(&mut pair, n + 2);
        let from = Path::direct(format!("198.51.{n}.1:9").parse().unwrap());
        assert_eq!(pair.deliver(1, &request, from), Ok(()));
        pair.now += Duration::from_millis(20);
    }
    let request = recorded(&mut pair, 250);
    let from = Path::direct("203.0.113.1:9".parse().unwrap());
    assert_eq!(
        pair.deliver(1, &request, from),
        Err(DropReason::HandshakeCookie)
    );
    // Who really is where it says comes in.
    pair.flights.clear();
    pair.connect(0);
    pair.run_ms(300);
    pair.assert_talks();
}
