//! The epochs of the networks (TRUST.md 8): which keys cards, signals and records go by, and how a
//! new one gets to the members that were not told.
//!
//! A new epoch comes by `farlan apply -` or from a peer, is put on disk, and is in use at once: the
//! cards are laid down anew, the claims published anew, sessions are not touched. Members tell each
//! other in which epoch they are when their session begins to share a network. Whoever is ahead
//! hands the epoch on, as the authority signed it, if the peer's certificates prove the network,
//! and if the revocation list that goes with the epoch is here: without it nobody could know who
//! must not get the key.

use crate::store::{Edit, Edited, Write, are_same};
use anyhow::Result;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{NetworkSecret, OldEpoch, SignedEpoch};

use super::{Said, Standing};
use crate::node::outside::Outside;
use crate::node::tick::Tick;

/// The epochs of one network that hold now.
#[derive(Debug)]
pub(crate) struct Current {
    /// The network with its newest epoch, if that is another than before.
    pub(crate) begun: Option<NetworkSecret>,
    /// The epoch before, while its key is kept.
    pub(crate) old: Option<OldEpoch>,
    /// Its key, while cards and records are still read under it.
    pub(crate) read: Option<[u8; 32]>,
}

impl Standing {
    /// The epochs of a network that goes by `epoch` so far; `None`: the membership does not name it.
    pub(crate) fn epochs_of(&self, tick: Tick, id: &NetworkId, epoch: u64) -> Option<Current> {
        let membership = &self.identity.membership;
        let now = membership.roots().now(tick.wall);
        let secret = membership.networks().iter().find(|one| one.id == *id)?;
        let old = membership.old_epoch(id, tick.wall).cloned();
        let begun = (secret.epoch != epoch).then(|| secret.clone());
        if begun.is_some() {
            tracing::info!(network = %secret.name, epoch = secret.epoch, "a new epoch");
        }
        let read = old.as_ref().and_then(|old| old.read_at(now)).copied();
        Some(Current { begun, old, read })
    }

    /// `peer` says in its session in which epoch of `network` it is: ours, if it is behind.
    pub(crate) fn handle_epoch_number(
        &mut self,
        tick: Tick,
        peer: PeerId,
        network: NetworkId,
        epoch: u64,
    ) -> Option<Said> {
        // Not the higher of both: what it was handed in an earlier session may have got lost.
        self.theirs.note_epoch(peer, network, epoch);
        self.offer_epoch(tick, peer, &network)
    }

    /// `peer` handed an epoch of `network` on. The authority's signature makes it count, not who brings it.
    pub(crate) fn handle_epoch(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        (peer, network): (PeerId, NetworkId),
        signed: &[u8],
    ) {
        let signed = match SignedEpoch::decode(signed) {
            Ok(signed) if signed.claimed_network() == Some(network) => signed,
            _ => return out.drops.count(DropReason::ControlMalformed),
        };
        let epoch = signed.claimed_epoch().unwrap_or_default();
        self.theirs.raise_epoch(peer, network, epoch);
        // What is known need not be verified again.
        let ours = self.identity.membership.signed_epoch(&network);
        if ours.and_then(SignedEpoch::claimed_epoch) >= Some(epoch) {
            return;
        }
        if let Err(error) = self.learn_epoch(tick, out, signed) {
            tracing::warn!(%peer, "an epoch does not count: {error:#}");
            out.drops.count(DropReason::CertificateRefused);
        }
    }

    /// Our epoch of `network` for a peer in session that is behind and may have it. To be called whenever that may
    /// have changed: a new epoch, a newer revocation list.
    pub(crate) fn offer_epoch(
        &mut self,
        tick: Tick,
        peer: PeerId,
        network: &NetworkId,
    ) -> Option<Said> {
        // Before it has said where it is, nothing is sent; afterwards nothing twice.
        let theirs = self.theirs.epoch(peer, network)?;
        let signed = self.identity.membership.signed_epoch(network)?;
        let ours = signed.claimed_epoch().unwrap_or_default();
        if theirs >= ours || !self.may_have_epoch(tick, peer, network, signed) {
            return None;
        }
        let bytes = signed.encode();
        // Noted first: if it does not get there that is taken back.
        self.theirs.note_epoch(peer, *network, ours);
        Some(Said::Epoch(*network, bytes))
    }

    /// Has `peer` proved that it is a member, and is the revocation list here that would name it
    /// otherwise?
    fn may_have_epoch(
        &self,
        tick: Tick,
        peer: PeerId,
        network: &NetworkId,
        epoch: &SignedEpoch,
    ) -> bool {
        let held = self.revocations.held.number();
        self.has_rights(tick, peer, network) && epoch.may_be_handed_on(held)
    }

    /// On disk first. If the disk refuses, the epoch is used all the same: a restart asks for it
    /// again.
    fn learn_epoch(&self, tick: Tick, out: &mut Outside, signed: SignedEpoch) -> Result<()> {
        let mut membership = self.identity.membership.clone();
        if membership.take_epoch(&signed, tick.wall)? {
            let edit = Edit::TakeEpoch(Box::new(signed));
            out.store.put(Write::Edit(edit));
        }
        Ok(())
    }

    /// An epoch is on disk, or is in use without. `None`: it is all that is new, and the networks are to go
    /// by it; else another program has changed more than that, or it does not count, and what is returned is to be
    /// adopted whole.
    #[must_use]
    pub(crate) fn handle_epoch_kept(
        &mut self,
        tick: Tick,
        edit: &Edit,
        edited: Result<Edited>,
    ) -> Option<Result<Edited>> {
        let ours = self.edited_in_memory(tick, edit);
        match (&edited, ours) {
            (Ok(there), Ok(here)) if are_same(&there.membership, &here.membership) => {
                self.identity.membership = here.membership;
                None
            }
            _ => Some(edited),
        }
    }

    /// The own membership with `edit` applied, for as long as the node runs.
    pub(crate) fn edited_in_memory(&self, tick: Tick, edit: &Edit) -> Result<Edited> {
        let mut membership = self.identity.membership.clone();
        let begun = edit.apply(&mut membership, tick.wall)?;
        Ok(Edited { membership, begun })
    }
}
