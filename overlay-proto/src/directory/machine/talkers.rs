//! Who talks to a local MAC: the first to learn that it moved. Speed, never correctness.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ids::PeerId;
use crate::switching::MacKey;

/// Talkers of one MAC.
const MAX_TALKERS: usize = 64;
/// MACs with talkers.
const MAX_MACS: usize = 4096;
/// A talker that was silent so long is none.
const TALKER_TTL: Duration = Duration::from_secs(300);

/// Talkers by MAC. Bounds: 64 a MAC, least recently heard out; 4,096 MACs, more are not noted;
/// removed by [`Talkers::expire`] after five minutes.
#[derive(Debug, Default)]
pub(super) struct Talkers(BTreeMap<MacKey, Vec<(PeerId, Instant)>>);

impl Talkers {
    pub(super) fn note(&mut self, now: Instant, key: MacKey, peer: PeerId) {
        if self.0.len() >= MAX_MACS && !self.0.contains_key(&key) {
            return;
        }
        let talkers = self.0.entry(key).or_default();
        // Ordered by time: the front is the least recently heard.
        talkers.retain(|(known, _)| *known != peer);
        if talkers.len() >= MAX_TALKERS {
            talkers.remove(0);
        }
        talkers.push((peer, now));
    }

    pub(super) fn of(&self, now: Instant, key: &MacKey) -> Vec<PeerId> {
        self.0.get(key).map_or_else(Vec::new, |talkers| {
            talkers
                .iter()
                .filter(|(_, heard)| now.saturating_duration_since(*heard) < TALKER_TTL)
                .map(|(peer, _)| *peer)
                .collect()
        })
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, talkers| {
            talkers.retain(|(_, heard)| now.saturating_duration_since(*heard) < TALKER_TTL);
            !talkers.is_empty()
        });
    }
}
