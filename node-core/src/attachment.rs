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
    /// The taps for VMs, in the order they were made.
    pub vms: Vec<AttachedVm>,
    /// What may be switched off.
    pub switches: Switches,
}

/// The tap of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedVm {
    /// Its name, and the VM's.
    pub name: String,
    /// Does it carry frames?
    pub state: PortState,
}

/// What a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// The network's bridge, and whatever others have plugged into it.
    Bridge,
    /// A tap of `attach --vm`.
    Tap,
    /// The NIC of `attach --nic`.
    Nic,
    /// A socket of QEMU.
    Socket,
}

/// Does a port carry frames?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// It does.
    Open,
    /// Neither way: a migration's target before the hand-over.
    Shut,
}

impl PortState {
    /// Of a port that is shut, or is not.
    #[must_use]
    pub const fn of(is_shut: bool) -> Self {
        if is_shut { Self::Shut } else { Self::Open }
    }
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

/// What has passed an interface, as the kernel counts it: `rx` from the guest or LAN, `tx` to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortTraffic {
    /// Frames from it.
    pub rx_frames: u64,
    /// Bytes from it.
    pub rx_bytes: u64,
    /// Frames to it.
    pub tx_frames: u64,
    /// Bytes to it.
    pub tx_bytes: u64,
}

/// A tap as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapPort {
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// Bytes of payload.
    pub mtu: u16,
}
