//! A session: the keys of one completed handshake, shared by the slow path and the workers.
//!
//! To be written: `Session`, `SealLane`, `OpenLane`, the replay window, key limits.

use crate::ids::{NetworkId, PeerId};
use crate::wire::{Selector, SessionIndex};

/// Lanes of a session: the slow path and up to seven workers.
pub const LANES: usize = 8;

/// A network that both ends of a session are members of, with the selector of each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedNetwork {
    /// Which network.
    pub network: NetworkId,
    /// What we write into frames to the peer (the peer chose it).
    pub send: Selector,
    /// What the peer writes into frames to us (we chose it).
    pub receive: Selector,
}

/// The keys and counters of one completed handshake. Shared as `Arc<Session>`; all methods take
/// `&self`.
#[derive(Debug)]
pub struct Session {
    /// Who is at the other end, proven by the handshake.
    pub peer: PeerId,
    /// Our index: what the peer writes into the header.
    pub local_index: SessionIndex,
    /// The peer's index: what we write into the header.
    pub remote_index: SessionIndex,
    /// The networks agreed in the handshake.
    pub networks: Vec<SharedNetwork>,
}
