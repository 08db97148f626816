//! A hostile member: it has the keys and the certificate of a real member, keeps its sessions alive as a node does, and says in them
//! what no node would (`hostile/attacks.rs`).
//!
//! It is made of the real machines for handshakes, sessions and channels. It has no directory, no guests and no fast path. It
//! lies on the internet, lays its card down at the bootstrap, and answers whoever dials it.

mod attacks;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use control_proto::messages::Request;
use nat_traversal::agent::ProbeMessage;
use nat_traversal::candidate::{Candidate, CandidateKind};
use nat_traversal::path::Path;
use node_core::node::tick::Tick;
use overlay_proto::directory::{
    Card, DirectoryMessage, Presence, RosterEntry, Signed, SignedClaim, SignedRosterEntry,
    VerifiedClaim, seal_card,
};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::handshake::static_public;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    Invite, MemberVerifier, Membership, NetworkSecret, NodeKey, Revocations, SignedStatic,
    StaticBinding, rendezvous_blind,
};
use overlay_proto::session::Suite;
use overlay_proto::switching::MacKey;
use overlay_proto::tunnels::{TunnelEvent, Tunnels, TunnelsConfig};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};
use overlay_proto::wire::{
    DataHeader, DatagramKind, InnerHeader, InnerKind, Lane, ReliableChannel, sizes,
};
use overlay_proto::{Entropy, SeededEntropy};
use zeroize::Zeroizing;

use super::{PORT, Terms, World};
use crate::net::random::stream;
use crate::net::topology::{AccessBehaviour, HostId, Net};

/// The lane that it seals on.
const LANE: Lane = Lane(0);

/// How often it lays its card down.
const CARD_EVERY: Duration = Duration::from_secs(200);

/// Datagrams and replaced claims that it keeps to send them again.
const KEPT: usize = 64;

/// Claims of others that it knows, at most.
const CLAIMS: usize = 4_096;

/// A member that it talks to.
struct Talk {
    channel: ReliableChannel,
    /// Where it was heard last.
    path: Path,
}

