//! Two nodes on loopback: real sockets and threads, taps in memory.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nat_traversal::path::{AllocationId, Path, RelayRoute};
use nat_traversal::relay::{self, RelayKey};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::{MacAddr, VlanId, build_frame};
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::session::{RawSplit, Role, Session, SessionNames, SharedNetwork, Suite};
use overlay_proto::switching::{
    DropCounters, Fib, FibMap, FibNetwork, FibPeer, FibSession, LocalMac, MacEntry, MacKey,
    NetIndex, OwnTraffic, PeerCounters, PeerSlot, PuntReason,
};
use overlay_proto::wire::{
    DataHeader, InnerHeader, InnerKind, Lane, SAFE_DATAGRAM, Selector, SessionIndex,
};
use tap_bridge::offload::Marks;
use tap_bridge::{FrameBatch, FrameQueue, MemoryTap, TxFrame};
use tokio::sync::mpsc;

use super::{Punt, SlowSender, TapWriter, UdpSockets, WorkerConfig, WorkerPool};

mod again;
mod full;
mod several;
mod switches;

const NET: NetIndex = NetIndex(0);
const EXPERIMENTAL: u16 = 0x88b5;
const MAC_A: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
const MAC_B: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xb]);
const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xcc]);

/// A node, as its guest and its slow path see it.
struct Node {
    addr: SocketAddr,
    sender: SlowSender,
    guest: MemoryTap,
    /// The guest's ends of the queues of all workers but the first.
    other_queues: Vec<MemoryTap>,
    punts: mpsc::Receiver<Punt>,
    drops: Arc<DropCounters>,
    fib: Arc<ArcSwap<Fib>>,
    session: Arc<Session>,
    pool: WorkerPool,
}

impl Node {
    fn start(local: &str, own: MacAddr, other: MacAddr, session: Session) -> Self {
        Self::start_with(local, own, other, session, 1)
    }

    fn start_with(
        local: &str,
        own: MacAddr,
        other: MacAddr,
        session: Session,
        workers: usize,
    ) -> Self {
        let sockets = UdpSockets::bind_to(&[local.parse().unwrap()]).unwrap();
        let pairs = (0..workers).map(|_| MemoryTap::pair().unwrap());
        let (mut guests, taps): (Vec<_>, Vec<_>) = pairs.unzip();
        let (punt_sender, punts) = mpsc::channel(64);
        let drops = Arc::new(DropCounters::default());
        let session = Arc::new(session);
        let fib = Arc::new(ArcSwap::from_pointee(fib(own, other, &session)));
        let addr = sockets.local_addrs()[0];
        let sender = SlowSender::new(sockets.try_clone().unwrap());
        let shared = sockets.share_among(workers).unwrap();
        let parts = shared.into_iter().zip(taps).zip(1..);
        let configs = parts.map(|((sockets, tap), lane)| WorkerConfig {
            sockets,
            taps: vec![(NET, Box::new(tap))],
            fib: Arc::clone(&fib),
            drops: Arc::clone(&drops),
            punts: punt_sender.clone(),
            beacons: punt_sender.clone(),
            epoch: Instant::now(),
            lane: Lane(lane),
            me: PeerId([1; 32]),
            marks: Marks::default(),
        });
        let pool = WorkerPool::start(configs.collect()).unwrap();
        Self {
            addr,
            sender,
            guest: guests.remove(0),
            other_queues: guests,
            punts,
            drops,
            fib,
            session,
            pool,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Fib)) {
        let mut fib = Fib::clone(&self.fib.load());
        change(&mut fib);
        self.fib.store(Arc::new(fib));
    }

    fn says(&mut self, frame: &[u8]) {
        assert_eq!(self.guest.write_batch(&[TxFrame::plain(frame)]).written, 1);
    }

    fn hears(&mut self) -> Vec<u8> {
        let mut batch = FrameBatch::new(1, 0);
        eventually("a frame", || {
            self.guest.read_batch(&mut batch).unwrap();
            batch.frames().next().map(|frame| frame.bytes.to_vec())
        })
    }

    fn is_deaf(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(30));
        self.guest.read_batch(&mut FrameBatch::default()).unwrap() == 0
    }

    fn punted(&mut self) -> Punt {
        eventually("a punt", || self.punts.try_recv().ok())
    }

    fn counted(&self, reason: DropReason) {
        eventually(reason.name(), || (self.drops.get(reason) > 0).then_some(()));
    }

    fn no_drops(&self) {
        let drops: Vec<_> = self.drops.occurred().collect();
        assert_eq!(drops, []);
    }
}

