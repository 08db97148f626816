//! What the fast path hands to the slow path, and how it gets there (ADR 44): [`class`] says what a punt is about, [`charges`]
//! who pays for it, [`queue`] in which order it is handled.

pub mod charges;
pub mod class;
pub mod queue;

use std::sync::Arc;

use nat_traversal::path::Path;
use overlay_proto::ethernet::VlanId;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{NetIndex, PuntReason};
use overlay_proto::wire::{Forwarded, InnerHeader, SessionIndex};

/// Something that the `Fib` does not answer. Owns its bytes: punting is rare, forwarding is not.
#[derive(Debug)]
pub enum Punt {
    /// A frame from a local tap. It was not sent.
    LocalFrame {
        /// The tap's network.
        net: NetIndex,
        /// Why.
        reason: PuntReason,
        /// The whole frame.
        frame: Box<[u8]>,
    },
    /// A group-addressed frame from a local tap. It was sent to the `Fib`'s direct members already;
    /// the network has others.
    LocalBroadcast {
        /// The tap's network.
        net: NetIndex,
        /// Whom it was sent to: what
        /// [`FibNetwork::punt_broadcast`](overlay_proto::switching::FibNetwork::punt_broadcast) says.
        had: Arc<[PeerId]>,
        /// The whole frame.
        frame: Box<[u8]>,
    },
    /// A frame from a local tap that tells an address of its source (ARP, ND). It was sent
    /// already, where the `Fib` knew the way.
    LocalEvidence {
        /// The tap's network.
        net: NetIndex,
        /// The whole frame.
        frame: Box<[u8]>,
    },
    /// A frame from a local tap by which nodes on one LAN find each other. It was not sent.
    Beacon {
        /// The tap's network.
        net: NetIndex,
        /// The whole frame.
        frame: Box<[u8]>,
    },
    /// A frame of this VLAN was dropped because this node stands by in it.
    StandingBy {
        /// The tap's network.
        net: NetIndex,
        /// The VLAN.
        vlan: VlanId,
    },
    /// A broadcast from a local tap came so often that it may go round in a loop of the host's bridges.
    GoesRound {
        /// The tap's network.
        net: NetIndex,
        /// Its VLAN.
        vlan: VlanId,
    },
    /// A frame from a peer. It was not delivered.
    PeerFrame {
        /// The network.
        net: NetIndex,
        /// Who sealed it.
        peer: PeerId,
        /// Why; for a frame that is marked as forwarded always
        /// [`PuntReason::SourceNotClaimed`], because its source is another node's.
        reason: PuntReason,
        /// How often it was forwarded.
        hops: u8,
        /// Whose it is, when not the sender's.
        forwarded: Option<Forwarded>,
        /// The whole frame.
        frame: Box<[u8]>,
    },
    /// What came sealed and is no frame: control, probe, keep-alive.
    Inner {
        /// Our index of the session that opened it.
        session: SessionIndex,
        /// Who sealed it.
        peer: PeerId,
        /// Where it came from.
        path: Path,
        /// What it is.
        header: InnerHeader,
        /// What follows the header.
        body: Box<[u8]>,
    },
    /// A packet opened under this session, first or from another path than the one before: the
    /// session works, and this is where the peer sends from. No reason to change a path.
    Opened {
        /// Our index of the session.
        session: SessionIndex,
        /// Who is at the other end.
        peer: PeerId,
        /// Where it came from.
        path: Path,
        /// Bytes of its datagram.
        received: usize,
    },
    /// Sealed data under an index that is none of ours came on this path: from a peer that does not
    /// know yet that we have restarted, or from anybody. It was dropped. At most one a second for
    /// each path.
    Stray {
        /// Where it came from.
        path: Path,
    },
    /// A handshake whose sender knows the overlay secret: its mac1 is good, and under load the mac2 of a message 1, too. Or the
    /// reply to a handshake under way.
    Handshake {
        /// Where it came from.
        path: Path,
        /// All of it.
        bytes: Box<[u8]>,
    },
    /// Any other datagram in the clear: reflector, relay control, a handshake that was not judged or has still to show
    /// something.
    Datagram {
        /// Where it came from.
        path: Path,
        /// All of it.
        bytes: Box<[u8]>,
    },
    /// A tap cannot be read any more; the worker has let go of it.
    TapLost {
        /// The tap's network.
        net: NetIndex,
    },
}
