//! What the fast path needs to decide, and its two decisions.
//!
//! The slow path owns all state machines and publishes an immutable [`Fib`]. A worker loads the
//! current one per batch and asks it two questions, neither of which allocates, locks or waits:
//! - [`Fib::forward`]: a frame came from a local tap; where does it go?
//! - [`Fib::accept`]: a frame came out of a session; may it be delivered?
//!
//! What the `Fib` cannot answer is *punted*: handed to the slow path through a bounded queue.
//!
//! [`local_switch`]: between ports that no bridge of the kernel joins the node itself is the switch.

mod counters;
mod fib;
pub mod local_switch;
mod own_traffic;
mod ports;
#[cfg(test)]
mod tests;
mod vlans;

pub use counters::{DropCounters, PeerCounters};
pub use fib::{
    Accept, Fib, FibMap, FibNetwork, FibPeer, FibSession, Forward, LocalMac, MacEntry, MacKey,
    NetIndex, PeerSlot, PuntReason,
};
pub use own_traffic::OwnTraffic;
pub use ports::{FibPort, FibPorts, PortCounters, PortId};
pub use vlans::VlanSet;
