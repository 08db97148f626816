//! What members say to each other within a session.
//!
//! Each message is a version byte and postcard, at most [`MAX_MESSAGE`] bytes, so that it fits one
//! sealed datagram; the caller says of which network it is. Long lists are cut into
//! several messages here.

use serde::{Deserialize, Serialize};

use super::claim::SignedClaim;
use super::roster::SignedRosterEntry;
use super::signed::{decode, encode};
use super::sync::ShortHash;
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::PeerId;
use crate::membership::MAX_CHAIN_BYTES;
use crate::switching::MacKey;

/// Bytes of an encoded message at most.
pub const MAX_MESSAGE: usize = 1100;
/// Version, variant and the lengths of up to four lists.
const OVERHEAD: usize = 24;

/// A message between two members of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryMessage {
    /// Claims that the receiver should know: pushed, pulled, or the winners over what it sent.
    Claims(Vec<SignedClaim>),
    /// Roster entries, likewise.
    Roster(Vec<SignedRosterEntry>),
    /// Anti-entropy, step 1: the digest of all claims and of the roster.
    Digest {
        /// Of the claims.
        claims: ShortHash,
        /// Of the roster.
        roster: ShortHash,
    },
    /// Step 2: they differ; these are the digests of the buckets.
    Buckets {
        /// One for each of `CLAIM_BUCKETS`.
        claims: Vec<ShortHash>,
        /// One for each of `ROSTER_BUCKETS`.
        roster: Vec<ShortHash>,
    },
    /// Step 3: all that the sender has in some buckets that differ.
    Have {
        /// Bit n: bucket n of the claims is listed.
        claim_buckets: u64,
        /// The claims in these buckets.
        claims: Vec<ShortHash>,
        /// Bit n: bucket n of the roster is listed.
        roster_buckets: u16,
        /// The roster entries in these buckets.
        roster: Vec<ShortHash>,
    },
    /// Step 4: what the sender lacks. The receiver of `Have` sends it along with what the other
    /// lacks.
    Pull {
        /// Claims.
        claims: Vec<ShortHash>,
        /// Roster entries.
        roster: Vec<ShortHash>,
    },
    /// Do you know who holds this MAC?
    Query {
        /// The VLAN.
        vlan: VlanId,
        /// The address.
        mac: MacAddr,
    },
    /// The answer to `Query` and `WhoHas`.
    Answer {
        /// The VLAN.
        vlan: VlanId,
        /// The address.
        mac: MacAddr,
        /// The claim, if the sender knows one.
        claim: Option<SignedClaim>,
    },
    /// To the owner: is the MAC still there? It has just been seen here.
    AskOwner {
        /// The VLAN.
        vlan: VlanId,
        /// The address.
        mac: MacAddr,
        /// Comes back in the answer.
        nonce: u64,
    },
    /// The owner's answer.
    OwnerAnswer {
        /// Of the question.
        nonce: u64,
        /// Has it been heard lately, or did it answer a probe?
        alive: bool,
    },
    /// To all: whoever has this MAC on its bridge claims it and answers.
    WhoHas {
        /// The VLAN.
        vlan: VlanId,
        /// The address.
        mac: MacAddr,
    },
    /// Please send the certificate chain of a node whose claim you passed on.
    AskChain {
        /// The node.
        node: PeerId,
    },
    /// A certificate chain, as `membership` encodes it.
    Chain {
        /// The node.
        node: PeerId,
        /// The chain, at most [`MAX_CHAIN_BYTES`] bytes.
        chain: Vec<u8>,
    },
}

impl DirectoryMessage {
    /// The bytes on the wire, selector excluded.
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] if it is longer than [`MAX_MESSAGE`].
    pub fn encode(&self) -> Result<Vec<u8>, DropReason> {
        encode(self)
            .filter(|bytes| bytes.len() <= MAX_MESSAGE)
            .ok_or(DropReason::ControlMalformed)
    }

    /// The reverse of [`DirectoryMessage::encode`].
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] for too many bytes, another version, what does not parse,
    /// trailing bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DropReason::ControlMalformed);
        }
        match decode(bytes) {
            Some(Self::Chain { chain, .. }) if chain.len() > MAX_CHAIN_BYTES => {
                Err(DropReason::ControlMalformed)
            }
            message => message.ok_or(DropReason::ControlMalformed),
        }
    }

    /// Asks a neighbour who holds `key`.
    #[must_use]
    pub const fn query(key: MacKey) -> Self {
        Self::Query {
            vlan: key.vlan,
            mac: key.mac,
        }
    }

    /// Asks all who has `key`.
    #[must_use]
    pub const fn who_has(key: MacKey) -> Self {
        Self::WhoHas {
            vlan: key.vlan,
            mac: key.mac,
        }
    }

    /// Answers who holds `key`.
    #[must_use]
    pub const fn answer(key: MacKey, claim: Option<SignedClaim>) -> Self {
        Self::Answer {
            vlan: key.vlan,
            mac: key.mac,
            claim,
        }
    }

    /// Asks the owner whether `key` is still there.
    #[must_use]
    pub const fn ask_owner(key: MacKey, nonce: u64) -> Self {
        Self::AskOwner {
            vlan: key.vlan,
            mac: key.mac,
            nonce,
        }
    }
}

/// Cuts claims into messages.
pub fn pack_claims(claims: impl IntoIterator<Item = SignedClaim>) -> Vec<DirectoryMessage> {
    pack(claims, SignedClaim::encoded_len)
        .into_iter()
        .map(DirectoryMessage::Claims)
        .collect()
}

/// Cuts roster entries into messages.
pub fn pack_roster(entries: impl IntoIterator<Item = SignedRosterEntry>) -> Vec<DirectoryMessage> {
    pack(entries, SignedRosterEntry::encoded_len)
        .into_iter()
        .map(DirectoryMessage::Roster)
        .collect()
}

/// Short hashes that fit one message.
pub const HASHES_PER_MESSAGE: usize = (MAX_MESSAGE - OVERHEAD - 16) / 8;

fn pack<T>(items: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut lists: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for item in items {
        let size = size(&item);
        match lists.last_mut() {
            Some(list) if size <= room => {
                room -= size;
                list.push(item);
            }
            _ => {
                room = (MAX_MESSAGE - OVERHEAD).saturating_sub(size);
                lists.push(vec![item]);
            }
        }
    }
    lists
}
