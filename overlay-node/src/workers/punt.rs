//! How a worker hands a frame or datagram to the slow path that it cannot decide itself.

use std::time::Instant;

pub use node_core::punt::Punt;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib};
use tokio::sync::mpsc;

/// What a worker reads while it handles one batch. It stays the same for the whole batch.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) fib: &'a Fib,
    pub(super) drops: &'a DropCounters,
    pub(super) punts: &'a mpsc::Sender<Punt>,
    pub(super) beacons: &'a mpsc::Sender<Punt>,
    /// The id of this node.
    pub(super) me: PeerId,
    pub(super) now: Instant,
    /// Milliseconds since the process began.
    pub(super) now_ms: u64,
}

impl Context<'_> {
    /// Hands `punt` to the slow path. Returns false, and counts the drop, if the queue is full.
    pub(super) fn punt(&self, punt: Punt) -> bool {
        let queue = match punt {
            // These find loops. In a loop the other queue is full of looping frames, so these have their
            // own.
            Punt::Beacon { .. } | Punt::GoesRound { .. } => self.beacons,
            _ => self.punts,
        };
        let sent = queue.try_send(punt).is_ok();
        if !sent {
            self.drops.count(DropReason::PuntOverflow);
        }
        sent
    }
}
