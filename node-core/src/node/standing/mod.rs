//! Who this node is, who is a member, and until when.
//!
//! - [`identity`]: name, key, certificates. [`receipts`]: the witness's receipt, without which nobody takes our certificate.
//! - [`revocations`]: who is revoked: learnt, carried out, handed on. [`epochs`]: the networks' keys change.
//! - [`expiry`]: what ends, theirs and ours. [`twin`]: another machine with our identity.
//! - [`applying`]: `farlan apply`, step by step.

pub mod applying;
pub mod epochs;
pub mod expiry;
pub mod identity;
pub mod receipts;
pub mod revocations;
pub mod twin;

use std::sync::Arc;
use std::time::Instant;

use overlay_proto::membership::Revocations;

use expiry::Expiry;
use identity::Identity;
use revocations::Followed;
use twin::Twin;

/// Our own standing, and that of others.
#[derive(Debug)]
pub struct Standing {
    /// Who this node is, and what it is a member of.
    pub identity: Identity,
    /// Who is revoked.
    pub revocations: Followed,
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
            expiry: Expiry::new(now),
            twin: Twin::default(),
            last_refusal,
        }
    }
}
