//! What joins a network on this host, as far as the slow path goes by it.

use ipnet::IpNet;
use overlay_proto::ids::NetworkName;
use serde::{Deserialize, Serialize};

/// One attached network: the part of the record on disk that matters while the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: NetworkName,
    /// The tap that the node reads.
    pub tap: String,
    /// The bridge the tap is a port of.
    pub bridge: String,
    /// Made here; else it was there before.
    pub bridge_is_ours: bool,
    /// The addresses that the administrator gave the host on the own bridge.
    pub addresses: Vec<IpNet>,
    /// The NIC on the bridge.
    pub nic: Option<AttachedNic>,
    /// The names of the taps for VMs.
    pub vms: Vec<String>,
    /// What may be switched off.
    pub switches: Switches,
}

/// A NIC on the own bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedNic {
    /// Its name.
    pub name: String,
    /// The host's addresses were moved from it to the bridge, or are to be.
    pub is_moved: bool,
}

/// What the data path does for an attached network unless it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// The kernel may hand over super-frames and partial checksums, and gets them (`--no-offload`).
    pub offload: bool,
    /// The MSS of SYNs is lowered to what one datagram carries (`--no-clamp`).
    pub clamp: bool,
    /// BPDUs are carried (`--bpdu pass`).
    #[serde(default)]
    pub bpdu: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            offload: true,
            clamp: true,
            bpdu: false,
        }
    }
}

impl Switches {
    /// Throws the switches that something is said of; the others stay.
    pub fn throw(&mut self, offload: Option<bool>, clamp: Option<bool>, bpdu: Option<bool>) {
        self.offload = offload.unwrap_or(self.offload);
        self.clamp = clamp.unwrap_or(self.clamp);
        self.bpdu = bpdu.unwrap_or(self.bpdu);
    }
}

/// A tap as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapPort {
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// Bytes of payload.
    pub mtu: u16,
}
