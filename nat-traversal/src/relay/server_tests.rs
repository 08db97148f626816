//! The relay server and its client against each other, and against liars.

#![allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::entropy::SeededEntropy;
use crate::path::{AllocationId, RelayRoute};

const A: [u8; 32] = [0xa; 32];
const B: [u8; 32] = [0xb; 32];

struct Fixture {
    now: Instant,
    entropy: SeededEntropy,
    server: RelayServer,
    a: RelayClient,
    b: RelayClient,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addr_a() -> SocketAddr {
    addr("198.51.100.1:1000")
}

fn addr_b() -> SocketAddr {
    addr("203.0.113.1:2000")
}

impl Fixture {
    fn new(config: RelayServerConfig) -> Self {
        let now = Instant::now();
        let mut entropy = SeededEntropy::new(9);
        let mut server = RelayServer::new(config);
        let relay = addr("192.0.2.1:22611");
        let a = server.allocate(now, A, &mut entropy).unwrap();
        let b = server.allocate(now, B, &mut entropy).unwrap();
        Self {
            now,
            entropy,
            server,
            a: RelayClient::new(now, relay, a.allocation, a.key),
            b: RelayClient::new(now, relay, b.allocation, b.key),
        }
    }

    fn permitted(config: RelayServerConfig) -> Self {
        let mut it = Self::new(config);
        it.bind_both();
        let (a, b) = (it.a.allocation(), it.b.allocation());
        it.server.permit(it.now, A, a, &[B]).unwrap();
        it.server.permit(it.now, B, b, &[A]).unwrap();
        it
    }

    fn bind_both(&mut self) {
        bind(
            &mut self.server,
            &mut self.a,
            &mut self.entropy,
            self.now,
            addr_a(),
        );
        bind(
            &mut self.server,
            &mut self.b,
            &mut self.entropy,
            self.now,
            addr_b(),
        );
    }

    fn route(&self) -> RelayRoute {
        RelayRoute {
            own: self.a.allocation(),
            peer: self.b.allocation(),
        }
    }

    fn wrapped(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER_LEN + payload.len()];
        wrap(self.route(), &self.a.key(), payload, &mut out).unwrap();
        out
    }

    fn send(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(SocketAddr, Vec<u8>), RelayError> {
        let mut datagram = datagram.to_vec();
        let len = datagram.len();
        let out = self
            .server
            .handle_datagram(self.now, &mut self.entropy, from, &mut datagram)?;
        assert!(out.bytes.len() <= len, "bytes out <= bytes in");
        Ok((out.to, out.bytes.to_vec()))
    }
}

/// Runs a client's binds until it is silent; the client is seen at `from`.
fn bind(
    server: &mut RelayServer,
    client: &mut RelayClient,
    entropy: &mut SeededEntropy,
    now: Instant,
    from: SocketAddr,
) {
    client.handle_timeout(now);
    while let Some((relay, mut bytes)) = client.poll_transmit() {
        if let Ok(out) = server.handle_datagram(now, entropy, from, &mut bytes) {
            assert_eq!(out.to, from);
            client.handle_datagram(now, relay, out.bytes).unwrap();
        }
    }
}

#[test]
fn bound_and_permitted_peers_reach_each_other() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    let observed = addr_a();
    assert_eq!(
        it.a.poll_event(),
        Some(RelayClientEvent::Bound { observed })
    );
    let (to, bytes) = it.send(addr_a(), &it.wrapped(&[4, 1, 2, 3])).unwrap();
    assert_eq!(to, addr_b());
    let (route, payload) = unwrap(&bytes, &it.b.key()).unwrap();
    assert_eq!(
        (route.own, route.peer),
        (it.b.allocation(), it.a.allocation())
    );
    assert_eq!(&bytes[payload], [4, 1, 2, 3]);
    let reflected = it.send(addr_b(), &bytes);
    assert_eq!(
        reflected,
        Err(RelayError::BadMac),
        "what comes back fits no key"
    );
}

