//! The record that the DHT keeps for a claim: a mutable item after the idea of BEP 44.
//!
//! Whoever knows network, VLAN and MAC can derive the key pair, hence find and read the record; a
//! storer knows none of them and still can check key, signature and order:
//!
//! ```text
//! | version 1 | public key (32) | generation (8) | refresh (8) | blind(signer) (32) |
//! | nonce (12) | AES-256-GCM( length (2) | signed claim | zeros ) (512) | tag (16) | signature (64) |
//! ```
//!
//! Numbers are big-endian; a record is always [`RECORD_LEN`] bytes. The DHT key is the SHA-256 of the
//! public key. The nonce is derived from the claim under the sealing key: the same claim gives the
//! same record, so that publishing it again teaches a storer nothing.

use std::fmt;

use sha2::{Digest, Sha256};

use super::claim::{SignedClaim, VerifiedClaim};
use super::seal::{NONCE_LEN, TAG_LEN, open_padded, seal_padded};
use super::signed::{VERSION, decode, encode};
use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, OverlayId};
use crate::membership::{Label, NodeKey, Signature, derive, hmac_sha256, verify_signed};
use crate::switching::MacKey;

/// Bytes of a record.
pub const RECORD_LEN: usize = CLEAR_LEN + NONCE_LEN + PADDED + TAG_LEN + SIGNATURE_LEN;

const PUBLIC_LEN: usize = 32;
const BLIND_LEN: usize = 32;
const CLEAR_LEN: usize = 1 + PUBLIC_LEN + 8 + 8 + BLIND_LEN;
/// A signed claim is at most 498 bytes; with the length in front it fits.
const PADDED: usize = 512;
const SIGNATURE_LEN: usize = 64;
const LABEL: Label = Label::new("farlan/record/1");

/// The keys of one MAC's record in one epoch.
pub struct RecordKey {
    pair: NodeKey,
    seal: [u8; 32],
}

/// Nothing secret.
impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordKey")
    }
}

impl RecordKey {
    /// The keys for `key` under the network's epoch key.
    #[must_use]
    pub fn derive(epoch_key: &[u8; 32], key: &MacKey) -> Self {
        let vlan = key.vlan.get().to_be_bytes();
        let info = [vlan.as_slice(), &key.mac.0].concat();
        Self {
            pair: NodeKey::from_secret(&derive(epoch_key, "farlan/record-key/1", &info)),
            seal: derive(epoch_key, "farlan/record-seal/1", &info),
        }
    }

    /// Where in the DHT.
    #[must_use]
    pub fn dht_key(&self) -> [u8; 32] {
        dht_key(&self.public())
    }

    fn public(&self) -> [u8; PUBLIC_LEN] {
        self.pair.public()
    }
}

/// Makes the record of a claim.
///
/// # Errors
/// [`DropReason::RecordInvalid`] if the claim is too long, which no claim that verified is.
pub fn seal_record(
    keys: &RecordKey,
    overlay: &OverlayId,
    claim: &VerifiedClaim,
) -> Result<Vec<u8>, DropReason> {
    let mut record = Vec::with_capacity(RECORD_LEN);
    record.push(VERSION);
    record.extend_from_slice(&keys.public());
    record.extend_from_slice(&claim.rank.generation.to_be_bytes());
    record.extend_from_slice(&claim.rank.refresh.to_be_bytes());
    record.extend_from_slice(&claim.rank.blind);
    let content = encode(&claim.signed).ok_or(DropReason::RecordInvalid)?;
    let mut nonce = [0; NONCE_LEN];
    for (byte, from) in nonce
        .iter_mut()
        .zip(hmac_sha256(&keys.seal, &[&record, &content]))
    {
        *byte = from;
    }
    let sealed = seal_padded(&keys.seal, nonce, &record, &content, PADDED)
        .ok_or(DropReason::RecordInvalid)?;
    record.extend_from_slice(&sealed);
    let signature = keys.pair.sign(LABEL, *overlay, &record);
    record.extend_from_slice(&signature.to_bytes());
    if record.len() == RECORD_LEN {
        Ok(record)
    } else {
        Err(DropReason::RecordInvalid)
    }
}

