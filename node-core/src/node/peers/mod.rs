//! The peers: sessions, paths, channels.
//!
//! - [`handling`]: what comes from peers: handshakes, probes, messages. [`peer`]: one peer's path agent and channel; `attempts`: when it is sought again; [`whereabouts`]:
//!   where it can be reached.
//! - [`sending`]: datagrams and frames of our own. [`undelivered`]: messages that did not get there.
//! - [`memory`]: what is kept on disk of peers.

mod attempts;
pub mod handling;
pub mod memory;
pub mod peer;
pub mod sending;
pub mod undelivered;
pub mod whereabouts;

use std::collections::BTreeMap;

use nat_traversal::agent::ProbeBudget;
use overlay_proto::ids::PeerId;
use overlay_proto::tunnels::Tunnels;

use crate::peer_turns::PeerTurns;
use peer::Peer;

/// The peers, their sessions and paths.
pub struct Peers {
    pub(crate) tunnels: Tunnels,
    pub(crate) known: BTreeMap<PeerId, Peer>,
    pub(crate) turns: PeerTurns,
    pub(crate) probe_budget: ProbeBudget,
    /// How many datagrams the kernel had refused as too large at the last look.
    pub(crate) refused: u64,
    /// Something about the peers is not on disk yet.
    pub changed: bool,
}

impl Peers {
    /// Nobody is known.
    pub(crate) fn new(tunnels: Tunnels) -> Self {
        Self {
            tunnels,
            known: BTreeMap::new(),
            turns: PeerTurns::default(),
            probe_budget: ProbeBudget::new(),
            refused: 0,
            changed: false,
        }
    }
}
