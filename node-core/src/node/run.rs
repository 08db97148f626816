//! The node's state, and what happens in each of its turns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::BootstrapAddr;
use crate::peer_turns::PeerTurns;
use crate::questions::Questions;
use crate::underlay::{Underlay, UnderlayEvent};
use crate::waiting_room::{Bounds, WaitingRoom};
use nat_traversal::agent::ProbeBudget;
use overlay_proto::Entropy;
use overlay_proto::directory::SignalInbox;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib, NetIndex};
use overlay_proto::tunnels::Tunnels;

use super::bridges::Looks;
use super::effects::{Datagram, Effect, Effects};
use super::expiry::Expiry;
use super::host::HostLooks;
use super::identity::{Identity, Tick};
use super::interfaces::Interfaces;
use super::leaving::Leaving;
use super::looped_ports::LoopedPorts;
use super::network::Network;
use super::operations::Operations;
use super::peer::Peer;
use super::permits::Permits;
use super::pings::Pings;
use super::questions::OpenQuestions;
use super::revocations::Followed;
use super::sight::HostSight;
use super::site_mtus::SiteMtus;
use super::twin::Twin;
use super::warnings::Warnings;
use super::written::Storing;

/// Local frames for a peer without a session. 64 frames for 3 s: a handshake over a relay with two
/// lost datagrams.
pub const SESSION_ROOM: Bounds = Bounds {
    per_key: 64,
    in_all: 1024,
    max_wait: Duration::from_secs(3),
};

/// How often the agents of the peers are told whether frames flow.
const LOOK: Duration = Duration::from_secs(1);

/// How often the state that changes slowly is looked at: interfaces, saved files, idle peers.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How long a peer may be known without being in a roster: its entry comes with the first
/// comparison of a session.
const ACQUAINTANCE: Duration = Duration::from_secs(60);

/// The slow path. See the [module](super) for the order of things.
pub struct Node {
    /// Who this node is, and what it is a member of.
    pub identity: Identity,
    /// The state directory, for people.
    pub(crate) state_dir: String,
    pub(crate) entropy: Box<dyn Entropy + Send>,
    pub(crate) replication: bool,
    pub(crate) claim_ttl: Duration,
    pub(crate) asking: Questions,
    pub(crate) permits: Permits,
    /// Bootstraps that are connected now.
    pub(crate) infra: BTreeSet<PeerId>,
    /// Why a bootstrap last refused us, for people.
    pub last_refusal: Option<String>,
    /// The addresses of bootstraps that did not answer since that bootstrap was up, with the reason.
    pub unreachable: BTreeMap<BootstrapAddr, String>,
    /// What is to be done outside.
    pub effects: Effects,
    /// Where the data path's sockets are bound, and how many workers there are.
    pub(crate) listen: Vec<SocketAddr>,
    /// How many workers the fast path has.
    pub workers: usize,
    /// What the workers go by.
    pub(crate) published: Arc<Fib>,
    pub(crate) fib_stale: bool,
    /// What can be seen of the host at once.
    pub(crate) sight: Box<dyn HostSight>,
    /// Drops by reason, shared with the workers.
    pub drops: Arc<DropCounters>,
    /// How many datagrams the kernel had refused as too large at the last look.
    pub(crate) refused: u64,
    pub(crate) tunnels: Tunnels,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// By their place in the `Fib`. Bound: those of the membership.
    pub networks: Vec<Network>,
    pub(crate) underlay: Underlay,
    pub(crate) for_session: WaitingRoom<(NetIndex, PeerId)>,
    pub(crate) next_frame_id: u32,
    /// What is to be on disk, and who waits for it.
    pub store: Storing,
    pub(crate) signal_inbox: SignalInbox,
    pub(crate) probe_budget: ProbeBudget,
    pub(crate) open_questions: OpenQuestions,
    pub(crate) pings: Pings,
    pub(crate) peer_turns: PeerTurns,
    /// Networks whose directory may have outputs.
    pub(crate) touched_networks: BTreeSet<NetIndex>,
    pub(crate) next_look: Instant,
    pub(crate) next_housekeeping: Instant,
    pub(crate) expiry: Expiry,
    /// Something about the peers is not on disk yet.
    pub peers_changed: bool,
    /// Who is revoked.
    pub revocations: Followed,
    pub(crate) looks: Looks,
    pub(crate) host: HostLooks,
    /// What is known of taps and bridges.
    pub interfaces: Interfaces,
    pub(crate) site_mtus: SiteMtus,
    pub(crate) looped: LoopedPorts,
    /// What the user should do something about.
    pub warnings: Warnings,
    pub(crate) twin: Twin,
    /// When to look whether a move of addresses that nobody confirmed was brought back.
    pub(crate) move_due: Option<Instant>,
    pub(crate) operations: Operations,
    /// Set once `farlan leave` was asked for.
    pub leaving: Option<Leaving>,
}

