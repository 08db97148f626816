//! What people call the nodes.
//!
//! A name counts only if the authority signed it (TRUST.md 5). Where it signed none, the node's card
//! says what the host calls itself. Such a name is shown as unsigned, and never if a node with a
//! signed name is called the same: nobody takes another's name by saying so.

use std::collections::{BTreeMap, BTreeSet};

use overlay_proto::ids::PeerId;
use overlay_proto::membership::Chain;
use overlay_proto::time::UnixTime;

use crate::api::ShownName;
use crate::peer_name::PeerName;

/// Peers that are told of a new name at once; the others see it in the next card.
pub(crate) const TOLD_AT_ONCE: usize = 64;

/// Names as they are shown at one moment. Bound: one entry a peer.
pub(crate) struct Names(BTreeMap<PeerId, ShownName>);

impl Names {
    /// The names of this node, of all peers and of all members: by the certificates that came with the
    /// rosters, which a renewal reaches at once, or else by those that peers showed when their sessions began.
    pub(crate) fn collect<'a>(
        (me, own): (PeerId, PeerName),
        peers: impl Iterator<Item = (PeerId, &'a PeerName)>,
        certificates: impl Iterator<Item = (PeerId, &'a [u8])>,
    ) -> Self {
        let mut all: BTreeMap<PeerId, PeerName> = BTreeMap::from([(me, own)]);
        all.extend(peers.map(|(id, name)| (id, name.clone())));
        let mut newest: BTreeMap<PeerId, UnixTime> = BTreeMap::new();
        for (id, chain) in certificates {
            let name = all.entry(id).or_default();
            let Ok(chain) = Chain::decode(chain) else {
                continue;
            };
            let is_newer = newest.get(&id).is_none_or(|end| *end < chain.claimed_end());
            // Our own says the membership.
            if let Some(signed) = chain.claimed_name()
                && is_newer
                && id != me
            {
                newest.insert(id, chain.claimed_end());
                name.signed = Some(signed.to_owned());
            }
        }
        Self::of(all.iter().map(|(id, name)| (*id, name)))
    }

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

/// The name that the authority has signed: `chain` came with the roster; `shown` is that of the certificate that the
/// peer showed when its session began.
pub(crate) fn signed_name(chain: Option<&[u8]>, shown: Option<&str>) -> Option<String> {
    let chain = chain.and_then(|chain| Chain::decode(chain).ok());
    let signed = chain.as_ref().and_then(Chain::claimed_name).or(shown);
    signed.map(str::to_owned)
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
