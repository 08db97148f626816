//! The slow path: it owns every state machine and says what the `Fib` shows.
//!
//! The fast path (`workers`) only reads the [`Fib`](overlay_proto::switching::Fib); what it cannot decide comes here
//! through one bounded queue. So do the events of the control plane and the requests of the control socket. The
//! [shell](crate::shell) brings all that, and for each batch of inputs the driver does three things, always in this order:
//!
//! 1. hand each input to the machine it belongs to;
//! 2. `settle`: drain the outputs of the machines that were touched, until nothing moves;
//! 3. publish a new `Fib` if what it shows has changed.
//!
//! Then the shell does what is wanted of the outside ([`effects`]) and sleeps until an input comes or the earliest timer
//! is due. No socket, file, clock or runtime is known here, which `tests/tests/house_rules.rs` sees to (ADR 43); what can be
//! seen of the host at once comes by a trait ([`sight`]). Most machines have rooms of their own (`overlay-proto`,
//! `nat-traversal`, `node-core`); here is which output of one is an input of another. Where to look:
//!
//! - [`run`]: the state of the driver, and its turn. [`host_orders`]: what the host is asked to do and to tell.
//! - [`node`]: what does not change while the node runs: identity, membership, clock.
//! - [`node_core::underlay`]: our own addresses: reflectors, relay allocations; [`host`]: interfaces and routes.
//!   [`twin`]: another machine with our identity.
//! - [`written`]: what takes effect once it is on disk ([`node_core::store`]); [`files`]: what the files are called.
//! - [`peer`], [`peers`]: one peer's path agent and channel; tunnels; what goes to and from peers.
//!   [`sending`]: datagrams and frames of our own. [`undelivered`]: messages that did not get there.
//! - [`network`], [`frames`], [`directory`]: one network's directory; punted frames; its actions.
//! - [`conflicts`]: warnings of MACs that two hosts hear.
//! - [`interfaces`]: taps and bridges are kept as they are recorded.
//! - [`site_mtus`]: how large the guests' packets may be at each site.
//! - [`segments`]: LANs that other nodes are plugged into, too. [`looped_ports`]: loops in this host.
//! - [`bridges`]: what the bridges have learnt, and which of their ports live.
//! - [`remote_macs`]: what the bridges are told of other hosts' MACs. [`mac_twins`]: MACs that are
//!   here and elsewhere. [`group_queries`]: guests that came here join their multicast groups again.
//!   [`overlay_ports`]: the overlay's own port on each bridge.
//! - [`epochs`]: the networks' keys change. [`expiry`]: what ends, theirs and ours.
//! - [`receipts`]: the witness's receipt, without which nobody takes our certificate.
//! - [`revocations`]: who is revoked: learnt, carried out, handed on.
//! - [`answers`]: what comes of questions to the control plane ([`node_core::questions`]), and its events
//!   ([`node_core::control`]).
//! - [`permits`]: whom our relay allocations are to hear.
//! - [`introductions`]: how strangers of one network come to know each other, by cards.
//! - [`names`]: what people call the nodes.
//! - [`applying`]: `farlan apply`, step by step.
//! - [`leaving`]: `farlan leave`, and members that left.
//! - [`memory`]: what is kept on disk of peers.
//! - [`publish`]: the `Fib`. [`attaching`]: networks and their taps. [`operations`]: what a user changes on the host.
//! - [`pins`]: what the operator says is here.
//! - [`warnings`]: what the user should do something about; [`conditions`] raises what keeps frames
//!   from passing. [`node_core::reasons`]: why a peer is not reached, or not directly.
//! - [`requests`], [`questions`], [`pings`], [`reports`]: the control socket; what `farlan status` shows.

pub(crate) mod answers;
pub(crate) mod applying;
pub(crate) mod attaching;
pub(crate) mod bridges;
pub(crate) mod conditions;
pub(crate) mod conflicts;
pub(crate) mod directory;
pub(crate) mod effects;
pub(crate) mod epochs;
pub(crate) mod expiry;
pub(crate) mod files;
pub(crate) mod frames;
pub(crate) mod group_queries;
pub(crate) mod host;
pub(crate) mod host_orders;
pub(crate) mod interfaces;
pub(crate) mod introductions;
pub(crate) mod leaving;
pub(crate) mod looped_ports;
pub(crate) mod mac_twins;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operations;
pub(crate) mod overlay_ports;
pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod permits;
pub(crate) mod pings;
pub(crate) mod pins;
pub(crate) mod publish;
pub(crate) mod questions;
pub(crate) mod receipts;
pub(crate) mod remote_macs;
pub(crate) mod reports;
pub(crate) mod requests;
pub(crate) mod revocations;
pub(crate) mod run;
pub(crate) mod segments;
pub(crate) mod sending;
pub(crate) mod sight;
pub(crate) mod site_mtus;
pub(crate) mod twin;
pub(crate) mod undelivered;
pub(crate) mod warnings;
pub(crate) mod written;

pub(crate) use names::signed_name_stays;
pub use node_core::reasons::path_reasons;
pub(crate) use pins::{pinned_later, unpinned};
