//! Three members of a network: frames, moves, lost messages, restarts, lies.
//!
//! The oracle: actions and timers come to an end, all promises of the types hold, and once messages
//! pass again all agree on every owner.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nat_traversal::entropy::SeededEntropy;
use overlay_proto::directory::{
    Directory, DirectoryAction, DirectoryConfig, DirectoryMessage, LateFrame, LateVerdict, Signed,
};
use overlay_proto::ethernet::EvidenceClass;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::MacKey;
use overlay_proto::time::UnixTime;

use crate::Seen;
use crate::input::{Input, chunk};
use crate::targets::{EPOCH_KEY, NETWORK, OVERLAY, a_claim, a_key, a_node, directory_messages};

const BORN: UnixTime = UnixTime(1_800_000_000);
const NODES: usize = 3;
const MAX_OPERATIONS: usize = 40;
const MACS: u8 = 4;
const NEXT_KEY: [u8; 32] = [0x2e; 32];

struct World {
    nodes: Vec<Directory>,
    peers: Vec<PeerId>,
    /// From, to, encoded.
    waiting: Vec<(usize, usize, Vec<u8>)>,
    records: Vec<([u8; 32], Vec<u8>)>,
    start: Instant,
    now: Instant,
}

fn number(n: usize) -> u8 {
    u8::try_from(n + 1).unwrap()
}