impl Node {
    /// What follows every input: timers, outputs of the machines, a new `Fib`, orders to the bridges.
    pub fn take_turn(&mut self, tick: Tick) {
        self.handle_timeouts(tick);
        self.settle_segments(tick);
        self.settle(tick);
        self.publish(tick.now);
        self.tell_bridges_of_remote_macs(tick);
        self.send_beacons();
    }

    /// When the next turn is due without an input.
    pub fn next_wakeup(&self, now: Instant) -> Instant {
        let machines = [
            self.tunnels.poll_timeout(),
            self.underlay.poll_timeout(now),
            self.for_session.next_expiry(),
            self.next_probe_look(now),
            self.next_remote_macs(),
            self.next_group_query(),
            self.open_questions.poll_timeout(),
            self.asking.poll_timeout(),
            self.looped.poll_timeout(),
            self.pings.poll_timeout(),
            Some(self.next_look),
            self.leaving.as_ref().and_then(Leaving::poll_timeout),
        ];
        let settled = self.peer_turns.all_settled() && self.touched_networks.is_empty();
        if !settled || self.asking.is_due() || self.store.is_due() {
            return now;
        }
        let peers = self.peer_turns.next_due();
        let networks = self
            .networks
            .iter()
            .flat_map(|network| {
                let lan = network.lan.poll_timeout();
                [network.directory.poll_timeout(), network.next_expiry(), lan]
            })
            .flatten()
            .min();
        machines
            .into_iter()
            .flatten()
            .chain(peers)
            .chain(networks)
            .min()
            .map_or(self.next_housekeeping, |due| {
                due.min(self.next_housekeeping)
            })
    }

    /// When the machines of `id` are next due.
    fn timer_of(&self, id: PeerId) -> Option<Instant> {
        let in_session = self.tunnels.current(id).is_some();
        self.peers.get(&id)?.poll_timeout(in_session)
    }

    fn handle_timeouts(&mut self, tick: Tick) {
        self.asking.handle_timeout(tick.now);
        self.take_answers(tick);
        self.take_written(tick);
        self.tunnels
            .handle_timeout(tick.now, tick.wall, &mut self.entropy);
        self.underlay.handle_timeout(tick.now, &mut self.entropy);
        for id in self.peer_turns.due(tick.now) {
            // It may have become later since.
            let is_due = self.timer_of(id).is_some_and(|due| due <= tick.now);
            if let Some(peer) = self.peers.get_mut(&id).filter(|_| is_due) {
                peer.agent.handle_timeout(tick.now);
            }
            self.peer_turns.touch(id);
        }
        for index in 0..self.networks.len() {
            let due = self
                .networks
                .get(index)
                .and_then(|network| network.directory.poll_timeout());
            if due.is_some_and(|due| due <= tick.now) {
                self.feed_heard(index);
                let Some(network) = self.networks.get_mut(index) else {
                    break;
                };
                network.directory.handle_timeout(tick.now);
                self.touched_networks.insert(network.index);
            }
        }
        self.end_probes(tick);
        self.send_group_queries(tick);
        self.expire_waiting(tick);
        self.answer_questions(tick);
        self.end_pings(tick.now);
        self.forget_when_due(tick.now);
        if tick.now >= self.next_look {
            self.next_look = tick.now + LOOK;
            self.look(tick);
        }
        if tick.now >= self.next_housekeeping {
            self.next_housekeeping = tick.now + HOUSEKEEPING;
            self.keep_house(tick);
        }
    }

    /// What is looked at every second.
    fn look(&mut self, tick: Tick) {
        self.ask_sizes_again(tick);
        self.watch_way_out(tick.now);
        let mut talkers = Vec::new();
        for peer in self.peers.values_mut() {
            if peer.look_at_traffic(tick.now) {
                talkers.push(peer.id);
            }
            self.peer_turns.touch(peer.id);
        }
        self.note_talkers(tick, &talkers);
        self.look_at_segments(tick);
        self.check_conditions(tick);
        self.warn_of_conflicts(tick);
        if self.peers_changed && self.store.may_save(tick.now) {
            self.save_state(tick);
        }
    }

