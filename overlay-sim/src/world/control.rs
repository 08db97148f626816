//! A stub of the control plane: one bootstrap, which is a host on the internet.
//!
//! What goes over TCP in the real one takes a fixed time here, and does not get lost while [`tcp_reachable`](crate::net::topology::Net::tcp_reachable) says that
//! there is a way; its reflector and relay are the real machines, behind UDP on the virtual network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use nat_traversal::reflector::{KIND_REQUEST, ReflectorLimiter};
use nat_traversal::relay::{KIND_ACK, KIND_BIND, KIND_RELAYED, RelayServer, RelayServerConfig};
use node_core::control::{BootstrapAddr, ControlEvent};
use node_core::node::answers::Answer;
use node_core::questions::{Allocation, Failure, Outcome, Question, QuestionId};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Chain, Revocations, SignedRevocations};

use super::authority::Authority;
use super::host::Host;
use super::{Event, Surroundings};
use crate::net::random::stream;
use crate::net::topology::{Delivery, HostId};

/// How often a node that is not connected dials, and a connection is looked at.
pub(super) const DIAL_EVERY: Duration = Duration::from_secs(5);

/// UDP of reflector and relay, and where control connections go.
const DATA_PORT: u16 = 22_611;
const CONTROL_PORT: u16 = 22_612;

/// What the rendezvous keeps of a name, and shows: to whoever lays a card down for the first time what fits into an
/// answer, to others the newest ones (ADR 39).
const CARDS: usize = 64;
const ANSWER_BYTES: usize = 64 * 1024;
const NEWEST: usize = 20;

/// `from` lays a card down; what it is shown.
fn lay_down(
    cards: &mut Vec<(PeerId, Vec<u8>)>,
    from: PeerId,
    card: Vec<u8>,
) -> Vec<(PeerId, Vec<u8>)> {
    let before = cards.len();
    cards.retain(|(peer, _)| *peer != from);
    let most = if before == cards.len() { CARDS } else { NEWEST };
    let mut room = ANSWER_BYTES;
    let fits = |(_, card): &&(PeerId, Vec<u8>)| {
        room = room.saturating_sub(32 + card.len());
        room > 0
    };
    let shown = cards.iter().rev().take(most).take_while(fits).cloned();
    let shown = shown.collect();
    cards.push((from, card));
    if cards.len() > CARDS {
        cards.remove(0);
    }
    shown
}

/// A question on its way.
pub(super) struct Asked {
    pub(super) host: HostId,
    pub(super) run: u32,
    pub(super) id: QuestionId,
    pub(super) question: Question,
    /// The revocation lists of the gate of whoever asks.
    pub(super) lists: Vec<Vec<u8>>,
}

/// The bootstrap.
pub(super) struct Bootstrap {
    pub(super) host: HostId,
    ips: [IpAddr; 2],
    pub(super) authority: Authority,
    relay: RelayServer,
    limiter: ReflectorLimiter,
    entropy: SeededEntropy,
    /// Who is connected, with which host and run. Bound: the hosts.
    up: BTreeMap<PeerId, (HostId, u32)>,
    /// Cards by rendezvous, the newest last. Bound: [`CARDS`] for each of the networks and their epochs.
    cards: BTreeMap<[u8; 32], Vec<(PeerId, Vec<u8>)>>,
    /// What the DHT has. Bound: the MACs of the world.
    records: BTreeMap<[u8; 32], Vec<u8>>,
    book: Revocations,
    /// At which own address whoever bound an allocation was heard. Bound: the hosts' bindings.
    ways: BTreeMap<SocketAddr, SocketAddr>,
}

impl Bootstrap {
    pub(super) fn new(
        seed: u64,
        (host, ips): (HostId, [IpAddr; 2]),
        authority: Authority,
        around: &Surroundings,
    ) -> Self {
        Self {
            host,
            ips,
            authority,
            relay: RelayServer::new(RelayServerConfig::default()),
            limiter: ReflectorLimiter::new(around.clock.instant()),
            entropy: stream(seed, "bootstrap"),
            up: BTreeMap::new(),
            cards: BTreeMap::new(),
            records: BTreeMap::new(),
            book: Revocations::default(),
            ways: BTreeMap::new(),
        }
    }

    fn peer(&self) -> PeerId {
        self.authority.witness.peer_id()
    }

    /// Is this run of the host connected?
    pub(super) fn has(&self, host: &Host) -> bool {
        self.up.get(&host.peer()) == Some(&(host.id, host.run))
    }

    /// Is the node named in a list that the bootstrap has?
    pub(super) fn names(&self, peer: PeerId) -> bool {
        self.book.names_node(peer)
    }

    /// Somebody lays a card down without being connected: what one does who wants to be met.
    pub(super) fn plant_card(&mut self, rendezvous: [u8; 32], from: PeerId, card: Vec<u8>) {
        lay_down(self.cards.entry(rendezvous).or_default(), from, card);
    }

