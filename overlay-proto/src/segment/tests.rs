//! Nodes on LANs in virtual time: who forwards, for how long two do, or none.

use std::time::{Duration, Instant};

use super::*;
use crate::SeededEntropy;
use crate::ethernet::EthernetFrame;
use crate::segment::shut::{SHUT_FOR, ShutPorts};

const NETWORK: NetworkId = NetworkId([7; 32]);
const KEY: [u8; 32] = [9; 32];
const STEP: Duration = Duration::from_millis(1);
const UNTAGGED: VlanId = VlanId::UNTAGGED;

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

struct Node {
    segment: Segment,
    /// The LAN it is plugged into; none: unplugged, or dead.
    lan: Option<usize>,
    running: bool,
    /// VLANs that its cable carries; empty: all.
    trunk: Vec<VlanId>,
    events: Vec<(Duration, SegmentEvent)>,
}

/// A few nodes, some LANs. A beacon takes one step, or is lost.
struct Sim {
    start: Instant,
    now: Instant,
    entropy: SeededEntropy,
    /// Out of a hundred.
    loss: u32,
    nodes: Vec<Node>,
    /// Steps with two forwarders of `watched` on one LAN, and with none.
    doubled: u32,
    orphaned: u32,
    watched: VlanId,
    recorded: Vec<Vec<u8>>,
}

impl Sim {
    fn new(nodes: u8, seed: u64) -> Self {
        // The tests' moments are counted from any one.
        #[allow(clippy::disallowed_methods)]
        let start = Instant::now();
        let mut entropy = SeededEntropy::new(seed);
        let nodes = (1..=nodes)
            .map(|n| {
                let mut segment = Segment::new(start, NETWORK, PeerId([n; 32]), &mut entropy);
                segment.handle_keys(vec![BeaconKey::of(&KEY)]);
                segment.handle_connected(start, true);
                Node {
                    segment,
                    lan: None,
                    running: false,
                    trunk: Vec::new(),
                    events: Vec::new(),
                }
            })
            .collect();
        Self {
            start,
            now: start,
            entropy,
            loss: 0,
            nodes,
            doubled: 0,
            orphaned: 0,
            watched: UNTAGGED,
            recorded: Vec::new(),
        }
    }

    fn attach(&mut self, node: usize, lan: usize) {
        self.nodes[node].lan = Some(lan);
        self.nodes[node].running = true;
        self.nodes[node].segment.handle_attached(self.now, true);
    }

    fn is_open(&self, node: usize) -> bool {
        !self.nodes[node].segment.is_shut(self.watched)
    }

