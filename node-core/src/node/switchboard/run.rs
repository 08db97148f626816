//! The node's state, and what happens in each of its turns.

use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;

use super::publish::Publication;
use crate::node::candidates::Candidates;
use crate::node::effects::Effect;
use crate::node::introductions::Introductions;
use crate::node::networks::Networks;
use crate::node::outside::Outside;
use crate::node::peers::Peers;
use crate::node::standing::Standing;
use crate::node::tick::Tick;
use crate::node::users::Users;
use crate::node::users::leaving::Leaving;

/// How often the agents of the peers are told whether frames flow.
const LOOK: Duration = Duration::from_secs(1);

/// How often the state that changes slowly is looked at: interfaces, saved files, idle peers.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How long a peer may be known without being in a roster: its entry comes with the first
/// comparison of a session.
const ACQUAINTANCE: Duration = Duration::from_secs(60);

/// The slow path: a switchboard between its owners. See the [module](super) for the order of things.
pub struct Node {
    /// Who this node is, and who is a member.
    pub standing: Standing,
    /// Own addresses, bootstraps and relays.
    pub candidates: Candidates,
    /// Sessions and paths.
    pub peers: Peers,
    /// How strangers come to know each other.
    pub introductions: Introductions,
    /// Directories, taps and what waits for them.
    pub networks: Networks,
    /// What users wait for.
    pub users: Users,
    /// What the workers go by.
    pub publication: Publication,
    pub(crate) rounds: Rounds,
    /// What all of them want of the outside.
    pub outside: Outside,
}

/// What is looked at regularly.
#[derive(Debug)]
pub(crate) struct Rounds {
    next_look: Instant,
    pub(crate) next_housekeeping: Instant,
}

impl Rounds {
    /// Both are due at once.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            next_look: now,
            next_housekeeping: now,
        }
    }
}

impl Node {
    /// What follows every input: timers, outputs of the machines, a new `Fib`, orders to the bridges.
    pub fn take_turn(&mut self, tick: Tick) {
        self.handle_timeouts(tick);
        self.settle_segments(tick);
        self.settle(tick);
        self.publish(tick.now);
        self.networks
            .tell_bridges_of_remote_macs(tick, &mut self.outside);
        self.networks.send_beacons(&mut self.outside);
    }

    /// When the next turn is due without an input.
    pub fn next_wakeup(&self, now: Instant) -> Instant {
        let machines = [
            self.peers.tunnels.poll_timeout(),
            self.candidates.underlay.poll_timeout(now),
            self.networks.for_session.next_expiry(),
            self.networks.next_probe_look(now),
            self.networks.next_remote_macs(),
            self.networks.next_group_query(),
            self.users.open_questions.poll_timeout(),
            self.outside.asking.poll_timeout(),
            self.networks.looped.poll_timeout(),
            self.users.pings.poll_timeout(),
            Some(self.rounds.next_look),
            self.users.leaving.as_ref().and_then(Leaving::poll_timeout),
        ];
        let settled = self.peers.turns.all_settled() && self.networks.touched.is_empty();
        if !settled || self.outside.asking.is_due() || self.outside.store.is_due() {
            return now;
        }
        let peers = self.peers.turns.next_due();
        let networks = self
            .networks
            .all
            .iter()
            .flat_map(|network| {
                let lan = network.lan.poll_timeout();
                [
                    network.directory.poll_timeout(),
                    network.waiting.next_expiry(),
                    lan,
                ]
            })
            .flatten()
            .min();
        machines
            .into_iter()
            .flatten()
            .chain(peers)
            .chain(networks)
            .min()
            .map_or(self.rounds.next_housekeeping, |due| {
                due.min(self.rounds.next_housekeeping)
            })
    }

    fn handle_timeouts(&mut self, tick: Tick) {
        self.outside.asking.handle_timeout(tick.now);
        self.take_answers(tick);
        self.take_written(tick);
        self.peers.handle_timeout(tick, &mut self.outside);
        self.candidates
            .underlay
            .handle_timeout(tick.now, &mut self.outside.entropy);
        let own = self.own();
        self.networks.handle_directory_timeouts(tick, own);
        self.networks.end_probes(tick, own);
        self.networks
            .send_group_queries(tick, &mut self.outside, own);
        self.networks.expire_waiting(tick, &self.outside);
        self.answer_questions(tick);
        self.end_pings(tick.now);
        self.forget_when_due(tick.now);
        if tick.now >= self.rounds.next_look {
            self.rounds.next_look = tick.now + LOOK;
            self.look(tick);
        }
        if tick.now >= self.rounds.next_housekeeping {
            self.rounds.next_housekeeping = tick.now + HOUSEKEEPING;
            self.keep_house(tick);
        }
    }

