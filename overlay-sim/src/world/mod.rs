//! Whole nodes, with real cryptography, on the virtual network, in one thread and in virtual time.
//!
//! A [`World`] is a [`Net`] with hosts on it, each with a [`Node`](node_core::node::run::Node) or without one for a while, guests that are
//! plugged into them, and one bootstrap. It steps from event to event: what arrives first, then what was queued, then the
//! hosts whose nodes are due, in the order of their numbers. The same seed makes the same history ([`World::digest`]).
//!
//! - `host`: a host around a node, as the shell of the program is; `start`: from its disk to a running node.
//! - `fast_path`: what the workers decide. `disk`: what a restart finds. `look`: what the host looks like.
//! - `control`: the bootstrap, a stub but for its reflector and relay. `authority`: who signs.
//! - `guests`: the guests and what they got. [`invariants`]: what must hold after each step.
//! - `happenings`: what else is done to hosts, and what can be seen of their nodes. [`hostile`]: a member that lies.
//!
//! What it does not have: several bootstraps, a DHT that forgets or lies, offloads, kernels that refuse.
//!
//! A minute of a crowd that meets in full, with beacons, probes and two restarts, in a release build on one core: 12 nodes 0.6 s,
//! 30 nodes 4 s, 60 nodes 18 s; in a debug build four to five times as long.

mod authority;
mod control;
mod disk;
mod fast_path;
mod guests;
mod happenings;
#[cfg(test)]
mod histories;
mod host;
pub mod hostile;
pub mod invariants;
#[cfg(test)]
mod joining;
mod look;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use node_core::api::{Request, Response};
use node_core::control::ControlEvent;
use node_core::node::answers::Answer;
use node_core::node::effects::CallId;
use node_core::node::host_orders::HostTask;
use node_core::node::identity::Tick;
use node_core::questions::{Question, QuestionId};
use node_core::store::{Write, WriteId};
use overlay_proto::Entropy;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::{FdbEntry, FdbNews};
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::NodeKey;
use overlay_proto::time::UnixTime;

use self::authority::Authority;
use self::control::{Asked, Bootstrap, DIAL_EVERY};
use self::disk::Disk;
use self::guests::Guests;
pub use self::guests::{GuestId, Received};
use self::host::Host;
use self::hostile::Hostile;
use self::invariants::Broken;
use self::look::{Bridge, Bridges};
use crate::net::clock::Clock;
use crate::net::queue::Queue;
use crate::net::random::stream;
use crate::net::topology::{AccessBehaviour, Arrival, HostId, Net, RealmId, Station};
use crate::net::trace::Digest;

/// The addresses of the bootstrap on the internet.
const BOOTSTRAP: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(45, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(45, 0, 1, 1)),
];

/// Where nodes listen.
const PORT: u16 = 22_611;

/// Turns of a node without an input within a second, at most: twice what timers of 1 ms make.
const RESTLESS: u32 = 2_000;

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The networks of the overlay.
    pub networks: Vec<&'static str>,
    /// What the wall clocks say at the start.
    pub wall: UnixTime,
    /// From a node to the bootstrap over the control plane, and back.
    pub control_delay: Duration,
    /// What a write takes.
    pub disk_delay: Duration,
}

impl Default for Config {
    /// One network, 20 ms to the bootstrap, 5 ms for a write.
    fn default() -> Self {
        Self {
            networks: vec!["lab"],
            wall: UnixTime(1_800_000_000),
            control_delay: Duration::from_millis(20),
            disk_delay: Duration::from_millis(5),
        }
    }
}

/// Something that is due at a time. `run` is the run of the node that it belongs to.
enum Event {
    Answer {
        host: HostId,
        run: u32,
        answer: Answer,
    },
    Task {
        host: HostId,
        run: u32,
        task: HostTask,
    },
    Written {
        host: HostId,
        run: u32,
        id: WriteId,
        write: Arc<Write>,
    },
    Control {
        host: HostId,
        run: u32,
        event: ControlEvent,
    },
    Lists {
        host: HostId,
        run: u32,
        lists: Vec<Vec<u8>>,
    },
    Learned {
        host: HostId,
        run: u32,
        entry: FdbEntry,
    },
    Asked(Box<Asked>),
    Dial {
        host: HostId,
        run: u32,
    },
}

/// What is around the hosts.
struct Surroundings {
    config: Config,
    clock: Clock,
    net: Net,
    queue: Queue<Event>,
    guests: Guests,
}

