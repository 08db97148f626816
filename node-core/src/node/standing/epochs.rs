//! The epochs of the networks (TRUST.md 8): which keys cards, signals and records go by, and how a
//! new one gets to the members that were not told.
//!
//! A new epoch comes by `farlan apply -` or from a peer, is put on disk, and is in use at once: the
//! cards are laid down anew, the claims published anew, sessions are not touched. Members tell each
//! other in which epoch they are when their session begins to share a network. Whoever is ahead
//! hands the epoch on, as the authority signed it, if the peer's certificates prove the network,
//! and if the revocation list that goes with the epoch is here: without it nobody could know who
//! must not get the key.

use std::time::Duration;

use crate::store::{Edit, Edited, Write};
use anyhow::Result;
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{RevocationNumber, SignedEpoch};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use crate::node::switchboard::run::Node;
use crate::node::switchboard::written::are_same;
use crate::node::tick::Tick;

/// New cards are laid down within this, so that the members of a network do not all come at once;
/// as with the claims, less than the 5 s of DIRECTORY.md.
const LAY_JITTER: Duration = Duration::from_secs(4);

impl Node {
    /// The networks go by the epochs of the membership; also when the key before has to be given up.
    pub(crate) fn follow_epochs(&mut self, tick: Tick) {
        let membership = &self.standing.identity.membership;
        let now = membership.roots().now(tick.wall);
        for network in &mut self.networks.all {
            let id = network.secret.id;
            let Some(secret) = membership.networks().iter().find(|n| n.id == id) else {
                continue;
            };
            network.old_epoch = membership.old_epoch(&id, tick.wall).cloned();
            if secret.epoch != network.secret.epoch {
                tracing::info!(network = %secret.name, epoch = secret.epoch, "a new epoch");
                network.secret = secret.clone();
                let jitter = self.outside.entropy.next_u32() % 1_000;
                network.register_at = Some(tick.now + LAY_JITTER * jitter / 1_000);
            }
            let old = network.old_epoch.as_ref().and_then(|old| old.read_at(now));
            let key = network.secret.epoch_key;
            network.directory.set_epoch(tick.now, key, old.copied());
            self.networks.touched.insert(network.index);
        }
    }

    /// A session with `peer` shares `networks` from now on: says in which epoch of each we are.
    pub(crate) fn tell_epochs(&mut self, tick: Tick, peer: PeerId, networks: &[NetworkId]) {
        let told: Vec<(NetworkId, u64)> = self
            .networks
            .all
            .iter()
            .map(|network| (network.secret.id, network.secret.epoch))
            .filter(|(id, _)| networks.contains(id))
            .collect();
        for (id, epoch) in told {
            let network = NetworkTag::from(&id);
            let message = PeerMessage::EpochNumber { network, epoch };
            self.send_message(tick, peer, &message);
        }
    }

    /// `peer` says in which epoch it is.
    pub(crate) fn handle_epoch_number(
        &mut self,
        tick: Tick,
        id: PeerId,
        tag: NetworkTag,
        epoch: u64,
    ) {
        let Some(network) = self.shared_network(id, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        // Not the higher of both: what it was handed in an earlier session may have got lost.
        self.standing.theirs.note_epoch(id, network, epoch);
        self.offer_epoch(tick, id, network);
    }

    /// `peer` handed an epoch on. The authority's signature makes it count, not who brings it.
    pub(crate) fn handle_epoch(&mut self, tick: Tick, id: PeerId, tag: NetworkTag, signed: &[u8]) {
        let Some(network) = self.shared_network(id, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        let signed = match SignedEpoch::decode(signed) {
            Ok(signed) if signed.claimed_network() == Some(network) => signed,
            _ => return self.outside.drops.count(DropReason::ControlMalformed),
        };
        let epoch = signed.claimed_epoch().unwrap_or_default();
        self.standing.theirs.raise_epoch(id, network, epoch);
        // What is known need not be verified again.
        let ours = self.standing.identity.membership.signed_epoch(&network);
        if ours.and_then(SignedEpoch::claimed_epoch) >= Some(epoch) {
            return;
        }
        if let Err(error) = self.learn_epoch(tick, signed) {
            tracing::warn!(peer = %id, "an epoch does not count: {error:#}");
            self.outside.drops.count(DropReason::CertificateRefused);
        }
    }

    /// Hands each network's epoch to the peers in a session that are behind and may have it. To be
    /// called whenever that may have changed: a new epoch, a newer revocation list.
    pub(crate) fn spread_epochs(&mut self, tick: Tick) {
        let behind: Vec<(PeerId, NetworkId)> = self
            .peers
            .known
            .values()
            .flat_map(|peer| peer.shared.iter().map(|network| (peer.id, *network)))
            .collect();
        for (peer, network) in behind {
            self.offer_epoch(tick, peer, network);
        }
    }

    fn offer_epoch(&mut self, tick: Tick, id: PeerId, network: NetworkId) {
        // Before it has said where it is, nothing is sent; afterwards nothing twice.
        let Some(theirs) = self.standing.theirs.epoch(id, &network) else {
            return;
        };
        let Some(signed) = self.standing.identity.membership.signed_epoch(&network) else {
            return;
        };
        let ours = signed.claimed_epoch().unwrap_or_default();
        if theirs >= ours
            || self.peers.tunnels.current(id).is_none()
            || !self.may_have_epoch(tick, id, &network, signed)
        {
            return;
        }
        let bytes = signed.encode();
        let message = PeerMessage::Epoch {
            network: NetworkTag::from(&network),
            signed: &bytes,
        };
        // Noted first: if it does not get there that is taken back.
        self.standing.theirs.note_epoch(id, network, ours);
        self.send_message(tick, id, &message);
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
        let rights = self
            .standing
            .identity
            .verifier
            .rights_in(peer, network, tick.wall);
        rights.is_some() && epoch.may_be_handed_on(self.held_list())
    }

    /// The newest revocation list that this node goes by.
    fn held_list(&self) -> RevocationNumber {
        self.standing.revocations.held.number()
    }

    /// On disk first. If the disk refuses, the epoch is used all the same: a restart asks for it
    /// again.
    fn learn_epoch(&mut self, tick: Tick, signed: SignedEpoch) -> Result<()> {
        let mut membership = self.standing.identity.membership.clone();
        if membership.take_epoch(&signed, tick.wall)? {
            let edit = Edit::TakeEpoch(Box::new(signed));
            self.outside.store.put(Write::Edit(edit));
        }
        Ok(())
    }

    /// An epoch is on disk, or is in use without.
    pub(crate) fn handle_epoch_kept(&mut self, tick: Tick, edit: &Edit, edited: Result<Edited>) {
        let ours = self.edited_in_memory(tick, edit);
        let is_alone = matches!((&edited, &ours), (Ok(there), Ok(here)) if are_same(
            &there.membership,
            &here.membership,
        ));
        if !is_alone {
            // Another program has changed more than that, or it does not count.
            if let Err(error) = self.adopt_edited(tick, edited) {
                tracing::error!("the new epoch is not used: {error:#}");
            }
            return;
        }
        if let Ok(ours) = ours {
            self.standing.identity.membership = ours.membership;
        }
        self.follow_epochs(tick);
        self.spread_epochs(tick);
    }

    /// The network of that tag, if the session with `peer` shares it.
    pub(crate) fn shared_network(&self, peer: PeerId, tag: NetworkTag) -> Option<NetworkId> {
        let session = self.peers.tunnels.current(peer)?;
        let mut shared = session.networks.iter().map(|shared| shared.network);
        shared.find(|network| NetworkTag::from(network) == tag)
    }
}
