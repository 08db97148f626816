//! Runs a history: builds the world that it says, does what it says when its time comes, and looks each second whether all is as it
//! must be.
//!
//! An event that fits no more (its host is down, its guest is gone) does nothing, so that any part of a history is a history.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use overlay_proto::ids::NetworkName;

use super::documents::{Standing, terms_of};
use super::events::Undo;
use super::failure::{Failure, Found};
use super::frames::{question, unicast};
use super::plan::{HostPlan, MAX_NETWORKS, Plan, draw, mac_of};
use crate::net::link::LinkBehaviour;
use crate::net::queue::Queue;
use crate::net::random::Share;
use crate::net::topology::{AccessBehaviour, HostId, Net, RealmId, Station, Tally};
use crate::world::{Config, GuestId, World};

/// The networks, by number.
pub(super) const NETWORKS: [&str; MAX_NETWORKS] = [
    "lab", "home", "shop", "farm", "mill", "port", "yard", "dock", "barn", "mine", "inn", "ward",
    "kiln", "weir", "loft", "pier",
];

/// The first of the addresses inside a site.
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));

/// How long a datagram is held back that later ones overtake.
const HELD_BACK: Duration = Duration::from_millis(30);

/// What a host of the history is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its time has not come.
    Waits,
    /// Its node runs.
    Up,
    /// It has no power.
    Down,
    /// It has left, or was revoked: it will not be a member again.
    Gone,
    /// It is the hostile one.
    Hostile,
}

/// A host of the history in the world.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) id: HostId,
    pub(super) plan: HostPlan,
    pub(super) state: State,
    /// Its site, if it is behind a NAT.
    pub(super) realm: Option<RealmId>,
    /// What has its address on the internet.
    pub(super) station: Station,
    /// Seconds in a row in which the bootstrap had its connection.
    pub(super) connected_s: u64,
    /// Seconds in a row in which its node ran and its clock was right.
    pub(super) right_s: u64,
}

/// A guest of the history in the world.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: GuestId,
    pub(super) host: u16,
    pub(super) network: usize,
    pub(super) silent: bool,
    /// Whose MAC it uses beside its own.
    pub(super) lies: Option<u16>,
}

/// What a guest does next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Unicast(u16),
    Broadcast(u16),
}

/// A frame that a guest sent under a MAC that is not its own.
#[derive(Debug, Clone, Copy)]
struct Lied {
    host: u16,
    guest: u16,
    mac_of: u16,
}

/// Counts of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that guests sent to one other guest, and that got there.
    pub unicasts: (u64, u64),
    /// Frames that guests sent to all; copies that got there.
    pub broadcasts: (u64, u64),
    /// Frames that guests sent under a MAC of another one; that somebody got.
    pub lies: (u64, u64),
}

/// What came of a history.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The digest of all that the network and the guests saw.
    pub digest: u64,
    /// How long it lasted.
    pub time: Duration,
    /// How long it took after all was healed until all was well.
    pub well_after: Option<Duration>,
    /// After how long all nodes had sessions with all others of their networks for the first time.
    pub met_after: Option<Duration>,
    /// Datagrams.
    pub tally: Tally,
    /// Frames.
    pub counts: Counts,
    /// What was done, and when.
    pub told: Vec<String>,
    /// What should not have been found.
    pub failure: Option<Found>,
}

/// How long things took.
#[derive(Debug, Clone, Copy, Default)]
struct After {
    /// Until all nodes had sessions with all others of their networks, from the start.
    met: Option<Duration>,
    /// Until all was well, from when all was healed.
    well: Option<Duration>,
}

