//! One peer: how it can be reached, and what is on its way to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::reasons::Greeted;
use crate::underlay::RelaySpot;
use nat_traversal::agent::PathAgent;
use nat_traversal::candidate::{Candidate, CandidateFilter, CandidateKind};
use nat_traversal::nat_kind::Mapping;
use nat_traversal::path::{Path, PathKind, RelayRoute};
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::InviteId;
use overlay_proto::switching::PeerCounters;
use overlay_proto::wire::{ReliableChannel, SAFE_DATAGRAM};

use crate::node::introductions::names::PeerName;
use crate::node::peers::attempts::Attempts;
use crate::node::peers::memory::Remembered;

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

/// Frame counts at the last look, to see whether traffic flows.
#[derive(Debug, Default)]
struct Seen {
    tx_frames: u64,
    rx_frames: u64,
}

/// A member of at least one of our networks.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub(crate) id: PeerId,
    /// Its x25519 static, from its card or roster entry: signed by it.
    pub(crate) static_key: Option<[u8; 32]>,
    /// What people call it.
    pub(crate) name: PeerName,
    /// Where it says it can be reached.
    candidates: Vec<Candidate>,
    lists: Lists,
    /// The relayed path that the agent was offered.
    relay: Option<Path>,
    /// From candidates to the chosen path.
    pub(crate) agent: PathAgent,
    /// Reliable messages in the session.
    pub(crate) channel: ReliableChannel,
    /// Traffic.
    pub(crate) counters: Arc<PeerCounters>,
    /// The sequence of our own candidates that it has been told in the session.
    pub(crate) told_sequence: u64,
    /// Where its sealed datagrams last came from.
    pub(crate) heard_on: Option<Path>,
    /// How its NAT maps, as far as it says.
    pub(crate) mapping: Mapping,
    /// Where it was last reached directly.
    met_at: Option<SocketAddr>,
    /// The invite of the certificate that it showed in its last handshake.
    pub(crate) invite: Option<InviteId>,
    /// The networks of the session, as the directories know them.
    pub(crate) shared: Vec<NetworkId>,
    /// The epoch of each in which it is, by what it said and what it was handed. Kept over sessions:
    /// the word of a new one may come before the session counts as usable. No more networks than
    /// the node has.
    pub(crate) epochs: BTreeMap<NetworkId, u64>,
    /// When the first packet could be sent to it, in this run of its process.
    pub(crate) usable_since: Option<Instant>,
    /// When it became known.
    pub(crate) since: Instant,
    /// The path chosen last.
    pub(crate) last_path: Option<Path>,
    /// When a sealed packet of it was last opened.
    pub(crate) last_heard: Option<Instant>,
    /// What became of the last greeting.
    pub(crate) greeted: Option<Greeted>,
    pub(crate) attempts: Attempts,
    seen: Seen,
}

impl Peer {
    /// A peer of whom only the name is known. `channel_id` is random.
    pub(crate) fn new(now: Instant, id: PeerId, agent: PathAgent, channel_id: u32) -> Self {
        Self {
            id,
            static_key: None,
            name: PeerName::default(),
            candidates: Vec::new(),
            lists: Lists::default(),
            relay: None,
            agent,
            channel: ReliableChannel::new(channel_id),
            counters: Arc::default(),
            told_sequence: 0,
            heard_on: None,
            mapping: Mapping::Unknown,
            met_at: None,
            invite: None,
            shared: Vec::new(),
            epochs: BTreeMap::new(),
            usable_since: None,
            since: now,
            last_path: None,
            last_heard: None,
            greeted: None,
            attempts: Attempts::default(),
            seen: Seen::default(),
        }
    }

    /// The earliest timer of its machines. The channel's counts only while it can send: its
    /// messages wait for a session, and so must their timers.
    pub(crate) fn poll_timeout(&self, in_session: bool) -> Option<Instant> {
        let can_send = in_session && self.agent.can_send(SAFE_DATAGRAM);
        let channel = self.channel.poll_timeout().filter(|_| can_send);
        self.agent.poll_timeout().into_iter().chain(channel).min()
    }

    /// It told its candidates. `false`: the list is not newer than the one known.
    pub(crate) fn set_candidates(
        &mut self,
        now: Instant,
        source: ListSource,
        candidates: Vec<Candidate>,
    ) -> bool {
        // The same list comes by card and in the session: it is taken once.
        let known = self.lists.highest >= source.number() && candidates == self.candidates;
        if !self.lists.take(source) || known {
            return false;
        }
        let number = self.lists.taken;
        let refused = self.agent.set_remote_candidates(now, &candidates, number);
        tracing::debug!(peer = %self.id, ?source, ?candidates, refused, "candidates");
        self.candidates = candidates;
        // What failed before may work with the new addresses.
        self.try_again();
        true
    }

