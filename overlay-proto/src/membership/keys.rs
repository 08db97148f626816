//! Everything that is derived from a secret, in one place (TRUST.md 2, 10, 11).
//!
//! `HKDF(secret, info)` is HKDF-SHA-256 (RFC 5869) without salt; `info` is a label, a zero byte
//! and the context.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use nat_traversal::entropy::Entropy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{NetworkId, PeerId};

/// The random 256 bits that every member of an overlay knows. It keeps strangers out of the
/// handshake; authentication never rests on it. Erased on drop, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct OverlaySecret([u8; 32]);

impl OverlaySecret {
    /// A new one.
    #[must_use]
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut secret = Self([0; 32]);
        entropy.fill(&mut secret.0);
        secret
    }

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a file of mode 0600 or a key derivation.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for OverlaySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverlaySecret(..)")
    }
}

/// An invite's name: its delegated public key, by which it is revoked, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InviteId(pub [u8; 32]);

/// The first 80 bits, which is enough to tell the invites of one authority apart.
impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (short, _) = self.0.split_at(10);
        let mut text = data_encoding::BASE32_NOPAD.encode(short);
        text.make_ascii_lowercase();
        f.write_str(&text)
    }
}

impl fmt::Debug for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// HMAC(network id, invite id), 128 bits: names a network in a certificate only to those who know
/// the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkTag(pub [u8; 16]);

/// HKDF-SHA-256 of `secret` with the info `label | 0 | context`.
#[must_use]
pub fn derive(secret: &[u8; 32], label: &str, context: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let info: [&[u8]; 3] = [label.as_bytes(), &[0], context];
    // 32 bytes are one block of the 255 that HKDF can give, so this cannot fail.
    let outcome = Hkdf::<Sha256>::new(None, secret).expand_multi_info(&info, &mut key);
    debug_assert!(outcome.is_ok());
    key
}

/// HMAC-SHA-256 of the parts, one after the other.
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length (RFC 2104), so the error arm is never taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// SHA-256 of `label | 0 | parts..`.
pub(super) fn labelled_hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The network's id, from its seed and name.
pub(super) fn network_id(seed: &[u8; 32], name: &str) -> NetworkId {
    NetworkId(derive(seed, "farlan/network-id/1", name.as_bytes()))
}

/// The network's key of one epoch.
pub(super) fn epoch_key(seed: &[u8; 32], epoch: u64) -> [u8; 32] {
    derive(seed, "farlan/epoch-key/1", &epoch.to_be_bytes())
}

/// The pre-shared key of the handshake under one root version.
#[must_use]
pub fn psk(secret: &OverlaySecret, root_version: u32) -> [u8; 32] {
    derive(&secret.0, "farlan/psk/1", &root_version.to_be_bytes())
}

/// The key of mac1, by which a responder tells members' handshakes from noise with one hash.
#[must_use]
pub fn mac1_key(secret: &OverlaySecret, responder_static: &[u8; 32]) -> [u8; 32] {
    derive(&secret.0, "farlan/mac1/1", responder_static)
}

/// The network's name at a bootstrap in one epoch: HMAC(epoch key, "rendezvous").
#[must_use]
pub fn rendezvous_blind(epoch_key: &[u8; 32]) -> [u8; 32] {
    hmac_sha256(epoch_key, &[b"rendezvous"])
}

/// blind(signer) of a claim: HMAC(network id, `PeerId`); independent of epochs (DIRECTORY.md).
#[must_use]
pub fn signer_blind(network: &NetworkId, peer: PeerId) -> [u8; 32] {
    hmac_sha256(&network.0, &[&peer.0])
}

/// The tag of a network in the certificates of one invite.
#[must_use]
pub fn network_tag(network: &NetworkId, invite: InviteId) -> NetworkTag {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
        hmac_sha256(&network.0, &[&invite.0]);
    NetworkTag([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}