/// What it has seen and may use.
#[derive(Default)]
struct Memory {
    /// The newest claim of each MAC. Bound: [`CLAIMS`].
    claims: BTreeMap<MacKey, VerifiedClaim>,
    /// Claims that others have replaced, what members said of themselves, messages with documents of the authority, and datagrams that
    /// it has sent. Bound of each: [`KEPT`].
    replaced: VecDeque<SignedClaim>,
    entries: VecDeque<SignedRosterEntry>,
    documents: VecDeque<Vec<u8>>,
    sent: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// The hostile member of a world.
pub struct Hostile {
    key: NodeKey,
    membership: Membership,
    /// Where it listens.
    at: SocketAddr,
    tunnels: Tunnels,
    verifier: MemberVerifier,
    signed_static: Vec<u8>,
    static_public: [u8; 32],
    entropy: SeededEntropy,
    /// Bound: the members of the world.
    talks: BTreeMap<PeerId, Talk>,
    memory: Memory,
    /// Whose MAC it wants to take, as soon as it knows the claim. Bound: the attacks.
    wanted: Vec<MacAddr>,
    sequence: u64,
    card_at: Duration,
    out: Vec<(SocketAddr, Vec<u8>)>,
}

impl Hostile {
    /// One with the keys of this member.
    fn new(
        key: NodeKey,
        membership: Membership,
        at: SocketAddr,
        tick: Tick,
        mut entropy: SeededEntropy,
    ) -> Result<Self> {
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        let public = static_public(&secret);
        let binding = StaticBinding {
            public,
            sequence: 1,
            not_after: tick.wall.plus(Duration::from_secs(365 * 86_400)),
        };
        let signed = SignedStatic::sign(&key, membership.overlay(), &binding).encode();
        let networks: Vec<_> = membership.networks().iter().map(|one| one.id).collect();
        let config = TunnelsConfig {
            me: key.peer_id(),
            overlay: membership.overlay(),
            overlay_secret: membership.overlay_secret().clone(),
            psk_root_version: membership.roots().newest().version,
            revocation_number: Revocations::default().number().0,
            static_secret: Zeroizing::new(secret),
            chain: membership.chain().context("no certificate")?.encode(),
            signed_static: signed.clone(),
            networks: networks.clone(),
            suites: [Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            incarnation: entropy.next_u32(),
        };
        Ok(Self {
            tunnels: Tunnels::new(config, 0),
            verifier: MemberVerifier::new(membership.roots().clone(), networks),
            key,
            membership,
            at,
            signed_static: signed,
            static_public: public,
            entropy,
            talks: BTreeMap::new(),
            memory: Memory::default(),
            wanted: Vec::new(),
            sequence: 0,
            card_at: Duration::ZERO,
            out: Vec::new(),
        })
    }

    /// Its card for a network, sealed, and where it is laid down.
    fn card(&mut self, network: &NetworkSecret, tick: Tick) -> Option<([u8; 32], Vec<u8>)> {
        let overlay = self.membership.overlay();
        let chain = self.membership.chain_for(&network.id)?.encode();
        self.sequence += 1;
        let card = Card {
            entry: Signed::seal(&self.entry(network, tick)?, &self.key, &overlay).ok()?,
            chain,
            static_document: self.signed_static.clone(),
            candidates: vec![Candidate {
                kind: CandidateKind::Host,
                addr: self.at,
                allocation: None,
                relay: None,
            }],
            sequence: self.sequence,
            name: String::new(),
        };
        let card = Signed::seal(&card, &self.key, &overlay).ok()?;
        let sealed = seal_card(&card, &network.epoch_key, &mut self.entropy).ok()?;
        Some((rendezvous_blind(&network.epoch_key), sealed))
    }

    fn entry(&self, network: &NetworkSecret, tick: Tick) -> Option<RosterEntry> {
        Some(RosterEntry {
            network: network.id,
            node: self.key.peer_id(),
            incarnation: tick.wall.0,
            certificate: self.membership.chain_for(&network.id)?.hash(),
            static_key: self.static_public,
            addresses: Vec::new(),
            presence: Presence::Joined,
        })
    }

    /// A datagram has come. What is malformed is nobody's loss.
    fn handle(&mut self, tick: Tick, from: SocketAddr, bytes: &mut [u8]) {
        let path = Path::direct(from);
        let _ = match DatagramKind::parse(bytes) {
            Ok(DatagramKind::Data) => self.open(tick, path, bytes),
            Ok(_) => {
                let (entropy, verifier) = (&mut self.entropy, &self.verifier);
                self.tunnels
                    .handle_datagram(tick.now, tick.wall, entropy, verifier, bytes, path)
            }
            Err(reason) => Err(reason),
        };
        self.settle(tick);
    }

    fn open(&mut self, tick: Tick, path: Path, bytes: &mut [u8]) -> Result<(), DropReason> {
        let header = DataHeader::parse(bytes)?;
        let mut sessions = self.tunnels.sessions();
        let session = sessions.find(|one| one.local_index == header.receiver);
        let session = session.cloned().ok_or(DropReason::UnknownSession)?;
        drop(sessions);
        let received = bytes.len();
        let plaintext = session.open_in_place(&header, bytes)?;
        let peer = session.peer;
        self.tunnels
            .handle_opened(tick.now, session.local_index, path, received);
        self.tunnels.set_path(peer, path);
        let number = self.entropy.next_u32();
        let talk = self.talks.entry(peer).or_insert_with(|| Talk {
            channel: ReliableChannel::new(number),
            path,
        });
        talk.path = path;
        let (inner, _) = InnerHeader::parse(plaintext)?;
        let body = plaintext.get(inner.encoded_len()..).unwrap_or_default();
        match inner.kind {
            InnerKind::Probe => {
                if let Ok(ProbeMessage::Challenge { id, .. }) = ProbeMessage::decode(body) {
                    let observed = Some(path.remote);
                    let answer = ProbeMessage::Answer { id, observed };
                    self.seal(
                        peer,
                        &InnerHeader::plain(InnerKind::Probe),
                        &answer.encode(0),
                    );
                }
            }
            InnerKind::Control => {
                if let Some(message) = talk.channel.handle_packet(tick.now, body)? {
                    self.learn(tick, &message);
                }
            }
            InnerKind::KeepAlive | InnerKind::Frame | InnerKind::Piece(_) => {}
        }
        Ok(())
    }

    /// What others claim and say of themselves, and documents that they hand on.
    fn learn(&mut self, tick: Tick, message: &[u8]) {
        let (network, body) = match PeerMessage::decode(message) {
            Ok(PeerMessage::Directory { network, body }) => (network, body),
            Ok(PeerMessage::Epoch { .. } | PeerMessage::ListPage(_)) => {
                return keep(&mut self.memory.documents, message.to_vec());
            }
            _ => return,
        };
        let mut networks = self.membership.networks().iter();
        let Some(id) = networks.find(|one| NetworkTag::from(&one.id) == network) else {
            return;
        };
        let id = id.id;
        let claims = match DirectoryMessage::decode(body) {
            Ok(DirectoryMessage::Claims(claims)) => claims,
            Ok(DirectoryMessage::Answer { claim, .. }) => claim.into_iter().collect(),
            Ok(DirectoryMessage::Roster(entries)) => {
                for entry in entries {
                    keep(&mut self.memory.entries, entry);
                }
                return;
            }
            _ => return,
        };
        let overlay = self.membership.overlay();
        for signed in claims {
            let Ok(claim) = VerifiedClaim::open(&signed, &overlay, &id, u64::MAX) else {
                continue;
            };
            let key = claim.claim.key();
            let newer = self
                .memory
                .claims
                .get(&key)
                .is_none_or(|old| old.rank < claim.rank);
            if !newer
                || (self.memory.claims.len() >= CLAIMS && !self.memory.claims.contains_key(&key))
            {
                continue;
            }
            if let Some(old) = self.memory.claims.insert(key, claim) {
                keep(&mut self.memory.replaced, old.signed);
            }
            if let Some(place) = self.wanted.iter().position(|mac| *mac == key.mac) {
                self.wanted.swap_remove(place);
                self.take(tick, key, 1);
            }
        }
    }

    /// Seals `body` to `peer`, if there is a session.
    fn seal(&mut self, peer: PeerId, header: &InnerHeader, body: &[u8]) {
        let Some((session, talk)) = self.tunnels.current(peer).zip(self.talks.get(&peer)) else {
            return;
        };
        let mut inner = [0; InnerHeader::MAX_LEN];
        let len = header.write(&mut inner);
        let mut out = vec![0; sizes::MAX_UDP_PAYLOAD];
        let inner = inner.get(..len).unwrap_or_default();
        if let Ok(len) = session.seal_into(LANE, inner, body, &mut out) {
            out.truncate(len);
            keep(&mut self.memory.sent, (talk.path.remote, out.clone()));
            self.out.push((talk.path.remote, out));
        }
    }

    /// Those with whom there is a session.
    fn peers(&self) -> Vec<PeerId> {
        let peers = self.talks.keys().copied();
        peers
            .filter(|peer| self.tunnels.current(*peer).is_some())
            .collect()
    }

    /// Something for a directory, on the channel.
    fn say(
        &mut self,
        tick: Tick,
        peer: PeerId,
        network: &NetworkSecret,
        message: &DirectoryMessage,
    ) {
        let Ok(body) = message.encode() else { return };
        let message = PeerMessage::Directory {
            network: NetworkTag::from(&network.id),
            body: &body,
        };
        if let Some(talk) = self.talks.get_mut(&peer) {
            // A full channel is full.
            let _ = talk.channel.send(tick.now, message.encode());
        }
    }

    /// Handshakes, and what waits on channels.
    fn settle(&mut self, tick: Tick) {
        while let Some(event) = self.tunnels.poll_event() {
            if let TunnelEvent::Usable { peer, path, .. } = event {
                let number = self.entropy.next_u32();
                let talk = Talk {
                    channel: ReliableChannel::new(number),
                    path,
                };
                self.talks.insert(peer, talk);
                self.tunnels.set_path(peer, path);
                self.present(tick, peer);
            }
        }
        while let Some(transmit) = self.tunnels.poll_transmit() {
            self.out.push((transmit.path.remote, transmit.bytes));
        }
        for peer in self.peers() {
            let next = |talk: &mut Talk| talk.channel.poll_transmit(tick.now);
            while let Some(packet) = self.talks.get_mut(&peer).and_then(next) {
                self.seal(peer, &InnerHeader::plain(InnerKind::Control), &packet);
            }
            let failed = |talk: &mut Talk| talk.channel.poll_failed();
            while self.talks.get_mut(&peer).and_then(failed).is_some() {}
        }
    }

    /// Says that it is a member.
    fn present(&mut self, tick: Tick, peer: PeerId) {
        for network in self.membership.networks().to_vec() {
            let overlay = self.membership.overlay();
            let entry = self.entry(&network, tick);
            let entry = entry.and_then(|entry| Signed::seal(&entry, &self.key, &overlay).ok());
            if let Some(entry) = entry {
                self.say(tick, peer, &network, &DirectoryMessage::Roster(vec![entry]));
            }
        }
    }

    fn due(&self) -> Option<std::time::Instant> {
        let in_session = self.talks.iter();
        let in_session = in_session.filter(|(peer, _)| self.tunnels.current(**peer).is_some());
        let channels = in_session.filter_map(|(_, talk)| talk.channel.poll_timeout());
        self.tunnels
            .poll_timeout()
            .into_iter()
            .chain(channels)
            .min()
    }
}

/// Keeps the last [`KEPT`].
fn keep<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() >= KEPT {
        all.pop_front();
    }
    all.push_back(one);
}

impl World {
    /// A hostile member on the internet, which is in these networks and has the receipt of its invite.
    ///
    /// # Errors
    /// The address is somebody's, or there is no such network.
    pub fn add_hostile(
        &mut self,
        name: &str,
        ip: IpAddr,
        access: AccessBehaviour,
        networks: &[usize],
    ) -> Result<HostId> {
        let around = &mut self.around;
        let id = around.net.add_host(name)?;
        around.net.attach(id, Net::INTERNET, access)?;
        around.net.add_address(id, Net::INTERNET, ip)?;
        let mut entropy = stream(self.seed, &format!("hostile {name}"));
        let key = NodeKey::generate(&mut entropy);
        let tick = around.tick(0);
        let invite = self.authority.invite(&Terms::of(networks), tick.wall)?;
        let mut membership = Invite::parse(&invite)?.accept(&key, tick.wall)?;
        let chain = membership.chain().context("no certificate")?.clone();
        let witness = self.control.all.first_mut().context("no bootstrap")?;
        let shown = (membership.roots(), &chain);
        let receipt = witness.receipt_for(around, key.peer_id(), shown)?;
        let receipt = receipt.context("its certificate has one")?;
        membership.take_receipt(chain.with_receipt(receipt))?;
        let at = SocketAddr::new(ip, PORT);
        let hostile = Hostile::new(key, membership, at, tick, entropy)?;
        self.hostile.insert(id, hostile);
        self.note_due(id);
        Ok(id)
    }

