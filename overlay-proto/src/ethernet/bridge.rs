//! What a bridge of the host tells of itself: its forwarding database and its ports.

use super::{MacAddr, VlanId};

/// MACs that a bridge made here learns at most: a guest that makes them up fills neither the kernel's memory nor a
/// node's.
pub const FDB_MAX_LEARNED: u16 = 4096;

/// A MAC behind a port of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FdbEntry {
    /// The kernel's number of the bridge.
    pub bridge: u32,
    /// The kernel's number of the port.
    pub port: u32,
    /// The address.
    pub mac: MacAddr,
    /// The VLAN, where the bridge filters VLANs; else untagged.
    pub vlan: VlanId,
}

/// What changed in a forwarding database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdbNews {
    /// A MAC was learnt, or moved to this port.
    Learned(FdbEntry),
    /// A MAC was forgotten: it aged, or the port is gone.
    Gone(FdbEntry),
    /// News were lost: the whole database has to be read again.
    Overrun,
}

/// What a bridge lets pass at one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// Nothing.
    Disabled,
    /// Anything else.
    Other,
}
