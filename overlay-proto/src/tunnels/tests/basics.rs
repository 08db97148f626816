//! Handshakes on good and bad networks.

use nat_traversal::path::Path;

use super::pair::*;
use crate::session::Suite;
use crate::tunnels::{TunnelEvent, TunnelsConfig};
use crate::wire::{DatagramKind, SAFE_DATAGRAM};

#[test]
fn completes_and_shares_networks() {
    let mut pair = Pair::new(1);
    pair.connect(0);
    pair.run_ms(200);
    assert_eq!([pair.nodes[0].usable(), pair.nodes[1].usable()], [1, 1]);
    let a = pair.current(0).unwrap();
    let b = pair.current(1).unwrap();
    assert_eq!(a.peer, peer_id(1));
    assert_eq!(b.peer, peer_id(0));
    assert_eq!(a.remote_index, b.local_index);
    assert!(a.was_initiator() && !b.was_initiator());
    assert_eq!(a.networks.len(), 1);
    assert_eq!(a.networks[0].network, LAB);
    assert_eq!(a.networks[0].send, b.networks[0].receive);
    assert_eq!(a.networks[0].receive, b.networks[0].send);
    pair.assert_talks();
    assert!(pair.nodes.iter().all(|node| node.drops.is_empty()));
}

#[test]
fn trust_12_the_suite_is_the_one_that_is_good_for_both() {
    const WITH_AES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    const WITHOUT: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    for (lists, agreed) in [
        ([WITH_AES, WITH_AES], Suite::Aes256Gcm),
        ([WITH_AES, WITHOUT], Suite::ChaCha20Poly1305),
        ([WITHOUT, WITH_AES], Suite::ChaCha20Poly1305),
        ([WITHOUT, WITHOUT], Suite::ChaCha20Poly1305),
    ] {
        let mut pair = Pair::new(7);
        for (n, suites) in lists.into_iter().enumerate() {
            let config = TunnelsConfig {
                suites,
                ..config(n, 1)
            };
            pair.nodes[n] = Node::new(config, 0);
        }
        pair.connect(0);
        pair.run_ms(200);
        assert_eq!(pair.current(0).unwrap().suite(), agreed, "{lists:?}");
        assert_eq!(pair.current(1).unwrap().suite(), agreed, "{lists:?}");
        pair.assert_talks();
    }
}

#[test]
fn idle_after_the_handshake() {
    let mut pair = Pair::new(2);
    pair.connect(0);
    pair.run_ms(60_000);
    // Message 1 and 2, a greeting, its answer.
    assert_eq!(pair.sent.len(), 4);
}

#[test]
fn only_networks_of_both_and_of_the_chain_are_shared() {
    let mut pair = Pair::new(3);
    pair.nodes[0].tunnels.set_networks(vec![HOME, LAB]);
    pair.nodes[1].tunnels.set_networks(vec![LAB, HOME]);
    pair.verifier.networks = vec![HOME];
    pair.connect(0);
    pair.run_ms(200);
    for n in 0..2 {
        let shared = &pair.current(n).unwrap().networks;
        assert_eq!(shared.len(), 1);
        assert_eq!(shared[0].network, HOME);
    }
}

#[test]
fn survives_loss_duplication_and_reordering() {
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.loss = 300;
        pair.duplication = 200;
        pair.jitter_ms = 300;
        pair.connect((seed % 2) as usize);
        pair.run_ms(15_000);
        pair.loss = 0;
        for n in 0..2 {
            assert!(pair.current(n).is_some(), "seed {seed}, node {n}");
        }
        pair.duplication = 0;
        pair.jitter_ms = 0;
        pair.run_ms(1_000);
        pair.assert_talks();
    }
}

