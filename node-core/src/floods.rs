//! Broadcasts of the last moments that did not reach everybody at once, and who has had each.
//!
//! Each member gets a frame at most once, whoever sends it: the fast path, which says whom it has sent to; the slow path, as
//! soon as there is a session. So a frame is kept once, with the names of those that have had it: those that wait for it are all others,
//! also those that become known only later. A frame may be lost on its way, but is never sent twice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;

/// Frames that are kept. A guest that starts says some twenty things to all within a second (ARP, DHCP, router and neighbour
/// discovery, MLD); of ten such guests the last three or more are kept.
pub const MAX_FLOODS: usize = 64;

/// How long a frame may wait: a handshake over a relay with two lost datagrams.
pub const FLOOD_TIME: Duration = Duration::from_secs(3);

/// One broadcast.
#[derive(Debug)]
pub struct Flood {
    since: Instant,
    /// The frame.
    pub frame: Vec<u8>,
    /// Whom the fast path has sent it to, in order; shared with the `Fib` by which it did.
    by_fast_path: Arc<[PeerId]>,
    by_slow_path: BTreeSet<PeerId>,
    /// Known members that it could not be sent to. It is lost for those left in here.
    missed: BTreeSet<PeerId>,
}

impl Flood {
    /// A frame that was sent to `had`, who are in order.
    #[must_use]
    pub const fn new(now: Instant, frame: Vec<u8>, had: Arc<[PeerId]>) -> Self {
        Self {
            since: now,
            frame,
            by_fast_path: had,
            by_slow_path: BTreeSet::new(),
            missed: BTreeSet::new(),
        }
    }

    /// Has it been sent to `peer`?
    #[must_use]
    pub fn was_had_by(&self, peer: &PeerId) -> bool {
        self.by_slow_path.contains(peer) || self.by_fast_path.binary_search(peer).is_ok()
    }

    /// It was sent to `peer`.
    pub fn note_had(&mut self, peer: PeerId) {
        self.missed.remove(&peer);
        self.by_slow_path.insert(peer);
    }

    /// It could not be sent to `peer` yet.
    pub fn note_missed(&mut self, peer: PeerId) {
        self.missed.insert(peer);
    }

    /// It was tried to send it to `peer`. `true`: it waits for a session, which is to be sought. One that is `away` is not waited for.
    pub fn note_tried(&mut self, peer: PeerId, sent: bool, away: bool) -> bool {
        if sent {
            self.note_had(peer);
        } else if !away {
            self.note_missed(peer);
        }
        !sent && !away
    }

    fn lost(&self) -> u64 {
        self.missed.len().try_into().unwrap_or(u64::MAX)
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= FLOOD_TIME
    }
}

/// The broadcasts of one network. Bound: [`MAX_FLOODS`] frames, 600 KB at 9,000 bytes each, and with each at most the names of
/// all members: in a network of a hundred 250 KB, in one of 4,096 10 MB.
#[derive(Debug, Default)]
pub struct Floods(VecDeque<Flood>);

impl Floods {
    /// Keeps `flood`. Returns how many members lose an older one that has to make room.
    pub fn push(&mut self, flood: Flood) -> u64 {
        let full = self.0.len() >= MAX_FLOODS;
        let oldest = full.then(|| self.0.pop_front()).flatten();
        self.0.push_back(flood);
        oldest.map_or(0, |oldest| oldest.lost())
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is none kept?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `send` what `peer` has not had, oldest first, until one is not sent (`false`). What waited too long is not given.
    pub fn offer(&mut self, now: Instant, peer: PeerId, mut send: impl FnMut(&[u8]) -> bool) {
        for flood in &mut self.0 {
            if flood.is_over(now) || flood.was_had_by(&peer) {
                continue;
            }
            if !send(&flood.frame) {
                return;
            }
            flood.note_had(peer);
        }
    }

    /// Removes what waited too long. Returns how many members have lost a frame by that. Not urgent: a second later will do.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while let Some(flood) = self.0.front().filter(|flood| flood.is_over(now)) {
            lost += flood.lost();
            self.0.pop_front();
        }
        lost
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn flood(now: Instant, number: u8, had: &[u8]) -> Flood {
        Flood::new(now, vec![number], had.iter().map(|n| peer(*n)).collect())
    }

