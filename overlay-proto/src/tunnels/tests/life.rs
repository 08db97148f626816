//! Rekeying, restarts, the end.

use std::time::Duration;

use nat_traversal::path::Path;

use super::pair::*;
use crate::drop_reason::DropReason;
use crate::session::REKEY_AFTER;
use crate::tunnels::{CloseReason, HANDSHAKE_TIMEOUT, TunnelEvent};
use crate::wire::{Lane, SessionIndex};

#[test]
fn rekeying_keeps_traffic() {
    let mut pair = Pair::new(1);
    pair.jitter_ms = 30;
    pair.connect(0);
    pair.run_ms(1_000);
    let seconds = 500;
    for _ in 0..seconds {
        pair.send(0, b"there");
        pair.send(1, b"back");
        pair.run_ms(1_000);
    }
    for node in &pair.nodes {
        assert_eq!(node.bodies.len(), seconds, "nothing lost");
        assert_eq!(node.usable(), 1);
        assert_eq!(node.rekeyed(), 4);
        assert!(node.tunnels.sessions().count() <= 4);
    }
    // The initiator stays the initiator.
    assert!(pair.current(0).unwrap().was_initiator());
}

#[test]
fn trust_13_indices_are_not_used_again() {
    let mut pair = Pair::new(2);
    pair.loss = 200;
    pair.duplication = 100;
    pair.jitter_ms = 100;
    pair.connect(0);
    pair.connect(1);
    for _ in 0..60 {
        pair.run_ms(20_000);
        pair.connect(0);
    }
    for n in 0..2 {
        pair.nodes[n]
            .tunnels
            .set_wanted(pair.now, peer_id(1 - n), false);
    }
    pair.run(Duration::from_secs(400));
    for node in &pair.nodes {
        assert_eq!(node.tunnels.sessions().count(), 0);
        assert_eq!(node.tunnels.poll_timeout(), None);
        let mut opened: Vec<SessionIndex> = Vec::new();
        let mut closed: Vec<SessionIndex> = Vec::new();
        for event in &node.events {
            match event {
                TunnelEvent::Established { session, .. } => opened.push(session.local_index),
                TunnelEvent::Closed { index, .. } => closed.push(*index),
                _ => {}
            }
        }
        opened.sort();
        closed.sort();
        assert_eq!(opened, closed);
        let distinct = opened.len();
        opened.dedup();
        assert_eq!(opened.len(), distinct, "indices are not used again");
    }
}

#[test]
fn the_responder_steps_in_when_the_initiator_does_not_rekey() {
    let mut pair = Pair::new(3);
    pair.connect(0);
    pair.run_ms(500);
    pair.nodes[0]
        .tunnels
        .set_wanted(pair.now, peer_id(1), false);
    pair.nodes[1].tunnels.set_wanted(pair.now, peer_id(0), true);
    pair.run(REKEY_AFTER + Duration::from_secs(10));
    assert_eq!(pair.nodes[1].rekeyed(), 0);
    pair.run(Duration::from_secs(15));
    assert_eq!(pair.nodes[1].rekeyed(), 1);
    assert!(pair.current(1).unwrap().was_initiator());
    pair.assert_talks();
}

#[test]
fn unwanted_sessions_die() {
    let mut pair = Pair::new(4);
    pair.connect(0);
    pair.run_ms(500);
    pair.nodes[0]
        .tunnels
        .set_wanted(pair.now, peer_id(1), false);
    pair.run(Duration::from_secs(181));
    for node in &pair.nodes {
        assert!(matches!(
            node.events.last(),
            Some(TunnelEvent::Closed {
                reason: CloseReason::Expired,
                ..
            })
        ));
        assert_eq!(node.tunnels.poll_timeout(), None);
    }
}

#[test]
fn a_restart_replaces_the_session() {
    for restarted in 0..2 {
        let mut pair = Pair::new(5);
        pair.connect(0);
        pair.run_ms(5_000);
        let last = pair.nodes[restarted].tunnels.last_timestamp();
        pair.nodes[restarted] = Node::new(config(restarted, 300), last);
        pair.connect(restarted);
        pair.run_ms(500);
        let other = &pair.nodes[1 - restarted];
        assert_eq!(other.usable(), 2);
        assert_eq!(other.tunnels.sessions().count(), 1);
        assert!(other.events.iter().any(|event| matches!(
            event,
            TunnelEvent::Closed {
                reason: CloseReason::PeerRestarted,
                ..
            }
        )));
        pair.assert_talks();
    }
}