/// A record as a storer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The claim's generation, as the writer says.
    pub generation: u64,
    /// The claim's refresh, as the writer says.
    pub refresh: u64,
    /// The claimant's blinded name, as the writer says.
    pub blind: [u8; 32],
    bytes: Vec<u8>,
}

impl StoredRecord {
    /// Checks length, version, DHT key and signature, in this order. Needs no network.
    ///
    /// # Errors
    /// [`DropReason::RecordInvalid`].
    pub fn verify(
        overlay: &OverlayId,
        dht_key_asked: &[u8],
        bytes: &[u8],
    ) -> Result<Self, DropReason> {
        Self::check(overlay, dht_key_asked, bytes).ok_or(DropReason::RecordInvalid)
    }

    /// The record's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Must `self` take the place of `other`, the record that a storer has under the same DHT key? Higher
    /// generation; then lower blind(signer); then higher refresh: the order of claims. Equal ones do not.
    /// A member can so crowd out another's record: what generation it says no storer can check. Lookups
    /// ask neighbours as well.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        let rank = |record: &Self| (record.generation, record.blind.map(|b| !b), record.refresh);
        rank(self) > rank(other)
    }

    fn check(overlay: &OverlayId, dht_key_asked: &[u8], bytes: &[u8]) -> Option<Self> {
        if bytes.len() != RECORD_LEN {
            return None;
        }
        let (&version, rest) = bytes.split_first()?;
        let (public, rest) = rest.split_first_chunk::<PUBLIC_LEN>()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (refresh, rest) = rest.split_first_chunk::<8>()?;
        let (blind, _) = rest.split_first_chunk::<BLIND_LEN>()?;
        if version != VERSION || dht_key(public) != *dht_key_asked {
            return None;
        }
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>()?;
        let signature = Signature::from_bytes(signature);
        verify_signed(public, LABEL, *overlay, signed, &signature).ok()?;
        Some(Self {
            generation: u64::from_be_bytes(*generation),
            refresh: u64::from_be_bytes(*refresh),
            blind: *blind,
            bytes: bytes.to_vec(),
        })
    }
}

/// What a reader needs to judge a record.
#[derive(Debug, Clone, Copy)]
pub struct RecordReader<'a> {
    /// The overlay.
    pub overlay: &'a OverlayId,
    /// The network.
    pub network: &'a NetworkId,
    /// The network's epoch key.
    pub epoch_key: &'a [u8; 32],
    /// The highest generation that counts.
    pub generation_limit: u64,
}

impl RecordReader<'_> {
    /// Opens the record of `key`. Whether the claim's signer may claim is not said.
    ///
    /// # Errors
    /// [`DropReason::RecordInvalid`] if it is no record of `key` or says in clear what the claim
    /// inside does not; else as [`VerifiedClaim::open`].
    pub fn open_record(&self, key: &MacKey, bytes: &[u8]) -> Result<VerifiedClaim, DropReason> {
        let keys = RecordKey::derive(self.epoch_key, key);
        let stored = StoredRecord::verify(self.overlay, &keys.dht_key(), bytes)?;
        let signed: SignedClaim = bytes
            .split_at_checked(CLEAR_LEN)
            .and_then(|(clear, rest)| {
                let (sealed, _) = rest.split_last_chunk::<SIGNATURE_LEN>()?;
                open_padded(&keys.seal, clear, sealed)
            })
            .and_then(|content| decode(&content))
            .ok_or(DropReason::RecordInvalid)?;
        let claim =
            VerifiedClaim::open(&signed, self.overlay, self.network, self.generation_limit)?;
        let agrees = claim.claim.key() == *key
            && claim.rank.generation == stored.generation
            && claim.rank.refresh == stored.refresh
            && claim.rank.blind == stored.blind;
        if agrees {
            Ok(claim)
        } else {
            Err(DropReason::RecordInvalid)
        }
    }
}

fn dht_key(public: &[u8; PUBLIC_LEN]) -> [u8; 32] {
    Sha256::digest(public).into()
}
