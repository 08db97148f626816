//! Whole nodes meet, a file for each behaviour. Times are of the world: what must hold "within" a time is looked at every
//! [`LOOK`].

mod attaching;
mod claims;
mod crowds;
mod epochs;
mod expiry;
mod introductions;
mod leaving;
mod meeting;
mod receipts;
mod revocation;

use std::time::{Duration, Instant};

use nat_traversal::path::PathKind;
use node_core::api::{PeerReport, Request, Response, StatusReport};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::MacAddr;

use super::*;
use crate::net::link::LinkBehaviour;
use crate::net::random::Share;
use crate::net::topology::Station;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// No host of a lab.
const NOBODY: [usize; 0] = [];

/// How often a test looks whether something has come about.
const LOOK: Duration = Duration::from_millis(10);

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
pub(super) fn base() -> Instant {
    Instant::now()
}

pub(super) fn access() -> AccessBehaviour {
    AccessBehaviour::both(LinkBehaviour::with_delay(Duration::from_millis(10)))
}

/// An access that loses, delays and swaps datagrams.
fn bad_access() -> AccessBehaviour {
    AccessBehaviour::both(LinkBehaviour {
        loss: Share::percent(15),
        jitter: Duration::from_millis(20),
        duplication: Share::percent(5),
        reordering: Share::percent(10),
        held_back: Duration::from_millis(50),
        ..LinkBehaviour::with_delay(Duration::from_millis(10))
    })
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) const fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

