//! How a bootstrap does harm. Its server is as it should be; this is what it says in the place of that.

use std::collections::{BTreeMap, VecDeque};

use control_proto::messages::{Request, Response};
use overlay_proto::ids::PeerId;

/// Envelopes that a bootstrap keeps to show them again.
const MAX_HEARD: usize = 64;

/// How a bootstrap is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    #[default]
    Well,
    /// It does what it is asked, and its answers get lost.
    Mute,
    /// Its disk does not take the use of an invite.
    FullDisk,
}

/// How the DHT at a bootstrap is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreMood {
    /// It has what was put last.
    #[default]
    Keeps,
    /// It takes everything and has nothing.
    Forgets,
    /// It has what was put first, for ever.
    Stale,
}

/// The name of a rendezvous.
type Place = [u8; 32];

/// What a bootstrap that does harm remembers to that end, and does with it.
#[derive(Debug, Default)]
pub(super) struct Lies {
    pub(super) mood: Mood,
    pub(super) store: StoreMood,
    /// It shows the first card of each in place of the newest.
    pub(super) shows_first: bool,
    /// Bound: the members, once for each epoch of their networks.
    cards: BTreeMap<(Place, PeerId), Vec<u8>>,
    /// Bound: the MACs of the world, once for each epoch of their networks.
    records: BTreeMap<[u8; 32], Vec<u8>>,
    /// From whom to whom envelopes went. Bound: [`MAX_HEARD`], the oldest out.
    heard: VecDeque<(PeerId, PeerId, Vec<u8>)>,
}

impl Lies {
    /// The first of each is remembered.
    pub(super) fn listen(&mut self, from: PeerId, request: &Request) {
        match request {
            Request::Register { rendezvous, card } => {
                let first = self.cards.entry((*rendezvous, from));
                first.or_insert_with(|| card.clone());
            }
            Request::PutRecord { key, value } => {
                let first = self.records.entry(*key);
                first.or_insert_with(|| value.clone());
            }
            _ => {}
        }
    }

    /// An envelope went from somebody to somebody.
    pub(super) fn overhear(&mut self, from: PeerId, to: PeerId, envelope: Vec<u8>) {
        if self.heard.len() >= MAX_HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((from, to, envelope));
    }

    /// What it has overheard, oldest first.
    pub(super) fn heard(&self) -> impl Iterator<Item = &(PeerId, PeerId, Vec<u8>)> {
        self.heard.iter()
    }

    /// What it says where its server has said `answer` to `request`.
    pub(super) fn twist(&self, request: &Request, answer: Response) -> Response {
        match (request, answer) {
            (Request::Register { rendezvous, .. }, Response::Cards(cards)) if self.shows_first => {
                let first = |peer| self.cards.get(&(*rendezvous, peer));
                let shown = cards.into_iter();
                let shown = shown.map(|(peer, card)| (peer, first(peer).cloned().unwrap_or(card)));
                Response::Cards(shown.collect())
            }
            (Request::GetRecord { key }, Response::Record(held)) => {
                Response::Record(match self.store {
                    StoreMood::Keeps => held,
                    StoreMood::Forgets => None,
                    StoreMood::Stale => self.records.get(key).cloned().or(held),
                })
            }
            (_, answer) => answer,
        }
    }
}