/// A history while it runs.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) world: World,
    /// The networks, by number.
    pub(super) names: Vec<NetworkName>,
    pub(super) hosts: BTreeMap<u16, Placed>,
    pub(super) guests: BTreeMap<u16, Guest>,
    /// Numbers make frames unique.
    pub(super) number: u64,
    pub(super) told: Vec<String>,
    pub(super) undo: Undo,
    turns: Queue<Turn>,
    after: After,
    counts: Counts,
    /// Frames under a false MAC by their numbers. Bound: those of the last seconds.
    lies: BTreeMap<u64, Lied>,
    /// When the node of a host last was the owner of a MAC that one of its guests uses without right. Bound: the lies.
    owned: BTreeMap<(u16, u16), Duration>,
    /// Pairs of guests that are being tried, by the numbers of their frames; removed when they arrive. Bound: the pairs.
    pub(super) tried: BTreeMap<u64, (u16, u16)>,
    /// Who is a member no more.
    pub(super) standing: Standing,
}

/// A whole second, at which all is looked at.
const SECOND: Duration = Duration::from_secs(1);

/// After a node has lost a MAC frames that it let through before may still come: those that waited for something.
const IN_FLIGHT: Duration = Duration::from_secs(5);

/// How often it is looked at whether a liar's host owns the MAC: a claim that is contested at once lives for a round trip.
const CLOSELY: Duration = Duration::from_millis(20);

/// So long somebody may not have heard that a MAC has another owner now: what was lost is compared every 15 s, and may have a way of
/// two members.
const STALE: Duration = Duration::from_secs(30);

