#![allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]

use std::sync::{Arc, Mutex};

use nat_traversal::entropy::SeededEntropy;

use super::*;
use crate::attachment::{Attachment, TapPort};
use crate::node::effects::Effects;
use crate::node::storing::Storing;
use crate::node::warnings::Warnings;
use crate::questions::Questions;
use crate::sequences::Sequences;
use crate::store::Done;

const BRIDGE: &str = "br0";

/// Of a port: its number, what it lets pass, and whether it has carrier.
type Port = (u32, PortState, bool);

/// The ports of one bridge, by name.
#[derive(Debug, Default, Clone)]
struct Host(Arc<Mutex<BTreeMap<String, Port>>>);

impl Host {
    fn set(&self, name: &str, index: u32, state: PortState, live: bool) {
        let mut ports = self.0.lock().unwrap();
        ports.insert(name.to_owned(), (index, state, live));
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }

    fn get(&self, name: &str) -> Option<Port> {
        self.0.lock().unwrap().get(name).copied()
    }
}

impl HostSight for Host {
    fn port_behind(&self, _: &str, _: MacAddr) -> Option<String> {
        None
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        self.get(name).map(|(index, _, _)| index)
    }

    fn port_state(&self, name: &str) -> Option<PortState> {
        self.get(name).map(|(_, state, _)| state)
    }

    fn bridge_of(&self, name: &str) -> Option<String> {
        self.get(name).map(|_| BRIDGE.to_owned())
    }

    fn live_ports(&self, _: &str) -> BTreeSet<String> {
        let ports = self.0.lock().unwrap();
        let live = ports.iter().filter(|(_, (_, _, live))| *live);
        live.map(|(name, _)| name.clone()).collect()
    }

    fn tap_port(&self, _: &str) -> Option<TapPort> {
        None
    }

    fn host_name(&self) -> Option<String> {
        None
    }

    fn nic_waits(&self, _: &Attachment) -> bool {
        false
    }
}

struct World {
    host: Host,
    out: Outside,
    start: Instant,
    ports: LoopedPorts,
}

impl World {
    fn new() -> Self {
        let (host, start) = (Host::default(), Instant::now());
        let out = Outside {
            asking: Questions::default(),
            store: Storing::new(Sequences::restored(0), start),
            effects: Effects::default(),
            warnings: Warnings::default(),
            drops: Arc::default(),
            sight: Box::new(host.clone()),
            entropy: Box::new(SeededEntropy::new(1)),
            fib_stale: false,
        };
        let ports = LoopedPorts::default();
        Self {
            host,
            out,
            start,
            ports,
        }
    }

    fn at(&self, ms: u64) -> Tick {
        Tick {
            now: self.start + Duration::from_millis(ms),
            wall: UnixTime(1_800_000_000 + ms / 1000),
        }
    }

    /// The own beacon came back by `name`.
    fn shut(&mut self, ms: u64, name: &str) {
        let (tick, index) = (self.at(ms), self.host.index_of(name).unwrap());
        assert!(self.ports.machine.handle_return(tick.now, index, true));
        self.ports
            .shut_port(tick, &mut self.out, index, name.to_owned());
    }

    fn turn(&mut self, ms: u64) {
        let tick = self.at(ms);
        self.ports.open_ports(tick, &mut self.out);
    }

