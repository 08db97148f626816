//! Histories: whole nodes with guests, to whom things happen, and what must hold meanwhile and when all is over.
//!
//! - [`plan`]: a history as data. [`generate`]: data out of a seed.
//! - `run`: data to a world, and what is looked at each second; `events`: what happens, and how it is undone; `documents`: who
//!   is a member, and who has which document of the authority; `afterwards`: what members do when all is well; `frames`: what guests say.
//! - [`failure`]: what must not be found. [`shrink`]: the smallest history in which it still is.
//! - [`joining`]: how long newcomers take.
//!
//! The reference is small: where each guest is plugged in is where its MAC is owned; what a guest sent is what others may get,
//! as often as it was sent, in its network; and a MAC counts only where the sender's host owned it.

mod afterwards;
mod documents;
mod events;
pub mod failure;
mod frames;
pub mod generate;
pub mod joining;
pub mod plan;
mod run;
pub mod shrink;

pub use documents::CUT_OFF_S;
pub use run::{Counts, Outcome, run};
