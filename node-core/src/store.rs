//! What is to be on disk, as data (ADR 43).
//!
//! An owner puts a [`Write`] and hears what became of it; what counts only when it is written takes effect then. The
//! shell carries out one write at a time, in the order of the ranks: what others rely on first, caches last, leaving
//! after all. Calls, in this order: [`Store::put`] at any time; [`Store::handle_written`] as results come; then
//! [`Store::poll_written`] and [`Store::poll_write`] until both are empty.
//!
//! A newer content of the same blob takes the place of one that waits. What the node has learnt by itself and is put
//! again while it waits is one write; what a user waits for is always one of its own.

mod edits;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use overlay_proto::time::UnixTime;

pub(crate) use self::edits::are_same;
pub use self::edits::{Edit, EditError, take_epochs, take_roots};
use self::write::Rank;
pub use self::write::{Done, Edited, Refused, Write};

/// Names a write from [`Store::put`] to its result; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(u64);

/// Edits that count although the disk refused them; beyond it the oldest waits for a restart.
const MAX_UNSAVED: usize = 128;

/// A write and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Which one.
    pub id: WriteId,
    /// What was to be written.
    pub write: Arc<Write>,
    /// Is it?
    pub result: Result<Done, Refused>,
}

type Place = (Rank, u64);

/// All that waits for the disk, and the one write that is under way. Bounds: [`Rank::room`] for each rank, which is
/// above the number of blobs there are; [`MAX_UNSAVED`].
#[derive(Debug, Default)]
pub struct Store {
    next_id: u64,
    next_place: u64,
    /// In the order in which they are written.
    waiting: BTreeMap<Place, (WriteId, Arc<Write>)>,
    under_way: Option<(WriteId, Arc<Write>)>,
    /// Bound: what was put and what came since they were last taken.
    written: VecDeque<Written>,
    /// Edits that the disk refused and that count all the same: they are part of every membership that is told, and
    /// are tried again when the disk has taken something else.
    unsaved: Vec<Arc<Write>>,
    /// Leaving waits, or is done: there is nothing after it.
    is_closed: bool,
}

impl Store {
    /// Nothing waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next_id: 0,
            next_place: 0,
            waiting: BTreeMap::new(),
            under_way: None,
            written: VecDeque::new(),
            unsaved: Vec::new(),
            is_closed: false,
        }
    }

    /// Writes `write` when its turn comes. Without room, or after leaving, its result says so.
    pub fn put(&mut self, write: Write) -> WriteId {
        if let Some(id) = self.same(&write) {
            return id;
        }
        let id = WriteId(self.next_id);
        self.next_id += 1;
        let rank = write.rank();
        let write = Arc::new(write);
        if self.is_closed {
            self.tell(id, write, Err(Refused::Leaving));
        } else if let Some(older) = self.replaced_by(&write) {
            *older = (id, write);
        } else if self.waiting_in(rank) >= rank.room() {
            self.tell(id, write, Err(Refused::NoRoom));
        } else {
            if *write == Write::Leave {
                self.is_closed = true;
                self.waiting.retain(|_, (_, write)| !write.is_erased());
            }
            self.insert(id, write);
        }
        id
    }

    /// The next one to be carried out; `None` while one is under way.
    pub fn poll_write(&mut self) -> Option<(WriteId, Arc<Write>)> {
        if self.under_way.is_some() {
            return None;
        }
        let (_, next) = self.waiting.pop_first()?;
        self.under_way = Some(next.clone());
        Some(next)
    }

    /// The shell has carried `id` out, or could not. A result of another is nobody's.
    pub fn handle_written(
        &mut self,
        wall: UnixTime,
        id: WriteId,
        mut result: Result<Done, Refused>,
    ) {
        let Some((_, write)) = self.under_way.take_if(|(asked, _)| *asked == id) else {
            return;
        };
        self.unsaved.retain(|unsaved| *unsaved != write);
        match &mut result {
            Ok(done) => {
                if let Done::Edited(edited) = done {
                    self.add_unsaved(wall, edited);
                }
                self.try_unsaved_again();
            }
            Err(Refused::Disk(_)) if write.counts_all_the_same() => {
                if self.unsaved.len() >= MAX_UNSAVED {
                    self.unsaved.remove(0);
                }
                self.unsaved.push(Arc::clone(&write));
            }
            Err(_) => {}
        }
        self.tell(id, write, result);
    }

    /// The next result, for the owner of the write.
    pub fn poll_written(&mut self) -> Option<Written> {
        self.written.pop_front()
    }

    /// Is there a result to take, or a write to carry out now?
    pub fn is_due(&self) -> bool {
        !self.written.is_empty() || (self.under_way.is_none() && !self.waiting.is_empty())
    }

    /// Does nothing wait, and is nothing under way?
    pub fn is_idle(&self) -> bool {
        self.left() == 0
    }

    /// Those that wait, with the one under way.
    pub fn left(&self) -> usize {
        self.waiting.len() + usize::from(self.under_way.is_some())
    }

    /// Are directories or peers on their way? There is no use in newer ones before these are written.
    pub fn is_remembering(&self) -> bool {
        let under_way = self.under_way.as_ref().map(|(_, write)| write.rank());
        under_way == Some(Rank::Memory) || self.waiting_in(Rank::Memory) > 0
    }

    fn insert(&mut self, id: WriteId, write: Arc<Write>) {
        let place = (write.rank(), self.next_place);
        self.next_place += 1;
        self.waiting.insert(place, (id, write));
    }

    fn tell(&mut self, id: WriteId, write: Arc<Write>, result: Result<Done, Refused>) {
        self.written.push_back(Written { id, write, result });
    }

    /// The one that is as good as `write`, which nobody waits for in person.
    fn same(&self, write: &Write) -> Option<WriteId> {
        if write.is_awaited() || write.blob().is_some() {
            return None;
        }
        let mut all = self.waiting.values().chain(&self.under_way);
        all.find(|(_, other)| write.is_same_as(other))
            .map(|(id, _)| *id)
    }

    /// The place of the same blob's older content.
    fn replaced_by(&mut self, write: &Write) -> Option<&mut (WriteId, Arc<Write>)> {
        let blob = write.blob()?;
        let mut waiting = self.waiting.values_mut();
        waiting.find(|(_, older)| older.blob() == Some(blob))
    }

    fn waiting_in(&self, rank: Rank) -> usize {
        self.waiting.range((rank, 0)..=(rank, u64::MAX)).count()
    }

    /// What counts although it is not on disk must not go with a membership that comes from there.
    fn add_unsaved(&self, wall: UnixTime, edited: &mut Edited) {
        for edit in self.unsaved.iter().filter_map(|write| write.edit()) {
            // One that the membership does not take any more has no meaning in it.
            let _ = edit.apply(&mut edited.membership, wall);
        }
    }

    fn try_unsaved_again(&mut self) {
        if self.is_closed {
            return;
        }
        for write in self.unsaved.clone() {
            if self.same(&write).is_none() && self.waiting_in(write.rank()) < write.rank().room() {
                let id = WriteId(self.next_id);
                self.next_id += 1;
                self.insert(id, write);
            }
        }
    }
}

#[cfg(test)]
mod tests;
