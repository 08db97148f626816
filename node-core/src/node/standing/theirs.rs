//! What each peer has shown and said of its membership.

use std::collections::BTreeMap;

use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{InviteId, Revocations};
use overlay_proto::wire::peer_message::NetworkTag;

/// What one peer has shown and said.
#[derive(Debug, Default)]
struct Shown {
    /// The invite of the certificate that it showed in its last handshake.
    invite: Option<InviteId>,
    /// The epoch of each network in which it is, by what it said and what it was handed. Kept over
    /// sessions: the word of a new one may come before the session counts as usable. No more networks
    /// than the node has.
    epochs: BTreeMap<NetworkId, u64>,
}

/// What all of them have. Of whoever is not [met](Self::meet) nothing is kept. Bound: the peers that there are;
/// removed with them.
#[derive(Debug, Default)]
pub(crate) struct Theirs(BTreeMap<PeerId, Shown>);

impl Theirs {
    /// `peer` is known from now on.
    pub(crate) fn meet(&mut self, peer: PeerId) {
        self.0.entry(peer).or_default();
    }

    /// `peer` is known no more.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Only those that `is_known` names are known.
    pub(super) fn retain(&mut self, is_known: impl Fn(&PeerId) -> bool) {
        self.0.retain(|peer, _| is_known(peer));
    }

    /// It showed a certificate in a handshake; `None`: one that cannot be read.
    pub(crate) fn note_invite(&mut self, peer: PeerId, invite: Option<InviteId>) {
        if let Some(shown) = self.0.get_mut(&peer) {
            shown.invite = invite;
        }
    }

    /// Those that `held` names, or the invite by which they were let in.
    pub(super) fn named_by(&self, held: &Revocations) -> impl Iterator<Item = PeerId> {
        let named = self.0.iter().filter(|(peer, shown)| {
            let invite = shown.invite;
            invite.is_some_and(|invite| held.names_invite(invite)) || held.names_node(**peer)
        });
        named.map(|(peer, _)| *peer)
    }

    /// The epoch of `network` in which `peer` is, as far as is known.
    pub(super) fn epoch(&self, peer: PeerId, network: &NetworkId) -> Option<u64> {
        self.0.get(&peer)?.epochs.get(network).copied()
    }

    /// It is in `epoch`, by its own word or because it was handed that one.
    pub(super) fn note_epoch(&mut self, peer: PeerId, network: NetworkId, epoch: u64) {
        if let Some(shown) = self.0.get_mut(&peer) {
            shown.epochs.insert(network, epoch);
        }
    }

    /// It hands `epoch` on, so it is at least there.
    pub(super) fn raise_epoch(&mut self, peer: PeerId, network: NetworkId, epoch: u64) {
        let known = self.epoch(peer, &network).unwrap_or_default();
        self.note_epoch(peer, network, known.max(epoch));
    }

    /// The epoch that it was handed did not get there.
    pub(crate) fn owe_epoch(&mut self, peer: PeerId, tag: NetworkTag) {
        if let Some(shown) = self.0.get_mut(&peer) {
            let known = shown.epochs.iter_mut();
            let of_it = known.filter(|(network, _)| NetworkTag::from(*network) == tag);
            of_it.for_each(|(_, epoch)| *epoch = 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASH: PeerId = PeerId([1; 32]);
    const OAK: PeerId = PeerId([2; 32]);
    const LAB: NetworkId = NetworkId([7; 32]);

    #[test]
    fn nothing_is_kept_of_whoever_is_not_known() {
        let mut theirs = Theirs::default();
        theirs.meet(ASH);
        for peer in [ASH, OAK] {
            theirs.note_epoch(peer, LAB, 3);
        }
        assert_eq!(theirs.epoch(ASH, &LAB), Some(3));
        assert_eq!(theirs.epoch(OAK, &LAB), None);
        theirs.forget(ASH);
        assert_eq!(theirs.epoch(ASH, &LAB), None);
        theirs.meet(OAK);
        theirs.retain(|peer| *peer == ASH);
        theirs.note_epoch(OAK, LAB, 3);
        assert_eq!(theirs.epoch(OAK, &LAB), None);
    }

    #[test]
    fn its_own_word_counts_also_when_it_is_lower_and_what_it_hands_on_when_it_is_higher() {
        let mut theirs = Theirs::default();
        theirs.meet(ASH);
        theirs.raise_epoch(ASH, LAB, 3);
        theirs.raise_epoch(ASH, LAB, 2);
        assert_eq!(theirs.epoch(ASH, &LAB), Some(3));
        // What it was handed in an earlier session got lost.
        theirs.note_epoch(ASH, LAB, 1);
        assert_eq!(theirs.epoch(ASH, &LAB), Some(1));
        theirs.meet(ASH);
        assert_eq!(theirs.epoch(ASH, &LAB), Some(1));
        let other = NetworkTag::from(&NetworkId([8; 32]));
        theirs.owe_epoch(ASH, other);
        assert_eq!(theirs.epoch(ASH, &LAB), Some(1));
        theirs.owe_epoch(ASH, NetworkTag::from(&LAB));
        assert_eq!(theirs.epoch(ASH, &LAB), Some(0));
    }
}
