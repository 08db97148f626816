//! Which output of one owner is an input of another.
//!
//! - [`begin`]: what a node is given at its start. [`run`]: its parts, and its turn. [`publish`]: the `Fib`.
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events ([`crate::control`]).
//! - [`addresses`]: own addresses have changed. [`punts`]: who gets what the fast path could not decide. [`sessions`]: what begins and ends with a session;
//!   [`messages`]: what is said in it. [`bridges`]: what the host tells of its bridges.
//! - [`written`]: what takes effect once it is on disk. [`conditions`]: warnings of what keeps frames from passing.

pub mod addresses;
pub mod answers;
pub mod begin;
pub mod bridges;
pub mod conditions;
pub mod messages;
pub mod publish;
pub mod punts;
pub mod run;
pub mod sessions;
pub mod written;
