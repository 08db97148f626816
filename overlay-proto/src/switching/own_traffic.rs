//! The node's own datagrams inside of frames: the overlay must not ride on itself.
//!
//! A frame on a tap may hold a datagram of this very node: a host address above the bridge, a route
//! or a namespace has led it there. Carried, it would come out at the peer as one from a better path,
//! the traffic would move there, and each datagram would be carried inside the next. So it is dropped
//! at the sender's tap, and at the receiver before it is delivered.
//!
//! Addresses do not tell such a datagram from one of a guest that runs a node of its own, perhaps of
//! the same overlay: they may be equal, and a NAT on the way rewrites them. The datagram itself does.
//! Its header names a session index or an allocation that this node has drawn or was told, 32 or 64
//! random bits that no guest has. Only the few kinds that carry none are known by the host's address.

use std::net::SocketAddr;

use nat_traversal::path::AllocationId;

use super::fib::{Fib, FibMap};
use crate::ethernet::{EthernetFrame, IpPacket, ethertype, protocol};
use crate::wire::{DatagramKind, SessionIndex};

const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where a header has its first index or allocation.
const FIRST_ID: usize = 4;
/// Where message 2 of a handshake has the index that it answers.
const ANSWERED: usize = 8;
/// Where a relayed datagram has the allocation that it goes to.
const RELAYED_TO: usize = 12;

/// What the node's own datagrams are known by, beside the sessions and relay keys of the [`Fib`].
#[derive(Debug, Clone, Default)]
pub struct OwnTraffic {
    /// The indices that peers have drawn for sessions with this node; as many as there are sessions.
    pub remote_indices: FibMap<SessionIndex, ()>,
    /// The indices of this node's own handshakes under way.
    pub dialling: FibMap<SessionIndex, ()>,
    /// The handshake that was begun last, to see whether `dialling` is still right.
    pub last_handshake: u64,
    /// The data sockets at each address of the host.
    pub sockets: Vec<SocketAddr>,
}

/// A UDP datagram in a frame.
struct Inside<'a> {
    from: SocketAddr,
    to: SocketAddr,
    payload: &'a [u8],
}

impl<'a> Inside<'a> {
    fn of(frame: &EthernetFrame<'a>) -> Option<Self> {
        if !may_be_own(frame) {
            return None;
        }
        let packet = IpPacket::from_frame(frame).ok()?;
        if packet.protocol != protocol::UDP {
            return None;
        }
        let (header, payload) = packet.l4.split_first_chunk::<UDP_HEADER>()?;
        let [s0, s1, d0, d1, ..] = *header;
        Some(Self {
            from: SocketAddr::new(packet.source, u16::from_be_bytes([s0, s1])),
            to: SocketAddr::new(packet.destination, u16::from_be_bytes([d0, d1])),
            payload,
        })
    }

    fn index_at(&self, at: usize) -> Option<SessionIndex> {
        let bytes = self.payload.get(at..)?.first_chunk()?;
        Some(SessionIndex(u32::from_be_bytes(*bytes)))
    }

    fn allocation_at(&self, at: usize) -> Option<AllocationId> {
        let bytes = self.payload.get(at..)?.first_chunk()?;
        Some(AllocationId(u64::from_be_bytes(*bytes)))
    }
}

/// Most frames are TCP, or begin otherwise than any datagram of a node; those are not looked into any further.
fn may_be_own(frame: &EthernetFrame<'_>) -> bool {
    let packet = frame.payload();
    let datagram = match (frame.ethertype(), packet.first()) {
        (ethertype::IPV4, _) if packet.get(9) != Some(&protocol::UDP) => return false,
        // Without options.
        (ethertype::IPV4, Some(0x45)) => packet.get(IPV4_HEADER + UDP_HEADER..),
        (ethertype::IPV4, _) => return true,
        (ethertype::IPV6, _) => match packet.get(6) {
            Some(&(protocol::TCP | protocol::ICMPV6)) | None => return false,
            Some(&protocol::UDP) => packet.get(IPV6_HEADER + UDP_HEADER..),
            // Extension headers may stand before it.
            Some(_) => return true,
        },
        _ => return false,
    };
    datagram.is_some_and(|datagram| DatagramKind::parse(datagram).is_ok())
}

impl Fib {
    /// Was this frame of a local tap sent by a data socket of this very node?
    #[must_use]
    pub fn left_own_socket(&self, frame: &EthernetFrame<'_>) -> bool {
        Inside::of(frame).is_some_and(|inside| self.is_from_us(&inside).unwrap_or(false))
    }

    /// Would this frame of a peer, once delivered, reach a data socket of this very node?
    #[must_use]
    pub fn is_for_own_socket(&self, frame: &EthernetFrame<'_>) -> bool {
        Inside::of(frame).is_some_and(|inside| self.is_for_us(&inside).unwrap_or(false))
    }

    fn is_from_us(&self, inside: &Inside<'_>) -> Option<bool> {
        let own = &self.own;
        Some(match DatagramKind::parse(inside.payload).ok()? {
            DatagramKind::Data => own.remote_indices.contains_key(&inside.index_at(FIRST_ID)?),
            DatagramKind::HandshakeInit => own.dialling.contains_key(&inside.index_at(FIRST_ID)?),
            DatagramKind::HandshakeResponse => {
                self.sessions.contains_key(&inside.index_at(FIRST_ID)?)
            }
            DatagramKind::Relayed | DatagramKind::RelayBind => self
                .relay_keys
                .contains_key(&inside.allocation_at(FIRST_ID)?),
            DatagramKind::CookieReply | DatagramKind::ReflectorRequest => {
                own.sockets.contains(&inside.from)
            }
            // A bootstrap's.
            DatagramKind::ReflectorResponse
            | DatagramKind::RelayChallenge
            | DatagramKind::RelayAck => false,
        })
    }

    fn is_for_us(&self, inside: &Inside<'_>) -> Option<bool> {
        let own = &self.own;
        Some(match DatagramKind::parse(inside.payload).ok()? {
            DatagramKind::Data => self.sessions.contains_key(&inside.index_at(FIRST_ID)?),
            DatagramKind::HandshakeResponse => {
                own.dialling.contains_key(&inside.index_at(ANSWERED)?)
            }
            DatagramKind::CookieReply => own.dialling.contains_key(&inside.index_at(FIRST_ID)?),
            DatagramKind::Relayed => self
                .relay_keys
                .contains_key(&inside.allocation_at(RELAYED_TO)?),
            DatagramKind::RelayChallenge | DatagramKind::RelayAck => self
                .relay_keys
                .contains_key(&inside.allocation_at(FIRST_ID)?),
            DatagramKind::HandshakeInit | DatagramKind::ReflectorResponse => {
                own.sockets.contains(&inside.to)
            }
            // For a bootstrap.
            DatagramKind::ReflectorRequest | DatagramKind::RelayBind => false,
        })
    }
}

#[cfg(test)]
mod tests;
