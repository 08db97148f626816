//! What the agents reach behind which NATs, and how they live through losses.

use std::time::Duration;

use super::simulation::{Kind, ONE_WAY, RELAY_ONE_WAY, World};
use super::*;
use crate::entropy::SeededEntropy;
use crate::nat_kind::{Filtering, Mapping};
use crate::path::PathKind::{Direct, Relayed};
use crate::path::{AllocationId, RelayRoute};

const OPEN: Kind = (Mapping::EndpointIndependent, Filtering::EndpointIndependent);
const RESTRICTED: Kind = (Mapping::EndpointIndependent, Filtering::AddressDependent);
const PORT_RESTRICTED: Kind = (
    Mapping::EndpointIndependent,
    Filtering::AddressAndPortDependent,
);
const ADDRESS_SYMMETRIC: Kind = (
    Mapping::AddressDependent,
    Filtering::AddressAndPortDependent,
);
const SYMMETRIC: Kind = (
    Mapping::AddressAndPortDependent,
    Filtering::AddressAndPortDependent,
);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn direct_world() -> World {
    let mut world = World::new([PORT_RESTRICTED, PORT_RESTRICTED]);
    world.run(seconds(5), true);
    assert_eq!(world.kinds(), [Direct, Direct]);
    world
}

/// When side 0 chose a path of `kind`, counted from `from`.
fn chosen_after(world: &World, kind: PathKind, from: Duration) -> Duration {
    let events = world.sides[0].events.iter();
    let found = events
        .filter(|(at, event)| {
            let right = |path: &Path| path.kind() == kind;
            *at >= from && matches!(event, PathEvent::Chosen { path, .. } if right(path))
        })
        .map(|(at, _)| *at)
        .next();
    found.expect("such a path was chosen") - from
}

#[test]
fn the_nat_matrix() {
    // Rows and columns: open, restricted, port-restricted, address-symmetric, symmetric.
    // What simultaneous probes alone can reach; the rest needs prediction or birthday probing.
    let kinds = [
        OPEN,
        RESTRICTED,
        PORT_RESTRICTED,
        ADDRESS_SYMMETRIC,
        SYMMETRIC,
    ];
    let (d, r) = (Direct, Relayed);
    let expected = [
        [d, d, d, d, d],
        [d, d, d, d, d],
        [d, d, d, r, r],
        [d, d, r, r, r],
        [d, d, r, r, r],
    ];
    for (row, a) in kinds.into_iter().enumerate() {
        for (column, b) in kinds.into_iter().enumerate() {
            let mut world = World::new([a, b]);
            world.run(seconds(20), true);
            let due = expected[row][column];
            assert_eq!(world.kinds(), [due, due], "{a:?} against {b:?}");
            let relayed = world.sides[0].agent.reason().is_some();
            assert_eq!(relayed, due == Relayed);
        }
    }
}

#[test]
fn a_direct_path_is_there_within_a_second() {
    let world = direct_world();
    let after = chosen_after(&world, Direct, Duration::ZERO);
    assert!(after <= Duration::from_millis(300), "{after:?}");
    assert_eq!(world.sides[0].agent.rtt(), Some(ONE_WAY * 2));
    assert_eq!(world.sides[0].agent.reason(), None);
    let first = world.sides[0].events[0].1;
    let why = ChoiceReason::Established;
    assert!(
        matches!(first, PathEvent::Chosen { path, why: w, .. } if w == why && path.relay.is_some())
    );
}

#[test]
fn two_symmetric_nats_stay_relayed_and_say_why() {
    let mut world = World::new([SYMMETRIC, SYMMETRIC]);
    for side in &mut world.sides {
        let mapping = Mapping::AddressAndPortDependent;
        side.agent.set_nat(mapping, mapping, false);
    }
    world.run(seconds(2), true);
    assert_eq!(world.sides[0].agent.reason(), Some(FallbackReason::Probing));
    // Between the bursts at 5 s and 10 s after the first.
    world.run(Duration::from_millis(2_700), true);
    assert_eq!(
        world.sides[0].agent.reason(),
        Some(FallbackReason::BothNatsDependent)
    );
    assert_eq!(world.sides[0].agent.rtt(), Some(RELAY_ONE_WAY * 2));
}

#[test]
fn the_search_backs_off_and_keeps_its_budget() {
    let mut world = World::new([SYMMETRIC, SYMMETRIC]);
    world.run(seconds(60), false);
    let first = world.sides[0].direct_sent;
    assert!(first <= 40, "20 at once and 20 a minute: {first}");
    world.run(seconds(3_540), false);
    let hour = world.sides[0].direct_sent - first;
    assert!(
        (40..=140).contains(&hour),
        "bursts go on, every 10 min: {hour}"
    );
}

