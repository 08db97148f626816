//! Whole nodes, with real cryptography, on the virtual network, in one thread and in virtual time.
//!
//! A [`World`] is a [`Net`] with hosts on it, each with a [`Node`](node_core::node::switchboard::run::Node) or without one for a while, guests that are
//! plugged into them, and bootstraps. It steps from event to event: what arrives first, then what was queued, then the
//! hosts whose nodes are due, in the order of their numbers. The same seed makes the same history ([`World::digest`]).
//!
//! - `around`: what is around the hosts. `host`: a host around a node, as the shell of the program is; `start`: from its disk to a
//!   running node. `acts`: what users and the authority do to it; `trouble`: what goes wrong, by itself or by somebody's will.
//! - `fast_path`: what the workers decide. `disk`: what a restart finds. `look`: what the host looks like.
//! - `control`: the bootstraps, which are the real machines in virtual time. `authority`: who signs.
//! - `guests`: the guests and what they got. [`invariants`]: what must hold after each step.
//! - `happenings`: copies of hosts, and what can be seen of nodes. [`hostile`]: a member that does harm.
//!
//! What it does not have: Kademlia (a record is at the bootstraps alone), offloads, kernels that refuse.
//!
//! A minute of a crowd that meets in full, with beacons, probes and two restarts, in a release build on one core: 12 nodes 0.6 s,
//! 30 nodes 4 s, 60 nodes 18 s; in a debug build four to five times as long.

mod acts;
mod around;
mod authority;
mod control;
mod disk;
mod fast_path;
mod guests;
mod happenings;
#[cfg(test)]
mod healing;
#[cfg(test)]
mod healing_times;
mod host;
pub mod hostile;
pub mod invariants;
#[cfg(test)]
mod joining;
mod look;
#[cfg(test)]
mod once;
mod start;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control_proto::records::SignedRecords;
use overlay_proto::Entropy;
use overlay_proto::ethernet::bridge::FdbNews;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Invite, NodeKey};

pub use self::around::Config;
use self::around::{Event, Surroundings, bootstrap_ips};
use self::authority::Authority;
pub use self::authority::{Along, Terms};
use self::control::{Bootstrap, Control, DIAL_EVERY, Place};
pub use self::control::{Mood, StoreMood};
use self::disk::Disk;
use self::guests::Guests;
pub use self::guests::{GuestId, Received};
use self::host::Host;
use self::hostile::Hostile;
use self::invariants::Broken;
use self::look::Bridges;
pub use self::trouble::DiskManner;
use crate::net::clock::Clock;
use crate::net::queue::Queue;
use crate::net::random::stream;
use crate::net::topology::{AccessBehaviour, Arrival, HostId, Net, RealmId};
use crate::net::trace::Digest;

/// Where nodes listen.
const PORT: u16 = 22_611;

/// Turns of a node without an input within a second, at most: twice what timers of 1 ms make.
const RESTLESS: u32 = 2_000;

/// Whole nodes on a virtual network.
pub struct World {
    seed: u64,
    around: Surroundings,
    authority: Authority,
    control: Control,
    hosts: BTreeMap<HostId, Host>,
    hostile: BTreeMap<HostId, Hostile>,
    /// When each node is due, and all of that in order.
    due: BTreeMap<HostId, Duration>,
    order: BTreeSet<(Duration, HostId)>,
    next_call: u64,
}

impl World {
    /// The internet with bootstraps on it. `base` is the instant of the start; which one does not matter.
    ///
    /// # Errors
    /// A name of a network is none.
    pub fn new(seed: u64, base: Instant, config: Config) -> Result<Self> {
        let mut around = Surroundings {
            clock: Clock::new(base),
            net: Net::new(seed),
            queue: Queue::new(),
            guests: Guests::default(),
            config,
        };
        let (mut addrs, mut places) = (Vec::new(), Vec::new());
        for place in 0..around.config.bootstraps {
            let host = around.net.add_host(&format!("bootstrap {place}"))?;
            let realm = Net::INTERNET;
            around.net.attach(host, realm, AccessBehaviour::PERFECT)?;
            let ips = bootstrap_ips(place);
            for ip in ips {
                around.net.add_address(host, realm, ip)?;
            }
            let key = NodeKey::generate(&mut stream(seed, &format!("bootstrap {place}")));
            let [ip, _] = ips;
            addrs.push((Bootstrap::addr_of(ip, key.peer_id()), key.peer_id()));
            places.push(Place { host, ips, key });
            around.queue.push(Duration::ZERO, Event::Serves(host));
        }
        let (names, wall) = (&around.config.networks, around.config.wall);
        let authority = Authority::new(seed, names, addrs, wall)?;
        let overlay = authority.overlay();
        let serve = |place| Bootstrap::new(seed, place, overlay, &around);
        let control = Control {
            all: places.into_iter().map(serve).collect(),
            rules: SignedRecords { overlay },
        };
        Ok(Self {
            seed,
            authority,
            around,
            control,
            hosts: BTreeMap::new(),
            hostile: BTreeMap::new(),
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            next_call: 0,
        })
    }