#[test]
fn trust_18_forged_and_foreign_datagrams_are_silently_dropped() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    let good = it.wrapped(&[4, 1]);
    let mut forged = good.clone();
    forged[HEADER_LEN + 1] ^= 1;
    assert_eq!(it.send(addr_a(), &forged), Err(RelayError::BadMac));
    let elsewhere = it.send(addr("198.51.100.66:1"), &good);
    assert_eq!(
        elsewhere,
        Err(RelayError::NotBound),
        "a source address changes nothing"
    );
    let mut unknown = good.clone();
    unknown[4] ^= 1;
    assert_eq!(
        it.send(addr_a(), &unknown),
        Err(RelayError::UnknownAllocation)
    );
    let mut nested = good;
    nested[HEADER_LEN] = KIND_BIND;
    assert_eq!(it.send(addr_a(), &nested), Err(RelayError::Payload));
}

#[test]
fn trust_18_relay_needs_both_permits() {
    let mut it = Fixture::new(RelayServerConfig::default());
    it.bind_both();
    let datagram = it.wrapped(&[4]);
    let (a, b) = (it.a.allocation(), it.b.allocation());
    assert_eq!(it.send(addr_a(), &datagram), Err(RelayError::NotPermitted));
    it.server.permit(it.now, A, a, &[B]).unwrap();
    assert_eq!(it.send(addr_a(), &datagram), Err(RelayError::NotPermitted));
    assert_eq!(
        it.server.permit(it.now, A, b, &[A]),
        Err(RelayError::NotOwner)
    );
    it.server.permit(it.now, B, b, &[A]).unwrap();
    assert!(it.send(addr_a(), &datagram).is_ok());

    // The receiver alone is not enough either.
    let mut other = Fixture::new(RelayServerConfig::default());
    other.bind_both();
    let (b, datagram) = (other.b.allocation(), other.wrapped(&[4]));
    other.server.permit(other.now, B, b, &[A]).unwrap();
    let refused = other.send(addr_a(), &datagram);
    assert_eq!(refused, Err(RelayError::NotPermitted));

    it.server.revoke_owner(&B);
    assert_eq!(
        it.send(addr_a(), &datagram),
        Err(RelayError::UnknownAllocation)
    );
}

#[test]
fn trust_18_the_address_changes_only_by_a_challenge() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    let moved = addr("198.51.100.2:7");
    let thief = addr("203.0.113.99:7");
    it.now += Duration::from_secs(15);
    it.a.handle_timeout(it.now);
    let (_, fresh) = it.a.poll_transmit().unwrap();
    let (to, challenge) = it.send(thief, &fresh).unwrap();
    assert_eq!((to, challenge[0]), (thief, KIND_CHALLENGE));
    assert_eq!(it.send(addr_a(), &fresh), Err(RelayError::Replayed));
    assert!(
        it.send(addr_a(), &it.wrapped(&[4])).is_ok(),
        "still bound where it was"
    );

    // The thief's challenge, answered from elsewhere, binds nothing.
    let number = Challenge::decode(&challenge, &it.a.key())
        .unwrap()
        .challenge;
    let echo = Bind {
        allocation: it.a.allocation(),
        counter: 1_000,
        echo: number,
    };
    let refused = it.send(moved, &echo.encode(&it.a.key()));
    assert_eq!(refused, Err(RelayError::BadEcho));

    let id = it.a.allocation();
    let bind = |counter, echo| Bind {
        allocation: id,
        counter,
        echo,
    };
    let key = it.a.key();
    let (_, challenge) = it.send(moved, &bind(1_001, 0).encode(&key)).unwrap();
    let number = Challenge::decode(&challenge, &key).unwrap().challenge;
    let (_, ack) = it.send(moved, &bind(1_002, number).encode(&key)).unwrap();
    assert_eq!(Ack::decode(&ack, &key).unwrap().observed, moved);
    assert!(it.send(moved, &it.wrapped(&[4])).is_ok());
}

