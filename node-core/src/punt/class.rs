//! The classes of the punt queue, and whose flow a punt is (ADR 44).

use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;
use overlay_proto::tunnels::Source;

use super::Punt;

/// What a punt is about. The classes are served by weight, so no class waits for another one's flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// The node's own affairs: a lost tap, beacons, word of loops and of standing by.
    Own,
    /// What a peer sealed that is no frame, and word that a session works.
    Session,
    /// Handshakes whose sender has shown what it must show.
    Handshake,
    /// Reflector, relay control, strays, and handshakes that have something left to show.
    Underlay,
    /// Frames of peers.
    Remote,
    /// Frames of guests here.
    Local,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Own,
        Self::Session,
        Self::Handshake,
        Self::Underlay,
        Self::Remote,
        Self::Local,
    ];

    /// The most punts of this class that leave the queue in one round. While all classes have something, a class
    /// has this share of the sum of all weights.
    #[must_use]
    pub const fn weight(self) -> u32 {
        match self {
            Self::Session => 16,
            Self::Own | Self::Handshake => 8,
            Self::Underlay | Self::Remote | Self::Local => 4,
        }
    }

    /// How many punts of this class may wait in the queue.
    #[must_use]
    pub const fn bound(self) -> usize {
        match self {
            Self::Own => 256,
            Self::Handshake | Self::Underlay => 512,
            Self::Session | Self::Local => 1024,
            Self::Remote => 2048,
        }
    }

    /// How many punts of this class may be on their way from one worker to the queue.
    #[must_use]
    pub const fn channel(self) -> usize {
        match self {
            Self::Own => 64,
            Self::Handshake | Self::Underlay => 128,
            Self::Session | Self::Local => 512,
            Self::Remote => 1024,
        }
    }
}

/// Those within a class that are served in turn, one punt each.
///
/// A port (what a guest is plugged into) is no type yet. When it is one, it is a variant here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// The tap of a network.
    Tap(NetIndex),
    /// A peer.
    Peer(PeerId),
    /// A peer in one network.
    PeerIn(NetIndex, PeerId),
    /// Where a datagram in the clear came from.
    Source(Source),
}

impl Punt {
    /// Its class.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::TapLost { .. }
            | Self::Beacon { .. }
            | Self::GoesRound { .. }
            | Self::StandingBy { .. } => Class::Own,
            Self::Inner { .. } | Self::Opened { .. } => Class::Session,
            Self::Handshake { .. } => Class::Handshake,
            Self::Datagram { .. } | Self::Stray { .. } => Class::Underlay,
            Self::PeerFrame { .. } => Class::Remote,
            Self::LocalFrame { .. } | Self::LocalBroadcast { .. } | Self::LocalEvidence { .. } => {
                Class::Local
            }
        }
    }

    /// Its flow within its class.
    #[must_use]
    pub fn flow(&self) -> Flow {
        match self {
            Self::TapLost { net }
            | Self::Beacon { net, .. }
            | Self::GoesRound { net, .. }
            | Self::StandingBy { net, .. }
            | Self::LocalFrame { net, .. }
            | Self::LocalBroadcast { net, .. }
            | Self::LocalEvidence { net, .. } => Flow::Tap(*net),
            Self::Inner { peer, .. } | Self::Opened { peer, .. } => Flow::Peer(*peer),
            Self::PeerFrame { net, peer, .. } => Flow::PeerIn(*net, *peer),
            Self::Handshake { path, .. } | Self::Datagram { path, .. } | Self::Stray { path } => {
                Flow::Source(Source::of(path))
            }
        }
    }
}