/// Runs `plan`. `base` is any instant: what it is does not matter.
#[must_use]
pub fn run(plan: &Plan, base: Instant) -> Outcome {
    match Run::new(plan, base) {
        Ok(run) => run.go(),
        Err(error) => Outcome {
            digest: 0,
            time: Duration::ZERO,
            well_after: None,
            met_after: None,
            tally: Tally::default(),
            counts: Counts::default(),
            told: Vec::new(),
            failure: Some(Found {
                at: Duration::ZERO,
                what: Failure::Unbuilt(format!("{error:#}")),
            }),
        },
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(plan: &'a Plan, base: Instant) -> Result<Self> {
        let networks = NETWORKS.get(..plan.networks).context("too many networks")?;
        let config = Config {
            networks: networks.to_vec(),
            bootstraps: plan.bootstraps,
            ..Config::default()
        };
        let names = networks.iter().map(|name| name.parse().ok());
        let names: Option<Vec<NetworkName>> = names.collect();
        let mut run = Self {
            plan,
            names: names.context("no names for networks")?,
            world: World::new(plan.seed, base, config)?,
            hosts: BTreeMap::new(),
            guests: BTreeMap::new(),
            number: 0,
            told: Vec::new(),
            undo: Undo::default(),
            turns: Queue::new(),
            after: After::default(),
            counts: Counts::default(),
            lies: BTreeMap::new(),
            owned: BTreeMap::new(),
            tried: BTreeMap::new(),
            standing: Standing::default(),
        };
        for host in &plan.hosts {
            run.place(host)?;
        }
        for guest in &plan.guests {
            let host = run
                .hosts
                .get(&guest.host)
                .context("a guest without a host")?;
            let name = NETWORKS.get(guest.network).context("no such network")?;
            let id = run.world.add_guest(host.id, name, guest.mac())?;
            let placed = Guest {
                id,
                host: guest.host,
                network: guest.network,
                silent: false,
                lies: None,
            };
            run.guests.insert(guest.guest, placed);
            let chance = |every: u64| draw(plan.seed, "phase", guest.guest.into()) % every.max(1);
            let (unicast, all) = (plan.traffic.unicast_ms, plan.traffic.broadcast_ms);
            if unicast > 0 {
                let at = Duration::from_millis(chance(unicast));
                run.turns.push(at, Turn::Unicast(guest.guest));
            }
            if all > 0 {
                let at = Duration::from_millis(chance(all));
                run.turns.push(at, Turn::Broadcast(guest.guest));
            }
        }
        Ok(run)
    }

    /// Links as they are when all is well.
    pub(super) fn well(plan: &HostPlan) -> AccessBehaviour {
        let delay = Duration::from_millis(plan.delay_ms.into());
        AccessBehaviour::both(LinkBehaviour::with_delay(delay))
    }

    /// An address on the internet that follows from a number; `turn` counts those that a site had before.
    pub(super) fn address(host: u16, turn: u8) -> Ipv4Addr {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(46 + turn, high, low, 1)
    }

    pub(super) fn place(&mut self, plan: &HostPlan) -> Result<()> {
        let invite = self.world.invite(&terms_of(plan))?;
        self.place_invited(plan, &invite)
    }

    /// Puts a host into the world that joins by this invite, or a hostile one, which has its own.
    pub(super) fn place_invited(&mut self, plan: &HostPlan, invite: &str) -> Result<()> {
        let name = format!("host {}", plan.host);
        let mut access = Self::well(plan);
        for link in [&mut access.up, &mut access.down] {
            link.loss = Share::percent(plan.loss_percent.into());
            link.jitter = Duration::from_millis(plan.jitter_ms.into());
            link.reordering = Share::percent(plan.reordered_percent.into());
            link.held_back = HELD_BACK;
            link.duplication = Share::percent(plan.doubled_percent.into());
        }
        let ip = Self::address(plan.host, 0);
        let mut realm = None;
        let (id, station) = if plan.hostile {
            let hostile = self
                .world
                .add_hostile(&name, ip.into(), access, &plan.networks)?;
            (hostile, Station::Host(hostile))
        } else if plan.site.gateways().is_empty() {
            let place = (Net::INTERNET, IpAddr::V4(ip));
            let id = self.world.add_invited(&name, place, access, invite)?;
            (id, Station::Host(id))
        } else {
            let net = self.world.net();
            let inner = net.add_chain(&name, plan.site.gateways(), ip, access)?;
            let station = Station::Realm(net.outermost(inner));
            realm = Some(inner);
            let place = (inner, INSIDE);
            let perfect = AccessBehaviour::PERFECT;
            let id = self.world.add_invited(&name, place, perfect, invite)?;
            (id, station)
        };
        let state = if plan.hostile {
            State::Hostile
        } else {
            State::Waits
        };
        let placed = Placed {
            id,
            plan: plan.clone(),
            state,
            realm,
            station,
            connected_s: 0,
            right_s: 0,
        };
        self.hosts.insert(plan.host, placed);
        Ok(())
    }

    fn go(mut self) -> Outcome {
        let failure = self.live().err();
        Outcome {
            digest: self.world.digest(),
            time: self.world.now(),
            well_after: self.after.well,
            met_after: self.after.met,
            tally: self.world.tally().clone(),
            counts: self.counts,
            told: self.told,
            failure,
        }
    }

    pub(super) fn live(&mut self) -> Result<(), Found> {
        let mut starts: Vec<(u64, u16)> = Vec::new();
        for placed in self.hosts.values().filter(|one| one.state == State::Waits) {
            starts.push((placed.plan.starts_ms, placed.plan.host));
        }
        starts.sort_unstable();
        let mut starts = starts.into_iter().peekable();
        let mut events = self.plan.events.iter().peekable();
        let heals = self.plan.heals_ms;
        loop {
            let next = [
                starts.peek().map(|(at, _)| *at),
                events.peek().map(|timed| timed.at_ms),
            ];
            let Some(at) = next.into_iter().flatten().min().filter(|at| *at < heals) else {
                break;
            };
            self.go_on(Duration::from_millis(at))?;
            if let Some((_, host)) = starts.next_if(|(due, _)| *due <= at) {
                self.start(host);
            } else if let Some(timed) = events.next() {
                self.happen(&timed.event);
            }
        }
        self.go_on(Duration::from_millis(heals))?;
        self.heal();
        self.wait_until_well()?;
        self.after.well = Some(self.world.now() - Duration::from_millis(heals));
        if self.plan.afterwards {
            self.go_on_in_peace()?;
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, what: &str) {
        let at = self.world.now().as_secs_f64();
        self.told.push(format!("{at:9.3} s  {what}"));
    }

    /// What must not be found was found now.
    pub(super) fn found(&self, what: Failure) -> Found {
        Found {
            at: self.world.now(),
            what,
        }
    }

    /// Lets time pass, and guests speak; looks at everything each second.
    pub(super) fn go_on(&mut self, until: Duration) -> Result<(), Found> {
        while self.world.now() < until {
            let now = self.world.now();
            let second = Duration::from_secs(now.as_secs()) + SECOND;
            let turn = self.turns.next_at().map(|at| at.max(now));
            let mut next = turn.unwrap_or(until).min(second).min(until);
            if self.guests.values().any(|guest| guest.lies.is_some()) {
                next = next.min(now + CLOSELY);
                self.look_at_liars();
            }
            let passed = self.world.run_until(next);
            passed.map_err(|broken| self.found(Failure::Broken(broken)))?;
            while let Some((at, turn)) = self.turns.pop_until(next) {
                self.speak(at, turn);
            }
            if next == second {
                self.look()?;
            }
        }
        Ok(())
    }

    fn speak(&mut self, at: Duration, turn: Turn) {
        let (number, every) = match turn {
            Turn::Unicast(number) => (number, self.plan.traffic.unicast_ms),
            Turn::Broadcast(number) => (number, self.plan.traffic.broadcast_ms),
        };
        self.turns.push(at + Duration::from_millis(every), turn);
        let Some(guest) = self.guests.get(&number).filter(|guest| !guest.silent) else {
            return;
        };
        let (id, host, network, lies) = (guest.id, guest.host, guest.network, guest.lies);
        let round = u64::try_from(at.as_millis()).unwrap_or(0) / every.max(1);
        let Some(to) = self.other_guest(number, network, round) else {
            return;
        };
        if matches!(turn, Turn::Broadcast(_)) {
            self.counts.broadcasts.0 += 1;
            let frame = question(number, to, self.next_number());
            return self.world.send(id, &frame);
        }
        self.counts.unicasts.0 += 1;
        let frame = unicast(mac_of(number), mac_of(to), self.next_number());
        self.world.send(id, &frame);
        if let Some(mac_of_whom) = lies {
            self.counts.lies.0 += 1;
            let unique = self.next_number();
            let lied = Lied {
                host,
                guest: number,
                mac_of: mac_of_whom,
            };
            self.note_owned(lied);
            self.lies.insert(unique, lied);
            let frame = unicast(mac_of(mac_of_whom), mac_of(to), unique);
            self.world.send(id, &frame);
        }
    }

    /// Another guest of the same network, by chance.
    fn other_guest(&self, guest: u16, network: usize, round: u64) -> Option<u16> {
        let all = self.guests.iter();
        let all = all.filter(|(number, one)| one.network == network && **number != guest);
        let all: Vec<u16> = all.map(|(number, _)| *number).collect();
        let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
        let place = draw(self.plan.seed, &format!("to {guest}"), round) % count;
        all.get(usize::try_from(place).ok()?).copied()
    }

    pub(super) const fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Each second.
    fn look(&mut self) -> Result<(), Found> {
        self.read_inboxes()?;
        self.look_at_standing()?;
        if self.after.met.is_none() && self.have_met() {
            self.after.met = Some(self.world.now());
        }
        for placed in self.hosts.values().filter(|one| one.state == State::Up) {
            if let Some(room) = self.world.overfull(placed.id) {
                let host = placed.plan.host;
                return Err(self.found(Failure::Overfull { host, room }));
            }
        }
        Ok(())
    }

    /// Has each node a session with each other one that it shares a network with?
    fn have_met(&self) -> bool {
        let shares = |one: &Placed, other: &Placed| {
            let mut networks = one.plan.networks.iter();
            networks.any(|network| other.plan.networks.contains(network))
        };
        let is_there = |one: &&Placed| matches!(one.state, State::Up | State::Hostile);
        self.hosts
            .values()
            .filter(|one| one.state != State::Gone)
            .all(|one| {
                let others = self.hosts.values().filter(is_there);
                let others = others.filter(|other| other.id != one.id && shares(one, other));
                let has = || self.world.sessions(one.id).len();
                one.state == State::Hostile || (one.state == State::Up && others.count() <= has())
            })
    }

    fn note_owned(&mut self, lied: Lied) {
        let Some((placed, guest)) = self.hosts.get(&lied.host).zip(self.guests.get(&lied.guest))
        else {
            return;
        };
        let Some(network) = self.names.get(guest.network) else {
            return;
        };
        let owner = self.world.owner(placed.id, network, mac_of(lied.mac_of));
        if owner.is_some() && owner == self.world.peer(placed.id) {
            let now = self.world.now();
            self.owned.insert((lied.host, lied.mac_of), now);
        }
    }

    fn look_at_liars(&mut self) {
        let guests = self.guests.iter();
        let lied = |(guest, one): (&u16, &Guest)| {
            let (host, guest, mac_of) = (one.host, *guest, one.lies?);
            Some(Lied {
                host,
                guest,
                mac_of,
            })
        };
        for lied in guests.filter_map(lied).collect::<Vec<_>>() {
            self.note_owned(lied);
        }
    }

    /// What guests got. A frame under a MAC that is another's counts only where the node of the sender owned that MAC.
    pub(super) fn read_inboxes(&mut self) -> Result<(), Found> {
        for lied in self.lies.values().copied().collect::<Vec<_>>() {
            self.note_owned(lied);
        }
        let ids: Vec<(u16, GuestId)> = self.guests.iter().map(|(n, one)| (*n, one.id)).collect();
        let now = self.world.now();
        for (to, id) in ids {
            for got in self.world.take_inbox(id) {
                let Some((is_unicast, number)) = number_of(&got.frame) else {
                    continue;
                };
                if !is_unicast {
                    self.counts.broadcasts.1 += 1;
                    continue;
                }
                if self.tried.remove(&number).is_some() {
                    continue;
                }
                let Some(lied) = self.lies.get(&number) else {
                    // A switch floods what it does not know.
                    self.counts.unicasts.1 += u64::from(got.frame.starts_with(&mac_of(to).0));
                    continue;
                };
                // On the same bridge nobody asks.
                let near = self
                    .guests
                    .get(&to)
                    .is_some_and(|one| one.host == lied.host);
                let owned = self.owned.get(&(lied.host, lied.mac_of));
                let within = |time| owned.is_some_and(|at| now.saturating_sub(*at) <= time);
                let lately = within(IN_FLIGHT) || (within(STALE) && self.takes_for_owner(to, lied));
                self.counts.lies.1 += 1;
                if !near && !lately {
                    let what = Failure::NotOwned {
                        to,
                        by: lied.guest,
                        mac_of: lied.mac_of,
                    };
                    return Err(self.found(what));
                }
            }
        }
        let recent = self.number.saturating_sub(20_000);
        self.lies = self.lies.split_off(&recent);
        self.owned.retain(|_, at| now.saturating_sub(*at) <= STALE);
        Ok(())
    }

    /// Does the node of the host where the guest `to` is take that of the sender for the owner?
    fn takes_for_owner(&self, to: u16, lied: &Lied) -> bool {
        let guest = self.guests.get(&to);
        let host = guest.and_then(|guest| self.hosts.get(&guest.host));
        let name = guest.and_then(|guest| self.names.get(guest.network));
        let owner = host.zip(name);
        let owner =
            owner.and_then(|(host, name)| self.world.owner(host.id, name, mac_of(lied.mac_of)));
        let sender = self.hosts.get(&lied.host);
        owner.is_some() && owner == sender.and_then(|sender| self.world.peer(sender.id))
    }
}

/// Is it a frame to one guest, and its number? `None` for what nodes say themselves.
fn number_of(frame: &[u8]) -> Option<(bool, u64)> {
    let is_unicast = frame.get(12..14)? == [0x88, 0xb5];
    let at = if is_unicast { 14 } else { 42 };
    let bytes = frame.get(at..at + 8)?;
    let number = u64::from_be_bytes(bytes.try_into().ok()?);
    // Guests count from 1; behind the gratuitous ARP of a node is padding.
    (number > 0).then_some((is_unicast, number))
}
