//! What is revoked, as a gate knows it (TRUST.md 8).

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overlay_proto::membership::{
    MembershipError, Revocations, RootStore, SignedRevocations, Taken,
};

/// Where a gate keeps what it learns, so that a restart refuses whom this run refused. Whoever
/// implements it reports a disk that does not take it: what was learnt counts all the same.
pub trait Shelf: Debug + Send + Sync {
    /// The revocations have grown.
    fn keep_revocations(&self, all: &Revocations);

    /// The root documents have grown.
    fn keep_roots(&self, roots: &RootStore);
}

/// The revocations of a gate. They grow while connections are judged.
#[derive(Debug, Default)]
pub(super) struct Book {
    held: Mutex<Arc<Revocations>>,
    /// Held while a list is checked and kept, which may wait for the disk; readers do not.
    taking: Mutex<()>,
    shelf: Option<Arc<dyn Shelf>>,
}

impl Book {
    pub(super) fn new(held: Revocations, shelf: Option<Arc<dyn Shelf>>) -> Self {
        Self {
            held: Mutex::new(Arc::new(held)),
            taking: Mutex::default(),
            shelf,
        }
    }

    /// The same `Arc` until they grow.
    pub(super) fn held(&self) -> Arc<Revocations> {
        Arc::clone(&self.lock())
    }

    /// On disk first, then it counts.
    pub(super) fn take(&self, list: &[u8], roots: &RootStore) -> Result<Taken, MembershipError> {
        let list = SignedRevocations::decode(list)?;
        let number = list.list().number;
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Revocations::clone(&self.held());
        let taken = next.take(list, roots)?;
        match taken {
            Taken::Known => return Ok(taken),
            Taken::Newer => {
                tracing::info!(number, entries = next.entries().len(), "revocation list")
            }
            Taken::Rival => tracing::warn!(
                number,
                "a revocation list that does not contain the one known here: the authority's state \
                 was copied or restored; both count. Give the authority both lines with \
                 `farlan apply -`, its next list unites them"
            ),
        }
        if let Some(shelf) = &self.shelf {
            shelf.keep_revocations(&next);
        }
        *self.lock() = Arc::new(next);
        Ok(taken)
    }

    /// The root documents have grown: on disk, and without the lists of retired keys.
    pub(super) fn follow(&self, roots: &RootStore) {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Revocations::clone(&self.held());
        let changed = next.retain_trusted(roots);
        if let Some(shelf) = &self.shelf {
            shelf.keep_roots(roots);
        }
        if changed {
            if let Some(shelf) = &self.shelf {
                shelf.keep_revocations(&next);
            }
            *self.lock() = Arc::new(next);
        }
    }

    /// `roots` came from the node, which keeps them: the lists of keys that they retire do not count any more. Whoever
    /// says so must not wait for the disk; the next list that is kept takes them from there, and a restart leaves them out.
    pub(super) fn forget_retired(&self, roots: &RootStore) {
        let mut held = self.lock();
        let mut next = Revocations::clone(&held);
        if next.retain_trusted(roots) {
            *held = Arc::new(next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Revocations>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
