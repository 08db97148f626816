//! One VLAN between the bridge and the overlay: open or shut, and who else is heard in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::beacon::{Beacon, Echo, MAX_ECHOES, SegmentId};
use super::{ALONE, CHALLENGE_LIFE, LISTENING, MIN_GAP, Rank, SHARED, SILENT, Weight};

/// Runs of nodes that are remembered in one VLAN. A silent one makes room; more that all speak are not
/// heard.
const MAX_HEARD: usize = 64;

/// A counter is remembered for as long as a recording could prove anything.
const REMEMBERED: Duration = Duration::from_secs(2 * CHALLENGE_LIFE.as_secs());

/// Whoever was live so lately and is not now has just gone.
const JUST_GONE: Duration = Duration::from_secs(5 * SILENT.as_secs());

/// A node is repeated in beacons for so long after it was heard: longer than it takes to be gone.
const ECHOED: Duration = Duration::from_secs(3 * SILENT.as_secs());

/// What was heard of one run of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    counter: u64,
    challenge: u64,
    at: Instant,
    /// When it last repeated our challenge; `None` also once it has left.
    proved_at: Option<Instant>,
    /// The same, kept when it leaves.
    lived_at: Option<Instant>,
    pub(super) forwards: bool,
    connected: bool,
    weight: Weight,
}

impl Heard {
    fn is_live(&self, now: Instant) -> bool {
        self.proved_at
            .is_some_and(|at| now.saturating_duration_since(at) < SILENT)
    }
}

#[derive(Debug)]
pub(super) struct Door {
    pub(super) own_weight: Weight,
    pub(super) open: bool,
    /// Does not open before.
    pub(super) listen_until: Instant,
    pub(super) next_beacon: Instant,
    last_beacon: Option<Instant>,
    /// When it was last looked who is live.
    judged_at: Option<Instant>,
    /// When frames or claims of this VLAN were last seen.
    pub(super) used: Instant,
    /// Bound [`MAX_HEARD`]; removed after [`REMEMBERED`].
    heard: BTreeMap<(SegmentId, u64), Heard>,
    /// Who was live at the last judgement.
    live: BTreeSet<SegmentId>,
}

impl Door {
    pub(super) const fn new(
        now: Instant,
        own_weight: Weight,
        open: bool,
        listen_until: Instant,
    ) -> Self {
        Self {
            own_weight,
            open,
            listen_until,
            next_beacon: now,
            last_beacon: None,
            judged_at: None,
            used: now,
            heard: BTreeMap::new(),
            live: BTreeSet::new(),
        }
    }

