//! Two nodes that shake hands over a network that loses, repeats, delays and damages, and that
//! restart.
//!
//! The oracle: no datagram opens twice or changed, the bounds hold, timers move on, and once the
//! network is good again both ends talk.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nat_traversal::entropy::SeededEntropy;
use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::handshake::{PeerVerifier, VerifiedPeer, static_public};
use overlay_proto::ids::{NetworkId, OverlayId, PeerId};
use overlay_proto::membership::OverlaySecret;
use overlay_proto::session::Suite;
use overlay_proto::time::UnixTime;
use overlay_proto::tunnels::{MAX_SESSIONS, Tunnels, TunnelsConfig};
use overlay_proto::wire::{DataHeader, DatagramKind, Lane};
use zeroize::Zeroizing;

use crate::Seen;
use crate::input::Input;

const NETWORK: NetworkId = NetworkId([0x1a; 32]);
const WALL: UnixTime = UnixTime(1_800_000_000);
const MAX_OPERATIONS: usize = 60;
/// Datagrams kept to be delivered again.
const MAX_SENT: usize = 256;

/// A chain is a PeerId and a signed static key is the bare key: certificates have their own target.
struct Trusting;

impl PeerVerifier for Trusting {
    fn verify(
        &self,
        chain: &[u8],
        signed_static: &[u8],
        _wall: UnixTime,
    ) -> Result<VerifiedPeer, DropReason> {
        let refused = |_| DropReason::CertificateRefused;
        Ok(VerifiedPeer {
            peer: PeerId(chain.try_into().map_err(refused)?),
            static_key: signed_static.try_into().map_err(refused)?,
            networks: vec![NETWORK],
        })
    }
}

const fn peer(n: usize) -> PeerId {
    PeerId([n as u8 + 1; 32])
}

const fn secret(n: usize) -> [u8; 32] {
    [0x51 + n as u8; 32]
}

fn path(n: usize) -> Path {
    Path::direct(([192, 0, 2, n as u8 + 1], 4000).into())
}

struct World {
    nodes: [Tunnels; 2],
    sent: Vec<(usize, Vec<u8>)>,
    waiting: Vec<(usize, Vec<u8>)>,
    opened: HashSet<Vec<u8>>,
    chance: SeededEntropy,
    start: Instant,
    now: Instant,
    incarnation: u32,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            nodes: [0, 1].map(|n| node(n, n as u32 + 1, 0)),
            sent: Vec::new(),
            waiting: Vec::new(),
            opened: HashSet::new(),
            chance: SeededEntropy::new(5),
            start,
            now: start,
            incarnation: 2,
        }
    }

    fn wall(&self) -> UnixTime {
        UnixTime(WALL.0 + (self.now - self.start).as_secs())
    }

    fn connect(&mut self, n: usize) {
        let (wall, other) = (self.wall(), 1 - n);
        let key = static_public(&secret(other));
        self.nodes[n].connect(
            self.now,
            wall,
            &mut self.chance,
            peer(other),
            key,
            &[path(other)],
        );
    }

    /// Collects what the nodes want to send.
    fn collect(&mut self, seen: &mut Seen) {
        for n in 0..2 {
            while let Some(transmit) = self.nodes[n].poll_transmit() {
                assert_eq!(transmit.path, path(1 - n), "to nobody else");
                self.waiting.push((1 - n, transmit.bytes));
            }
            while let Some(event) = self.nodes[n].poll_event() {
                seen.note(&std::mem::discriminant(&event));
            }
            assert!(self.nodes[n].sessions().count() <= 4.min(MAX_SESSIONS));
        }
        for datagram in &self.waiting {
            if self.sent.len() < MAX_SENT {
                self.sent.push(datagram.clone());
            }
        }
    }

    fn frame(&mut self, from: usize, seen: &mut Seen) {
        let Some(session) = self.nodes[from].current(peer(1 - from)).cloned() else {
            return;
        };
        let mut out = vec![0; 200];
        let result = session.seal_into(Lane(0), b"inner", b"body", &mut out);
        seen.result(&result);
        if let Ok(len) = result {
            out.truncate(len);
            self.waiting.push((1 - from, out));
        }
    }

    fn deliver(&mut self, to: usize, bytes: &[u8], seen: &mut Seen) {
        let from = path(1 - to);
        let wall = self.wall();
        let result = match DatagramKind::parse(bytes) {
            Ok(DatagramKind::Data) => self.open(to, bytes),
            _ => self.nodes[to].handle_datagram(
                self.now,
                wall,
                &mut self.chance,
                &Trusting,
                bytes,
                from,
            ),
        };
        seen.result(&result);
    }

    fn open(&mut self, to: usize, bytes: &[u8]) -> Result<(), DropReason> {
        let header = DataHeader::parse(bytes)?;
        let mut copy = bytes.to_vec();
        let session = self.nodes[to]
            .sessions()
            .find(|session| session.local_index == header.receiver)
            .cloned()
            .ok_or(DropReason::UnknownSession)?;
        session.open_in_place(&header, &mut copy)?;
        assert!(self.opened.insert(bytes.to_vec()), "opened twice");
        if session.awaits_confirmation() {
            self.nodes[to].handle_opened(self.now, session.local_index, path(1 - to), bytes.len());
        }
        Ok(())
    }

    fn pass(&mut self, duration: Duration, seen: &mut Seen) {
        let end = self.now + duration;
        for turn in 0.. {
            let due = self.nodes.iter().filter_map(Tunnels::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            assert!(turn < 10_000, "a timer does not move on");
            self.now = self.now.max(due);
            let wall = self.wall();
            for node in &mut self.nodes {
                node.handle_timeout(self.now, wall, &mut self.chance);
            }
            self.collect(seen);
            self.waiting.truncate(64);
        }
        self.now = end;
    }

    /// A good network: everything arrives, at once.
    fn settle(&mut self, seen: &mut Seen) {
        for _ in 0..200 {
            self.collect(seen);
            if self.waiting.is_empty() {
                return;
            }
            for (to, bytes) in std::mem::take(&mut self.waiting) {
                self.deliver(to, &bytes, seen);
            }
        }
        panic!("two nodes that never stop talking");
    }
}

