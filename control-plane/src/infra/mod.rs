//! What a bootstrap does for members, besides carrying envelopes and storing records.

mod bucket;
mod instances;
mod origins;
mod rendezvous;

use nat_traversal::path::AllocationId;
use overlay_proto::ids::PeerId;

pub(crate) use bucket::TokenBucket;
pub(crate) use instances::{Instances, Twins};
pub(crate) use origins::Origins;
pub(crate) use rendezvous::Rendezvous;
pub use rendezvous::{CARD_LIFETIME, MAX_CARDS_HELD};

use crate::messages::{Allocation, RefusedReason};

/// The UDP relay that a bootstrap runs beside its control plane. Called from the control plane's
/// task: must not block on anything slow.
pub trait InfraService: Send + Sync {
    /// A new allocation for the admitted member `peer`.
    ///
    /// # Errors
    /// `Busy` when the member's share or the relay is full.
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason>;

    /// More peers whose datagrams the allocation accepts.
    ///
    /// # Errors
    /// `Invalid` when the allocation is unknown or not `peer`'s.
    fn permit(
        &self,
        peer: PeerId,
        allocation: AllocationId,
        peers: &[PeerId],
    ) -> Result<(), RefusedReason>;

    /// `peer` is revoked, or its membership has ended: its allocation ends, and nobody may send to it.
    fn revoke(&self, peer: PeerId);
}