    /// Tells the agent about the relay that both sides are at. `true`: there is one, and it is
    /// another than before, so a handshake may get through where none did.
    pub(crate) fn offer_relay(&mut self, now: Instant, routes: &[RelaySpot]) -> bool {
        let path = self.relay_path(routes);
        self.agent.set_relay(now, path);
        let new = path.is_some() && path != self.relay;
        self.relay = path;
        if new {
            self.try_again();
        }
        new
    }

    /// A path was chosen. `true`: a direct one from where it was not met before.
    pub(crate) fn choose(&mut self, path: Path) -> bool {
        self.last_path = Some(path);
        self.attempts.note_found();
        let met_at = (path.kind() == PathKind::Direct).then_some(path.remote);
        let new = met_at.is_some() && met_at != self.met_at;
        self.met_at = met_at.or(self.met_at);
        new
    }

    /// What to keep on disk; `None` before its key is known.
    pub(crate) fn remember(&self) -> Option<Remembered> {
        Some(Remembered {
            id: self.id,
            static_key: self.static_key?,
            name: self.name.signed.clone(),
            said: self.name.said.clone(),
            sequence: self.lists.highest,
            candidates: self.candidates.clone(),
            met_at: self.met_at,
        })
    }

    /// It was known before a restart.
    pub(crate) fn recall(&mut self, now: Instant, kept: Remembered) {
        self.static_key = Some(kept.static_key);
        self.name.signed = kept.name;
        if let Some(said) = kept.said {
            self.name.say(&said);
        }
        self.met_at = kept.met_at;
        self.set_candidates(now, ListSource::Card(kept.sequence), kept.candidates);
    }