    /// The disk takes what is there.
    fn keep(&mut self) -> Vec<u8> {
        let store = &mut self.out.store.machine;
        let (id, write) = store.poll_write().unwrap();
        store.handle_written(UnixTime(0), id, Ok(Done::Saved));
        let _ = store.poll_written();
        self.ports.handle_kept(&mut self.out, id);
        match &*write {
            Write::LoopedPorts(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Which ports were to be shut (`false`) and opened since the last call.
    fn orders(&mut self) -> Vec<(u32, bool)> {
        let mut orders = Vec::new();
        while let Some(effect) = self.out.effects.pop() {
            match effect {
                Effect::Host(HostTask::SetForwarding {
                    index, forwards, ..
                }) => orders.push((index, forwards)),
                other => panic!("{other:?}"),
            }
        }
        orders
    }
}

#[test]
fn a_port_is_shut_once_the_disk_has_it_and_opened_when_its_time_is_over() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.shut(0, "eth1");
    world.turn(100);
    assert!(world.orders().is_empty(), "the disk has not said a word");
    world.keep();
    assert_eq!(world.orders(), [(7, false)]);
    world.host.set("eth1", 7, PortState::Disabled, true);
    world.turn(200);
    assert!(world.orders().is_empty());
    let over = u64::try_from(SHUT_FOR.as_millis()).unwrap();
    world.turn(over - 1);
    assert!(world.orders().is_empty());
    world.turn(over);
    assert_eq!(world.orders(), [(7, true)]);
    // So it stands on disk, too.
    let none: Vec<ShutPort> = postcard::from_bytes(&world.keep()).unwrap();
    assert!(none.is_empty());
    world.turn(over + 100);
    assert_eq!(world.ports.poll_timeout(), None);
}

#[test]
fn a_disk_that_says_nothing_keeps_no_loop_alive() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.shut(0, "eth1");
    world.turn(4_900);
    assert!(world.orders().is_empty());
    world.turn(5_000);
    assert_eq!(world.orders(), [(7, false)]);
}

#[test]
fn a_port_that_the_kernel_opened_is_shut_again_unless_it_refused() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.shut(0, "eth1");
    world.keep();
    assert_eq!(world.orders(), [(7, false)]);
    let now = world.at(100).now;
    assert!(world.ports.shut_again(now, &mut world.out, "eth1"));
    assert_eq!(world.orders(), [(7, false)]);
    let mut set = PortSet {
        name: "eth1".to_owned(),
        forwards: false,
        refused: true,
    };
    world.ports.note_set(&world.host, &set);
    assert!(!world.ports.shut_again(now, &mut world.out, "eth2"));
    assert!(world.orders().is_empty(), "the bridge speaks STP");
    set.refused = false;
    world.ports.note_set(&world.host, &set);
    assert!(world.ports.shut_again(now, &mut world.out, "eth2"));
    assert_eq!(world.orders(), [(7, false)]);
}

#[test]
fn a_port_is_tried_again_soon_when_the_other_way_is_gone() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.host.set("eth2", 8, PortState::Other, true);
    world.shut(0, "eth1");
    world.keep();
    world.host.set("eth1", 7, PortState::Disabled, true);
    world.turn(100);
    assert_eq!(world.orders(), [(7, false)]);
    world.host.set("eth2", 8, PortState::Other, false);
    world.turn(10_000);
    assert_eq!(world.orders(), [(7, true)]);
}

#[test]
fn a_port_that_has_left_its_bridge_is_forgotten_and_stays_as_it_is() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.shut(0, "eth1");
    world.keep();
    world.orders();
    world.host.remove("eth1");
    world.turn(100);
    assert!(world.orders().is_empty());
    assert_eq!(world.ports.poll_timeout(), None);
}

#[test]
fn a_later_run_finds_what_is_shut_unless_the_number_is_anothers() {
    let mut world = World::new();
    world.host.set("eth1", 7, PortState::Other, true);
    world.shut(0, "eth1");
    let saved = world.keep();
    for (index, stays) in [(7, true), (9, false)] {
        let mut later = World::new();
        later.host.set("eth1", index, PortState::Disabled, true);
        let tick = later.at(60_000);
        later.ports.recall(tick, &mut later.out, &saved);
        assert_eq!(later.ports.shut.len(), usize::from(stays));
        let told: Vec<String> = later.out.warnings.lines().collect();
        assert_eq!(told.len(), usize::from(stays));
        assert!(told.iter().all(|line| line.contains("again in 240 s")));
        let left = later.ports.machine.poll_timeout();
        let open_at = Some(tick.now + Duration::from_secs(240));
        assert_eq!(left, open_at.filter(|_| stays));
    }
}
