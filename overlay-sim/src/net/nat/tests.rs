//! Each behaviour by itself, and all of them against a reference of ten lines.

use std::collections::BTreeMap;

use nat_traversal::nat_kind::{Filtering as F, Mapping as M};
use proptest::prelude::*;

use super::*;
use crate::net::random;

const WAN: &str = "203.0.113.7";
const A: &str = "192.168.1.10:22611";
const B: &str = "192.168.1.11:22611";

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Outside, host and port.
fn peer(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

fn nat(behaviour: NatBehaviour) -> Nat {
    Nat::new(behaviour, WAN.parse().unwrap(), random::stream(1, "nat"))
}

fn outside(port: u16) -> SocketAddr {
    SocketAddr::new(WAN.parse().unwrap(), port)
}

#[test]
fn mappings_depend_on_what_they_depend_on() {
    let towards = [peer(1, 1), peer(1, 2), peer(2, 1)];
    let distinct = |mapping| {
        let mut nat = nat(NatBehaviour {
            mapping,
            ..NatBehaviour::PORT_REWRITING
        });
        let seen = towards.map(|to| nat.outbound(s(0), addr(A), to).unwrap());
        assert_eq!(
            seen,
            towards.map(|to| nat.outbound(s(1), addr(A), to).unwrap())
        );
        seen.map(|external| seen.iter().position(|other| *other == external).unwrap())
    };
    assert_eq!(distinct(M::EndpointIndependent), [0, 0, 0]);
    assert_eq!(distinct(M::AddressDependent), [0, 0, 2]);
    assert_eq!(distinct(M::AddressAndPortDependent), [0, 1, 2]);
    let mut firewall = nat(NatBehaviour::STATEFUL_FIREWALL);
    assert_eq!(firewall.outbound(s(0), addr(A), peer(1, 1)), Ok(addr(A)));
}

#[test]
fn filters_let_in_whom_they_let_in() {
    let from = [peer(1, 1), peer(1, 2), peer(2, 1)];
    let admitted = |filtering| {
        let mut nat = nat(NatBehaviour {
            filtering,
            ..NatBehaviour::PORT_PRESERVING
        });
        let none = from.map(|from| nat.inbound(s(0), from, outside(22_611)));
        assert_eq!(none, [Err(Refused::NoMapping); 3]);
        nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
        from.map(|from| nat.inbound(s(0), from, outside(22_611)) == Ok(addr(A)))
    };
    assert_eq!(admitted(F::EndpointIndependent), [true, true, true]);
    assert_eq!(admitted(F::AddressDependent), [true, true, false]);
    assert_eq!(admitted(F::AddressAndPortDependent), [true, false, false]);
}

#[test]
fn ports_are_chosen_as_said() {
    let ports = |port, count: u8| -> Vec<u16> {
        let mut nat = nat(NatBehaviour {
            port,
            ..NatBehaviour::PORT_PRESERVING
        });
        let inside = |host| SocketAddr::from(([192, 168, 1, host], 22_611));
        let mut external = |host| nat.outbound(s(0), inside(host), peer(1, 1)).unwrap();
        (0..count).map(|host| external(host).port()).collect()
    };
    assert_eq!(ports(PortChoice::Preserving, 3), [22_611, 22_612, 22_613]);
    let counted = ports(PortChoice::Rewriting, 3);
    assert!(
        counted.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{counted:?}"
    );
    let mut random = ports(PortChoice::Random, 100);
    assert!(random.iter().all(|port| *port >= FIRST_PORT));
    assert!(!random.windows(2).all(|pair| pair[1] == pair[0] + 1));
    random.sort_unstable();
    random.dedup();
    assert_eq!(random.len(), 100);
}

#[test]
fn the_port_after_the_last_is_the_first() {
    assert_eq!(port_after(u16::MAX), FIRST_PORT);
    assert_eq!(port_after(80), FIRST_PORT);
    assert_eq!(port_after(FIRST_PORT), FIRST_PORT + 1);
}

#[test]
fn mappings_end_without_use_and_inbound_counts_where_it_counts() {
    for inbound_refreshes in [true, false] {
        let mut nat = nat(NatBehaviour {
            inbound_refreshes,
            expiry: s(60),
            ..NatBehaviour::PORT_REWRITING
        });
        let external = nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
        assert_eq!(nat.inbound(s(59), peer(1, 1), external), Ok(addr(A)));
        let later = nat.inbound(s(118), peer(1, 1), external);
        assert_eq!(later.is_ok(), inbound_refreshes);
        // A use by another flow keeps the mapping, not the permit.
        assert_eq!(
            nat.outbound(s(119), addr(A), peer(2, 1)) == Ok(external),
            inbound_refreshes
        );
        assert!(nat.inbound(s(178), peer(1, 1), external).is_err());
    }
}

#[test]
fn a_mapping_that_has_ended_opens_nothing_for_whom_has_its_port_next() {
    let mut nat = nat(NatBehaviour {
        expiry: s(60),
        ..NatBehaviour::PORT_PRESERVING
    });
    nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    nat.outbound(s(59), addr(A), peer(2, 1)).unwrap();
    // The mapping is forwarded away while its permits live.
    nat.forward(22_611, addr(B));
    assert_eq!(nat.inbound(s(60), peer(9, 9), outside(22_611)), Ok(addr(B)));
    assert_eq!(
        nat.outbound(s(60), addr(B), peer(3, 3)),
        Ok(outside(22_611))
    );
    let moved = nat.outbound(s(60), addr(A), peer(3, 3)).unwrap();
    assert_ne!(moved, outside(22_611));
    assert_eq!(
        nat.inbound(s(60), peer(2, 1), moved),
        Err(Refused::Filtered)
    );
}

#[test]
fn hairpins_show_the_external_source_or_do_not_happen() {
    let mut without = nat(NatBehaviour::PORT_PRESERVING);
    without.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    let refused = Err(Refused::NoHairpin);
    assert_eq!(without.outbound(s(0), addr(B), outside(22_611)), refused);
    let mut with = nat(NatBehaviour::FULL_CONE);
    with.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    let seen = with.outbound(s(0), addr(B), outside(22_611)).unwrap();
    assert_eq!(seen, outside(22_612));
    assert_eq!(with.inbound(s(0), seen, outside(22_611)), Ok(addr(A)));
}

/// The shifted port of a bare Linux router: a probe that comes before the first one goes out spoils the port for this
/// remote alone.
#[test]
fn an_early_probe_takes_the_tuple_on_a_bare_router() {
    let (bootstrap, early, other) = (peer(1, 1), peer(2, 2), peer(3, 3));
    let mut bare = nat(NatBehaviour::BARE_LINUX);
    let reflexive = bare.outbound(s(0), addr(A), bootstrap).unwrap();
    assert_eq!(reflexive, outside(22_611));
    assert_eq!(bare.inbound(s(1), early, reflexive), Err(Refused::Filtered));
    let shifted = bare.outbound(s(2), addr(A), early).unwrap();
    assert_ne!(shifted, reflexive);
    assert_eq!(bare.inbound(s(3), early, shifted), Ok(addr(A)));
    assert_eq!(bare.inbound(s(3), early, reflexive), Err(Refused::Filtered));
    // Everybody else sees what the reflector saw.
    assert_eq!(bare.outbound(s(3), addr(A), other), Ok(reflexive));
    assert_eq!(bare.outbound(s(3), addr(A), bootstrap), Ok(reflexive));
    // The flow keeps its port while it lives, and the tuple has been forgotten when it has ended.
    assert_eq!(bare.outbound(s(100), addr(A), early), Ok(shifted));
    assert_eq!(bare.outbound(s(240), addr(A), early), Ok(reflexive));

    // Whoever sends first is spoilt nothing, and a router that drops spoils nothing.
    let mut bare = nat(NatBehaviour::BARE_LINUX);
    bare.outbound(s(0), addr(A), early).unwrap();
    assert_eq!(bare.inbound(s(1), early, reflexive), Ok(addr(A)));
    assert_eq!(bare.outbound(s(2), addr(A), early), Ok(reflexive));
    let mut dropping = nat(NatBehaviour::PORT_PRESERVING);
    dropping.outbound(s(0), addr(A), bootstrap).unwrap();
    dropping.inbound(s(1), early, reflexive).unwrap_err();
    assert_eq!(dropping.outbound(s(2), addr(A), early), Ok(reflexive));
}

#[test]
fn a_taken_tuple_is_forgotten_half_a_minute_after_the_last_probe() {
    let early = peer(2, 2);
    let mut bare = nat(NatBehaviour::BARE_LINUX);
    for at in [0, 20] {
        bare.inbound(s(at), early, outside(22_611)).unwrap_err();
    }
    let mut later = nat(NatBehaviour::BARE_LINUX);
    later.inbound(s(0), early, outside(22_611)).unwrap_err();
    assert_ne!(bare.outbound(s(49), addr(A), early), Ok(outside(22_611)));
    assert_eq!(later.outbound(s(30), addr(A), early), Ok(outside(22_611)));
}

#[test]
fn the_table_is_bounded_and_the_least_recently_used_leaves() {
    let mut nat = nat(NatBehaviour {
        table: 8,
        ..NatBehaviour::SYMMETRIC
    });
    let first = nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    for port in 2..100 {
        nat.outbound(s(1), addr(A), peer(1, port)).unwrap();
        nat.outbound(s(1), addr(B), peer(1, 1)).unwrap();
        assert!(nat.mappings() <= 8 && nat.externals.len() == nat.mappings());
        assert!(nat.permits.len() <= 8);
    }
    assert!(nat.evicted() > 0);
    assert_eq!(
        nat.inbound(s(1), peer(1, 1), first),
        Err(Refused::NoMapping)
    );
}

#[test]
fn a_restart_forgets_all_but_what_the_administrator_set() {
    let mut nat = nat(NatBehaviour::PORT_REWRITING);
    nat.forward(8_080, addr(B));
    let external = nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    nat.restart();
    assert_eq!(
        nat.inbound(s(0), peer(1, 1), external),
        Err(Refused::NoMapping)
    );
    let next = nat.outbound(s(0), addr(A), peer(1, 1)).unwrap().port();
    let from_the_old_start = external.port()..=external.port() + 1;
    assert!(!from_the_old_start.contains(&next));
    assert_eq!(nat.permits.len(), 1);
    assert_eq!(nat.inbound(s(0), peer(1, 1), outside(8_080)), Ok(addr(B)));
    nat.set_wan("203.0.113.8".parse().unwrap());
    let moved = nat.outbound(s(0), addr(A), peer(1, 1)).unwrap();
    assert_eq!(moved.ip(), nat.wan());
    assert_eq!(nat.mappings(), 1);
}

#[test]
fn some_pass_everything_and_some_nothing() {
    let mut router = nat(NatBehaviour::ROUTER);
    assert_eq!(router.outbound(s(0), addr(A), peer(1, 1)), Ok(addr(A)));
    assert_eq!(router.inbound(s(0), peer(2, 2), addr(B)), Ok(addr(B)));
    assert_eq!(router.mappings(), 0);
    let mut blocked = nat(NatBehaviour::UDP_BLOCKED);
    let refused = Err(Refused::UdpBlocked);
    assert_eq!(blocked.outbound(s(0), addr(A), peer(1, 1)), refused);
    assert_eq!(blocked.inbound(s(0), peer(1, 1), outside(22_611)), refused);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Out { inside: u8, host: u8, port: u16 },
    In { host: u8, port: u16, nth: usize },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u8, 0..3u8, 1..4u16).prop_map(|(inside, host, port)| Step::Out { inside, host, port }),
        4 => (0..3u8, 1..4u16, 0..8usize).prop_map(|(host, port, nth)| Step::In { host, port, nth }),
        1 => (1..40u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..100)
}

