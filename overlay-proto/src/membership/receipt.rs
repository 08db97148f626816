//! A witness's receipt: this node used this invite at this time (TRUST.md 4).

use serde::{Deserialize, Serialize};

use super::codec;
use super::error::MembershipError;
use super::keys::InviteId;
use super::root::CLOCK_TOLERANCE;
use super::signed::{Label, NodeKey, SignedPart};
use crate::ids::{OverlayId, PeerId};
use crate::time::UnixTime;

/// Whether a certificate needs a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptPolicy {
    /// A certificate without one counts; one that is there must be right.
    IfPresent,
    /// A certificate without one is refused.
    Required,
}

/// The one place that says whether members ask for receipts.
pub const RECEIPT_POLICY: ReceiptPolicy = ReceiptPolicy::Required;

const VERSION: u8 = 1;
const MAX_BYTES: usize = 80;

/// What a witness signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The node that joined.
    pub peer: PeerId,
    /// The invite it used.
    pub invite: InviteId,
    /// When the witness saw it.
    pub time: UnixTime,
}

impl Receipt {
    /// The receipt, signed by `witness`.
    #[must_use]
    pub fn sign(&self, witness: &NodeKey, overlay: OverlayId) -> SignedPart {
        witness.sign_part(Label::RECEIPT, overlay, codec::encode(VERSION, self))
    }

    /// What `part` says; not verified.
    pub(super) fn read(part: &SignedPart) -> Result<Self, MembershipError> {
        codec::decode("receipt", VERSION, MAX_BYTES, &part.bytes)
    }

    /// Does `part` say that `peer` used `invite` before `join_until`, in the words of `witness`?
    pub(super) fn check(
        part: &SignedPart,
        overlay: OverlayId,
        witness: PeerId,
        (peer, invite): (PeerId, InviteId),
        join_until: UnixTime,
    ) -> Result<(), MembershipError> {
        let receipt = Self::read(part)?;
        part.verify(&witness.0, Label::RECEIPT, overlay)?;
        let in_time = receipt.time <= join_until.plus(CLOCK_TOLERANCE);
        if receipt.peer == peer && receipt.invite == invite && in_time {
            Ok(())
        } else {
            Err(MembershipError::ReceiptInvalid)
        }
    }
}
