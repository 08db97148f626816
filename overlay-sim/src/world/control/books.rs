//! What a bootstrap has on its disk: who used which invite, and what members have taught it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use control_proto::admission::{Books, Shelf};
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{InviteId, InviteUses, Revocations, RootStore};

/// The books of the witness.
#[derive(Debug, Default)]
pub(super) struct MemoryBooks {
    /// Bound: the invites that were issued.
    uses: BTreeMap<InviteId, InviteUses>,
    /// The disk takes nothing more.
    pub(super) is_full: bool,
}

impl Books for MemoryBooks {
    type Error = &'static str;

    fn uses(&mut self, _: OverlayId, invite: InviteId) -> Result<InviteUses, Self::Error> {
        Ok(self.uses.get(&invite).cloned().unwrap_or_default())
    }

    fn keep(
        &mut self,
        _: OverlayId,
        invite: InviteId,
        uses: &InviteUses,
    ) -> Result<(), Self::Error> {
        if self.is_full {
            return Err("no space left on device");
        }
        self.uses.insert(invite, uses.clone());
        Ok(())
    }
}

/// The root documents, once there was one, and what is revoked.
#[derive(Debug, Default, Clone)]
pub(super) struct Learnt(Arc<Mutex<(Option<RootStore>, Revocations)>>);

impl Learnt {
    /// What a restart finds.
    pub(super) fn load(&self) -> Option<(RootStore, Revocations)> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (roots, revocations) = &*held;
        Some((roots.clone()?, revocations.clone()))
    }
}

impl Shelf for Learnt {
    fn keep_revocations(&self, all: &Revocations) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 = all.clone();
    }

    fn keep_roots(&self, roots: &RootStore) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 = Some(roots.clone());
    }
}
