//! Root documents: who the authority is, and how its key is replaced (TRUST.md 1).
//!
//! The overlay id is the hash of the exact bytes of version 1. Version n+1 is signed by the keys of
//! n and n+1, so a node that trusts the id can follow the chain to the newest without asking
//! anyone. A store never goes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec;
use super::error::MembershipError;
use super::keys::labelled_hash;
use super::signed::{AuthorityKey, Label, Signature, verify_signed};
use crate::ids::OverlayId;
use crate::time::UnixTime;

/// How far a clock may be off before a date counts as passed (TRUST.md 9).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);

/// Root versions that a store holds. All of them and a chain fit the 4 KiB of an admission
/// (TRUST.md 7): 16 x 188 + 800 bytes.
pub const MAX_ROOTS: usize = 16;

const VERSION: u8 = 1;
/// The version of the formats in this module, which root version 1 pins.
const FORMAT: u8 = 1;
/// Version, root version (5), key, time (10), format, oldest (5).
const MAX_DOCUMENT_BYTES: usize = 1 + 5 + 32 + 10 + 1 + 5;

/// What a root document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDocument {
    /// 1 is the first.
    pub version: u32,
    /// The authority's ed25519 public key.
    pub authority: [u8; 32],
    /// When this version was made.
    pub born: UnixTime,
    /// The format of certificates under it.
    pub format: u8,
    /// The oldest root version whose certificates still count. A planned change of key leaves it,
    /// the loss of a key raises it.
    pub oldest: u32,
}

/// A root document with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoot {
    bytes: Vec<u8>,
    /// By the document's own key.
    own: Signature,
    /// By the key of the version before; none on version 1.
    previous: Option<Signature>,
}

impl SignedRoot {
    /// The most bytes of [`SignedRoot::encode`].
    pub const MAX_BYTES: usize = 1 + 1 + MAX_DOCUMENT_BYTES + 64 + 1 + 64;

    /// Root version 1: the birth of an overlay.
    #[must_use]
    pub fn first(authority: &AuthorityKey, born: UnixTime) -> Self {
        let bytes = codec::encode(
            VERSION,
            &RootDocument {
                version: 1,
                authority: authority.public(),
                born,
                format: FORMAT,
                oldest: 1,
            },
        );
        let overlay = id_of(&bytes);
        let own = authority.sign(Label::ROOT, overlay, &bytes);
        Self {
            bytes,
            own,
            previous: None,
        }
    }

    /// The bytes for the wire or the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// Reads [`SignedRoot::encode`]; nothing is verified yet.
    ///
    /// # Errors
    /// Too long, malformed, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let root: Self = codec::decode("root document", VERSION, Self::MAX_BYTES, bytes)?;
        root.document()?;
        Ok(root)
    }

    /// What it says; not verified.
    ///
    /// # Errors
    /// The document does not parse.
    pub fn document(&self) -> Result<RootDocument, MembershipError> {
        codec::decode("root document", VERSION, MAX_DOCUMENT_BYTES, &self.bytes)
    }
}

fn id_of(first: &[u8]) -> OverlayId {
    OverlayId(labelled_hash("farlan/overlay/1", &[first]))
}

/// All root versions that a node knows, verified, and the floor under its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStore {
    overlay: OverlayId,
    /// Versions 1, 2, ..; at most [`MAX_ROOTS`].
    roots: Vec<SignedRoot>,
    documents: Vec<RootDocument>,
    newest: RootDocument,
    floor: UnixTime,
}

impl RootStore {
    /// A store that trusts `first` because its hash is `overlay`.
    ///
    /// # Errors
    /// [`MembershipError::OtherOverlay`], a bad signature, or content that no version 1 has.
    pub fn new(overlay: OverlayId, first: SignedRoot) -> Result<Self, MembershipError> {
        let found = id_of(&first.bytes);
        if found != overlay {
            return Err(MembershipError::OtherOverlay {
                expected: overlay,
                found,
            });
        }
        let document = first.document()?;
        let is_first = document.version == 1 && document.oldest == 1 && first.previous.is_none();
        if !is_first || document.format != FORMAT {
            return Err(MembershipError::Invalid("root document"));
        }
        verify_signed(
            &document.authority,
            Label::ROOT,
            overlay,
            &first.bytes,
            &first.own,
        )?;
        Ok(Self {
            overlay,
            roots: vec![first],
            documents: vec![document],
            newest: document,
            floor: document.born,
        })
    }

    /// A store from all versions in order; the overlay is the one that the first makes.
    ///
    /// # Errors
    /// As [`RootStore::new`] and [`RootStore::advance`].
    pub fn from_roots(
        roots: impl IntoIterator<Item = SignedRoot>,
    ) -> Result<Self, MembershipError> {
        let mut roots = roots.into_iter();
        let first = roots
            .next()
            .ok_or(MembershipError::Invalid("root document"))?;
        let mut store = Self::new(id_of(&first.bytes), first)?;
        for next in roots {
            store.advance(next)?;
        }
        Ok(store)
    }

