//! The relay, its clients and whoever else sends to it.
//!
//! The oracle: it never sends more than it got, and forwards only between two allocations that are
//! bound and whose owners permit each other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nat_traversal::entropy::SeededEntropy;
use nat_traversal::path::{AllocationId, RelayRoute};
use nat_traversal::relay::{
    Bind, Challenge, RelayGrant, RelayKey, RelayServer, RelayServerConfig, wrap,
};

use crate::Seen;
use crate::input::{Input, chunk};

const OWNERS: usize = 3;
const MAX_OPERATIONS: usize = 200;

struct World {
    server: RelayServer,
    grants: [Option<RelayGrant>; OWNERS],
    /// Who permits whom.
    permits: [[bool; OWNERS]; OWNERS],
    echoes: [u64; OWNERS],
    counters: [u64; OWNERS],
    chance: SeededEntropy,
    now: Instant,
}

const fn owner(n: usize) -> [u8; 32] {
    [n as u8 + 1; 32]
}

fn addr(n: usize) -> SocketAddr {
    ([192, 0, 2, n as u8 + 1], 4000).into()
}

pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let config = RelayServerConfig {
        max_allocations: 2,
        ..RelayServerConfig::default()
    };
    let mut world = World {
        server: RelayServer::new(config),
        grants: [None; OWNERS],
        permits: [[false; OWNERS]; OWNERS],
        echoes: [0; OWNERS],
        counters: [0; OWNERS],
        chance: SeededEntropy::new(1),
        now: Instant::now(),
    };
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        operate(&mut world, &mut input, &mut seen);
        assert!(world.server.len() <= 2);
    }
    seen.number()
}

fn operate(world: &mut World, input: &mut Input<'_>, seen: &mut Seen) {
    let n = input.below(OWNERS);
    match input.below(8) {
        0 => {
            let grant = world
                .server
                .allocate(world.now, owner(n), &mut world.chance);
            seen.result(&grant);
            if let Ok(grant) = grant {
                let known = world.grants[n].map(|old| old.allocation);
                if known != Some(grant.allocation) {
                    world.permits[n] = [false; OWNERS];
                }
                world.grants[n] = Some(grant);
                world.counters[n] = 0;
            }
        }
        1 => {
            let Some(grant) = world.grants[n] else { return };
            let peer = input.below(OWNERS);
            let result = world
                .server
                .permit(world.now, owner(n), grant.allocation, &[owner(peer)]);
            seen.result(&result);
            if result.is_ok() {
                world.permits[n][peer] = true;
            }
        }
        2 | 3 => {
            let Some(grant) = world.grants[n] else { return };
            world.counters[n] += u64::from(input.bool());
            let bind = Bind {
                allocation: grant.allocation,
                counter: world.counters[n],
                echo: world.echoes[n],
            };
            send(world, n, n, bind.encode(&grant.key).to_vec(), seen);
        }
        4 | 5 => {
            let (Some(own), to) = (world.grants[n], input.below(OWNERS)) else {
                return;
            };
            let peer = world.grants[to].map_or(AllocationId(7), |grant| grant.allocation);
            let route = RelayRoute {
                own: own.allocation,
                peer,
            };
            let payload = [&[4], input.chunk()].concat();
            let mut bytes = vec![0; payload.len() + 64];
            let len = wrap(route, &own.key, &payload, &mut bytes).unwrap();
            bytes.truncate(len);
            send(world, n, input.below(OWNERS), bytes, seen);
        }
        6 => {
            world.now += Duration::from_millis(u64::from(input.u16()) * 8);
            world.server.handle_timeout(world.now);
            let due = world.server.poll_timeout();
            assert!(due.is_none_or(|due| due > world.now));
        }
        _ => {
            if input.bool() {
                world.server.revoke_owner(&owner(n));
                world.grants[n] = None;
                for row in &mut world.permits {
                    row[n] = false;
                }
                world.permits[n] = [false; OWNERS];
            } else {
                send(world, n, n, input.chunk().to_vec(), seen);
            }
        }
    }
}

/// `n` sends from the address of `at`.
fn send(world: &mut World, n: usize, at: usize, mut bytes: Vec<u8>, seen: &mut Seen) {
    let len = bytes.len();
    let result = world
        .server
        .handle_datagram(world.now, &mut world.chance, addr(at), &mut bytes);
    seen.note(&result.as_ref().map(|output| output.bytes.first().copied()));
    let Ok(output) = result else { return };
    assert!(output.bytes.len() <= len, "sends more than it got");
    if output.bytes.first() == Some(&7) {
        let to = (0..OWNERS).find(|to| addr(*to) == output.to).unwrap();
        assert_eq!(n, at, "relays for whom it does not know");
        assert!(world.permits[n][to] && world.permits[to][n], "no permits");
    } else {
        assert_eq!(output.to, addr(at), "answers somebody else");
        let key = world.grants[at].map_or(RelayKey([0; 16]), |grant| grant.key);
        if let Ok(challenge) = Challenge::decode(output.bytes, &key) {
            world.echoes[at] = challenge.challenge;
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let setup: Vec<u8> = [
        [0, 0].as_slice(),
        &[1, 0],
        &[0, 1, 1],
        &[1, 1, 0],
        &[0, 2, 1],
        &[0, 2, 1],
        &[1, 2, 1],
        &[1, 2, 1],
    ]
    .concat();
    let frame = [vec![0, 4, 1], chunk(&[9; 30]), vec![0]].concat();
    let back = [vec![1, 4, 0], chunk(&[9; 30]), vec![1]].concat();
    vec![
        [setup.clone(), frame.clone(), back].concat(),
        [setup, vec![1, 7, 1], frame].concat(),
    ]
}
