//! What the slow path wants of the host, and what it hears of it: data that the shell carries out and brings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use node_core::attachment::Attachment;
use overlay_proto::ethernet::bridge::FdbEntry;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::switching::{MacKey, NetIndex};

use super::effects::CallId;
use super::remote_macs::Changes;

/// What a bridge is to do. Ports by their interface index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BridgeOrder {
    /// The MAC is at this port now.
    Replace { port: u32, key: MacKey },
    /// The MAC is at this port no more.
    Delete { port: u32, key: MacKey },
    /// Nothing is known of this port any more.
    Flush { port: u32 },
}

/// Something that the slow path wants of the host.
#[derive(Debug)]
pub(crate) enum HostTask {
    /// A look at the bridges and the overlay's ports of these networks, by their names; with `whole` at all they have
    /// learnt. Answered by `Answer::Bridges`.
    LookAtBridges {
        wanted: Vec<(NetIndex, String, String)>,
        whole: bool,
    },
    /// A look at the host's addresses and its ways toward these, after a pause. Answered by `Answer::Host`.
    LookAtHost {
        toward: Vec<IpAddr>,
        pause: Duration,
    },
    /// A port, by its interface index, forwards or does not. Answered by `Answer::PortSet`.
    SetForwarding {
        index: u32,
        name: String,
        forwards: bool,
    },
    /// Entries of other hosts' MACs at the overlay's port. Answered by `Answer::RemoteMacs`.
    Remote {
        net: NetIndex,
        port: u32,
        changes: Changes,
    },
    /// Moved addresses are brought back. Answered by `Answer::MoveEnded`.
    RollBack,
    /// What the disk knows of a network. Answered by `Answer::Recalled`.
    Recall(NetworkId, NetworkName),
    /// What is recorded and not made is made. Nothing answers; a look at the interfaces tells.
    Ensure,
    /// What was moved stays. Answered by `Answer::Confirmed`.
    Confirm(CallId),
}

/// What one look saw of one network's bridge.
#[derive(Debug)]
pub(crate) struct BridgeLook {
    pub(crate) net: NetIndex,
    pub(crate) bridge: u32,
    pub(crate) tap: u32,
    /// The VLAN that untagged frames belong to, where the bridge filters VLANs.
    pub(crate) untagged: Option<VlanId>,
    /// Ports with carrier, without our tap.
    pub(crate) ports: BTreeSet<u32>,
    /// The whole database, if it was asked for.
    pub(crate) fdb: Option<Vec<FdbEntry>>,
    /// The database has more entries than are looked at.
    pub(crate) more: bool,
    /// The MACs of the bridge and its ports.
    pub(crate) own: BTreeSet<MacAddr>,
    pub(crate) snoops: bool,
    /// What our tap should be as a port and cannot be made, a line each.
    pub(crate) wrong: Vec<String>,
}

/// What became of the tap of one network.
#[derive(Debug)]
pub(crate) enum Tap {
    /// It is open as recorded.
    Open(Box<Attachment>),
    /// The network is not attached here, or the interface is missing: the look that misses it says why.
    None,
    /// It cannot be opened; with the reason, for people.
    Refused(String),
}