    /// What is looked at every second.
    fn look(&mut self, tick: Tick) {
        self.peers.ask_sizes_again(tick.now, &self.outside);
        self.candidates.watch_way_out(tick.now, &mut self.outside);
        let mut talkers = Vec::new();
        for peer in self.peers.known.values_mut() {
            if peer.look_at_traffic(tick.now) {
                talkers.push(peer.id);
            }
            self.peers.turns.touch(peer.id);
        }
        let own = self.own();
        self.networks.note_talkers(tick, own, &talkers);
        self.look_at_segments(tick);
        self.check_conditions(tick);
        self.warn_of_conflicts(tick);
        if self.peers.changed && self.outside.store.may_save(tick.now) {
            self.save_state(tick);
        }
    }

    /// Drains the outputs of all touched machines. Outputs of one may touch another; the bound
    /// keeps a tick finite, and what is left is drained in the next one.
    fn settle(&mut self, tick: Tick) {
        for _ in 0..16 {
            self.settle_tunnels(tick);
            self.settle_candidates(tick);
            for net in std::mem::take(&mut self.networks.touched) {
                self.settle_network(tick, net);
                self.release_waiting(tick, net);
            }
            for peer in self.peers.turns.take_touched() {
                self.settle_peer(tick, peer);
                self.peers.turns.set(peer, self.peers.timer_of(peer));
            }
            if self.networks.touched.is_empty() && self.peers.turns.all_settled() {
                break;
            }
        }
        // What networks and peers asked of the others in the last round must not wait for a timer.
        self.settle_candidates(tick);
        self.settle_tunnels(tick);
        self.candidates.send_permits(&mut self.outside);
        self.send_questions(tick.now);
        self.send_writes();
    }

    /// What changes slowly: interfaces, files, peers that were not reached yet.
    fn keep_house(&mut self, tick: Tick) {
        self.check_firewall();
        self.networks
            .look_at_bridges(tick.now, &mut self.outside, false);
        self.watch_move(tick.now);
        self.retry_moves();
        self.standing.follow_roots(&mut self.outside);
        self.save_state(tick);
        self.forget_strangers(tick);
        self.candidates.renew_allocations(tick, &mut self.outside);
        self.renew_permits(tick);
        self.check_expiry(tick);
        self.standing.check_twin(tick, &mut self.outside);
        self.say_again(tick);
        self.seek_unreached(tick);
    }

    /// Puts back, beside the slow path, what a restart of the host's firewall has removed.
    fn check_firewall(&mut self) {
        let mut attached = self.networks.all.iter().filter_map(|n| n.attached.as_ref());
        if attached.any(|record| record.bridge_is_ours) {
            self.outside.effects.push(Effect::KeepPassage);
        }
    }

    /// Forgets peers that are in no roster and have no session: they left, or never were members.
    fn forget_strangers(&mut self, tick: Tick) {
        let (tunnels, networks) = (&self.peers.tunnels, &self.networks.all);
        let before = self.peers.known.len();
        self.peers.known.retain(|id, peer| {
            tunnels.current(*id).is_some()
                || tick.now.duration_since(peer.since) < ACQUAINTANCE
                || networks.iter().any(|n| n.directory.member(id).is_some())
        });
        let peers = &self.peers.known;
        self.standing.retain_peers(|id| peers.contains_key(id));
        if self.peers.known.len() != before {
            self.peers.changed = true;
            self.outside.fib_stale = true;
        }
    }

    /// The directory of `net` may have outputs.
    pub(crate) fn touch_network(&mut self, net: NetIndex) {
        self.networks.touched.insert(net);
    }

    /// The machines of `peer` may have outputs.
    pub(crate) fn touch_peer(&mut self, peer: PeerId) {
        self.peers.turns.touch(peer);
    }
}