    fn relay_path(&self, routes: &[RelaySpot]) -> Option<Path> {
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

    /// Has it given no sign since it was sought? Whoever is reached is not sought.
    pub(crate) fn is_away(&self, now: Instant) -> bool {
        self.attempts.is_away(now)
    }

    /// Has it told a relay at which we have an allocation, too?
    pub(crate) fn has_relay_in_common(&self, routes: &[RelaySpot]) -> bool {
        self.relay_path(routes).is_some()
    }

    /// What failed before may work now.
    pub(crate) fn try_again(&mut self) {
        self.attempts.renew();
    }

    /// Was it last reached on `path`, directly?
    pub(crate) fn was_met_on(&self, path: &Path, filter: &CandidateFilter) -> bool {
        path.kind() == PathKind::Direct
            && self.met_at == Some(path.remote)
            && filter.admit_source(path.remote).is_ok()
    }

    /// A first session is there: the next time is the first time again, and what was agreed in an
    /// earlier session is void. `channel_id` is random.
    pub(crate) fn reached(&mut self, now: Instant, channel_id: u32) {
        self.channel.renew(channel_id);
        self.usable_since = Some(now);
        self.told_sequence = 0;
        self.lists.in_session = 0;
        self.shared.clear();
        self.attempts = Attempts::default();
    }

    /// Another session took over. The peer may have heard a twin of this node meanwhile, whose channel
    /// counts there now: ours begins anew. The peer answers, so the next handshake waits no longer than
    /// after a first one. `channel_id` is random.
    pub(crate) fn rekeyed(&mut self, channel_id: u32) {
        self.channel.renew(channel_id);
        self.attempts.note_answered();
    }

    /// Tells the agent whether frames went out and came in since the last look; `true` if any did.
    pub(crate) fn look_at_traffic(&mut self, now: Instant) -> bool {
        let tx_frames = self.counters.tx_frames.load(Ordering::Relaxed);
        let rx_frames = self.counters.rx_frames.load(Ordering::Relaxed);
        if tx_frames != self.seen.tx_frames {
            self.agent.handle_sent(now);
        }
        if rx_frames != self.seen.rx_frames {
            self.last_heard = Some(now);
            if let Some(path) = self.heard_on {
                self.agent.handle_traffic(now, path);
            }
        }
        let talked = tx_frames != self.seen.tx_frames || rx_frames != self.seen.rx_frames;
        self.seen = Seen {
            tx_frames,
            rx_frames,
        };
        talked
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use std::time::Duration;

    use nat_traversal::path::{AllocationId, RelayName};

    use super::super::attempts::{AWAY_AFTER, FIRST_REDIAL, STRAY_EVERY};
    use super::*;

    fn peer(now: Instant) -> Peer {
        let agent = PathAgent::new(now, CandidateFilter::default(), true);
        Peer::new(now, PeerId([1; 32]), agent, 7)
    }

    #[test]
    fn who_is_sought_in_vain_is_away_until_it_gives_a_sign() {
        let now = Instant::now();
        let mut peer = peer(now);
        assert!(!peer.is_away(now + AWAY_AFTER), "nobody has sought it");
        assert!(peer.attempts.may_greet(now) && peer.attempts.may_dial(now));
        assert!(!peer.is_away(now + AWAY_AFTER / 2));
        let late = now + AWAY_AFTER;
        assert!(peer.attempts.may_dial(late) && peer.is_away(late));
        // Its own word, newer than what was known.
        peer.set_candidates(late, ListSource::Card(1), Vec::new());
        assert!(!peer.is_away(late));
        assert!(peer.attempts.may_dial(late) && peer.is_away(late + AWAY_AFTER));
        peer.reached(late + AWAY_AFTER, 8);
        assert!(!peer.is_away(late + AWAY_AFTER * 9));
    }

    #[test]
    fn a_stray_has_an_effect_once_a_second_whatever_else_happens() {
        let now = Instant::now();
        let mut peer = peer(now);
        assert!(peer.attempts.may_answer_stray(now));
        peer.set_candidates(now, ListSource::Card(1), Vec::new());
        peer.try_again();
        let soon = now + Duration::from_millis(999);
        assert!(!peer.attempts.may_answer_stray(soon));
        assert!(peer.attempts.may_answer_stray(now + STRAY_EVERY));
    }

    /// Invites may name several addresses of one bootstrap, or the same ones in another order.
    #[test]
    fn a_relay_is_known_by_its_node_whatever_address_each_side_uses() {
        let now = Instant::now();
        let mut peer = peer(now);
        let [theirs, ours, other]: [SocketAddr; 3] =
            ["192.0.2.11:5", "192.0.2.12:5", "192.0.2.13:5"].map(|at| at.parse().unwrap());
        let (near, far) = (RelayName([2; 32]), RelayName([3; 32]));
        let at = |addr, relay, id| Candidate {
            kind: CandidateKind::Relayed,
            addr,
            allocation: Some(AllocationId(id)),
            relay: Some(relay),
        };
        let spot = |relay, ours, id| RelaySpot {
            relay,
            ours,
            own: AllocationId(id),
        };
        peer.set_candidates(
            now,
            ListSource::Card(1),
            vec![at(other, far, 7), at(theirs, near, 8)],
        );
        assert_eq!(
            peer.relay_path(&[spot(RelayName([4; 32]), theirs, 1)]),
            None
        );
        let route = RelayRoute {
            own: AllocationId(2),
            peer: AllocationId(8),
        };
        let spots = [spot(RelayName([4; 32]), theirs, 1), spot(near, ours, 2)];
        assert_eq!(peer.relay_path(&spots), Some(Path::relayed(ours, route)));
    }

    /// Where a twin of this node takes the session away again and again, each handshake succeeds.
    #[test]
    fn handshakes_that_are_answered_do_not_make_the_next_one_rarer() {
        let mut now = Instant::now();
        let mut peer = peer(now);
        for round in 0..10 {
            assert!(peer.attempts.may_dial(now), "{round}");
            peer.rekeyed(round);
            assert!(!peer.attempts.may_dial(now + FIRST_REDIAL / 2));
            now += FIRST_REDIAL;
        }
    }

    #[test]
    fn the_session_tells_what_holds_and_no_old_card_wins_over_it() {
        use ListSource::{Card, Session};
        let now = Instant::now();
        let mut peer = peer(now);
        let list = |port: u16| {
            vec![Candidate {
                kind: CandidateKind::Reflexive,
                addr: SocketAddr::from(([192, 0, 2, 1], port)),
                allocation: None,
                relay: None,
            }]
        };
        // In a run with a clock that was ahead; kept on disk, too.
        assert!(peer.set_candidates(now, Card(7_200_000), list(1)));
        // The next run counts from less: cards are told apart by nothing else.
        assert!(!peer.set_candidates(now, Card(3), list(2)));
        peer.reached(now, 8);
        assert!(peer.set_candidates(now, Session(3), list(2)));
        assert!(!peer.set_candidates(now, Session(2), list(9)));
        // Whoever shows the old card again, or one from between, changes nothing.
        assert!(!peer.set_candidates(now, Card(7_200_000), list(1)));
        assert!(!peer.set_candidates(now, Card(4), list(1)));
        assert!(peer.set_candidates(now, Session(4), list(3)));
        assert_eq!(peer.candidates, list(3));
        // Above all that was seen it counts.
        assert!(peer.set_candidates(now, Card(7_200_001), list(4)));
        // A run that was restored with its disk.
        peer.reached(now, 8);
        assert!(peer.set_candidates(now, Session(7_200_002), list(5)));
        assert_eq!(peer.candidates, list(5));
    }

    #[test]
    fn a_stray_counts_only_from_where_the_peer_was_proven_last() {
        let now = Instant::now();
        let mut peer = peer(now);
        let filter = CandidateFilter::default();
        let [old, new] = ["192.0.2.1:5", "192.0.2.1:6"].map(|at| Path::direct(at.parse().unwrap()));
        assert!(!peer.was_met_on(&old, &filter));
        assert!(peer.choose(old));
        assert!(peer.was_met_on(&old, &filter));
        assert!(!peer.was_met_on(&new, &filter));
        assert!(peer.choose(new));
        assert!(!peer.was_met_on(&old, &filter));
        let route = RelayRoute {
            own: nat_traversal::path::AllocationId(1),
            peer: nat_traversal::path::AllocationId(2),
        };
        let relayed = Path::relayed(new.remote, route);
        assert!(!peer.was_met_on(&relayed, &filter));
    }
}
