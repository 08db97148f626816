//! What is to be written, in which order, and what becomes of it.

use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::membership::{Membership, Taken};
use overlay_proto::switching::MacKey;

use super::edits::Edit;

/// Something that is to be on disk, with all that it takes to put it there. Secrets in it erase themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A revocation list for the gate, which judges it, puts it on disk, and then goes by it.
    Revocations {
        /// Encoded; at most 63 KiB.
        list: Vec<u8>,
        /// Who brought it; `None`: a user.
        from: Option<PeerId>,
    },
    /// A change of the membership.
    Edit(Edit),
    /// A sequence for the signature of the x25519 key, above all before.
    NextStatic,
    /// The operator's name for the node; `None` forgets it.
    Name(Option<String>),
    /// MACs that the operator says are here.
    Pins {
        /// In which network.
        network: NetworkName,
        /// At most 256.
        keys: Vec<MacKey>,
        /// Are they, or not any more?
        stay: bool,
    },
    /// No number of a list or a signal is above it.
    Sequences(u64),
    /// The newest handshake timestamp, in nanoseconds.
    HandshakeTime(u64),
    /// Which ports are shut.
    LoopedPorts(Vec<u8>),
    /// What a directory must not lose.
    Directory {
        /// Of this network.
        network: NetworkId,
        /// At most 16 MiB; a few hundred bytes for each member and claim.
        snapshot: Vec<u8>,
    },
    /// Where the peers are; at most 3 MB.
    Peers(Vec<u8>),
    /// What makes this host a member is erased.
    Leave,
}

/// Those in front are written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Revocations and root documents.
    Revocations,
    /// What others gave this node: receipts, epochs; certificates that have ended.
    Learnt,
    /// What a user, or the end of a signature, asks for.
    Asked,
    Sequences,
    HandshakeTime,
    LoopedPorts,
    /// Directories and peers.
    Memory,
    Leaving,
}

/// Whose newer content takes the place of an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blob {
    Sequences,
    HandshakeTime,
    LoopedPorts,
    Directory(NetworkId),
    Peers,
}

/// What came of a write that the disk took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// There is nothing to tell.
    Saved,
    /// Of [`Write::Edit`].
    Edited(Box<Edited>),
    /// Of [`Write::Revocations`]: what the gate says.
    Taken(Taken),
    /// Of [`Write::NextStatic`].
    Static {
        /// The key on disk.
        public: [u8; 32],
        /// For its next signature.
        sequence: u64,
    },
}

/// The membership after an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// As it is on disk, also by what other programs wrote.
    pub membership: Membership,
    /// The networks that the edit gave a new epoch.
    pub begun: Vec<NetworkName>,
}

/// Why something is not on disk. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much waits.
    #[error("too much waits for the disk; try again in a moment")]
    NoRoom,
    /// The node will have left in a moment.
    #[error("this node is leaving the overlay")]
    Leaving,
    /// The disk does not take it, or cannot be read.
    #[error("{0}")]
    Disk(String),
    /// It does not fit what is on disk.
    #[error("{0}")]
    Content(String),
}

impl Rank {
    /// Writes of the rank that wait, at most.
    pub(super) const fn room(self) -> usize {
        match self {
            // Signed by the authority, all of them; 2 MiB.
            Self::Revocations => 32,
            // An epoch for each network, a receipt for each certificate, and as many once more.
            Self::Learnt => 192,
            // As many as the control socket lets wait, and the key.
            Self::Asked => 40,
            Self::Sequences | Self::HandshakeTime | Self::LoopedPorts | Self::Leaving => 1,
            // A directory for each network, and the peers.
            Self::Memory => 65,
        }
    }
}

impl Write {
    pub(super) const fn rank(&self) -> Rank {
        match self {
            Self::Revocations { .. } | Self::Edit(Edit::FollowRoots(_)) => Rank::Revocations,
            Self::Edit(Edit::TakeReceipt(_) | Edit::TakeEpoch(_) | Edit::ForgetEnded) => {
                Rank::Learnt
            }
            Self::Edit(Edit::Look | Edit::ApplyRoots(_) | Edit::ApplyEpochs(_))
            | Self::NextStatic
            | Self::Name(_)
            | Self::Pins { .. } => Rank::Asked,
            Self::Sequences(_) => Rank::Sequences,
            Self::HandshakeTime(_) => Rank::HandshakeTime,
            Self::LoopedPorts(_) => Rank::LoopedPorts,
            Self::Directory { .. } | Self::Peers(_) => Rank::Memory,
            Self::Leave => Rank::Leaving,
        }
    }

    pub(super) const fn blob(&self) -> Option<Blob> {
        Some(match self {
            Self::Sequences(_) => Blob::Sequences,
            Self::HandshakeTime(_) => Blob::HandshakeTime,
            Self::LoopedPorts(_) => Blob::LoopedPorts,
            Self::Directory { network, .. } => Blob::Directory(*network),
            Self::Peers(_) => Blob::Peers,
            _ => return None,
        })
    }

    /// Is it done with `other`? It does not matter who brought a list.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Revocations { list, .. }, Self::Revocations { list: other, .. }) => {
                list == other
            }
            _ => self == other,
        }
    }

    /// Does a user wait for it?
    pub(super) const fn is_awaited(&self) -> bool {
        match self {
            Self::Revocations { from, .. } => from.is_none(),
            Self::Edit(edit) => !edit.is_learnt(),
            Self::Name(_) | Self::Pins { .. } => true,
            _ => false,
        }
    }

    /// Does it count although the disk refuses, for as long as the node runs?
    pub(super) const fn counts_all_the_same(&self) -> bool {
        matches!(self, Self::Edit(edit) if edit.is_learnt())
    }

    pub(super) const fn edit(&self) -> Option<&Edit> {
        match self {
            Self::Edit(edit) => Some(edit),
            _ => None,
        }
    }

    /// Is it erased by leaving?
    pub(super) const fn is_erased(&self) -> bool {
        self.blob().is_some()
    }
}
