//! What the owners want of the outside: questions, writes, effects, warnings, counts; and what they are given of
//! it at any time: chance, and what can be seen of the host at once.
//!
//! It is handed to an owner with each input. What one owner wants of *another* is not here: that are its outputs.

use std::sync::Arc;

use overlay_proto::Entropy;
use overlay_proto::switching::DropCounters;

use super::effects::Effects;
use super::sight::HostSight;
use super::storing::Storing;
use super::warnings::Warnings;
use crate::questions::Questions;

/// Queues that lead out of the node.
pub struct Outside {
    /// Questions to the control plane.
    pub(crate) asking: Questions,
    /// What is to be on disk, and who waits for it.
    pub store: Storing,
    /// What is to be done outside.
    pub effects: Effects,
    /// What the user should do something about.
    pub warnings: Warnings,
    /// Drops by reason, shared with the workers.
    pub drops: Arc<DropCounters>,
    /// What can be seen of the host at once.
    pub(crate) sight: Box<dyn HostSight>,
    /// Where all that is random comes from.
    pub(crate) entropy: Box<dyn Entropy + Send>,
    /// What the `Fib` shows has changed.
    pub(crate) fib_stale: bool,
}
