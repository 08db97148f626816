//! What holds of every network: the same seed is the same history, and no datagram is unaccounted for.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use nat_traversal::entropy::{Entropy, SeededEntropy};
use proptest::prelude::*;

use super::*;
use crate::net::link::TooLarge;
use crate::net::nat::NatBehaviour;
use crate::net::random::{Share, below, stream};

const BEHAVIOURS: [NatBehaviour; 8] = [
    NatBehaviour::PORT_PRESERVING,
    NatBehaviour::PORT_REWRITING,
    NatBehaviour::FULL_CONE,
    NatBehaviour::SYMMETRIC,
    NatBehaviour::BARE_LINUX,
    NatBehaviour::PROVIDER,
    NatBehaviour::UDP_BLOCKED,
    NatBehaviour::STATEFUL_FIREWALL,
];

/// Homes of two hosts each behind gateways by chance, over links with everything a link does, and a chatter
/// between them: to reflexive addresses, which the public hosts send round, and back to whoever was heard.
struct Chatter {
    net: Net,
    now: Duration,
    chance: SeededEntropy,
    hosts: Vec<(HostId, SocketAddr)>,
    heard: Vec<SocketAddr>,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Chatter {
    fn new(seed: u64, homes: u8) -> Self {
        let mut chatter = Self {
            net: Net::new(seed),
            now: ms(0),
            chance: stream(seed, "chatter"),
            hosts: Vec::new(),
            heard: Vec::new(),
        };
        chatter.net.set_medium(Net::INTERNET, ms(8));
        chatter.net.trace_mut().keep(20);
        for n in 0..3 {
            chatter.add_host(Net::INTERNET, IpAddr::from([192, 0, 2, n]));
        }
        for n in 0..homes {
            let behaviour = chatter.pick(&BEHAVIOURS);
            let layers = [chatter.pick(&BEHAVIOURS), behaviour];
            let access = AccessBehaviour {
                up: chatter.link(),
                down: chatter.link(),
            };
            let public = [203, 0, 113, n].into();
            let layers = &layers[below(&mut chatter.chance, 2) as usize..];
            let realm = chatter
                .net
                .add_chain(&format!("home {n}"), layers, public, access)
                .unwrap();
            for x in [2 * n, 2 * n + 1] {
                chatter.add_host(realm, IpAddr::from([10, 0, 0, x]));
            }
        }
        chatter
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[below(&mut self.chance, all.len() as u64) as usize]
    }

    fn two(&mut self) -> (usize, usize) {
        let count = self.hosts.len() as u64;
        [0; 2]
            .map(|_: u64| below(&mut self.chance, count) as usize)
            .into()
    }

    fn link(&mut self) -> LinkBehaviour {
        let mut share = || Share::millionths(below(&mut self.chance, 100_000) as u32);
        let (loss, duplication, reordering) = (share(), share(), share());
        LinkBehaviour {
            delay: ms(below(&mut self.chance, 20)),
            jitter: ms(below(&mut self.chance, 2) * 5),
            loss,
            duplication,
            reordering,
            held_back: ms(15),
            mtu: 1_300,
            too_large: self.pick(&[TooLarge::Silent, TooLarge::Told]),
            rate: NonZeroU64::new(below(&mut self.chance, 2) * 100_000),
            queue: ms(5),
        }
    }

    fn add_host(&mut self, realm: RealmId, ip: IpAddr) {
        let host = self.net.add_host(&format!("host {ip}")).unwrap();
        let perfect = AccessBehaviour::PERFECT;
        self.net.attach(host, realm, perfect).unwrap();
        self.net.add_address(host, realm, ip).unwrap();
        self.hosts.push((host, SocketAddr::new(ip, 4_000)));
    }

    fn send(&mut self, host: HostId, from: SocketAddr, to: SocketAddr) {
        let len = below(&mut self.chance, 1_400) as usize;
        let mut bytes = vec![0; len];
        self.chance.fill(&mut bytes);
        // What is lost at once is in the tally.
        let _ = self.net.send(self.now, host, from, to, bytes);
    }

    fn step(&mut self) {
        let (nth, other) = self.two();
        let (host, from) = self.hosts[nth];
        // Mostly somebody who was heard of, else a public host, seldom a private address that may be anywhere.
        let to = match below(&mut self.chance, 10) {
            0 => self.hosts[other].1,
            1..=3 => self.hosts[other % 3].1,
            _ => {
                let newest = below(&mut self.chance, 20) as usize;
                let heard = self.heard.iter().rev().nth(newest);
                *heard.unwrap_or(&self.hosts[0].1)
            }
        };
        match below(&mut self.chance, 60) {
            0 => self.net.set_running(host, false),
            1..=3 => self.net.set_running(host, true),
            4 => self.net.set_island(Station::Host(host), 1),
            5..=8 => self.net.set_island(Station::Host(host), 0),
            9 => self.now += Duration::from_secs(40),
            _ => self.send(host, from, to),
        }
        self.now += Duration::from_micros(below(&mut self.chance, 3_000));
        while let Some(arrival) = self.net.deliver(self.now) {
            let Arrival::Datagram(delivery) = arrival else {
                continue;
            };
            assert!(delivery.at <= self.now);
            self.heard.push(delivery.source);
            if below(&mut self.chance, 3) == 0 {
                self.send(delivery.host, delivery.local, delivery.source);
            }
        }
    }

    fn is_conserved(&self) -> bool {
        let tally = self.net.tally();
        let in_flight = self.net.in_flight() as u64;
        tally.sent + tally.duplicated == tally.delivered + tally.all_lost() + in_flight
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_datagram_is_delivered_or_lost_or_under_way(seed in any::<u64>(), homes in 1..12u8) {
        let mut chatter = Chatter::new(seed, homes);
        for _ in 0..400 {
            chatter.step();
            prop_assert!(chatter.is_conserved(), "{:?}", chatter.net.tally());
        }
        chatter.now += Duration::from_secs(60);
        while chatter.net.deliver(chatter.now).is_some() {}
        prop_assert!(chatter.is_conserved());
        prop_assert_eq!(chatter.net.in_flight(), 0);
    }

    #[test]
    fn the_same_seed_is_the_same_history(seed in any::<u64>()) {
        let history = |seed| {
            let mut chatter = Chatter::new(seed, 6);
            for _ in 0..300 {
                chatter.step();
            }
            let lines: Vec<_> = chatter.net.trace().lines().map(ToString::to_string).collect();
            (chatter.net.trace().digest(), chatter.net.tally().clone(), lines)
        };
        let first = history(seed);
        prop_assert_eq!(first.2.len(), 20);
        prop_assert_ne!(first.0, history(!seed).0);
        prop_assert_eq!(first, history(seed));
    }
}

/// What the chatter is made for happens in it, or the properties say little.
#[test]
fn the_chatter_meets_everything() {
    let mut met = BTreeSet::new();
    let (mut told, mut delivered) = (0, 0);
    for seed in 0..40 {
        let mut chatter = Chatter::new(seed, 8);
        for _ in 0..400 {
            chatter.step();
        }
        let tally = chatter.net.tally();
        assert!(tally.delivered > 30 && tally.duplicated > 0, "{tally:?}");
        delivered += tally.delivered;
        met.extend(tally.lost.keys().copied());
        told += tally.told;
    }
    let expected = [
        Lost::HostDown,
        Lost::NoRoute,
        Lost::Partitioned,
        Lost::OnALink,
        Lost::QueueFull,
        Lost::TooLarge,
        Lost::UdpBlocked,
        Lost::NoHairpin,
        Lost::NoMapping,
        Lost::Filtered,
    ];
    assert_eq!(met, BTreeSet::from(expected));
    assert!(told > 0 && delivered > 5_000, "{told} {delivered}");
}

/// A history that was written down, so that two builds and two machines are compared too. It changes when the network does;
/// kept seeds then tell other stories.
#[test]
fn a_known_history() {
    let mut chatter = Chatter::new(7, 6);
    for _ in 0..300 {
        chatter.step();
    }
    assert_eq!(chatter.net.trace().digest(), 18_160_682_654_721_163_359);
}
