//! One peer: how it can be reached, and what is on its way to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::reasons::Greeted;
use crate::underlay::RelaySpot;
use nat_traversal::agent::PathAgent;
use nat_traversal::candidate::Candidate;
use nat_traversal::path::Path;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::switching::PeerCounters;
use overlay_proto::wire::{ReliableChannel, SAFE_DATAGRAM};

use super::attempts::Attempts;
use super::memory::Remembered;
use super::whereabouts::{ListSource, Whereabouts};
use crate::peer_name::PeerName;

/// Frame counts at the last look, to see whether traffic flows.
#[derive(Debug, Default)]
struct Seen {
    tx_frames: u64,
    rx_frames: u64,
}

/// What was heard of a peer.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Where its sealed datagrams last came from.
    pub(crate) on: Option<Path>,
    /// When a sealed packet of it was last opened.
    pub(crate) at: Option<Instant>,
    /// Was there a session that could be used, since it is known?
    pub(crate) in_session: bool,
    seen: Seen,
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
    /// Where it can be reached.
    pub(crate) whereabouts: Whereabouts,
    /// From candidates to the chosen path.
    pub(crate) agent: PathAgent,
    /// Reliable messages in the session.
    pub(crate) channel: ReliableChannel,
    /// Traffic.
    pub(crate) counters: Arc<PeerCounters>,
    /// The sequence of our own candidates that it has been told in the session.
    pub(crate) told_sequence: u64,
    /// What was heard of it.
    pub(crate) heard: Heard,
    /// The networks of the session, as the directories know them.
    pub(crate) shared: Vec<NetworkId>,
    /// When it became known.
    pub(crate) since: Instant,
    /// The path chosen last.
    pub(crate) last_path: Option<Path>,
    /// What became of the last greeting.
    pub(crate) greeted: Option<Greeted>,
    pub(crate) attempts: Attempts,
}

