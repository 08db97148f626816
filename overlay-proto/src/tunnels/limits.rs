//! What strangers and members can make a node keep, and how much of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nat_traversal::entropy::Entropy;
use nat_traversal::path::{AllocationId, Path};

use crate::drop_reason::DropReason;
use crate::ids::PeerId;
use crate::session::DEAD_AFTER;
use crate::wire::SessionIndex;

/// Half-open handshakes in all, for either role.
pub const MAX_HALF_OPEN: usize = 256;
/// Half-open handshakes that one source prefix may cause: a /24 of IPv4, a /56 of IPv6. Only members get so
/// far, each with one: a site of a hundred that greets a newcomer at once has to fit, and no site has all.
pub const MAX_HALF_OPEN_PER_SOURCE: usize = 64;
/// Sessions and handshakes in all: 128 MiB of keys and windows at 31 KiB each.
pub const MAX_SESSIONS: usize = 4096;

/// How long an index stays unused: three lives of a key (TRUST.md 13).
const INDEX_REST: Duration = Duration::from_secs(3 * DEAD_AFTER.as_secs());
/// Resting indices; above it the one that rested longest is free early. 64 bytes each.
const MAX_RESTING: usize = 16 * 1024;
/// Peers whose last timestamp is remembered; above it the one heard longest ago is forgotten.
const MAX_TIMESTAMPS: usize = 16 * 1024;

/// Where a handshake comes from, coarsely enough that one customer has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A /24 of IPv4.
    V4([u8; 3]),
    /// A /56 of IPv6.
    V6([u8; 7]),
    /// The peer's allocation: behind a relay the address says nothing about the peer.
    Relayed(AllocationId),
}

impl Source {
    /// Of whoever is at the other end of `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if let Some(route) = path.relay {
            return Self::Relayed(route.peer);
        }
        match path.remote {
            SocketAddr::V4(addr) => {
                let [a, b, c, _] = addr.ip().octets();
                Self::V4([a, b, c])
            }
            SocketAddr::V6(addr) => {
                let [a, b, c, d, e, f, g, ..] = addr.ip().octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

/// The responder's half-open handshakes: answered, but not confirmed by a first packet.
///
/// At most [`MAX_HALF_OPEN`]; one leaves when it is confirmed, replaced or times out.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_request: BTreeMap<[u8; 32], (PeerId, Source)>,
    by_source: BTreeMap<Source, usize>,
}

impl HalfOpen {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_request.len()
    }

    /// Is there room for one more from `source`?
    pub(super) fn admit(&self, source: Source) -> Result<(), DropReason> {
        let from_there = self.by_source.get(&source).copied().unwrap_or(0);
        if self.by_request.len() >= MAX_HALF_OPEN || from_there >= MAX_HALF_OPEN_PER_SOURCE {
            return Err(DropReason::HandshakeLimit);
        }
        Ok(())
    }

    /// Who sent this very request, if it is still half open.
    pub(super) fn peer_of(&self, request: &[u8; 32]) -> Option<PeerId> {
        self.by_request.get(request).map(|&(peer, _)| peer)
    }

    pub(super) fn insert(&mut self, request: [u8; 32], peer: PeerId, source: Source) {
        self.by_request.insert(request, (peer, source));
        *self.by_source.entry(source).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, request: &[u8; 32]) {
        let Some((_, source)) = self.by_request.remove(request) else {
            return;
        };
        if let Some(count) = self.by_source.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// Draws session indices that were not in use lately.
#[derive(Debug, Default)]
pub(super) struct Indices {
    resting: VecDeque<(Instant, SessionIndex)>,
    known: BTreeSet<SessionIndex>,
}

impl Indices {
    /// A random index that is neither resting nor `in_use`; `None` when chance gives none, which
    /// with a working generator does not happen.
    pub(super) fn draw(
        &self,
        entropy: &mut dyn Entropy,
        in_use: impl Fn(SessionIndex) -> bool,
    ) -> Option<SessionIndex> {
        (0..64)
            .map(|_| SessionIndex(entropy.next_u32()))
            .find(|index| !self.known.contains(index) && !in_use(*index))
    }

    /// `index` is used no more, from `now` on.
    pub(super) fn retire(&mut self, now: Instant, index: SessionIndex) {
        while let Some(&(since, oldest)) = self.resting.front() {
            let rested = now.saturating_duration_since(since) >= INDEX_REST;
            if !rested && self.resting.len() < MAX_RESTING {
                break;
            }
            self.resting.pop_front();
            self.known.remove(&oldest);
        }
        if self.known.insert(index) {
            self.resting.push_back((now, index));
        }
    }
}

/// The last timestamp of each peer's message 1.
#[derive(Debug, Default)]
pub(super) struct Timestamps(BTreeMap<PeerId, (u64, Instant)>);

impl Timestamps {
    /// Takes a timestamp, if it is above the last of this peer.
    pub(super) fn accept(
        &mut self,
        peer: PeerId,
        timestamp: u64,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.0.get_mut(&peer) {
            Some((last, _)) if timestamp <= *last => return Err(DropReason::HandshakeReplayed),
            Some(entry) => *entry = (timestamp, now),
            None => {
                if self.0.len() >= MAX_TIMESTAMPS {
                    self.forget_oldest();
                }
                self.0.insert(peer, (timestamp, now));
            }
        }
        Ok(())
    }

    fn forget_oldest(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, (_, heard))| *heard);
        if let Some(peer) = oldest.map(|(peer, _)| *peer) {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use nat_traversal::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn half_open_per_prefix() {
        let mut half_open = HalfOpen::default();
        let path = |text: &str| Source::of(&Path::direct(text.parse().unwrap()));
        let near = path("192.0.2.1:5");
        assert_eq!(near, path("192.0.2.200:9"));
        assert_ne!(near, path("198.51.100.1:5"));
        assert_eq!(path("[2001:db8:0:1::1]:5"), path("[2001:db8:0:ff::1]:5"));
        assert_ne!(path("[2001:db8:0:1::1]:5"), path("[2001:db8:0:100::1]:5"));
        for n in 0..MAX_HALF_OPEN_PER_SOURCE as u8 {
            half_open.admit(near).unwrap();
            half_open.insert([n; 32], PeerId([n; 32]), near);
        }
        assert_eq!(half_open.admit(near), Err(DropReason::HandshakeLimit));
        assert!(half_open.admit(path("198.51.100.1:5")).is_ok());
        half_open.remove(&[0; 32]);
        half_open.remove(&[0; 32]);
        assert!(half_open.admit(near).is_ok());
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn trust_13_an_index_rests_for_three_key_lifetimes() {
        let now = Instant::now();
        let mut indices = Indices::default();
        let first = indices.draw(&mut SeededEntropy::new(1), |_| false).unwrap();
        indices.retire(now, first);
        let again = indices.draw(&mut SeededEntropy::new(1), |_| false).unwrap();
        assert_ne!(first, again);
        indices.retire(now + INDEX_REST, again);
        let third = indices.draw(&mut SeededEntropy::new(1), |_| false).unwrap();
        assert_eq!(first, third);
    }
}
