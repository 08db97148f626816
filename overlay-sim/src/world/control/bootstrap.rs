//! One bootstrap: whom it lets in, what it answers, its reflector and its relay.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use nat_traversal::reflector::{KIND_REQUEST, ReflectorLimiter};
use nat_traversal::relay::{KIND_ACK, KIND_BIND, KIND_RELAYED, RelayServer, RelayServerConfig};
use node_core::control::{BootstrapAddr, ControlEvent};
use node_core::questions::{Allocation, Failure, Outcome, Question};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    CLOCK_TOLERANCE, Chain, InviteId, InviteUses, NodeKey, Revocations, RootStore, SignedPart,
    SignedRevocations, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

use super::records::{Records, StoreMood};
use super::rendezvous::Rendezvous;
use crate::net::random::stream;
use crate::net::topology::{Delivery, HostId};
use crate::world::host::Host;
use crate::world::{Event, Surroundings};

/// UDP of reflector and relay, and where control connections go.
const DATA_PORT: u16 = 22_611;
const CONTROL_PORT: u16 = 22_612;

/// Envelopes that a bootstrap keeps to show them again.
const MAX_HEARD: usize = 64;

/// How a bootstrap is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    #[default]
    Well,
    /// It does what it is asked, and its answers get lost.
    Mute,
    /// Its disk does not take the use of an invite.
    FullDisk,
}

/// A control connection.
#[derive(Debug, Clone, Copy)]
struct Link {
    host: HostId,
    run: u32,
    invite: InviteId,
    until: UnixTime,
}

/// What a node shows when it dials.
struct Hello {
    chain: Chain,
    roots: RootStore,
    lists: Vec<SignedRevocations>,
}

/// A bootstrap.
pub(in crate::world) struct Bootstrap {
    pub(super) host: HostId,
    ips: [IpAddr; 2],
    name: PeerId,
    key: NodeKey,
    relay: RelayServer,
    limiter: ReflectorLimiter,
    entropy: SeededEntropy,
    /// Who is connected. Bound: the hosts.
    up: BTreeMap<PeerId, Link>,
    rendezvous: Rendezvous,
    records: Records,
    /// Bound: the invites that were issued.
    uses: BTreeMap<InviteId, InviteUses>,
    /// What members have shown: the documents, once there was one, and what is revoked.
    known: (Option<RootStore>, Revocations),
    /// At which own address whoever bound an allocation was heard. Bound: the hosts' bindings.
    ways: BTreeMap<SocketAddr, SocketAddr>,
    pub(in crate::world) mood: Mood,
    /// How many greetings it was asked to carry.
    pub(in crate::world) greetings: u64,
    /// From whom to whom envelopes went. Bound: [`MAX_HEARD`], the oldest out.
    heard: VecDeque<(PeerId, PeerId, Vec<u8>)>,
}

impl Bootstrap {
    pub(in crate::world) fn new(
        seed: u64,
        (host, ips): (HostId, [IpAddr; 2]),
        key: NodeKey,
        around: &Surroundings,
    ) -> Self {
        Self {
            host,
            ips,
            name: key.peer_id(),
            key,
            relay: RelayServer::new(RelayServerConfig::default()),
            limiter: ReflectorLimiter::new(around.clock.instant()),
            entropy: stream(seed, &format!("bootstrap {}", host.number())),
            up: BTreeMap::new(),
            rendezvous: Rendezvous::default(),
            records: Records::default(),
            uses: BTreeMap::new(),
            known: (None, Revocations::default()),
            ways: BTreeMap::new(),
            mood: Mood::Well,
            greetings: 0,
            heard: VecDeque::new(),
        }
    }

    pub(in crate::world) const fn peer(&self) -> PeerId {
        self.name
    }

    pub(in crate::world) const fn host(&self) -> HostId {
        self.host
    }

    /// Where it is dialled.
    pub(in crate::world) fn addr_of(ip: IpAddr, peer: PeerId) -> String {
        format!("/ip4/{ip}/tcp/{CONTROL_PORT}/p2p/{peer}")
    }

    fn addr(&self) -> BootstrapAddr {
        let [ip, _] = self.ips;
        BootstrapAddr::new(&Self::addr_of(ip, self.name))
    }

    /// How its DHT is from now on.
    pub(in crate::world) const fn set_store(&mut self, mood: StoreMood) {
        self.records.mood = mood;
    }

    /// From now on it shows cards that are old.
    pub(in crate::world) const fn show_first_cards(&mut self) {
        self.rendezvous.show_first();
    }

