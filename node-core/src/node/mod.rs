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
//! is due. What can be seen of the host at once comes by a trait ([`sight`]). Most machines have rooms of their own
//! (`overlay-proto`, `nat-traversal`, and beside this one); here is which output of one is an input of another. Where to look:
//!
//! - [`begin`]: what it is given at its start. [`run`]: its state, and its turn. [`host_orders`]: what the host is asked to do and to tell.
//! - [`identity`]: what does not change while the node runs: identity, membership, clock.
//! - [`crate::underlay`]: our own addresses: reflectors, relay allocations; [`host`]: interfaces and routes.
//!   [`twin`]: another machine with our identity.
//! - [`written`]: what takes effect once it is on disk ([`crate::store`]); [`files`]: what the files are called.
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
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events
//!   ([`crate::control`]).
//! - [`permits`]: whom our relay allocations are to hear.
//! - [`introductions`]: how strangers of one network come to know each other, by cards.
//! - [`names`]: what people call the nodes.
//! - [`applying`]: `farlan apply`, step by step.
//! - [`leaving`]: `farlan leave`, and members that left.
//! - [`memory`]: what is kept on disk of peers.
//! - [`publish`]: the `Fib`. [`attaching`]: networks and their taps. [`operations`]: what a user changes on the host.
//! - [`pins`]: what the operator says is here.
//! - [`warnings`]: what the user should do something about; [`conditions`] raises what keeps frames
//!   from passing. [`crate::reasons`]: why a peer is not reached, or not directly.
//! - [`requests`], [`questions`], [`pings`], [`reports`]: the control socket; what `farlan status` shows.
//!   [`insight`]: what a simulation looks at.

pub mod answers;
pub mod applying;
pub mod attaching;
pub mod begin;
pub mod bridges;
pub mod conditions;
pub mod conflicts;
pub mod directory;
pub mod effects;
pub mod epochs;
pub mod expiry;
pub mod files;
pub mod frames;
pub mod group_queries;
pub mod host;
pub mod host_orders;
pub mod identity;
pub mod insight;
pub mod interfaces;
pub mod introductions;
pub mod leaving;
pub mod looped_ports;
pub mod mac_twins;
pub mod memory;
pub mod names;
pub mod network;
pub mod operations;
pub mod overlay_ports;
pub mod peer;
pub mod peers;
pub mod permits;
pub mod pings;
pub mod pins;
pub mod publish;
pub mod questions;
pub mod receipts;
pub mod remote_macs;
pub mod reports;
pub mod requests;
pub mod revocations;
pub mod run;
pub mod segments;
pub mod sending;
pub mod sight;
pub mod site_mtus;
pub mod twin;
pub mod undelivered;
pub mod warnings;
pub mod written;