impl Peer {
    /// A peer of whom only the name is known. `channel_id` is random.
    pub(crate) fn new(now: Instant, id: PeerId, agent: PathAgent, channel_id: u32) -> Self {
        Self {
            id,
            static_key: None,
            name: PeerName::default(),
            whereabouts: Whereabouts::default(),
            agent,
            channel: ReliableChannel::new(channel_id),
            counters: Arc::default(),
            told_sequence: 0,
            heard: Heard::default(),
            shared: Vec::new(),
            since: now,
            last_path: None,
            greeted: None,
            attempts: Attempts::default(),
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
        let Some(number) = self.whereabouts.take(source, &candidates) else {
            return false;
        };
        let refused = self.agent.set_remote_candidates(now, &candidates, number);
        tracing::debug!(peer = %self.id, ?source, ?candidates, refused, "candidates");
        // What failed before may work with the new addresses.
        self.try_again();
        true
    }

    /// Tells the agent about the relay that both sides are at. `true`: there is one, and it is
    /// another than before, so a handshake may get through where none did.
    pub(crate) fn offer_relay(&mut self, now: Instant, routes: &[RelaySpot]) -> bool {
        let (path, new) = self.whereabouts.offer_relay(routes);
        self.agent.set_relay(now, path);
        if new {
            self.try_again();
        }
        new
    }

    /// A path was chosen. `true`: a direct one from where it was not met before.
    pub(crate) fn choose(&mut self, path: Path) -> bool {
        self.last_path = Some(path);
        self.attempts.note_found();
        self.whereabouts.note_met(&path)
    }

    /// What to keep on disk; `None` before its key is known.
    pub(crate) fn remember(&self) -> Option<Remembered> {
        Some(Remembered {
            id: self.id,
            static_key: self.static_key?,
            name: self.name.signed.clone(),
            said: self.name.said.clone(),
            sequence: self.whereabouts.number(),
            candidates: self.whereabouts.candidates.clone(),
            met_at: self.whereabouts.met_at,
        })
    }

    /// It was known before a restart.
    pub(crate) fn recall(&mut self, now: Instant, kept: Remembered) {
        self.static_key = Some(kept.static_key);
        self.name.signed = kept.name;
        if let Some(said) = kept.said {
            self.name.say(&said);
        }
        self.whereabouts.met_at = kept.met_at;
        self.set_candidates(now, ListSource::Card(kept.sequence), kept.candidates);
    }

    /// Has it given no sign since it was sought? Whoever is reached is not sought.
    pub(crate) fn is_away(&self, now: Instant) -> bool {
        self.attempts.is_away(now)
    }

    /// What failed before may work now.
    pub(crate) fn try_again(&mut self) {
        self.attempts.renew();
    }

    /// A first session is there: the next time is the first time again, and what was agreed in an
    /// earlier session is void. `channel_id` is random.
    pub(crate) fn reached(&mut self, channel_id: u32) {
        self.channel.renew(channel_id);
        self.heard.in_session = true;
        self.told_sequence = 0;
        self.whereabouts.begin_session();
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
        if tx_frames != self.heard.seen.tx_frames {
            self.agent.handle_sent(now);
        }
        if rx_frames != self.heard.seen.rx_frames {
            self.heard.at = Some(now);
            if let Some(path) = self.heard.on {
                self.agent.handle_traffic(now, path);
            }
        }
        let talked =
            tx_frames != self.heard.seen.tx_frames || rx_frames != self.heard.seen.rx_frames;
        self.heard.seen = Seen {
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
    use std::net::SocketAddr;
    use std::time::Duration;

    use nat_traversal::candidate::{CandidateFilter, CandidateKind};
    use nat_traversal::path::{AllocationId, RelayName, RelayRoute};

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
        peer.reached(8);
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
            peer.whereabouts
                .relay_path(&[spot(RelayName([4; 32]), theirs, 1)]),
            None
        );
        let route = RelayRoute {
            own: AllocationId(2),
            peer: AllocationId(8),
        };
        let spots = [spot(RelayName([4; 32]), theirs, 1), spot(near, ours, 2)];
        assert_eq!(
            peer.whereabouts.relay_path(&spots),
            Some(Path::relayed(ours, route))
        );
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
        peer.reached(8);
        assert!(peer.set_candidates(now, Session(3), list(2)));
        assert!(!peer.set_candidates(now, Session(2), list(9)));
        // Whoever shows the old card again, or one from between, changes nothing.
        assert!(!peer.set_candidates(now, Card(7_200_000), list(1)));
        assert!(!peer.set_candidates(now, Card(4), list(1)));
        assert!(peer.set_candidates(now, Session(4), list(3)));
        assert_eq!(peer.whereabouts.candidates, list(3));
        // Above all that was seen it counts.
        assert!(peer.set_candidates(now, Card(7_200_001), list(4)));
        // A run that was restored with its disk.
        peer.reached(8);
        assert!(peer.set_candidates(now, Session(7_200_002), list(5)));
        assert_eq!(peer.whereabouts.candidates, list(5));
    }

    #[test]
    fn a_stray_counts_only_from_where_the_peer_was_proven_last() {
        let now = Instant::now();
        let mut peer = peer(now);
        let filter = CandidateFilter::default();
        let [old, new] = ["192.0.2.1:5", "192.0.2.1:6"].map(|at| Path::direct(at.parse().unwrap()));
        assert!(!peer.whereabouts.was_met_on(&old, &filter));
        assert!(peer.choose(old));
        assert!(peer.whereabouts.was_met_on(&old, &filter));
        assert!(!peer.whereabouts.was_met_on(&new, &filter));
        assert!(peer.choose(new));
        assert!(!peer.whereabouts.was_met_on(&old, &filter));
        let route = RelayRoute {
            own: nat_traversal::path::AllocationId(1),
            peer: nat_traversal::path::AllocationId(2),
        };
        let relayed = Path::relayed(new.remote, route);
        assert!(!peer.whereabouts.was_met_on(&relayed, &filter));
    }
}
