//! Which of its certificates a node shows, and whom it dials with it (TRUST.md 4, 8).

use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Chain, Membership, Revocations};

use crate::control::BootstrapAddr;

/// A membership without a certificate; what is on disk always has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the membership has no chain")]
pub struct NoChain;

/// The certificate to show: the usual one, or one that is not revoked; `None` if all are.
#[must_use]
pub fn showable<'a>(
    membership: &'a Membership,
    revocations: &Revocations,
    me: PeerId,
) -> Option<&'a Chain> {
    let counts = |chain: &&Chain| revocations.check(me, chain.claimed_invite()).is_ok();
    let usual = membership.chain().filter(counts);
    let with_receipt = |chain: &&Chain| chain.has_receipt();
    let others = || membership.chains().iter().filter(counts);
    usual
        .or_else(|| others().find(with_receipt))
        .or_else(|| others().next())
}

/// Does no certificate of this node count any more?
#[must_use]
pub fn is_out(membership: &Membership, revocations: &Revocations, me: PeerId) -> bool {
    showable(membership, revocations, me).is_none()
}

/// The certificate that is shown; a revoked one if there is no other.
///
/// # Errors
/// [`NoChain`].
pub fn own_chain<'a>(
    membership: &'a Membership,
    revocations: &Revocations,
    me: PeerId,
) -> Result<&'a Chain, NoChain> {
    showable(membership, revocations, me)
        .or_else(|| membership.chain())
        .ok_or(NoChain)
}

/// The addresses of the bootstraps to dial: of all, or of the witness while it has not given the
/// receipt; of none if this node is revoked, since each would refuse it each time.
#[must_use]
pub fn bootstraps_to_dial(
    membership: &Membership,
    revocations: &Revocations,
    me: PeerId,
) -> Vec<BootstrapAddr> {
    let Some(shown) = showable(membership, revocations, me) else {
        return Vec::new();
    };
    let awaited = (!shown.has_receipt()).then(|| shown.claimed_witness());
    let all = membership.bootstraps().iter();
    all.map(|text| BootstrapAddr::new(text))
        .filter(|addr| awaited.is_none() || addr.peer() == awaited)
        .collect()
}

#[cfg(test)]
mod tests;
