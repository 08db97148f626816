//! Which runs of a member's process have been here: two that take turns are two machines with one
//! identity.
//!
//! A run has a random number, its *incarnation*. One that restarts has another, and the earlier one
//! never comes back; so one that does come back has a twin. Two copies of a machine's memory have the
//! same incarnation and are told apart by their IP addresses, which a lone node may change, too, but not
//! to and fro.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;

/// A run that has not been here for so long is forgotten: several turns of two that dial once in ten
/// seconds.
const MEMORY: Duration = Duration::from_secs(120);

/// Runs of one member that are told apart.
const MAX_RUNS: usize = 4;

/// Members in all: as many as a bootstrap has links.
const MAX_MEMBERS: usize = 4096;

/// Times that one incarnation comes back to an address within [`MEMORY`] before it has a twin: a host
/// with two uplinks changes once or twice.
const MAX_RETURNS: u32 = 3;

/// The same twins are reported again after this.
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Run {
    incarnation: u32,
    addr: SocketAddr,
    last: Instant,
}

#[derive(Debug, Default)]
struct Member {
    /// The one that came last is at the end.
    runs: VecDeque<Run>,
    /// How often one of them came back under the incarnation of the one before.
    returns: u32,
    reported: Option<Instant>,
}

/// Two machines with one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twins {
    /// Where the other one is.
    pub(super) other: SocketAddr,
    /// It is time to say so to the operator.
    pub(super) report: bool,
}

/// The runs of the members that are connected, or were lately. At most [`MAX_MEMBERS`] of
/// [`MAX_RUNS`]; [`Self::sweep`] removes.
#[derive(Debug, Default)]
pub(super) struct Instances {
    members: BTreeMap<PeerId, Member>,
}

impl Instances {
    /// The run `incarnation` of `peer` is connected from `addr`. Has it a twin?
    pub(super) fn note(
        &mut self,
        peer: PeerId,
        incarnation: u32,
        addr: SocketAddr,
        now: Instant,
    ) -> Option<Twins> {
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&peer) {
            return None;
        }
        self.members.entry(peer).or_default().note(Run {
            incarnation,
            addr,
            last: now,
        })
    }

    /// Forgets who has not been here for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.members.retain(|_, member| {
            member.forget(now);
            !member.runs.is_empty()
        });
    }
}

impl Member {
    fn note(&mut self, run: Run) -> Option<Twins> {
        let now = run.last;
        self.forget(now);
        let same = |one: &Run| one.incarnation == run.incarnation && one.addr.ip() == run.addr.ip();
        let before = self.runs.iter().position(same);
        let newest = self.runs.back().copied();
        if let Some(at) = before {
            self.runs.remove(at);
        }
        while self.runs.len() >= MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
        let other = newest.filter(|newest| before.is_some() && !same(newest))?;
        if other.incarnation == run.incarnation {
            self.returns += 1;
            if self.returns < MAX_RETURNS {
                return None;
            }
        }
        let report = self
            .reported
            .is_none_or(|at| now.duration_since(at) >= REPORT_EVERY);
        if report {
            self.reported = Some(now);
        }
        Some(Twins {
            other: other.addr,
            report,
        })
    }

    fn forget(&mut self, now: Instant) {
        self.runs
            .retain(|run| now.duration_since(run.last) < MEMORY);
        if self.runs.len() < 2 {
            self.returns = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);
    const STEP: Duration = Duration::from_secs(10);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_run_that_comes_back_after_another_has_a_twin() {
        let (mut all, now) = (Instances::default(), crate::some_instant());
        let (a, b) = (at("192.0.2.1:5"), at("198.51.100.1:5"));
        assert_eq!(all.note(PEER, 1, a, now), None);
        assert_eq!(
            all.note(PEER, 2, b, now),
            None,
            "it may have moved and restarted"
        );
        let twins = |other, report| Some(Twins { other, report });
        assert_eq!(all.note(PEER, 1, a, now), twins(b, true));
        assert_eq!(all.note(PEER, 2, b, now + STEP), twins(a, false));
        let later = now + REPORT_EVERY;
        assert_eq!(all.note(PEER, 1, a, later), twins(b, true));
        // The other one has gone: this one redials, and nothing is said.
        assert_eq!(all.note(PEER, 1, a, later + STEP), None);
        assert_eq!(all.note(PEER, 1, a, later + MEMORY), None);
    }

    #[test]
    fn twins_behind_one_address_are_told_apart_by_their_runs() {
        let (mut all, now) = (Instances::default(), crate::some_instant());
        let (a, b) = (at("192.0.2.1:5"), at("192.0.2.1:6"));
        assert!(all.note(PEER, 1, a, now).is_none() && all.note(PEER, 2, b, now).is_none());
        assert!(all.note(PEER, 1, a, now).is_some());
    }

    #[test]
    fn restarts_and_changes_of_the_uplink_are_no_twins() {
        let (mut all, mut now) = (Instances::default(), crate::some_instant());
        let (a, b) = (at("192.0.2.1:5"), at("198.51.100.1:5"));
        for run in 0..20 {
            assert_eq!(all.note(PEER, run, a, now), None);
            assert_eq!(all.note(PEER, run, a, now), None);
            now += STEP;
        }
        for addr in [a, b, a] {
            assert_eq!(all.note(PEER, 30, addr, now), None);
            now += STEP;
        }
    }

    #[test]
    fn two_copies_of_one_memory_are_told_apart_by_their_addresses() {
        let (mut all, mut now) = (Instances::default(), crate::some_instant());
        let (a, b) = (at("192.0.2.1:5"), at("198.51.100.1:5"));
        let mut told = 0;
        for turn in 0..6 {
            let addr = if turn % 2 == 0 { a } else { b };
            told += usize::from(all.note(PEER, 1, addr, now).is_some());
            now += STEP / 2;
        }
        assert_eq!(told, 2);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut all, now) = (Instances::default(), crate::some_instant());
        for n in 0..10_000_u32 {
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&n.to_be_bytes());
            all.note(PeerId(peer), 1, at("192.0.2.1:5"), now);
            all.note(PEER, n, at("192.0.2.1:5"), now);
        }
        assert!(all.members.len() <= MAX_MEMBERS);
        assert!(
            all.members
                .values()
                .all(|member| member.runs.len() <= MAX_RUNS)
        );
        all.sweep(now + MEMORY);
        assert!(all.members.is_empty());
    }
}
