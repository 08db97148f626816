//! Who is not reached is sought: by handshakes, and by greetings, which others send.

use std::cmp::Reverse;
use std::time::Instant;

use nat_traversal::candidate::CandidateFilter;
use overlay_proto::ids::{NetworkId, PeerId};

use super::Peers;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::underlay::RelaySpot;

/// Peers that housekeeping seeks in one round; the others wait for the next one. A greeting is an envelope of about 1.5 KiB in and out
/// of a bootstrap, and a handshake that goes by its relay eight datagrams within 10 s. Of 300 nodes that were all cut off
/// each greets 13 a second so, all of them 3,840, and has had its turn with everybody after 25 s; each pair is sought from both
/// sides. One request names all of a round to a relay ([`MAX_PERMITTED`](crate::questions::MAX_PERMITTED)).
const SOUGHT_AT_ONCE: usize = 64;

impl Peers {
    /// Is there a session with `id` in each of these networks, and a path for it?
    pub(crate) fn is_reached(
        &self,
        id: PeerId,
        mut networks: impl Iterator<Item = NetworkId>,
    ) -> bool {
        let Some(session) = self.tunnels.current(id) else {
            return false;
        };
        let peer = self.known.get(&id);
        peer.is_some_and(|peer| peer.agent.chosen().is_some())
            && networks.all(|id| session.networks.iter().any(|shared| shared.network == id))
    }

    /// Begins a handshake on every path that may work, if it is time for one.
    pub(crate) fn dial(
        &mut self,
        tick: Tick,
        id: PeerId,
        (filter, routes): (&CandidateFilter, &[RelaySpot]),
        out: &mut Outside,
    ) {
        let Some(peer) = self.known.get_mut(&id) else {
            return;
        };
        let Some(static_key) = peer.static_key else {
            return;
        };
        let paths = peer.whereabouts.handshake_paths(filter, routes);
        if !paths.is_empty() && peer.attempts.may_dial(tick.now) {
            let (now, wall) = (tick.now, tick.wall);
            self.tunnels
                .connect(now, wall, &mut out.entropy, id, static_key, &paths);
        }
    }

    /// May `id` be greeted now? Counts it if so.
    pub(crate) fn may_greet(&mut self, now: Instant, id: PeerId) -> bool {
        let peer = self.known.get_mut(&id);
        peer.is_some_and(|peer| peer.attempts.may_greet(now))
    }

    /// `id` has greeted us: it is there. `Some(true)`: a greeting in return is due; `None`: it is not known.
    pub(crate) fn note_greeted_by(&mut self, now: Instant, id: PeerId) -> Option<bool> {
        let peer = self.known.get_mut(&id)?;
        Some(peer.attempts.note_greeted_by(now))
    }

    /// These may be there again: they are sought as at first.
    pub(crate) fn hasten(&mut self, unreached: &[PeerId]) {
        for id in unreached {
            if let Some(peer) = self.known.get_mut(id) {
                peer.attempts.hasten();
            }
        }
    }

    /// Whose turn it is of these: first those that had the fewest, of them those heard last.
    pub(crate) fn take_turns(&mut self, now: Instant, unreached: &[PeerId]) -> Vec<PeerId> {
        let due = unreached.iter().filter_map(|id| {
            let peer = self.known.get(id)?;
            let turns = peer.attempts.turns(now)?;
            Some((turns, Reverse(peer.heard.at), *id))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        due.truncate(SOUGHT_AT_ONCE);
        for (_, _, id) in &due {
            if let Some(peer) = self.known.get_mut(id) {
                peer.attempts.note_turn();
            }
        }
        due.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Has one of these become away?
    pub(crate) fn note_away(&mut self, now: Instant, unreached: &[PeerId]) -> bool {
        unreached.iter().fold(false, |any, id| {
            let peer = self.known.get_mut(id);
            any | peer.is_some_and(|peer| peer.attempts.note_away(now))
        })
    }
}
