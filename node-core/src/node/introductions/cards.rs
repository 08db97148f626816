//! How members of one network that have never met come to know each other.
//!
//! A node lays its *card* down at the rendezvous that each bootstrap keeps per (blinded) network and
//! gets the cards of others in return. It greets each of them with its own card through the
//! bootstrap, permits them at its relay, and begins a handshake over every path that may work. Who
//! is greeted does the same: the NATs of both open at about the same time.

use std::cmp::Reverse;
use std::time::Duration;

use crate::questions::Question;
use nat_traversal::agent::PathAgent;
use nat_traversal::candidate::Candidate;
use overlay_proto::Entropy;
use overlay_proto::directory::{
    Card, OpenedCard, RoutedSignal, Signal, Signed, SignedCard, open_card, open_signal, seal_card,
    seal_signal, signal_is_for,
};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{OldEpoch, rendezvous_blind};
use overlay_proto::switching::NetIndex;
use overlay_proto::wire::peer_message::PeerMessage;

use crate::node::peers::MAX_PEERS;
use crate::node::peers::peer::Peer;
use crate::node::peers::whereabouts::ListSource;
use crate::node::switchboard::run::{HOUSEKEEPING, Node};
use crate::node::tick::Tick;

/// Cards at the rendezvous live 10 min; laid down again at less than half of it.
const REGISTER_EVERY: Duration = Duration::from_secs(240);

/// Peers that housekeeping seeks in one round; the others wait for the next one. A greeting is an envelope of about 1.5 KiB in and out
/// of a bootstrap, and a handshake that goes by its relay eight datagrams within 10 s. Of 300 nodes that were all cut off
/// each greets 13 a second so, all of them 3,840, and has had its turn with everybody after 25 s; each pair is sought from both
/// sides. One request names all of a round to a relay ([`MAX_PERMITTED`](crate::questions::MAX_PERMITTED)).
const SOUGHT_AT_ONCE: usize = 64;

impl Node {
    /// Lays our card down at the bootstraps for each network where it is missing or old.
    pub(crate) fn lay_down_cards(&mut self, tick: Tick) {
        if !self.candidates.is_any_up() || !self.candidates.underlay.is_settled(tick.now) {
            return;
        }
        for index in 0..self.networks.all.len() {
            let Some(network) = self.networks.all.get_mut(index) else {
                return;
            };
            if network.register_at.is_some_and(|at| at > tick.now) {
                continue;
            }
            network.register_at = Some(tick.now + REGISTER_EVERY);
            tracing::debug!(network = %network.secret.name, "our card is laid down");
            let net = network.index;
            let now = self.standing.identity.membership.roots().now(tick.wall);
            let old = network.old_epoch.as_ref().and_then(|old| old.read_at(now));
            // Under the old name, too, as long as members look there that missed the change.
            let epoch_keys = [Some(network.secret.epoch_key), old.copied()];
            let Some(card) = self.own_card(net) else {
                continue;
            };
            for epoch_key in epoch_keys.into_iter().flatten() {
                let Ok(card) = seal_card(&card, &epoch_key, &mut self.outside.entropy) else {
                    continue;
                };
                let rendezvous = rendezvous_blind(&epoch_key);
                self.outside.asking.put(Question::Register {
                    net,
                    rendezvous,
                    card,
                });
            }
        }
    }

