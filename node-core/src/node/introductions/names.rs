//! What people call the nodes.
//!
//! A name counts only if the authority signed it (TRUST.md 5). Where it signed none, the node's card
//! says what the host calls itself. Such a name is shown as unsigned, and never if a node with a
//! signed name is called the same: nobody takes another's name by saying so.

use std::collections::{BTreeMap, BTreeSet};

use crate::peer_name::PeerName;
use crate::questions::Question;
use crate::store::Write;
use anyhow::{Result, bail};
use overlay_proto::directory::Signal;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::Chain;
use overlay_proto::time::UnixTime;

use crate::api::{Response, ShownName};
use crate::node::effects::CallId;
use crate::node::peers::peer::Peer;
use crate::node::storing::{Awaited, Outcome};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::users::requests::response;

/// Peers that are told of a new name at once; the others see it in the next card.
const TOLD_AT_ONCE: usize = 64;

/// Names as they are shown at one moment. Bound: one entry a peer.
pub(crate) struct Names(BTreeMap<PeerId, ShownName>);

impl Names {
    /// The names to show, of all that `own` and the peers have.
    fn of<'a>(peers: impl Iterator<Item = (PeerId, &'a PeerName)> + Clone) -> Self {
        let signed: BTreeSet<&str> = peers
            .clone()
            .filter_map(|(_, name)| name.signed.as_deref())
            .collect();
        let shown = |name: &PeerName| match (&name.signed, &name.said) {
            (Some(name), _) => ShownName::signed(name),
            (None, Some(said)) if !signed.contains(said.as_str()) => ShownName::unsigned(said),
            _ => ShownName::default(),
        };
        Self(peers.map(|(id, name)| (id, shown(name))).collect())
    }

    pub(crate) fn get(&self, id: &PeerId) -> ShownName {
        self.0.get(id).cloned().unwrap_or_default()
    }
}

impl Node {
    /// The names of this node, of all peers and of all members. A peer's signed name is the one in
    /// the certificate that came with the roster, which a renewal reaches at once, or else in the one
    /// that it showed when its session began.
    pub(crate) fn names(&self) -> Names {
        let mut all: BTreeMap<PeerId, PeerName> =
            BTreeMap::from([(self.standing.identity.me, self.own_name())]);
        let peers = self.peers.known.values();
        all.extend(peers.map(|peer| (peer.id, peer.name.clone())));
        let mut newest: BTreeMap<PeerId, UnixTime> = BTreeMap::new();
        for network in &self.networks.all {
            for (id, chain) in network.directory.certificates() {
                let name = all.entry(id).or_default();
                let Ok(chain) = Chain::decode(chain) else {
                    continue;
                };
                let is_newer = newest.get(&id).is_none_or(|end| *end < chain.claimed_end());
                // Our own says the membership.
                if let Some(signed) = chain.claimed_name()
                    && is_newer
                    && id != self.standing.identity.me
                {
                    newest.insert(id, chain.claimed_end());
                    name.signed = Some(signed.to_owned());
                }
            }
        }
        Names::of(all.iter().map(|(id, name)| (*id, name)))
    }

    /// The name that the authority has signed: its certificate came with the roster, or the peer
    /// showed it.
    pub(crate) fn name_of(&self, peer: &Peer) -> Option<String> {
        let mut directories = self.networks.all.iter().map(|network| &network.directory);
        let chain = directories.find_map(|directory| directory.certificate(&peer.id));
        let chain = chain.and_then(|chain| Chain::decode(chain).ok());
        let signed = chain.and_then(|chain| chain.claimed_name().map(str::to_owned));
        signed.or_else(|| peer.name.signed.clone())
    }

    fn own_name(&self) -> PeerName {
        let mut own = PeerName {
            signed: self.standing.identity.membership.name().map(str::to_owned),
            said: None,
        };
        own.say(&self.standing.identity.name);
        own
    }

    /// A new membership may bring a name.
    pub(crate) fn take_signed_name(&mut self) {
        if let Some(name) = self.standing.identity.membership.name() {
            name.clone_into(&mut self.standing.identity.name);
        }
    }

    /// `farlan rename`: the name that this node's card says; `None`: the host's.
    pub(crate) fn rename(&mut self, name: Option<String>, call: CallId) {
        if let Some(signed) = self.standing.identity.membership.name() {
            self.outside
                .effects
                .reply(call, Response::Error(signed_name_stays(signed)));
            return;
        }
        self.outside
            .store
            .put_for(Write::Name(name), Awaited::Renamed(call));
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
        let said = said.and_then(|_| self.take_name(tick, name));
        if let Some(Awaited::Renamed(call)) = who {
            self.outside.effects.reply(call, response(said));
        }
    }

    fn take_name(&mut self, tick: Tick, name: Option<&str>) -> Result<String> {
        // An invite may have brought one meanwhile.
        if let Some(signed) = self.standing.identity.membership.name() {
            bail!("{}", signed_name_stays(signed));
        }
        let name = name
            .map(str::to_owned)
            .or_else(|| self.outside.sight.host_name());
        self.standing.identity.name = name.unwrap_or_default();
        for network in &mut self.networks.all {
            network.register_at = None;
        }
        let met: Vec<PeerId> = self.peers.known.keys().copied().collect();
        let met = met.into_iter().filter(|id| self.is_reached(*id));
        for id in met.take(TOLD_AT_ONCE).collect::<Vec<_>>() {
            self.show_card(tick, id);
        }
        Ok(format!(
            "this node is called {} now",
            self.standing.identity.name
        ))
    }

    /// Shows our card to a member through a third party; `false` if there is no network for it.
    pub(crate) fn show_card(&mut self, tick: Tick, id: PeerId) -> bool {
        let Some(net) = self
            .networks
            .all
            .iter()
            .find(|network| network.directory.member(&id).is_some())
            .map(|network| network.index)
        else {
            return false;
        };
        let Some(card) = self.own_card(net) else {
            return false;
        };
        let Some(envelope) = self.seal_to_member(tick, net, id, Signal::Hello(card)) else {
            return false;
        };
        self.outside
            .asking
            .put(Question::Greet { to: id, envelope });
        true
    }
}

/// Why `rename` changes nothing.
pub fn signed_name_stays(signed: &str) -> String {
    format!(
        "the authority named this node `{signed}`, and that name counts; for another one type \
         `farlan invite --network NETWORK --name NAME` at the authority and `farlan join -` here"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(signed: Option<&str>, said: &str) -> PeerName {
        let mut name = PeerName {
            signed: signed.map(str::to_owned),
            said: None,
        };
        name.say(said);
        name
    }

    #[test]
    fn trust_5_a_said_name_is_marked_and_takes_nobody_elses() {
        let all = [
            name(Some("ash"), "ash"),
            name(None, "oak"),
            name(None, "ash"),
            name(None, "not a name"),
            name(Some("elm"), "ash"),
        ];
        let ids = (0..).map(|n| PeerId([n; 32]));
        let names = Names::of(ids.zip(&all));
        let shown = |n: u8| {
            let shown = names.get(&PeerId([n; 32]));
            (shown.name, shown.signed)
        };
        assert_eq!(shown(0), ("ash".to_owned(), true));
        assert_eq!(shown(1), ("oak".to_owned(), false));
        assert_eq!(shown(2), (String::new(), false));
        assert_eq!(shown(3), (String::new(), false));
        assert_eq!(shown(4), ("elm".to_owned(), true));
        assert_eq!(shown(9), (String::new(), false));
    }
}
