//! Which output of one owner is an input of another.
//!
//! - [`begin`]: what a node is given at its start. [`run`]: its parts, and its turn. [`publish`]: the `Fib`.
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events ([`crate::control`]).
//! - [`arrivals`]: what comes by the fast path. [`sessions`]: sessions begin and end, messages leave. [`addresses`]: own addresses have changed.
//! - [`written`]: what takes effect once it is on disk. [`conditions`]: warnings of what keeps frames from passing.
//! - [`membership`]: lists, documents, `farlan apply`. [`bridges`]: what the host tells of its bridges. [`insight`]: what a simulation looks at.
//! - [`conflicts`]: MACs that two hosts hear, and what people call the hosts. [`attachments`]: networks and their taps.
//! - [`ports`]: ports of the host's bridges that loop.
//! - [`frames`]: frames that the fast path could not place. [`directory`]: what the directories want, and what comes to them.
//! - [`segments`]: LANs that other nodes are plugged into, too. [`site_mtus`]: how large the guests' packets may be at each site.

pub mod addresses;
pub mod answers;
pub mod arrivals;
pub mod attachments;
pub mod begin;
pub mod bridges;
pub mod conditions;
pub mod conflicts;
pub mod directory;
pub mod frames;
pub mod insight;
pub mod membership;
pub mod ports;
pub mod publish;
pub mod run;
pub mod segments;
pub mod sessions;
pub mod site_mtus;
pub mod written;
