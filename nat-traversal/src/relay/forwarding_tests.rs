//! Trains through the relay: what leaves as one, what is split, what waits, what is dropped.

#![allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::entropy::SeededEntropy;
use crate::path::RelayRoute;

/// Three owners, all bound, all permitting each other.
struct Fixture {
    now: Instant,
    server: RelayServer,
    clients: Vec<RelayClient>,
}

/// One send of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    to: SocketAddr,
    mark: u8,
    segment: usize,
    bytes: Vec<u8>,
}

fn addr(owner: usize) -> SocketAddr {
    ([192, 0, 2, u8::try_from(owner).unwrap()], 4000).into()
}

impl Fixture {
    fn new(config: RelayServerConfig) -> Self {
        let now = Instant::now();
        let mut entropy = SeededEntropy::new(3);
        let mut server = RelayServer::new(config);
        let relay = "192.0.2.99:1".parse().unwrap();
        let owner = |n: u8| [n; 32];
        let mut clients = Vec::new();
        for n in 0..3 {
            let grant = server.allocate(now, owner(n), &mut entropy).unwrap();
            let mut client = RelayClient::new(now, relay, grant.allocation, grant.key);
            client.handle_timeout(now);
            while let Some((_, mut bytes)) = client.poll_transmit() {
                let from = addr(usize::from(n));
                let answer = server.handle_datagram(now, &mut entropy, from, &mut bytes);
                let answer = answer.unwrap().bytes;
                client.handle_datagram(now, relay, answer).unwrap();
            }
            server
                .permit(
                    now,
                    owner(n),
                    grant.allocation,
                    &[owner(0), owner(1), owner(2)],
                )
                .unwrap();
            clients.push(client);
        }
        Self {
            now,
            server,
            clients,
        }
    }

    fn wrapped(&self, from: usize, to: usize, payload: &[u8]) -> Vec<u8> {
        let route = RelayRoute {
            own: self.clients[from].allocation(),
            peer: self.clients[to].allocation(),
        };
        let mut out = vec![0; HEADER_LEN + payload.len()];
        wrap(route, &self.clients[from].key(), payload, &mut out).unwrap();
        out
    }

    fn train(&mut self, from: usize, bytes: &[u8], segment: usize) -> Vec<Sent> {
        let mut bytes = bytes.to_vec();
        let mut out = Vec::new();
        let origin = TrainOrigin {
            from: addr(from),
            mark: 0x2e,
        };
        let now = self.now;
        self.server
            .forward_train(now, origin, &mut bytes, segment, &mut |run| {
                keep(&mut out, run)
            });
        out
    }

    fn released(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        self.server
            .poll_release(self.now, &mut |run| keep(&mut out, run));
        out
    }

    /// The payloads of what came for `to`, each checked.
    fn payloads(&self, to: usize, sent: &[Sent]) -> Vec<Vec<u8>> {
        let mine = sent.iter().filter(|sent| sent.to == addr(to));
        let datagrams = mine.flat_map(|sent| sent.bytes.chunks(sent.segment));
        let key = self.clients[to].key();
        datagrams
            .map(|bytes| bytes[unwrap(bytes, &key).unwrap().1].to_vec())
            .collect()
    }
}

fn keep(out: &mut Vec<Sent>, run: RelayRun<'_>) {
    out.push(Sent {
        to: run.to,
        mark: run.mark,
        segment: run.segment,
        bytes: run.bytes.to_vec(),
    });
}

fn payload(number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![number; len];
    bytes[0] = 4;
    bytes
}

#[test]
fn a_train_of_one_session_leaves_as_one() {
    let mut it = Fixture::new(RelayServerConfig::default());
    let payloads: Vec<_> = (0..40)
        .map(|n| payload(n, if n == 39 { 300 } else { 1_400 }))
        .collect();
    let train: Vec<_> = payloads.iter().map(|p| it.wrapped(0, 1, p)).collect();
    let sent = it.train(0, &train.concat(), 1_400 + HEADER_LEN);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].mark, sent[0].segment), (0x2e, 1_428));
    assert_eq!(
        sent[0].bytes.len(),
        train.concat().len(),
        "bytes out are bytes in"
    );
    assert_eq!(it.payloads(1, &sent), payloads);
    assert_eq!(it.server.stats().forwarded, 40);
}

#[test]
fn a_train_of_several_sessions_is_split_into_runs() {
    let mut it = Fixture::new(RelayServerConfig::default());
    let to = [1, 1, 2, 1, 2, 2, 2];
    let train: Vec<_> = to
        .iter()
        .enumerate()
        .map(|(n, &to)| it.wrapped(0, to, &payload(u8::try_from(n).unwrap(), 100)))
        .collect();
    let sent = it.train(0, &train.concat(), 100 + HEADER_LEN);
    let lengths: Vec<_> = sent
        .iter()
        .map(|sent| (sent.to, sent.bytes.len() / 128))
        .collect();
    let expected = [(1, 2), (2, 1), (1, 1), (2, 3)].map(|(to, count)| (addr(to), count));
    assert_eq!(lengths, expected);
    assert_eq!(it.payloads(1, &sent).len(), 3);
    assert_eq!(it.payloads(2, &sent).len(), 4);
}

