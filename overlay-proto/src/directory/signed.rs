//! What a node states and signs: a label, the overlay id and the exact bytes (TRUST.md 9).
//!
//! [`Signed`] keeps the bytes as they were signed and passes them on unchanged; nobody encodes a
//! document of somebody else again.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::drop_reason::DropReason;
use crate::ids::{OverlayId, PeerId};
use crate::membership::{Label, NodeKey, Signature, verify_signed};

/// A kind of document that nodes sign.
pub trait Document: Serialize + DeserializeOwned {
    /// The label under the signature.
    const LABEL: Label;
    /// The largest encoding that counts, in bytes, version byte included.
    const MAX_BYTES: usize;
    /// The name under which a bad one is dropped.
    const REFUSED: DropReason;

    /// Is the content sound by itself, when `signer` states it?
    ///
    /// # Errors
    /// Why it is not.
    fn check(&self, signer: &PeerId) -> Result<(), DropReason>;
}

/// The version byte of every document and message of the directory.
pub const VERSION: u8 = 1;

/// A document as it was signed: the exact bytes, who signed, the signature.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<D> {
    bytes: Vec<u8>,
    signer: PeerId,
    signature: Signature,
    #[serde(skip)]
    kind: PhantomData<fn() -> D>,
}

impl<D> Clone for Signed<D> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            signer: self.signer,
            signature: self.signature,
            kind: PhantomData,
        }
    }
}

impl<D> PartialEq for Signed<D> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
            && self.signer == other.signer
            && self.signature == other.signature
    }
}

impl<D> Eq for Signed<D> {}

impl<D> fmt::Debug for Signed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes by {})", self.bytes.len(), self.signer)
    }
}

impl<D: Document> Signed<D> {
    /// Encodes and signs `document`.
    ///
    /// # Errors
    /// [`Document::REFUSED`] or what [`Document::check`] says, if others would not take it.
    pub fn seal(document: &D, key: &NodeKey, overlay: &OverlayId) -> Result<Self, DropReason> {
        let signer = key.peer_id();
        document.check(&signer)?;
        let bytes = encode(document).ok_or(D::REFUSED)?;
        if bytes.len() > D::MAX_BYTES {
            return Err(D::REFUSED);
        }
        let signature = key.sign(D::LABEL, *overlay, &bytes);
        Ok(Self {
            bytes,
            signer,
            signature,
            kind: PhantomData,
        })
    }

    /// Checks length, then version and content, then the signature.
    ///
    /// # Errors
    /// [`Document::REFUSED`] or what [`Document::check`] says.
    pub fn open(&self, overlay: &OverlayId) -> Result<D, DropReason> {
        if self.bytes.len() > D::MAX_BYTES {
            return Err(D::REFUSED);
        }
        let document: D = decode(&self.bytes).ok_or(D::REFUSED)?;
        document.check(&self.signer)?;
        verify_signed(
            &self.signer.0,
            D::LABEL,
            *overlay,
            &self.bytes,
            &self.signature,
        )
        .map_err(|_| D::REFUSED)?;
        Ok(document)
    }
}

impl<D> Signed<D> {
    /// Who says so. Proven only after [`Signed::open`].
    #[must_use]
    pub const fn signer(&self) -> PeerId {
        self.signer
    }

    /// SHA-256 of signer and bytes: the document's name. The signature is left out, since a signer
    /// can make several for the same bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.signer.0);
        hasher.update(&self.bytes);
        hasher.finalize().into()
    }

    /// An upper bound of the encoded size, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        // The length prefix of `bytes`: two bytes up to 16,383.
        2 + self.bytes.len() + 32 + 64
    }
}

/// A version byte, then postcard. `None` only if serde refuses the value.
pub(super) fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    postcard::to_extend(value, vec![VERSION]).ok()
}

/// The reverse of [`encode`]; trailing bytes and other versions are refused.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (&version, rest) = bytes.split_first()?;
    if version != VERSION {
        return None;
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}