#[test]
fn trust_11_timestamps_grow_over_a_restart_with_the_clock_back() {
    let mut pair = Pair::new(6);
    pair.start = pair.now;
    pair.connect(0);
    pair.run_ms(500);
    let last = pair.nodes[0].tunnels.last_timestamp();
    // Without the timestamp from disk the peer refuses: the clock gives the same value again.
    pair.start = pair.now;
    pair.nodes[0] = Node::new(config(0, 101), 0);
    pair.connect(0);
    pair.run_ms(50);
    assert_eq!(pair.nodes[1].drops, [DropReason::HandshakeReplayed]);
    pair.start = pair.now;
    pair.nodes[0] = Node::new(config(0, 102), last);
    pair.connect(0);
    pair.run_ms(500);
    assert!(pair.nodes[0].tunnels.last_timestamp() > last);
    pair.assert_talks();
}

#[test]
fn no_answer_is_a_failure_with_a_name() {
    let mut pair = Pair::new(7);
    pair.loss = 1_000;
    pair.connect(0);
    let began = pair.now;
    pair.run(HANDSHAKE_TIMEOUT - Duration::from_millis(1));
    assert!(pair.nodes[0].events.is_empty());
    let when: Vec<u128> = pair
        .sent
        .iter()
        .map(|flight| (flight.at - began - pair.latency).as_millis())
        .collect();
    assert_eq!(when, [0, 100, 300, 700, 1500, 3100, 6100, 9100]);
    pair.run_ms(2);
    assert!(matches!(
        pair.nodes[0].events.as_slice(),
        [TunnelEvent::HandshakeFailed {
            reason: DropReason::NoSession,
            ..
        }]
    ));
    assert_eq!(pair.nodes[0].tunnels.poll_timeout(), None);
}

#[test]
fn a_rekey_over_a_broken_path_goes_on_until_it_heals() {
    let mut pair = Pair::new(8);
    pair.connect(0);
    pair.run(REKEY_AFTER - Duration::from_secs(5));
    pair.loss = 1_000;
    pair.run(Duration::from_secs(35));
    pair.loss = 0;
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.nodes[0].rekeyed(), 1);
    pair.assert_talks();
}

#[test]
fn an_initiator_that_is_never_heard_tries_again() {
    let mut pair = Pair::new(9);
    pair.connect(0);
    pair.run_ms(45);
    // The answer has arrived; now the way to the responder breaks.
    assert!(pair.current(0).is_some());
    pair.flights.clear();
    pair.loss = 1_000;
    pair.run(Duration::from_secs(20));
    assert!(pair.current(1).is_none());
    pair.loss = 0;
    pair.run(Duration::from_secs(20));
    pair.assert_talks();
}

#[test]
fn trust_12_after_a_jump_of_the_clock_no_old_session_seals_or_opens() {
    let mut pair = Pair::new(31);
    pair.connect(0);
    pair.run_ms(500);
    pair.send(1, b"under way");
    let old: Vec<_> = pair.nodes[0].tunnels.sessions().cloned().collect();
    assert!(!old.is_empty());
    pair.nodes[0].tunnels.close_all(pair.now);
    pair.collect();
    assert_eq!(pair.nodes[0].tunnels.sessions().count(), 0);
    // A worker may hold an older forwarding table for a moment.
    for session in &old {
        let sealed = session.seal_into(Lane(1), b"inner", b"frame", &mut [0; 200]);
        assert!(sealed.is_err());
    }
    let heard = pair.nodes[0].bodies.len();
    pair.run_ms(500);
    assert_eq!(pair.nodes[0].bodies.len(), heard, "nothing opens");
    // The other side still has its session, and takes the new one.
    pair.connect(0);
    pair.run_ms(500);
    pair.assert_talks();
}

#[test]
fn message_1_is_repeated_out_of_turn_on_its_own_paths_only() {
    let mut pair = Pair::new(32);
    let [known, other] = [addr(1), "192.0.2.99:9".parse().unwrap()].map(Path::direct);
    assert!(
        !pair.nodes[0].tunnels.repeat(peer_id(1), known),
        "no handshake"
    );
    pair.loss = 1000;
    pair.connect(0);
    pair.run_ms(3_500);
    pair.loss = 0;
    let before = pair.sent.len();
    assert!(!pair.nodes[0].tunnels.repeat(peer_id(1), other));
    assert!(pair.nodes[0].tunnels.repeat(peer_id(1), known));
    pair.collect();
    assert_eq!(pair.sent.len(), before + 1);
    pair.run_ms(200);
    pair.assert_talks();
    assert!(
        !pair.nodes[0].tunnels.repeat(peer_id(1), known),
        "it is done"
    );
}
