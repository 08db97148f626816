//! Strangers, impostors, replays.

use nat_traversal::path::Path;

use super::pair::*;
use crate::drop_reason::DropReason;
use crate::ids::OverlayId;
use crate::membership::OverlaySecret;
use crate::tunnels::{CloseReason, MAX_HALF_OPEN_PER_SOURCE, TunnelEvent, Tunnels, TunnelsConfig};
use crate::wire::DatagramKind;

/// What node 1 makes of a message 1 from a node 0 that `change` made different.
fn refused_by_responder(change: impl FnOnce(&mut TunnelsConfig)) -> DropReason {
    let mut pair = Pair::new(1);
    let mut config = config(0, 100);
    change(&mut config);
    pair.nodes[0] = Node::new(config, 0);
    pair.connect(0);
    pair.run_ms(50);
    assert!(pair.sent.iter().all(|flight| flight.to == 1), "no answer");
    assert!(pair.nodes[1].events.is_empty());
    pair.nodes[1].drops[0]
}

#[test]
fn trust_10_strangers_and_impostors_are_refused() {
    let secret = |c: &mut TunnelsConfig| c.overlay_secret = OverlaySecret::from_bytes([1; 32]);
    assert_eq!(refused_by_responder(secret), DropReason::HandshakeMac);
    let overlay = |c: &mut TunnelsConfig| c.overlay = OverlayId([1; 32]);
    assert_eq!(refused_by_responder(overlay), DropReason::HandshakeInvalid);
    // Someone else's chain and signed key, which are no secret.
    let stolen = |c: &mut TunnelsConfig| {
        c.chain = chain_of(peer_id(7));
        c.signed_static = static_key(7).to_vec();
    };
    assert_eq!(refused_by_responder(stolen), DropReason::CertificateRefused);
    let forged = |c: &mut TunnelsConfig| c.chain = vec![1; 33];
    assert_eq!(refused_by_responder(forged), DropReason::CertificateRefused);
    let mirror = |c: &mut TunnelsConfig| c.chain = chain_of(peer_id(1));
    assert_eq!(refused_by_responder(mirror), DropReason::HandshakeInvalid);
}

#[test]
fn trust_10_the_wrong_name_or_key_of_the_responder_is_refused() {
    let mut pair = Pair::new(2);
    let path = [Path::direct(addr(1))];
    pair.connect_with(0, peer_id(5), static_key(1), &path);
    pair.run_ms(50);
    assert_eq!(pair.nodes[1].drops, [DropReason::HandshakeInvalid]);
    pair.nodes[0].tunnels.close(pair.now, peer_id(5));
    pair.connect_with(0, peer_id(1), static_key(5), &path);
    pair.run_ms(50);
    assert_eq!(pair.nodes[1].drops[1], DropReason::HandshakeMac);
    // With the right key it begins anew, without waiting for the failure.
    pair.connect(0);
    pair.run_ms(100);
    pair.assert_talks();
}

#[test]
fn trust_10_a_responder_with_another_chain_is_refused() {
    let mut pair = Pair::new(3);
    pair.nodes[1]
        .tunnels
        .set_identity(chain_of(peer_id(6)), static_key(1).to_vec());
    pair.connect(0);
    pair.run_ms(100);
    assert!(pair.current(0).is_none());
    let failed = pair.nodes[0].events.iter().any(|event| {
        matches!(
            event,
            TunnelEvent::HandshakeFailed {
                reason: DropReason::CertificateRefused,
                ..
            }
        )
    });
    assert!(failed);
}

