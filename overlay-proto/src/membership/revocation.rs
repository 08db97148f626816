//! The authority's revocation list: who is out, whatever its certificate says (TRUST.md 8).
//!
//! ```text
//! list   = 1 | postcard of root version, number, entries in growing order
//! entry  = 0 | PeerId (32)    or    1 | invite id (32)
//! signed = 1 | postcard of list, authority's signature over "farlan/revocations/1"
//! ```
//! A list is cumulative and its number grows with each, so whoever holds one needs no other. Lists
//! that do not contain each other come from an authority whose state was copied or restored: they
//! are united ([`Revocations`]) and reported. An entry names a key, never the hash of an encoding.
//!
//! - `set`: all that a node holds, and how it grows. - `pages`: a list in pieces that fit a sealed
//!   datagram. - `line`: what `farlan revoke` prints and `farlan apply` takes.

mod line;
mod pages;
mod set;

use serde::{Deserialize, Serialize};

use super::codec;
use super::error::MembershipError;
use super::keys::InviteId;
use super::root::RootStore;
use super::signed::{AuthorityKey, Label, SignedPart};
use crate::ids::{OverlayId, PeerId};

pub use line::{LineError, MAX_REVOCATION_TEXT, REVOCATION_PREFIX, RevocationLine};
pub use pages::{MAX_ASSEMBLIES, MAX_PAGES, PAGE_BYTES, Page, PageAssembly};
pub use set::{ListState, MAX_LISTS, Revocations, Taken};

/// Entries of a list. At 33 bytes each, with signature and framing, a whole list fits one message of
/// the control plane (64 KiB, 2 KiB to spare) and 59 messages of a session's channel (of 256).
pub const MAX_REVOKED: usize = 1_920;

const VERSION: u8 = 1;
/// Version, root version, number, count, entries.
const MAX_BODY_BYTES: usize = 1 + 5 + 10 + 2 + 33 * MAX_REVOKED;

/// Which revocation list a node holds. Numbers grow; both ends name theirs at every upgrade and
/// handshake, and the lower side pulls first.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct RevocationNumber(pub u64);

impl RevocationNumber {
    /// No list was ever issued.
    pub const NONE: Self = Self(0);
}

/// Who is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Revoked {
    /// This node, whatever invites it has.
    Node(PeerId),
    /// Every certificate from this invite.
    Invite(InviteId),
}

impl std::fmt::Display for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(peer) => write!(f, "node {peer}"),
            Self::Invite(invite) => write!(f, "invite {invite}"),
        }
    }
}

/// What the authority signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// The root version whose key signs.
    pub root_version: u32,
    /// Above that of every list before; 1 is the first.
    pub number: u64,
    /// Strictly growing, at most [`MAX_REVOKED`].
    pub entries: Vec<Revoked>,
}

impl RevocationList {
    fn is_right(&self) -> bool {
        let mut pairs = self.entries.iter().zip(self.entries.iter().skip(1));
        self.number > 0 && self.entries.len() <= MAX_REVOKED && pairs.all(|(a, b)| a < b)
    }
}

/// A [`RevocationList`] with its signature; [`SignedRevocations::verify`] says whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRevocations {
    part: SignedPart,
    list: RevocationList,
}

impl SignedRevocations {
    /// The most bytes of [`SignedRevocations::encode`].
    pub const MAX_BYTES: usize = 1 + 3 + MAX_BODY_BYTES + 64;

    /// Signs `list`, which [`Revocations::successor`] made.
    #[must_use]
    pub fn sign(authority: &AuthorityKey, overlay: OverlayId, list: RevocationList) -> Self {
        let bytes = codec::encode(VERSION, &list);
        Self {
            part: authority.sign_part(Label::REVOCATIONS, overlay, bytes),
            list,
        }
    }

    /// The bytes for the wire or the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.part)
    }

    /// Reads [`SignedRevocations::encode`]; nothing is verified yet.
    ///
    /// # Errors
    /// Too long, malformed, of a later version, or entries that do not grow.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        const WHAT: &str = "revocation list";
        let part: SignedPart = codec::decode(WHAT, VERSION, Self::MAX_BYTES, bytes)?;
        let list: RevocationList = codec::decode(WHAT, VERSION, MAX_BODY_BYTES, &part.bytes)?;
        if list.is_right() {
            Ok(Self { part, list })
        } else {
            Err(MembershipError::Invalid(WHAT))
        }
    }

    /// What it says; verified if [`SignedRevocations::verify`] says so.
    #[must_use]
    pub const fn list(&self) -> &RevocationList {
        &self.list
    }

    /// Did an authority that `roots` trust sign it?
    ///
    /// # Errors
    /// [`MembershipError::BadSignature`], an unknown or a retired root version.
    pub fn verify(&self, roots: &RootStore) -> Result<(), MembershipError> {
        let authority = roots.authority_of(self.list.root_version)?;
        self.part
            .verify(&authority, Label::REVOCATIONS, roots.overlay())
    }

    fn contains(&self, other: &Self) -> bool {
        let has = |entry: &Revoked| self.list.entries.binary_search(entry).is_ok();
        other.list.entries.iter().all(has)
    }

    /// Does it make `other` superfluous? A partial order: newer and with all of its entries; of two
    /// that say the same, the one whose bytes are greater.
    fn dominates(&self, other: &Self) -> bool {
        let number = |list: &Self| list.list.number;
        self.contains(other)
            && match number(self).cmp(&number(other)) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => {
                    !other.contains(self) || self.part.bytes >= other.part.bytes
                }
            }
    }
}

#[cfg(test)]
mod tests;
