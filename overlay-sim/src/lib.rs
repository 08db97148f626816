//! Simulations of many nodes in one thread: virtual time, a virtual network, seeded randomness.
//!
//! A node's machines are pure: they take time, randomness and datagrams as arguments. So a simulation needs
//! no runtime, only an order of events. Everything here is deterministic: the same seed makes the same
//! history, to the byte, and [`net::trace`] compares two of them.
//!
//! - [`net`]: clock, event queue, links, NATs, hosts in sites.
//! - [`world`]: whole nodes on it, with guests, and the machines of `control-proto` for a control plane.
//! - [`history`]: what happens to them, as data that a seed makes, and what must hold then.
//!
//! The program of the same name runs histories; `overlay-sim --help`.

pub mod history;
pub mod net;
pub mod world;