fn directory(n: usize, now: Instant, wall: UnixTime) -> Directory {
    let config = DirectoryConfig {
        claim_ttl: overlay_proto::directory::CLAIM_TTL,
        overlay: OVERLAY,
        network: NETWORK,
        epoch_key: EPOCH_KEY,
        old_epoch_key: None,
        birth: BORN,
        may_send: true,
        chain: vec![number(n); 40],
        replication: true,
    };
    let mut entropy = SeededEntropy::new(n as u64);
    let mut directory = Directory::new(now, wall, config, a_node(number(n)), &mut entropy);
    for other in (0..NODES).filter(|other| *other != n) {
        let peer = a_node(number(other)).peer_id();
        directory.handle_member(now, peer, true, &[number(other); 40]);
    }
    directory
        .set_own_entry(now, [number(n); 32], [number(n); 32], Vec::new())
        .unwrap();
    directory
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self {
            nodes: (0..NODES).map(|n| directory(n, now, BORN)).collect(),
            peers: (0..NODES).map(|n| a_node(number(n)).peer_id()).collect(),
            waiting: Vec::new(),
            records: Vec::new(),
            start: now,
            now,
        };
        for n in 0..NODES {
            world.neighbours(n);
        }
        world
    }

    fn wall(&self) -> UnixTime {
        UnixTime(BORN.0 + (self.now - self.start).as_secs())
    }

    fn neighbours(&mut self, n: usize) {
        for other in (0..NODES).filter(|other| *other != n) {
            self.nodes[n].handle_neighbour_up(self.now, self.peers[other]);
        }
    }

    fn collect(&mut self, seen: &mut Seen) {
        for n in 0..NODES {
            for turn in 0.. {
                let Some(action) = self.nodes[n].poll_action() else {
                    break;
                };
                assert!(turn < 10_000, "actions without end");
                seen.note(&std::mem::discriminant(&action));
                self.act(n, action);
            }
        }
    }

    fn act(&mut self, n: usize, action: DirectoryAction) {
        match action {
            DirectoryAction::Send { to, message } => {
                let to = self.peers.iter().position(|peer| *peer == to);
                self.send(n, to.expect("a member"), &message);
            }
            DirectoryAction::Broadcast { message } => {
                for to in (0..NODES).filter(|to| *to != n) {
                    self.send(n, to, &message);
                }
            }
            DirectoryAction::DhtPut { dht_key, record } => {
                self.records.retain(|(key, _)| *key != dht_key);
                self.records.push((dht_key, record));
            }
            DirectoryAction::DhtGet { key, dht_key } => {
                let found = self.records.iter().find(|(at, _)| *at == dht_key);
                let record = found.map(|(_, record)| record.clone());
                let wall = self.wall();
                let _ = self.nodes[n].handle_dht_result(self.now, wall, key, record.as_deref());
                let _ = self.nodes[n].handle_dht_result(self.now, wall, key, None);
            }
            DirectoryAction::ProbeLocal { key, .. } => {
                self.nodes[n].handle_local_probe_result(self.now, key, false);
            }
            _ => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &DirectoryMessage) {
        let bytes = message.encode().expect("what it sends fits");
        if self.waiting.len() < 1024 {
            self.waiting.push((from, to, bytes));
        }
    }

    fn deliver(&mut self, (from, to, bytes): (usize, usize, Vec<u8>), seen: &mut Seen) {
        let wall = self.wall();
        let result = DirectoryMessage::decode(&bytes).and_then(|message| {
            self.nodes[to].handle_message(self.now, wall, self.peers[from], message)
        });
        seen.result(&result);
    }

    fn pass(&mut self, duration: Duration, lossless: bool, seen: &mut Seen) {
        let end = self.now + duration;
        for turn in 0.. {
            let due = self.nodes.iter().filter_map(Directory::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            assert!(turn < 20_000, "a timer does not move on");
            self.now = self.now.max(due);
            for node in &mut self.nodes {
                node.handle_timeout(self.now);
            }
            self.collect(seen);
            if lossless {
                self.settle(seen);
            } else {
                self.waiting.truncate(64);
            }
        }
        self.now = end;
    }

    fn settle(&mut self, seen: &mut Seen) {
        for _ in 0..500 {
            self.collect(seen);
            if self.waiting.is_empty() {
                return;
            }
            for one in std::mem::take(&mut self.waiting) {
                self.deliver(one, seen);
            }
        }
        panic!("three nodes that never stop talking");
    }

    /// A frame for `key` comes to node `n`, and on from there: twice at most, by ever newer claims.
    fn send_late(&mut self, mut n: usize, key: MacKey, seen: &mut Seen) {
        let origin = self.peers[(n + 1) % NODES];
        let mut frame = LateFrame {
            dst: key,
            from: origin,
            origin,
            hops: 0,
            mark: None,
        };
        for hop in 1.. {
            let verdict = self.nodes[n].late_frame(self.now, &frame);
            seen.note(&std::mem::discriminant(&verdict));
            let LateVerdict::Forward { to, hops, mark } = verdict else {
                break;
            };
            assert!(hop <= 2 && hops == hop && to != self.peers[n] && to != frame.from);
            let before = frame.mark.map(|mark| mark.generation);
            assert!(before.is_none_or(|before| mark.generation > before));
            frame = LateFrame {
                from: self.peers[n],
                hops,
                mark: Some(mark),
                ..frame
            };
            n = self
                .peers
                .iter()
                .position(|peer| *peer == to)
                .expect("a member");
        }
    }

    fn check(&self) {
        for node in &self.nodes {
            let mut keys: Vec<_> = node.entries(self.now).map(|entry| entry.key).collect();
            let all = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), all, "one owner for each MAC");
            for entry in node.entries(self.now) {
                assert_eq!(node.owner(self.now, &entry.key), Some(entry.owner));
            }
        }
    }
}

pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut world = World::new();
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        operate(&mut world, &mut input, &mut seen);
        world.collect(&mut seen);
        world.check();
    }
    // Messages pass again: two rounds of anti-entropy at the longest interval, and a bit.
    for n in 0..NODES {
        world.neighbours(n);
    }
    world.pass(Duration::from_secs(70), true, &mut seen);
    world.check();
    for mac in 0..MACS {
        let key = a_key(mac);
        let owners: Vec<_> = world
            .nodes
            .iter()
            .map(|node| node.owner(world.now, &key))
            .collect();
        assert!(
            owners.iter().all(|owner| *owner == owners[0]),
            "MAC {mac} has owners {owners:?}"
        );
    }
    seen.number()
}

