//! Over loopback, where trains stay whole.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::poll::{Wait, poll};

/// A socket that takes trains and tells marks, and where it is.
fn marked(at: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    let addr = socket.local_addr().unwrap();
    accept_trains(&socket).unwrap();
    tell_marks(&socket, addr.is_ipv4()).unwrap();
    never_fragment(&socket, addr.is_ipv4()).unwrap();
    (socket, addr)
}

/// One that tells its own address, too.
fn socket(at: &str) -> (UdpSocket, SocketAddr) {
    let (socket, addr) = marked(at);
    tell_own_address(&socket, addr.is_ipv4()).unwrap();
    (socket, addr)
}

fn train<'a>(to: SocketAddr, segment: u16, bytes: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        to,
        local: None,
        mark: 0,
        segment,
        bytes,
    }
}

/// What is there, at most `N`, once there is anything.
fn receive<const N: usize, const ROOM: usize>(
    socket: &UdpSocket,
    room: usize,
) -> Vec<(Received, Vec<u8>)> {
    poll(
        &mut [Wait::readable(socket.as_raw_fd())],
        Some(Duration::from_secs(5)),
    );
    let mut slots = vec![vec![0; room]; N];
    let mut out = [Received::NOTHING; N];
    let places = slots.iter_mut().map(Vec::as_mut_slice);
    let count = recv_batch::<N, ROOM>(socket, places, &mut out).unwrap();
    let filled = out.into_iter().zip(slots).take(count);
    let cut = |(one, mut slot): (Received, Vec<u8>)| {
        slot.truncate(one.len.unwrap_or(0));
        (one, slot)
    };
    filled.map(cut).collect()
}

#[test]
fn a_train_arrives_as_one_with_its_mark_and_its_addresses() {
    for at in ["127.0.0.3:0", "[::1]:0"] {
        let ((from, here), (to, there)) = (socket(at), socket(at));
        let bytes: Vec<u8> = (0..250).collect();
        let one = Outgoing {
            mark: 0xb9,
            local: Some(here.ip()),
            ..train(there, 100, &bytes)
        };
        send(&from, &one).unwrap();
        let sent = send_batch::<1, MARKED>(&from, std::iter::once(one));
        assert_eq!(sent.unwrap(), 1);
        let expected = Received {
            len: Some(250),
            segment: Some(100),
            from: Some(here),
            local: Some(there.ip()),
            mark: 0xb9,
        };
        assert_eq!(expected.datagrams(), 3);
        for _ in 0..2 {
            let got = receive::<1, ADDRESSED>(&to, 65_536);
            assert_eq!(got, [(expected, bytes.clone())]);
        }
        // A socket that does not tell its address needs no room for it.
        let (to, there) = marked(at);
        send(&from, &Outgoing { to: there, ..one }).unwrap();
        let expected = Received {
            local: None,
            ..expected
        };
        assert_eq!(receive::<1, MARKED>(&to, 65_536), [(expected, bytes)]);
    }
}

#[test]
fn a_batch_goes_out_and_comes_in_in_its_order() {
    let ((from, here), (to, there)) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let texts: Vec<Vec<u8>> = (1..=5).map(|n| vec![n; usize::from(n)]).collect();
    let all = texts.iter().map(|text| train(there, 0, text));
    assert_eq!(send_batch::<8, MARKED>(&from, all.clone()).unwrap(), 5);
    // No more than there are places for.
    assert_eq!(send_batch::<2, MARKED>(&from, all).unwrap(), 2);
    let mut got = Vec::new();
    while got.len() < 7 {
        let some = receive::<3, ADDRESSED>(&to, 100);
        assert!(some.len() <= 3);
        got.extend(some);
    }
    let order = [1, 2, 3, 4, 5, 1, 2];
    for (n, (one, text)) in order.into_iter().zip(got) {
        assert_eq!(text, vec![n; usize::from(n)]);
        assert_eq!((one.from, one.segment, one.mark), (Some(here), None, 0));
        assert_eq!(one.datagrams(), 1);
    }
    let nothing = recv_batch::<1, MARKED>(
        &to,
        std::iter::once(&mut [0; 10][..]),
        &mut [Received::NOTHING],
    );
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_does_not_fit_has_no_length_and_an_empty_one_has() {
    let ((from, _), (to, there)) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    for bytes in [&[7; 20][..], &[], &[7; 10]] {
        send(&from, &train(there, 0, bytes)).unwrap();
    }
    let mut lengths = Vec::new();
    while lengths.len() < 3 {
        let got = receive::<4, ADDRESSED>(&to, 10);
        lengths.extend(got.iter().map(|(one, _)| (one.len, one.datagrams())));
    }
    assert_eq!(lengths, [(None, 1), (Some(0), 1), (Some(10), 1)]);
}

#[test]
fn it_leaves_from_the_address_that_is_named() {
    let from = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let (to, there) = socket("127.0.0.1:0");
    let own = "127.0.0.9".parse().unwrap();
    let one = Outgoing {
        local: Some(own),
        ..train(there, 0, b"hello")
    };
    send(&from, &one).unwrap();
    let got = receive::<1, ADDRESSED>(&to, 100);
    assert_eq!(got[0].0.from.unwrap().ip(), own);
    // An address that is not this host's is refused, and so is a train of too many.
    let foreign = Outgoing {
        local: Some("192.0.2.77".parse().unwrap()),
        ..one
    };
    assert!(send(&from, &foreign).is_err());
    let many = [0; 6_000];
    let refused = send(&from, &train(there, 1, &many)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}
