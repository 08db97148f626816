//! Which nodes may claim, and what waits until that is known.
//!
//! A claim says who signed it, not that the signer is a member. Its chain is known from a session, a
//! card or a neighbour; until the driver has verified it, the claim waits here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::directory::claim::VerifiedClaim;
use crate::directory::roster::{MAX_MEMBERS, SignedRosterEntry};
use crate::ids::PeerId;

/// Claims and roster entries that wait for a chain.
const MAX_WAITING: usize = 256;
/// Those of one node among them.
const MAX_WAITING_PER_NODE: usize = 16;
/// How long they wait. They come again by anti-entropy.
const WAIT: Duration = Duration::from_secs(10);
/// A chain is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What waits for its signer's chain.
#[derive(Debug, Clone)]
pub(super) enum Waiting {
    Claim(Box<VerifiedClaim>),
    Entry(SignedRosterEntry),
}

impl Waiting {
    fn signer(&self) -> PeerId {
        match self {
            Self::Claim(claim) => claim.signer(),
            Self::Entry(entry) => entry.signer(),
        }
    }
}

/// What is known of a node's certificate.
#[derive(Debug, Clone)]
struct Known {
    may_send: bool,
    member: bool,
    chain: Vec<u8>,
}

/// Bounds: [`MAX_MEMBERS`] nodes, those that are no members make room; 256 waiting, the oldest
/// out, removed after ten seconds.
#[derive(Debug, Default)]
pub(super) struct Standing {
    known: BTreeMap<PeerId, Known>,
    waiting: VecDeque<(Instant, Waiting)>,
    asked: BTreeMap<PeerId, Instant>,
}

impl Standing {
    /// The driver's word on a node. What waited for it is returned.
    pub(super) fn set(&mut self, node: PeerId, may_send: bool, chain: &[u8]) -> Vec<Waiting> {
        let known = Known {
            may_send,
            member: true,
            chain: chain.to_vec(),
        };
        self.put(node, known);
        self.asked.remove(&node);
        let (freed, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, waiting)| waiting.signer() == node);
        self.waiting = kept;
        let freed: VecDeque<(Instant, Waiting)> = freed;
        freed.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// A node that is no member any more.
    pub(super) fn revoke(&mut self, node: PeerId) {
        let gone = Known {
            may_send: false,
            member: false,
            chain: Vec::new(),
        };
        self.put(node, gone);
        self.waiting.retain(|(_, waiting)| waiting.signer() != node);
    }

    /// A node whose certificate counts no more; another one may.
    pub(super) fn forget(&mut self, node: &PeerId) {
        self.known.remove(node);
    }

    /// May it claim? `None` if its chain is not known.
    pub(super) fn may_send(&self, node: &PeerId) -> Option<bool> {
        self.known.get(node).map(|known| known.may_send)
    }

    /// Is it a member? `None` if its chain is not known.
    pub(super) fn is_member(&self, node: &PeerId) -> Option<bool> {
        self.known.get(node).map(|known| known.member)
    }

    /// Its chain, if it is a member.
    pub(super) fn chain(&self, node: &PeerId) -> Option<&[u8]> {
        self.known
            .get(node)
            .filter(|known| known.member && !known.chain.is_empty())
            .map(|known| known.chain.as_slice())
    }

    /// All chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = (PeerId, &[u8])> {
        self.known
            .keys()
            .filter_map(|node| self.chain(node).map(|chain| (*node, chain)))
    }

    /// Lets `waiting` wait; `true` if the chain should be asked for now.
    pub(super) fn wait(&mut self, now: Instant, waiting: Waiting) -> bool {
        let node = waiting.signer();
        self.waiting
            .retain(|(since, _)| now.saturating_duration_since(*since) < WAIT);
        let same = |(_, other): &&(Instant, Waiting)| other.signer() == node;
        if self.waiting.iter().filter(same).count() < MAX_WAITING_PER_NODE {
            if self.waiting.len() >= MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back((now, waiting));
        }
        self.ask(now, node)
    }

    /// Should the chain of `node` be asked for now? Notes that it is.
    pub(super) fn ask(&mut self, now: Instant, node: PeerId) -> bool {
        self.asked
            .retain(|_, at| now.saturating_duration_since(*at) < ASK_AGAIN);
        if self.asked.len() >= MAX_WAITING || self.asked.contains_key(&node) {
            return false;
        }
        self.asked.insert(node, now);
        true
    }

    /// Does something wait for this node's chain, or was it asked for a moment ago?
    pub(super) fn is_wanted(&self, node: &PeerId) -> bool {
        let waits = |(_, waiting): &(Instant, Waiting)| waiting.signer() == *node;
        self.asked.contains_key(node) || self.waiting.iter().any(waits)
    }

    fn put(&mut self, node: PeerId, known: Known) {
        if self.known.len() >= MAX_MEMBERS && !self.known.contains_key(&node) {
            let stranger = self
                .known
                .iter()
                .find(|(_, known)| !known.member)
                .map(|(stranger, _)| *stranger);
            match stranger {
                Some(stranger) => self.known.remove(&stranger),
                None => return,
            };
        }
        self.known.insert(node, known);
    }
}
