//! What users ask for by the control socket, and what they wait for.
//!
//! - [`requests`]: each request. [`reports`]: what `farlan status` shows. [`questions`]: users that wait for a look-up. [`pings`]: `farlan ping`.
//! - [`operations`]: what a user changes on the host. [`moves`]: moved addresses that wait for `farlan confirm`.
//! - [`joining`]: another `farlan join`. [`leaving`]: `farlan leave`, and members that left.

pub mod joining;
pub mod leaving;
pub mod moves;
pub mod operations;
pub mod pings;
pub mod questions;
pub mod reports;
pub mod requests;

use crate::node::users::leaving::Leaving;
use crate::node::users::moves::Moves;
use crate::node::users::operations::Operations;
use crate::node::users::pings::Pings;
use crate::node::users::questions::OpenQuestions;

/// Requests of the control socket that take a while.
#[derive(Debug)]
pub struct Users {
    /// The state directory, for people.
    pub(crate) state_dir: String,
    pub(crate) open_questions: OpenQuestions,
    pub(crate) pings: Pings,
    pub(crate) operations: Operations,
    pub(crate) moves: Moves,
    /// Set once `farlan leave` was asked for.
    pub leaving: Option<Leaving>,
}

impl Users {
    /// Nobody waits.
    pub(crate) fn new(state_dir: String) -> Self {
        Self {
            state_dir,
            open_questions: OpenQuestions::default(),
            pings: Pings::default(),
            operations: Operations::default(),
            moves: Moves::default(),
            leaving: None,
        }
    }
}