    fn forwarders(&self, lan: usize) -> Vec<usize> {
        let on = |n: &usize| self.nodes[*n].lan == Some(lan) && self.nodes[*n].running;
        let all = (0..self.nodes.len()).filter(on);
        all.filter(|n| self.is_open(*n)).collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let mut air = Vec::new();
        for (n, node) in self.nodes.iter_mut().enumerate() {
            if !node.running {
                continue;
            }
            if node
                .segment
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                node.segment.handle_timeout(self.now, &mut self.entropy);
            }
            assert!(
                node.segment.poll_timeout().is_none_or(|due| due > self.now),
                "a timer that is over must not stay"
            );
            while let Some(event) = node.segment.poll_event() {
                node.events.push((self.now - self.start, event));
            }
            while let Some(frame) = node.segment.poll_frame() {
                air.push((n, frame));
            }
        }
        for (from, frame) in air {
            self.recorded.push(frame.clone());
            self.carry(from, &frame);
        }
        for lan in 0..2 {
            let on = self.nodes.iter().any(|n| n.lan == Some(lan) && n.running);
            let forwarders = self.forwarders(lan).len();
            self.doubled += u32::from(forwarders > 1);
            self.orphaned += u32::from(on && forwarders == 0);
        }
    }

    fn carry(&mut self, from: usize, frame: &[u8]) {
        let lan = self.nodes[from].lan;
        for to in 0..self.nodes.len() {
            if to == from || lan.is_none() || self.nodes[to].lan != lan {
                continue;
            }
            if self.entropy.next_u32() % 100 < self.loss {
                continue;
            }
            self.give(to, frame);
        }
    }

    fn give(&mut self, to: usize, frame: &[u8]) {
        let parsed = EthernetFrame::parse(frame).unwrap();
        let node = &mut self.nodes[to];
        let carried = node.trunk.is_empty() || node.trunk.contains(&parsed.vlan());
        if node.running && carried {
            let beacon = Beacon::parse(&parsed, node.segment.keys()).unwrap();
            node.segment.handle_beacon(self.now, &beacon);
        }
    }

    fn first(&self, among: &[usize]) -> usize {
        let rank_of = |n: &&usize| {
            let id = self.nodes[**n].segment.me;
            (weight(&NETWORK, self.watched, id), id)
        };
        *among.iter().max_by_key(rank_of).unwrap()
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_node_alone_forwards_after_it_has_listened() {
    let mut sim = Sim::new(1, 1);
    sim.attach(0, 0);
    assert!(!sim.is_open(0));
    sim.run(LISTEN + 2 * STEP);
    assert!(sim.is_open(0));
    sim.recorded.clear();
    sim.run(secs(10));
    assert!(sim.recorded.len() <= 11, "one a second when alone");
    assert!(sim.nodes[0].segment.report().is_empty());
    // Only VM taps: nothing to listen to.
    let mut plain = Segment::new(sim.now, NETWORK, PeerId([1; 32]), &mut sim.entropy);
    assert!(!plain.is_shut(UNTAGGED), "nothing is attached");
    plain.handle_attached(sim.now, false);
    assert!(!plain.is_shut(UNTAGGED));
}

#[test]
fn of_two_that_are_attached_never_more_than_one_forwards() {
    for seed in 0..40 {
        let mut sim = Sim::new(2, seed);
        sim.attach(0, 0);
        sim.run(millis(seed * 17));
        sim.attach(1, 0);
        sim.run(secs(3));
        assert_eq!(sim.doubled, 0, "seed {seed}");
        assert_eq!(sim.forwarders(0), [sim.first(&[0, 1])], "seed {seed}");
        let standby = 1 - sim.first(&[0, 1]);
        let report = &sim.nodes[standby].segment.report()[0];
        assert!(!report.open && report.others.len() == 1 && report.others[0].1);
    }
}

#[test]
fn a_cable_that_comes_later_is_noticed_within_a_second_and_at_once_on_suspicion() {
    for seed in 0..20 {
        let mut sim = Sim::new(2, seed);
        sim.attach(0, 0);
        sim.attach(1, 1);
        sim.run(millis(3_000 + seed * 53));
        sim.nodes[1].lan = Some(0);
        sim.doubled = 0;
        if seed % 2 == 0 {
            // The first frame that went round.
            sim.nodes[1].segment.handle_suspicion(sim.now, UNTAGGED);
        }
        sim.run(secs(3));
        assert_eq!(sim.forwarders(0), [sim.first(&[0, 1])]);
        let bound = if seed % 2 == 0 { 20 } else { 1_010 };
        assert!(
            sim.doubled <= bound,
            "seed {seed}: {} ms with two",
            sim.doubled
        );
    }
}

#[test]
fn suspicions_hurry_only_so_many_beacons() {
    let mut sim = Sim::new(1, 1);
    sim.attach(0, 0);
    sim.run(secs(2));
    sim.recorded.clear();
    for _ in 0..2_000 {
        sim.nodes[0].segment.handle_suspicion(sim.now, UNTAGGED);
        sim.step();
    }
    assert!(sim.recorded.len() <= 15, "{}", sim.recorded.len());
}

#[test]
fn a_forwarder_that_dies_is_followed_within_a_second_one_that_leaves_at_once() {
    for seed in 0..20 {
        let mut sim = Sim::new(3, seed);
        (0..3).for_each(|n| sim.attach(n, 0));
        sim.run(secs(3));
        let first = sim.first(&[0, 1, 2]);
        assert_eq!(sim.forwarders(0), [first]);
        let left: Vec<usize> = (0..3).filter(|n| *n != first).collect();
        let dies = seed % 2 == 0;
        if dies {
            sim.nodes[first].running = false;
        } else {
            for frame in sim.nodes[first].segment.handle_detached() {
                sim.carry(first, &frame);
            }
            sim.nodes[first].running = false;
        }
        sim.orphaned = 0;
        sim.run(secs(3));
        let next = &sim.nodes[sim.first(&left)].segment;
        let gone = sim.nodes[first].segment.id();
        assert_eq!(next.just_gone(sim.now, UNTAGGED), BTreeSet::from([gone]));
        let later = sim.now + secs(5);
        assert!(!next.just_gone(later, UNTAGGED).contains(&gone));
        assert_eq!(sim.forwarders(0), [sim.first(&left)]);
        let bound = if dies { 1_010 } else { 30 };
        assert!(
            sim.orphaned <= bound,
            "seed {seed}: {} ms with none",
            sim.orphaned
        );
        // It comes back: the rank decides again.
        sim.nodes[first].segment = Segment::new(
            sim.now,
            NETWORK,
            PeerId([first as u8 + 1; 32]),
            &mut sim.entropy,
        );
        sim.nodes[first]
            .segment
            .handle_keys(vec![BeaconKey::of(&KEY)]);
        sim.nodes[first].segment.handle_connected(sim.now, true);
        sim.doubled = 0;
        sim.attach(first, 0);
        sim.run(secs(3));
        assert_eq!(sim.forwarders(0), [first]);
        assert_eq!(sim.doubled, 0);
    }
}

#[test]
fn a_cable_that_is_cut_makes_both_ends_forwarders() {
    let mut sim = Sim::new(2, 5);
    sim.attach(0, 0);
    sim.attach(1, 0);
    sim.run(secs(3));
    sim.nodes[1].lan = Some(1);
    sim.run(millis(1_100));
    assert_eq!((sim.forwarders(0).len(), sim.forwarders(1).len()), (1, 1));
}

#[test]
fn one_beacon_in_five_may_be_lost() {
    let (mut doubled, mut orphaned) = (0, 0);
    for seed in 0..6 {
        let mut sim = Sim::new(3, seed);
        sim.loss = 20;
        (0..3).for_each(|n| sim.attach(n, 0));
        sim.run(secs(5));
        assert_eq!(sim.forwarders(0), [sim.first(&[0, 1, 2])], "seed {seed}");
        (sim.doubled, sim.orphaned) = (0, 0);
        sim.run(secs(30));
        doubled += sim.doubled;
        orphaned += sim.orphaned;
    }
    // Of 180 s.
    assert!(doubled <= 400, "{doubled} ms with two");
    assert!(orphaned <= 400, "{orphaned} ms with none");
}

#[test]
fn who_reaches_nobody_makes_room_for_who_does() {
    for seed in 0..4 {
        let mut sim = Sim::new(2, seed);
        sim.attach(0, 0);
        sim.attach(1, 0);
        sim.run(secs(2));
        let first = sim.first(&[0, 1]);
        sim.nodes[first].segment.handle_connected(sim.now, false);
        sim.run(millis(50));
        assert_eq!(sim.forwarders(0), [1 - first]);
        sim.nodes[1 - first]
            .segment
            .handle_connected(sim.now, false);
        sim.run(millis(50));
        assert_eq!(
            sim.forwarders(0),
            [first],
            "both are cut off: the weight decides"
        );
        assert_eq!(sim.doubled, 0);
    }
}

#[test]
fn two_shared_lans_have_a_forwarder_each() {
    let mut sim = Sim::new(4, 3);
    for (node, lan) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        sim.attach(node, lan);
    }
    sim.run(secs(3));
    assert_eq!(sim.forwarders(0), [sim.first(&[0, 1])]);
    assert_eq!(sim.forwarders(1), [sim.first(&[2, 3])]);
}