/// An ARP request for 10.0.0.`to` of the guest `from`.
pub(super) fn arp(from: u8, to: u8) -> Vec<u8> {
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
pub(super) fn unicast(from: u8, to: u8, number: u64) -> Vec<u8> {
    let mut frame = mac(to).0.to_vec();
    frame.extend(mac(from).0);
    frame.extend([0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend([0; 40]);
    frame
}

/// The same to all.
fn broadcast(from: u8, number: u64) -> Vec<u8> {
    let mut frame = unicast(from, 0, number);
    frame[..6].fill(0xff);
    frame
}

pub(super) fn has(world: &World, guest: GuestId, frame: &[u8]) -> bool {
    world.inbox(guest).any(|got| got.frame == frame)
}

pub(super) fn peers(world: &mut World, host: HostId) -> Vec<PeerReport> {
    match world.ask(host, Request::Peers) {
        Some(Response::Peers(peers)) => peers,
        other => panic!("{other:?}"),
    }
}

/// Hosts on the internet with a guest each, counted from 1: host 2 has the guest whose MAC ends with 2.
struct Lab {
    world: World,
    hosts: Vec<HostId>,
    guests: Vec<GuestId>,
    /// The number of the next frame.
    next: u64,
}

impl Lab {
    /// No host yet.
    fn empty(seed: u64, config: Config) -> Self {
        Self {
            world: World::new(seed, base(), config).unwrap(),
            hosts: Vec::new(),
            guests: Vec::new(),
            next: 0,
        }
    }

    /// So many hosts in the network `lab`, whose nodes start now.
    fn of(seed: u64, count: u8) -> Self {
        Self::with(seed, count, Config::default())
    }

    fn with(seed: u64, count: u8, config: Config) -> Self {
        let mut lab = Self::empty(seed, config);
        for _ in 0..count {
            lab.add(&Terms::of(&[0]));
        }
        lab
    }

    /// As [`Self::of`], 10 s later, when everybody has met and everybody's guest has been heard.
    fn settled(seed: u64, count: u8) -> Self {
        let mut lab = Self::of(seed, count);
        lab.settle();
        lab
    }

    fn settle(&mut self) {
        self.go(S(5));
        for number in 1..=self.guests.len() {
            self.speak(number);
        }
        self.go(S(5));
    }

    /// One more, whose node starts now.
    fn add(&mut self, terms: &Terms) -> usize {
        let invite = self.world.invite(terms).unwrap();
        self.add_by(&invite)
    }

    /// As [`Self::add`], by an invite.
    fn add_by(&mut self, invite: &str) -> usize {
        let number = self.add_off(invite);
        self.start(number);
        number
    }

    /// As [`Self::add_by`], but the node does not start.
    fn add_off(&mut self, invite: &str) -> usize {
        let number = self.hosts.len() + 1;
        let last = u8::try_from(number).unwrap();
        let place = (Net::INTERNET, IpAddr::from([45, 1, last, 1]));
        let name = format!("host {number}");
        let host = self.world.add_invited(&name, place, access(), invite);
        let host = host.unwrap();
        let guest = self.world.add_guest(host, "lab", mac(last)).unwrap();
        self.hosts.push(host);
        self.guests.push(guest);
        number
    }

    fn host(&self, number: usize) -> HostId {
        self.hosts[number - 1]
    }

    fn guest(&self, number: usize) -> GuestId {
        self.guests[number - 1]
    }

    fn peer(&self, number: usize) -> PeerId {
        self.world.peer(self.host(number)).unwrap()
    }

    fn go(&mut self, time: Duration) {
        let until = self.world.now() + time;
        self.world.run_until(until).unwrap();
    }

    fn start(&mut self, number: usize) {
        self.world.start(self.host(number)).unwrap();
    }

    fn kill(&mut self, number: usize) {
        self.world.kill(self.host(number));
    }

    /// Cuts a host off from everybody, or plugs it in again.
    fn cut(&mut self, number: usize, cut: bool) {
        let station = Station::Host(self.host(number));
        self.world.net().set_connected(station, !cut);
    }

    /// Datagrams between two hosts are lost, or pass again.
    fn block(&mut self, one: usize, other: usize, blocked: bool) {
        let [one, other] = [one, other].map(|number| Station::Host(self.host(number)));
        self.world.net().block(one, other, blocked);
        self.world.net().block(other, one, blocked);
    }

    fn set_access(&mut self, number: usize, access: AccessBehaviour) {
        let station = Station::Host(self.host(number));
        self.world.net().set_access(station, access);
    }

    /// The guest of a host asks for an address that nobody has, so that all hear its MAC.
    fn speak(&mut self, number: usize) {
        let last = u8::try_from(number).unwrap();
        self.world.send(self.guest(number), &arp(last, 250));
    }

    /// The guest of `from` sends a frame to that of `to`, which gets it within a second, or does not.
    fn reaches(&mut self, from: usize, to: usize) -> bool {
        self.next += 1;
        let [source, target] = [from, to].map(|number| u8::try_from(number).unwrap());
        let frame = unicast(source, target, self.next);
        self.world.send(self.guest(from), &frame);
        self.go(S(1));
        has(&self.world, self.guest(to), &frame)
    }

    /// The guest of `from` broadcasts; who got it within a second.
    fn hear(&mut self, from: usize) -> Vec<usize> {
        self.next += 1;
        let frame = broadcast(u8::try_from(from).unwrap(), self.next);
        self.world.send(self.guest(from), &frame);
        self.go(S(1));
        let hosts = 1..=self.hosts.len();
        let hears = |number: &usize| has(&self.world, self.guest(*number), &frame);
        hosts.filter(hears).collect()
    }

    /// How long until `what` holds.
    fn within(&mut self, limit: Duration, mut what: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = self.world.now();
        while !what(self) {
            let passed = self.world.now() - start;
            assert!(passed < limit, "not within {limit:?}");
            self.go(LOOK);
        }
        self.world.now() - start
    }

    fn ask(&mut self, number: usize, request: Request) -> Response {
        let host = self.host(number);
        let response = self.world.ask_and_wait(host, request).unwrap();
        response.expect("no answer within 15 s")
    }

    /// A command that works; what it said.
    fn does(&mut self, number: usize, request: Request) -> String {
        match self.ask(number, request) {
            Response::Done(line) => line,
            other => panic!("{other:?}"),
        }
    }

    /// A command that does not; what it said.
    fn fails(&mut self, number: usize, request: Request) -> String {
        match self.ask(number, request) {
            Response::Error(line) => line,
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self, number: usize) -> StatusReport {
        match self.ask(number, Request::Status) {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn drops(&mut self, number: usize, reason: DropReason) -> u64 {
        let drops = self.status(number).drops;
        drops.get(reason.name()).copied().unwrap_or_default()
    }

    /// Does one of the warnings of `number` say so?
    fn warns(&mut self, number: usize, what: &str) -> bool {
        let warnings = self.status(number).warnings;
        warnings.iter().any(|line| line.contains(what))
    }

    /// What `number` says of `of`, if it knows it.
    fn report(&mut self, number: usize, of: usize) -> Option<PeerReport> {
        let peer = self.peer(of);
        let mut all = peers(&mut self.world, self.hosts[number - 1]).into_iter();
        all.find(|report| report.node == peer)
    }

    /// Is there a session of `number` with `with`, and a path?
    fn meets(&mut self, number: usize, with: usize) -> bool {
        let report = self.report(number, with);
        report.is_some_and(|report| report.path.kind != PathKind::None)
    }

    /// Why there is no better path from `number` to `to`.
    fn why(&mut self, number: usize, to: usize) -> Option<String> {
        self.report(number, to)?.path.why
    }

    /// The hosts that `number` has to do with, or would have.
    fn knows(&mut self, number: usize) -> Vec<usize> {
        let all = 1..=self.hosts.len();
        all.filter(|of| self.report(number, *of).is_some())
            .collect()
    }

    /// The hosts that `number` takes for members of `lab`, itself among them.
    fn members(&mut self, number: usize) -> Vec<usize> {
        let Response::Members(members) = self.ask(number, Request::Members { network: None })
        else {
            panic!("no members");
        };
        let all = 1..=self.hosts.len();
        let is_member = |number: &usize| {
            let peer = self.peer(*number);
            members.iter().any(|member| member.node == peer)
        };
        all.filter(is_member).collect()
    }

    /// Who holds the MAC of the guest of `of`, as far as `number` knows.
    fn holder(&mut self, number: usize, of: usize) -> Option<usize> {
        let Response::Macs(macs) = self.ask(number, Request::Macs { network: None }) else {
            panic!("no MACs");
        };
        let mac = mac(u8::try_from(of).unwrap());
        let found = macs.iter().find(|report| report.mac == mac)?;
        let mut all = 1..=self.hosts.len();
        all.find(|number| self.peer(*number) == found.node)
    }

    /// The epoch of `lab` at a host.
    fn epoch(&mut self, number: usize) -> u64 {
        self.status(number).networks[0].epoch
    }

    /// The line that revokes a host and begins the next epoch of `lab`.
    fn revocation(&mut self, of: usize) -> Request {
        let along = Along {
            epochs: &[0],
            ..Along::default()
        };
        self.world
            .revocation_with(self.hosts[of - 1], along)
            .unwrap()
    }
}
