//! The harness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::entropy::{Entropy, SeededEntropy};
use nat_traversal::path::Path;
use zeroize::Zeroizing;

use crate::drop_reason::DropReason;
use crate::handshake::{PeerVerifier, VerifiedPeer, static_public};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::OverlaySecret;
use crate::session::{Session, Suite};
use crate::time::UnixTime;
use crate::tunnels::{TunnelEvent, Tunnels, TunnelsConfig};
use crate::wire::{DataHeader, DatagramKind, InnerHeader, InnerKind, Lane, Selector};

pub(super) const WALL: UnixTime = UnixTime(1_700_000_000);
pub(super) const LAB: NetworkId = NetworkId([0x1a; 32]);
pub(super) const HOME: NetworkId = NetworkId([0x40; 32]);
const CHAIN_MARK: u8 = 0xc5;

/// In these tests a chain is a mark and a PeerId, and a signed static key is the bare key. All
/// chains admit to `networks`.
pub(super) struct Marks {
    pub(super) networks: Vec<NetworkId>,
}

impl PeerVerifier for Marks {
    fn verify(
        &self,
        chain: &[u8],
        signed_static: &[u8],
        _wall: UnixTime,
    ) -> Result<VerifiedPeer, DropReason> {
        let refused = || DropReason::CertificateRefused;
        let (&mark, rest) = chain.split_first().ok_or_else(refused)?;
        if mark != CHAIN_MARK {
            return Err(DropReason::CertificateRefused);
        }
        Ok(VerifiedPeer {
            peer: PeerId(*rest.first_chunk().ok_or_else(refused)?),
            static_key: signed_static.try_into().map_err(|_| refused())?,
            networks: self.networks.clone(),
        })
    }
}

pub(super) fn chain_of(peer: PeerId) -> Vec<u8> {
    let mut chain = vec![CHAIN_MARK];
    chain.extend_from_slice(&peer.0);
    chain
}

/// Node `n`'s PeerId: higher for higher `n`.
pub(super) fn peer_id(n: usize) -> PeerId {
    PeerId([n as u8 + 1; 32])
}

pub(super) fn static_secret(n: usize) -> [u8; 32] {
    [0x51_u8.wrapping_add(n as u8); 32]
}

pub(super) fn static_key(n: usize) -> [u8; 32] {
    static_public(&static_secret(n))
}

pub(super) fn addr(n: usize) -> SocketAddr {
    format!("192.0.{n}.1:4000").parse().unwrap()
}

pub(super) fn config(n: usize, incarnation: u32) -> TunnelsConfig {
    TunnelsConfig {
        me: peer_id(n),
        overlay: OverlayId([9; 32]),
        overlay_secret: OverlaySecret::from_bytes([8; 32]),
        psk_root_version: 1,
        revocation_number: 0,
        static_secret: Zeroizing::new(static_secret(n)),
        chain: chain_of(peer_id(n)),
        signed_static: static_key(n).to_vec(),
        networks: vec![LAB],
        suites: Suite::ALL,
        incarnation,
    }
}

/// A node and what it has heard.
pub(super) struct Node {
    pub(super) tunnels: Tunnels,
    pub(super) events: Vec<TunnelEvent>,
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) drops: Vec<DropReason>,
}

impl Node {
    pub(super) fn new(config: TunnelsConfig, last_timestamp: u64) -> Self {
        Self {
            tunnels: Tunnels::new(config, last_timestamp),
            events: Vec::new(),
            bodies: Vec::new(),
            drops: Vec::new(),
        }
    }

    pub(super) fn usable(&self) -> usize {
        let usable = |event: &&TunnelEvent| matches!(event, TunnelEvent::Usable { .. });
        self.events.iter().filter(usable).count()
    }

    pub(super) fn rekeyed(&self) -> usize {
        let rekeyed = |event: &&TunnelEvent| matches!(event, TunnelEvent::Rekeyed { .. });
        self.events.iter().filter(rekeyed).count()
    }
}

/// A datagram under way.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) at: Instant,
    pub(super) to: usize,
    pub(super) from: Path,
    pub(super) bytes: Vec<u8>,
}

/// The two nodes and the network. Probabilities are in per mille.
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) latency: Duration,
    pub(super) jitter_ms: u64,
    pub(super) loss: u64,
    pub(super) duplication: u64,
    pub(super) network: SeededEntropy,
    pub(super) keys: SeededEntropy,
    pub(super) flights: Vec<Flight>,
    /// Every datagram ever sent.
    pub(super) sent: Vec<Flight>,
    pub(super) verifier: Marks,
}

