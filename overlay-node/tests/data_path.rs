//! A TCP stream and large pings between two guests with the kernel's own network stack, across
//! two nodes' workers and real taps: what segmentation and checksum offloads would break breaks
//! here. Three network namespaces that vanish with their threads. Needs root; skipped loudly
//! without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nat_traversal::path::Path;
use overlay_node::workers::{UdpSockets, WorkerConfig, WorkerPool};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::session::{RawSplit, Role, Session, SessionNames, SharedNetwork, Suite};
use overlay_proto::switching::{
    DropCounters, Fib, FibMap, FibNetwork, FibPeer, FibSession, LocalMac, MacEntry, MacKey,
    NetIndex, OwnTraffic, PeerCounters, PeerSlot,
};
use overlay_proto::wire::{Lane, SAFE_DATAGRAM, Selector, SessionIndex};
use tap_bridge::host::{self, NewTap};
use tap_bridge::tap::TapKind;
use tap_bridge::{Links, TapQueue};

const NETWORK: NetworkId = NetworkId([7; 32]);
const MACS: [MacAddr; 2] = [
    MacAddr([0x52, 0x54, 0, 0, 0, 1]),
    MacAddr([0x52, 0x54, 0, 0, 0, 2]),
];
const STREAM_BYTES: usize = 8 * 1024 * 1024;

/// Moves this thread into a fresh network namespace; false without root.
fn unshare() -> bool {
    // SAFETY: unshare takes a flag word only; it changes the namespace of this thread.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// Runs `ip` in the namespace of this thread.
fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {arguments}: {text}");
}

/// A thread in a namespace of its own: tells its thread id, waits for its interface, then works.
fn guest<T: Send + 'static>(
    number: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> (std::thread::JoinHandle<T>, i32, Sender<()>) {
    let (tell, told): (Sender<i32>, Receiver<i32>) = channel();
    let (go, ready) = channel();
    let thread = std::thread::spawn(move || {
        assert!(unshare());
        // SAFETY: gettid has no arguments and cannot fail.
        tell.send(unsafe { libc::gettid() }).unwrap();
        ready.recv().unwrap();
        ip(&format!("link set g{number} address {}", MACS[number]));
        ip(&format!(
            "address add 10.9.0.{}/24 dev g{number}",
            number + 1
        ));
        ip(&format!("link set g{number} up"));
        work()
    });
    (thread, told.recv().unwrap(), go)
}

/// The node of guest `number`, and what its counters say.
struct Node {
    drops: Arc<DropCounters>,
    pool: WorkerPool,
}

fn session(number: usize) -> Arc<Session> {
    let index = |number| SessionIndex(u32::try_from(number).unwrap() + 10);
    let names = SessionNames {
        peer: PeerId([2; 32]),
        local_index: index(number),
        remote_index: index(1 - number),
        networks: vec![SharedNetwork {
            network: NETWORK,
            send: Selector(1),
            receive: Selector(1),
        }],
    };
    let split = RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    };
    let role = [Role::Initiator, Role::Responder][number];
    let made = Session::new(names, &split, Suite::Aes256Gcm, role, Instant::now());
    Arc::new(made.unwrap())
}

fn fib(number: usize, path: Path) -> Fib {
    let session = session(number);
    let slot = PeerSlot(0);
    let key = |mac| MacKey {
        vlan: VlanId::UNTAGGED,
        mac,
    };
    let own = MacEntry::Local(Arc::new(LocalMac::default()));
    let other = MacEntry::Remote(slot, 1);
    let macs = [(key(MACS[number]), own), (key(MACS[1 - number]), other)];
    let from = FibSession {
        session: Arc::clone(&session),
        peer: slot,
    };
    Fib {
        networks: vec![FibNetwork {
            id: NETWORK,
            macs: macs.into_iter().collect(),
            flood: vec![slot],
            punt_broadcast: None,
            clamp: true,
            twins: FibMap::default(),
            standby: None,
            bpdu: false,
            ports: Arc::default(),
        }],
        peers: vec![FibPeer {
            peer: session.peer,
            session: Some(session),
            path: Some(path),
            datagram_limit: SAFE_DATAGRAM,
            counters: Arc::new(PeerCounters::default()),
        }],
        sessions: FibMap::from_iter([(from.session.local_index, from)]),
        relay_keys: BTreeMap::new(),
        own: OwnTraffic::default(),
    }
}

