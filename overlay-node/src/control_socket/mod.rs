//! How the commands talk to the running node: one JSON line each way over `DIR/farlan.sock`.
//!
//! The node serves ([`server`]), a command asks once and leaves ([`client`]); [`api`] is what they
//! say. The group `farlan` may read; root, the owner of the socket and the users that the configuration
//! lists may change things.

pub mod client;
pub mod server;

pub use node_core::api::{self, TIMEOUT};

/// The longest line, in bytes: 4,096 claims as JSON are below it.
pub const MAX_LINE: usize = 1 << 20;