fn eventually<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Some(value) = get() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} did not come");
}

fn network() -> NetworkId {
    NetworkId([7; 32])
}

fn key(mac: MacAddr) -> MacKey {
    let vlan = VlanId::UNTAGGED;
    MacKey { vlan, mac }
}

/// What a node knows: its own guest's MAC, and the other guest's MAC behind its only peer. It has no
/// path yet.
fn fib(own: MacAddr, other: MacAddr, session: &Arc<Session>) -> Fib {
    let slot = PeerSlot(0);
    let macs = [
        (key(own), MacEntry::Local(Arc::new(LocalMac::default()))),
        (key(other), MacEntry::Remote(slot, 1)),
    ];
    Fib {
        networks: vec![FibNetwork {
            id: network(),
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
            session: Some(Arc::clone(session)),
            path: None,
            datagram_limit: SAFE_DATAGRAM,
            counters: Arc::new(PeerCounters::default()),
        }],
        sessions: FibMap::from_iter([(
            session.local_index,
            FibSession {
                session: Arc::clone(session),
                peer: slot,
            },
        )]),
        relay_keys: BTreeMap::new(),
        own: OwnTraffic::default(),
    }
}

fn session(peer: u8, local: u32, remote: u32, role: Role) -> Session {
    let names = SessionNames {
        peer: PeerId([peer; 32]),
        local_index: SessionIndex(local),
        remote_index: SessionIndex(remote),
        networks: vec![SharedNetwork {
            network: network(),
            send: Selector(remote),
            receive: Selector(local),
        }],
    };
    let split = RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    };
    Session::new(names, &split, Suite::Aes256Gcm, role, Instant::now()).unwrap()
}

/// Two nodes without a path to each other.
fn two(local: &str) -> (Node, Node) {
    let a = Node::start(local, MAC_A, MAC_B, session(2, 10, 20, Role::Initiator));
    let b = Node::start(local, MAC_B, MAC_A, session(1, 20, 10, Role::Responder));
    (a, b)
}

/// Two nodes with a direct path to each other.
fn two_joined(local: &str) -> (Node, Node) {
    let (a, b) = two(local);
    a.change(|fib| fib.peers[0].path = Some(Path::direct(b.addr)));
    b.change(|fib| fib.peers[0].path = Some(Path::direct(a.addr)));
    (a, b)
}

fn frame(dst: MacAddr, src: MacAddr, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len - 14).map(|i| (i % 251) as u8).collect();
    build_frame(dst, src, VlanId::UNTAGGED, EXPERIMENTAL, &payload)
}

#[test]
fn frames_of_all_sizes_cross_unchanged_over_both_families() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (mut a, mut b) = two_joined(local);
        let largest = 8 * overlay_proto::wire::max_piece(SAFE_DATAGRAM);
        for len in [14, 60, 1160, 1161, 1514, 1518, 9014, largest] {
            let there = frame(MAC_B, MAC_A, len);
            a.says(&there);
            assert_eq!(b.hears(), there, "{len} bytes");
            let back = frame(MAC_A, MAC_B, len);
            b.says(&back);
            assert_eq!(a.hears(), back, "{len} bytes");
        }
        let broadcast = frame(MacAddr::BROADCAST, MAC_A, 100);
        a.says(&broadcast);
        assert_eq!(b.hears(), broadcast);
        a.no_drops();
        b.no_drops();
        // One punt said that the session works, from that address. There were no others.
        let Punt::Opened {
            session,
            peer,
            path,
            ..
        } = b.punted()
        else {
            panic!("no word of the session");
        };
        assert_eq!((session, peer), (SessionIndex(20), PeerId([1; 32])));
        assert_eq!(path, Path::direct(a.addr));
        assert!(b.punts.try_recv().is_err());
        let fib = a.fib.load();
        let sent = fib.peers[0]
            .counters
            .tx_frames
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(sent, 9);
        a.says(&frame(MAC_B, MAC_A, largest + 1));
        a.counted(DropReason::FrameTooLarge);
    }
}

