//! Memberships that end while their nodes are connected.

use std::time::{Duration, Instant};

use super::Driver;
use crate::addr;
use crate::admission::Admitted;

/// How often the ends of all who are connected are looked at; they are dates, with a tolerance of minutes.
const LOOK: Duration = Duration::from_secs(60);

/// When they are looked at next.
#[derive(Debug)]
pub(super) struct NextLook(Instant);

impl NextLook {
    pub(super) fn new(now: Instant) -> Self {
        Self(now + LOOK)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.0;
        if due {
            self.0 = now + LOOK;
        }
        due
    }
}

impl Driver {
    /// Disconnects members whose certificate has ended, and ends what they have here. Who has another
    /// certificate comes back with it.
    pub(super) fn end_memberships(&mut self, now: Instant) {
        if !self.next_expiry.is_due(now) {
            return;
        }
        for peer in self.connected().into_iter().map(|one| one.peer) {
            let ended = matches!(
                self.admitted.get(&peer),
                Some(Admitted::Member { until, .. }) if self.gate.has_ended(until)
            );
            if !ended {
                continue;
            }
            tracing::info!(%peer, "its membership has ended: disconnected");
            self.disconnect(peer);
            self.server.end(peer);
            if let Some(source) = addr::to_libp2p(peer) {
                let store = self.kad().store_mut();
                store.remove_sources(|one| *one == source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute() {
        let start = Instant::now();
        let mut next = NextLook::new(start);
        let looks = (0..=300).filter(|s| next.is_due(start + Duration::from_secs(*s)));
        assert_eq!(looks.count(), 5);
    }
}
