//! Random histories: hosts in all sorts of sites, bad links, restarts, partitions, guests that move. When all is well
//! again, everybody reaches everybody within [`HEALED`].

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_traversal::entropy::{Entropy, SeededEntropy};
use node_core::api::{Request, Response};

use super::tests::{arp, base, has, ip, mac, unicast};
use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::nat::NatBehaviour;
use crate::net::random::{Share, below};
use crate::net::topology::Station;

/// How long it may take until all is as it should be. A bootstrap is dialled every 5 s, whoever is not reached is sought within 5 s of that and
/// again after 10 and 20 s, and what was lost in between is compared every 15 s.
const HEALED: Duration = Duration::from_secs(60);

const HOSTS: u8 = 5;

struct History {
    world: World,
    chance: SeededEntropy,
    hosts: Vec<HostId>,
    guests: Vec<GuestId>,
    /// Where each guest is.
    places: Vec<usize>,
    down: BTreeSet<usize>,
    said: Vec<String>,
    /// What loses datagrams until it is healed, and how it is then.
    links: Vec<(Station, AccessBehaviour)>,
}

impl History {
    fn begin(seed: u64) -> Self {
        let mut history = Self {
            world: World::new(seed, base(), Config::default()).unwrap(),
            chance: stream(seed, "history"),
            hosts: Vec::new(),
            guests: Vec::new(),
            places: Vec::new(),
            down: BTreeSet::new(),
            said: Vec::new(),
            links: Vec::new(),
        };
        for number in 1..=HOSTS {
            history.add(number);
        }
        history
    }

    fn add(&mut self, number: u8) {
        let nats = [
            NatBehaviour::PORT_PRESERVING,
            NatBehaviour::PORT_REWRITING,
            NatBehaviour::SYMMETRIC,
            NatBehaviour::FULL_CONE,
            NatBehaviour::BARE_LINUX,
        ];
        let kind = self.pick(nats.len() + 1);
        let wan = Ipv4Addr::new(45, 1, number, 1);
        let name = format!("home {number}");
        let delay = Duration::from_millis(1 + below(&mut self.chance, 60));
        let access = AccessBehaviour::both(LinkBehaviour {
            loss: Share::percent(u32::from(number % 3)),
            jitter: Duration::from_millis(u64::from(number)),
            ..LinkBehaviour::with_delay(delay)
        });
        let well = AccessBehaviour::both(LinkBehaviour::with_delay(delay));
        let world = &mut self.world;
        let place = match nats.get(kind) {
            None => (Net::INTERNET, IpAddr::V4(wan)),
            Some(nat) => {
                let realm = world.net().add_chain(&name, &[*nat], wan, access);
                let realm = realm.unwrap();
                self.links.push((Station::Realm(realm), well));
                (realm, ip("192.168.1.2"))
            }
        };
        let host = world.add_host(&name, place, access, &[0]).unwrap();
        self.links.push((Station::Host(host), well));
        let guest = world.add_guest(host, "lab", mac(number)).unwrap();
        world.start(host).unwrap();
        self.said.push(format!("{name}: site {kind}, {delay:?}"));
        self.places.push(self.hosts.len());
        self.hosts.push(host);
        self.guests.push(guest);
    }

    fn pick(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap();
        usize::try_from(below(&mut self.chance, count)).unwrap()
    }

    /// Something happens.
    fn disturb(&mut self) {
        let one = self.pick(self.hosts.len());
        let other = self.pick(self.hosts.len());
        let host = self.hosts[one];
        let what = match self.pick(8) {
            0 if self.down.insert(one) => {
                self.world.kill(host);
                format!("kill {one}")
            }
            1 | 2 => match self.down.pop_first() {
                Some(down) => {
                    self.world.start(self.hosts[down]).unwrap();
                    format!("start {down}")
                }
                None => return,
            },
            3 => {
                let cut = self.chance.next_u64().is_multiple_of(2);
                self.world.cut_bootstrap(cut);
                format!("bootstrap cut: {cut}")
            }
            4 => {
                let cut = self.chance.next_u64().is_multiple_of(2);
                self.world.net().set_connected(Station::Host(host), !cut);
                format!("{one} cut: {cut}")
            }
            5 if !self.down.contains(&one) => {
                self.world.restore(host);
                format!("restore {one}")
            }
            6 if !self.down.contains(&one) && !self.down.contains(&other) => {
                self.move_guest(one, other);
                format!("guest {one} to {other}")
            }
            _ => return,
        };
        self.said.push(format!("{:?}: {what}", self.world.now()));
    }

