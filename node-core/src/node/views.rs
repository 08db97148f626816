//! What an owner is shown of the others at once, as plain data.

use std::time::Instant;

use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::PeerId;
use overlay_proto::time::UnixTime;

/// This node, as its neighbours and the guests know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    /// Its name.
    pub(crate) me: PeerId,
    /// The source of the questions that it puts to guests.
    pub(crate) probe_mac: MacAddr,
    /// What the workers count from when they note that they heard a guest.
    pub(crate) epoch: Instant,
}

/// How it stands with a network beyond the LAN here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beyond {
    /// Is there a session in it?
    pub(crate) connected: bool,
    /// The time by which the key of the epoch before ends.
    pub(crate) time: UnixTime,
}