fn node(n: usize, incarnation: u32, last_timestamp: u64) -> Tunnels {
    let config = TunnelsConfig {
        me: peer(n),
        overlay: OverlayId([9; 32]),
        overlay_secret: OverlaySecret::from_bytes([8; 32]),
        psk_root_version: 1,
        revocation_number: 0,
        static_secret: Zeroizing::new(secret(n)),
        chain: peer(n).0.to_vec(),
        signed_static: static_public(&secret(n)).to_vec(),
        networks: vec![NETWORK],
        suites: Suite::ALL,
        incarnation,
    };
    Tunnels::new(config, last_timestamp)
}

pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut world = World::new();
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        operate(&mut world, &mut input, &mut seen);
        world.collect(&mut seen);
    }
    // Whatever happened: over a good network, a restart of one end makes both talk.
    world.waiting.clear();
    world.pass(Duration::from_secs(200), &mut seen);
    world.connect(0);
    world.settle(&mut seen);
    for n in 0..2 {
        assert!(world.nodes[n].current(peer(1 - n)).is_some(), "node {n}");
    }
    let before = world.opened.len();
    world.frame(0, &mut seen);
    world.frame(1, &mut seen);
    world.settle(&mut seen);
    assert!(world.opened.len() >= before + 2, "frames pass both ways");
    seen.number()
}

fn operate(world: &mut World, input: &mut Input<'_>, seen: &mut Seen) {
    match input.below(12) {
        0 => world.connect(input.below(2)),
        1..=4 if !world.waiting.is_empty() => {
            let at = usize::from(input.u8()) % world.waiting.len();
            let (to, bytes) = world.waiting.remove(at);
            world.deliver(to, &bytes, seen);
        }
        5 if !world.waiting.is_empty() => {
            let at = usize::from(input.u8()) % world.waiting.len();
            world.waiting.remove(at);
        }
        6 if !world.sent.is_empty() => {
            // Again, perhaps damaged.
            let at = usize::from(input.u16()) % world.sent.len();
            let (to, mut bytes) = world.sent[at].clone();
            if input.bool() {
                let place = usize::from(input.u16()) % bytes.len();
                bytes[place] ^= 1 << input.below(8);
            }
            world.deliver(to, &bytes, seen);
        }
        7 => world.pass(Duration::from_millis(u64::from(input.u16())), seen),
        8 => world.frame(input.below(2), seen),
        9 => {
            let n = input.below(2);
            world.nodes[n].close(world.now, peer(1 - n));
        }
        10 => {
            let n = input.below(2);
            let wanted = input.bool();
            world.nodes[n].set_wanted(world.now, peer(1 - n), wanted);
        }
        11 => {
            let n = input.below(2);
            world.incarnation += 1;
            let last = world.nodes[n].last_timestamp();
            world.nodes[n] = node(n, world.incarnation, last);
        }
        _ => {}
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let plain = vec![0, 0, 1, 0, 1, 0, 1, 0, 8, 0, 1, 0, 8, 1, 1, 0];
    let both = vec![0, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 7, 0, 200, 8, 0, 1, 0];
    let restart = [plain.clone(), vec![11, 1, 0, 1, 1, 0, 1, 0, 8, 0, 1, 0]].concat();
    let rekey = [
        plain.clone(),
        vec![7, 0xff, 0xff, 7, 0xff, 0xff, 1, 0, 1, 0],
    ]
    .concat();
    let again = [plain.clone(), vec![6, 0, 0, 0, 6, 0, 1, 1, 0, 20, 3]].concat();
    vec![plain, both, restart, rekey, again]
}