    /// A guest moves, and says so, as a hypervisor does.
    fn move_guest(&mut self, guest: usize, to: usize) {
        self.world.plug(self.guests[guest], self.hosts[to]).unwrap();
        self.places[guest] = to;
        let number = u8::try_from(guest + 1).unwrap();
        self.world.send(self.guests[guest], &arp(number, number));
    }

    fn heal(&mut self) {
        self.world.cut_bootstrap(false);
        for down in std::mem::take(&mut self.down) {
            self.world.start(self.hosts[down]).unwrap();
        }
        for (station, well) in std::mem::take(&mut self.links) {
            self.world.net().set_connected(station, true);
            self.world.net().set_access(station, well);
        }
        self.said.push(format!("{:?}: healed", self.world.now()));
    }

    /// Each guest sends to each other, with `number` in the frame.
    fn talk(&mut self, number: u64) {
        for from in 1..=HOSTS {
            for to in (1..=HOSTS).filter(|to| *to != from) {
                let guest = self.guests[usize::from(from - 1)];
                self.world.send(guest, &unicast(from, to, number));
            }
        }
    }

    fn missing(&self, number: u64) -> Vec<(u8, u8)> {
        let pairs = (1..=HOSTS).flat_map(|from| (1..=HOSTS).map(move |to| (from, to)));
        let lost = |(from, to): &(u8, u8)| {
            let guest = self.guests[usize::from(to - 1)];
            from != to && !has(&self.world, guest, &unicast(*from, *to, number))
        };
        pairs.filter(lost).collect()
    }

    /// What the nodes of a pair that does not reach each other say.
    fn explain(&mut self, (from, to): (u8, u8)) -> String {
        let mut lines = Vec::new();
        for guest in [from, to] {
            let host = self.hosts[self.places[usize::from(guest - 1)]];
            lines.push(format!(
                "where guest {guest} is: {:?}",
                self.world.peer(host)
            ));
            for request in [Request::Macs { network: None }, Request::Status] {
                let said = match self.world.ask(host, request) {
                    Some(Response::Macs(macs)) => {
                        macs.iter().map(|mac| format!("  {mac:?}")).collect()
                    }
                    Some(Response::Status(status)) => {
                        let peers = status.peers.iter().map(|peer| format!("  {peer:?}"));
                        let drops = format!("  {:?} {:?}", status.drops, status.warnings);
                        peers.chain([drops]).collect()
                    }
                    other => vec![format!("  {other:?}")],
                };
                lines.extend(said);
            }
        }
        lines.join("\n")
    }

    fn go_on(&mut self, time: Duration) {
        let until = self.world.now() + time;
        if let Err(broken) = self.world.run_until(until) {
            panic!("{broken}\n{}", self.said.join("\n"));
        }
    }
}

/// Five minutes of trouble, then as many of peace. After it each pair hears one of three rounds of frames at least: a path
/// that changes may cost one.
fn live(seed: u64) {
    let mut history = History::begin(seed);
    for step in 0..60 {
        history.disturb();
        history.talk(step);
        let pause = Duration::from_millis(below(&mut history.chance, 10_000));
        history.go_on(pause);
    }
    history.heal();
    history.go_on(HEALED);
    let mut missing = None;
    for round in 0..3 {
        history.talk(1_000 + round);
        history.go_on(Duration::from_secs(2));
        let now: BTreeSet<_> = history.missing(1_000 + round).into_iter().collect();
        let before = missing.get_or_insert_with(|| now.clone());
        before.retain(|pair| now.contains(pair));
    }
    let missing = missing.unwrap();
    if let Some(pair) = missing.first() {
        let said = history.said.join("\n");
        let places = &history.places;
        let what = format!("seed {seed}: {missing:?} at {places:?}\n{said}");
        panic!("{what}\n{}", history.explain(*pair));
    }
}

/// `FARLAN_SEEDS=1..100` runs other seeds.
#[test]
fn whatever_has_happened_all_reach_all_when_it_is_over() {
    let seeds = std::env::var("FARLAN_SEEDS").ok();
    let (first, last) = seeds
        .as_deref()
        .and_then(|seeds| seeds.split_once(".."))
        .map_or((1, 3), |(first, last)| {
            (first.parse().unwrap(), last.parse().unwrap())
        });
    for seed in first..last {
        live(seed);
    }
}
