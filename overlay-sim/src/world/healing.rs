//! How soon nodes meet again when the trouble is over, although nobody sends anything: whoever comes back to a bootstrap seeks all
//! that it does not reach.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_traversal::path::PathKind;

use node_core::api::{Request, Response};

use super::tests::{base, has, ip, mac, unicast};
use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::nat::NatBehaviour;
use crate::net::topology::Station;

/// From the moment when the last of them has its network again: the bootstrap is dialled every 5 s, the others are sought within 5 s
/// of the connection, and a handshake over lossless links takes less than a second, two if it needs the relay.
const MET: Duration = Duration::from_secs(12);

/// Long enough that all are sought as rarely as can be.
const LONG: Duration = Duration::from_secs(1_000);

const S: fn(u64) -> Duration = Duration::from_secs;

/// Two hosts with a guest each, in all sorts of sites.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) hosts: [HostId; 2],
    pub(super) guests: [GuestId; 2],
    /// What connects each with the rest: itself, or its router.
    pub(super) stations: [Station; 2],
    pub(super) realms: [Option<RealmId>; 2],
    number: u64,
}

const SITES: [Option<NatBehaviour>; 4] = [
    None,
    Some(NatBehaviour::PORT_PRESERVING),
    Some(NatBehaviour::PORT_REWRITING),
    Some(NatBehaviour::SYMMETRIC),
];

impl Pair {
    /// They have met. Which sites they are in is by the seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut world = World::new(seed, base(), Config::default()).unwrap();
        let sites = [seed % 4, (seed / 4) % 4].map(|site| SITES[usize::try_from(site).unwrap()]);
        let all = [1_u8, 2].map(|number| {
            let name = format!("home {number}");
            let delay = Duration::from_millis(5 + 7 * (seed + u64::from(number)) % 60);
            let access = AccessBehaviour::both(LinkBehaviour::with_delay(delay));
            let wan = Ipv4Addr::new(45, 1, number, 1);
            let site = sites[usize::from(number) - 1];
            let realm = site.map(|nat| world.net().add_chain(&name, &[nat], wan, access).unwrap());
            let place = match realm {
                None => (Net::INTERNET, IpAddr::V4(wan)),
                Some(realm) => (realm, ip("192.168.1.2")),
            };
            let host = world.add_host(&name, place, access, &[0]).unwrap();
            let guest = world.add_guest(host, "lab", mac(number)).unwrap();
            world.start(host).unwrap();
            let station = realm.map_or(Station::Host(host), Station::Realm);
            (host, guest, station, realm)
        });
        let mut pair = Self {
            world,
            hosts: all.map(|one| one.0),
            guests: all.map(|one| one.1),
            stations: all.map(|one| one.2),
            realms: all.map(|one| one.3),
            number: 0,
        };
        pair.go_on(S(20));
        pair.talk("at first");
        pair
    }

    pub(super) fn go_on(&mut self, time: Duration) {
        let until = self.world.now() + time;
        if let Err(broken) = self.world.run_until(until) {
            panic!("{broken}");
        }
    }

    pub(super) fn cut(&mut self, which: usize, cut: bool) {
        let station = self.stations[which];
        self.world.net().set_connected(station, !cut);
    }

    pub(super) fn restart(&mut self, which: usize) {
        self.world.kill(self.hosts[which]);
        self.go_on(S(1));
        self.world.start(self.hosts[which]).unwrap();
    }

    /// The provider gives it another address.
    pub(super) fn move_wan(&mut self, which: usize) {
        let host = self.hosts[which];
        let place = u8::try_from(which).unwrap() + 1;
        let [old, new] = [1, 77].map(|last| IpAddr::from([45, 1, place, last]));
        let net = self.world.net();
        match self.realms[which] {
            Some(realm) => net.set_wan(realm, new).unwrap(),
            None => {
                net.remove_address(host, Net::INTERNET, old).unwrap();
                net.add_address(host, Net::INTERNET, new).unwrap();
                self.world.tell_of_interfaces(host);
            }
        }
    }

    /// Do both show a path to each other?
    fn have_paths(&mut self) -> bool {
        let names = self.hosts.map(|host| self.world.peer(host).unwrap());
        let [one, two] = self.hosts;
        [(one, names[1]), (two, names[0])].iter().all(|(host, of)| {
            let Some(Response::Peers(peers)) = self.world.ask(*host, Request::Peers) else {
                return false;
            };
            let report = peers.iter().find(|report| report.node == *of);
            report.is_some_and(|report| report.path.kind != PathKind::None)
        })
    }

    /// Both guests hear from each other, one of six times: a path that has just been chosen may be one that died, which is noted after
    /// 4.5 s (docs/NAT.md).
    fn talk(&mut self, what: &str) {
        let heard = (0..6).any(|_| {
            self.number += 1;
            let [first, second] = self.guests;
            let there = unicast(1, 2, self.number);
            let back = unicast(2, 1, self.number);
            self.world.send(first, &there);
            self.world.send(second, &back);
            self.go_on(S(1));
            has(&self.world, second, &there) && has(&self.world, first, &back)
        });
        assert!(heard, "{what}: the guests do not hear each other");
    }

    /// They do not reach each other now, and do within `limit`, with nothing to send.
    fn meet_again(&mut self, limit: Duration, what: &str) {
        let since = self.world.now();
        assert!(!self.have_paths(), "{what}: nothing was lost");
        while !self.have_paths() {
            let took = self.world.now() - since;
            assert!(took < limit, "{what}: not after {took:?}");
            self.go_on(Duration::from_millis(100));
        }
        self.talk(what);
    }
}

