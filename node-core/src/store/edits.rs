//! Changes of the membership, as data. `farlan join` writes the same file, so the shell takes the lock and applies an
//! edit to what is there.

use overlay_proto::ids::NetworkName;
use overlay_proto::membership::{
    Chain, Membership, MembershipError, RevocationLine, RootStore, SignedEpoch,
};
use overlay_proto::time::UnixTime;

/// A change of the membership. Each may be applied again, and in any order with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// None: another program changed it, and what is there is to be told.
    Look,
    /// The witness's receipt is in this certificate.
    TakeReceipt(Box<Chain>),
    /// A member handed an epoch on.
    TakeEpoch(Box<SignedEpoch>),
    /// Certificates that have ended and keys of epochs long gone are erased.
    ForgetEnded,
    /// The gate goes by these documents.
    FollowRoots(Box<RootStore>),
    /// The documents of a line that a user gave.
    ApplyRoots(Box<RevocationLine>),
    /// Its epochs.
    ApplyEpochs(Box<RevocationLine>),
}

/// The membership does not take an edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Root documents.
    #[error("the revocation is of another overlay, or forged: {0}")]
    Roots(MembershipError),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] MembershipError),
}

impl Edit {
    /// Applies it, and tells the networks that have a new epoch by it.
    ///
    /// # Errors
    /// [`EditError`]; keep nothing of `membership` then.
    pub fn apply(
        &self,
        membership: &mut Membership,
        wall: UnixTime,
    ) -> Result<Vec<NetworkName>, EditError> {
        match self {
            Self::Look => {}
            Self::TakeReceipt(chain) => membership.take_receipt(Chain::clone(chain))?,
            Self::TakeEpoch(signed) => {
                membership.take_epoch(signed, wall)?;
            }
            Self::ForgetEnded => {
                membership.forget_ended(wall);
            }
            Self::FollowRoots(roots) => {
                let known = membership.roots().newest().version;
                for root in roots.above(known) {
                    membership.roots_mut().advance(root.clone())?;
                }
            }
            Self::ApplyRoots(line) => take_roots(membership.roots_mut(), line)?,
            Self::ApplyEpochs(line) => return Ok(take_epochs(membership, line, wall)?),
        }
        Ok(Vec::new())
    }

    /// Did the node learn it by itself? Then it counts whatever the disk says.
    #[must_use]
    pub const fn is_learnt(&self) -> bool {
        match self {
            Self::TakeReceipt(_)
            | Self::TakeEpoch(_)
            | Self::ForgetEnded
            | Self::FollowRoots(_) => true,
            Self::Look | Self::ApplyRoots(_) | Self::ApplyEpochs(_) => false,
        }
    }
}

/// Root documents that this node missed.
///
/// # Errors
/// [`EditError::Roots`].
pub fn take_roots(roots: &mut RootStore, line: &RevocationLine) -> Result<(), EditError> {
    for root in &line.roots {
        roots.advance(root.clone()).map_err(EditError::Roots)?;
    }
    Ok(())
}

/// The epochs of this node's networks, and which of these are new; those of others are none of its business.
///
/// # Errors
/// One is malformed, or signed by nobody known.
pub fn take_epochs(
    membership: &mut Membership,
    line: &RevocationLine,
    wall: UnixTime,
) -> Result<Vec<NetworkName>, MembershipError> {
    let mut begun = Vec::new();
    for bytes in &line.epochs {
        let epoch = SignedEpoch::decode(bytes)?;
        let id = epoch.claimed_network();
        if membership.take_epoch(&epoch, wall)? {
            let networks = membership.networks().iter();
            begun.extend(
                networks
                    .filter(|network| Some(network.id) == id)
                    .map(|network| network.name.clone()),
            );
        }
    }
    Ok(begun)
}

/// But for the clock's floor, which a run of the node may have raised.
pub(crate) fn are_same(one: &Membership, other: &Membership) -> bool {
    let (mut one, mut other) = (one.clone(), other.clone());
    let floor = one.roots().floor().max(other.roots().floor());
    one.roots_mut().raise_floor(floor);
    other.roots_mut().raise_floor(floor);
    one == other
}
