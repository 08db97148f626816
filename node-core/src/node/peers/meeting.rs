//! Who becomes known, and what is known of whom; what they are told of our addresses.

use std::time::Instant;

use nat_traversal::agent::PathAgent;
use nat_traversal::candidate::Candidate;
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::wire::peer_message::PeerMessage;

use super::peer::Peer;
use super::undelivered::Owed;
use super::whereabouts::ListSource;
use super::{MAX_PEERS, Peers};
use crate::node::outside::Outside;
use crate::underlay::{Addresses, RelaySpot};

impl Peers {
    /// `id` gave a sign: where too many peers are known, one that is away makes room for it.
    pub(crate) fn who_makes_room(&self, now: Instant, id: PeerId) -> Option<PeerId> {
        if self.known.len() < MAX_PEERS || self.known.contains_key(&id) {
            return None;
        }
        let away = self.known.values().filter(|peer| {
            let in_session = self.tunnels.current(peer.id).is_some();
            !in_session && peer.is_away(now)
        });
        let longest = away.min_by_key(|peer| (peer.heard.at, peer.since, peer.id));
        longest.map(|peer| peer.id)
    }

    /// Makes a peer; `None` if there is one already or there are too many. `me`: of two that dial each other one
    /// gives way, by the names.
    pub(crate) fn meet(
        &mut self,
        now: Instant,
        (me, id): (PeerId, PeerId),
        ours: &Addresses<'_>,
        out: &mut Outside,
    ) -> Option<&mut Peer> {
        if self.known.contains_key(&id) {
            return None;
        }
        if self.known.len() >= MAX_PEERS {
            out.drops.count(DropReason::RosterInvalid);
            return None;
        }
        let mut agent = PathAgent::new(now, ours.filter.clone(), me < id);
        agent.set_local_candidates(now, ours.candidates);
        out.fib_stale = true;
        let peer = Peer::new(now, id, agent, out.entropy.next_u32());
        Some(self.known.entry(id).or_insert(peer))
    }

    /// `id` has proved its key and its name; `said`: what its card calls it. `false`: it is not known.
    pub(crate) fn note_proven(
        &mut self,
        id: PeerId,
        static_key: [u8; 32],
        signed: Option<String>,
        said: Option<&str>,
    ) -> bool {
        let Some(peer) = self.known.get_mut(&id) else {
            return false;
        };
        peer.static_key = Some(static_key);
        peer.name.signed = signed;
        if let Some(said) = said {
            peer.name.say(said);
        }
        self.changed = true;
        true
    }

    /// `id` said where it can be reached. `routes`: the relays that we have an allocation at.
    pub(crate) fn learn_candidates(
        &mut self,
        now: Instant,
        id: PeerId,
        (source, candidates): (ListSource, Vec<Candidate>),
        routes: &[RelaySpot],
        out: &mut Outside,
    ) {
        let Some(peer) = self.known.get_mut(&id) else {
            return;
        };
        if peer.set_candidates(now, source, candidates) {
            peer.offer_relay(now, routes);
            self.changed = true;
            // It was away perhaps, and broadcasts wait for it again.
            out.fib_stale = true;
            self.turns.touch(id);
        }
    }

    /// Our addresses are `ours` now. `true`: there is a relay in common that was not before.
    pub(crate) fn follow_addresses(
        &mut self,
        now: Instant,
        id: PeerId,
        ours: &Addresses<'_>,
    ) -> bool {
        let Some(peer) = self.known.get_mut(&id) else {
            return false;
        };
        let agent = &mut peer.agent;
        agent.set_local_candidates(now, ours.candidates);
        agent.set_nat(ours.mapping, peer.whereabouts.mapping, false);
        agent.set_filter(now, ours.filter.clone());
        peer.offer_relay(now, &ours.routes)
    }

    /// Tells `id` our candidates in its session, once per sequence.
    pub(crate) fn tell_candidates(
        &mut self,
        now: Instant,
        id: PeerId,
        ours: &Addresses<'_>,
        out: &Outside,
    ) -> Owed {
        let in_session = self.tunnels.current(id).is_some();
        let peer = self.known.get_mut(&id).filter(|_| in_session);
        let Some(peer) = peer.filter(|peer| peer.told_sequence < ours.sequence) else {
            return Owed::Nothing;
        };
        peer.told_sequence = ours.sequence;
        let message = PeerMessage::Candidates {
            sequence: ours.sequence,
            mapping: ours.mapping,
            candidates: ours.candidates.to_vec(),
        };
        self.queue(now, id, &message, out)
    }
}