#[test]
fn trust_11_simultaneous_start_both_complete_and_the_lower_one_sends() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.connect(1);
        pair.run_ms(seed % 15);
        pair.connect(0);
        pair.run_ms(1_000);
        for n in 0..2 {
            let sessions = pair.nodes[n].tunnels.sessions().count();
            assert_eq!(sessions, 2, "seed {seed}");
            assert_eq!(pair.nodes[n].usable(), 1);
        }
        // Node 0 has the lower PeerId.
        assert!(pair.current(0).unwrap().was_initiator(), "seed {seed}");
        assert!(!pair.current(1).unwrap().was_initiator(), "seed {seed}");
        pair.assert_talks();
    }
}

#[test]
fn simultaneous_start_on_a_bad_network_still_talks() {
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.loss = 200;
        pair.duplication = 200;
        pair.jitter_ms = 200;
        pair.connect(0);
        pair.connect(1);
        pair.run_ms(15_000);
        pair.loss = 0;
        pair.duplication = 0;
        pair.jitter_ms = 0;
        pair.run_ms(1_000);
        pair.assert_talks();
    }
}

#[test]
fn one_message_on_all_paths_and_later_ones_join() {
    let mut pair = Pair::new(4);
    let path = |port: u16| Path::direct(format!("192.0.1.1:{port}").parse().unwrap());
    let first: Vec<Path> = (1..=3).map(path).collect();
    pair.connect_with(0, peer_id(1), static_key(1), &first);
    assert_eq!(pair.sent.len(), 3);
    let more: Vec<Path> = (3..=20).map(path).collect();
    pair.connect_with(0, peer_id(1), static_key(1), &more);
    assert_eq!(pair.sent.len(), 8);
    assert!(
        pair.sent
            .iter()
            .all(|flight| flight.bytes == pair.sent[0].bytes)
    );
    pair.run_ms(1_000);
    assert_eq!([pair.nodes[0].usable(), pair.nodes[1].usable()], [1, 1]);
    // Seven more answers came, and none counts as an attack.
    assert!(pair.nodes[0].drops.is_empty(), "{:?}", pair.nodes[0].drops);
}

#[test]
fn an_identical_repetition_gets_the_identical_answer() {
    let mut pair = Pair::new(5);
    pair.connect(0);
    let request = pair.first_sent(DatagramKind::HandshakeInit, 1);
    let elsewhere = Path::direct("198.51.100.7:9".parse().unwrap());
    pair.deliver(1, &request, elsewhere).unwrap();
    pair.deliver(1, &request, Path::direct(addr(0))).unwrap();
    let answers: Vec<_> = pair.sent.iter().filter(|f| f.to == 0).collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].bytes, answers[1].bytes);
    assert_eq!(pair.nodes[1].events.len(), 1);
}

#[test]
fn trust_11_both_messages_fit_with_the_largest_chain() {
    let mut pair = Pair::new(6);
    let networks: Vec<_> = (0..8).map(|n| crate::ids::NetworkId([n; 32])).collect();
    pair.verifier.networks.clone_from(&networks);
    for n in 0..2 {
        let mut chain = chain_of(peer_id(n));
        chain.resize(crate::handshake::MAX_CHAIN, 7);
        let tunnels = &mut pair.nodes[n].tunnels;
        tunnels.set_identity(chain, static_key(n).to_vec());
        tunnels.set_networks(networks.clone());
    }
    pair.connect(0);
    pair.run_ms(200);
    let first = pair.first_sent(DatagramKind::HandshakeInit, 1);
    let second = pair.first_sent(DatagramKind::HandshakeResponse, 0);
    assert_eq!(first.len(), SAFE_DATAGRAM);
    assert!(second.len() <= first.len());
    assert_eq!(pair.current(0).unwrap().networks.len(), 8);
    let chains = pair.nodes[1].events.iter().find_map(|event| match event {
        TunnelEvent::Established { peer_chain, .. } => Some(peer_chain.len()),
        _ => None,
    });
    assert_eq!(chains, Some(crate::handshake::MAX_CHAIN));
}