#[test]
fn vlans_are_shared_out_and_one_that_the_cable_lacks_stays_with_both() {
    let mut sim = Sim::new(2, 3);
    sim.attach(0, 0);
    sim.attach(1, 0);
    for n in 0..2 {
        sim.nodes[n].trunk = (0..40).map(vlan).collect();
    }
    sim.run(secs(2));
    let mut firsts = [0, 0];
    for id in (1..12).chain([50]) {
        sim.watched = vlan(id);
        sim.nodes[0].segment.handle_vlan(sim.now, vlan(id));
        sim.nodes[1].segment.handle_vlan(sim.now, vlan(id));
        sim.run(secs(2));
        if id == 50 {
            assert_eq!(sim.forwarders(0), [0, 1], "each has its own VLAN 50");
        } else {
            let first = sim.first(&[0, 1]);
            assert_eq!(sim.forwarders(0), [first], "VLAN {id}");
            firsts[first] += 1;
        }
    }
    assert!(firsts[0] > 0 && firsts[1] > 0, "{firsts:?}");
    // Beyond the bound they go with the untagged one.
    for id in 100..200 {
        sim.nodes[0].segment.handle_vlan(sim.now, vlan(id));
    }
    assert!(sim.nodes[0].segment.vlans().count() <= MAX_VLANS);
    let untagged = sim.nodes[0].segment.is_shut(UNTAGGED);
    assert_eq!(sim.nodes[0].segment.is_shut(vlan(199)), untagged);
    // Nobody uses them: all but the shared ones are forgotten.
    sim.nodes[1].running = false;
    sim.run(secs(2));
    sim.now += DOOR_IDLE;
    sim.step();
    assert_eq!(sim.nodes[0].segment.vlans().count(), 1);
}

