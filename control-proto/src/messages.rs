//! Requests and responses between connected nodes. Who may ask what is decided where it is served.

use std::net::SocketAddr;

use nat_traversal::path::AllocationId;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{MAX_CHAIN_BYTES, SignedPart, SignedRevocations, WitnessRefusal};
use serde::{Deserialize, Serialize};

/// The largest encoded request or response, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

const _: () = assert!(SignedRevocations::MAX_BYTES + 16 <= MAX_MESSAGE);

/// The largest card that is kept for a rendezvous, in bytes.
pub const MAX_CARD: usize = 4 * 1024;

/// The largest envelope that is carried, in bytes.
pub const MAX_ENVELOPE: usize = 8 * 1024;

/// The largest DHT record, in bytes.
pub const MAX_RECORD: usize = 4 * 1024;

/// The most peers in one `Permit`.
pub const MAX_PERMITS: usize = 64;

/// The most cards in one `Cards`; also bounded by [`MAX_MESSAGE`], which has room for 50 or 60 of the usual
/// kilobyte.
pub const MAX_CARDS: usize = 64;

/// What one node asks of another. Variants are only ever added at the end (postcard numbers them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Member to infra: keep my card under this blinded network id, tell me the others'.
    Register {
        /// HMAC of the epoch key; says nothing to the bootstrap.
        rendezvous: [u8; 32],
        /// Opaque, at most [`MAX_CARD`].
        card: Vec<u8>,
    },
    /// Member to infra: an allocation at the UDP relay.
    Allocate,
    /// Member to infra: these peers, too, may send to my allocation.
    Permit {
        /// An allocation of the asker.
        allocation: AllocationId,
        /// At most [`MAX_PERMITS`].
        peers: Vec<PeerId>,
    },
    /// To any node: pass this on to a node you are connected to.
    Forward {
        /// The addressee.
        to: PeerId,
        /// Opaque, at most [`MAX_ENVELOPE`].
        envelope: Vec<u8>,
    },
    /// The last leg of an envelope, or a direct one.
    Deliver {
        /// The sender, according to the carrier; only the seal inside proves it.
        from: PeerId,
        /// Opaque, at most [`MAX_ENVELOPE`].
        envelope: Vec<u8>,
    },
    /// What do you store under this DHT key?
    GetRecord {
        /// The DHT key.
        key: [u8; 32],
    },
    /// Store this; servers of the DHT only.
    PutRecord {
        /// The DHT key.
        key: [u8; 32],
        /// The signed record, at most [`MAX_RECORD`].
        value: Vec<u8>,
    },
    /// Member to the witness of a further invite: the receipt for this certificate of mine.
    Receipt {
        /// The encoded certificate, at most [`MAX_CHAIN_BYTES`].
        chain: Vec<u8>,
    },
    /// To any node, from whoever has just learnt it: a revocation list.
    Revocations {
        /// Encoded, at most [`SignedRevocations::MAX_BYTES`].
        list: Vec<u8>,
    },
    /// To any node: what time is it at your place?
    Clock,
    /// Member to infra, on each new link: which run of my process this is.
    Present {
        /// Random, another one with each run.
        incarnation: u32,
    },
}

/// The answer. Variants are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `Register`: the other members seen under this rendezvous, newest first.
    Cards(Vec<(PeerId, Vec<u8>)>),
    /// To `Allocate`.
    Allocation(Allocation),
    /// To `Permit`, `PutRecord` and `Revocations`: done.
    Done,
    /// To `Forward` and `Deliver`: the addressee has it.
    Delivered,
    /// To `Forward`: the addressee is not connected here, or did not answer.
    NotConnected,
    /// To `GetRecord`.
    Record(Option<Vec<u8>>),
    /// The request was understood and refused.
    Refused(RefusedReason),
    /// To `Receipt`.
    Receipt(Result<SignedPart, WitnessRefusal>),
    /// To `Clock`: milliseconds since 1970, UTC. Nothing is decided by it: it is for the user.
    Clock(u64),
    /// To `Present`.
    Present(Presence),
}

/// What a bootstrap sees of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Where its link comes from.
    pub seen: SocketAddr,
    /// Where another machine with the same identity is connected from in turn with it.
    pub twin: Option<SocketAddr>,
}

/// An allocation at a relay (TRUST.md 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its name on the wire.
    pub id: AllocationId,
    /// The MAC key, for [`nat_traversal::relay::RelayKey`].
    pub key: [u8; 16],
    /// Seconds until it lapses without a keep-alive.
    pub lifetime_s: u32,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusedReason {
    /// This node does not do that.
    #[error("the node does not serve this request")]
    NotServed,
    /// Too many requests; wait a second.
    #[error("too many requests; wait a second")]
    RateLimited,
    /// A field is past its bound.
    #[error("a field is too large")]
    TooLarge,
    /// A record that fails verification, or is older than the one held; an allocation that is not
    /// the asker's.
    #[error("the content is not valid")]
    Invalid,
    /// A table or queue is full.
    #[error("the node is busy")]
    Busy,
}

impl Request {
    /// Whether all fields keep their bounds.
    #[must_use]
    pub fn within_bounds(&self) -> bool {
        match self {
            Self::Register { card, .. } => card.len() <= MAX_CARD,
            Self::Permit { peers, .. } => peers.len() <= MAX_PERMITS,
            Self::Forward { envelope, .. } | Self::Deliver { envelope, .. } => {
                envelope.len() <= MAX_ENVELOPE
            }
            Self::PutRecord { value, .. } => value.len() <= MAX_RECORD,
            Self::Receipt { chain } => chain.len() <= MAX_CHAIN_BYTES,
            Self::Revocations { list } => list.len() <= SignedRevocations::MAX_BYTES,
            Self::Allocate | Self::GetRecord { .. } | Self::Clock | Self::Present { .. } => true,
        }
    }
}