#[test]
fn what_the_fib_does_not_know_is_punted_and_not_sent() {
    let (mut a, mut b) = two_joined("127.0.0.1:0");
    let cases = [
        (frame(STRANGER, MAC_A, 60), PuntReason::DestinationUnknown),
        (frame(MAC_B, STRANGER, 60), PuntReason::SourceUnknown),
    ];
    for (bytes, wanted) in cases {
        a.says(&bytes);
        match a.punted() {
            Punt::LocalFrame { net, reason, frame } => {
                assert_eq!((net, reason, &*frame), (NET, wanted, &*bytes));
            }
            other => panic!("{other:?}"),
        }
    }
    a.change(|fib| fib.peers[0].path = None);
    a.says(&frame(MAC_B, MAC_A, 60));
    let not_ready = PuntReason::PeerNotReady(PeerSlot(0));
    assert!(matches!(a.punted(), Punt::LocalFrame { reason, .. } if reason == not_ready));
    let had: Arc<[PeerId]> = [PeerId([9; 32])].into();
    a.change(|fib| fib.networks[0].punt_broadcast = Some(Arc::clone(&had)));
    a.says(&frame(MacAddr::BROADCAST, MAC_A, 60));
    assert!(matches!(a.punted(), Punt::LocalBroadcast { had: got, .. } if got == had));
    assert!(b.is_deaf());
    a.says(&[1, 2, 3]);
    a.counted(DropReason::MalformedFrame);
    a.says(&frame(MacAddr([1, 0x80, 0xc2, 0, 0, 0]), MAC_A, 60));
    a.counted(DropReason::BridgeReserved);
}

#[test]
fn a_broadcast_that_comes_again_and_again_is_told_to_the_slow_path_before_it_is_dropped() {
    let (mut a, _b) = two_joined("127.0.0.1:0");
    let broadcast = frame(MacAddr::BROADCAST, MAC_A, 60);
    for _ in 0..7 {
        a.says(&broadcast);
    }
    std::thread::sleep(Duration::from_millis(30));
    assert!(a.punts.try_recv().is_err(), "that is no loop yet");
    for _ in 0..40 {
        a.says(&broadcast);
    }
    let vlan = VlanId::UNTAGGED;
    assert!(matches!(a.punted(), Punt::GoesRound { net: NET, vlan: of } if of == vlan));
    a.counted(DropReason::GoesRound);
}

