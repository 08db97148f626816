//! What admission found out, kept for the swarm's task.

use std::collections::BTreeMap;
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
pub struct AdmittedTable(Arc<Mutex<BTreeMap<PeerId, Entry>>>);

impl AdmittedTable {
    /// The verdict over a connection.
    pub fn insert(&self, peer: PeerId, admitted: Admitted, dialed: bool, now: Instant) {
        let entry = Entry {
            admitted,
            since: now,
            dialed,
        };
        self.lock().insert(peer, entry);
    }

    /// Has a connection of our own to `peer` just been admitted? Then another one, which began
    /// because this one took long, is not needed; and the listener would take it for the newer one.
    #[must_use]
    pub fn has_just_dialed(&self, peer: &PeerId, now: Instant) -> bool {
        let recent =
            |entry: &Entry| entry.dialed && now.saturating_duration_since(entry.since) < RACE;
        self.lock().get(peer).is_some_and(recent)
    }

    /// The last connection to `peer` is gone.
    pub fn handle_disconnected(&self, peer: &PeerId) {
        if let Some(entry) = self.lock().get_mut(peer) {
            entry.dialed = false;
        }
    }

    /// Who `peer` has proved to be.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<Admitted> {
        self.lock().get(peer).map(|entry| entry.admitted.clone())
    }

    /// Is it a bootstrap?
    #[must_use]
    pub fn is_infra(&self, peer: &PeerId) -> bool {
        let is_infra = |entry: &Entry| matches!(entry.admitted, Admitted::Infra { .. });
        self.lock().get(peer).is_some_and(is_infra)
    }

    /// Drops the entries of those that have not been connected for long.
    pub fn sweep(&self, connected: impl Fn(&PeerId) -> bool, now: Instant) {
        self.lock().retain(|peer, entry| {
            now.saturating_duration_since(entry.since) < UNUSED || connected(peer)
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_dials_that_race_the_second_gives_up() {
        let (table, now) = (AdmittedTable::default(), crate::some_instant());
        let peer = PeerId([1; 32]);
        let infra = || Admitted::Infra {
            data_addrs: Vec::new(),
        };
        assert!(!table.has_just_dialed(&peer, now));
        table.insert(peer, infra(), true, now);
        assert!(table.has_just_dialed(&peer, now) && table.is_infra(&peer));
        // The next attempt after a lost connection is no race.
        table.handle_disconnected(&peer);
        assert!(!table.has_just_dialed(&peer, now) && table.is_infra(&peer));
        table.insert(peer, infra(), false, now);
        assert!(!table.has_just_dialed(&peer, now));
    }
}