#[test]
fn a_dead_direct_path_falls_back_to_the_relay_and_climbs_again() {
    let mut world = direct_world();
    let lost = world.now - world.start;
    world.direct_up = false;
    world.run(seconds(6), true);
    assert_eq!(world.kinds(), [Relayed, Relayed]);
    let after = chosen_after(&world, Relayed, lost);
    assert!(
        after <= Duration::from_millis(4_500),
        "2 s of silence, then about 2 s: {after:?}"
    );
    assert_eq!(
        world.sides[0].agent.reason(),
        Some(FallbackReason::DirectLost)
    );
    assert!(
        !world.sides[0]
            .events
            .iter()
            .any(|(_, event)| *event == PathEvent::Lost)
    );

    world.direct_up = true;
    world.run(seconds(30), true);
    assert_eq!(world.kinds(), [Direct, Direct]);
}

#[test]
fn an_idle_dead_path_is_found_by_its_keep_alive() {
    let mut world = direct_world();
    world.direct_up = false;
    world.run(seconds(22), false);
    assert_eq!(world.kinds(), [Relayed, Relayed]);
}

#[test]
fn a_dead_relay_is_left_for_nothing_and_found_again() {
    let mut world = World::new([SYMMETRIC, SYMMETRIC]);
    world.run(seconds(10), true);
    world.relay_up = false;
    world.run(seconds(6), true);
    assert_eq!(world.kinds(), [PathKind::None, PathKind::None]);
    assert!(
        world.sides[0]
            .events
            .iter()
            .any(|(_, event)| *event == PathEvent::Lost)
    );
    world.relay_up = true;
    world.run(seconds(15), true);
    assert_eq!(world.kinds(), [Relayed, Relayed]);
}

#[test]
fn a_reserve_that_is_dead_too_is_given_up_with_the_path() {
    let mut world = direct_world();
    world.direct_up = false;
    world.relay_up = false;
    world.run(Duration::from_millis(4_500), true);
    assert_eq!(world.kinds(), [PathKind::None, PathKind::None]);
}

#[test]
fn direct_paths_do_not_need_the_relay() {
    let mut world = direct_world();
    world.relay_up = false;
    let before = world.sides[0].events.len();
    world.run(seconds(300), true);
    assert_eq!(world.kinds(), [Direct, Direct]);
    let moved = |(_, event): &(Duration, PathEvent)| !matches!(event, PathEvent::Observed { .. });
    assert!(
        !world.sides[0].events[before..].iter().any(moved),
        "nothing moved"
    );
}

#[test]
fn a_rebooted_router_is_survived() {
    let mut world = World::new([OPEN, OPEN]);
    world.run(seconds(5), true);
    let old = world.sides[1].agent.chosen().unwrap();
    world.sides[0].nat.reboot();
    world.run(seconds(5), true);
    let new = world.sides[1].agent.chosen().unwrap();
    assert_eq!(world.kinds(), [Direct, Direct]);
    assert_ne!(
        new.remote, old.remote,
        "the new address was asked and has answered"
    );
}

#[test]
fn a_path_changes_only_by_an_answered_challenge() {
    // A direct path would be welcome in the second world.
    let mut relayed = World::new([SYMMETRIC, SYMMETRIC]);
    relayed.run(seconds(20), true);
    for mut world in [direct_world(), relayed] {
        let chosen = world.sides[0].agent.chosen();
        let stranger = Path::direct("198.51.100.99:9".parse().unwrap());
        world.sides[0].agent.handle_traffic(world.now, stranger);
        let forged = ProbeMessage::Answer {
            id: 1,
            observed: None,
        };
        for _ in 0..2 {
            let agent = &mut world.sides[0].agent;
            agent.handle_probe(world.now, stranger, forged);
            assert_eq!(agent.chosen(), chosen);
        }
        world.run(seconds(10), true);
        assert_eq!(world.sides[0].agent.chosen(), chosen);
    }
}

#[test]
fn made_up_sources_are_bounded_and_inside_addresses_refused() {
    let mut world = direct_world();
    let agent = &mut world.sides[0].agent;
    for port in 1..500u16 {
        let path = Path::direct(std::net::SocketAddr::from(([198, 51, 100, 1], port)));
        agent.handle_traffic(world.now, path);
    }
    assert!(agent.paths.len() <= 32);
    let before = agent.paths.len();
    let loopback = Path::direct("127.0.0.1:9".parse().unwrap());
    agent.handle_traffic(world.now, loopback);
    assert!(agent.paths.len() == before && !agent.paths.contains_key(&loopback));
}

/// A host behind a stateful firewall tells one address, its own. While that is one that others may
/// not try, nothing opens their NATs towards it, whatever it sends; the first list that names
/// another address is tried at once, by both.
#[test]
fn refused_candidates_are_left_for_the_next_list() {
    let private = Candidate {
        kind: crate::candidate::CandidateKind::Host,
        addr: "192.168.1.10:22611".parse().unwrap(),
        allocation: None,
        relay: None,
    };
    let mut world = World::new([PORT_RESTRICTED, PORT_RESTRICTED]);
    world.direct_up = false;
    let now = world.now;
    let refused = world.sides[0]
        .agent
        .set_remote_candidates(now, &[private], 2);
    assert_eq!(refused, 1);
    world.run(seconds(1), true);
    world.direct_up = true;
    world.sides[0].nat.close();
    let before = world.sides[0].direct_sent;
    world.run(seconds(60), true);
    assert_eq!(world.kinds(), [Relayed, Relayed]);
    assert_eq!(world.sides[0].direct_sent, before, "nothing for it to try");
    let reason = |world: &World| world.sides[0].agent.reason();
    assert_eq!(reason(&world), Some(FallbackReason::CandidatesRefused));

    let told = world.now - world.start;
    world.tell_candidates(0, 3);
    assert_eq!(reason(&world), Some(FallbackReason::Probing));
    world.run(seconds(2), true);
    assert_eq!(world.kinds(), [Direct, Direct]);
    let after = chosen_after(&world, Direct, told);
    assert!(after <= Duration::from_millis(400), "{after:?}");
}

