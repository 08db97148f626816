//! Which output of one owner is an input of another.
//!
//! - [`begin`]: what a node is given at its start. [`run`]: its parts, and its turn. [`publish`]: the `Fib`.
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events ([`crate::control`]).
//! - [`arrivals`]: what comes by the fast path. [`sessions`]: sessions begin and end, messages leave. [`addresses`]: own addresses have changed.
//! - [`acquaintances`]: who becomes known, is sought, is forgotten. [`introductions`]: cards, greetings, names.
//! - [`written`]: what takes effect once it is on disk. [`conditions`]: warnings of what keeps frames from passing.
//! - [`membership`]: lists, documents, `farlan apply`. [`receipts`]: another membership is ours. [`epochs`]: other keys. [`expiry`]: what ends.
//! - [`revocations`]: whoever is cut off. [`bridges`]: what the host tells of its bridges. [`insight`]: what a simulation looks at.

pub mod acquaintances;
pub mod addresses;
pub mod answers;
pub mod arrivals;
pub mod begin;
pub mod bridges;
pub mod conditions;
pub mod epochs;
pub mod expiry;
pub mod insight;
pub mod introductions;
pub mod membership;
pub mod publish;
pub mod receipts;
pub mod revocations;
pub mod run;
pub mod sessions;
pub mod written;
