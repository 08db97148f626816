//! The UDP relay between two allocations (TRUST.md 18).
//!
//! Both ends make an allocation at the relay over the authenticated control plane and name the
//! peers they accept. A relayed datagram names two allocations, never an address; its MAC stands
//! under the key of the end that talks to the relay on that leg. What the relay carries is sealed
//! end to end: it sees sizes and times.

mod client;
mod codec;
mod forwarding;
#[cfg(test)]
mod forwarding_tests;
mod server;
#[cfg(test)]
mod server_tests;
mod shaper;

pub use client::{RelayClient, RelayClientEvent};
pub use codec::{
    ACK_LEN, Ack, BIND_LEN, Bind, CHALLENGE_LEN, Challenge, HEADER_LEN, KIND_ACK, KIND_BIND,
    KIND_CHALLENGE, KIND_RELAYED, allocation_of, may_be_relayed, route_of, unwrap, wrap,
    wrap_in_place,
};
pub use forwarding::{RelayRun, TrainOrigin, is_relayed};
pub use server::{
    MAX_PERMITS, RelayGrant, RelayOutput, RelayServer, RelayServerConfig, RelayStats,
};

/// The secret of one allocation: authenticates relayed datagrams (SipHash-2-4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayKey(pub [u8; 16]);

impl std::fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayKey(..)")
    }
}

/// Why the relay, or the relay's client, refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RelayError {
    /// Wrong length, kind, reserved byte or address.
    #[error("the relay datagram does not parse")]
    Malformed,
    /// A payload that must not be relayed: relaying it would nest relays.
    #[error("the payload is not one that may be relayed")]
    Payload,
    /// No such allocation, or it has expired.
    #[error("no such allocation")]
    UnknownAllocation,
    /// The MAC is wrong.
    #[error("the MAC of the relay datagram is wrong")]
    BadMac,
    /// A bind counter that is not above the last one.
    #[error("the bind counter did not grow")]
    Replayed,
    /// An echo of a challenge that was not sent to this address.
    #[error("the challenge is not the one sent to this address")]
    BadEcho,
    /// The allocation is not bound, or a datagram came from another address than the bound one.
    #[error("the allocation is not bound to this address")]
    NotBound,
    /// The two owners do not both permit each other.
    #[error("the two peers do not both permit each other")]
    NotPermitted,
    /// The owner's quota is used up.
    #[error("the quota is used up")]
    Quota,
    /// The relay has as many allocations as it may have.
    #[error("the relay is full")]
    Full,
    /// The allocation belongs to somebody else.
    #[error("the allocation belongs to another node")]
    NotOwner,
    /// The answer was not asked for.
    #[error("nobody asked for this answer")]
    Unasked,
}
