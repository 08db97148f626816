//! Whom our relay allocations are to hear.
//!
//! Each greeting and each card permits somebody. They are asked for together, once a turn: a node that
//! meets a hundred members would use up what a bootstrap takes from one member at once.

use std::collections::BTreeSet;

use overlay_proto::ids::PeerId;

use super::asking::Question;
use super::run::Driver;

/// The most peers in one request.
const AT_ONCE: usize = control_plane::messages::MAX_PERMITS;

/// Who is to be permitted with the next turn. Bound: the peers that are known, `MAX_PEERS`; emptied
/// each turn.
#[derive(Debug, Default)]
pub(crate) struct Permits(BTreeSet<PeerId>);

impl Permits {
    /// All of now, in lists that each fit a request.
    fn take(&mut self) -> Vec<Vec<PeerId>> {
        let all: Vec<PeerId> = std::mem::take(&mut self.0).into_iter().collect();
        all.chunks(AT_ONCE).map(<[PeerId]>::to_vec).collect()
    }
}

impl Driver {
    /// Permits `peers` at our relay allocations.
    pub(crate) fn permit(&mut self, peers: &[PeerId]) {
        self.permits.0.extend(peers);
    }

    /// Asks for what [`Driver::permit`] was told since the last turn.
    pub(crate) fn send_permits(&mut self) {
        for some in self.permits.take() {
            for (infra, allocation) in self.underlay.allocations() {
                self.asking.put(Question::Permit {
                    infra,
                    allocation,
                    peers: some.clone(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_newcomers_are_two_requests() {
        let mut permits = Permits::default();
        for n in 0..100 {
            permits.0.insert(PeerId([n; 32]));
            permits.0.insert(PeerId([n; 32]));
        }
        let lists: Vec<usize> = permits.take().iter().map(Vec::len).collect();
        assert_eq!(lists, [AT_ONCE, 100 - AT_ONCE]);
        assert!(permits.take().is_empty());
    }
}
