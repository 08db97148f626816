//! Probes, reflector, relay and candidates.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use nat_traversal::agent::ProbeMessage;
use nat_traversal::candidate::{
    Candidate, CandidateFilter, CandidateKind, MAX_CANDIDATES, select_local,
};
use nat_traversal::entropy::SeededEntropy;
use nat_traversal::path::{AllocationId, RelayName, RelayRoute};
use nat_traversal::reflector::{
    MESSAGE_LEN, ReflectorClient, TransactionId, decode_request, decode_response, encode_request,
    encode_response,
};
use nat_traversal::relay::{Ack, Bind, Challenge, RelayKey, allocation_of, route_of, unwrap, wrap};

use crate::input::Input;
use crate::{Seen, Target};

const KEY: RelayKey = RelayKey([3; 16]);

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "nat_probe",
            run: probe,
            seeds: probes,
            speed: 400,
        },
        Target {
            name: "nat_reflector",
            run: reflector,
            seeds: || {
                let id = TransactionId([5; 12]);
                vec![
                    encode_request(id).to_vec(),
                    encode_response(id, an_addr()).to_vec(),
                ]
            },
            speed: 400,
        },
        Target {
            name: "nat_relay",
            run: relay,
            seeds: relay_datagrams,
            speed: 400,
        },
        Target {
            name: "nat_candidates",
            run: candidates,
            seeds: || {
                vec![
                    [0, 4, 192, 0, 2, 1, 0x0f, 0xa0].repeat(5),
                    [1, 6].repeat(60),
                ]
            },
            speed: 200,
        },
    ]
}

fn an_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4000))
}

/// One candidate of each kind.
pub(super) fn some_candidates() -> Vec<Candidate> {
    [
        CandidateKind::Host,
        CandidateKind::Reflexive,
        CandidateKind::PortMapped,
        CandidateKind::Relayed,
    ]
    .into_iter()
    .map(|kind| Candidate {
        kind,
        addr: an_addr(),
        allocation: (kind == CandidateKind::Relayed).then_some(AllocationId(8)),
        relay: (kind == CandidateKind::Relayed).then_some(RelayName([9; 32])),
    })
    .collect()
}

fn probe(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let message = ProbeMessage::decode(bytes);
    seen.result(&message);
    if let Ok(message) = message {
        assert_eq!(message.encode(bytes.len()), bytes);
        seen.note(&std::mem::discriminant(&message));
    }
    seen.number()
}

fn probes() -> Vec<Vec<u8>> {
    let challenge = ProbeMessage::Challenge {
        id: 77,
        in_use: true,
        climb: false,
    };
    let answer = ProbeMessage::Answer {
        id: 77,
        observed: Some(an_addr()),
    };
    vec![challenge.encode(0), challenge.encode(100), answer.encode(0)]
}

fn reflector(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let request = decode_request(bytes);
    seen.result(&request);
    if let Ok(id) = request {
        assert_eq!(encode_request(id).as_slice(), bytes);
    }
    let response = decode_response(bytes);
    seen.result(&response);
    if let Ok((id, observed)) = response {
        assert_eq!(bytes.len(), MESSAGE_LEN);
        let again = encode_response(id, observed);
        assert_eq!(decode_response(&again), Ok((id, observed)));
    }
    // A client that asked hears it, too.
    let now = Instant::now();
    let mut entropy = SeededEntropy::new(1);
    let mut client = ReflectorClient::new();
    client.set_reflectors(now, &[an_addr()]);
    client.handle_timeout(now, &mut entropy);
    let heard = client.handle_response(now, an_addr(), bytes, &mut entropy);
    seen.result(&heard);
    seen.note(&client.poll_event().is_some());
    seen.number()
}

