//! Histories: whole nodes with guests, to whom things happen, and what must hold meanwhile and when all is over.
//!
//! - [`plan`]: a history as data. [`generate`]: data out of a seed.
//! - `run`: data to a world, and what is looked at each second; `events`: what happens, and how it is undone; `frames`: what
//!   guests say.
//! - [`failure`]: what must not be found. [`shrink`]: the smallest history in which it still is.
//! - [`joining`]: how long newcomers take.
//!
//! The reference is small: where each guest is plugged in is where its MAC is owned; what a guest sent is what others may get,
//! as often as it was sent, in its network; and a MAC counts only where the sender's host owned it.

mod events;
pub mod failure;
mod frames;
pub mod generate;
pub mod joining;
pub mod plan;
mod run;
pub mod shrink;

pub use run::{CUT_OFF_S, Counts, Outcome, run};
