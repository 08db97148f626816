//! The data plane over loopback, with real clients.

use std::net::UdpSocket;

use control_proto::serving::Relay;
use host_services::udp::{Outgoing, send};
use nat_traversal::path::RelayRoute;
use nat_traversal::reflector::{TransactionId, decode_response, encode_request};
use nat_traversal::relay::{HEADER_LEN, RelayClient, RelayKey, unwrap, wrap};
use overlay_proto::ids::PeerId;

use super::*;
use crate::relay::{RelayOffice, open};

pub(super) struct Running {
    counters: Arc<Counters>,
    office: RelayOffice,
    pub(super) addr: SocketAddr,
}

pub(super) fn running(listen: &str, mbit: u32) -> Running {
    let (desk, office) = open(mbit).unwrap();
    let plane = DataPlane::bind(&[listen.parse().unwrap()], desk).unwrap();
    let addr = plane.sockets.local_addr(0).unwrap();
    Running {
        counters: plane.start().unwrap(),
        office,
        addr,
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

#[test]
fn a_wildcard_socket_answers_from_where_it_was_asked() {
    let it = running("0.0.0.0:0", 1);
    // Two addresses of loopback; only the right one passes a connected socket.
    for asked in ["127.0.0.1", "127.0.0.2"] {
        let client = socket();
        client.connect((asked, it.addr.port())).unwrap();
        let id = TransactionId([9; 12]);
        client.send(&encode_request(id)).unwrap();
        let mut answer = [0; 100];
        let length = client.recv(&mut answer).unwrap();
        let observed = decode_response(&answer[..length]).unwrap();
        assert_eq!(observed, (id, client.local_addr().unwrap()));
    }
    assert_eq!(it.counters.snapshot().reflected, 2);
}

/// A member of the relay: bound at a socket of its own.
pub(super) struct Member {
    pub(super) socket: UdpSocket,
    client: RelayClient,
}

impl Member {
    pub(super) fn new(it: &Running, name: u8, peers: &[u8]) -> Self {
        let me = PeerId([name; 32]);
        let grant = it.office.allocate(me).unwrap();
        let peers: Vec<_> = peers.iter().map(|name| PeerId([*name; 32])).collect();
        it.office.permit(me, grant.id, &peers).unwrap();
        let now = Instant::now();
        let mut client = RelayClient::new(now, it.addr, grant.id, RelayKey(grant.key));
        let socket = socket();
        sockets::prepare(&socket, true).unwrap();
        socket.connect(it.addr).unwrap();
        client.handle_timeout(now);
        while let Some((_, bytes)) = client.poll_transmit() {
            socket.send(&bytes).unwrap();
            let mut answer = [0; 100];
            let length = socket.recv(&mut answer).unwrap();
            client
                .handle_datagram(now, it.addr, &answer[..length])
                .unwrap();
        }
        assert!(client.bound().is_some());
        Self { socket, client }
    }

    pub(super) fn wrapped(&self, to: &Self, payload: &[u8]) -> Vec<u8> {
        let route = RelayRoute {
            own: self.client.allocation(),
            peer: to.client.allocation(),
        };
        let mut out = vec![0; HEADER_LEN + payload.len()];
        wrap(route, &self.client.key(), payload, &mut out).unwrap();
        out
    }
}

#[test]
fn a_train_is_relayed_with_its_mark_and_a_stranger_inside_it_is_not() {
    let it = running("127.0.0.1:0", 1_000);
    let (a, b) = (Member::new(&it, 1, &[2]), Member::new(&it, 2, &[1]));
    let payload = |n: u8| [[4].as_slice(), &[n; 999]].concat();
    let mut train: Vec<_> = (0..20).map(|n| a.wrapped(&b, &payload(n))).collect();
    train[7][HEADER_LEN + 1] ^= 1;
    send(
        &a.socket,
        &Outgoing {
            to: it.addr,
            local: None,
            mark: 0x0a,
            segment: 1_028,
            bytes: &train.concat(),
        },
    )
    .unwrap();
    b.socket.set_nonblocking(true).unwrap();
    let mut buffers = vec![vec![0; BUFFER].into_boxed_slice(); BATCH];
    let (mut got, mut trains) = (Vec::new(), 0);
    while got.len() < 19 {
        let timeout = Some(Duration::from_secs(5));
        poll(&mut [Wait::readable(b.socket.as_raw_fd())], timeout);
        let mut metas = [Received::NOTHING; BATCH];
        let slots = buffers.iter_mut().map(AsMut::as_mut);
        let count = recv_batch::<BATCH, ADDRESSED>(&b.socket, slots, &mut metas).unwrap();
        trains += count;
        for (buffer, meta) in buffers.iter().zip(&metas).take(count) {
            assert_eq!(meta.mark, 0x0a, "the mark stays");
            let bytes = &buffer[..meta.len.unwrap()];
            for datagram in bytes.chunks(meta.segment.unwrap_or(BUFFER)) {
                let (_, range) = unwrap(datagram, &b.client.key()).unwrap();
                got.push(datagram[range].to_vec());
            }
        }
    }
    let expected: Vec<_> = (0..20).filter(|n| *n != 7).map(payload).collect();
    assert_eq!(got, expected);
    assert!(trains <= 4, "{trains} trains for two runs");
    let deadline = Instant::now() + Duration::from_secs(5);
    while it.counters.snapshot().relay_refused != 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = it.counters.snapshot();
    assert_eq!((seen.relayed, seen.relay_refused), (19, 1));
    assert_eq!((seen.send_failed, seen.allocations), (0, 2));
    // Who is revoked is relayed no more.
    it.office.revoke(PeerId([1; 32]));
    let again = it.office.allocate(PeerId([2; 32])).unwrap();
    assert_eq!(again.id, b.client.allocation());
    // The relay's thread counts them when it next comes by.
    let deadline = Instant::now() + Duration::from_secs(5);
    while it.counters.snapshot().allocations != 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(it.counters.snapshot().allocations, 1);
}
