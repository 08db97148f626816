//! The cards that members leave for each other at a bootstrap, as `control-plane/src/infra/rendezvous.rs` keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_proto::ids::PeerId;

/// What is kept of a name, and shown: to whoever lays a card down for the first time what fits into an answer, to
/// others the newest ones (ADR 39).
const CARDS: usize = 64;
const ANSWER_BYTES: usize = 64 * 1024 - 4096;
const NEWEST: usize = 20;

/// A card lapses after this long.
const LIFETIME: Duration = Duration::from_secs(600);

/// The name of a place: which network it is only members know.
type Place = [u8; 32];

#[derive(Debug)]
struct Card {
    peer: PeerId,
    bytes: Vec<u8>,
    left: Duration,
}

/// Bound: [`CARDS`] for each of the networks and their epochs.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    /// Newest first.
    places: BTreeMap<Place, Vec<Card>>,
    /// The first card of each, and whether a bootstrap that does harm shows these in place of the newest.
    first: BTreeMap<(Place, PeerId), Vec<u8>>,
    shows_first: bool,
}

impl Rendezvous {
    /// Keeps the card of `peer` and shows those of others.
    pub(super) fn lay_down(
        &mut self,
        now: Duration,
        place: Place,
        peer: PeerId,
        card: Vec<u8>,
    ) -> Vec<(PeerId, Vec<u8>)> {
        let first = self.first.entry((place, peer));
        first.or_insert_with(|| card.clone());
        let cards = self.places.entry(place).or_default();
        cards.retain(|card| now.saturating_sub(card.left) < LIFETIME);
        let before = cards.len();
        cards.retain(|card| card.peer != peer);
        let most = if before == cards.len() { CARDS } else { NEWEST };
        let mut room = ANSWER_BYTES;
        let fits = |card: &&Card| {
            let fits = card.bytes.len() <= room;
            room = room.saturating_sub(card.bytes.len());
            fits
        };
        let shown = cards.iter().take(most).take_while(fits);
        let first = |card: &Card| {
            self.first
                .get(&(place, card.peer))
                .filter(|_| self.shows_first)
        };
        let bytes = |card: &Card| first(card).unwrap_or(&card.bytes).clone();
        let shown = shown.map(|card| (card.peer, bytes(card))).collect();
        cards.truncate(CARDS - 1);
        let own = Card {
            peer,
            bytes: card,
            left: now,
        };
        cards.insert(0, own);
        shown
    }

    /// From now on everybody is shown the first card of each, which is old.
    pub(super) const fn show_first(&mut self) {
        self.shows_first = true;
    }

    /// The cards of everybody whom `gone` names are removed.
    pub(super) fn remove(&mut self, gone: impl Fn(&PeerId) -> bool) {
        for cards in self.places.values_mut() {
            cards.retain(|card| !gone(&card.peer));
        }
    }
}