fn behaviours() -> impl Strategy<Value = NatBehaviour> {
    let mapping = prop_oneof![
        Just(M::EndpointIndependent),
        Just(M::AddressDependent),
        Just(M::AddressAndPortDependent),
        Just(M::None),
    ];
    let filtering = prop_oneof![
        Just(F::EndpointIndependent),
        Just(F::AddressDependent),
        Just(F::AddressAndPortDependent),
    ];
    let port = prop_oneof![
        Just(PortChoice::Preserving),
        Just(PortChoice::Rewriting),
        Just(PortChoice::Random),
    ];
    let unsolicited = prop_oneof![Just(Unsolicited::Dropped), Just(Unsolicited::Accepted)];
    (mapping, filtering, port, any::<bool>(), unsolicited).prop_map(
        |(mapping, filtering, port, inbound_refreshes, unsolicited)| NatBehaviour {
            mapping,
            filtering,
            port,
            inbound_refreshes,
            unsolicited,
            expiry: s(60),
            ..NatBehaviour::PORT_PRESERVING
        },
    )
}

/// The reference: a list of what went out and came in. Nothing of it is ever forgotten, only too old.
#[derive(Default)]
struct Reference(Vec<(Duration, SocketAddr, SocketAddr)>);

impl Reference {
    fn admits(&self, now: Duration, from: SocketAddr, to: SocketAddr, filtering: F) -> bool {
        let fresh =
            |(at, external, _): &&(Duration, _, SocketAddr)| *external == to && now < *at + s(60);
        self.0
            .iter()
            .filter(fresh)
            .any(|(_, _, remote)| match filtering {
                F::AddressAndPortDependent => *remote == from,
                F::AddressDependent => remote.ip() == from.ip(),
                _ => true,
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Inbound passes if and only if the reference says so, and no two inside endpoints have an external one at a time.
    #[test]
    fn nothing_comes_in_that_the_filter_forbids(behaviour in behaviours(), steps in steps(), seed in any::<u64>()) {
        let mut nat = Nat::new(behaviour, WAN.parse().unwrap(), random::stream(seed, "nat"));
        let mut reference = Reference::default();
        let mut owners: BTreeMap<SocketAddr, (Duration, SocketAddr)> = BTreeMap::new();
        let mut known = vec![outside(22_611)];
        let mut now = s(1);
        for step in steps {
            match step {
                Step::Wait(wait) => now += s(wait),
                Step::Out { inside, host, port } => {
                    let inside = SocketAddr::from(([192, 168, 1, inside], 22_611));
                    let external = nat.outbound(now, inside, peer(host, port)).unwrap();
                    if let Some((used, owner)) = owners.insert(external, (now, inside)) {
                        prop_assert!(owner == inside || now >= used + s(60));
                    }
                    reference.0.push((now, external, peer(host, port)));
                    known.push(external);
                }
                Step::In { host, port, nth } => {
                    // Mostly one of the newest.
                    let external = known[known.len().saturating_sub(1 + nth)];
                    let from = peer(host, port);
                    let admitted = nat.inbound(now, from, external);
                    let expected = reference.admits(now, from, external, behaviour.filtering);
                    prop_assert_eq!(admitted.is_ok(), expected, "{:?}", admitted);
                    let Ok(inside) = admitted else { continue };
                    prop_assert_eq!(inside, owners[&external].1);
                    if behaviour.inbound_refreshes {
                        reference.0.push((now, external, from));
                        owners.insert(external, (now, inside));
                    }
                }
            }
        }
    }
}
