//! What admission found out, kept for the swarm's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;

use super::Admitted;

/// An entry of a peer that is not connected is dropped after this long: libp2p reports an admitted
/// connection within milliseconds, or never when it lost a race against another.
const UNUSED: Duration = Duration::from_secs(30);

/// A connection of our own to a peer that is younger than this was in a race with others: whoever of
/// them is not at the gate yet gives up there.
const RACE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Entry {
    admitted: Admitted,
    since: Instant,
    /// We dialed, and have not heard that the connection is gone.
    dialed: bool,
}

/// The peers that were admitted, each with its latest verdict. At most one entry for each connected
/// peer and for each admission of the last [`UNUSED`]; [`Self::sweep`] removes the rest.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdmittedTable(Arc<Mutex<HashMap<PeerId, Entry>>>);

impl AdmittedTable {
    pub(super) fn insert(&self, peer: PeerId, admitted: Admitted, dialed: bool) {
        let entry = Entry {
            admitted,
            since: Instant::now(),
            dialed,
        };
        self.lock().insert(peer, entry);
    }

    /// Has a connection of our own to `peer` just been admitted? Then another one, which began
    /// because this one took long, is not needed; and the listener would take it for the newer one.
    pub(super) fn has_just_dialed(&self, peer: &PeerId) -> bool {
        let recent = |entry: &Entry| entry.dialed && entry.since.elapsed() < RACE;
        self.lock().get(peer).is_some_and(recent)
    }

    /// The last connection to `peer` is gone.
    pub(crate) fn handle_disconnected(&self, peer: &PeerId) {
        if let Some(entry) = self.lock().get_mut(peer) {
            entry.dialed = false;
        }
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<Admitted> {
        self.lock().get(peer).map(|entry| entry.admitted.clone())
    }

    pub(crate) fn is_infra(&self, peer: &PeerId) -> bool {
        let is_infra = |entry: &Entry| matches!(entry.admitted, Admitted::Infra { .. });
        self.lock().get(peer).is_some_and(is_infra)
    }

    pub(crate) fn sweep(&self, connected: impl Fn(&PeerId) -> bool) {
        self.lock()
            .retain(|peer, entry| entry.since.elapsed() < UNUSED || connected(peer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_dials_that_race_the_second_gives_up() {
        let table = AdmittedTable::default();
        let peer = PeerId([1; 32]);
        let infra = || Admitted::Infra {
            data_addrs: Vec::new(),
        };
        assert!(!table.has_just_dialed(&peer));
        table.insert(peer, infra(), true);
        assert!(table.has_just_dialed(&peer) && table.is_infra(&peer));
        // The next attempt after a lost connection is no race.
        table.handle_disconnected(&peer);
        assert!(!table.has_just_dialed(&peer) && table.is_infra(&peer));
        table.insert(peer, infra(), false);
        assert!(!table.has_just_dialed(&peer));
    }
}
