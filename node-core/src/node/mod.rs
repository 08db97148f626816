//! The slow path: it owns every state machine and says what the `Fib` shows.
//!
//! The fast path (`workers`) only reads the [`Fib`](overlay_proto::switching::Fib); what it cannot decide comes here
//! through one bounded queue. So do the events of the control plane and the requests of the control socket. The
//! shell brings all that, and for each batch of inputs the node does three things, always in this order:
//!
//! 1. hand each input to the machine it belongs to;
//! 2. `settle`: drain the outputs of the machines that were touched, until nothing moves;
//! 3. publish a new `Fib` if what it shows has changed.
//!
//! Then the shell does what is wanted of the outside ([`effects`]) and sleeps until an input comes or the earliest timer
//! is due. Most machines have rooms of their own (`overlay-proto`, `nat-traversal`, and beside this one). Here each
//! *owner* has the machines, maps and timers of one concern (ADR 43):
//!
//! - [`candidates`]: own addresses, the host's network, bootstraps and relays ([`crate::underlay`]).
//! - [`peers`]: sessions, paths, channels; what goes to and from peers.
//! - [`standing`]: who this node is; receipts, revocations, epochs, what ends.
//! - [`introductions`]: how members that have never met come to know each other; names.
//! - [`networks`]: directories, taps, bridges, and the frames that wait.
//!
//! Around them: [`switchboard`], which output of one is an input of another; [`users`], what users ask for and wait for;
//! [`outside`], the queues that lead out, with [`datagrams`], [`storing`] (what takes effect once it is on disk, [`crate::store`]) and [`warnings`].
//! The words they share: [`tick`], [`files`], [`host_orders`] (what the host is asked to do and to tell), [`sight`] (what
//! can be seen of it at once), `views` (what an owner is shown of the others).

pub mod candidates;
pub mod datagrams;
pub mod effects;
pub mod files;
#[cfg(test)]
mod fixtures;
pub mod host_orders;
pub mod introductions;
pub mod networks;
pub mod outside;
pub mod peers;
pub mod sight;
pub mod standing;
pub mod storing;
pub mod switchboard;
pub mod tick;
pub mod users;
pub(crate) mod views;
pub mod warnings;
