//! The fast path: worker threads that move Ethernet frames between taps and UDP sockets.
//!
//! Each worker is one thread and handles both directions. It owns one UDP socket for each address
//! family, one queue of each tap, and its own *lane* in every session: a key and a packet counter that
//! no other worker uses. So no worker waits for another one's lock.
//!
//! Once per batch a worker loads the current forwarding database, the
//! [`Fib`](overlay_proto::switching::Fib). The slow path (the control loop of the node) builds
//! that snapshot and replaces it when something changes. A worker decides only what the `Fib` answers.
//! Everything else it hands to the slow path as a [`Punt`], by way of [`handoff`], in classes. A frame that fits
//! into one datagram is forwarded without an allocation.
//!
//! - [`pool`] starts and stops the threads and gives them orders; [`worker`] is the loop of one thread.
//! - [`outgoing`] takes a frame from tap to socket: parse, look up in the `Fib`, encrypt, send.
//! - [`incoming`] takes a datagram from socket to frame: find the session, decrypt, parse. [`delivery`]
//!   checks the frame against the `Fib`, and [`runs`] coalesces frames of one flow and writes them to
//!   the tap.
//! - [`readahead`] and [`inbox`] hold what was read from taps and sockets until it is handled.
//!   [`sparse`] says which flows may overtake it, [`flow`] which flow a frame belongs to, and [`load`]
//!   how much one turn has moved.
//! - [`udp`] opens the sockets, and [`steering`] decides which worker receives a datagram. [`outbox`]
//!   and [`gso`] collect datagrams and send them.
//! - [`slow`] lets the slow path itself send a datagram or write a frame to a tap.

mod copies;
mod delivery;
mod flow;
mod gso;
pub mod handoff;
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
pub mod udp;
mod worker;

pub use handoff::{PuntSender, Punted, handoff};
pub use pool::{TapSet, WorkerConfig, WorkerPool};
pub use punt::Punt;
pub use slow::{SlowSender, TapWriter};
pub use steering::{MAX_WORKERS, default_workers};
pub use udp::{BindError, UdpSockets};
