//! What an owner is shown of the others at once, as plain data.

use std::collections::BTreeMap;
use std::time::Instant;

use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Membership, NodeKey};
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

/// By what this node is a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a> {
    /// Its name.
    pub(crate) me: PeerId,
    /// Signs claims and roster entries.
    pub(crate) key: &'a NodeKey,
    /// Its certificate chain, as it travels.
    pub(crate) chain: &'a [u8],
    /// What `join` brought.
    pub(crate) membership: &'a Membership,
}

/// What people call some nodes.
#[derive(Debug, Default)]
pub(crate) struct Called(BTreeMap<PeerId, String>);

impl Called {
    /// What they call `node`; its id if nothing was said of it.
    pub(crate) fn of(&self, node: &PeerId) -> String {
        self.0
            .get(node)
            .cloned()
            .unwrap_or_else(|| node.to_string())
    }
}

impl FromIterator<(PeerId, String)> for Called {
    fn from_iter<I: IntoIterator<Item = (PeerId, String)>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}
