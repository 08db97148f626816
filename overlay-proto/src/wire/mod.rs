//! Every byte between two nodes. `docs/WIRE.md` has the drawings.
//!
//! The first byte of a datagram tells its kind and stays below 0x40, so that QUIC (bit 0x40 set)
//! can share the port. A data datagram is a clear header, sealed bytes and a tag; the sealed bytes
//! begin with an inner header that says what they are. A frame too large for one datagram goes as
//! pieces, and control messages that must arrive go through a reliable channel.

mod channel;
mod header;
mod inner;
pub mod peer_message;
mod pieces;

pub use channel::{ChannelConfig, MAX_MESSAGE, ReliableChannel};
pub use header::{DataHeader, DatagramKind, MAX_COUNTER, TAG_LEN};
pub use inner::{
    Forwarded, INNER_LEN, InnerHeader, InnerKind, L4Checksum, MAX_PIECES, PIECE_LEN, PieceHeader,
    max_frame, max_piece,
};
pub use pieces::{PieceBudget, Plan, Reassembler, WholeFrame, split};

pub use nat_traversal::sizes::{self, SAFE_DATAGRAM};

const _: () = assert!(sizes::SEALING == DataHeader::LEN + INNER_LEN + TAG_LEN);

/// Names a session at its receiver: 32 random bits, a demultiplexer, never an authenticator
/// (TRUST.md 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIndex(pub u32);

/// A sending worker's own key and counter within a session (TRUST.md 12). Lane 0 is the slow path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u8);

impl Lane {
    /// Lanes without the express lanes; the express lane of lane `n` is `n + COUNT`.
    pub const COUNT: u8 = 8;

    /// The same worker's lane for frames that pass others: of flows that send little. The receiver
    /// takes what comes on it before what waits.
    #[must_use]
    pub const fn express(self) -> Self {
        Self(self.0 | Self::COUNT)
    }

    /// Is it an express lane?
    #[must_use]
    pub const fn is_express(self) -> bool {
        self.0 & Self::COUNT != 0
    }
}

/// Names a network within a session; chosen by the receiver in the handshake (TRUST.md 15).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Selector(pub u32);