    /// Lets a hostile member do something.
    pub fn attack(&mut self, id: HostId, how: impl FnOnce(&mut Hostile, Tick)) {
        let tick = self.around.tick(0);
        if let Some(hostile) = self.hostile.get_mut(&id) {
            how(hostile, tick);
            hostile.settle(tick);
        }
        self.send_hostile(id);
    }

    /// The name of a hostile member.
    pub(super) fn hostile_peer(&self, id: HostId) -> Option<PeerId> {
        Some(self.hostile.get(&id)?.key.peer_id())
    }

    pub(super) fn hostile_due(&self, id: HostId) -> Option<Duration> {
        let hostile = self.hostile.get(&id)?;
        let clock = &self.around.clock;
        let due = hostile.due().map(|due| clock.time_of(due));
        let due = due.into_iter().chain([hostile.card_at]).min()?;
        // Time passes between two turns.
        Some(due.max(clock.now() + Duration::from_micros(50)))
    }

    /// A datagram for a hostile member. `false`: there is none.
    pub(super) fn arrive_hostile(
        &mut self,
        id: HostId,
        from: SocketAddr,
        bytes: &mut [u8],
    ) -> bool {
        let tick = self.around.tick(0);
        let Some(hostile) = self.hostile.get_mut(&id) else {
            return false;
        };
        hostile.handle(tick, from, bytes);
        self.send_hostile(id);
        true
    }

