//! The chain's last link: a node's ed25519 key signs its x25519 static key (TRUST.md 10).

use serde::{Deserialize, Serialize};

use super::codec;
use super::error::MembershipError;
use super::root::CLOCK_TOLERANCE;
use super::signed::{Label, NodeKey, SignedPart};
use crate::ids::{OverlayId, PeerId};
use crate::time::UnixTime;

const VERSION: u8 = 1;
/// Version, key, two varints of at most 10 bytes.
const MAX_BODY_BYTES: usize = 1 + 32 + 10 + 10;
/// The body, its length, the signature, the version.
const MAX_BYTES: usize = MAX_BODY_BYTES + 1 + 64 + 1;

/// What a node says about its x25519 static key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticBinding {
    /// The x25519 public key.
    pub public: [u8; 32],
    /// Grows with each new key or date; the highest counts.
    pub sequence: u64,
    /// The last second in which it counts.
    pub not_after: UnixTime,
}

/// A [`StaticBinding`] under the node's signature. Encoded: at most 119 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatic(SignedPart);

impl SignedStatic {
    /// The most bytes of [`SignedStatic::encode`].
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// Signs `binding` as the node.
    #[must_use]
    pub fn sign(node: &NodeKey, overlay: OverlayId, binding: &StaticBinding) -> Self {
        Self(node.sign_part(Label::STATIC, overlay, codec::encode(VERSION, binding)))
    }

    /// The bytes for the wire or the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.0)
    }

    /// Reads [`SignedStatic::encode`]; nothing is verified yet.
    ///
    /// # Errors
    /// Too long, malformed, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let part: SignedPart = codec::decode("signed static", VERSION, MAX_BYTES, bytes)?;
        codec::decode::<StaticBinding>("signed static", VERSION, MAX_BODY_BYTES, &part.bytes)?;
        Ok(Self(part))
    }

    /// The binding, if `peer` signed it for `overlay` and it has not ended at `wall`.
    ///
    /// # Errors
    /// [`MembershipError::BadSignature`], [`MembershipError::Expired`], or a malformed body.
    pub fn verify(
        &self,
        peer: PeerId,
        overlay: OverlayId,
        wall: UnixTime,
    ) -> Result<StaticBinding, MembershipError> {
        self.0.verify(&peer.0, Label::STATIC, overlay)?;
        let binding: StaticBinding =
            codec::decode("signed static", VERSION, MAX_BODY_BYTES, &self.0.bytes)?;
        if wall > binding.not_after.plus(CLOCK_TOLERANCE) {
            return Err(MembershipError::Expired {
                until: binding.not_after,
            });
        }
        Ok(binding)
    }
}
