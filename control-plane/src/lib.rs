//! libp2p carries control only: who is admitted, who is where, and the envelopes that start a tunnel.
//!
//! One task owns one swarm. A node and a bootstrap run the same task; what differs is data: the
//! gate that judges strangers, and whether there is a relay for members. What is said, and what is decided about it, is
//! `control-proto`: this crate carries it.
//!
//! The rooms:
//! - [`handle`], [`event`], [`config`]: what the rest of the system sees; [`spawn`] starts the task.
//! - `admission`: no connection reaches the swarm before both sides have proved who they are.
//! - `kad_store`: the record store of Kademlia, which verifies before it acknowledges.
//! - `log_limit`: what others cause fills no log; both programs use it.
//! - [`addr`]: multiaddrs as the operator writes them, and socket addresses.

pub mod addr;
mod admission;
mod behaviour;
mod codec;
pub mod config;
mod driver;
pub mod event;
mod few_streams;
pub mod handle;
mod kad_store;
mod links;
mod log_limit;
mod transport;

pub use config::{ControlConfig, ControlError};
pub use driver::spawn;
pub use event::ControlEvent;
pub use handle::{ControlHandle, RequestError};
pub use libp2p::Multiaddr;
pub use log_limit::OneASecond;
