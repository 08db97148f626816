//! Cards and greetings, ours and theirs, and what people call the nodes.

use overlay_proto::directory::{OpenedCard, SignedCard};
use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;

use super::run::Node;
use crate::node::effects::{CallId, response};
use crate::node::introductions::cards::{self, Author, Keys};
use crate::node::introductions::greetings::{self, Heard};
use crate::node::introductions::names::{Names, TOLD_AT_ONCE, signed_name};
use crate::node::networks::network::Network;
use crate::node::peers::peer::Peer;
use crate::node::peers::whereabouts::ListSource;
use crate::node::standing::identity::Identity;
use crate::node::storing::{Awaited, Outcome};
use crate::node::tick::Tick;

/// This node, as it signs.
fn author(identity: &Identity) -> Author<'_> {
    Author {
        me: identity.me,
        key: &identity.key,
        overlay: identity.membership.overlay(),
        static_document: &identity.signed_static,
        name: &identity.name,
    }
}

const fn keys(network: &Network) -> Keys<'_> {
    Keys {
        net: network.index,
        id: network.secret.id,
        newest: &network.secret.epoch_key,
        old: network.old_epoch.as_ref(),
    }
}

impl Node {
    /// Lays our card down at the bootstraps for each network where it is missing or old.
    pub(crate) fn lay_down_cards(&mut self, tick: Tick) {
        if !self.candidates.is_any_up() || !self.candidates.underlay.is_settled(tick.now) {
            return;
        }
        let now = self.standing.identity.membership.roots().now(tick.wall);
        for network in &self.networks.all {
            let schedule = &mut self.introductions.schedule;
            if !schedule.take_due(tick.now, network.index) {
                continue;
            }
            tracing::debug!(network = %network.secret.name, "our card is laid down");
            if let Some(card) = self.own_card(network) {
                cards::lay_down(&mut self.outside, &keys(network), now, &card);
            }
        }
    }

    /// Our card for one network, signed.
    fn own_card(&self, network: &Network) -> Option<SignedCard> {
        let identity = &self.standing.identity;
        let entry = network.directory.member(&identity.me)?.signed.clone();
        let chain = identity.membership.chain_for(&network.secret.id)?.encode();
        let list = self.candidates.underlay.candidates();
        author(identity).card(entry, chain, list)
    }

    /// What lay at the rendezvous of `net`.
    pub(crate) fn open_and_learn(&mut self, tick: Tick, net: NetIndex, bytes: &[u8]) {
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let membership = &self.standing.identity.membership;
        let (overlay, now) = (membership.overlay(), membership.roots().now(tick.wall));
        match cards::open(bytes, &keys(network), &overlay, now) {
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
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let identity = &self.standing.identity;
        let (member, static_key) = match identity.judge_card(card, &network.secret.id, tick.wall) {
            Ok(judged) => judged,
            Err(reason) => return self.outside.drops.count(reason),
        };
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
        let newcomer = self.meet(tick, id);
        let said = Some(card.card.name.as_str());
        if !self.peers.note_proven(id, static_key, member.name, said) {
            return;
        }
        if newcomer {
            self.permit(id);
        }
        let list = ListSource::Card(card.card.sequence);
        self.learn_candidates(tick, id, list, card.card.candidates.clone());
        self.reach(tick, id);
    }

    /// A signal came through a third party.
    pub(crate) fn handle_signal(&mut self, tick: Tick, from: PeerId, envelope: &[u8]) {
        let identity = &self.standing.identity;
        let (me, overlay) = (identity.me, identity.membership.overlay());
        let networks = self.networks.all.iter().map(keys);
        let heard = self
            .introductions
            .open((from, me), envelope, &overlay, networks);
        match heard {
            Ok(Heard::Hello(net, card)) => self.handle_hello(tick, net, from, &card),
            Ok(Heard::Bye) => self.close_peer(tick, from),
            Err(reason) => self.outside.drops.count(reason),
        }
    }

    /// `from` shows its card, now: it is there, whatever was tried before. The card may say nothing new.
    fn handle_hello(&mut self, tick: Tick, net: NetIndex, from: PeerId, card: &OpenedCard) {
        tracing::debug!(peer = %card.entry.node, "greeted");
        self.learn_card(tick, net, card);
        if card.entry.node != from || self.is_reached(from) {
            return;
        }
        let Some(answer) = self.peers.note_greeted_by(tick.now, from) else {
            return;
        };
        if answer {
            self.show_card(tick, from);
        }
        self.outside.fib_stale = true;
        self.permit(from);
        self.reach(tick, from);
    }

    /// Shows our card to a member through a third party; `false` if there is no network for it.
    pub(crate) fn show_card(&mut self, tick: Tick, id: PeerId) -> bool {
        let mut networks = self.networks.all.iter();
        let common = networks.find(|network| network.directory.member(&id).is_some());
        let Some(network) = common else {
            return false;
        };
        let Some(card) = self.own_card(network) else {
            return false;
        };
        let author = author(&self.standing.identity);
        let to = (id, &network.secret.epoch_key);
        greetings::greet(tick, &mut self.outside, &author, to, card)
    }

    /// The names of this node, of all peers and of all members.
    pub(crate) fn names(&self) -> Names {
        let own = (self.standing.identity.me, self.standing.own_name());
        let peers = self.peers.known.values();
        let networks = self.networks.all.iter();
        Names::collect(
            own,
            peers.map(|peer| (peer.id, &peer.name)),
            networks.flat_map(|network| network.directory.certificates()),
        )
    }

    /// The name of a peer that the authority has signed.
    pub(crate) fn name_of(&self, peer: &Peer) -> Option<String> {
        let mut networks = self.networks.all.iter();
        let chain = networks.find_map(|network| network.directory.certificate(&peer.id));
        signed_name(chain, peer.name.signed.as_deref())
    }

    /// A new membership may bring a name.
    pub(crate) fn take_signed_name(&mut self) {
        self.standing.take_signed_name();
    }

    /// `farlan rename`: the name that this node's card says; `None`: the host's.
    pub(crate) fn rename(&mut self, name: Option<String>, call: CallId) {
        self.standing.rename(&mut self.outside, name, call);
    }

    /// The name is on disk: it counts, and others are told.
    pub(crate) fn handle_renamed(
        &mut self,
        tick: Tick,
        name: Option<&str>,
        who: Option<Awaited>,
        result: Outcome,
    ) {
        let said = result.map_err(Into::into);
        let said = said.and_then(|_| self.standing.take_name(&self.outside, name));
        if said.is_ok() {
            self.tell_name(tick);
        }
        if let Some(Awaited::Renamed(call)) = who {
            self.outside.effects.reply(call, response(said));
        }
    }

    fn tell_name(&mut self, tick: Tick) {
        self.introductions.schedule.renew();
        let met = self.peers.known.keys().copied();
        let met = met.filter(|id| self.is_reached(*id));
        for id in met.take(TOLD_AT_ONCE).collect::<Vec<_>>() {
            self.show_card(tick, id);
        }
    }
}
