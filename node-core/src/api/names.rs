//! Who the nodes are, in the words of the control socket.

use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};

/// What a node is called.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShownName {
    /// The name that the authority signed, or else the one that the node gives itself; empty if it
    /// has none.
    #[serde(default)]
    pub name: String,
    /// Did the authority sign it? Without that it proves nothing.
    #[serde(default, rename = "name_signed")]
    pub signed: bool,
}

impl ShownName {
    /// A name that the authority signed.
    #[must_use]
    pub fn signed(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            signed: true,
        }
    }

    /// A name that a node gives itself.
    #[must_use]
    pub fn unsigned(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            signed: false,
        }
    }
}

/// `farlan members --json`, one element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The node.
    pub node: PeerId,
    /// What it is called.
    #[serde(flatten)]
    pub name: ShownName,
    /// The networks of this node that it is in.
    pub networks: Vec<NetworkName>,
    /// The invite it joined with.
    pub invite: String,
    /// When it joined, by the receipt of the witness.
    pub joined: Option<UnixTime>,
    /// The last second of its membership.
    pub member_until: UnixTime,
    /// Its certificate, which proves all that: public, for `farlan invites --seen`.
    pub certificate: String,
}