#[test]
fn trust_18_the_quota_holds_and_refills() {
    let config = RelayServerConfig {
        bytes_per_second: 1_000.0,
        burst_bytes: 100.0,
        ..RelayServerConfig::default()
    };
    let mut it = Fixture::permitted(config);
    let datagram = it.wrapped(&[4; 72]);
    assert!(it.send(addr_a(), &datagram).is_ok());
    assert_eq!(it.send(addr_a(), &datagram), Err(RelayError::Quota));
    it.now += Duration::from_millis(101);
    assert!(it.send(addr_a(), &datagram).is_ok());
    assert_eq!(it.server.stats().forwarded, 2);
}

#[test]
fn allocations_end_and_are_bounded() {
    let config = RelayServerConfig {
        max_allocations: 2,
        ..RelayServerConfig::default()
    };
    let mut it = Fixture::permitted(config);
    let full = it.server.allocate(it.now, [1; 32], &mut it.entropy);
    assert_eq!(full, Err(RelayError::Full));
    it.now += Duration::from_secs(300);
    bind(&mut it.server, &mut it.a, &mut it.entropy, it.now, addr_a());
    it.now += Duration::from_secs(301);
    it.server.handle_timeout(it.now);
    assert_eq!(it.server.len(), 1, "a bind extends, silence ends");
    assert!(it.server.allocate(it.now, [1; 32], &mut it.entropy).is_ok());
}

#[test]
fn a_repeat_keeps_the_id_and_voids_the_key() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    let old = it.wrapped(&[4]);
    let again = it.server.allocate(it.now, A, &mut it.entropy).unwrap();
    assert!(again.renewed && again.allocation == it.a.allocation() && again.key != it.a.key());
    assert_eq!(it.send(addr_a(), &old), Err(RelayError::BadMac));
    it.a = RelayClient::new(it.now, it.a.relay(), again.allocation, again.key);
    bind(&mut it.server, &mut it.a, &mut it.entropy, it.now, addr_a());
    assert!(
        it.send(addr_a(), &it.wrapped(&[4])).is_ok(),
        "permits stand"
    );
}

#[test]
fn permits_are_bounded() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    let many: Vec<[u8; 32]> = (0..300u16)
        .map(|n| {
            let mut peer = [0xcc; 32];
            peer[..2].copy_from_slice(&n.to_be_bytes());
            peer
        })
        .collect();
    it.server
        .permit(it.now, A, it.a.allocation(), &many)
        .unwrap();
    assert_eq!(
        it.send(addr_a(), &it.wrapped(&[4])),
        Err(RelayError::NotPermitted)
    );
}

#[test]
fn a_silent_relay_is_lost_and_found() {
    let mut it = Fixture::permitted(RelayServerConfig::default());
    assert!(it.a.poll_event().is_some());
    let bound_at = it.now;
    let lost_at = loop {
        let due = it.a.poll_timeout().unwrap();
        it.a.handle_timeout(due);
        while it.a.poll_transmit().is_some() {}
        if it.a.poll_event() == Some(RelayClientEvent::Lost) {
            break due;
        }
    };
    assert_eq!(lost_at - bound_at, Duration::from_millis(15_000 + 4_500));
    assert_eq!(it.a.bound(), None);
    it.now = it.a.poll_timeout().unwrap();
    bind(&mut it.server, &mut it.a, &mut it.entropy, it.now, addr_a());
    assert_eq!(it.a.bound(), Some(addr_a()));
    // A challenge to a repetition comes when all is done: nothing is wrong, and nothing is answered.
    let late = it.a.handle_datagram(
        it.now,
        it.a.relay(),
        &Challenge {
            allocation: AllocationId(it.a.allocation().0),
            challenge: 5,
        }
        .encode(&it.a.key()),
    );
    assert_eq!(late, Ok(()));
    assert_eq!(it.a.poll_transmit(), None);
}