#[test]
fn trust_10_another_psk_does_not_finish() {
    let mut pair = Pair::new(4);
    pair.connect(0);
    // A changed root version in the clear header, mac1 made anew as only a member can, gives
    // another psk: the answer does not open.
    let mut request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    request[11] ^= 1;
    let key = crate::membership::mac1_key(&OverlaySecret::from_bytes([8; 32]), &static_key(1));
    let covered = request.len() - 32;
    let mac = crate::membership::hmac_sha256(&key, &[&request[..covered]]);
    request[covered..covered + 16].copy_from_slice(&mac[..16]);
    pair.flights.clear();
    pair.deliver(1, &request, Path::direct(addr(0))).unwrap();
    let answer = pair.first_sent(DatagramKind::HandshakeResponse, 0);
    assert_eq!(
        pair.deliver(0, &answer, Path::direct(addr(1))),
        Err(DropReason::HandshakeInvalid)
    );
    assert!(pair.nodes[0].tunnels.is_connecting(peer_id(1)));
    // The true answer still finishes it.
    let request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    pair.nodes[1] = Node::new(config(1, 200), 0);
    pair.deliver(1, &request, Path::direct(addr(0))).unwrap();
    pair.run_ms(100);
    pair.assert_talks();
}

#[test]
fn trust_11_a_handshake_with_a_flipped_bit_is_refused() {
    let mut pair = Pair::new(5);
    pair.connect(0);
    pair.flights.clear();
    let request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    let from = Path::direct(addr(0));
    // mac2, the last 16 bytes, is looked at under load only.
    for at in 0..request.len() - 16 {
        let mut bad = request.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(pair.deliver(1, &bad, from).is_err(), "byte {at}");
    }
    for len in [0, 1, 15, request.len() - 1] {
        assert!(pair.deliver(1, &request[..len], from).is_err());
    }
    assert!(pair.nodes[1].events.is_empty());
    pair.deliver(1, &request, from).unwrap();
    let answer = pair.first_sent(DatagramKind::HandshakeResponse, 0);
    for at in 0..answer.len() - 16 {
        let mut bad = answer.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(
            pair.deliver(0, &bad, Path::direct(addr(1))).is_err(),
            "byte {at}"
        );
    }
    pair.deliver(0, &answer, Path::direct(addr(1))).unwrap();
    pair.run_ms(100);
    pair.assert_talks();
}

#[test]
fn trust_11_a_replayed_handshake_changes_nothing() {
    let mut pair = Pair::new(6);
    pair.connect(0);
    pair.run_ms(500);
    let request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    let (sent, events) = (pair.sent.len(), pair.nodes[1].events.len());
    let attacker = Path::direct("203.0.113.9:9".parse().unwrap());
    assert_eq!(
        pair.deliver(1, &request, attacker),
        Err(DropReason::HandshakeReplayed)
    );
    assert_eq!(pair.sent.len(), sent);
    assert_eq!(pair.nodes[1].events.len(), events);
    pair.assert_talks();
}

#[test]
fn trust_11_no_data_before_the_first_packet_opens() {
    let mut pair = Pair::new(7);
    pair.connect(0);
    pair.run_ms(500);
    let request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    pair.nodes[1] = Node::new(config(1, 201), 0);
    let attacker = Path::direct("203.0.113.9:9".parse().unwrap());
    pair.deliver(1, &request, attacker).unwrap();
    assert!(pair.current(1).is_none());
    pair.nodes[0].tunnels.close_all(pair.now);
    pair.run_ms(30_000);
    assert_eq!(pair.nodes[1].usable(), 0);
    assert!(matches!(
        pair.nodes[1].events.last(),
        Some(TunnelEvent::Closed {
            reason: CloseReason::Unconfirmed,
            ..
        })
    ));
    assert_eq!(pair.nodes[1].tunnels.poll_timeout(), None);
}