    /// Is this run of the host connected?
    pub(in crate::world) fn has(&self, host: &Host) -> bool {
        let link = self.up.get(&host.peer());
        link.is_some_and(|link| (link.host, link.run) == (host.id, host.run))
    }

    /// Is it connected, and is there a way?
    pub(super) fn is_reached(&self, around: &Surroundings, host: &Host) -> bool {
        self.has(host) && around.net.tcp_reachable(host.id, self.host)
    }

    /// Is the node named in a list that it has?
    pub(in crate::world) fn names(&self, peer: &PeerId) -> bool {
        self.known.1.names_node(*peer)
    }

    /// Somebody lays a card down without being connected: what one does who wants to be met.
    pub(in crate::world) fn plant_card(
        &mut self,
        now: Duration,
        (rendezvous, card): ([u8; 32], Vec<u8>),
        from: PeerId,
    ) {
        self.rendezvous.lay_down(now, rendezvous, from, card);
    }

    /// The receipt for somebody who shows these documents.
    pub(in crate::world) fn receipt_for(
        &mut self,
        roots: &RootStore,
        chain: &Chain,
        wall: UnixTime,
    ) -> Result<SignedPart> {
        self.take_roots(roots.clone());
        let receipt = self.receipt(chain, wall);
        Ok(receipt.context("the certificate does not count")??)
    }