    /// Our candidates changed: everyone who knows the old ones is told.
    pub(crate) fn spread_candidates(&mut self, tick: Tick) {
        for network in &mut self.networks.all {
            network.register_at = None;
        }
        let (sequence, candidates) = self.candidates.underlay.candidates();
        let (candidates, routes) = (candidates.to_vec(), self.candidates.underlay.routes());
        let filter = self.candidates.underlay.filter().clone();
        let mapping = self.candidates.underlay.nat().mapping();
        let ids: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.agent.set_local_candidates(tick.now, &candidates);
                peer.agent.set_nat(mapping, peer.whereabouts.mapping, false);
                peer.agent.set_filter(tick.now, filter.clone());
                if peer.offer_relay(tick.now, &routes) {
                    self.reach(tick, id);
                }
            }
            self.tell_candidates(tick, id, sequence, &candidates);
            self.touch_peer(id);
        }
        self.lay_down_cards(tick);
    }

    /// Tells one peer our candidates in its session, once per sequence.
    pub(crate) fn tell_candidates(
        &mut self,
        tick: Tick,
        id: PeerId,
        sequence: u64,
        candidates: &[Candidate],
    ) {
        let in_session = self.peers.tunnels.current(id).is_some();
        let mapping = self.candidates.underlay.nat().mapping();
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        if in_session && peer.told_sequence < sequence {
            peer.told_sequence = sequence;
            let candidates = candidates.to_vec();
            self.send_message(
                tick,
                id,
                &PeerMessage::Candidates {
                    sequence,
                    mapping,
                    candidates,
                },
            );
        }
    }

    /// Our card for one network, signed.
    pub(crate) fn own_card(&mut self, net: NetIndex) -> Option<SignedCard> {
        let (sequence, candidates) = self.candidates.underlay.candidates();
        let candidates = candidates.to_vec();
        let network = self.networks.all.get(usize::from(net.0))?;
        let card = Card {
            entry: network
                .directory
                .member(&self.standing.identity.me)?
                .signed
                .clone(),
            chain: self
                .standing
                .identity
                .membership
                .chain_for(&network.secret.id)?
                .encode(),
            static_document: self.standing.identity.signed_static.clone(),
            candidates,
            sequence,
            name: self.standing.identity.name.clone(),
        };
        Signed::seal(
            &card,
            &self.standing.identity.key,
            &self.standing.identity.membership.overlay(),
        )
        .ok()
    }

    pub(crate) fn open_and_learn(&mut self, tick: Tick, net: NetIndex, bytes: &[u8]) {
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let overlay = self.standing.identity.membership.overlay();
        let now = self.standing.identity.membership.roots().now(tick.wall);
        let old = network.old_epoch.as_ref().and_then(|old| old.read_at(now));
        let id = &network.secret.id;
        let opened = open_card(bytes, &network.secret.epoch_key, &overlay, id)
            .or_else(|reason| open_card(bytes, old.ok_or(reason)?, &overlay, id));
        match opened {
            Ok(card) => self.learn_card(tick, net, &card),
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// A member showed its card: it is in the roster now, and worth a session.
    fn learn_card(&mut self, tick: Tick, net: NetIndex, card: &OpenedCard) {
        let id = card.entry.node;
        if id == self.standing.identity.me {
            return;
        }
        let verified = self
            .standing
            .identity
            .verify_chain(&card.card.chain, tick.wall)
            .and_then(|member| {
                let document = &card.card.static_document;
                Ok((
                    member,
                    self.standing
                        .identity
                        .verify_static(document, id, tick.wall)?,
                ))
            });
        let (member, static_key) = match verified {
            Ok(verified) => verified,
            Err(reason) => {
                tracing::info!(peer = %id, reason = reason.name(), "card refused");
                return self.outside.drops.count(reason);
            }
        };
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        if member.peer != id || !member.is_member_of(&network.secret.id) {
            return self.outside.drops.count(DropReason::CertificateRefused);
        }
        let may_send = member.may_send(&network.secret.id);
        network
            .directory
            .handle_member(tick.now, id, may_send, &card.card.chain);
        let taken = network.directory.handle_card(tick.now, tick.wall, card);
        let left = network.directory.has_left(&id);
        self.touch_network(net);
        if let Err(reason) = taken {
            return self.outside.drops.count(reason);
        }
        if left {
            // Its card outlives it at the rendezvous for some minutes.
            return;
        }
        self.make_room_for(tick, id);
        let newcomer = self.new_peer(tick, id).is_some();
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        peer.static_key = Some(static_key);
        peer.name.signed = member.name;
        peer.name.say(&card.card.name);
        self.peers.changed = true;
        if newcomer {
            self.permit(id);
        }
        let list = ListSource::Card(card.card.sequence);
        self.learn_candidates(tick, id, list, card.card.candidates.clone());
        self.reach(tick, id);
    }

    /// A peer said where it can be reached.
    pub(crate) fn learn_candidates(
        &mut self,
        tick: Tick,
        id: PeerId,
        source: ListSource,
        candidates: Vec<Candidate>,
    ) {
        let routes = self.candidates.underlay.routes();
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        if peer.set_candidates(tick.now, source, candidates) {
            peer.offer_relay(tick.now, &routes);
            self.peers.changed = true;
            // It was away perhaps, and broadcasts wait for it again.
            self.outside.fib_stale = true;
            self.touch_peer(id);
        }
    }

    /// A signal came through a third party.
    pub(crate) fn handle_signal(&mut self, tick: Tick, from: PeerId, envelope: &[u8]) {
        // A greeting under the old key is from a member that was off when the epoch changed.
        let net = self.networks.all.iter().find_map(|network| {
            let old = network.old_epoch.as_ref().map(OldEpoch::key);
            let mut keys = [Some(&network.secret.epoch_key), old].into_iter().flatten();
            let key = keys.find(|key| signal_is_for(envelope, key))?;
            Some((network.index, *key, network.secret.id))
        });
        let Some((net, epoch_key, network)) = net else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        let overlay = self.standing.identity.membership.overlay();
        let routed = match open_signal(
            envelope,
            &from,
            &self.standing.identity.me,
            &overlay,
            &epoch_key,
        ) {
            Ok(routed) => routed,
            Err(reason) => return self.outside.drops.count(reason),
        };
        if !self
            .introductions
            .signal_inbox
            .accept(from, routed.sequence)
        {
            return self.outside.drops.count(DropReason::Replayed);
        }
        match routed.signal {
            Signal::Hello(card) => match OpenedCard::open(&card, &overlay, &network) {
                Ok(card) => self.handle_hello(tick, net, from, &card),
                Err(reason) => self.outside.drops.count(reason),
            },
            Signal::Bye => self.close_peer(tick, from),
        }
    }

    /// `from` shows its card, now: it is there, whatever was tried before. The card may say nothing new.
    fn handle_hello(&mut self, tick: Tick, net: NetIndex, from: PeerId, card: &OpenedCard) {
        tracing::debug!(peer = %card.entry.node, "greeted");
        self.learn_card(tick, net, card);
        if card.entry.node != from || self.is_reached(from) {
            return;
        }
        let Some(peer) = self.peers.known.get_mut(&from) else {
            return;
        };
        if peer.attempts.note_greeted_by(tick.now) {
            self.show_card(tick, from);
        }
        self.outside.fib_stale = true;
        self.permit(from);
        self.reach(tick, from);
    }

    fn unreached(&self) -> Vec<PeerId> {
        let ids = self.peers.known.keys().copied();
        ids.filter(|id| !self.is_reached(*id)).collect()
    }

    /// A bootstrap is up: whoever is not reached may be there again, too. All are sought soon, each node at a moment of its own, since all
    /// see a bootstrap that has restarted at about the same time.
    pub(crate) fn seek_anew(&mut self, tick: Tick) {
        for id in self.unreached() {
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.attempts.hasten();
            }
        }
        let chance = f64::from(self.outside.entropy.next_u32()) / f64::from(u32::MAX);
        let soon = tick.now + HOUSEKEEPING.mul_f64(chance);
        self.rounds.next_housekeeping = self.rounds.next_housekeeping.min(soon);
    }

    /// Seeks those that are not reached: first those that had the fewest turns, of them those heard last.
    pub(crate) fn seek_unreached(&mut self, tick: Tick) {
        let unreached = self.unreached();
        let due = unreached.iter().filter_map(|id| {
            let peer = self.peers.known.get(id)?;
            let turns = peer.attempts.turns(tick.now)?;
            Some((turns, Reverse(peer.heard.at), *id))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        for (_, _, id) in due.into_iter().take(SOUGHT_AT_ONCE) {
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.attempts.note_turn();
            }
            self.reach(tick, id);
        }
        for id in unreached {
            let peer = self.peers.known.get_mut(&id);
            self.outside.fib_stale |= peer.is_some_and(|peer| peer.attempts.note_away(tick.now));
        }
    }

    /// Is there a session with `peer` in every network that both are in, and a path for it?
    pub(crate) fn is_reached(&self, id: PeerId) -> bool {
        let Some(session) = self.peers.tunnels.current(id) else {
            return false;
        };
        let has_path = |peer: &Peer| peer.agent.chosen().is_some();
        let mut common = self
            .networks
            .all
            .iter()
            .filter(|network| network.directory.member(&id).is_some());
        self.peers.known.get(&id).is_some_and(has_path)
            && common.all(|network| {
                let id = network.secret.id;
                session.networks.iter().any(|shared| shared.network == id)
            })
    }

    /// Does what can be done to get a session with `peer`: a handshake on every path that may work,
    /// and a greeting through the control plane, so that it does the same.
    pub(crate) fn reach(&mut self, tick: Tick, id: PeerId) {
        if self.is_reached(id) || id == self.standing.identity.me {
            return;
        }
        self.greet(tick, id);
        let routes = self.candidates.underlay.routes();
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        let Some(static_key) = peer.static_key else {
            return;
        };
        let paths = peer
            .whereabouts
            .handshake_paths(self.candidates.underlay.filter(), &routes);
        if !paths.is_empty() && peer.attempts.may_dial(tick.now) {
            self.peers.tunnels.connect(
                tick.now,
                tick.wall,
                &mut self.outside.entropy,
                id,
                static_key,
                &paths,
            );
        }
    }

    /// Shows our card to `peer` through a third party, not too often.
    fn greet(&mut self, tick: Tick, id: PeerId) {
        if !self.candidates.is_any_up() {
            // It would count as tried.
            return;
        }
        let Some(peer) = self.peers.known.get_mut(&id) else {
            return;
        };
        if !peer.attempts.may_greet(tick.now) || !self.show_card(tick, id) {
            return;
        }
        // Whoever is greeted may be heard by the relay; an earlier permit may have got lost.
        self.permit(id);
    }

    /// Seals a signal to a member of `net`.
    pub(crate) fn seal_to_member(
        &mut self,
        tick: Tick,
        net: NetIndex,
        to: PeerId,
        signal: Signal,
    ) -> Option<Vec<u8>> {
        let next = self.outside.store.sequences.next(tick.wall);
        self.refill_sequences(tick);
        let Some(sequence) = next else {
            // A later run might use the number again; the user is told of the disk.
            tracing::debug!("nobody is greeted before the disk takes numbers");
            return None;
        };
        let routed = RoutedSignal {
            from: self.standing.identity.me,
            to,
            sequence,
            signal,
        };
        let epoch_key = self.networks.all.get(usize::from(net.0))?.secret.epoch_key;
        let overlay = self.standing.identity.membership.overlay();
        seal_signal(
            &routed,
            &self.standing.identity.key,
            &overlay,
            &epoch_key,
            &mut self.outside.entropy,
        )
        .map_err(|reason| self.outside.drops.count(reason))
        .ok()
    }

    /// `id` gave a sign: where too many peers are known, one that is away makes room for it.
    fn make_room_for(&mut self, tick: Tick, id: PeerId) {
        if self.peers.known.len() < MAX_PEERS || self.peers.known.contains_key(&id) {
            return;
        }
        let away = self.peers.known.values().filter(|peer| {
            let in_session = self.peers.tunnels.current(peer.id).is_some();
            !in_session && peer.is_away(tick.now)
        });
        let longest = away.min_by_key(|peer| (peer.heard.at, peer.since, peer.id));
        if let Some(gone) = longest.map(|peer| peer.id) {
            self.forget_peer(gone);
        }
    }

    /// Makes a peer; `None` if there is one already or there are too many.
    pub(crate) fn new_peer(&mut self, tick: Tick, id: PeerId) -> Option<&mut Peer> {
        if self.peers.known.contains_key(&id) || self.is_out() {
            return None;
        }
        if self.peers.known.len() >= MAX_PEERS {
            self.outside.drops.count(DropReason::RosterInvalid);
            return None;
        }
        let (_, candidates) = self.candidates.underlay.candidates();
        let filter = self.candidates.underlay.filter().clone();
        let mut agent = PathAgent::new(tick.now, filter, self.standing.identity.me < id);
        agent.set_local_candidates(tick.now, candidates);
        self.outside.fib_stale = true;
        self.standing.theirs.meet(id);
        Some(self.peers.known.entry(id).or_insert(Peer::new(
            tick.now,
            id,
            agent,
            self.outside.entropy.next_u32(),
        )))
    }

    /// A handshake proved who `id` is: it need not have shown a card before.
    pub(crate) fn meet_in_handshake(
        &mut self,
        tick: Tick,
        id: PeerId,
        networks: &[NetworkId],
        chain: &[u8],
        static_key: [u8; 32],
    ) {
        let name = self
            .standing
            .identity
            .verify_chain(chain, tick.wall)
            .ok()
            .and_then(|member| member.name);
        let routes = self.candidates.underlay.routes();
        self.make_room_for(tick, id);
        if let Some(peer) = self.new_peer(tick, id) {
            peer.offer_relay(tick.now, &routes);
            self.permit(id);
        }
        if let Some(peer) = self.peers.known.get_mut(&id) {
            peer.static_key = Some(static_key);
            peer.name.signed = name;
            self.peers.changed = true;
        }
        let shared: Vec<NetIndex> = self
            .networks
            .all
            .iter()
            .filter(|network| networks.contains(&network.secret.id))
            .map(|network| network.index)
            .collect();
        for net in shared {
            self.verify_member(tick, net, id, chain);
        }
    }
}