#[test]
fn trust_11_half_open_handshakes_are_capped_per_prefix() {
    let mut pair = Pair::new(8);
    let from = Path::direct(addr(0));
    let mut refused = 0;
    for n in 2..2 + MAX_HALF_OPEN_PER_SOURCE + 3 {
        let mut tunnels = Tunnels::new(config(n, 1), 0);
        let wall = pair.wall();
        tunnels.connect(
            pair.now,
            wall,
            &mut pair.keys,
            peer_id(1),
            static_key(1),
            &[Path::direct(addr(1))],
        );
        let request = tunnels.poll_transmit().unwrap().bytes;
        if pair.deliver(1, &request, from) == Err(DropReason::HandshakeLimit) {
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
    pair.run_ms(30_000);
    assert_eq!(pair.nodes[1].tunnels.sessions().count(), 0);
    // There is room again.
    pair.connect(0);
    pair.run_ms(200);
    pair.assert_talks();
}

#[test]
fn what_was_not_asked_is_refused() {
    let mut pair = Pair::new(9);
    pair.connect(0);
    pair.run_ms(200);
    let answer = pair.first_sent(DatagramKind::HandshakeResponse, 0);
    pair.nodes[0].tunnels.close_all(pair.now);
    let from = Path::direct(addr(1));
    assert_eq!(
        pair.deliver(0, &answer, from),
        Err(DropReason::HandshakeUnexpected)
    );
    assert_eq!(
        pair.deliver(0, &[3; 80], from),
        Err(DropReason::MalformedDatagram)
    );
    assert_eq!(
        pair.deliver(0, &[0x3f], from),
        Err(DropReason::UnknownDatagramKind)
    );
}

#[test]
fn trust_11_one_half_open_handshake_per_peer() {
    let mut pair = Pair::new(10);
    let from = Path::direct(addr(0));
    for n in 0..50 {
        let mut tunnels = Tunnels::new(config(0, n), 0);
        let wall = crate::time::UnixTime(pair.wall().0 + u64::from(n));
        let (now, keys) = (pair.now, &mut pair.keys);
        let path = [Path::direct(addr(1))];
        tunnels.connect(now, wall, keys, peer_id(1), static_key(1), &path);
        let request = tunnels.poll_transmit().unwrap().bytes;
        pair.deliver(1, &request, from).unwrap();
        assert_eq!(pair.nodes[1].tunnels.sessions().count(), 1);
    }
}

/// 10,000 damaged copies of both messages of a handshake that is done, from both their own and
/// another address: nothing is sent, told or changed.
#[test]
fn trust_11_a_handshake_sent_again_in_any_shape_changes_nothing() {
    let mut pair = Pair::new(11);
    pair.connect(0);
    pair.run_ms(500);
    let seen = [
        (1, pair.first_sent(DatagramKind::HandshakeInit, 1), addr(0)),
        (
            0,
            pair.first_sent(DatagramKind::HandshakeResponse, 0),
            addr(1),
        ),
    ];
    let before = |pair: &Pair| {
        let facts = |n: usize| {
            let node = &pair.nodes[n];
            let index = pair.current(n).unwrap().local_index;
            (node.events.len(), node.tunnels.sessions().count(), index)
        };
        (facts(0), facts(1), pair.sent.len())
    };
    let first = before(&pair);
    let mut chance = nat_traversal::entropy::SeededEntropy::new(5);
    for round in 0..10_000 {
        let (to, good, source) = &seen[round % 2];
        let mut bytes = good.clone();
        let at = nat_traversal::entropy::Entropy::next_u64(&mut chance) as usize % bytes.len();
        match round / 2 % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << (at % 8),
            _ => {}
        }
        let elsewhere = "203.0.113.9:9".parse().unwrap();
        let from = if round % 5 == 0 { elsewhere } else { *source };
        pair.now += std::time::Duration::from_millis(1);
        let _ = pair.deliver(*to, &bytes, Path::direct(from));
    }
    // Message 1 came faster than the rate that asks for cookies only if it was intact or mac2 was
    // bent; then the one thing sent is a cookie reply, which its sender did not ask for.
    let cookies = pair.sent[first.2..]
        .iter()
        .filter(|flight| flight.bytes[0] == DatagramKind::CookieReply.byte())
        .count();
    let last = before(&pair);
    assert_eq!(
        (last.0, last.1, last.2),
        (first.0, first.1, first.2 + cookies)
    );
    pair.flights.clear();
    pair.assert_talks();
}
