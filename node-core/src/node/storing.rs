//! What waits for the disk ([`crate::store`]), and who waits for it.

use std::collections::BTreeMap;
use std::time::Instant;

use overlay_proto::ids::NetworkName;
use overlay_proto::time::UnixTime;

use super::effects::CallId;
use super::standing::applying::Applying;
use super::tick::Tick;
use crate::sequences::Sequences;
use crate::store::{Done, Refused, Store, Write, WriteId};

/// What is new about peers is on disk within two looks, so that a node that is killed soon after it
/// met somebody finds them again without a bootstrap. Saving takes at most this share of the time.
const SAVE_SHARE: u32 = 10;

/// What a write came to.
pub(crate) type Outcome = Result<Done, Refused>;

/// A user who waits for a write.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// `farlan rename`.
    Renamed(CallId),
    /// `pin`, `unpin`, `announce --keep`.
    Pinned(CallId),
    /// `attach --mac`: the network, and what is to be told before.
    Attached(CallId, NetworkName, String),
    /// `farlan join` changed the membership; the networks before.
    Reloaded(CallId, usize),
    /// `farlan apply`.
    Applied(Box<Applying>),
}

/// The machine, and who waits.
#[derive(Debug)]
pub struct Storing {
    pub(crate) machine: Store,
    /// Bound: the machine's for what users wait for; removed with the result.
    pub(crate) awaited: BTreeMap<WriteId, Awaited>,
    /// The numbers of lists and signals.
    pub sequences: Sequences,
    /// The handshake timestamp that is on disk, or on its way.
    pub(crate) timestamp: u64,
    /// When the saving under way was begun.
    pub(crate) began: Option<Instant>,
    /// No saving out of turn before.
    next_save: Instant,
    /// What the disk does not take, and why. Bound: the files there are.
    pub(crate) refused: BTreeMap<String, String>,
}

impl Storing {
    pub(crate) const fn new(sequences: Sequences, now: Instant) -> Self {
        Self {
            machine: Store::new(),
            awaited: BTreeMap::new(),
            sequences,
            timestamp: 0,
            began: None,
            next_save: now,
            refused: BTreeMap::new(),
        }
    }

    /// Writes `write` when its turn comes.
    pub fn put(&mut self, write: Write) -> WriteId {
        self.machine.put(write)
    }

    /// As [`Storing::put`]; `who` is told what came of it.
    pub(crate) fn put_for(&mut self, write: Write, who: Awaited) {
        let id = self.machine.put(write);
        self.awaited.insert(id, who);
    }

    /// The numbers of lists and signals stay ahead of those in use.
    pub fn refill_sequences(&mut self, wall: UnixTime) {
        if let Some(bound) = self.sequences.poll_refill(wall) {
            self.put(Write::Sequences(bound));
        }
    }

    /// The thread has carried a write out.
    pub fn handle_written(&mut self, tick: Tick, id: WriteId, outcome: Outcome) {
        self.machine.handle_written(tick.wall, id, outcome);
    }

    /// Is there something to do now?
    pub(crate) fn is_due(&self) -> bool {
        self.machine.is_due()
    }

    /// May what has changed be saved out of turn?
    pub(crate) fn may_save(&self, now: Instant) -> bool {
        now >= self.next_save && !self.machine.is_remembering()
    }

    pub(crate) fn note_saved(&mut self, now: Instant) {
        if !self.machine.is_remembering()
            && let Some(began) = self.began.take()
        {
            self.next_save = now + now.saturating_duration_since(began) * SAVE_SHARE;
        }
    }
}