fn relay(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let bind = Bind::decode(bytes, &KEY);
    seen.result(&bind);
    if let Ok(bind) = bind {
        assert_eq!(bind.encode(&KEY).as_slice(), bytes);
    }
    let challenge = Challenge::decode(bytes, &KEY);
    seen.result(&challenge);
    if let Ok(challenge) = challenge {
        assert_eq!(challenge.encode(&KEY).as_slice(), bytes);
    }
    let ack = Ack::decode(bytes, &KEY);
    seen.result(&ack);
    if let Ok(ack) = ack {
        assert_eq!(Ack::decode(&ack.encode(&KEY), &KEY), Ok(ack));
    }
    seen.note(&allocation_of(bytes).is_some());
    seen.result(&route_of(bytes));
    let opened = unwrap(bytes, &KEY);
    seen.result(&opened);
    if let Ok((route, range)) = opened {
        let mut again = vec![0; bytes.len()];
        let len = wrap(backward(route), &KEY, &bytes[range], &mut again).unwrap();
        assert_eq!(again[..len], *bytes);
    }
    // The same bytes as a payload.
    let mut out = vec![0; bytes.len() + 64];
    let route = RelayRoute {
        own: AllocationId(1),
        peer: AllocationId(2),
    };
    let wrapped = wrap(route, &KEY, bytes, &mut out);
    seen.result(&wrapped);
    if let Ok(len) = wrapped {
        let (back, range) = unwrap(&out[..len], &KEY).unwrap();
        assert_eq!((back, &out[range]), (backward(route), bytes));
    }
    seen.number()
}

/// The same way as the other end names it.
const fn backward(route: RelayRoute) -> RelayRoute {
    RelayRoute {
        own: route.peer,
        peer: route.own,
    }
}

fn relay_datagrams() -> Vec<Vec<u8>> {
    let allocation = AllocationId(1);
    let bind = Bind {
        allocation,
        counter: 4,
        echo: 5,
    };
    let challenge = Challenge {
        allocation,
        challenge: 5,
    };
    let ack = Ack {
        allocation,
        counter: 4,
        observed: an_addr(),
    };
    let mut relayed = vec![0; 96];
    let route = RelayRoute {
        own: allocation,
        peer: AllocationId(2),
    };
    let len = wrap(route, &KEY, &[4; 40], &mut relayed).unwrap();
    relayed.truncate(len);
    vec![
        bind.encode(&KEY).to_vec(),
        challenge.encode(&KEY).to_vec(),
        ack.encode(&KEY).to_vec(),
        relayed,
    ]
}

/// An address from the input, of either family, often a special one.
pub(crate) fn address(input: &mut Input<'_>) -> SocketAddr {
    let ip = if input.bool() {
        let [a, b] = input.array();
        IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b])
    } else {
        match input.below(8) {
            0 => IpAddr::from(input.array::<16>()),
            n => {
                let prefixes = [[192, 0, 2], [10, 0, 0], [203, 0, 113], [169, 254, 1]];
                let [a, b, c] = prefixes[n % 4];
                IpAddr::from([a, b, c, input.u8()])
            }
        }
    };
    SocketAddr::new(ip, input.u16())
}

/// A candidate from the input.
pub(crate) fn candidate(input: &mut Input<'_>) -> Candidate {
    let kinds = [
        CandidateKind::Host,
        CandidateKind::Reflexive,
        CandidateKind::PortMapped,
        CandidateKind::Relayed,
    ];
    let kind = kinds[input.below(4)];
    Candidate {
        kind,
        addr: address(input),
        allocation: (kind == CandidateKind::Relayed).then(|| AllocationId(u64::from(input.u8()))),
        relay: (kind == CandidateKind::Relayed).then(|| RelayName([input.u8(); 32])),
    }
}

fn candidates(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let filter = CandidateFilter {
        overlay_prefixes: vec!["10.9.0.0/24".parse().unwrap()],
        beside_overlay: vec!["10.9.0.128/25".parse().unwrap()],
        own_addresses: vec!["10.0.0.1".parse().unwrap()],
        own_subnets: vec!["10.0.0.0/24".parse().unwrap()],
        own_reflexive: vec![IpAddr::from([203, 0, 113, 9])],
    };
    let mut all = Vec::new();
    while !input.is_empty() && all.len() < 64 {
        let one = candidate(&mut input);
        let admitted = filter.admit(&one, &[address(&mut input).ip()]);
        seen.result(&admitted);
        if admitted.is_ok() {
            assert!(!one.addr.ip().is_multicast() && one.addr.port() != 0);
            assert!(!one.addr.ip().to_canonical().is_loopback());
        }
        all.push(one);
    }
    let chosen = select_local(&all);
    assert!(chosen.len() <= MAX_CANDIDATES);
    assert!(chosen.iter().all(|one| all.contains(one)));
    seen.number()
}