#[test]
fn trust_18_each_datagram_of_a_train_is_judged() {
    let mut it = Fixture::new(RelayServerConfig::default());
    let mut train: Vec<_> = (0..6).map(|n| it.wrapped(0, 1, &payload(n, 100))).collect();
    // A flipped bit, another sender's datagram, and a payload that may not be relayed.
    train[1][HEADER_LEN + 50] ^= 1;
    train[3] = it.wrapped(2, 1, &payload(3, 100));
    train[4][HEADER_LEN] = KIND_BIND;
    let sent = it.train(0, &train.concat(), 100 + HEADER_LEN);
    let passed = [0, 2, 5].map(|n| payload(n, 100));
    assert_eq!(it.payloads(1, &sent), passed);
    assert_eq!(it.server.stats().refused, 3);
    assert_eq!(
        it.train(2, &train[0], 128),
        [],
        "not from where it is bound"
    );
}

#[test]
fn a_train_that_lies_about_its_size_harms_nobody() {
    let mut it = Fixture::new(RelayServerConfig::default());
    let datagram = it.wrapped(0, 1, &payload(1, 100));
    for segment in [0, 1, 27, 129, usize::MAX] {
        let sent = it.train(0, &datagram, segment);
        assert_eq!(sent.len(), usize::from(segment >= 128), "{segment}");
    }
    assert_eq!(it.train(0, &[], 100), []);
}

/// A sender twice as fast as its quota, in trains of 64 KiB, for two seconds.
#[test]
fn what_comes_too_early_waits_and_leaves_at_the_rate() {
    const RATE: f64 = 12_500_000.0;
    let config = RelayServerConfig::with_rate(RATE);
    let mut it = Fixture::new(config);
    let start = it.now;
    let train = it.wrapped(0, 1, &payload(1, 1_400)).repeat(45);
    let gap = Duration::from_secs_f64(train.len() as f64 / RATE / 2.0);
    let (mut next, mut bytes, mut longest_run) = (start, 0, 0);
    while it.now < start + Duration::from_secs(2) {
        let sent = if it.now >= next {
            next += gap;
            it.train(0, &train, 1_428)
        } else {
            it.released()
        };
        for sent in sent {
            assert_eq!(sent.bytes.len() % 1_428, 0, "whole datagrams");
            longest_run = longest_run.max(sent.bytes.len());
            bytes += sent.bytes.len() / 1_428 * 1_400;
        }
        let elapsed = (it.now - start).as_secs_f64();
        let allowed = RATE.mul_add(elapsed, config.burst_bytes);
        assert!(bytes as f64 <= allowed + 1.0, "{bytes} after {elapsed} s");
        assert!(it.server.held <= config.queue_bytes);
        it.now = it
            .server
            .release_at()
            .map_or(next, |at| at.min(next))
            .max(it.now);
    }
    let reached = bytes as f64 / (RATE * 2.0);
    assert!(reached >= 0.99, "{reached}");
    assert!(longest_run >= 10 * 1_428, "runs of 16 KB: {longest_run}");
    let stats = it.server.stats();
    assert!(stats.delayed > 0 && stats.over_quota > 0, "{stats:?}");
    let waits = config.queue_bytes as f64 / RATE;
    assert!(waits <= 0.022, "{waits} s");
}

#[test]
fn order_is_kept_and_the_mark_stays() {
    let config = RelayServerConfig {
        bytes_per_second: 100_000.0,
        burst_bytes: 1_000.0,
        ..RelayServerConfig::default()
    };
    let mut it = Fixture::new(config);
    let mut sent = Vec::new();
    for n in 0..50 {
        let to = usize::from(1 + n % 2);
        let datagram = it.wrapped(0, to, &payload(n, 100));
        sent.extend(it.train(0, &datagram, 128));
    }
    assert_eq!(sent.len(), 10, "the burst");
    while let Some(at) = it.server.release_at() {
        assert!(at > it.now, "each wait ends");
        it.now = at;
        let released = it.released();
        assert!(!released.is_empty());
        sent.extend(released);
    }
    assert!(sent.iter().all(|sent| sent.mark == 0x2e));
    for to in 1..3 {
        let numbers: Vec<_> = it.payloads(to, &sent).iter().map(|p| p[1]).collect();
        let expected: Vec<_> = (0..50).filter(|n| usize::from(1 + n % 2) == to).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn what_waits_is_bounded_for_each_owner_and_in_all() {
    let config = RelayServerConfig {
        bytes_per_second: 1_000.0,
        burst_bytes: 2_000.0,
        queue_bytes: 20_000,
        queue_bytes_in_all: 30_000,
        ..RelayServerConfig::default()
    };
    let mut it = Fixture::new(config);
    for from in 0..3 {
        let to = (from + 1) % 3;
        let train = it.wrapped(from, to, &payload(1, 1_000)).repeat(10);
        for _ in 0..10 {
            it.train(from, &train, 1_028);
        }
    }
    assert!(
        (28_000..=30_000).contains(&it.server.held),
        "{}",
        it.server.held
    );
    // Small ones cost more than their bytes.
    it.now += Duration::from_secs(60);
    it.released();
    let small = it.wrapped(0, 1, &[4]);
    for _ in 0..1_000 {
        it.train(0, &small, 29);
    }
    assert!(it.server.held <= 30_000);
    // Whoever leaves takes along what waits.
    for owner in 0..3 {
        it.server.revoke_owner(&[owner; 32]);
    }
    it.released();
    assert_eq!((it.server.held, it.server.release_at()), (0, None));
}