/// All pairs of sites with `FARLAN_LONG=1`, else three.
fn seeds() -> std::ops::Range<u64> {
    let long = std::env::var_os("FARLAN_LONG").is_some();
    if long { 1..17 } else { 5..8 }
}

#[test]
fn two_that_were_cut_off_for_long_meet_as_soon_as_both_are_back() {
    for seed in seeds() {
        for gap in [0, 3, 40] {
            let mut pair = Pair::new(seed);
            pair.cut(0, true);
            pair.cut(1, true);
            pair.go_on(LONG);
            pair.cut(0, false);
            pair.go_on(S(gap));
            pair.cut(1, false);
            pair.meet_again(MET, &format!("seed {seed}, {gap} s between them"));
        }
    }
}

#[test]
fn one_was_cut_off_while_the_other_restarted() {
    for seed in seeds() {
        let mut pair = Pair::new(seed);
        pair.cut(0, true);
        pair.go_on(LONG);
        pair.restart(1);
        pair.go_on(LONG);
        pair.cut(0, false);
        pair.meet_again(MET, &format!("seed {seed}"));
    }
}

#[test]
fn both_restarted_while_the_bootstrap_was_away() {
    for seed in seeds() {
        let mut pair = Pair::new(seed);
        pair.cut(0, true);
        pair.cut(1, true);
        pair.world.cut_bootstrap(true);
        pair.go_on(S(100));
        for which in [0, 1] {
            pair.restart(which);
            pair.go_on(S(30));
        }
        pair.go_on(LONG);
        for which in [0, 1] {
            pair.cut(which, false);
        }
        pair.world.cut_bootstrap(false);
        pair.meet_again(MET, &format!("seed {seed}"));
    }
}

#[test]
fn the_bootstrap_has_lost_all_while_they_were_cut_off() {
    for seed in seeds() {
        let mut pair = Pair::new(seed);
        pair.cut(0, true);
        pair.go_on(LONG);
        pair.world.restart_bootstrap(0);
        pair.go_on(S(60));
        pair.cut(0, false);
        pair.meet_again(MET, &format!("seed {seed}"));
    }
}

#[test]
fn an_address_has_changed_while_the_other_one_was_cut_off() {
    for seed in seeds() {
        for moves in [0, 1] {
            let mut pair = Pair::new(seed);
            pair.cut(0, true);
            pair.go_on(LONG);
            pair.move_wan(moves);
            pair.go_on(S(60));
            pair.cut(0, false);
            pair.meet_again(MET, &format!("seed {seed}, {moves} has moved"));
        }
    }
}

#[test]
fn a_bootstrap_that_restarts_ends_no_session() {
    for seed in seeds() {
        let mut pair = Pair::new(seed);
        pair.world.restart_bootstrap(0);
        pair.go_on(S(30));
        pair.talk(&format!("seed {seed}"));
    }
}

/// What a bootstrap carries when `count` nodes that were all cut off from each other are back at one moment: how many greetings, and
/// how many of them in the second with the most; and when all have met.
fn herd(count: u8) -> (u64, u64, Duration) {
    let mut world = World::new(u64::from(count), base(), Config::default()).unwrap();
    let access = AccessBehaviour::both(LinkBehaviour::with_delay(Duration::from_millis(15)));
    let all = (1..=count).map(|number| {
        let name = format!("home {number}");
        let wan = Ipv4Addr::new(45, 1, number, 1);
        let nat = [NatBehaviour::PORT_PRESERVING];
        let realm = (!number.is_multiple_of(2))
            .then(|| world.net().add_chain(&name, &nat, wan, access).unwrap());
        let place = match realm {
            None => (Net::INTERNET, IpAddr::V4(wan)),
            Some(realm) => (realm, ip("192.168.1.2")),
        };
        let host = world.add_host(&name, place, access, &[0]).unwrap();
        world.start(host).unwrap();
        (host, realm.map_or(Station::Host(host), Station::Realm))
    });
    let (hosts, stations): (Vec<_>, Vec<_>) = all.collect::<Vec<_>>().into_iter().unzip();
    let mut now = S(60);
    world.run_until(now).unwrap();
    assert!(all_have_paths(&mut world, &hosts));
    for (island, station) in (1..).zip(&stations) {
        world.net().set_island(*station, island);
    }
    now += LONG;
    world.run_until(now).unwrap();
    for station in &stations {
        world.net().set_island(*station, 0);
    }
    let (start, before) = (world.now(), world.greetings());
    let (mut last, mut most) = (before, 0);
    loop {
        now += S(1);
        world.run_until(now).unwrap();
        most = most.max(world.greetings() - last);
        last = world.greetings();
        if all_have_paths(&mut world, &hosts) {
            return (last - before, most, world.now() - start);
        }
        assert!(world.now() < start + S(60), "some have not met");
    }
}

fn all_have_paths(world: &mut World, hosts: &[HostId]) -> bool {
    hosts.iter().all(|host| {
        let Some(Response::Peers(peers)) = world.ask(*host, Request::Peers) else {
            return false;
        };
        let reached = peers.iter().filter(|one| one.path.kind != PathKind::None);
        reached.count() == hosts.len() - 1
    })
}

/// `FARLAN_LONG=1` has a hundred.
#[test]
fn a_herd_that_comes_back_does_not_flood_the_bootstrap() {
    let long = std::env::var_os("FARLAN_LONG").is_some();
    let count = if long { 100 } else { 16 };
    let (all, most, took) = herd(count);
    println!("{count} nodes have met after {took:?}: {all} greetings, {most} in a second");
    // Each greets each about once: those whose card it gets at the rendezvous at once, the others in rounds.
    let pairs = u64::from(count) * u64::from(count - 1);
    assert!(all <= pairs + pairs / 2, "{all} of {pairs}");
}
