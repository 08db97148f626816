//! What two nodes say to each other inside a session, one message at a time, over the
//! [reliable channel](super::channel).
//!
//! ```text
//!  0        1                 9
//! +--------+-----------------+-----------------------------+
//! | kind 1 | network tag     | a DirectoryMessage          |
//! +--------+-----------------+-----------------------------+
//! | kind 2 | sequence        | postcard: mapping, list of  |
//! |        |                 | Candidate                   |
//! +--------+-----------------+-----------------------------+
//! | kind 3 | network tag     | epoch number (8)            |
//! +--------+-----------------+-----------------------------+
//! | kind 4 | network tag     | a SignedEpoch               |
//! +--------+-----------------+-----------------------------+
//! | kind 5 | number of the   | digest of all revocation    |
//! |        | revocation list | lists held (8)              |
//! +--------+-----------------+-----------------------------+
//! | kind 6 | which list      | index, count, a piece of    |
//! |        |                 | the revocation list         |
//! +--------+-----------------+-----------------------------+
//! | kind 7 | network tag     | the guests' IP MTU (4)      |
//! +--------+-----------------+-----------------------------+
//! ```
//! Numbers are big-endian. A kind that is not known is ignored by the caller and counted.

use nat_traversal::candidate::{Candidate, MAX_CANDIDATES};
use nat_traversal::nat_kind::Mapping;

use crate::drop_reason::DropReason;
use crate::ids::NetworkId;
use crate::membership::{ListState, Page, SignedEpoch};

const KIND_DIRECTORY: u8 = 1;
const KIND_CANDIDATES: u8 = 2;
const KIND_EPOCH_NUMBER: u8 = 3;
const KIND_EPOCH: u8 = 4;
const KIND_LISTS_HELD: u8 = 5;
const KIND_LIST_PAGE: u8 = 6;
const KIND_GUEST_MTU: u8 = 7;
/// Kind and the 64-bit field that all kinds have.
pub const PEER_MESSAGE_HEADER: usize = 9;

/// Names a network inside a session: the first 64 bits of its id, which only members know. Unlike a
/// [`Selector`](super::Selector) it outlives a rekey, and so does a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkTag(pub u64);