    /// The next beacon goes out as soon as it may; `false` if it would have anyway.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        let soonest = self.last_beacon.map_or(now, |last| now.max(last + MIN_GAP));
        let sooner = soonest < self.next_beacon;
        self.next_beacon = self.next_beacon.min(soonest);
        sooner
    }

    pub(super) fn beacon_sent(&mut self, now: Instant) {
        let pause = if !self.open && now < self.listen_until {
            LISTENING
        } else if self.heard_lately(now, SILENT) {
            SHARED
        } else {
            ALONE
        };
        self.last_beacon = Some(now);
        self.next_beacon = now + pause;
    }

    /// Takes a beacon of another node; `false` if it is a recording or there is no room.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        beacon: &Beacon,
        proves: bool,
        weight: impl FnOnce() -> Weight,
    ) -> bool {
        let key = (beacon.id, beacon.run);
        let known = self.heard.get(&key).copied();
        if known.is_some_and(|known| beacon.counter <= known.counter) {
            return false;
        }
        if known.is_none() && !self.make_room(now) {
            return false;
        }
        let before = known.and_then(|known| known.proved_at);
        let proved_at = if proves { Some(now) } else { before };
        let lived_at = proved_at.or(known.and_then(|known| known.lived_at));
        if proves {
            // Its earlier run has ended.
            for ((id, run), heard) in &mut self.heard {
                if *id == beacon.id && *run != beacon.run {
                    heard.proved_at = None;
                }
            }
        } else {
            // It does not know that it is heard.
            self.hurry(now);
        }
        if known.is_none_or(|known| known.forwards != beacon.forwards) {
            self.hurry(now);
        }
        let heard = Heard {
            counter: beacon.counter,
            challenge: beacon.challenge,
            at: now,
            proved_at: proved_at.filter(|_| !beacon.leaving),
            lived_at,
            forwards: beacon.forwards,
            connected: beacon.connected,
            weight: known.map_or_else(weight, |known| known.weight),
        };
        self.heard.insert(key, heard);
        true
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.heard.len() < MAX_HEARD {
            return true;
        }
        let silent = self.heard.iter().filter(|(_, heard)| !heard.is_live(now));
        let oldest = silent
            .min_by_key(|(_, heard)| heard.at)
            .map(|(key, _)| *key);
        oldest.is_some_and(|key| self.heard.remove(&key).is_some())
    }

    pub(super) fn forget(&mut self, now: Instant) {
        self.heard
            .retain(|_, heard| now.saturating_duration_since(heard.at) < REMEMBERED);
    }

    /// Notes who is live now; `true` if others are than before.
    pub(super) fn note_live(&mut self, now: Instant) -> bool {
        let live: BTreeSet<SegmentId> = self.live_at(now).map(|(id, _)| id).collect();
        let changed = live != self.live;
        self.live = live;
        self.judged_at = Some(now);
        changed
    }

    pub(super) const fn live(&self) -> &BTreeSet<SegmentId> {
        &self.live
    }

    pub(super) fn live_at(&self, now: Instant) -> impl Iterator<Item = (SegmentId, &Heard)> {
        let live = self.heard.iter();
        live.filter(move |(_, heard)| heard.is_live(now))
            .map(|((id, _), heard)| (*id, heard))
    }

    fn heard_lately(&self, now: Instant, within: Duration) -> bool {
        let mut heard = self.heard.values();
        heard.any(|heard| now.saturating_duration_since(heard.at) < within)
    }

    /// The highest of the live nodes.
    pub(super) fn best_other(&self, now: Instant) -> Option<Rank> {
        self.live_at(now)
            .map(|(id, heard)| (heard.connected, heard.weight, id))
            .max()
    }

    pub(super) fn remembered(&self) -> BTreeSet<SegmentId> {
        self.heard.keys().map(|(id, _)| *id).collect()
    }

    /// Who was live a moment ago and is not now.
    pub(super) fn just_gone(&self, now: Instant) -> BTreeSet<SegmentId> {
        let lately = |at: Instant| now.saturating_duration_since(at) < JUST_GONE;
        let lived = self.heard.iter();
        let lived = lived.filter(|(_, heard)| heard.lived_at.is_some_and(lately));
        let mut gone: BTreeSet<SegmentId> = lived.map(|((id, _), _)| *id).collect();
        for (id, _) in self.live_at(now) {
            gone.remove(&id);
        }
        gone
    }

    /// The live nodes, and whether each forwards.
    pub(super) fn others(&self) -> Vec<(SegmentId, bool)> {
        let forwards = |id: &SegmentId| {
            let mut runs = self.heard.iter();
            runs.any(|((of, _), heard)| of == id && heard.proved_at.is_some() && heard.forwards)
        };
        self.live.iter().map(|id| (*id, forwards(id))).collect()
    }

    /// Whom the next beacon repeats: the latest first.
    pub(super) fn echoes(&self) -> Vec<Echo> {
        let Some(now) = self.last_beacon else {
            return Vec::new();
        };
        let lately = |heard: &Heard| now.saturating_duration_since(heard.at) < ECHOED;
        let mut all: Vec<_> = self
            .heard
            .iter()
            .filter(|(_, heard)| lately(heard))
            .collect();
        all.sort_by_key(|(_, heard)| std::cmp::Reverse(heard.at));
        let echo = |(key, heard): (&(SegmentId, u64), &Heard)| Echo {
            id: key.0,
            challenge: heard.challenge,
        };
        all.into_iter().take(MAX_ECHOES).map(echo).collect()
    }

    /// When something is due: a beacon, the end of listening, a node that falls silent.
    pub(super) fn deadline(&self) -> Instant {
        let silences = self.heard.values().filter_map(|heard| heard.proved_at);
        let silences = silences.map(|at| at + SILENT);
        let listening = (!self.open).then_some(self.listen_until);
        let judged = |at: &Instant| self.judged_at.is_some_and(|judged| *at <= judged);
        let due = silences.chain(listening).filter(|at| !judged(at));
        due.fold(self.next_beacon, Instant::min)
    }
}