    /// Takes the next version. `false`: it was known already.
    ///
    /// # Errors
    /// A gap, a rival of a known version, a bad signature, or a full store.
    pub fn advance(&mut self, next: SignedRoot) -> Result<bool, MembershipError> {
        if self.roots.contains(&next) {
            return Ok(false);
        }
        let document = next.document()?;
        if Some(document.version) != self.newest.version.checked_add(1) {
            return Err(MembershipError::RootOrder {
                current: self.newest.version,
                found: document.version,
            });
        }
        if self.roots.len() >= MAX_ROOTS {
            return Err(MembershipError::Full {
                what: "root versions",
                limit: MAX_ROOTS,
            });
        }
        let oldest_is_sane = (self.newest.oldest..=document.version).contains(&document.oldest);
        let Some(previous) = next
            .previous
            .filter(|_| oldest_is_sane && document.format == FORMAT)
        else {
            return Err(MembershipError::Invalid("root document"));
        };
        for (key, signature) in [
            (&self.newest.authority, &previous),
            (&document.authority, &next.own),
        ] {
            verify_signed(key, Label::ROOT, self.overlay, &next.bytes, signature)?;
        }
        self.roots.push(next);
        self.documents.push(document);
        self.newest = document;
        self.raise_floor(document.born);
        Ok(true)
    }

    /// All versions, for a bootstrap's disk.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.roots)
    }

    /// Reads [`RootStore::to_bytes`].
    ///
    /// # Errors
    /// As [`RootStore::from_roots`]; malformed, or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        let most = 3 + MAX_ROOTS * SignedRoot::MAX_BYTES;
        let roots: Vec<SignedRoot> = codec::decode("root documents", VERSION, most, bytes)?;
        Self::from_roots(roots)
    }

    /// The next root document, with a new key: for the authority, which then [`advance`]s.
    /// `oldest` as in [`RootDocument::oldest`].
    ///
    /// [`advance`]: RootStore::advance
    #[must_use]
    pub fn successor(
        &self,
        old: &AuthorityKey,
        new: &AuthorityKey,
        born: UnixTime,
        oldest: u32,
    ) -> SignedRoot {
        let bytes = codec::encode(
            VERSION,
            &RootDocument {
                version: self.newest.version.saturating_add(1),
                authority: new.public(),
                born,
                format: FORMAT,
                oldest,
            },
        );
        SignedRoot {
            own: new.sign(Label::ROOT, self.overlay, &bytes),
            previous: Some(old.sign(Label::ROOT, self.overlay, &bytes)),
            bytes,
        }
    }

    /// The overlay's id.
    #[must_use]
    pub const fn overlay(&self) -> OverlayId {
        self.overlay
    }

    /// The newest root document.
    #[must_use]
    pub const fn newest(&self) -> &RootDocument {
        &self.newest
    }

    /// When the overlay was born: the time of version 1.
    #[must_use]
    pub fn born(&self) -> UnixTime {
        self.documents
            .first()
            .map_or(self.newest.born, |first| first.born)
    }

    /// The signed documents above `version`, in order, to pass on to who has none newer.
    #[must_use]
    pub fn above(&self, version: u32) -> &[SignedRoot] {
        let known = usize::try_from(version)
            .unwrap_or(usize::MAX)
            .min(self.roots.len());
        self.roots.split_at(known).1
    }

    /// The key that certificates under root `version` are checked with.
    ///
    /// # Errors
    /// [`MembershipError::UnknownRoot`], [`MembershipError::RetiredRoot`].
    pub fn authority_of(&self, version: u32) -> Result<[u8; 32], MembershipError> {
        let document = self
            .documents
            .iter()
            .find(|document| document.version == version)
            .ok_or(MembershipError::UnknownRoot(version))?;
        if version < self.newest.oldest {
            return Err(MembershipError::RetiredRoot(version));
        }
        Ok(document.authority)
    }

    /// The time to judge dates by: the wall clock, but never before the highest time that the
    /// authority signed (TRUST.md 9).
    #[must_use]
    pub fn now(&self, wall: UnixTime) -> UnixTime {
        wall.max(self.floor)
    }

    /// The highest authority-signed time seen.
    #[must_use]
    pub const fn floor(&self) -> UnixTime {
        self.floor
    }

    /// Notes a time that the authority signed, such as [`Member::issued`](super::Member::issued).
    pub fn raise_floor(&mut self, signed: UnixTime) {
        self.floor = self.floor.max(signed);
    }
}
