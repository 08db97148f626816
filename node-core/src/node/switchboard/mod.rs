//! Which output of one owner is an input of another.
//!
//! - [`begin`]: what a node is given at its start. [`run`]: its parts, and its turn. [`publish`]: the `Fib`.
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events ([`crate::control`]).
//! - [`arrivals`]: what comes by the fast path. [`sessions`]: sessions begin and end, messages leave. [`addresses`]: own addresses have changed.
//! - [`acquaintances`]: who becomes known, is sought, is forgotten. [`introductions`]: cards, greetings, names.
//! - [`written`]: what takes effect once it is on disk. [`conditions`]: warnings of what keeps frames from passing.
//! - [`conflicts`]: MACs that two hosts hear, and what people call the hosts. [`attachments`]: networks and their taps.
//! - [`bridges`]: what the host tells of its bridges. [`ports`]: ports of the host's bridges that loop.
//! - [`frames`]: frames that the fast path could not place. [`directory`]: what the directories want, and what comes to them.
//! - [`segments`]: LANs that other nodes are plugged into, too. [`site_mtus`]: how large the guests' packets may be at each site.
//! - [`membership`]: lists, documents, `farlan apply`. [`receipts`]: another membership is ours. [`epochs`]: other keys. [`expiry`]: what ends.
//! - [`revocations`]: whoever is cut off. [`insight`]: what a simulation looks at.

pub mod acquaintances;
pub mod addresses;
pub mod answers;
pub mod arrivals;
pub mod attachments;
pub mod begin;
pub mod bridges;
pub mod conditions;
pub mod conflicts;
pub mod directory;
pub mod epochs;
pub mod expiry;
pub mod frames;
pub mod insight;
pub mod introductions;
pub mod membership;
pub mod ports;
pub mod publish;
pub mod receipts;
pub mod revocations;
pub mod run;
pub mod segments;
pub mod sessions;
pub mod site_mtus;
pub mod written;
