//! TAP devices, Linux bridges and batches of Ethernet frames.
//!
//! The rooms:
//! - [`vnet`]: the `virtio_net_hdr` in front of each frame on a tap.
//! - [`offload`]: cutting super-frames, merging them again, and their checksums.
//! - [`batch`]: frames on their way, in one reused buffer.
//! - [`queue`]: [`FrameQueue`], what the data path reads from and writes to; the tap, and a pair
//!   in memory for tests.
//! - [`tap`]: making taps that outlive the process.
//! - [`link`]: interfaces, bridges and forwarding entries through rtnetlink.
//! - [`port_state`]: one port of a bridge: which one a MAC is behind, and whether it forwards.
//! - [`port`]: how bridges and their ports are set: learning, VLANs.
//! - [`addresses`]: the addresses and routes that a host has by an interface.
//! - [`moving`]: carrying those of a NIC to the bridge it becomes a port of, and back.
//! - [`fdb`]: which MAC a bridge has behind which port: all of it, and as news.
//! - [`firewall`]: what the host's firewall does to bridged IP, and the one rule that lets it pass.
//! - [`loop_filter`]: the rules that hold what goes round in a loop of the host's own bridge.
//! - [`host_view`]: the host's links, addresses and routes at a glance, and news of them.
//! - [`host`]: keeping the host off the LAN it carries (design: "the host is not part of the
//!   LAN").
//!
//! All `unsafe` is in the private module `sys`.

pub mod addresses;
pub mod batch;
pub mod error;
pub mod fdb;
pub mod firewall;
pub mod host;
pub mod host_view;
pub mod link;
pub mod loop_filter;
pub mod moving;
pub mod offload;
pub mod port;
pub mod port_state;
mod program;
pub mod queue;
mod sys;
pub mod tap;
pub mod vnet;

pub use addresses::{HostAddress, HostNetwork, HostRoute};
pub use batch::{FrameBatch, RxFrame, TxFrame, WriteReport};
pub use error::Error;
pub use fdb::{FdbWatch, read_fdb};
pub use host_view::HostWatch;
pub use link::{Link, LinkKind, Links};
pub use moving::{Mover, NicFacts, Place, Step};
pub use port::{BridgeSettings, PortVlans, VlanPlan, VlanSet};
pub use queue::{FrameQueue, MemoryTap, Offload, TapQueue};
pub use vnet::VnetHdr;
