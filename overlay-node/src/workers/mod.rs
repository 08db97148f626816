//! The fast path: worker threads that move frames between taps and UDP sockets.
//!
//! A worker has its own socket, its own queue of each tap, its own lanes in every session, and both
//! directions on one thread. It reads the current [`Fib`](overlay_proto::switching::Fib) once per batch and
//! nothing else of the world: it decides nothing that the `Fib` does not say, keeps no lock that
//! another worker wants, and allocates nothing for a frame it forwards whole. What the `Fib` cannot
//! answer goes to the slow path as a [`Punt`], through a bounded queue.
//!
//! - [`pool`]: the threads and the orders for them; [`worker`]: what one does in a turn.
//! - [`outgoing`]: tap -> parse -> `Fib::forward` -> seal -> socket.
//! - [`incoming`]: socket -> session -> open -> parse; [`delivery`]: -> `Fib::accept`; [`runs`]: -> merge -> tap.
//! - [`readahead`], [`inbox`]: what was read from taps and sockets and waits; [`sparse`]: which flows pass it;
//!   [`flow`]: which flow a frame belongs to; [`load`]: what a turn has moved.
//! - [`udp`]: sockets; [`steering`]: which worker gets what; [`trains`], [`outbox`]: datagrams on their way out.
//! - [`slow`]: how the slow path itself sends a datagram or writes a frame.

mod copies;
mod delivery;
mod flow;
mod inbox;
mod incoming;
mod load;
mod outbox;
mod outgoing;
mod pool;
mod punt;
mod readahead;
mod runs;
pub mod slow;
mod sparse;
mod steering;
mod sys;
#[cfg(test)]
mod tests;
mod trains;
pub mod udp;
mod worker;

pub use pool::{TapSet, WorkerConfig, WorkerPool};
pub use punt::Punt;
pub use slow::{SlowSender, TapWriter};
pub use steering::{MAX_WORKERS, default_workers};
pub use udp::{BindError, UdpSockets};
