//! A path agent and a peer that answers, lies and is silent as it likes.
//!
//! The oracle: an unproven path is never chosen, a probe goes only where the filter lets it, answers
//! are never larger than what they answer, timers move on, no datagram is said to pass that is
//! larger than the largest that was answered on that path.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nat_traversal::agent::{Outgoing, PROBE_LEN, PathAgent, PathEvent, ProbeBudget, ProbeMessage};
use nat_traversal::candidate::CandidateFilter;
use nat_traversal::entropy::SeededEntropy;
use nat_traversal::nat_kind::Mapping;
use nat_traversal::path::{AllocationId, Path, RelayRoute};
use nat_traversal::sizes::{self, SAFE_DATAGRAM};

use crate::Seen;
use crate::input::Input;
use crate::targets::{address, candidate};

const MAX_OPERATIONS: usize = 200;

struct World {
    agent: PathAgent,
    budget: ProbeBudget,
    chance: SeededEntropy,
    filter: CandidateFilter,
    /// Challenges that wait for an answer.
    asked: Vec<Outgoing>,
    /// Paths that may be chosen: answered, or used by a handshake.
    proven: HashSet<Path>,
    /// The largest challenge that was answered on a path, in bytes of the sealed datagram.
    largest: HashMap<Path, usize>,
    sequence: u64,
    now: Instant,
}

fn relayed(n: u8) -> Path {
    let route = RelayRoute {
        own: AllocationId(u64::from(n)),
        peer: AllocationId(100),
    };
    Path::relayed(([203, 0, 113, 1], 4000).into(), route)
}

impl World {
    fn new(controlling: bool) -> Self {
        let now = Instant::now();
        let filter = CandidateFilter {
            overlay_prefixes: vec!["10.9.0.0/24".parse().unwrap()],
            beside_overlay: vec!["10.9.0.128/25".parse().unwrap()],
            own_addresses: vec!["10.0.0.1".parse().unwrap()],
            own_subnets: vec!["10.0.0.0/24".parse().unwrap()],
            own_reflexive: vec![IpAddr::from([203, 0, 113, 9])],
        };
        Self {
            agent: PathAgent::new(now, filter.clone(), controlling),
            budget: ProbeBudget::new(),
            chance: SeededEntropy::new(1),
            filter,
            asked: Vec::new(),
            proven: HashSet::new(),
            largest: HashMap::new(),
            sequence: 0,
            now,
        }
    }

    fn drain(&mut self, seen: &mut Seen) {
        for turn in 0.. {
            let next = self
                .agent
                .poll_transmit(self.now, &mut self.budget, &mut self.chance);
            let Some(outgoing) = next else { break };
            assert!(turn < 1000, "it never ends");
            if outgoing.path.relay.is_none() {
                let admitted = self.filter.admit_source(outgoing.path.remote);
                assert!(admitted.is_ok(), "probes {:?}", outgoing.path.remote);
            }
            if outgoing.padded_len > PROBE_LEN {
                assert_eq!(self.agent.chosen(), Some(outgoing.path), "padded in vain");
                assert!(sizes::sealed_of_frame(outgoing.padded_len) <= sizes::MAX_UDP_PAYLOAD);
            }
            if self.asked.len() < 64 {
                self.asked.push(outgoing);
            }
        }
        for turn in 0.. {
            let Some(event) = self.agent.poll_event() else {
                break;
            };
            assert!(turn < 1000, "it never ends");
            seen.note(&std::mem::discriminant(&event));
            if let PathEvent::Chosen { path, .. } = event {
                assert!(self.proven.contains(&path), "chose {path:?} unproven");
            }
        }
        if let Some(path) = self.agent.chosen() {
            assert!(self.proven.contains(&path), "chosen {path:?} unproven");
            let size = self.agent.path_mtu_payload();
            let answered = self.largest.get(&path).copied().unwrap_or(0);
            assert!(size <= answered.max(SAFE_DATAGRAM), "{size} on {path:?}");
            seen.note(&size);
        }
        seen.note(&(self.agent.chosen().is_some(), self.agent.reason()));
    }

    fn pass(&mut self, duration: Duration, seen: &mut Seen) {
        let end = self.now + duration;
        for turn in 0.. {
            let due = self.agent.poll_timeout();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            assert!(turn < 20_000, "a timer does not move on");
            self.now = self.now.max(due);
            self.agent.handle_timeout(self.now);
            self.drain(seen);
        }
        self.now = end;
    }

