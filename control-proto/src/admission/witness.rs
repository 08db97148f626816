//! Who counts the uses of invites (TRUST.md 4).

use std::fmt::Debug;

use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{Application, SignedPart, WitnessRefusal};
use overlay_proto::time::UnixTime;

/// The books of a bootstrap that invites name as their witness.
pub trait Witness: Debug + Send + Sync {
    /// The signed receipt for a node of `overlay` whose certificate was verified but for the
    /// receipt. The use is on disk before this returns; the same node gets the same receipt.
    ///
    /// # Errors
    /// Why there is none.
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal>;
}
