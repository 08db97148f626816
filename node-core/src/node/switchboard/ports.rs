//! Ports of this host's bridges that loop: who tells of them.

use overlay_proto::ethernet::VlanId;
use overlay_proto::switching::NetIndex;

use super::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// The own beacon came from the bridge of `net`.
    pub(crate) fn handle_returned_beacon(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        let out = &mut self.outside;
        self.networks.handle_returned_beacon(tick, out, net, vlan);
    }

    /// Opens the ports whose time is over.
    pub(crate) fn open_looped_ports(&mut self, tick: Tick) {
        self.networks.looped.open_ports(tick, &mut self.outside);
    }

    /// Ports that an earlier run shut, and did not live to open.
    pub fn recall_looped_ports(&mut self, tick: Tick, saved: &[u8]) {
        self.networks.looped.recall(tick, &mut self.outside, saved);
    }
}
