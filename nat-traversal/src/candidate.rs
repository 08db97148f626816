//! Addresses at which a node may be reachable, and the one filter for them. To be written: the filter.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::path::AllocationId;

/// How a node knows an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateKind {
    /// An interface of the host.
    Host,
    /// Seen by a reflector or by a peer.
    Reflexive,
    /// Mapped by the router (PCP, NAT-PMP, UPnP).
    PortMapped,
    /// An allocation at a relay.
    Relayed,
}

/// One address. At most [`MAX_CANDIDATES`] a peer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// How the node knows it.
    pub kind: CandidateKind,
    /// The address; for a relayed candidate the relay's.
    pub addr: SocketAddr,
    /// The allocation, for a relayed candidate.
    pub allocation: Option<AllocationId>,
}

/// Candidates of one peer that are looked at; more are ignored (trust.md 19).
pub const MAX_CANDIDATES: usize = 16;