impl From<&NetworkId> for NetworkTag {
    fn from(id: &NetworkId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = id.0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage<'a> {
    /// For the directory of a network; the body is an encoded `DirectoryMessage`.
    Directory {
        /// Which network.
        network: NetworkTag,
        /// The encoded message.
        body: &'a [u8],
    },
    /// The sender's candidates; a list with a higher sequence replaces the one before.
    Candidates {
        /// Grows with each list of this sender.
        sequence: u64,
        /// How the sender's NAT maps, as far as it knows: it explains to the receiver why a direct
        /// path may be impossible.
        mapping: Mapping,
        /// At most [`MAX_CANDIDATES`].
        candidates: Vec<Candidate>,
    },
    /// The epoch in which the sender is: said when a session begins to share a network, so that
    /// the one who is ahead hands the other the newer.
    EpochNumber {
        /// Which network.
        network: NetworkTag,
        /// 1 is the first.
        epoch: u64,
    },
    /// A newer epoch; a secret, so it goes to members only, who are not revoked.
    Epoch {
        /// Which network.
        network: NetworkTag,
        /// An encoded [`SignedEpoch`], at most [`SignedEpoch::MAX_BYTES`].
        signed: &'a [u8],
    },
    /// The revocation lists that the sender holds. Whoever holds a newer one answers with it.
    ListsHeld(ListState),
    /// A piece of a revocation list.
    ListPage(Page<'a>),
    /// How large the IP packets of the sender's guests may be: the MTU of its tap. Said when a session
    /// begins to share a network, and when it changes.
    GuestMtu {
        /// Which network.
        network: NetworkTag,
        /// In bytes; 0: nothing is attached there.
        mtu: u32,
    },
}

impl<'a> PeerMessage<'a> {
    /// The bytes on the channel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, field, body) = match self {
            Self::Directory { network, body } => (KIND_DIRECTORY, network.0, body.to_vec()),
            Self::Candidates {
                sequence,
                mapping,
                candidates,
            } => {
                // Serializing plain values into a vector cannot fail.
                (
                    KIND_CANDIDATES,
                    *sequence,
                    postcard::to_stdvec(&(mapping, candidates)).unwrap_or_default(),
                )
            }
            Self::EpochNumber { network, epoch } => {
                (KIND_EPOCH_NUMBER, network.0, epoch.to_be_bytes().to_vec())
            }
            Self::Epoch { network, signed } => (KIND_EPOCH, network.0, signed.to_vec()),
            Self::ListsHeld(held) => {
                let digest = held.digest.to_be_bytes().to_vec();
                (KIND_LISTS_HELD, held.number, digest)
            }
            Self::ListPage(page) => {
                let body = [&[page.index, page.count], page.bytes].concat();
                (KIND_LIST_PAGE, page.id, body)
            }
            Self::GuestMtu { network, mtu } => {
                (KIND_GUEST_MTU, network.0, mtu.to_be_bytes().to_vec())
            }
        };
        let mut bytes = Vec::with_capacity(PEER_MESSAGE_HEADER + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&field.to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Parses the bytes of one message.
    ///
    /// # Errors
    /// [`DropReason::ControlMalformed`] for anything that is not exactly one known message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let malformed = DropReason::ControlMalformed;
        let (header, body) = bytes
            .split_at_checked(PEER_MESSAGE_HEADER)
            .ok_or(malformed)?;
        let (&kind, field) = header.split_first().ok_or(malformed)?;
        let field = u64::from_be_bytes(field.try_into().map_err(|_| malformed)?);
        match kind {
            KIND_DIRECTORY => Ok(Self::Directory {
                network: NetworkTag(field),
                body,
            }),
            KIND_CANDIDATES => {
                let ((mapping, candidates), rest) =
                    postcard::take_from_bytes::<(Mapping, Vec<Candidate>)>(body)
                        .map_err(|_| malformed)?;
                if !rest.is_empty() || candidates.len() > MAX_CANDIDATES {
                    return Err(malformed);
                }
                Ok(Self::Candidates {
                    sequence: field,
                    mapping,
                    candidates,
                })
            }
            KIND_EPOCH_NUMBER => Ok(Self::EpochNumber {
                network: NetworkTag(field),
                epoch: u64::from_be_bytes(body.try_into().map_err(|_| malformed)?),
            }),
            KIND_EPOCH if body.len() <= SignedEpoch::MAX_BYTES => Ok(Self::Epoch {
                network: NetworkTag(field),
                signed: body,
            }),
            KIND_LISTS_HELD => Ok(Self::ListsHeld(ListState {
                number: field,
                digest: u64::from_be_bytes(body.try_into().map_err(|_| malformed)?),
            })),
            KIND_LIST_PAGE => match body {
                [index, count, bytes @ ..] => Ok(Self::ListPage(Page {
                    id: field,
                    index: *index,
                    count: *count,
                    bytes,
                })),
                _ => Err(malformed),
            },
            KIND_GUEST_MTU => Ok(Self::GuestMtu {
                network: NetworkTag(field),
                mtu: u32::from_be_bytes(body.try_into().map_err(|_| malformed)?),
            }),
            _ => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use nat_traversal::candidate::CandidateKind;
    use proptest::prelude::*;

    use super::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| Candidate {
            kind: CandidateKind::Reflexive,
            addr: (ip, port).into(),
            allocation: None,
            relay: None,
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeerMessage::decode(&bytes);
        }

        #[test]
        fn round_trip(
            sequence in any::<u64>(),
            candidates in prop::collection::vec(candidate(), 0..=MAX_CANDIDATES),
            body in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let list =
                PeerMessage::Candidates { sequence, mapping: Mapping::Unknown, candidates };
            let bytes = list.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), list);
            let directory = PeerMessage::Directory { network: NetworkTag(sequence), body: &body };
            let bytes = directory.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), directory);
            let number = PeerMessage::EpochNumber { network: NetworkTag(sequence), epoch: 7 };
            let bytes = number.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), number);
            prop_assert!(PeerMessage::decode(&bytes[..bytes.len() - 1]).is_err());
            let mtu = PeerMessage::GuestMtu { network: NetworkTag(sequence), mtu: 9000 };
            let bytes = mtu.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), mtu);
            prop_assert!(PeerMessage::decode(&bytes[..bytes.len() - 1]).is_err());
            let epoch = PeerMessage::Epoch { network: NetworkTag(sequence), signed: &body };
            let bytes = epoch.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), epoch);
            let long = [&bytes[..], &[0; SignedEpoch::MAX_BYTES]].concat();
            prop_assert!(body.is_empty() || PeerMessage::decode(&long).is_err());
            let held = PeerMessage::ListsHeld(ListState { number: sequence, digest: !sequence });
            let bytes = held.encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), held);
            let page = Page { id: sequence, index: 1, count: 2, bytes: &body };
            let bytes = PeerMessage::ListPage(page).encode();
            prop_assert_eq!(PeerMessage::decode(&bytes).unwrap(), PeerMessage::ListPage(page));
        }
    }
}
