//! What the slow path wants of the host, and what it hears of it: data that the shell carries out and brings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::attachment::Attachment;
use overlay_proto::ethernet::bridge::FdbEntry;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::switching::{MacKey, NetIndex};

use crate::node::effects::CallId;
use crate::node::networks::remote_macs::Changes;

/// What a bridge is to do. Ports by their interface index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeOrder {
    /// The MAC is at this port now.
    Replace {
        /// The port.
        port: u32,
        /// The MAC.
        key: MacKey,
    },
    /// The MAC is at this port no more.
    Delete {
        /// The port.
        port: u32,
        /// The MAC.
        key: MacKey,
    },
    /// Nothing is known of this port any more.
    Flush {
        /// The port.
        port: u32,
    },
}

/// Something that the slow path wants of the host.
#[derive(Debug)]
pub enum HostTask {
    /// A look at the bridges and the overlay's ports of these networks, by their names; with `whole` at all they have
    /// learnt. Answered by `Answer::Bridges`.
    LookAtBridges {
        /// Network, bridge and tap.
        wanted: Vec<(NetIndex, String, String)>,
        /// The whole forwarding databases, too.
        whole: bool,
    },
    /// A look at the host's addresses and its ways toward these, after a pause. Answered by `Answer::Host`.
    LookAtHost {
        /// Where ways out are asked for.
        toward: Vec<IpAddr>,
        /// Before it.
        pause: Duration,
    },
    /// A port, by its interface index, forwards or does not. Answered by `Answer::PortSet`.
    SetForwarding {
        /// The port's number.
        index: u32,
        /// Its name.
        name: String,
        /// From now on.
        forwards: bool,
    },
    /// Entries of other hosts' MACs at the overlay's port. Answered by `Answer::RemoteMacs`.
    Remote {
        /// The network.
        net: NetIndex,
        /// The overlay's port.
        port: u32,
        /// What to remove and to write.
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
pub struct BridgeLook {
    /// The network.
    pub net: NetIndex,
    /// The bridge's number.
    pub bridge: u32,
    /// The number of the overlay's port.
    pub tap: u32,
    /// The VLAN that untagged frames belong to, where the bridge filters VLANs.
    pub untagged: Option<VlanId>,
    /// Ports with carrier, without our tap.
    pub ports: BTreeSet<u32>,
    /// The names of all its ports, with and without carrier, but for our tap.
    pub names: BTreeMap<u32, String>,
    /// The whole database, if it was asked for.
    pub fdb: Option<Vec<FdbEntry>>,
    /// The database has more entries than are looked at.
    pub more: bool,
    /// The MACs of the bridge and its ports.
    pub own: BTreeSet<MacAddr>,
    /// It forwards a multicast group only to ports that asked for it.
    pub snoops: bool,
    /// What our tap should be as a port and cannot be made, a line each.
    pub wrong: Vec<String>,
}

/// What became of the tap of one network.
#[derive(Debug)]
pub enum Tap {
    /// It is open as recorded.
    Open(Box<Attachment>),
    /// The network is not attached here, or the interface is missing: the look that misses it says why.
    None,
    /// It cannot be opened; with the reason, for people.
    Refused(String),
}