/// Two bridges with a tap each, a veth to each guest, and a worker for each side.
fn hosts(tids: [i32; 2]) -> [Node; 2] {
    ip("link set lo up");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let links = Links::connect().unwrap();
        for (number, tid) in tids.iter().enumerate() {
            let name = format!("br-{number}");
            let (bridge, _) = host::make_bridge(&links, &name, 1500, "test")
                .await
                .unwrap();
            let tap = NewTap {
                name: &format!("fl-{number}"),
                kind: TapKind::Overlay,
                owner: None,
                mtu: 1500,
                mark: "test",
            };
            host::make_tap(&links, tap, &bridge).await.unwrap();
            ip(&format!(
                "link add v{number} type veth peer name g{number} netns {tid}"
            ));
            ip(&format!("link set v{number} master br-{number} up"));
        }
    });
    let sockets = [(); 2].map(|()| UdpSockets::bind_to(&["127.0.0.1:0".parse().unwrap()]).unwrap());
    let addrs = [0, 1].map(|number: usize| sockets[number].local_addrs()[0]);
    let mut number = 0;
    sockets.map(|sockets| {
        let tap = TapQueue::open(&format!("fl-{number}"), false).unwrap();
        let fib = fib(number, Path::direct(addrs[1 - number]));
        number += 1;
        let drops = Arc::new(DropCounters::default());
        let pool = WorkerPool::start(vec![WorkerConfig {
            sockets,
            taps: vec![(NetIndex(0), Box::new(tap))],
            fib: Arc::new(ArcSwap::from_pointee(fib)),
            drops: Arc::clone(&drops),
            punts: tokio::sync::mpsc::channel(16).0,
            beacons: tokio::sync::mpsc::channel(16).0,
            epoch: Instant::now(),
            marks: tap_bridge::offload::Marks::default(),
            lane: Lane(1),
            me: PeerId([1; 32]),
        }]);
        let pool = pool.unwrap();
        Node { drops, pool }
    })
}

fn pattern() -> Vec<u8> {
    (0..STREAM_BYTES).map(|i| (i * 31 % 251) as u8).collect()
}

/// Answers datagrams, and receives one stream.
fn server() -> Vec<u8> {
    let udp = UdpSocket::bind("10.9.0.2:9").unwrap();
    let listener = TcpListener::bind("10.9.0.2:9").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2000];
        while let Ok((len, from)) = udp.recv_from(&mut datagram) {
            let _ = udp.send_to(&datagram[..len], from);
        }
    });
    let mut stream = Vec::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_end(&mut stream)
        .unwrap();
    stream
}

/// Sends a full-size datagram until it comes back, then one stream; returns the datagram's length.
fn client() -> usize {
    let udp = UdpSocket::bind("10.9.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let full = vec![0x5a; 1472];
    let mut answer = [0; 2000];
    let mut tries = 0..50;
    let len = loop {
        tries.next().expect("no answer to a full-size datagram");
        let _ = udp.send_to(&full, "10.9.0.2:9");
        if let Ok(len) = udp.recv(&mut answer) {
            break len;
        }
    };
    let mut stream = TcpStream::connect("10.9.0.2:9").unwrap();
    stream.write_all(&pattern()).unwrap();
    len
}

#[test]
fn a_tcp_stream_crosses_two_nodes() {
    let test = std::thread::spawn(|| {
        if !unshare() {
            let needed = std::env::var_os("FARLAN_LAB").is_some();
            assert!(!needed, "FARLAN_LAB needs root");
            eprintln!("SKIPPED: needs root (CAP_SYS_ADMIN) for a network namespace");
            return;
        }
        let (client, client_tid, client_go) = guest(0, client);
        let (server, server_tid, server_go) = guest(1, server);
        let nodes = hosts([client_tid, server_tid]);
        server_go.send(()).unwrap();
        client_go.send(()).unwrap();
        assert_eq!(client.join().unwrap(), 1472);
        assert!(server.join().unwrap() == pattern(), "the stream differs");
        for node in nodes {
            node.pool.stop();
            for (reason, count) in node.drops.occurred() {
                // Nobody reads the punts here, and the guests speak IPv6 to nobody.
                let harmless = [DropReason::PuntOverflow, DropReason::BridgeReserved];
                let lossy = [DropReason::SocketFull, DropReason::TapFull];
                let known = harmless.contains(&reason) || lossy.contains(&reason);
                assert!(known, "{count} x {}", reason.name());
            }
        }
    });
    if let Err(panic) = test.join() {
        std::panic::resume_unwind(panic);
    }
}
