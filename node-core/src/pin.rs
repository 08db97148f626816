//! A MAC of which the operator says that it is on this host.

use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::MacKey;
use serde::{Deserialize, Serialize};

/// A MAC that stays on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The network.
    pub network: NetworkName,
    /// The VLAN, 0 for untagged.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
}

impl Pin {
    /// `key` of `network`.
    #[must_use]
    pub const fn new(network: NetworkName, key: MacKey) -> Self {
        Self {
            network,
            vlan: key.vlan,
            mac: key.mac,
        }
    }

    /// VLAN and MAC.
    #[must_use]
    pub const fn key(&self) -> MacKey {
        MacKey {
            vlan: self.vlan,
            mac: self.mac,
        }
    }

    /// MAC and VLAN as people read them.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.vlan == VlanId::UNTAGGED {
            self.mac.to_string()
        } else {
            format!("{} (VLAN {})", self.mac, self.vlan.get())
        }
    }
}