    fn offered(floods: &mut Floods, now: Instant, to: u8) -> Vec<u8> {
        let mut got: Vec<u8> = Vec::new();
        floods.offer(now, peer(to), |frame| {
            got.extend(frame);
            true
        });
        got
    }

    #[test]
    fn each_member_gets_a_frame_once_whoever_sent_it() {
        let (now, mut floods) = (Instant::now(), Floods::default());
        floods.push(flood(now, 1, &[2, 4]));
        let mut second = flood(now, 2, &[]);
        second.note_missed(peer(4));
        second.note_had(peer(3));
        floods.push(second);
        assert_eq!(offered(&mut floods, now, 2), [2]);
        assert_eq!(offered(&mut floods, now, 3), [1]);
        assert_eq!(offered(&mut floods, now, 4), [2]);
        // One that was not known.
        assert_eq!(offered(&mut floods, now, 5), [1, 2]);
        for to in 2..=5 {
            assert!(offered(&mut floods, now, to).is_empty());
        }
        assert_eq!(floods.expire(now + FLOOD_TIME), 0);
    }

    #[test]
    fn what_could_not_be_sent_is_offered_again_in_order() {
        let (now, mut floods) = (Instant::now(), Floods::default());
        for number in 1..=3 {
            floods.push(flood(now, number, &[]));
        }
        let mut tries: Vec<u8> = Vec::new();
        floods.offer(now, peer(1), |frame| {
            tries.extend(frame);
            frame != [2]
        });
        assert_eq!(tries, [1, 2]);
        assert_eq!(offered(&mut floods, now, 1), [2, 3]);
    }

    #[test]
    fn what_waited_too_long_is_lost_for_those_that_missed_it() {
        let (now, mut floods) = (Instant::now(), Floods::default());
        let mut first = flood(now, 1, &[1]);
        first.note_missed(peer(2));
        first.note_missed(peer(3));
        first.note_had(peer(3));
        floods.push(first);
        let later = now + FLOOD_TIME / 2;
        floods.push(flood(later, 2, &[]));
        assert_eq!(floods.expire(later), 0);
        let end = now + FLOOD_TIME;
        assert_eq!(offered(&mut floods, end, 2), [2]);
        assert_eq!(floods.expire(end), 1);
        assert_eq!(floods.expire(end + FLOOD_TIME), 0);
        assert!(floods.0.is_empty());
    }

    #[test]
    fn whoever_is_away_is_neither_sought_nor_has_it_lost_a_frame() {
        let (now, mut floods) = (Instant::now(), Floods::default());
        let mut one = flood(now, 1, &[]);
        assert!(!one.note_tried(peer(1), true, false));
        assert!(one.note_tried(peer(2), false, false));
        assert!(!one.note_tried(peer(3), false, true));
        floods.push(one);
        assert!(offered(&mut floods, now, 1).is_empty());
        // It is back in time.
        assert_eq!(offered(&mut floods, now, 3), [1]);
        assert_eq!(floods.expire(now + FLOOD_TIME), 1);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (now, mut floods) = (Instant::now(), Floods::default());
        for number in 0..=u8::try_from(MAX_FLOODS).unwrap() {
            let mut one = flood(now, number, &[]);
            one.note_missed(peer(9));
            let full = usize::from(number) == MAX_FLOODS;
            assert_eq!(floods.push(one), u64::from(full));
        }
        let got = offered(&mut floods, now, 9);
        assert_eq!((got.len(), got[0]), (MAX_FLOODS, 1));
    }
}
