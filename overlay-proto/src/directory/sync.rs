//! Anti-entropy: how two members find out what one of them lacks, without sending it all.
//!
//! Every 10 to 30 s, and on each new session, a node sends the digest of what it knows. If it is not
//! the neighbour's, they compare the digests of buckets, then the short hashes in the buckets that
//! differ, then send what is missing on either side. A round is at most [`MAX_HAVE_MESSAGES`] lists
//! and [`MAX_SENT`] items each way; what is left waits for the next.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::messages::{DirectoryMessage, HASHES_PER_MESSAGE};

/// Buckets of claims: one bit each in [`DirectoryMessage::Have`].
pub const CLAIM_BUCKETS: usize = 64;
/// Buckets of roster entries.
pub const ROSTER_BUCKETS: usize = 16;
/// Lists sent in one round.
pub const MAX_HAVE_MESSAGES: usize = 8;
/// Items sent in answer to one list or pull.
pub const MAX_SENT: usize = 64;

/// The first eight bytes of a document's hash, or the sum of several. Members only compare, so that
/// a collision can at worst hide a document from one exchange; its next refresh has another hash.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct ShortHash(pub [u8; 8]);

impl ShortHash {
    /// Of a document's hash.
    #[must_use]
    pub const fn of(hash: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        Self([a, b, c, d, e, f, g, h])
    }

    const fn bucket(self, buckets: usize) -> usize {
        let [first, ..] = self.0;
        first as usize % buckets
    }

    fn add(&mut self, other: Self) {
        for (byte, from) in self.0.iter_mut().zip(other.0) {
            *byte ^= from;
        }
    }
}

/// The digests of the buckets of one kind of document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary(Vec<ShortHash>);

impl Summary {
    /// Of the documents with these hashes, in any order.
    #[must_use]
    pub fn of(hashes: &[ShortHash], buckets: usize) -> Self {
        let mut sums = vec![ShortHash::default(); buckets];
        for hash in hashes {
            if let Some(sum) = sums.get_mut(hash.bucket(buckets)) {
                sum.add(*hash);
            }
        }
        Self(sums)
    }

    /// One digest of all.
    #[must_use]
    pub fn root(&self) -> ShortHash {
        let mut hasher = Sha256::new();
        for sum in &self.0 {
            hasher.update(sum.0);
        }
        ShortHash::of(&hasher.finalize().into())
    }

    /// The buckets' digests.
    #[must_use]
    pub fn buckets(&self) -> Vec<ShortHash> {
        self.0.clone()
    }

    /// Bit n is set if bucket n differs. Missing buckets of the other differ.
    #[must_use]
    pub fn differing(&self, other: &[ShortHash]) -> u64 {
        self.0
            .iter()
            .enumerate()
            .filter(|(index, sum)| other.get(*index) != Some(sum))
            .fold(0, |mask, (index, _)| mask | bit(index))
    }
}

/// What one side has of one kind, in the buckets that differ.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The hashes of all documents of the kind.
    pub hashes: &'a [ShortHash],
    /// Bit n: bucket n differs.
    pub buckets: u64,
}

/// The lists of step 3, at most [`MAX_HAVE_MESSAGES`]; buckets beyond wait for the next round.
#[must_use]
pub fn have_messages(claims: Listed<'_>, roster: Listed<'_>) -> Vec<DirectoryMessage> {
    let mut messages = Vec::new();
    for (buckets, listed) in cut(claims, CLAIM_BUCKETS) {
        messages.push(DirectoryMessage::Have {
            claim_buckets: buckets,
            claims: listed,
            roster_buckets: 0,
            roster: Vec::new(),
        });
    }
    for (buckets, listed) in cut(roster, ROSTER_BUCKETS) {
        messages.push(DirectoryMessage::Have {
            claim_buckets: 0,
            claims: Vec::new(),
            // Only the lowest 16 bits can be set.
            roster_buckets: u16::try_from(buckets).unwrap_or(u16::MAX),
            roster: listed,
        });
    }
    messages.truncate(MAX_HAVE_MESSAGES);
    messages
}

/// What to do about one list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Differences {
    /// The other side lacks these.
    pub send: Vec<ShortHash>,
    /// This side lacks these.
    pub pull: Vec<ShortHash>,
}

impl Differences {
    /// Compares `theirs`, all they have in `buckets`, with ours. `offered` are those of ours that
    /// may be passed on, `known` also those that may not.
    #[must_use]
    pub fn of(
        theirs: &[ShortHash],
        buckets: u64,
        bucket_count: usize,
        offered: &[ShortHash],
        known: &BTreeSet<ShortHash>,
    ) -> Self {
        let listed: BTreeSet<ShortHash> = theirs.iter().copied().collect();
        let send = offered
            .iter()
            .filter(|hash| buckets & bit(hash.bucket(bucket_count)) != 0)
            .filter(|hash| !listed.contains(hash))
            .take(MAX_SENT)
            .copied()
            .collect();
        let pull = theirs
            .iter()
            .filter(|hash| !known.contains(hash))
            .take(HASHES_PER_MESSAGE / 2)
            .copied()
            .collect();
        Self { send, pull }
    }
}

/// Whole buckets, as many as fit a message. A bucket too large for one is cut: the other side then
/// sends something this one has, which does no harm.
fn cut(listed: Listed<'_>, bucket_count: usize) -> Vec<(u64, Vec<ShortHash>)> {
    let mut lists: Vec<(u64, Vec<ShortHash>)> = Vec::new();
    for index in 0..bucket_count {
        if listed.buckets & bit(index) == 0 {
            continue;
        }
        let bucket: Vec<ShortHash> = listed
            .hashes
            .iter()
            .filter(|hash| hash.bucket(bucket_count) == index)
            .take(HASHES_PER_MESSAGE)
            .copied()
            .collect();
        match lists.last_mut() {
            Some((mask, hashes)) if hashes.len() + bucket.len() <= HASHES_PER_MESSAGE => {
                *mask |= bit(index);
                hashes.extend(bucket);
            }
            _ => lists.push((bit(index), bucket)),
        }
    }
    lists
}

const fn bit(index: usize) -> u64 {
    1_u64 << (index % 64)
}
