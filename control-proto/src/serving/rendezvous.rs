//! The cards that members of a network leave for each other, under a name that says nothing here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;

use crate::messages::{MAX_CARDS, MAX_MESSAGE};

/// Cards in all: at 4 KiB each never more than 32 MiB.
pub const MAX_CARDS_HELD: usize = 8192;

/// A card lapses after this long without being left again.
pub const CARD_LIFETIME: Duration = Duration::from_secs(600);

/// Rendezvous of one member: it is in at most 64 networks, each may have two epochs.
const MAX_PER_PEER: usize = 128;

/// Cards for somebody whose own has been here: it has met the others. Whoever is new gets all that fit, since
/// what it is not shown it has to hear of in three more round trips.
const SHOWN_AGAIN: usize = 20;

/// Room for the cards in one answer; the rest is names and lengths.
const ANSWER_ROOM: usize = MAX_MESSAGE - 4096;

struct Card {
    peer: PeerId,
    bytes: Vec<u8>,
    left: Instant,
}

/// At most [`MAX_CARDS`] under each rendezvous, newest first; the oldest makes room.
/// [`Self::sweep`] removes what lapsed.
#[derive(Default)]
pub(super) struct Rendezvous {
    places: BTreeMap<[u8; 32], Vec<Card>>,
}

impl Rendezvous {
    /// Keeps `peer`'s card and returns the others'. `None` when there is no room for it.
    pub(super) fn register(
        &mut self,
        place: [u8; 32],
        peer: PeerId,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Option<Vec<(PeerId, Vec<u8>)>> {
        if !self.has_room(place, peer) {
            self.sweep(now);
            if !self.has_room(place, peer) {
                return None;
            }
        }
        let cards = self.places.entry(place).or_default();
        cards.retain(|card| now - card.left < CARD_LIFETIME);
        let with_own = cards.len();
        cards.retain(|card| card.peer != peer);
        let is_known = cards.len() < with_own;
        let shown = if is_known { SHOWN_AGAIN } else { MAX_CARDS };
        let mut room = ANSWER_ROOM;
        let others = cards
            .iter()
            .take(shown)
            .take_while(|card| {
                let fits = card.bytes.len() <= room;
                room = room.saturating_sub(card.bytes.len());
                fits
            })
            .map(|card| (card.peer, card.bytes.clone()))
            .collect();
        cards.truncate(MAX_CARDS - 1);
        let left = now;
        cards.insert(0, Card { peer, bytes, left });
        Some(others)
    }

    /// Removes what lapsed.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.places.retain(|_, cards| {
            cards.retain(|card| now - card.left < CARD_LIFETIME);
            !cards.is_empty()
        });
    }

    /// Removes the cards of everybody whom `gone` names.
    pub(super) fn remove(&mut self, gone: impl Fn(&PeerId) -> bool) {
        self.places.retain(|_, cards| {
            cards.retain(|card| !gone(&card.peer));
            !cards.is_empty()
        });
    }

    fn has_room(&self, place: [u8; 32], peer: PeerId) -> bool {
        let is_own = |card: &Card| card.peer == peer;
        if self
            .places
            .get(&place)
            .is_some_and(|cards| cards.iter().any(is_own))
        {
            return true;
        }
        let (mut all, mut own) = (0, 0);
        for cards in self.places.values() {
            all += cards.len();
            own += usize::from(cards.iter().any(is_own));
        }
        all < MAX_CARDS_HELD && own < MAX_PER_PEER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: [u8; 32] = [9; 32];

    fn peer(n: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        PeerId(bytes)
    }

    #[test]
    fn members_learn_of_each_other_newest_first() {
        let (mut all, now) = (Rendezvous::default(), crate::some_instant());
        assert_eq!(all.register(PLACE, peer(1), vec![1], now), Some(vec![]));
        assert_eq!(
            all.register(PLACE, peer(2), vec![2], now),
            Some(vec![(peer(1), vec![1])])
        );
        assert_eq!(
            all.register(PLACE, peer(3), vec![3], now),
            Some(vec![(peer(2), vec![2]), (peer(1), vec![1])])
        );
        assert_eq!(all.register([8; 32], peer(4), vec![4], now), Some(vec![]));
        let later = now + CARD_LIFETIME;
        assert_eq!(all.register(PLACE, peer(1), vec![5], later), Some(vec![]));
    }

    #[test]
    fn who_is_new_is_shown_all_that_fit_and_who_was_here_the_newest() {
        let (mut all, now) = (Rendezvous::default(), crate::some_instant());
        for n in 0..50 {
            let others = all.register(PLACE, peer(n), vec![0; 1024], now).unwrap();
            assert_eq!(others.len(), n);
        }
        let again = all.register(PLACE, peer(7), vec![1], now).unwrap();
        assert_eq!((again.len(), again[0].0), (SHOWN_AGAIN, peer(49)));
        // Its card has lapsed, so it may have been away for long.
        let later = now + CARD_LIFETIME;
        for n in 0..30 {
            all.register(PLACE, peer(100 + n), vec![], later).unwrap();
        }
        assert_eq!(
            all.register(PLACE, peer(7), vec![1], later).unwrap().len(),
            30
        );
    }

    #[test]
    fn trust_8_the_cards_of_a_revoked_node_go() {
        let (mut all, now) = (Rendezvous::default(), crate::some_instant());
        for n in 1..3 {
            all.register(PLACE, peer(n), vec![1], now).unwrap();
        }
        all.register([8; 32], peer(1), vec![1], now).unwrap();
        all.remove(|gone| *gone == peer(1));
        assert_eq!(
            all.register(PLACE, peer(3), vec![], now),
            Some(vec![(peer(2), vec![1])])
        );
        assert!(!all.places.contains_key(&[8; 32]));
    }

    #[test]
    fn bounds() {
        let (mut all, now) = (Rendezvous::default(), crate::some_instant());
        for n in 0..2 * MAX_CARDS {
            let others = all.register(PLACE, peer(n), vec![0; 4096], now).unwrap();
            let bytes: usize = others.iter().map(|(_, card)| card.len()).sum();
            assert!(others.len() <= MAX_CARDS && bytes <= ANSWER_ROOM);
        }
        assert_eq!(all.places[&PLACE].len(), MAX_CARDS);
        for n in 0..MAX_PER_PEER {
            assert!(all.register(peer(n).0, peer(999), vec![], now).is_some());
        }
        assert!(all.register([7; 32], peer(999), vec![], now).is_none());
        let later = now + CARD_LIFETIME;
        assert!(all.register([7; 32], peer(999), vec![], later).is_some());
        assert_eq!(all.places.len(), 1);
    }
}
