//! What admission found out, kept for the swarm's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;

use super::Admitted;

/// An entry of a peer that is not connected is dropped after this long: libp2p reports an admitted
/// connection within milliseconds, or never when it lost a race against another.
const UNUSED: Duration = Duration::from_secs(30);

/// The peers that were admitted, each with its latest verdict. At most one entry for each connected
/// peer and for each admission of the last [`UNUSED`]; [`Self::sweep`] removes the rest.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdmittedTable(Arc<Mutex<HashMap<PeerId, (Admitted, Instant)>>>);

impl AdmittedTable {
    pub(super) fn insert(&self, peer: PeerId, admitted: Admitted) {
        self.lock().insert(peer, (admitted, Instant::now()));
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<Admitted> {
        self.lock().get(peer).map(|(admitted, _)| admitted.clone())
    }

    pub(crate) fn is_infra(&self, peer: &PeerId) -> bool {
        matches!(self.lock().get(peer), Some((Admitted::Infra { .. }, _)))
    }

    pub(crate) fn sweep(&self, connected: impl Fn(&PeerId) -> bool) {
        self.lock()
            .retain(|peer, (_, since)| since.elapsed() < UNUSED || connected(peer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, (Admitted, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