#[test]
fn a_recording_shuts_nobody_out() {
    let mut sim = Sim::new(2, 3);
    sim.attach(0, 0);
    sim.attach(1, 0);
    sim.run(secs(40));
    let first = sim.first(&[0, 1]);
    let other = 1 - first;
    sim.nodes[first].running = false;
    sim.run(secs(2));
    assert_eq!(sim.forwarders(0), [other]);
    // A guest plays all of it again, in order, for as long as it likes.
    let recorded = std::mem::take(&mut sim.recorded);
    for frame in recorded.iter().rev().take(300).rev() {
        sim.give(other, frame);
        sim.step();
        assert!(sim.is_open(other));
    }
    let gone = sim.nodes[first].segment.id();
    sim.run(secs(5));
    sim.give(other, recorded.last().unwrap());
    let heard = &sim.nodes[other].segment;
    assert!(!heard.just_gone(sim.now, UNTAGGED).contains(&gone));
    // Also when the counters are long forgotten.
    sim.run(secs(70));
    for frame in &recorded {
        sim.give(other, frame);
        sim.step();
        assert!(sim.is_open(other));
    }
}

#[test]
fn the_own_beacon_come_back_is_told_a_few_times_a_second() {
    let mut sim = Sim::new(1, 3);
    sim.attach(0, 0);
    sim.run(secs(2));
    let frame = sim.recorded.last().unwrap().clone();
    sim.nodes[0].events.clear();
    for _ in 0..1_000 {
        sim.give(0, &frame);
        sim.step();
    }
    let returned = sim.nodes[0].events.len();
    assert!((9..=11).contains(&returned), "{returned}");
    let all = sim.nodes[0].events.iter();
    assert!(
        all.copied()
            .all(|(_, e)| e == SegmentEvent::Returned(UNTAGGED))
    );
    assert!(sim.is_open(0), "an election does not help");
    sim.nodes[0].segment.handle_port_shut(sim.now);
    sim.nodes[0].events.clear();
    for _ in 0..900 {
        sim.give(0, &frame);
        sim.step();
    }
    assert!(sim.nodes[0].events.is_empty(), "the port is being shut");
    sim.recorded.clear();
    sim.nodes[0].segment.handle_port_set(sim.now);
    for _ in 0..5_000 {
        sim.give(0, &frame);
        sim.step();
    }
    assert!(sim.nodes[0].events.is_empty(), "copies from before");
    let frame = sim.recorded.first().unwrap().clone();
    sim.give(0, &frame);
    sim.step();
    assert_eq!(sim.nodes[0].events.len(), 1, "there is another loop");
    // Of a run before, or made up.
    sim.nodes[0].events.clear();
    let parsed = EthernetFrame::parse(&frame).unwrap();
    let beacon = Beacon::parse(&parsed, sim.nodes[0].segment.keys()).unwrap();
    let now = sim.now + secs(1);
    let earlier = Beacon {
        run: 1,
        ..beacon.clone()
    };
    sim.nodes[0].segment.handle_beacon(now, &earlier);
    let ahead = Beacon {
        counter: u64::MAX,
        ..beacon
    };
    sim.nodes[0].segment.handle_beacon(now, &ahead);
    assert_eq!(sim.nodes[0].segment.poll_event(), None);
}

