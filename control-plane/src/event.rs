//! What the control plane tells the node.

use std::net::SocketAddr;

use libp2p::Multiaddr;
use overlay_proto::ids::PeerId;

/// Something happened. Events wait in a channel of [`EVENT_QUEUE`]; when it is full, news of links
/// waits, and an envelope is refused to its sender, who tries again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// A bootstrap is connected and has proved its role.
    InfraUp {
        /// The bootstrap.
        peer: PeerId,
        /// Where the control connection goes.
        remote: SocketAddr,
        /// Its reflector and relay addresses (UDP), as usable from here.
        data_addrs: Vec<SocketAddr>,
    },
    /// The last connection to a bootstrap is gone; it is dialled again.
    InfraDown {
        /// The bootstrap.
        peer: PeerId,
    },
    /// An envelope arrived.
    Signal {
        /// Who sent it, according to the one who carried it; only the seal inside proves it.
        from: PeerId,
        /// Opaque here.
        envelope: Vec<u8>,
    },
    /// A dialled node did not admit us, or we did not admit it.
    Refused {
        /// What was dialled.
        addr: Multiaddr,
        /// One line for people.
        reason: String,
    },
    /// A dialled bootstrap cannot be reached; it is dialled again.
    Unreachable {
        /// What was dialled.
        addr: Multiaddr,
        /// One line for people.
        reason: String,
    },
    /// Two machines have one identity: on a member its own, at a bootstrap that of `peer`.
    Twins {
        /// Whose.
        peer: PeerId,
        /// Where the one that spoke last is connected from, and the other one.
        addrs: [SocketAddr; 2],
    },
    /// The gate has learnt of revocations: whoever they name is cut off here already.
    RevocationsGrew,
    /// A listener that once worked is closed.
    ListenFailed {
        /// Its addresses.
        addrs: Vec<Multiaddr>,
        /// One line for people.
        reason: String,
    },
}

/// Events that wait for the node: 256 envelopes of 8 KiB are 2 MiB.
pub const EVENT_QUEUE: usize = 256;
