//! How a worker hands a frame or datagram to the slow path that it cannot decide itself.

use std::time::Instant;

pub use node_core::punt::Punt;
use node_core::punt::charges::{Cause, Charges, Payer};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{DropCounters, Fib};

use super::handoff::PuntSender;

/// What a worker reads while it handles one batch. It stays the same for the whole batch.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) fib: &'a Fib,
    pub(super) drops: &'a DropCounters,
    pub(super) punts: &'a PuntSender,
    pub(super) charges: &'a Charges,
    /// The id of this node.
    pub(super) me: PeerId,
    pub(super) now: Instant,
    /// Milliseconds since the process began.
    pub(super) now_ms: u64,
}

impl Context<'_> {
    /// Hands `punt` to the slow path. Returns false, and counts the drop, if its class has no room.
    pub(super) fn punt(&self, punt: Punt) -> bool {
        let sent = self.punts.send(punt);
        if !sent {
            self.drops.count(DropReason::PuntOverflow);
        }
        sent
    }

    /// Charges `payer` for a punt; `false` if it has caused too many.
    pub(super) fn charge(&self, payer: Payer, cause: Cause) -> bool {
        self.charges.pay(self.now_ms, payer, cause)
    }

    /// Charges `payer` for a frame. One that it cannot pay for is counted as dropped.
    pub(super) fn charge_frame(&self, payer: Payer) -> bool {
        let cause = match payer {
            Payer::Tap(_) => Cause::Frame,
            Payer::Peer(..) => Cause::PeerFrame,
        };
        let paid = self.charge(payer, cause);
        if !paid {
            self.drops.count(DropReason::PuntLimit);
        }
        paid
    }
}
