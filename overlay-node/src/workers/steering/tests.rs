use std::net::SocketAddr;
use std::time::Duration;

use host_services::udp::{MARKED, Outgoing, send_batch};
use overlay_proto::wire::{DataHeader, Lane, SessionIndex, TAG_LEN};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::super::udp::BindError;
use super::*;

/// What the module says, in Rust.
fn worker_of(datagram: &[u8], workers: usize) -> usize {
    match (datagram.first(), datagram.get(8)) {
        (Some(0x04), Some(lane)) => usize::from((lane % Lane::COUNT).saturating_sub(1)) % workers,
        _ => 0,
    }
}

/// A machine for the few instructions that the program has.
fn run(program: &[Instruction], datagram: &[u8]) -> usize {
    let (mut a, mut at) = (0_u32, 0);
    loop {
        let one = program[at].parts();
        at += 1;
        match one.code {
            0x30 => match datagram.get(one.k as usize) {
                Some(byte) => a = u32::from(*byte),
                None => return 0,
            },
            0x15 => at += usize::from(if a == one.k { one.jt } else { one.jf }),
            0x14 => a = a.wrapping_sub(one.k),
            0x54 => a &= one.k,
            0x94 => a %= one.k,
            0x16 => return a as usize,
            0x06 => return one.k as usize,
            code => panic!("{code:#x}"),
        }
    }
}

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![3 => Just(4_u8), 1 => any::<u8>()];
    let lane = prop_oneof![3 => 0_u8..9, 1 => any::<u8>()];
    (kind, lane, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(kind, lane, mut bytes)| {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Some(byte) = bytes.get_mut(8) {
            *byte = lane;
        }
        bytes
    })
}

fn bound() -> UdpSockets {
    let addrs: [SocketAddr; 2] = ["127.0.0.1:0", "[::1]:0"].map(|addr| addr.parse().unwrap());
    UdpSockets::bind_to(&addrs).unwrap()
}

fn group(workers: usize) -> Vec<UdpSockets> {
    bound().share_among(workers).unwrap()
}

/// Which of the sockets got the datagram that was just sent.
fn taker(sockets: &[UdpSockets], v4: bool) -> Option<usize> {
    let mut bytes = [0; 100];
    let wait = Duration::from_secs(5);
    let end = std::time::Instant::now() + wait;
    while std::time::Instant::now() < end {
        for (number, sockets) in sockets.iter().enumerate() {
            let socket = sockets.both()[usize::from(!v4)].unwrap();
            if socket.recv(&mut bytes).is_ok() {
                return Some(number);
            }
        }
    }
    None
}

#[test]
fn the_lane_is_where_the_header_has_it() {
    let header = DataHeader {
        receiver: SessionIndex(u32::MAX),
        lane: Lane(5),
        counter: 0,
    };
    let bytes = header.to_bytes();
    assert_eq!(bytes[LANE_AT as usize], 5);
    assert_eq!(worker_of(&bytes, 4), 0);
    assert_eq!(worker_of(&bytes, 3), 1);
}

proptest! {
    #[test]
    fn the_program_does_what_the_module_says(
        datagram in datagrams(), workers in 1..=MAX_WORKERS,
    ) {
        let program = program(u32::try_from(workers).unwrap());
        let wanted = worker_of(&datagram, workers);
        prop_assert!(wanted < workers);
        prop_assert_eq!(run(&program, &datagram), wanted);
    }
}

#[test]
fn the_kernel_gives_each_datagram_to_the_worker_of_its_lane() {
    for workers in [1, 2, 3, 4, 7] {
        let sockets = group(workers);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for (v4, from) in [(true, "127.0.0.1:0"), (false, "[::1]:0")] {
            let to = sockets[0].both()[usize::from(!v4)].unwrap();
            let to = to.local_addr().unwrap();
            let sender = UdpSocket::bind(from).unwrap();
            for _ in 0..100 {
                let datagram = datagrams().new_tree(&mut runner).unwrap().current();
                sender.send_to(&datagram, to).unwrap();
                let taken = taker(&sockets, v4);
                assert_eq!(taken, Some(worker_of(&datagram, workers)), "{datagram:?}");
            }
        }
    }
}

#[test]
fn a_gro_batch_goes_whole_to_the_worker_of_its_lane() {
    let sockets = group(2);
    let to = sockets[0].v4.as_ref().unwrap().local_addr().unwrap();
    let sender = bound();
    let mut batch = vec![0; 4 * (16 + TAG_LEN)];
    for datagram in batch.chunks_mut(16 + TAG_LEN) {
        datagram[0] = 4;
        datagram[8] = 2;
    }
    let whole = Outgoing {
        to,
        local: None,
        mark: 0,
        segment: 32,
        bytes: &batch,
    };
    let sent = send_batch::<1, MARKED>(sender.v4.as_ref().unwrap(), [whole].into_iter());
    assert_eq!(sent.unwrap(), 1);
    assert_eq!(taker(&sockets, true), Some(1));
}

#[test]
fn a_shared_port_is_busy_for_others_and_a_stranger_gets_nothing() {
    for workers in [1, 3] {
        let sockets = group(workers);
        let addrs = sockets[0].local_addrs();
        let again = UdpSockets::bind_to(&addrs).unwrap_err();
        assert!(matches!(again, BindError::Busy(_)), "{again:?}");
        let stranger = udp::unbound(addrs[0]).unwrap();
        stranger.set_reuse_port(true).unwrap();
        let joined = stranger.bind(&addrs[0].into());
        assert_eq!(joined.is_ok(), workers > 1, "{joined:?}");
        let stranger: UdpSocket = stranger.into();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for kind in 0..=255_u8 {
            let datagram = [kind, 0, 0, 0, 0, 0, 0, 0, kind, 0];
            sender.send_to(&datagram, addrs[0]).unwrap();
            assert!(taker(&sockets, true).is_some());
        }
        assert!(stranger.recv(&mut [0; 10]).is_err());
    }
}

#[test]
fn each_worker_has_a_ttl_of_its_own() {
    let sockets = group(4);
    let v4 = sockets.iter().map(|s| s.v4.as_ref().unwrap());
    let v4: Vec<u32> = v4.map(|s| s.ttl().unwrap()).collect();
    let v6 = sockets
        .iter()
        .map(|s| SockRef::from(s.v6.as_ref().unwrap()));
    let v6: Vec<u32> = v6.map(|s| s.unicast_hops_v6().unwrap()).collect();
    for ttls in [v4, v6] {
        assert!(ttls.windows(2).all(|two| two[1] + 1 == two[0]), "{ttls:?}");
    }
}

#[test]
fn the_number_of_workers_is_sane() {
    assert!((1..=4).contains(&default_workers()));
    assert_eq!(group(0).len(), 1);
    assert_eq!(group(99).len(), MAX_WORKERS);
}
