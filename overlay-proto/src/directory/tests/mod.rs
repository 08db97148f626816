//! Tests of the data; those of the machine are beside it.

mod convergence;
mod documents;
pub(super) mod support;