fn operate(world: &mut World, input: &mut Input<'_>, seen: &mut Seen) {
    let n = input.below(NODES);
    let key = a_key(input.u8() % MACS);
    match input.below(17) {
        0..=2 => {
            let classes = [
                EvidenceClass::Leaked,
                EvidenceClass::Ordinary,
                EvidenceClass::Strong,
            ];
            let ips = [IpAddr::from([192, 0, 2, input.u8()])];
            let class = classes[input.below(3)];
            let verdict = world.nodes[n].handle_local_frame(world.now, key, class, &ips);
            seen.note(&verdict);
        }
        3 => seen.result(&world.nodes[n].handle_announce(world.now, key)),
        4 => world.nodes[n].handle_port_lost(world.now, &[key]),
        5..=7 if !world.waiting.is_empty() => {
            let at = usize::from(input.u8()) % world.waiting.len();
            let one = world.waiting.remove(at);
            world.deliver(one, seen);
        }
        8 => {
            let keep = usize::from(input.u8());
            world.waiting.truncate(keep);
        }
        9 => {
            let millis = u64::from(input.u16());
            world.pass(Duration::from_millis(millis), false, seen);
        }
        10 => {
            let resolved = world.nodes[n].resolve(world.now, key);
            seen.note(&std::mem::discriminant(&resolved));
            world.send_late(n, key, seen);
        }
        11 => {
            // A restart, with what was saved.
            let saved = world.nodes[n].snapshot();
            let wall = world.wall();
            world.nodes[n] = directory(n, world.now, wall);
            world.nodes[n].restore(world.now, &saved).expect("its own");
            world.neighbours(n);
        }
        12 => {
            let other = world.peers[(n + 1) % NODES];
            world.nodes[n].handle_neighbour_down(world.now, other);
        }
        13 => {
            // What a member may say, though no node would: anything that decodes.
            let from = (n + 1) % NODES;
            world.deliver((from, n, input.chunk().to_vec()), seen);
        }
        14 => {
            // A claim out of the blue, with the generation it likes.
            let from = (n + 1) % NODES;
            let claim = a_claim(input.u8() % MACS, u64::from(input.u16()));
            let signed = Signed::seal(&claim, &a_node(number(from)), &OVERLAY);
            let message = DirectoryMessage::Claims(vec![signed.unwrap()]);
            world.deliver((from, n, message.encode().unwrap()), seen);
        }
        15 => {
            let damaged = input.chunk();
            let result = world.nodes[n].restore(world.now, damaged);
            seen.result(&result);
        }
        _ => {
            // The epoch changes for one node, which has the DHT; the overlap may be over or not.
            let old = input.bool().then_some(EPOCH_KEY);
            let key = if input.bool() { NEXT_KEY } else { EPOCH_KEY };
            world.nodes[n].handle_dht_ready(world.now);
            world.nodes[n].set_epoch(world.now, key, old);
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frame = |n: u8, mac: u8, class: u8| vec![n, mac, 0, 1, class, 1];
    let pass = vec![0, 0, 9, 0x13, 0x88];
    let deliver = [0, 0, 5, 0];
    let quiet = [frame(0, 1, 1), deliver.repeat(4), pass.clone()].concat();
    let moved = [
        frame(0, 1, 1),
        deliver.repeat(3),
        frame(1, 1, 2),
        deliver.repeat(3),
        frame(2, 1, 1),
        pass.clone(),
    ]
    .concat();
    let restart = [frame(0, 1, 2), vec![0, 0, 11], frame(1, 1, 1), pass.clone()].concat();
    let said: Vec<Vec<u8>> = directory_messages()
        .iter()
        .map(|message| [vec![1, 1, 13], chunk(&message.encode().unwrap())].concat())
        .collect();
    let lied = [
        frame(0, 2, 2),
        vec![1, 0, 14, 2, 0xff, 0xff],
        deliver.repeat(4),
    ]
    .concat();
    let next = |n: u8, old: u8| vec![n, 0, 16, old, 1];
    let change = [
        frame(0, 1, 1),
        vec![1, 1, 10],
        next(0, 1),
        pass.clone(),
        vec![1, 1, 10],
        next(1, 1),
        vec![2, 1, 10],
        next(2, 0),
        pass,
    ]
    .concat();
    vec![quiet, moved, restart, said.concat(), lied, change]
}