    /// The host's connection is gone with its process.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.up.remove(&peer);
    }

    /// It restarts: its books stay, what it held in memory is gone.
    pub(in crate::world) fn restart(&mut self, around: &mut Surroundings) {
        for (_, Link { host, run, .. }) in std::mem::take(&mut self.up) {
            let event = ControlEvent::InfraDown { peer: self.name };
            let at = around.clock.now();
            around.queue.push(at, Event::Control { host, run, event });
        }
        self.rendezvous = Rendezvous::default();
        self.records = Records::default();
        self.relay = RelayServer::new(RelayServerConfig::default());
        self.ways.clear();
    }

    /// The host dials, or its connection is looked at.
    pub(super) fn dial(&mut self, around: &mut Surroundings, host: &mut Host) {
        let reachable = around.net.tcp_reachable(host.id, self.host);
        self.end_memberships(around);
        let peer = self.name;
        let event = match (self.has(host), reachable) {
            (true, true) => return,
            (true, false) => {
                self.up.remove(&host.peer());
                ControlEvent::InfraDown { peer }
            }
            (false, true) => match self.admit(around, host) {
                Some(event) => event,
                None => return,
            },
            (false, false) => ControlEvent::Unreachable {
                addr: self.addr(),
                reason: "no way".to_owned(),
            },
        };
        host.enter(around, |node, tick| node.handle_control_event(tick, event));
    }

    /// Both show each other what they hold; then the node is let in, the first time with the receipt, or is not.
    fn admit(&mut self, around: &mut Surroundings, host: &mut Host) -> Option<ControlEvent> {
        let running = host.running.as_ref()?;
        let hello = Hello {
            chain: Chain::decode(&running.gate.chain).ok()?,
            roots: running.gate.roots.clone(),
            lists: running.gate.held.lists().to_vec(),
        };
        let judged = self.judge(around, host.peer(), &hello);
        if self.mood == Mood::Mute {
            let (addr, reason) = (self.addr(), "no answer".to_owned());
            return Some(ControlEvent::Unreachable { addr, reason });
        }
        let ours = self.known.1.lists();
        let ours: Vec<_> = ours.iter().map(SignedRevocations::encode).collect();
        host.learn_lists(around, &ours);
        let wall = around.wall_of(host.ahead);
        let running = host.running.as_mut()?;
        let taken = judged.and_then(|receipt| running.gate.take_receipt(receipt, wall));
        if let Err(error) = taken {
            let (addr, reason) = (self.addr(), error.to_string());
            return Some(ControlEvent::Refused { addr, reason });
        }
        let chain = running.gate.chain.clone();
        let link = Link {
            host: host.id,
            run: host.run,
            invite: hello.chain.claimed_invite(),
            until: hello.chain.claimed_end(),
        };
        self.up.insert(host.peer(), link);
        let [ip, _] = self.ips;
        Some(ControlEvent::InfraUp {
            peer: self.name,
            remote: SocketAddr::new(ip, CONTROL_PORT),
            data_addrs: self.ips.map(|ip| SocketAddr::new(ip, DATA_PORT)).to_vec(),
            chain,
        })
    }

    /// The receipt, if the certificate has none yet.
    fn judge(
        &mut self,
        around: &mut Surroundings,
        peer: PeerId,
        hello: &Hello,
    ) -> Result<Option<SignedPart>> {
        let mut roots = self.known.0.clone().unwrap_or_else(|| hello.roots.clone());
        for root in hello.roots.above(roots.newest().version) {
            roots.advance(root.clone())?;
        }
        let wall = around.wall();
        let application = hello.chain.apply(&roots, wall)?;
        anyhow::ensure!(application.member.peer == peer, "the name of another node");
        self.take_roots(roots.clone());
        self.take_lists(around, &hello.lists);
        let (_, book) = &self.known;
        let counts = book.check(peer, hello.chain.claimed_invite());
        anyhow::ensure!(counts.is_ok(), WitnessRefusal::Revoked);
        if hello.chain.has_receipt() {
            hello.chain.verify(&roots, wall)?;
            return Ok(None);
        }
        let receipt = self.receipt(&hello.chain, wall).context("no receipt")?;
        Ok(Some(receipt?))
    }

    fn take_roots(&mut self, newer: RootStore) {
        let (roots, book) = &mut self.known;
        let version = |roots: &RootStore| roots.newest().version;
        if roots.as_ref().map(version) < Some(version(&newer)) {
            book.retain_trusted(&newer);
            *roots = Some(newer);
        }
    }

    /// The witness counts the use of an invite. `None`: the certificate does not count.
    fn receipt(
        &mut self,
        chain: &Chain,
        now: UnixTime,
    ) -> Option<Result<SignedPart, WitnessRefusal>> {
        let (roots, book) = &self.known;
        let roots = roots.as_ref()?;
        let application = chain.apply(roots, now).ok()?;
        let (peer, invite) = (chain.claimed_peer(), chain.claimed_invite());
        if book.check(peer, invite).is_err() {
            return Some(Err(WitnessRefusal::Revoked));
        }
        if chain.claimed_witness() != self.name {
            return Some(Err(WitnessRefusal::OtherWitness));
        }
        if self.mood == Mood::FullDisk {
            return Some(Err(WitnessRefusal::Unable));
        }
        let uses = self.uses.entry(invite).or_default();
        let receipt = uses.count(&application, now);
        Some(receipt.map(|receipt| receipt.sign(&self.key, roots.overlay())))
    }

    /// Lists that a node has shown. What is new is handed on, and whoever is named is cut off.
    fn take_lists(&mut self, around: &mut Surroundings, lists: &[SignedRevocations]) {
        let (Some(roots), book) = (&self.known.0, &mut self.known.1) else {
            return;
        };
        let before = book.clone();
        for list in lists {
            // One that does not count changes nothing.
            let _ = book.take(list.clone(), roots);
        }
        if *book == before {
            return;
        }
        let book = book.clone();
        let lists: Vec<_> = book.lists().iter().map(SignedRevocations::encode).collect();
        let at = around.clock.now() + around.config.control_delay;
        for (peer, link) in self.up.clone() {
            let Link { host, run, .. } = link;
            if book.check(peer, link.invite).is_ok() {
                let lists = lists.clone();
                around.queue.push(at, Event::Lists { host, run, lists });
            } else {
                self.end(around, peer);
            }
        }
        self.rendezvous.remove(|peer| book.names_node(*peer));
        self.records.remove(|peer| book.names_node(*peer));
    }

    /// Whose certificate has ended is cut off.
    fn end_memberships(&mut self, around: &mut Surroundings) {
        let now = around.wall();
        let ended = |link: &Link| link.until.plus(CLOCK_TOLERANCE) < now;
        let all = self.up.iter().filter(|(_, link)| ended(link));
        for peer in all.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.end(around, peer);
        }
    }

    /// The connection of `peer` ends, and all that it has here.
    fn end(&mut self, around: &mut Surroundings, peer: PeerId) {
        self.rendezvous.remove(|one| *one == peer);
        self.records.remove(|one| *one == peer);
        self.relay.revoke_owner(&peer.0);
        if let Some(Link { host, run, .. }) = self.up.remove(&peer) {
            let at = around.clock.now() + around.config.control_delay;
            let event = ControlEvent::InfraDown { peer: self.name };
            around.queue.push(at, Event::Control { host, run, event });
        }
    }

    /// What it answers to whoever is connected.
    pub(super) fn answer(
        &mut self,
        around: &mut Surroundings,
        from: &Host,
        question: Question,
        lists: &[Vec<u8>],
    ) -> Outcome {
        let outcome = self.carry_out(around, from.peer(), question, lists);
        if self.mood == Mood::Mute {
            return Outcome::Failed(Failure::NoAnswer);
        }
        outcome
    }

    fn carry_out(
        &mut self,
        around: &mut Surroundings,
        from: PeerId,
        question: Question,
        lists: &[Vec<u8>],
    ) -> Outcome {
        let (now, instant) = (around.clock.now(), around.clock.instant());
        match question {
            Question::SetBootstraps(_) | Question::SetIncarnation(_) => Outcome::Done,
            Question::FollowRevocations => {
                let lists = lists.iter();
                let lists = lists.filter_map(|list| SignedRevocations::decode(list).ok());
                self.take_lists(around, &lists.collect::<Vec<_>>());
                Outcome::Done
            }
            Question::Register {
                rendezvous, card, ..
            } => Outcome::Cards(self.rendezvous.lay_down(now, rendezvous, from, card)),
            Question::Allocate { .. } => {
                match self.relay.allocate(instant, from.0, &mut self.entropy) {
                    Ok(grant) => Outcome::Allocation(Allocation {
                        id: grant.allocation,
                        key: grant.key,
                    }),
                    Err(_) => Outcome::Failed(Failure::Busy),
                }
            }
            Question::Permit {
                allocation, peers, ..
            } => {
                let peers: Vec<_> = peers.iter().map(|peer| peer.0).collect();
                let done = self.relay.permit(instant, from.0, allocation, &peers);
                done.map_or(Outcome::Failed(Failure::Refused), |()| Outcome::Done)
            }
            Question::Receipt { chain, .. } => self
                .receipt(&chain, around.wall())
                .map_or(Outcome::Failed(Failure::Refused), Outcome::Receipt),
            Question::Clock { .. } => Outcome::Clock(around.wall_nanos_of(0) / 1_000_000),
            Question::Greet { to, envelope } => self.pass_on(around, (from, to), envelope),
            Question::GetRecord { dht_key, .. } => Outcome::Record(self.records.get(now, &dht_key)),
            Question::PutRecord { dht_key, record } => {
                self.records.put(now, from, dht_key, record);
                Outcome::Done
            }
        }
    }

    fn pass_on(
        &mut self,
        around: &mut Surroundings,
        (from, to): (PeerId, PeerId),
        envelope: Vec<u8>,
    ) -> Outcome {
        self.greetings += 1;
        let Some(Link { host, run, .. }) = self.up.get(&to).copied() else {
            return Outcome::Failed(Failure::NotConnected);
        };
        if !around.net.tcp_reachable(host, self.host) {
            return Outcome::Failed(Failure::NoAnswer);
        }
        if self.heard.len() >= MAX_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((from, to, envelope.clone()));
        let at = around.clock.now() + around.config.control_delay;
        let event = ControlEvent::Signal { from, envelope };
        around.queue.push(at, Event::Control { host, run, event });
        Outcome::Done
    }

    /// Brings what it passed on once more.
    pub(in crate::world) fn replay(&self, around: &mut Surroundings) {
        let at = around.clock.now() + around.config.control_delay;
        for (from, to, envelope) in &self.heard {
            if let Some(Link { host, run, .. }) = self.up.get(to).copied() {
                let (from, envelope) = (*from, envelope.clone());
                let event = ControlEvent::Signal { from, envelope };
                around.queue.push(at, Event::Control { host, run, event });
            }
        }
    }

    /// A datagram for reflector or relay.
    pub(in crate::world) fn arrive(&mut self, around: &mut Surroundings, delivery: Delivery) {
        let Delivery {
            local,
            source,
            mut bytes,
            ..
        } = delivery;
        let now = around.clock.instant();
        let (from, to, bytes) = match bytes.first() {
            Some(&KIND_REQUEST) => match self.limiter.answer(now, source, &bytes) {
                Ok(answer) => (local, source, answer.to_vec()),
                Err(_) => return,
            },
            Some(&(KIND_BIND | KIND_RELAYED)) => {
                let entropy = &mut self.entropy;
                let Ok(out) = self.relay.handle_datagram(now, entropy, source, &mut bytes) else {
                    return;
                };
                if out.bytes.first() == Some(&KIND_ACK) {
                    self.ways.insert(source, local);
                }
                let from = self.ways.get(&out.to).copied().unwrap_or(local);
                (from, out.to, out.bytes.to_vec())
            }
            _ => return,
        };
        // What is lost is lost.
        let _ = around
            .net
            .send(around.clock.now(), self.host, from, to, bytes);
    }
}
