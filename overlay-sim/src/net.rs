//! A virtual network in virtual time.
//!
//! - [`clock`]: virtual time, and what machines take for it.
//! - [`queue`]: events in the order of their times.
//! - [`random`]: one stream of random numbers for each consumer.
//! - [`link`]: delay, jitter, loss, reordering, duplication, MTU, rate and queue of one direction.
//! - [`nat`]: NATs and firewalls as data.

mod aging;
pub mod clock;
pub mod link;
pub mod nat;
pub mod queue;
pub mod random;
