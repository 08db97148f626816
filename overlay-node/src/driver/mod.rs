//! The slow path: one task that owns every state machine and publishes the `Fib`.
//!
//! The fast path ([`crate::workers`]) only reads the [`Fib`](overlay_proto::switching::Fib); what
//! it cannot decide comes here through one bounded queue. So do the events of the control plane
//! and the requests of the control socket. The driver does four things, always in this order:
//!
//! 1. take one batch of inputs and hand each to the machine it belongs to;
//! 2. `settle`: drain the outputs of the machines that were touched, until nothing moves;
//! 3. publish a new `Fib` if what it shows has changed;
//! 4. sleep until an input comes or the earliest timer of a machine is due.
//!
//! The machines are pure (`overlay-proto`, `nat-traversal`, `node-core`); everything here is glue: which output
//! of one is an input of another. Where to look:
//!
//! - [`startup`]: from a state directory to a running driver; `farlan up`.
//! - [`shell`]: hands inputs in, and does what the slow path wants ([`effects`]); [`taps`]: those that are open.
//! - [`node`]: what does not change while the node runs: identity, membership, clock.
//! - [`node_core::underlay`]: our own addresses: reflectors, relay allocations; [`host`]: interfaces and routes.
//!   [`twin`]: another machine with our identity.
//! - [`storing`]: carries out what is to be on disk ([`node_core::store`]); [`written`]: what takes effect then.
//! - [`peer`], [`peers`]: one peer's path agent and channel; tunnels; what goes to and from peers.
//!   [`sending`]: datagrams and frames of our own. [`undelivered`]: messages that did not get there.
//! - [`network`], [`frames`], [`directory`]: one network's directory; punted frames; its actions.
//! - [`conflicts`]: warnings of MACs that two hosts hear.
//! - [`interfaces`]: taps and bridges are kept as they are recorded.
//! - [`site_mtus`]: how large the guests' packets may be at each site.
//! - [`segments`]: LANs that other nodes are plugged into, too. [`looped_ports`]: loops in this host.
//! - [`bridges`]: what the bridges have learnt, and which of their ports live. [`bridge_orders`]: what they are told.
//! - [`remote_macs`]: what the bridges are told of other hosts' MACs. [`mac_twins`]: MACs that are
//!   here and elsewhere. [`group_queries`]: guests that came here join their multicast groups again.
//!   [`overlay_ports`]: the overlay's own port on each bridge.
//! - [`epochs`]: the networks' keys change. [`expiry`]: what ends, theirs and ours.
//! - [`receipts`]: the witness's receipt, without which nobody takes our certificate.
//! - [`revocations`]: who is revoked: learnt, carried out, handed on.
//! - [`asking`]: carries out the questions to the control plane ([`node_core::questions`]); [`answers`]: what comes of
//!   them, and its events ([`node_core::control`]). [`gate`]: what its gate learns, and is to go by.
//! - [`permits`]: whom our relay allocations are to hear.
//! - [`introductions`]: how strangers of one network come to know each other, by cards.
//! - [`names`]: what people call the nodes.
//! - [`applying`]: `farlan apply`, step by step.
//! - [`leaving`]: `farlan leave`, and members that left.
//! - [`memory`]: what is kept on disk of peers. [`generation`]: does time go on?
//! - [`publish`]: the `Fib`. [`attaching`]: networks and their taps. [`operations`]: what a user changes on the host.
//! - [`pins`]: what the operator says is here.
//! - [`warnings`]: what the user should do something about; [`conditions`] raises what keeps frames
//!   from passing. [`node_core::reasons`]: why a peer is not reached, or not directly.
//! - [`requests`], [`questions`], [`pings`], [`reports`]: the control socket; what `farlan status` shows.

mod answers;
mod applying;
mod asking;
mod attaching;
mod bridge_looks;
mod bridge_orders;
mod bridges;
mod conditions;
mod conflicts;
mod directory;
mod effects;
mod epochs;
mod expiry;
mod firewall_watch;
mod flood;
mod frames;
mod gate;
mod generation;
mod group_queries;
mod host;
mod host_tasks;
#[cfg(test)]
mod house;
mod interface_looks;
mod interfaces;
mod introductions;
mod kernel_events;
mod leaving;
mod looped_ports;
mod mac_twins;
mod memory;
mod names;
mod network;
mod node;
mod operating;
mod operations;
mod overlay_ports;
mod peer;
mod peers;
mod permits;
mod pings;
mod pins;
mod publish;
mod questions;
mod receipts;
mod remote_macs;
mod reports;
mod requests;
mod revocations;
mod run;
mod segments;
mod sending;
mod shell;
mod sight;
mod site_mtus;
mod startup;
mod storing;
mod taps;
mod twin;
mod undelivered;
mod warnings;
mod watches;
mod written;

pub(crate) use names::signed_name_stays;
pub use node_core::reasons::path_reasons;
pub(crate) use pins::{pinned_later, unpinned};
pub use startup::up;
