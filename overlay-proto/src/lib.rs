//! The pure core of Farlan: no socket, no clock, no OS randomness, no tokio, no libp2p.
//!
//! Everything that decides is here and can be tested, simulated and fuzzed without a network.
//!
//! The rooms:
//! - [`ethernet`]: addresses and parsers (the only room without the feature `full`).
//! - [`ids`]: the names of nodes, overlays and networks; [`time`]: wall-clock time as a value.
//! - [`drop_reason`]: why a frame or datagram was dropped, counted by name.
//! - [`membership`]: root document, invites, certificate chains, rights.
//! - [`wire`]: every byte between two nodes; pieces of split frames; the reliable control channel.
//! - [`handshake`]: Noise IKpsk2 with the chain bound in. [`session`]: keys, lanes, replay windows.
//! - [`tunnels`]: all handshakes and sessions of a node with its peers, as one state machine.
//! - [`directory`]: roster and claims of one network: who is where, and how moves happen.
//! - [`segment`]: one LAN behind two nodes: beacons, and who of them carries its frames.
//! - [`switching`]: the `Fib` that the fast path reads, and its two decisions.

pub mod ethernet;

#[cfg(feature = "full")]
pub mod directory;
#[cfg(feature = "full")]
pub mod drop_reason;
#[cfg(feature = "full")]
pub mod handshake;
#[cfg(feature = "full")]
pub mod ids;
#[cfg(feature = "full")]
pub mod membership;
#[cfg(feature = "full")]
pub mod segment;
#[cfg(feature = "full")]
pub mod session;
#[cfg(feature = "full")]
pub mod switching;
#[cfg(feature = "full")]
pub mod time;
#[cfg(feature = "full")]
pub mod tunnels;
#[cfg(feature = "full")]
pub mod wire;

#[cfg(feature = "full")]
pub use nat_traversal::entropy::{Entropy, SeededEntropy};