    /// The host's connections are gone with its process.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.up.remove(&peer);
    }

    /// The host dials, or its connection is looked at.
    pub(super) fn dial(&mut self, around: &mut Surroundings, host: &mut Host) {
        let reachable = around.net.tcp_reachable(host.id, self.host);
        let infra = self.peer();
        match (self.has(host), reachable) {
            (true, true) => {}
            (true, false) => {
                self.up.remove(&host.peer());
                let event = ControlEvent::InfraDown { peer: infra };
                host.enter(around, |node, tick| node.handle_control_event(tick, event));
            }
            (false, true) => self.admit(around, host),
            (false, false) => {
                let event = ControlEvent::Unreachable {
                    addr: self.addr(),
                    reason: "no way".to_owned(),
                };
                host.enter(around, |node, tick| node.handle_control_event(tick, event));
            }
        }
    }

    fn addr(&self) -> BootstrapAddr {
        let [ip, _] = self.ips;
        BootstrapAddr::new(&format!("/ip4/{ip}/tcp/{CONTROL_PORT}/p2p/{}", self.peer()))
    }

    /// Both show each other their lists; then the node is let in, the first time with the receipt, or is not.
    fn admit(&mut self, around: &mut Surroundings, host: &mut Host) {
        let Some(running) = &host.running else { return };
        let theirs: Vec<_> = running.gate.held.lists().to_vec();
        self.take_lists(around, &theirs);
        let ours: Vec<_> = self.book.lists().iter().map(|list| list.encode()).collect();
        host.learn_lists(around, &ours);
        let Some(running) = &mut host.running else {
            return;
        };
        let me = self.peer();
        let event = match self.judge(around, &running.gate.chain) {
            Ok(chain) => {
                running.gate.chain.clone_from(&chain);
                let [ip, _] = self.ips;
                self.up.insert(host.peer(), (host.id, host.run));
                ControlEvent::InfraUp {
                    peer: me,
                    remote: SocketAddr::new(ip, CONTROL_PORT),
                    data_addrs: self.ips.map(|ip| SocketAddr::new(ip, DATA_PORT)).to_vec(),
                    chain,
                }
            }
            Err(error) => ControlEvent::Refused {
                addr: self.addr(),
                reason: error.to_string(),
            },
        };
        host.enter(around, |node, tick| node.handle_control_event(tick, event));
    }

    /// The certificate with its receipt.
    fn judge(&mut self, around: &Surroundings, chain: &[u8]) -> Result<Vec<u8>> {
        let chain = Chain::decode(chain)?;
        self.book
            .check(chain.claimed_peer(), chain.claimed_invite())?;
        if chain.has_receipt() {
            chain.verify(&self.authority.roots, around.wall())?;
            return Ok(chain.encode());
        }
        let receipt = self.authority.receipt(&chain, around.wall());
        let receipt = receipt.ok_or_else(|| anyhow::anyhow!("the certificate does not count"))?;
        Ok(chain.with_receipt(receipt?).encode())
    }

    /// Lists that a node has shown. What is new is handed on, and whoever is named is cut off.
    fn take_lists(&mut self, around: &mut Surroundings, lists: &[SignedRevocations]) {
        let before = self.book.clone();
        for list in lists {
            // One that does not count changes nothing.
            let _ = self.book.take(list.clone(), &self.authority.roots);
        }
        if self.book == before {
            return;
        }
        let lists: Vec<_> = self.book.lists().iter().map(|list| list.encode()).collect();
        let at = around.clock.now() + around.config.control_delay;
        let infra = self.peer();
        for (peer, (host, run)) in self.up.clone() {
            let lists = lists.clone();
            around.queue.push(at, Event::Lists { host, run, lists });
            if self.book.names_node(peer) {
                self.up.remove(&peer);
                self.relay.revoke_owner(&peer.0);
                let event = ControlEvent::InfraDown { peer: infra };
                around.queue.push(at, Event::Control { host, run, event });
            }
        }
    }

    /// A question has come.
    pub(super) fn handle(&mut self, around: &mut Surroundings, asked: Asked, from: &Host) {
        let Asked {
            host,
            run,
            id,
            question,
            lists,
        } = asked;
        let settings = matches!(
            question,
            Question::SetBootstraps(_) | Question::SetIncarnation(_)
        );
        let outcome = if settings {
            Outcome::Done
        } else if self.has(from) && around.net.tcp_reachable(host, self.host) {
            self.answer(around, from.peer(), question, &lists)
        } else {
            Outcome::Failed(Failure::NotConnected)
        };
        let at = around.clock.now() + around.config.control_delay;
        let answer = Answer::Asked(id, outcome);
        around.queue.push(at, Event::Answer { host, run, answer });
    }

    fn answer(
        &mut self,
        around: &mut Surroundings,
        from: PeerId,
        question: Question,
        lists: &[Vec<u8>],
    ) -> Outcome {
        let now = around.clock.instant();
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
            } => {
                let cards = self.cards.entry(rendezvous).or_default();
                Outcome::Cards(lay_down(cards, from, card))
            }
            Question::Allocate { .. } => {
                match self.relay.allocate(now, from.0, &mut self.entropy) {
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
                let done = self.relay.permit(now, from.0, allocation, &peers);
                done.map_or(Outcome::Failed(Failure::Refused), |()| Outcome::Done)
            }
            Question::Receipt { chain, .. } => self
                .authority
                .receipt(&chain, around.wall())
                .map_or(Outcome::Failed(Failure::Refused), Outcome::Receipt),
            Question::Clock { .. } => Outcome::Clock(around.wall_nanos() / 1_000_000),
            Question::Greet { to, envelope } => match self.up.get(&to) {
                Some((host, run)) => {
                    let (host, run) = (*host, *run);
                    let at = around.clock.now() + around.config.control_delay;
                    let event = ControlEvent::Signal { from, envelope };
                    around.queue.push(at, Event::Control { host, run, event });
                    Outcome::Done
                }
                None => Outcome::Failed(Failure::NotConnected),
            },
            Question::GetRecord { dht_key, .. } => {
                Outcome::Record(self.records.get(&dht_key).cloned())
            }
            Question::PutRecord { dht_key, record } => {
                self.records.insert(dht_key, record);
                Outcome::Done
            }
        }
    }

    /// A datagram for reflector or relay.
    pub(super) fn arrive(&mut self, around: &mut Surroundings, delivery: Delivery) {
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