#[test]
fn trust_17_a_forged_source_and_a_late_frame_are_not_delivered() {
    let (mut a, mut b) = two_joined("127.0.0.1:0");
    // A believes that the unknown MAC is its own guest's; B does not.
    let local = MacEntry::Local(Arc::new(LocalMac::default()));
    a.change(|fib| drop(fib.networks[0].macs.insert(key(STRANGER), local)));
    let forged = frame(MAC_B, STRANGER, 1514);
    a.says(&forged);
    assert!(matches!(b.punted(), Punt::Opened { .. }));
    match b.punted() {
        Punt::PeerFrame {
            net,
            peer,
            reason,
            frame,
            ..
        } => {
            assert_eq!((net, peer), (NET, PeerId([1; 32])));
            assert_eq!((reason, &*frame), (PuntReason::SourceNotClaimed, &*forged));
        }
        other => panic!("{other:?}"),
    }
    // B's guest has moved away.
    b.change(|fib| drop(fib.networks[0].macs.remove(&key(MAC_B))));
    a.says(&frame(MAC_B, MAC_A, 60));
    let reason = match b.punted() {
        Punt::PeerFrame { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason, PuntReason::DestinationNotHere);
    assert!(b.is_deaf());
}

#[test]
fn control_and_clear_datagrams_go_to_the_slow_path() {
    let (a, mut b) = two("127.0.0.1:0");
    let handshake = [1, 2, 3];
    a.sender.send_to(b.addr, &handshake).unwrap();
    match b.punted() {
        Punt::Datagram { path, bytes } => {
            assert_eq!((path, &*bytes), (Path::direct(a.addr), &handshake[..]));
        }
        other => panic!("{other:?}"),
    }
    let mut inner = [0; InnerHeader::MAX_LEN];
    let len = InnerHeader::plain(InnerKind::Probe).write(&mut inner);
    let mut sealed = [0; 200];
    let len = a
        .session
        .seal_into(Lane(0), &inner[..len], b"probe", &mut sealed)
        .unwrap();
    for _ in 0..2 {
        a.sender.send_to(b.addr, &sealed[..len]).unwrap();
    }
    assert!(matches!(b.punted(), Punt::Opened { .. }));
    match b.punted() {
        Punt::Inner {
            session,
            header,
            body,
            ..
        } => {
            assert_eq!((session, header.kind), (SessionIndex(20), InnerKind::Probe));
            assert_eq!(&*body, b"probe");
        }
        other => panic!("{other:?}"),
    }
    b.counted(DropReason::Replayed);
    sealed[DataHeader::LEN + 3] ^= 1;
    sealed[15] = 99;
    a.sender.send_to(b.addr, &sealed[..len]).unwrap();
    b.counted(DropReason::BadTag);
    sealed[4] ^= 1;
    a.sender.send_to(b.addr, &sealed[..len]).unwrap();
    b.counted(DropReason::UnknownSession);
    assert!(matches!(b.punted(), Punt::Stray { path } if path == Path::direct(a.addr)));
    a.sender.send_to(b.addr, &[0x40; 20]).unwrap();
    b.counted(DropReason::UnknownDatagramKind);
    assert!(b.punts.try_recv().is_err());
}

#[test]
fn a_relayed_path_carries_frames_of_all_sizes() {
    let (mut a, mut b) = two("127.0.0.1:0");
    let relay_socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay_socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let relay_addr = relay_socket.local_addr().unwrap();
    let (of_a, of_b) = (AllocationId(100), AllocationId(200));
    let (key_a, key_b) = (RelayKey([1; 16]), RelayKey([2; 16]));
    let from_a = RelayRoute {
        own: of_a,
        peer: of_b,
    };
    a.change(|fib| {
        fib.peers[0].path = Some(Path::relayed(relay_addr, from_a));
        fib.relay_keys.insert(of_a, key_a);
    });
    b.change(|fib| fib.relay_keys.extend([(of_b, key_b)]));

    for (len, datagrams) in [(60, 1), (1514, 2)] {
        let bytes = frame(MAC_B, MAC_A, len);
        a.says(&bytes);
        for _ in 0..datagrams {
            let mut datagram = [0; 2048];
            let (len, from) = relay_socket.recv_from(&mut datagram).unwrap();
            assert_eq!(from, a.addr);
            assert!(len <= SAFE_DATAGRAM + relay::HEADER_LEN, "{len}");
            let (_, payload) = relay::unwrap(&datagram[..len], &key_a).unwrap();
            let mut onward = [0; 2048];
            let len = relay::wrap(from_a, &key_b, &datagram[payload], &mut onward).unwrap();
            relay_socket.send_to(&onward[..len], b.addr).unwrap();
        }
        assert_eq!(b.hears(), bytes);
    }
    let back = RelayRoute {
        own: of_b,
        peer: of_a,
    };
    let seen = Path::relayed(relay_addr, back);
    assert!(matches!(b.punted(), Punt::Opened { path, .. } if path == seen));

    // Not under B's key, and a relay within a relay.
    let mut bad = [0; 2048];
    let len = relay::wrap(from_a, &key_a, &[4; 40], &mut bad).unwrap();
    relay_socket.send_to(&bad[..len], b.addr).unwrap();
    b.counted(DropReason::RelayInvalid);
    a.change(|fib| fib.relay_keys.clear());
    a.says(&frame(MAC_B, MAC_A, 60));
    a.counted(DropReason::NoPath);
}

#[test]
fn taps_change_and_workers_stop_under_load() {
    let (a, mut b) = two_joined("127.0.0.1:0");
    let bytes = frame(MAC_B, MAC_A, 200);
    let load = std::thread::spawn({
        let mut guest = a.guest.try_clone().unwrap();
        let bytes = bytes.clone();
        move || {
            for _ in 0..2_000 {
                guest.write_batch(&[TxFrame::plain(&bytes); 8]);
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    });
    assert_eq!(b.hears(), bytes);
    let (mut guest, tap) = MemoryTap::pair().unwrap();
    let mut writer = TapWriter::new(vec![(NET, Box::new(tap.try_clone().unwrap()))]);
    b.pool.set_taps(0, vec![(NET, Box::new(tap))]);
    let mut batch = FrameBatch::default();
    eventually("a frame on the new tap", || {
        guest.read_batch(&mut batch).unwrap();
        batch
            .frames()
            .find(|frame| frame.bytes == bytes)
            .map(|_| ())
    });
    b.pool.stop();
    load.join().unwrap();
    while guest.read_batch(&mut batch).unwrap() > 0 {}
    writer.write(NET, &bytes).unwrap();
    assert_eq!(guest.read_batch(&mut batch).unwrap(), 1);
    assert_eq!(writer.write(NetIndex(9), &bytes), Err(DropReason::TapError));
    a.pool.set_taps(0, Vec::new());
    a.pool.stop();
}
