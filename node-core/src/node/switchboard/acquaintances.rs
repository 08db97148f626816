//! Peers become known, are told where we are, are sought, and are forgotten.

use nat_traversal::candidate::Candidate;
use overlay_proto::Entropy;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::switching::NetIndex;

use super::run::{HOUSEKEEPING, Node};
use crate::node::peers::peer::Peer;
use crate::node::peers::whereabouts::ListSource;
use crate::node::tick::Tick;

impl Node {
    /// Makes a peer; `None` if there is one already or there are too many, or if this node meets nobody.
    pub(crate) fn new_peer(&mut self, tick: Tick, id: PeerId) -> Option<&mut Peer> {
        if self.peers.known.contains_key(&id) || self.standing.is_out() {
            return None;
        }
        let (me, ours) = (
            self.standing.identity.me,
            self.candidates.underlay.addresses(),
        );
        let peer = self
            .peers
            .meet(tick.now, (me, id), &ours, &mut self.outside)?;
        self.standing.theirs.meet(id);
        Some(peer)
    }

    /// `id` gave a sign: it is known from now on, and the relays may hear it; where there are too many peers, one
    /// that is away makes room for it. `true`: it was not known before.
    pub(crate) fn meet(&mut self, tick: Tick, id: PeerId) -> bool {
        if let Some(gone) = self.peers.who_makes_room(tick.now, id) {
            self.forget_peer(gone);
        }
        self.new_peer(tick, id).is_some()
    }

    /// `id` is known no more; `false`: nor was it before. Its sessions are another matter.
    pub(crate) fn forget_peer(&mut self, id: PeerId) -> bool {
        self.standing.theirs.forget(id);
        self.peers.forget(id)
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
        let member = self.standing.identity.verify_chain(chain, tick.wall).ok();
        let name = member.and_then(|member| member.name);
        if self.meet(tick, id) {
            let routes = self.candidates.underlay.routes();
            if let Some(peer) = self.peers.known.get_mut(&id) {
                peer.offer_relay(tick.now, &routes);
            }
            self.permit(id);
        }
        self.peers.note_proven(id, static_key, name, None);
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

    /// Our candidates changed: everyone who knows the old ones is told.
    pub(crate) fn spread_candidates(&mut self, tick: Tick) {
        self.introductions.schedule.renew();
        let ids: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for id in ids {
            let ours = self.candidates.underlay.addresses();
            if self.peers.follow_addresses(tick.now, id, &ours) {
                self.reach(tick, id);
            }
            self.tell_candidates(tick, id);
            self.touch_peer(id);
        }
        self.lay_down_cards(tick);
    }

    /// Tells one peer our candidates in its session, once per sequence.
    pub(crate) fn tell_candidates(&mut self, tick: Tick, id: PeerId) {
        let ours = self.candidates.underlay.addresses();
        let owed = self
            .peers
            .tell_candidates(tick.now, id, &ours, &self.outside);
        self.note_owed(id, owed);
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
        let (list, out) = ((source, candidates), &mut self.outside);
        self.peers
            .learn_candidates(tick.now, id, list, &routes, out);
    }

    /// Is there a session with `peer` in every network that both are in, and a path for it?
    pub(crate) fn is_reached(&self, id: PeerId) -> bool {
        let networks = self.networks.all.iter();
        let common = networks.filter(|network| network.directory.member(&id).is_some());
        self.peers
            .is_reached(id, common.map(|network| network.secret.id))
    }

    fn unreached(&self) -> Vec<PeerId> {
        let ids = self.peers.known.keys().copied();
        ids.filter(|id| !self.is_reached(*id)).collect()
    }

    /// A bootstrap is up: whoever is not reached may be there again, too. All are sought soon, each node at a moment of its own, since all
    /// see a bootstrap that has restarted at about the same time.
    pub(crate) fn seek_anew(&mut self, tick: Tick) {
        let unreached = self.unreached();
        self.peers.hasten(&unreached);
        let chance = f64::from(self.outside.entropy.next_u32()) / f64::from(u32::MAX);
        let soon = tick.now + HOUSEKEEPING.mul_f64(chance);
        self.rounds.next_housekeeping = self.rounds.next_housekeeping.min(soon);
    }

    /// Seeks those that are not reached.
    pub(crate) fn seek_unreached(&mut self, tick: Tick) {
        let unreached = self.unreached();
        for id in self.peers.take_turns(tick.now, &unreached) {
            self.reach(tick, id);
        }
        self.outside.fib_stale |= self.peers.note_away(tick.now, &unreached);
    }

    /// Does what can be done to get a session with `peer`: a handshake on every path that may work,
    /// and a greeting through the control plane, so that it does the same.
    pub(crate) fn reach(&mut self, tick: Tick, id: PeerId) {
        if self.is_reached(id) || id == self.standing.identity.me {
            return;
        }
        self.greet(tick, id);
        let underlay = &self.candidates.underlay;
        let (filter, routes) = (underlay.filter(), underlay.routes());
        self.peers
            .dial(tick, id, (filter, &routes), &mut self.outside);
    }

    /// Shows our card to `peer` through a third party, not too often.
    fn greet(&mut self, tick: Tick, id: PeerId) {
        if !self.candidates.is_any_up() {
            // It would count as tried.
            return;
        }
        if self.peers.may_greet(tick.now, id) && self.show_card(tick, id) {
            // Whoever is greeted may be heard by the relay; an earlier permit may have got lost.
            self.permit(id);
        }
    }
}