    /// The network, to build sites and to break it.
    pub const fn net(&mut self) -> &mut Net {
        &mut self.around.net
    }

    /// Time since the start.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.around.clock.now()
    }

    /// A host in `realm` with this address, joined to these networks by their place in [`Config::networks`] and attached to
    /// all of them; its node does not run yet.
    ///
    /// # Errors
    /// The address is somebody's, or there is no such realm or network.
    pub fn add_host(
        &mut self,
        name: &str,
        place: (RealmId, IpAddr),
        access: AccessBehaviour,
        networks: &[usize],
    ) -> Result<HostId> {
        let invite = self.invite(&Terms::of(networks))?;
        self.add_invited(name, place, access, &invite)
    }

    /// As [`Self::add_host`], joined by an invite of [`Self::invite`].
    ///
    /// # Errors
    /// The address is somebody's, there is no such realm, or the invite cannot be used any more.
    pub fn add_invited(
        &mut self,
        name: &str,
        (realm, ip): (RealmId, IpAddr),
        access: AccessBehaviour,
        invite: &str,
    ) -> Result<HostId> {
        let id = self.around.net.add_host(name)?;
        self.around.net.attach(id, realm, access)?;
        self.around.net.add_address(id, realm, ip)?;
        let mut entropy = stream(self.seed, &format!("host {name}"));
        let key = NodeKey::generate(&mut entropy);
        let membership = Invite::parse(invite)?.accept(&key, self.around.wall())?;
        let bridges = Bridges::default();
        for network in membership.networks() {
            bridges.add(network.name.clone(), true);
        }
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        let host = Host {
            id,
            name: name.to_owned(),
            key,
            port: PORT,
            ahead: 0,
            is_deaf: false,
            bridges,
            disk: Disk::new(membership, secret),
            replies: Vec::new(),
            run: 0,
            running: None,
        };
        self.hosts.insert(id, host);
        Ok(id)
    }

    /// Starts the node of a host, for the first time or again.
    ///
    /// # Errors
    /// There is no such host, or it has left.
    pub fn start(&mut self, id: HostId) -> Result<()> {
        self.around.net.set_running(id, true);
        let host = self.hosts.get_mut(&id).context("no such host")?;
        host.start(&mut self.around, self.seed)?;
        let run = host.run;
        let at = self.around.clock.now() + self.around.config.control_delay;
        let again = true;
        let dial = Event::Dial {
            host: id,
            run,
            again,
        };
        self.around.queue.push(at, dial);
        self.note_due(id);
        Ok(())
    }

    /// The name of a host's node.
    #[must_use]
    pub fn peer(&self, id: HostId) -> Option<PeerId> {
        let peer = self.hosts.get(&id).map(Host::peer);
        peer.or_else(|| self.hostile_peer(id))
    }

    /// Does its node run?
    #[must_use]
    pub fn is_running(&self, id: HostId) -> bool {
        self.hosts
            .get(&id)
            .is_some_and(|host| host.running.is_some())
    }

    /// A guest sends a frame now.
    pub fn send(&mut self, id: GuestId, frame: &[u8]) {
        let Some(guest) = self.around.guests.get(id) else {
            return;
        };
        let (network, host) = (guest.network.clone(), guest.host);
        let now = self.around.clock.now();
        let invariants = &mut self.around.guests.invariants;
        invariants.note_sent(now, id, &network, frame);
        let Some(host) = host.and_then(|host| self.hosts.get_mut(&host)) else {
            return;
        };
        host.take_guest_frame(&mut self.around, (id, &network), frame);
        let id = host.id;
        self.note_due(id);
    }

    /// What a guest got, oldest first; at most the last 4,096.
    pub fn inbox(&self, id: GuestId) -> impl Iterator<Item = &Received> {
        self.around.guests.inbox(id)
    }

    /// The digest of all that the network and the guests saw.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest.word(self.around.net.trace().digest());
        digest.word(self.around.guests.invariants.digest());
        digest.value()
    }

    /// Frames that guests got and no guest sent: of the nodes themselves.
    #[must_use]
    pub const fn frames_of_nodes(&self) -> u64 {
        self.around.guests.invariants.of_nodes()
    }

    /// Goes on until the time `until`.
    ///
    /// # Errors
    /// What must hold does not, after the step at which the world stands then.
    pub fn run_until(&mut self, until: Duration) -> Result<(), Broken> {
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.around.clock.advance_to(at);
            self.step(at);
            self.around.guests.invariants.check()?;
        }
        self.around.clock.advance_to(until);
        Ok(())
    }

    fn next_at(&self) -> Option<Duration> {
        let due = self.order.first().map(|(due, _)| *due);
        let times = [self.around.net.next_at(), self.around.queue.next_at(), due];
        times.into_iter().flatten().min()
    }

    /// One event.
    fn step(&mut self, now: Duration) {
        if let Some(arrival) = self.around.net.deliver(now) {
            self.arrive(arrival);
        } else if let Some((_, event)) = self.around.queue.pop_until(now) {
            self.handle(event);
        } else if let Some((_, id)) = self.order.first().copied().filter(|(due, _)| *due <= now) {
            self.take_turn(id, now);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        // Nobody listens for what ICMP says: as the program's sockets do.
        let Arrival::Datagram(mut delivery) = arrival else {
            return;
        };
        let id = delivery.host;
        if let Some(bootstrap) = self.control.at(id) {
            return bootstrap.arrive(&mut self.around, delivery);
        }
        if let Some(host) = self.hosts.get_mut(&id)
            && delivery.local.port() == host.port
        {
            host.arrive(&mut self.around, delivery.source, &mut delivery.bytes);
            return self.note_due(id);
        }
        self.arrive_hostile(id, delivery.source, &mut delivery.bytes);
    }

    fn take_turn(&mut self, id: HostId, now: Duration) {
        if self.turn_hostile(id) {
            return;
        }
        if let Some(host) = self.hosts.get_mut(&id) {
            host.enter(&mut self.around, |_, _| {});
            if let Some(running) = &mut host.running {
                let (second, turns) = &mut running.idle_turns;
                if *second != now.as_secs() {
                    (*second, *turns) = (now.as_secs(), 0);
                }
                *turns += 1;
                if *turns > RESTLESS {
                    let broken = Broken::Restless(*turns);
                    self.around.guests.invariants.note_broken(broken);
                }
            }
        }
        self.note_due(id);
    }

    fn handle(&mut self, event: Event) {
        let Some((id, run)) = event.whose() else {
            return self.handle_other(&event);
        };
        let around = &mut self.around;
        let Some(host) = self.hosts.get_mut(&id).filter(|host| host.run == run) else {
            return;
        };
        match event {
            Event::Answer { answer, .. } => {
                host.enter(around, |node, tick| node.handle_answer(tick, answer));
            }
            Event::Task { task, .. } => host.do_task(around, task),
            Event::Operate { operation, .. } => host.operate(around, &operation),
            Event::Written { id, write, .. } => host.written(around, id, &write),
            Event::Control { event, .. } => {
                host.enter(around, |node, tick| node.handle_control_event(tick, event));
            }
            Event::Lists { lists, .. } => host.learn_lists(around, &lists),
            Event::Learned { entry, .. } => host.enter(around, |node, tick| {
                node.handle_fdb_news(tick, FdbNews::Learned(entry));
            }),
            Event::Asked(asked) => self.control.handle(around, *asked, host),
            Event::Dial { again, .. } => {
                if host.running.is_some() {
                    self.control.dial(around, host);
                    let at = around.clock.now() + DIAL_EVERY;
                    if again {
                        let host = id;
                        around.queue.push(at, Event::Dial { host, run, again });
                    }
                }
            }
            Event::Ages { .. } | Event::Says { .. } | Event::Serves(_) => {}
        }
        self.note_due(id);
    }

    fn handle_other(&mut self, event: &Event) {
        match event {
            Event::Says { guest, frame } => self.send(*guest, frame),
            Event::Serves(host) => {
                if let Some(one) = self.control.at(*host) {
                    let again = one.handle_timeout(&mut self.around);
                    self.around.queue.push(again, Event::Serves(*host));
                }
            }
            Event::Ages { host: id, guest } => {
                if let Some(host) = self.hosts.get_mut(id) {
                    host.age(&mut self.around, *guest);
                }
                self.note_due(*id);
            }
            _ => {}
        }
    }

    /// When the node of a host is due may have changed, and whether it runs.
    fn note_due(&mut self, id: HostId) {
        if self.hosts.contains_key(&id) && !self.is_running(id) {
            self.control.forget(id);
        }
        let due = self.hosts.get(&id).and_then(|host| host.due(&self.around));
        let due = due.or_else(|| self.hostile_due(id));
        let before = match due {
            Some(due) => self.due.insert(id, due),
            None => self.due.remove(&id),
        };
        if let Some(before) = before {
            self.order.remove(&(before, id));
        }
        if let Some(due) = due {
            self.order.insert((due, id));
        }
    }
}
