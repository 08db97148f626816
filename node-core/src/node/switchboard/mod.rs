//! Which output of one owner is an input of another.
//!
//! - [`begin`]: what a node is given at its start. [`run`]: its parts, and its turn. [`publish`]: the `Fib`.
//! - [`answers`]: what comes of questions to the control plane ([`crate::questions`]), and its events ([`crate::control`]).
//! - [`addresses`]: own addresses have changed. [`membership`]: lists, documents, `farlan apply`.
//! - [`written`]: what takes effect once it is on disk. [`conditions`]: warnings of what keeps frames from passing.

pub mod addresses;
pub mod answers;
pub mod begin;
pub mod conditions;
pub mod membership;
pub mod publish;
pub mod run;
pub mod written;
