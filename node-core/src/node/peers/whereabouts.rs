//! Where a peer can be reached: what it told, where it was met, and which relay both are at.

use std::net::SocketAddr;

use nat_traversal::candidate::{Candidate, CandidateFilter, CandidateKind};
use nat_traversal::nat_kind::Mapping;
use nat_traversal::path::{Path, PathKind, RelayRoute};

use crate::underlay::RelaySpot;

/// Paths on which one handshake is tried: the relay and the best candidates.
const HANDSHAKE_PATHS: usize = 8;

/// Where a list of candidates came from, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListSource {
    /// A signed card, or the disk: it may be old, and be shown again by anybody.
    Card(u64),
    /// The session with the peer: sealed, in order and not to be replayed, so it is what holds now.
    Session(u64),
}

impl ListSource {
    const fn number(self) -> u64 {
        match self {
            Self::Card(number) | Self::Session(number) => number,
        }
    }
}

/// The lists of candidates that a peer has told.
#[derive(Debug, Default)]
struct Lists {
    /// The highest number of all. A card must be above it, also above what a session has told: old
    /// cards do not win over a new list.
    highest: u64,
    /// The highest number in this run of the peer's process.
    in_session: u64,
    /// How many were taken over: the number of the list for the agent.
    taken: u64,
}

impl Lists {
    /// Is the list newer than what is known? A peer that has lost its disk, or whose clock was ahead in an
    /// earlier run, counts from a lower number: in its session that holds all the same.
    fn take(&mut self, source: ListSource) -> bool {
        let number = source.number();
        let floor = match source {
            ListSource::Card(_) => self.highest,
            ListSource::Session(_) => self.in_session,
        };
        if number <= floor {
            return false;
        }
        if matches!(source, ListSource::Session(_)) {
            self.in_session = number;
        }
        self.highest = self.highest.max(number);
        self.taken += 1;
        true
    }
}

/// Where one peer can be reached, as far as is known.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    /// Where it says it can be reached.
    pub(super) candidates: Vec<Candidate>,
    lists: Lists,
    /// The relayed path that the agent was offered.
    relay: Option<Path>,
    /// How its NAT maps, as far as it says.
    pub(crate) mapping: Mapping,
    /// Where it was last reached directly.
    pub(super) met_at: Option<SocketAddr>,
}

impl Default for Whereabouts {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            lists: Lists::default(),
            relay: None,
            mapping: Mapping::Unknown,
            met_at: None,
        }
    }
}

impl Whereabouts {
    /// It told its candidates: the number of the list for the agent; `None`: the list is not newer than the one
    /// known.
    pub(super) fn take(&mut self, source: ListSource, candidates: &[Candidate]) -> Option<u64> {
        // The same list comes by card and in the session: it is taken once.
        let known = self.lists.highest >= source.number() && candidates == self.candidates;
        if !self.lists.take(source) || known {
            return None;
        }
        candidates.clone_into(&mut self.candidates);
        Some(self.lists.taken)
    }

    /// The highest number of a list that it told.
    pub(super) const fn number(&self) -> u64 {
        self.lists.highest
    }

    /// A first session begins: the peer may count from a lower number in it.
    pub(super) const fn begin_session(&mut self) {
        self.lists.in_session = 0;
    }

    /// The path by the relay that both sides are at, if there is one. `true`: there is, and it is another than
    /// before.
    pub(super) fn offer_relay(&mut self, routes: &[RelaySpot]) -> (Option<Path>, bool) {
        let path = self.relay_path(routes);
        let new = path.is_some() && path != self.relay;
        self.relay = path;
        (path, new)
    }

    /// It was reached on `path`. `true`: directly, and not where it was met before.
    pub(super) fn note_met(&mut self, path: &Path) -> bool {
        let met_at = (path.kind() == PathKind::Direct).then_some(path.remote);
        let new = met_at.is_some() && met_at != self.met_at;
        self.met_at = met_at.or(self.met_at);
        new
    }

    /// Has it told a relay at which we have an allocation, too?
    pub(crate) fn has_relay_in_common(&self, routes: &[RelaySpot]) -> bool {
        self.relay_path(routes).is_some()
    }

    pub(super) fn relay_path(&self, routes: &[RelaySpot]) -> Option<Path> {
        let relayed = self
            .candidates
            .iter()
            .filter(|c| c.kind == CandidateKind::Relayed);
        relayed.into_iter().find_map(|candidate| {
            let at = candidate.relay?;
            let spot = routes.iter().find(|spot| spot.relay == at)?;
            let route = RelayRoute {
                own: spot.own,
                peer: candidate.allocation?,
            };
            Some(Path::relayed(spot.ours, route))
        })
    }

    /// The paths on which a handshake may get through: the relay, where it was met last, then what
    /// the filter admits.
    pub(crate) fn handshake_paths(
        &self,
        filter: &CandidateFilter,
        routes: &[RelaySpot],
    ) -> Vec<Path> {
        let reflexive: Vec<_> = self
            .candidates
            .iter()
            .filter(|c| c.kind == CandidateKind::Reflexive)
            .map(|c| c.addr.ip())
            .collect();
        let direct = self
            .candidates
            .iter()
            .filter(|c| c.kind != CandidateKind::Relayed)
            .filter(|c| filter.admit(c, &reflexive).is_ok())
            .map(|c| Path::direct(c.addr));
        let met_at = self.met_at.filter(|at| filter.admit_source(*at).is_ok());
        self.relay_path(routes)
            .into_iter()
            .chain(met_at.map(Path::direct))
            .chain(direct)
            .take(HANDSHAKE_PATHS)
            .collect()
    }

    /// Was it last reached on `path`, directly?
    pub(crate) fn was_met_on(&self, path: &Path, filter: &CandidateFilter) -> bool {
        path.kind() == PathKind::Direct
            && self.met_at == Some(path.remote)
            && filter.admit_source(path.remote).is_ok()
    }
}