/// What the filter knows of ourselves comes after the peer's list, mostly.
#[test]
fn refused_candidates_are_looked_at_again_when_the_filter_changes() {
    let mut world = World::new([OPEN, OPEN]);
    world.direct_up = false;
    let candidate = |kind, at: &str| Candidate {
        kind,
        addr: at.parse().unwrap(),
        allocation: None,
        relay: None,
    };
    let list = [
        candidate(crate::candidate::CandidateKind::Host, "192.168.1.10:22611"),
        candidate(crate::candidate::CandidateKind::Reflexive, "203.0.113.77:0"),
    ];
    let now = world.now;
    let agent = &mut world.sides[0].agent;
    assert_eq!(agent.set_remote_candidates(now, &list, 2), 2);
    assert_eq!(agent.reason(), Some(FallbackReason::CandidatesRefused));
    let filter = CandidateFilter {
        own_reflexive: vec!["203.0.113.77".parse().unwrap()],
        ..CandidateFilter::default()
    };
    agent.set_filter(now, filter);
    assert_eq!(agent.reason(), Some(FallbackReason::Probing));
}

#[test]
fn reasons_name_what_is_missing() {
    let mut world = World::new([OPEN, OPEN]);
    world.direct_up = false;
    let now = world.now;
    let agent = &mut world.sides[0].agent;
    assert_eq!(agent.set_remote_candidates(now, &[], 2), 0);
    assert_eq!(agent.reason(), Some(FallbackReason::NoCandidates));
    let private = Candidate {
        kind: crate::candidate::CandidateKind::Host,
        addr: "10.1.2.3:4".parse().unwrap(),
        allocation: None,
        relay: None,
    };
    assert_eq!(agent.set_remote_candidates(now, &[private], 3), 1);
    assert_eq!(agent.reason(), Some(FallbackReason::CandidatesRefused));
    assert_eq!(
        agent.set_remote_candidates(now, &[private], 3),
        0,
        "an old list is ignored"
    );
    agent.set_nat(Mapping::Unknown, Mapping::Unknown, true);
    assert_eq!(agent.reason(), Some(FallbackReason::UdpBlocked));
}

#[test]
fn where_only_a_handshake_came_from_gets_three_times_as_much_until_it_answers() {
    // Only differences count.
    let now = direct_world().now;
    let mut entropy = SeededEntropy::new(1);
    let mut budget = ProbeBudget::new();
    let mut agent = PathAgent::new(now, CandidateFilter::default(), true);
    let path = Path::direct("198.51.100.7:4000".parse().unwrap());
    agent.handle_established(now, path, 1_000);
    assert_eq!(agent.chosen(), Some(path));
    assert!(!agent.is_open() && agent.can_send(3_000) && !agent.can_send(3_001));
    agent.note_sent(path, 2_500);
    agent.handle_received(path, 200);
    assert!(agent.can_send(1_100) && !agent.can_send(1_101));
    // A challenge leaves at once, and no large one.
    agent.handle_timeout(now);
    let mut asked = Vec::new();
    while let Some(outgoing) = agent.poll_transmit(now, &mut budget, &mut entropy) {
        assert_eq!((outgoing.path, outgoing.padded_len), (path, PROBE_LEN));
        asked.push(outgoing.message);
    }
    let Some(ProbeMessage::Challenge { id, .. }) = asked.pop() else {
        panic!("nothing was asked");
    };
    while agent.poll_event().is_some() {}
    let later = now + Duration::from_millis(20);
    agent.handle_probe(later, path, ProbeMessage::answer(id, None));
    let events: Vec<_> = std::iter::from_fn(|| agent.poll_event()).collect();
    assert!(events.contains(&PathEvent::Proven { path }), "{events:?}");
    assert!(agent.is_open() && agent.can_send(usize::MAX));
    // Another handshake over it takes nothing away.
    agent.handle_established(later, path, 10);
    assert!(agent.is_open());
    // A relay needs no credit.
    let mut agent = PathAgent::new(now, CandidateFilter::default(), true);
    let route = RelayRoute {
        own: AllocationId(1),
        peer: AllocationId(2),
    };
    let relay = Path::relayed("198.51.100.8:4000".parse().unwrap(), route);
    agent.set_relay(now, Some(relay));
    agent.handle_established(now, relay, 0);
    assert!(agent.is_open());
}