impl Pair {
    #[allow(clippy::disallowed_methods)]
    pub(super) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            nodes: [Node::new(config(0, 100), 0), Node::new(config(1, 200), 0)],
            now,
            start: now,
            latency: Duration::from_millis(20),
            jitter_ms: 0,
            loss: 0,
            duplication: 0,
            network: SeededEntropy::new(seed),
            keys: SeededEntropy::new(!seed),
            flights: Vec::new(),
            sent: Vec::new(),
            verifier: Marks {
                networks: vec![LAB, HOME],
            },
        }
    }

    pub(super) fn wall(&self) -> UnixTime {
        WALL.plus(self.now - self.start)
    }

    /// Node `n` dials the other one.
    pub(super) fn connect(&mut self, n: usize) {
        let to = 1 - n;
        self.connect_with(n, peer_id(to), static_key(to), &[Path::direct(addr(to))]);
    }

    pub(super) fn connect_with(&mut self, n: usize, peer: PeerId, key: [u8; 32], paths: &[Path]) {
        let wall = self.wall();
        self.nodes[n]
            .tunnels
            .connect(self.now, wall, &mut self.keys, peer, key, paths);
        self.collect();
    }

    pub(super) fn current(&self, n: usize) -> Option<&Arc<Session>> {
        self.nodes[n].tunnels.current(peer_id(1 - n))
    }

    /// Node `n` sends a frame to the other one with what it has.
    pub(super) fn send(&mut self, n: usize, body: &[u8]) {
        let session = Arc::clone(self.current(n).expect("a session"));
        let mut inner = [0; InnerHeader::MAX_LEN];
        let inner_len = InnerHeader::frame(Selector(1)).write(&mut inner);
        let mut out = vec![0; 2000];
        let len = session
            .seal_into(Lane(1), &inner[..inner_len], body, &mut out)
            .unwrap();
        out.truncate(len);
        self.launch(n, out);
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.network.next_u64() % 1000 < per_mille
    }

    pub(super) fn launch(&mut self, n: usize, bytes: Vec<u8>) {
        let copies = 1 + usize::from(self.chance(self.duplication));
        for _ in 0..copies {
            let extra = self.network.next_u64() % (self.jitter_ms + 1);
            let flight = Flight {
                at: self.now + self.latency + Duration::from_millis(extra),
                to: 1 - n,
                from: Path::direct(addr(n)),
                bytes: bytes.clone(),
            };
            self.sent.push(flight.clone());
            if !self.chance(self.loss) {
                self.flights.push(flight);
            }
        }
    }

    /// Takes what the machines have to say.
    pub(super) fn collect(&mut self) {
        for n in 0..2 {
            while let Some(event) = self.nodes[n].tunnels.poll_event() {
                self.nodes[n].events.push(event);
            }
            while let Some(transmit) = self.nodes[n].tunnels.poll_transmit() {
                self.launch(n, transmit.bytes);
            }
        }
    }

    /// Hands a datagram to node `n`.
    pub(super) fn deliver(&mut self, n: usize, bytes: &[u8], from: Path) -> Result<(), DropReason> {
        let outcome = if DatagramKind::parse(bytes) == Ok(DatagramKind::Data) {
            self.deliver_data(n, bytes, from)
        } else {
            let wall = self.wall();
            self.nodes[n].tunnels.handle_datagram(
                self.now,
                wall,
                &mut self.keys,
                &self.verifier,
                bytes,
                from,
            )
        };
        self.nodes[n].drops.extend(outcome.err());
        self.collect();
        outcome
    }

    /// As a worker does.
    fn deliver_data(&mut self, n: usize, bytes: &[u8], from: Path) -> Result<(), DropReason> {
        let node = &mut self.nodes[n];
        let header = DataHeader::parse(bytes)?;
        let session = node
            .tunnels
            .sessions()
            .find(|session| session.local_index == header.receiver)
            .cloned()
            .ok_or(DropReason::UnknownSession)?;
        let mut copy = bytes.to_vec();
        let text = session.open_in_place(&header, &mut copy)?;
        let (inner, body) = InnerHeader::parse(text)?;
        if inner.kind == InnerKind::Frame {
            node.bodies.push(body.to_vec());
        }
        if session.awaits_confirmation() {
            node.tunnels
                .handle_opened(self.now, session.local_index, from, bytes.len());
        }
        Ok(())
    }

    /// Lets `duration` pass.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.flights.iter().map(|flight| flight.at).min();
            let timers = self.nodes.iter().filter_map(|n| n.tunnels.poll_timeout());
            let next = timers.chain(arrival).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for n in 0..2 {
                let wall = self.wall();
                self.nodes[n]
                    .tunnels
                    .handle_timeout(self.now, wall, &mut self.keys);
            }
            self.collect();
            let now = self.now;
            let (due, later) = std::mem::take(&mut self.flights)
                .into_iter()
                .partition(|flight| flight.at <= now);
            self.flights = later;
            for flight in due {
                let _ = self.deliver(flight.to, &flight.bytes, flight.from);
            }
        }
        self.now = end;
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// The first datagram of `kind` that was sent to `to`.
    pub(super) fn first_sent(&self, kind: DatagramKind, to: usize) -> Vec<u8> {
        let is_it =
            |flight: &&Flight| flight.to == to && flight.bytes.first() == Some(&kind.byte());
        self.sent.iter().find(is_it).unwrap().bytes.clone()
    }

    /// Do frames cross in both directions?
    pub(super) fn assert_talks(&mut self) {
        for n in 0..2 {
            let before = self.nodes[1 - n].bodies.len();
            self.send(n, b"frame");
            self.run_ms(200);
            assert_eq!(self.nodes[1 - n].bodies.len(), before + 1, "from {n}");
        }
    }
}
