//! What a node states and signs: a label, the overlay id and the exact bytes (trust.md 9).
//!
//! [`Signed`] keeps the bytes as they were signed and passes them on unchanged; nobody encodes a
//! document of somebody else again.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::{Signature as DalekSignature, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::drop_reason::DropReason;
use crate::ids::{OverlayId, PeerId};

/// The key of this node, as far as the directory needs it.
pub trait Signer {
    /// The node that signs.
    fn peer(&self) -> PeerId;

    /// The ed25519 signature over [`signed_message`] of the three.
    fn sign(&self, label: &str, overlay: &OverlayId, bytes: &[u8]) -> [u8; 64];
}

/// The one layout of every signed message:
///
/// ```text
/// | label length (1) | label | overlay id (32) | bytes |
/// ```
///
/// A label is shorter than 256 bytes; what is beyond is cut.
#[must_use]
pub fn signed_message(label: &str, overlay: &OverlayId, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
    let label = label.as_bytes();
    let mut message = Vec::with_capacity(1 + label.len() + overlay.0.len() + bytes.len());
    message.push(length);
    message.extend(label.iter().take(usize::from(length)));
    message.extend_from_slice(&overlay.0);
    message.extend_from_slice(bytes);
    message
}

/// Is `signature` the one of `peer`? Strict verification: no small-order keys, one encoding only.
#[must_use]
pub fn verify(
    peer: &PeerId,
    label: &str,
    overlay: &OverlayId,
    bytes: &[u8],
    signature: &[u8; 64],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&peer.0) else {
        return false;
    };
    let message = signed_message(label, overlay, bytes);
    key.verify_strict(&message, &DalekSignature::from_bytes(signature))
        .is_ok()
}

/// 64 bytes of ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature")
    }
}

/// Two halves: serde knows arrays up to 32 only. In postcard it is 64 plain bytes.
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (low, high) = self.0.split_at(32);
        let mut halves = [[0_u8; 32]; 2];
        halves[0].copy_from_slice(low);
        halves[1].copy_from_slice(high);
        halves.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        for (byte, from) in bytes.iter_mut().zip(halves.as_flattened()) {
            *byte = *from;
        }
        Ok(Self(bytes))
    }
}

/// A kind of document that nodes sign.
pub trait Document: Serialize + DeserializeOwned {
    /// The label under the signature.
    const LABEL: &'static str;
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
    pub fn seal(
        document: &D,
        signer: &dyn Signer,
        overlay: &OverlayId,
    ) -> Result<Self, DropReason> {
        document.check(&signer.peer())?;
        let bytes = encode(document).ok_or(D::REFUSED)?;
        if bytes.len() > D::MAX_BYTES {
            return Err(D::REFUSED);
        }
        let signature = Signature(signer.sign(D::LABEL, overlay, &bytes));
        Ok(Self {
            bytes,
            signer: signer.peer(),
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
        if verify(
            &self.signer,
            D::LABEL,
            overlay,
            &self.bytes,
            &self.signature.0,
        ) {
            Ok(document)
        } else {
            Err(D::REFUSED)
        }
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
