//! Who this node is, who is a member, and until when.
//!
//! - [`identity`]: name, key, certificates. [`receipts`]: the witness's receipt, without which nobody takes our certificate.
//! - [`revocations`]: who is revoked: learnt, carried out, handed on. [`epochs`]: the networks' keys change.
//! - [`theirs`]: what each peer has shown and said of its membership. [`expiry`]: what ends, theirs and ours. [`own_name`]: what people call us. [`twin`]: another machine with our identity.
//! - [`applying`]: `farlan apply`, step by step.

pub mod applying;
pub mod epochs;
pub mod expiry;
pub mod identity;
pub mod own_name;
pub mod receipts;
pub mod revocations;
pub mod theirs;
pub mod twin;

use std::sync::Arc;
use std::time::Instant;

use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{ListState, Revocations};

use crate::node::tick::Tick;

use expiry::Expiry;
use identity::Identity;
use revocations::Followed;
use theirs::Theirs;
use twin::Twin;

/// What is to be said to a peer in session of who is a member, and by which keys.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Said {
    /// Which lists are held here: a peer with others hands them over, or asks for ours.
    Held(ListState),
    /// A list, encoded; it goes in pieces.
    List(Vec<u8>),
    /// In which epoch of a network we are.
    EpochNumber(NetworkId, u64),
    /// An epoch of a network, as the authority signed it.
    Epoch(NetworkId, Vec<u8>),
}

/// Our own standing, and that of others.
#[derive(Debug)]
pub struct Standing {
    /// Who this node is, and what it is a member of.
    pub identity: Identity,
    /// Who is revoked.
    pub revocations: Followed,
    /// What each peer has shown and said.
    pub(crate) theirs: Theirs,
    pub(crate) expiry: Expiry,
    pub(crate) twin: Twin,
    /// Why a bootstrap last refused us, for people.
    pub last_refusal: Option<String>,
}

impl Standing {
    /// `held`: the revocations that the gate had before the control plane began.
    pub(crate) fn new(
        now: Instant,
        identity: Identity,
        held: Arc<Revocations>,
        last_refusal: Option<String>,
    ) -> Self {
        let roots = identity.membership.roots().clone();
        Self {
            identity,
            revocations: Followed::new(held, roots),
            theirs: Theirs::default(),
            expiry: Expiry::new(now),
            twin: Twin::default(),
            last_refusal,
        }
    }
    /// Has `peer` proved that it is a member of `network`?
    pub(crate) fn has_rights(&self, tick: Tick, peer: PeerId, network: &NetworkId) -> bool {
        let verifier = &self.identity.verifier;
        verifier.rights_in(peer, network, tick.wall).is_some()
    }

    /// Only those that `is_known` names are known.
    pub(crate) fn retain_peers(&mut self, is_known: impl Fn(&PeerId) -> bool) {
        self.theirs.retain(&is_known);
        self.revocations.retain_talks(&is_known);
    }
}

#[cfg(test)]
mod tests;
