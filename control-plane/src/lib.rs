//! libp2p carries control only: who is admitted, who is where, and the envelopes that start a tunnel.
//!
//! One task owns one swarm. A node and a bootstrap run the same task; what differs is data: the
//! [`Gatekeeper`] that judges strangers, and the optional [`InfraService`] that answers members.
//!
//! The rooms:
//! - [`handle`], [`event`], [`config`]: what the rest of the system sees; [`spawn`] starts the task.
//! - [`admission`]: no connection reaches the swarm before both sides have proved who they are.
//! - [`messages`]: requests and responses between connected nodes.
//! - [`records`]: the record store of Kademlia, which verifies before it acknowledges.
//! - [`infra`]: what a bootstrap does for members besides carrying envelopes.
//! - `log_limit`: what others cause fills no log; both programs use it.
//! - [`addr`]: multiaddrs as the operator writes them, and socket addresses.

pub mod addr;
pub mod admission;
mod behaviour;
mod codec;
pub mod config;
mod driver;
pub mod event;
mod few_streams;
pub mod handle;
pub mod infra;
mod links;
mod log_limit;
pub mod messages;
pub mod records;
mod transport;

pub use admission::{Admitted, Gatekeeper, Refusal, Shelf, Witness};
pub use config::{ControlConfig, ControlError};
pub use driver::spawn;
pub use event::ControlEvent;
pub use handle::{ControlHandle, RequestError};
pub use infra::InfraService;
pub use libp2p::Multiaddr;
pub use log_limit::OneASecond;
pub use records::RecordRules;
