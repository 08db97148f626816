//! The relay and Debian's coturn, the same datagrams in turns. Not part of the ordinary tests:
//! `./test --long relay`, or
//! `cargo test --release -p bootstrap -- --ignored --nocapture coturn`.

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use host_services::socket::grow_buffers;
use host_services::udp::{Outgoing, send};

use super::tests::{Member, running};
use super::*;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(700);
/// Bytes of payload of each datagram, and how many are sent at once.
const PAYLOAD: usize = 1_200;
const TRAIN: usize = 40;
/// What is to be reached, in datagrams a second.
const AT_LEAST: f64 = 2.0;

const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
const CHANNEL: u16 = 0x4000;

/// A running `turnserver`, and a client of it with one channel.
struct Coturn {
    process: Child,
    client: UdpSocket,
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Coturn {
    /// `None` where it is not installed.
    fn start(peer: SocketAddr) -> Option<Self> {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new("turnserver")
            .args(["-n", "--no-auth", "--no-tls", "--no-dtls", "--no-cli"])
            .args(["--no-tcp", "--allow-loopback-peers", "-m", "1"])
            .args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"])
            .arg(format!("--listening-port={port}"))
            .args(["--log-file=/dev/null", "--pidfile=/dev/null"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.1", port)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let coturn = Self { process, client };
        // REQUESTED-TRANSPORT: UDP.
        coturn.ask(3, &[0, 0x19, 0, 4, 17, 0, 0, 0]);
        let SocketAddr::V4(peer) = peer else {
            panic!("IPv4 only")
        };
        let xor = |bytes: &[u8]| -> Vec<u8> {
            let pairs = bytes.iter().zip(COOKIE);
            pairs.map(|(byte, cookie)| byte ^ cookie).collect()
        };
        // CreatePermission, then ChannelBind, both with XOR-PEER-ADDRESS.
        let address = [
            &[0, 0x12, 0, 8, 0, 1][..],
            &xor(&peer.port().to_be_bytes()),
            &xor(&peer.ip().octets()),
        ]
        .concat();
        coturn.ask(8, &address);
        let number = CHANNEL.to_be_bytes();
        let channel = [0, 0x0c, 0, 4, number[0], number[1], 0, 0];
        coturn.ask(9, &[&channel[..], &address].concat());
        Some(coturn)
    }

    /// Asks until there is a good answer.
    fn ask(&self, method: u8, attributes: &[u8]) {
        let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        let id = [method; 12];
        let request = [&[0, method], &len[..], &COOKIE, &id, attributes].concat();
        for _ in 0..20 {
            self.client.send(&request).unwrap();
            let mut answer = [0; 1_000];
            match self.client.recv(&mut answer) {
                Ok(20..) if answer[8..20] == id => {
                    assert_eq!(answer[..2], [1, method], "coturn refuses {method}");
                    return;
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        panic!("coturn does not answer");
    }

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap();
        [&CHANNEL.to_be_bytes()[..], &len.to_be_bytes(), payload].concat()
    }
}

/// Sends trains of `datagram` from `from` to `to` for a round; how many a second arrive at `at`.
fn round(from: &UdpSocket, to: SocketAddr, datagram: &[u8], at: &UdpSocket) -> f64 {
    let over = AtomicBool::new(false);
    let train = datagram.repeat(TRAIN);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut buffers = vec![vec![0; BUFFER].into_boxed_slice(); BATCH];
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let mut waits = [Wait::readable(at.as_raw_fd())];
                poll(&mut waits, Some(Duration::from_millis(20)));
                let mut metas = [Received::NOTHING; BATCH];
                let slots = buffers.iter_mut().map(AsMut::as_mut);
                let received = recv_batch::<BATCH, ADDRESSED>(at, slots, &mut metas).unwrap_or(0);
                for meta in metas.iter().take(received) {
                    let len = meta.len.unwrap_or(0);
                    count += len.div_ceil(meta.segment.unwrap_or(BUFFER));
                }
            }
            count
        });
        let one = Outgoing {
            to,
            local: None,
            mark: 0,
            segment: u16::try_from(datagram.len()).unwrap(),
            bytes: &train,
        };
        let start = Instant::now();
        while start.elapsed() < ROUND {
            // A full socket is what a flood meets.
            let _ = send(from, &one);
        }
        over.store(true, Ordering::Relaxed);
        receiver.join().unwrap() as f64 / start.elapsed().as_secs_f64()
    })
}

fn receiver() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    sockets::prepare(&socket, true).unwrap();
    grow_buffers(&socket, 7 << 20);
    socket
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn twice_what_coturn_relays() {
    // It needs coturn and a machine that does little else: `./test --long relay`.
    if std::env::var_os("FARLAN_LONG").is_none() {
        return;
    }
    let it = running("127.0.0.1:0", 100_000);
    let (a, b) = (Member::new(&it, 1, &[2]), Member::new(&it, 2, &[1]));
    grow_buffers(&b.socket, 7 << 20);
    let plain = receiver();
    let Some(coturn) = Coturn::start(plain.local_addr().unwrap()) else {
        println!("sample coturn absent");
        return;
    };
    let payload = vec![4; PAYLOAD];
    let ours = a.wrapped(&b, &payload);
    let theirs = Coturn::datagram(&payload);
    let turn = coturn.client.peer_addr().unwrap();
    let (mut relay, mut rival) = (Vec::new(), Vec::new());
    for n in 0..=ROUNDS {
        let both = (
            round(&a.socket, it.addr, &ours, &b.socket),
            round(&coturn.client, turn, &theirs, &plain),
        );
        println!("round {n}: {:.0} and {:.0} a second", both.0, both.1);
        // The first one warms up.
        if n > 0 {
            relay.push(both.0);
            rival.push(both.1);
        }
    }
    let (relay, rival) = (median(relay), median(rival));
    println!(
        "sample relay_pps {relay:.0} coturn_pps {rival:.0} times {:.2}",
        relay / rival
    );
    assert!(relay >= AT_LEAST * rival, "{relay} and {rival} a second");
}
