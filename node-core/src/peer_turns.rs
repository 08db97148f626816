//! Whose machines have their turn now, and whose have it when.
//!
//! Every input of the slow path ends with the question for the next timer. Asking each peer for it made every
//! message in a network of a hundred cost what a hundred peers cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use overlay_proto::ids::PeerId;

/// Bound: the peers that are kept in mind. A timer is set anew whenever its peer was touched, which is once a
/// second at least, and is gone when the peer is.
#[derive(Debug, Default)]
pub struct PeerTurns {
    /// They may have outputs.
    touched: BTreeSet<PeerId>,
    of: BTreeMap<PeerId, Instant>,
    order: BTreeSet<(Instant, PeerId)>,
}

impl PeerTurns {
    /// The machines of `peer` may have outputs.
    pub fn touch(&mut self, peer: PeerId) {
        self.touched.insert(peer);
    }

    /// Has nobody been touched since [`PeerTurns::take_touched`]?
    pub fn all_settled(&self) -> bool {
        self.touched.is_empty()
    }

    /// Those that were touched since the last call.
    pub fn take_touched(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.touched)
    }

    /// `peer` is next due at `at`; `None`: never, or it is gone.
    pub fn set(&mut self, peer: PeerId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.of.insert(peer, at),
            None => self.of.remove(&peer),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, peer));
        }
        if let Some(at) = at {
            self.order.insert((at, peer));
        }
    }

    /// The earliest of all.
    pub fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those that are due.
    pub fn due(&self, now: Instant) -> Vec<PeerId> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, peer)| *peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_earliest_is_first_and_what_is_gone_is_never_due() {
        let (mut timers, now) = (PeerTurns::default(), self::now());
        let (at, peer) = (|s| now + Duration::from_secs(s), |n| PeerId([n; 32]));
        for (n, s) in [(1, 5), (2, 3), (3, 9)] {
            timers.set(peer(n), Some(at(s)));
        }
        assert_eq!(timers.next_due(), Some(at(3)));
        timers.set(peer(2), Some(at(7)));
        assert_eq!(
            (timers.next_due(), timers.due(at(4))),
            (Some(at(5)), vec![])
        );
        assert_eq!(timers.due(at(7)), [peer(1), peer(2)]);
        timers.set(peer(1), None);
        timers.set(peer(1), None);
        assert_eq!(timers.due(at(9)), [peer(2), peer(3)]);
        assert_eq!(timers.of.len(), timers.order.len());
    }
}
