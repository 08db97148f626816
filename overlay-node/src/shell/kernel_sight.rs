//! What can be seen of this host at once: the kernel's files of its bridges and ports.

use std::collections::BTreeSet;

use node_core::attachment::{Attachment, TapPort};
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::PortState;
use tap_bridge::port_state;

use crate::attachments;
use crate::state;
use node_core::node::sight::HostSight;

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

    fn host_name(&self) -> Option<String> {
        state::host_name()
    }

    fn nic_waits(&self, attached: &Attachment) -> bool {
        attachments::nic_waits(attached)
    }
}
