//! All the revocation lists that a node holds: mostly one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{MAX_REVOKED, RevocationList, RevocationNumber, Revoked, SignedRevocations};
use crate::ids::PeerId;
use crate::membership::codec;
use crate::membership::error::MembershipError;
use crate::membership::keys::{InviteId, labelled_hash};
use crate::membership::root::RootStore;

/// Lists that do not contain each other: one for each copy of the authority's state that went its
/// own way. With 63 KiB each a node holds and a peer sends at most 254 KiB.
pub const MAX_LISTS: usize = 4;

const VERSION: u8 = 1;
const MAX_BYTES: usize = 2 + MAX_LISTS * (3 + SignedRevocations::MAX_BYTES);

/// What two nodes compare before they exchange lists.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListState {
    /// The highest number held; 0 is none.
    pub number: u64,
    /// A hash over all lists held, 64 bits; 0 if there is none. It tells two lists of one number
    /// apart, and proves nothing.
    pub digest: u64,
}

impl ListState {
    /// Does whoever holds this have something that whoever holds `other` may lack? Both ways for two
    /// different sets of one number.
    #[must_use]
    pub const fn is_above(&self, other: &Self) -> bool {
        self.number > other.number || (self.number == other.number && self.digest != other.digest)
    }
}

/// What became of a list that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It or a newer one is held already.
    Known,
    /// It takes the place of all that was held.
    Newer,
    /// It is held beside another that has entries of its own: the authority's state was copied or
    /// restored from a backup. To be reported; both count.
    Rival,
}

/// Every revocation that a node knows of. It only grows: the order in which lists arrive, and how
/// often, does not matter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// None makes another superfluous; by number, then bytes. At most [`MAX_LISTS`].
    lists: Vec<SignedRevocations>,
    /// The union.
    entries: BTreeSet<Revoked>,
}

impl Revocations {
    /// Takes a list that an authority trusted by `roots` signed. Keep the whole on disk afterwards,
    /// unless it was known.
    ///
    /// # Errors
    /// As [`SignedRevocations::verify`]; [`MembershipError::Full`] for a list too many that contains
    /// none of the others.
    pub fn take(
        &mut self,
        list: SignedRevocations,
        roots: &RootStore,
    ) -> Result<Taken, MembershipError> {
        if self.lists.iter().any(|held| held.dominates(&list)) {
            return Ok(Taken::Known);
        }
        list.verify(roots)?;
        let beside = |held: &&SignedRevocations| !list.dominates(held);
        let mut lists: Vec<_> = self.lists.iter().filter(beside).cloned().collect();
        if lists.len() >= MAX_LISTS {
            return Err(MembershipError::Full {
                what: "rival revocation lists",
                limit: MAX_LISTS,
            });
        }
        let taken = if lists.is_empty() {
            Taken::Newer
        } else {
            Taken::Rival
        };
        self.entries.extend(list.list.entries.iter().copied());
        lists.push(list);
        lists.sort_by(|a, b| (a.list.number, &a.part.bytes).cmp(&(b.list.number, &b.part.bytes)));
        self.lists = lists;
        Ok(taken)
    }

    /// Forgets lists whose root version the authority has retired, as after the theft of its key:
    /// what the thief signed must not count. `true` if there were any.
    pub fn retain_trusted(&mut self, roots: &RootStore) -> bool {
        let before = self.lists.len();
        self.lists.retain(|list| list.verify(roots).is_ok());
        let changed = self.lists.len() != before;
        if changed {
            let all = self.lists.iter().flat_map(|list| &list.list.entries);
            self.entries = all.copied().collect();
        }
        changed
    }

    /// The next list of the authority: everything so far and `more`.
    ///
    /// # Errors
    /// [`MembershipError::Full`] above [`MAX_REVOKED`].
    pub fn successor(
        &self,
        root_version: u32,
        more: Revoked,
    ) -> Result<RevocationList, MembershipError> {
        let mut entries = self.entries.clone();
        entries.insert(more);
        if entries.len() > MAX_REVOKED {
            return Err(MembershipError::Full {
                what: "revocations",
                limit: MAX_REVOKED,
            });
        }
        Ok(RevocationList {
            root_version,
            number: self.state().number.saturating_add(1),
            entries: entries.into_iter().collect(),
        })
    }

    /// The lists, to hand on.
    #[must_use]
    pub fn lists(&self) -> &[SignedRevocations] {
        &self.lists
    }

    /// Everybody who is out.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Revoked> {
        self.entries.iter()
    }

    /// The highest number held.
    #[must_use]
    pub fn number(&self) -> RevocationNumber {
        RevocationNumber(self.state().number)
    }

    /// What to tell others of it.
    #[must_use]
    pub fn state(&self) -> ListState {
        let Some(newest) = self.lists.last() else {
            return ListState::default();
        };
        let encoded: Vec<Vec<u8>> = self.lists.iter().map(SignedRevocations::encode).collect();
        let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        let [a, b, c, d, e, f, g, h, ..] = labelled_hash("farlan/revocations-held/1", &parts);
        ListState {
            number: newest.list.number,
            digest: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    /// Is this node out, whatever invite it shows?
    #[must_use]
    pub fn names_node(&self, peer: PeerId) -> bool {
        self.entries.contains(&Revoked::Node(peer))
    }

    /// Is everything from this invite void?
    #[must_use]
    pub fn names_invite(&self, invite: InviteId) -> bool {
        self.entries.contains(&Revoked::Invite(invite))
    }

    /// May a certificate of `peer` from `invite` count?
    ///
    /// # Errors
    /// [`MembershipError::Revoked`], with the entry that says so.
    pub fn check(&self, peer: PeerId, invite: InviteId) -> Result<(), MembershipError> {
        let entries = [Revoked::Node(peer), Revoked::Invite(invite)];
        match entries
            .into_iter()
            .find(|entry| self.entries.contains(entry))
        {
            Some(entry) => Err(MembershipError::Revoked(entry)),
            None => Ok(()),
        }
    }

    /// The bytes for the disk.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let lists: Vec<Vec<u8>> = self.lists.iter().map(SignedRevocations::encode).collect();
        codec::encode(VERSION, &lists)
    }

    /// Reads [`Revocations::to_bytes`]. Lists under a root version that was retired meanwhile are
    /// left out.
    ///
    /// # Errors
    /// Malformed, of a later version, or not signed by the authority.
    pub fn from_bytes(bytes: &[u8], roots: &RootStore) -> Result<Self, MembershipError> {
        let lists: Vec<Vec<u8>> = codec::decode("revocation lists", VERSION, MAX_BYTES, bytes)?;
        let mut all = Self::default();
        for list in &lists {
            match all.take(SignedRevocations::decode(list)?, roots) {
                Ok(_) | Err(MembershipError::RetiredRoot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}
