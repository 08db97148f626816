//! Whom our relay allocations are to hear.
//!
//! A relay keeps 256 of an allocation, and the one that was named longest ago makes room. So those are named who
//! are sought, each time they are greeted, and those whose frames go by the relay, again and again: however
//! many are sought in vain, they do not push out who is talked to. Who is reached directly is named only where there is
//! room for all.
//!
//! All of a turn are asked for together: a node that meets a hundred members would use up what a bootstrap takes
//! from one member at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::questions::{MAX_PERMITTED, Question};
use nat_traversal::relay::MAX_PERMITS;
use overlay_proto::ids::PeerId;

use super::Candidates;
use crate::node::outside::Outside;

/// Who is talked to is named again after this. The rest of a relay's list, a quarter, is not filled by greetings in
/// this time: a thousand peers that are away are greeted three times a second.
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// Those talked to that are named again; the rest of what a relay keeps is for those that are sought.
const MAX_RENEWED: usize = MAX_PERMITS * 3 / 4;

/// Who is to be permitted with the next turn. Bound: the peers that are known, `MAX_PEERS`; emptied
/// each turn.
#[derive(Debug, Default)]
pub(super) struct Permits {
    wanted: BTreeSet<PeerId>,
    renewed: Option<Instant>,
}

impl Permits {
    /// All of now, in lists that each fit a request.
    fn take(&mut self) -> Vec<Vec<PeerId>> {
        let all: Vec<PeerId> = std::mem::take(&mut self.wanted).into_iter().collect();
        all.chunks(MAX_PERMITTED).map(<[PeerId]>::to_vec).collect()
    }

    /// Names those of `relayed` again, if it is time; more than there is room for are those heard last.
    fn renew(&mut self, now: Instant, relayed: impl Iterator<Item = (Option<Instant>, PeerId)>) {
        let early = |at| now.duration_since(at) < RENEW_EVERY;
        if self.renewed.is_some_and(early) {
            return;
        }
        self.renewed = Some(now);
        let mut relayed: Vec<_> = relayed.collect();
        relayed.sort_unstable_by(|one, other| other.cmp(one));
        let heard_last = relayed.into_iter().take(MAX_RENEWED);
        self.wanted.extend(heard_last.map(|(_, id)| id));
    }
}

impl Candidates {
    /// Permits `peers` at our relay allocations, with the next turn.
    pub(crate) fn permit(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.permits.wanted.extend(peers);
    }

    /// There is a new allocation: whoever is not reached directly may come by it, and others whose path ends.
    /// `known`: all peers, and whether each is reached directly.
    pub(crate) fn permit_at_new_relay(
        &mut self,
        known: impl ExactSizeIterator<Item = (PeerId, bool)>,
    ) {
        let room = known.len() <= MAX_RENEWED;
        let wanted = known.filter(|(_, direct)| room || !direct);
        self.permits.wanted.extend(wanted.map(|(id, _)| id));
    }

    /// Names those again whose frames go by a relay; of each when it was last heard.
    pub(crate) fn renew_permits(
        &mut self,
        now: Instant,
        relayed: impl Iterator<Item = (Option<Instant>, PeerId)>,
    ) {
        self.permits.renew(now, relayed);
    }

    /// Asks for what [`Candidates::permit`] was told since the last turn.
    pub(crate) fn send_permits(&mut self, out: &mut Outside) {
        for some in self.permits.take() {
            for (infra, allocation) in self.underlay.allocations() {
                out.asking.put(Question::Permit {
                    infra,
                    allocation,
                    peers: some.clone(),
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn a_hundred_newcomers_are_two_requests() {
        let mut permits = Permits::default();
        for n in 0..100 {
            permits.wanted.insert(peer(n));
            permits.wanted.insert(peer(n));
        }
        let lists: Vec<usize> = permits.take().iter().map(Vec::len).collect();
        assert_eq!(lists, [MAX_PERMITTED, 100 - MAX_PERMITTED]);
        assert!(permits.take().is_empty());
    }

    /// As the relay keeps them.
    fn named(kept: &mut VecDeque<PeerId>, permits: &mut Permits) {
        for id in permits.take().into_iter().flatten() {
            kept.retain(|one| *one != id);
            if kept.len() >= MAX_PERMITS {
                kept.pop_front();
            }
            kept.push_back(id);
        }
    }

    #[test]
    fn a_thousand_that_are_sought_do_not_push_out_those_talked_to() {
        let (start, mut permits, mut kept) = (Instant::now(), Permits::default(), VecDeque::new());
        let talked_to = || (0..100).map(|n| (Some(start), peer(n)));
        for second in 0..600_u16 {
            let now = start + Duration::from_secs(second.into());
            permits.renew(now, talked_to());
            // All at first, then each once in 320 s.
            let sought = if second == 0 {
                0..1000
            } else {
                3 * second..3 * second + 3
            };
            permits.wanted.extend(sought.map(|n| peer(100 + n % 1000)));
            named(&mut kept, &mut permits);
            if second >= 20 {
                let all = talked_to().all(|(_, id)| kept.contains(&id));
                assert!(all, "after {second} s");
            }
        }
    }

    #[test]
    fn of_too_many_those_heard_last_stay() {
        let (start, mut permits, mut kept) = (Instant::now(), Permits::default(), VecDeque::new());
        let many = (0..400_u16).map(|n| {
            let heard = start + Duration::from_secs(n.into());
            ((n > 0).then_some(heard), peer(n))
        });
        permits.renew(start, many);
        named(&mut kept, &mut permits);
        assert_eq!(kept.len(), MAX_RENEWED);
        assert!(kept.contains(&peer(399)) && !kept.contains(&peer(0)));
    }
}
