//! MACs that frames are for and that nobody claims: what was asked of all, and how often.
//!
//! A question to all carries the newest frame that waits (DIRECTORY.md, Storage and lookup), so that a
//! station which only receives gets it as from a switch. Here is the budget of both sides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::lookup::{PerSecond, WHO_HAS_PER_SECOND};
use super::{Directory, DirectoryAction};
use crate::ids::PeerId;
use crate::switching::MacKey;

/// All are asked for one MAC so often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A question that the node's budget has no room for is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Unknown MACs that are remembered.
const MAX_UNKNOWN: usize = 64;
/// One that nothing was for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Frames for unknown MACs taken from one peer in a second: twice what it may send, since its
/// seconds begin at other times than ours.
const TAKEN_PER_PEER: u32 = 2 * WHO_HAS_PER_SECOND;
/// Those of all peers.
const TAKEN_IN_ALL: u32 = 5 * TAKEN_PER_PEER;
/// Peers whose frames are counted at a time.
const MAX_COUNTED: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Unknown {
    since: Instant,
    last: Instant,
    asked_at: Option<Instant>,
    asked: u32,
    dropped: u64,
}

/// An address that frames are for and that nobody claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownReport {
    /// VLAN and MAC.
    pub key: MacKey,
    /// How often all were asked, each time with a frame if one waited.
    pub asked: u32,
    /// Frames for it that were dropped.
    pub dropped: u64,
    /// For how long it has been unknown.
    pub since: Duration,
    /// How long ago the last frame was.
    pub last: Duration,
}

/// Bounds: [`MAX_UNKNOWN`] MACs, the longest unheard of makes room, removed by a claim or after
/// [`FORGET`]; [`MAX_COUNTED`] peers, those of earlier seconds make room.
#[derive(Debug, Default)]
pub(super) struct Unknowns {
    macs: BTreeMap<MacKey, Unknown>,
    taken_of: BTreeMap<PeerId, PerSecond>,
    taken: PerSecond,
}

impl Unknowns {
    /// Somebody claims `key` now.
    pub(super) fn found(&mut self, key: &MacKey) {
        self.macs.remove(key);
    }

    /// When all may be asked for `key` again.
    pub(super) fn next_question(&self, now: Instant, key: &MacKey) -> Instant {
        let asked = self.macs.get(key).and_then(|one| one.asked_at);
        let due = asked.map_or(now, |at| at + ASK_EVERY);
        due.max(now + TRY_AGAIN)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.macs
            .retain(|_, one| now.saturating_duration_since(one.last) < FORGET);
        self.taken_of.retain(|_, count| count.is_recent(now));
    }

    fn note(&mut self, now: Instant, key: MacKey) -> &mut Unknown {
        if self.macs.len() >= MAX_UNKNOWN && !self.macs.contains_key(&key) {
            let oldest = self.macs.iter().min_by_key(|(key, one)| (one.last, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.macs.remove(&oldest);
            }
        }
        let one = self.macs.entry(key).or_insert(Unknown {
            since: now,
            last: now,
            asked_at: None,
            asked: 0,
            dropped: 0,
        });
        one.last = now;
        one
    }

    /// May a frame of `peer` for an unknown MAC be taken?
    fn take(&mut self, now: Instant, peer: PeerId) -> bool {
        if self.taken_of.len() >= MAX_COUNTED && !self.taken_of.contains_key(&peer) {
            self.taken_of.retain(|_, count| count.is_recent(now));
            if self.taken_of.len() >= MAX_COUNTED {
                return false;
            }
        }
        let of_peer = self.taken_of.entry(peer).or_default();
        of_peer.take(now, TAKEN_PER_PEER) && self.taken.take(now, TAKEN_IN_ALL)
    }
}

impl Directory {
    /// A frame is for `key`, which was looked for in vain a moment ago. `true` if it should wait
    /// all the same: [`DirectoryAction::AskAll`] takes it along. Else it is dropped.
    pub fn handle_unknown_frame(&mut self, now: Instant, key: MacKey) -> bool {
        if !key.mac.is_claimable() {
            return false;
        }
        let asked = self.ask_all(now, key);
        if !asked {
            self.asking.unknowns.note(now, key).dropped += 1;
        }
        asked
    }

    /// So many frames for `key` were dropped, since it was not found in time.
    pub fn note_dropped(&mut self, now: Instant, key: MacKey, frames: u64) {
        if key.mac.is_claimable() && frames > 0 {
            self.asking.unknowns.note(now, key).dropped += frames;
        }
    }

    /// The MACs that frames are for and that nobody claims.
    pub fn unknown(&self, now: Instant) -> impl Iterator<Item = UnknownReport> {
        self.asking
            .unknowns
            .macs
            .iter()
            .map(move |(key, one)| UnknownReport {
                key: *key,
                asked: one.asked,
                dropped: one.dropped,
                since: now.saturating_duration_since(one.since),
                last: now.saturating_duration_since(one.last),
            })
    }

    /// Asks all for `key`, within the budget; `true` if so.
    pub(super) fn ask_all(&mut self, now: Instant, key: MacKey) -> bool {
        let one = self.asking.unknowns.note(now, key);
        let just = |at| now.saturating_duration_since(at) < ASK_EVERY;
        if one.asked_at.is_some_and(just) || !self.asking.lookups.may_ask_all(now) {
            return false;
        }
        let one = self.asking.unknowns.note(now, key);
        one.asked_at = Some(now);
        one.asked = one.asked.saturating_add(1);
        self.actions.push(DirectoryAction::AskAll { key });
        true
    }

    /// A frame of `from` is for a MAC that nobody claims here either: may it go to our ports?
    pub(super) fn takes_unknown(&mut self, now: Instant, from: PeerId) -> bool {
        self.asking.unknowns.take(now, from)
    }
}