    fn probe(&mut self, path: Path, message: ProbeMessage) {
        let answer = self.agent.handle_probe(self.now, path, message);
        match (message, answer) {
            (ProbeMessage::Challenge { id, .. }, Some(answer)) => {
                assert_eq!(answer.path, path, "where it came from");
                let ProbeMessage::Answer { id: answered, .. } = answer.message else {
                    panic!("a challenge answered by a challenge");
                };
                assert_eq!(answered, id);
                let bytes = answer.message.encode(answer.padded_len);
                assert!(bytes.len() <= message.encode(0).len());
            }
            (ProbeMessage::Answer { .. }, answer) => assert!(answer.is_none()),
            (ProbeMessage::Challenge { .. }, None) => {}
        }
    }
}

fn a_path(input: &mut Input<'_>) -> Path {
    if input.below(4) == 0 {
        relayed(input.u8() % 3)
    } else {
        Path::direct(address(input))
    }
}

pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut world = World::new(input.bool());
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        operate(&mut world, &mut input, &mut seen);
        world.drain(&mut seen);
    }
    world.pass(Duration::from_secs(1200), &mut seen);
    seen.number()
}

fn operate(world: &mut World, input: &mut Input<'_>, seen: &mut Seen) {
    let now = world.now;
    match input.below(12) {
        0 => {
            let local: Vec<_> = (0..input.below(4)).map(|_| candidate(input)).collect();
            world.agent.set_local_candidates(now, &local);
        }
        1 | 2 => {
            let remote: Vec<_> = (0..input.below(24)).map(|_| candidate(input)).collect();
            world.sequence += u64::from(input.bool());
            let refused = world
                .agent
                .set_remote_candidates(now, &remote, world.sequence);
            assert!(refused <= remote.len());
            seen.note(&(refused > 0));
        }
        3 => {
            let relay = input.bool().then(|| relayed(input.u8() % 3));
            world.agent.set_relay(now, relay);
        }
        4 => {
            let path = a_path(input);
            // A handshake goes only where the filter lets a datagram go.
            if world.filter.admit_source(path.remote).is_ok() {
                world.proven.insert(path);
                world
                    .agent
                    .handle_established(now, path, usize::from(input.u8()) * 8);
            }
        }
        5 | 6 if !world.asked.is_empty() => {
            let at = usize::from(input.u8()) % world.asked.len();
            let outgoing = world.asked.swap_remove(at);
            if let ProbeMessage::Challenge { id, .. } = outgoing.message {
                // From where it was asked, or from elsewhere.
                let path = if input.bool() {
                    a_path(input)
                } else {
                    outgoing.path
                };
                if path == outgoing.path {
                    world.proven.insert(path);
                    let size = sizes::sealed_of_frame(outgoing.padded_len);
                    let largest = world.largest.entry(path).or_default();
                    *largest = size.max(*largest);
                }
                let observed = input.bool().then(|| address(input));
                world.probe(path, ProbeMessage::Answer { id, observed });
            }
        }
        7 => {
            let (in_use, climb) = (input.bool(), input.bool());
            let id = input.u64();
            let path = a_path(input);
            world.probe(path, ProbeMessage::Challenge { id, in_use, climb });
        }
        8 => {
            let path = a_path(input);
            world.agent.handle_traffic(now, path);
        }
        9 => world.agent.handle_sent(now),
        10 if input.bool() => {
            if let Some(path) = world.agent.chosen() {
                let size = world.agent.path_mtu_payload() + usize::from(input.u8() % 9);
                world.agent.handle_too_big(now, path, size);
            }
        }
        10 => {
            let mapping = [Mapping::EndpointIndependent, Mapping::None];
            let (a, b) = (mapping[input.below(2)], mapping[input.below(2)]);
            world.agent.set_nat(a, b, input.bool());
        }
        _ => world.pass(Duration::from_millis(u64::from(input.u16())), seen),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // A list of one direct candidate, an answer to it, time, traffic.
    let list = |n: u8| vec![1, 1, 0, 0, 1, n, 0x0f, 0xa0, 1];
    let answered = [vec![1], list(7), vec![5, 0, 0, 0, 11, 0x13, 0x88, 9]].concat();
    let relay = [
        vec![0, 3, 1, 1, 4, 0, 1],
        list(7),
        vec![11, 0x13, 0x88, 5, 0, 0, 0, 9, 11, 0xff, 0xff],
    ]
    .concat();
    let asked = vec![
        1, 7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 1, 9, 0x0f, 0xa0, 11, 0, 200,
    ];
    vec![answered, relay, asked]
}