    /// Drains the outputs of all touched machines. Outputs of one may touch another; the bound
    /// keeps a tick finite, and what is left is drained in the next one.
    fn settle(&mut self, tick: Tick) {
        for _ in 0..16 {
            self.settle_tunnels(tick);
            self.settle_underlay(tick);
            for net in std::mem::take(&mut self.touched_networks) {
                self.settle_network(tick, net);
                self.release_waiting(tick, net);
            }
            for peer in self.peer_turns.take_touched() {
                self.settle_peer(tick, peer);
                self.peer_turns.set(peer, self.timer_of(peer));
            }
            if self.touched_networks.is_empty() && self.peer_turns.all_settled() {
                break;
            }
        }
        // What networks and peers asked of the others in the last round must not wait for a timer.
        self.settle_underlay(tick);
        self.settle_tunnels(tick);
        self.send_permits();
        self.send_questions(tick.now);
        self.send_writes();
    }

    /// Drains the underlay.
    fn settle_underlay(&mut self, tick: Tick) {
        while let Some(datagram) = self.underlay.poll_transmit(tick.now) {
            self.effects.push(Effect::Send(Datagram {
                to: datagram.to,
                bytes: datagram.bytes,
                probe: None,
            }));
        }
        while let Some(event) = self.underlay.poll_event() {
            match event {
                UnderlayEvent::CandidatesChanged => {
                    self.spread_candidates(tick);
                    self.fib_stale = true;
                }
                UnderlayEvent::FilterChanged => {
                    self.spread_filter(tick);
                    self.fib_stale = true;
                }
                UnderlayEvent::RelayBound(infra) => {
                    tracing::debug!(bootstrap = %infra, "the relay answers");
                }
                UnderlayEvent::RelayLost(infra) => {
                    tracing::warn!(bootstrap = %infra, "the relay does not answer");
                    if self.infra.contains(&infra) {
                        self.ask_for_allocation(tick, infra);
                    }
                }
            }
        }
        self.lay_down_cards(tick);
    }

    /// What changes slowly: interfaces, files, peers that were not reached yet.
    fn keep_house(&mut self, tick: Tick) {
        self.check_firewall();
        self.look_at_bridges(tick.now, false);
        self.watch_move(tick.now);
        self.retry_moves();
        self.follow_roots();
        self.save_state(tick);
        self.forget_strangers(tick);
        self.renew_allocations(tick);
        self.renew_permits(tick.now);
        self.check_expiry(tick);
        self.check_twin(tick);
        self.say_again(tick);
        self.seek_unreached(tick);
    }

    /// Puts back, beside the slow path, what a restart of the host's firewall has removed.
    fn check_firewall(&mut self) {
        let mut attached = self.networks.iter().filter_map(|n| n.attached.as_ref());
        if attached.any(|record| record.bridge_is_ours) {
            self.effects.push(Effect::KeepPassage);
        }
    }

    /// Bootstraps whose relay did not give or bind an allocation are asked again.
    fn renew_allocations(&mut self, tick: Tick) {
        for infra in self.underlay.without_relay(tick.now) {
            if self.infra.contains(&infra) {
                self.ask_for_allocation(tick, infra);
            }
        }
    }

    /// Forgets peers that are in no roster and have no session: they left, or never were members.
    fn forget_strangers(&mut self, tick: Tick) {
        let (tunnels, networks) = (&self.tunnels, &self.networks);
        let before = self.peers.len();
        self.peers.retain(|id, peer| {
            tunnels.current(*id).is_some()
                || tick.now.duration_since(peer.since) < ACQUAINTANCE
                || networks.iter().any(|n| n.directory.member(id).is_some())
        });
        let peers = &self.peers;
        self.revocations
            .talks
            .retain(|id, _| peers.contains_key(id));
        if self.peers.len() != before {
            self.peers_changed = true;
            self.fib_stale = true;
        }
    }

    /// The directory of `net` may have outputs.
    pub(crate) fn touch_network(&mut self, net: NetIndex) {
        self.touched_networks.insert(net);
    }

    /// The machines of `peer` may have outputs.
    pub(crate) fn touch_peer(&mut self, peer: PeerId) {
        self.peer_turns.touch(peer);
    }
}
