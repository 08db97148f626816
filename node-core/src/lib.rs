//! The slow path of a node as a machine (ADR 43): no socket, no file, no clock, no runtime.
//!
//! [`node`] is the machine: it takes inputs by `handle_*`, wants things of the outside by [`effects`](node::effects), and
//! says when it is due; times are arguments. `overlay-node` is the shell around it. The other modules are parts that belong
//! to nobody else.
//!
//! - [`api`]: the words on the control socket, whose reports are what `--json` prints. [`attachment`], [`pin`]: what is
//!   here by the operator's word.
//! - [`duration`]: as people write them.
//! - [`punt`]: what the fast path hands to the slow path.
//! - [`questions`]: what is asked of the control plane, as data (ADR 40).
//! - [`control`]: what the control plane tells, and what its gate goes by.
//! - [`shown`]: which certificate the node shows, and whom it dials.
//! - [`underlay`]: the node's own addresses: interfaces, reflectors, relay allocations.
//! - [`waiting_room`]: frames that wait for something. [`floods`]: broadcasts, and who has had them.
//! - `peer_name`: what one peer is called. [`peer_turns`]: whose machines have their turn now, and whose have it when.
//! - [`reasons`]: why a peer is not reached, or not directly.
//! - [`store`]: what is to be on disk, as data, in its order.
//! - [`sequences`]: numbers that only grow, over restarts.

pub mod api;
pub mod attachment;
pub mod control;
pub mod duration;
pub mod floods;
pub mod node;
pub(crate) mod peer_name;
pub mod peer_turns;
pub mod pin;
pub mod punt;
pub mod questions;
pub mod reasons;
pub mod sequences;
pub mod shown;
pub mod store;
pub mod underlay;
pub mod waiting_room;