impl Surroundings {
    fn tick(&self) -> Tick {
        Tick {
            now: self.clock.instant(),
            wall: self.wall(),
        }
    }

    /// What the clocks of a host say whose wall clock is so many seconds ahead.
    fn tick_of(&self, ahead: i64) -> Tick {
        let tick = self.tick();
        let wall = tick.wall.0.saturating_add_signed(ahead);
        Tick {
            wall: UnixTime(wall),
            ..tick
        }
    }

    fn wall(&self) -> UnixTime {
        self.config.wall.plus(self.clock.now())
    }

    /// Nanoseconds since 1970.
    fn wall_nanos(&self) -> u64 {
        let start = Duration::from_secs(self.config.wall.0);
        let nanos = start.saturating_add(self.clock.now()).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// A question leaves for the bootstrap.
    fn ask(
        &mut self,
        host: HostId,
        run: u32,
        (id, question): (QuestionId, Question),
        lists: Vec<Vec<u8>>,
    ) {
        let at = self.clock.now() + self.config.control_delay;
        let asked = Asked {
            host,
            run,
            id,
            question,
            lists,
        };
        self.queue.push(at, Event::Asked(Box::new(asked)));
    }
}

/// Whole nodes on a virtual network.
pub struct World {
    seed: u64,
    around: Surroundings,
    bootstrap: Bootstrap,
    hosts: BTreeMap<HostId, Host>,
    hostile: BTreeMap<HostId, Hostile>,
    /// When each node is due, and all of that in order.
    due: BTreeMap<HostId, Duration>,
    order: BTreeSet<(Duration, HostId)>,
    next_call: u64,
}

impl World {
    /// The internet with a bootstrap on it. `base` is the instant of the start; which one does not matter.
    ///
    /// # Errors
    /// A name of a network is none.
    pub fn new(seed: u64, base: Instant, config: Config) -> Result<Self> {
        let mut net = Net::new(seed);
        let host = net.add_host("bootstrap")?;
        net.attach(host, Net::INTERNET, AccessBehaviour::PERFECT)?;
        for ip in BOOTSTRAP {
            net.add_address(host, Net::INTERNET, ip)?;
        }
        let [ip, _] = BOOTSTRAP;
        let place = format!("/ip4/{ip}/tcp/22612");
        let authority = Authority::new(seed, &config.networks, &place, config.wall)?;
        let around = Surroundings {
            config,
            clock: Clock::new(base),
            net,
            queue: Queue::new(),
            guests: Guests::default(),
        };
        let bootstrap = Bootstrap::new(seed, (host, BOOTSTRAP), authority, &around);
        Ok(Self {
            seed,
            around,
            bootstrap,
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
        (realm, ip): (RealmId, IpAddr),
        access: AccessBehaviour,
        networks: &[usize],
    ) -> Result<HostId> {
        let id = self.around.net.add_host(name)?;
        self.around.net.attach(id, realm, access)?;
        self.around.net.add_address(id, realm, ip)?;
        let mut entropy = stream(self.seed, &format!("host {name}"));
        let key = NodeKey::generate(&mut entropy);
        let wall = self.around.wall();
        let membership = self.bootstrap.authority.join(&key, networks, wall)?;
        let bridges = (0..)
            .zip(membership.networks())
            .map(|(number, secret)| Bridge {
                network: secret.name.clone(),
                number,
                guests: BTreeMap::new(),
            });
        let bridges = Bridges::new(bridges.collect());
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        let host = Host {
            id,
            name: name.to_owned(),
            key,
            port: PORT,
            bridges,
            disk: Disk::new(membership, secret),
            replies: Vec::new(),
            run: 0,
            running: None,
            clock_ahead: 0,
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
        self.around.queue.push(at, Event::Dial { host: id, run });
        self.note_due(id);
        Ok(())
    }

    /// The host loses its power: what was not on its disk is gone.
    pub fn kill(&mut self, id: HostId) {
        self.around.net.set_running(id, false);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.running = None;
            self.bootstrap.forget(host.peer());
        }
        self.note_due(id);
    }

    /// The host was restored from a snapshot or slept: all sessions of its node end.
    pub fn restore(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.enter(&mut self.around, |node, tick| {
                node.end_all_sessions(tick, "this virtual machine was restored or cloned");
            });
        }
        self.note_due(id);
    }

    /// Plugs the bootstrap out, or in again.
    pub fn cut_bootstrap(&mut self, cut: bool) {
        let station = Station::Host(self.bootstrap.host);
        self.around.net.set_connected(station, !cut);
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

    /// A guest of a network, plugged into a host.
    ///
    /// # Errors
    /// The host is not in that network.
    pub fn add_guest(&mut self, host: HostId, network: &str, mac: MacAddr) -> Result<GuestId> {
        let network: NetworkName = network.parse().ok().context("no name for a network")?;
        let guest = self.around.guests.add(mac, network);
        self.plug(guest, host)?;
        Ok(guest)
    }

    /// Plugs a guest in at another host; the one where it was sees its port go.
    ///
    /// # Errors
    /// There is no such guest, or the host is not in its network.
    pub fn plug(&mut self, id: GuestId, to: HostId) -> Result<()> {
        let guest = self.around.guests.get_mut(id).context("no such guest")?;
        let (network, mac) = (guest.network.clone(), guest.mac);
        let from = guest.host.replace(to);
        if let Some(host) = from.and_then(|from| self.hosts.get_mut(&from)) {
            let entry = host.bridges.with(|bridges| {
                let bridge = bridges.iter_mut().find(|one| one.network == network)?;
                bridge.guests.remove(&id.0);
                Some(bridge.entry(id.0, mac))
            });
            if let Some(entry) = entry {
                let news = FdbNews::Gone(entry);
                host.enter(&mut self.around, |node, tick| {
                    node.handle_fdb_news(tick, news);
                });
            }
        }
        let host = self.hosts.get_mut(&to).context("no such host")?;
        let plugged = host.bridges.with(|bridges| {
            let bridge = bridges.iter_mut().find(|one| one.network == network)?;
            bridge.guests.insert(id.0, (mac, false));
            Some(())
        });
        plugged.context("the host is not in that network")?;
        from.into_iter()
            .chain([to])
            .for_each(|id| self.note_due(id));
        Ok(())
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

    /// A user of a host asks its node. What is answered at once is returned; else see [`Self::take_replies`].
    pub fn ask(&mut self, id: HostId, request: Request) -> Option<Response> {
        let call = CallId(self.next_call);
        self.next_call += 1;
        let host = self.hosts.get_mut(&id)?;
        host.call(&mut self.around, call, request);
        let place = host.replies.iter().position(|(known, _)| *known == call);
        let answer = place.map(|place| host.replies.remove(place).1);
        self.note_due(id);
        answer
    }

    /// Answers that came later.
    pub fn take_replies(&mut self, id: HostId) -> Vec<(CallId, Response)> {
        let host = self.hosts.get_mut(&id);
        host.map(|host| std::mem::take(&mut host.replies))
            .unwrap_or_default()
    }

    /// The line for [`Self::ask`] by which the authority revokes a node.
    ///
    /// # Errors
    /// There is no such host, or the list is full.
    pub fn revocation_of(&mut self, id: HostId) -> Result<Request> {
        let peer = self.peer(id).context("no such host")?;
        self.bootstrap.authority.revoke(peer)
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
        if delivery.host == self.bootstrap.host {
            return self.bootstrap.arrive(&mut self.around, delivery);
        }
        let id = delivery.host;
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
        let (id, run) = match &event {
            Event::Answer { host, run, .. }
            | Event::Task { host, run, .. }
            | Event::Written { host, run, .. }
            | Event::Control { host, run, .. }
            | Event::Lists { host, run, .. }
            | Event::Learned { host, run, .. }
            | Event::Dial { host, run } => (*host, *run),
            Event::Asked(asked) => (asked.host, asked.run),
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
            Event::Written { id, write, .. } => host.written(around, id, &write),
            Event::Control { event, .. } => {
                host.enter(around, |node, tick| node.handle_control_event(tick, event));
            }
            Event::Lists { lists, .. } => host.learn_lists(around, &lists),
            Event::Learned { entry, .. } => host.enter(around, |node, tick| {
                node.handle_fdb_news(tick, FdbNews::Learned(entry));
            }),
            Event::Asked(asked) => self.bootstrap.handle(around, *asked, host),
            Event::Dial { host: id, run } => {
                if host.running.is_some() {
                    self.bootstrap.dial(around, host);
                    let at = around.clock.now() + DIAL_EVERY;
                    around.queue.push(at, Event::Dial { host: id, run });
                }
            }
        }
        self.note_due(id);
    }

    /// When the node of a host is due may have changed.
    fn note_due(&mut self, id: HostId) {
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