    /// Its timers. `false`: there is none.
    pub(super) fn turn_hostile(&mut self, id: HostId) -> bool {
        let (tick, now) = (self.around.tick(0), self.around.clock.now());
        let Some(hostile) = self.hostile.get_mut(&id) else {
            return false;
        };
        let entropy = &mut hostile.entropy;
        hostile.tunnels.handle_timeout(tick.now, tick.wall, entropy);
        if hostile.card_at <= now {
            hostile.card_at = now + CARD_EVERY;
            let peer = hostile.key.peer_id();
            for network in hostile.membership.networks().to_vec() {
                let Some(chain) = hostile.membership.chain_for(&network.id).cloned() else {
                    continue;
                };
                if let Some((rendezvous, card)) = hostile.card(&network, tick) {
                    let shown = (hostile.membership.roots(), &chain);
                    for one in &mut self.control.all {
                        let card = card.clone();
                        let request = Request::Register { rendezvous, card };
                        one.plant_card(&self.around, peer, shown, request);
                    }
                }
            }
        }
        hostile.settle(tick);
        self.send_hostile(id);
        true
    }

    fn send_hostile(&mut self, id: HostId) {
        let Some(hostile) = self.hostile.get_mut(&id) else {
            return;
        };
        let (now, from) = (self.around.clock.now(), hostile.at);
        for (to, bytes) in std::mem::take(&mut hostile.out) {
            // What is lost is lost.
            let _ = self.around.net.send(now, id, from, to, bytes);
        }
        self.note_due(id);
    }
}
