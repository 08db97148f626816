//! What a path is: a way to reach a peer, as (local socket, remote).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Which of the node's UDP sockets a path uses. IPv4 and IPv6 are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketId {
    /// The IPv4 socket.
    V4,
    /// The IPv6 socket.
    V6,
}

impl SocketId {
    /// The socket that can reach `addr`.
    #[must_use]
    pub const fn for_addr(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// The random 64-bit name of a relay allocation (TRUST.md 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllocationId(pub u64);

/// Which relay: the name of the node that runs it. One relay may have many addresses, and who knows
/// which of them depends on who looks, so none of them is its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelayName(pub [u8; 32]);

/// The two allocations that a relayed datagram names: the sender's and the receiver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayRoute {
    /// Our own allocation at the relay; its key authenticates the datagram.
    pub own: AllocationId,
    /// The peer's allocation at the same relay.
    pub peer: AllocationId,
}

/// A way to reach a peer. Two equal paths are the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// The local socket.
    pub socket: SocketId,
    /// Where the datagram goes: the peer itself, or the relay.
    pub remote: SocketAddr,
    /// Set when `remote` is a relay.
    pub relay: Option<RelayRoute>,
}

/// What kind of path, as `farlan status` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// UDP, host to host.
    Direct,
    /// UDP through a relay.
    Relayed,
    /// TLS over TCP. Reserved: no rung makes it yet.
    Stream,
    /// No path.
    None,
}

impl Path {
    /// The direct path to `remote`.
    #[must_use]
    pub const fn direct(remote: SocketAddr) -> Self {
        Self {
            socket: SocketId::for_addr(&remote),
            remote,
            relay: None,
        }
    }

    /// The path through the relay at `relay_addr`.
    #[must_use]
    pub const fn relayed(relay_addr: SocketAddr, route: RelayRoute) -> Self {
        Self {
            socket: SocketId::for_addr(&relay_addr),
            remote: relay_addr,
            relay: Some(route),
        }
    }

    /// Direct or relayed.
    #[must_use]
    pub const fn kind(&self) -> PathKind {
        if self.relay.is_some() {
            PathKind::Relayed
        } else {
            PathKind::Direct
        }
    }
}