#[test]
fn more_nodes_than_fit_are_not_heard() {
    let mut sim = Sim::new(70, 4);
    (0..70).for_each(|n| sim.attach(n, 0));
    sim.run(millis(700));
    for node in &sim.nodes {
        assert!(
            node.segment
                .report()
                .iter()
                .all(|one| one.others.len() <= 64)
        );
    }
}

#[test]
fn a_member_that_lags_an_epoch_behind_stays_heard() {
    let mut sim = Sim::new(2, 6);
    sim.attach(0, 0);
    sim.attach(1, 0);
    sim.run(secs(2));
    let new = BeaconKey::of(&[10; 32]);
    sim.nodes[0]
        .segment
        .handle_keys(vec![new, BeaconKey::of(&KEY)]);
    sim.doubled = 0;
    for _ in 0..3_000 {
        sim.now += STEP;
        for n in 0..2 {
            sim.nodes[n]
                .segment
                .handle_timeout(sim.now, &mut sim.entropy);
            while sim.nodes[n].segment.poll_event().is_some() {}
            while let Some(frame) = sim.nodes[n].segment.poll_frame() {
                let parsed = EthernetFrame::parse(&frame).unwrap();
                let other = &mut sim.nodes[1 - n].segment;
                if let Ok(beacon) = Beacon::parse(&parsed, other.keys()) {
                    other.handle_beacon(sim.now, &beacon);
                }
            }
        }
        assert_eq!(sim.forwarders(0).len(), 1);
    }
}

#[test]
fn the_first_shuts_at_once_the_others_when_it_did_not_help() {
    let now = Sim::new(0, 1).start;
    let mut first = ShutPorts::default();
    assert!(first.handle_return(now, 4, true));
    assert!(!first.handle_return(now, 4, true), "it is shut");
    assert_eq!(first.poll_timeout(), Some(now + SHUT_FOR));
    assert_eq!(first.poll_reopen(now + SHUT_FOR - STEP), None);
    assert_eq!(first.poll_reopen(now + SHUT_FOR), Some(4));
    assert_eq!(first.poll_timeout(), None);
    assert!(first.handle_return(now + SHUT_FOR, 4, true), "still a loop");

    // Another port of its bridge is gone.
    first.hasten(now + SHUT_FOR + secs(1), 4);
    assert_eq!(first.poll_reopen(now + SHUT_FOR + secs(4)), None);
    assert_eq!(first.poll_reopen(now + SHUT_FOR + secs(5)), Some(4));

    let mut second = ShutPorts::default();
    assert!(!second.handle_return(now, 4, false));
    assert!(!second.handle_return(now + millis(300), 4, false));
    assert!(
        !second.handle_return(now + secs(10), 4, false),
        "another loop"
    );
    assert!(second.handle_return(now + secs(10) + millis(400), 4, false));

    let mut many = ShutPorts::default();
    (0..1_000).for_each(|port| {
        many.handle_return(now, port, true);
    });
    assert_eq!(many.shut().count(), 64);
    many.restore(now, 7, secs(10));
    many.forget(8);
    assert_eq!(many.shut().count(), 63);
}
