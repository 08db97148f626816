//! What the slow path sees of the host at once: facts that the kernel tells without waiting.

use std::collections::BTreeSet;

use node_core::attachment::{Attachment, TapPort};
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::PortState;
use tap_bridge::port_state;

use crate::attachments;

/// What can be seen of the host's bridges and their ports, by name.
pub(crate) trait HostSight: std::fmt::Debug + Send {
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

    /// Does the NIC of `attached` wait for its addresses, so that they can move to the bridge?
    fn nic_waits(&self, attached: &Attachment) -> bool;
}

/// The kernel here.
#[derive(Debug)]
pub(crate) struct Kernel;

impl HostSight for Kernel {
    fn port_behind(&self, bridge: &str, mac: MacAddr) -> Option<String> {
        port_state::port_behind(bridge, mac).ok().flatten()
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        port_state::index_of(name)
    }

    fn port_state(&self, name: &str) -> Option<PortState> {
        port_state::port_state(name)
    }

    fn bridge_of(&self, name: &str) -> Option<String> {
        port_state::bridge_of(name)
    }

    fn live_ports(&self, bridge: &str) -> BTreeSet<String> {
        port_state::live_ports(bridge)
    }

    fn tap_port(&self, name: &str) -> Option<TapPort> {
        attachments::port(name)
    }

    fn nic_waits(&self, attached: &Attachment) -> bool {
        attachments::nic_waits(attached)
    }
}
