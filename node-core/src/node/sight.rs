//! What the slow path sees of the host at once: facts that the kernel tells without waiting.

use std::collections::BTreeSet;

use crate::attachment::{Attachment, PortTraffic, TapPort};
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::PortState;

/// What can be seen of the host's bridges and their ports, by name.
pub trait HostSight: std::fmt::Debug + Send {
    /// The port of `bridge` behind which it last heard `mac`.
    fn port_behind(&self, bridge: &str, mac: MacAddr) -> Option<String>;

    /// The number of an interface.
    fn index_of(&self, name: &str) -> Option<u32>;

    /// What a bridge lets pass at its port `name`; `None` if that is no port of a bridge.
    fn port_state(&self, name: &str) -> Option<PortState>;

    /// The bridge that `name` is a port of.
    fn bridge_of(&self, name: &str) -> Option<String>;

    /// The ports of `bridge` that have carrier.
    fn live_ports(&self, bridge: &str) -> BTreeSet<String>;

    /// How the tap `name` is now; `None` if it is not there.
    fn tap_port(&self, name: &str) -> Option<TapPort>;

    /// What has passed the interface `name`; `None` if it is not there.
    fn traffic(&self, name: &str) -> Option<PortTraffic>;

    /// What the host is called.
    fn host_name(&self) -> Option<String>;

    /// Does the NIC of `attached` wait for its addresses, so that they can move to the bridge?
    fn nic_waits(&self, attached: &Attachment) -> bool;
}
