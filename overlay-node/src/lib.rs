//! The program `farlan`: one node of the overlay.
//!
//! The rooms:
//! - [`cli`]: the commands.
//! - [`state`]: the state directory: identity, membership, authority, what survives a restart.
//! - [`config`]: the operator's file.
//! - [`control_socket`]: how the commands talk to the running node.
//! - [`attachments`]: what joins a network on this host.
//! - [`pins`]: MACs that the operator says are on this host.
//! - [`doctor`]: what on this host or on the way to the bootstraps is wrong.
//! - [`shell`]: the task around the slow path ([`node_core::node`]) that has its sockets, files and clocks; `farlan up`.
//! - [`workers`]: the fast path: frames between taps and UDP sockets.

pub mod attachments;
pub mod cli;
pub mod config;
pub mod control_socket;
pub mod doctor;
pub mod pins;
pub mod shell;
pub mod state;
pub mod workers;
