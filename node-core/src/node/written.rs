//! What waits for the disk ([`crate::store`]), and what takes effect once it is there.
//!
//! Each owner puts its writes and handles their results. Here is what they share: the turn of the machine, the edits
//! of the membership, when what a restart needs is saved, and what the user learns of a disk that refuses.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::sequences::Sequences;
use crate::store::{Done, Edit, Edited, Refused, Store, Write, WriteId, Written};
use anyhow::{Result, anyhow};
use overlay_proto::ids::NetworkName;
use overlay_proto::membership::Membership;

use super::applying::Applying;
use super::effects::{CallId, Effect};
use super::files::{LOOPED_PORTS, PEERS, blob_name};
use super::identity::Tick;
use super::run::Node;
use super::warnings::Topic;

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
    machine: Store,
    /// Bound: the machine's for what users wait for; removed with the result.
    awaited: BTreeMap<WriteId, Awaited>,
    /// The numbers of lists and signals.
    pub sequences: Sequences,
    /// The handshake timestamp that is on disk, or on its way.
    timestamp: u64,
    /// When the saving under way was begun.
    began: Option<Instant>,
    /// No saving out of turn before.
    next_save: Instant,
    /// What the disk does not take, and why. Bound: the files there are.
    refused: BTreeMap<String, String>,
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

    fn note_saved(&mut self, now: Instant) {
        if !self.machine.is_remembering()
            && let Some(began) = self.began.take()
        {
            self.next_save = now + now.saturating_duration_since(began) * SAVE_SHARE;
        }
    }
}

/// The file that is written, where its owner does not wait for it.
fn file_of(write: &Write) -> Option<String> {
    Some(match write {
        Write::Sequences(_) => "sequences".to_owned(),
        Write::HandshakeTime(_) => "handshake-time".to_owned(),
        Write::LoopedPorts(_) => LOOPED_PORTS.to_owned(),
        Write::Directory { network, .. } => blob_name(network),
        Write::Peers(_) => PEERS.to_owned(),
        Write::Edit(edit) if edit.is_learnt() => "membership".to_owned(),
        _ => return None,
    })
}

/// But for the clock's floor, which a run of the node may have raised.
pub(super) fn are_same(one: &Membership, other: &Membership) -> bool {
    let (mut one, mut other) = (one.clone(), other.clone());
    let floor = one.roots().floor().max(other.roots().floor());
    one.roots_mut().raise_floor(floor);
    other.roots_mut().raise_floor(floor);
    one == other
}

impl Node {
    /// Tells the owners of writes what came of them.
    pub fn take_written(&mut self, tick: Tick) {
        while let Some(Written { id, write, result }) = self.store.machine.poll_written() {
            self.note_refusal(tick.now, &write, &result);
            self.handle_result(tick, id, &write, result);
            self.store.note_saved(tick.now);
        }
    }

    /// Hands to the shell what is to be written now: one write at a time, which the machine sees to.
    pub fn send_writes(&mut self) {
        while let Some((id, write)) = self.store.machine.poll_write() {
            self.effects.push(Effect::Keep(id, write));
        }
    }

    fn handle_result(&mut self, tick: Tick, id: WriteId, write: &Write, result: Outcome) {
        let who = self.store.awaited.remove(&id);
        match write {
            Write::Revocations { from, .. } => self.handle_list_kept(*from, who, result),
            Write::Edit(edit) => self.handle_edited(tick, edit, who, result),
            Write::NextStatic => self.handle_next_static(tick, result),
            Write::Name(name) => self.handle_renamed(tick, name.as_deref(), who, result),
            Write::Pins {
                network,
                keys,
                stay,
            } => self.handle_pinned(tick, (network, keys, *stay), who, result),
            Write::Sequences(_) => self.store.sequences.handle_written(result.is_ok()),
            Write::HandshakeTime(_) if result.is_err() => self.store.timestamp = 0,
            Write::HandshakeTime(_) => {}
            Write::LoopedPorts(_) => self.handle_ports_kept(id),
            Write::Directory { network, .. } => self.handle_directory_kept(network, result.is_ok()),
            Write::Peers(_) => self.peers_changed |= result.is_err(),
            Write::Leave => self.handle_left(result),
        }
    }

