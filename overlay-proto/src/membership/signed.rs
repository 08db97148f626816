//! Signatures: a label, the overlay id and the exact bytes (TRUST.md 9).
//!
//! ```text
//! signed message = label | 0x00 | overlay id (32) | bytes
//! ```
//! No label holds a zero byte, so no two kinds of statement can share a message.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use nat_traversal::entropy::Entropy;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::MembershipError;
use crate::ids::{OverlayId, PeerId};

/// What kind of statement a signature makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(&'static str);

impl Label {
    /// A root document, by an authority key.
    pub const ROOT: Self = Self("farlan/root/1");
    /// The authority's part of an invite.
    pub const INVITE: Self = Self("farlan/invite/1");
    /// A node's part of a certificate, by the delegated key.
    pub const NODE: Self = Self("farlan/node/1");
    /// A witness's receipt.
    pub const RECEIPT: Self = Self("farlan/receipt/1");
    /// An epoch of a network, by an authority key.
    pub const EPOCH: Self = Self("farlan/epoch/1");
    /// The revocation list, by an authority key.
    pub const REVOCATIONS: Self = Self("farlan/revocations/1");
    /// A node's x25519 static key.
    pub const STATIC: Self = Self("farlan/static/1");

    /// A label for another kind of statement, as `farlan/KIND/VERSION`; no zero byte.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// An ed25519 signature (RFC 8032), 64 bytes everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// From the 64 bytes of RFC 8032.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut halves = Self([0; 32], [0; 32]);
        let (r, s) = bytes.split_at(32);
        halves.0.copy_from_slice(r);
        halves.1.copy_from_slice(s);
        halves
    }

    /// The 64 bytes of RFC 8032.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let (r, s) = bytes.split_at_mut(32);
        r.copy_from_slice(&self.0);
        s.copy_from_slice(&self.1);
        bytes
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "Signature({a:02x}{b:02x}..)")
    }
}

fn message(label: Label, overlay: OverlayId, bytes: &[u8]) -> Vec<u8> {
    [label.0.as_bytes(), &[0], &overlay.0, bytes].concat()
}

/// Checks that `key` signed `bytes` as a `label` of `overlay`; `verify_strict`, which refuses weak
/// keys and malleable signatures.
///
/// # Errors
/// [`MembershipError::BadSignature`], with the label.
pub fn verify_signed(
    key: &[u8; 32],
    label: Label,
    overlay: OverlayId,
    bytes: &[u8],
    signature: &Signature,
) -> Result<(), MembershipError> {
    VerifyingKey::from_bytes(key)
        .and_then(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
            key.verify_strict(&message(label, overlay, bytes), &signature)
        })
        .map_err(|_| MembershipError::BadSignature(label.0))
}

/// Exact bytes and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPart {
    /// The bytes as they were signed.
    pub bytes: Vec<u8>,
    /// By whom, the context says.
    pub signature: Signature,
}

impl SignedPart {
    /// [`verify_signed`] of this part.
    ///
    /// # Errors
    /// [`MembershipError::BadSignature`].
    pub fn verify(
        &self,
        key: &[u8; 32],
        label: Label,
        overlay: OverlayId,
    ) -> Result<(), MembershipError> {
        verify_signed(key, label, overlay, &self.bytes, &self.signature)
    }
}

/// Declares an ed25519 private key with a purpose: erased on drop, never shown.
macro_rules! signing_key {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        ///
        /// Erased on drop; `Debug` shows nothing of it.
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// From the 32 secret bytes, as kept on disk.
            #[must_use]
            pub fn from_secret(secret: &[u8; 32]) -> Self {
                Self(SigningKey::from_bytes(secret))
            }

            /// A new key.
            #[must_use]
            pub fn generate(entropy: &mut dyn Entropy) -> Self {
                let mut secret = Zeroizing::new([0; 32]);
                entropy.fill(&mut *secret);
                Self::from_secret(&secret)
            }

            /// The 32 secret bytes, for a file of mode 0600.
            #[must_use]
            pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// The public key.
            #[must_use]
            pub fn public(&self) -> [u8; 32] {
                self.0.verifying_key().to_bytes()
            }

            /// Signs `bytes` as a `label` of `overlay`.
            #[must_use]
            pub fn sign(&self, label: Label, overlay: OverlayId, bytes: &[u8]) -> Signature {
                Signature::from_bytes(&self.0.sign(&message(label, overlay, bytes)).to_bytes())
            }

            /// `bytes` with their signature.
            #[must_use]
            pub fn sign_part(
                &self,
                label: Label,
                overlay: OverlayId,
                bytes: Vec<u8>,
            ) -> SignedPart {
                let signature = self.sign(label, overlay, &bytes);
                SignedPart { bytes, signature }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

signing_key!(
    AuthorityKey,
    "The key that admits nodes; offline except when it signs."
);
signing_key!(
    NodeKey,
    "A node's identity; its public key is the node's [`PeerId`]."
);
signing_key!(
    DelegatedKey,
    "The key of one invite, which signs the nodes that use it."
);

impl NodeKey {
    /// The node's name.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.public())
    }
}