    /// Another membership is on disk; or the disk refused, and what was learnt counts all the same.
    fn handle_edited(&mut self, tick: Tick, edit: &Edit, who: Option<Awaited>, result: Outcome) {
        let edited = match result {
            Ok(Done::Edited(edited)) => Ok(*edited),
            Ok(_) => Err(anyhow!("the membership was not told")),
            Err(refused) if edit.is_learnt() => {
                tracing::debug!(%refused, "the membership was not saved");
                self.edited_in_memory(tick, edit)
            }
            Err(refused) => Err(refused.into()),
        };
        let counts = |edited: &Edited| are_same(&edited.membership, &self.identity.membership);
        if edit.is_learnt() && edited.as_ref().is_ok_and(counts) {
            // The disk refused it before.
            return;
        }
        match edit {
            Edit::Look => self.handle_reloaded(tick, who, edited),
            Edit::TakeReceipt(_) => self.handle_receipt_kept(tick, edited),
            Edit::TakeEpoch(_) => self.handle_epoch_kept(tick, edit, edited),
            Edit::ForgetEnded | Edit::FollowRoots(_) => {
                if let Err(error) = self.adopt_edited(tick, edited) {
                    tracing::error!("the membership that is left is not used: {error:#}");
                }
                self.tell_numbers();
            }
            Edit::ApplyRoots(_) => self.handle_roots_applied(tick, who, edited),
            Edit::ApplyEpochs(_) => self.handle_epochs_applied(tick, who, edited),
        }
    }

    /// The own membership with `edit` applied, for as long as the node runs.
    pub(super) fn edited_in_memory(&self, tick: Tick, edit: &Edit) -> Result<Edited> {
        let mut membership = self.identity.membership.clone();
        let begun = edit.apply(&mut membership, tick.wall)?;
        Ok(Edited { membership, begun })
    }

    /// From now on the edited membership is ours; the networks with a new epoch.
    pub(super) fn adopt_edited(
        &mut self,
        tick: Tick,
        edited: Result<Edited>,
    ) -> Result<Vec<NetworkName>> {
        let Edited { membership, begun } = edited?;
        self.adopt(tick, membership)?;
        Ok(begun)
    }

    /// Saves what a restart needs, where it has changed. Nobody waits for it; while it is on its way, what is newer
    /// stays for the next time.
    pub fn save_state(&mut self, tick: Tick) {
        if !self.store.machine.is_remembering() {
            self.save_now(tick);
        }
    }

    fn save_now(&mut self, tick: Tick) {
        self.store.began = Some(tick.now);
        self.save_directories();
        self.save_peers();
        let timestamp = self.tunnels.last_timestamp();
        if timestamp != self.store.timestamp {
            self.store.timestamp = timestamp;
            self.store.put(Write::HandshakeTime(timestamp));
        }
        self.refill_sequences(tick);
        self.store.note_saved(tick.now);
    }

    /// The numbers of lists and signals stay ahead of those in use.
    pub fn refill_sequences(&mut self, tick: Tick) {
        if let Some(bound) = self.store.sequences.poll_refill(tick.wall) {
            self.store.put(Write::Sequences(bound));
        }
    }

    /// The user learns what a restart will not know, once for as long as it is so.
    fn note_refusal(&mut self, now: Instant, write: &Write, result: &Outcome) {
        let Some(file) = file_of(write) else {
            return;
        };
        match result {
            Ok(_) => drop(self.store.refused.remove(&file)),
            Err(Refused::Disk(why)) => drop(self.store.refused.insert(file, why.clone())),
            Err(_) => return,
        }
        let first = self.store.refused.values().next();
        let text = first.map(|why| {
            format!("what this node learns is not kept, and a restart will not know it: {why}")
        });
        self.warnings.set(now, Topic::Disk, "", text);
    }

    /// The node ends: what a restart needs is to be written.
    pub fn save_at_the_end(&mut self, tick: Tick) {
        self.save_now(tick);
    }

    /// Is all written, or refused? The number of those that are not.
    pub fn unwritten(&self) -> usize {
        if self.store.machine.is_idle() {
            0
        } else {
            self.store.machine.left().max(1)
        }
    }
}
