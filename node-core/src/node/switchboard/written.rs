//! What waits for the disk ([`crate::store`]), and what takes effect once it is there.
//!
//! Each owner puts its writes and handles their results. Here is what they share: the turn of the machine, the edits
//! of the membership, when what a restart needs is saved, and what the user learns of a disk that refuses.

use std::time::Instant;

use crate::store::{Done, Edit, Edited, Refused, Write, WriteId, Written, are_same};
use anyhow::{Result, anyhow};
use overlay_proto::ids::NetworkName;

use crate::node::effects::Effect;
use crate::node::files::{LOOPED_PORTS, PEERS, blob_name};
use crate::node::storing::{Awaited, Outcome};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

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

impl Node {
    /// Tells the owners of writes what came of them.
    pub fn take_written(&mut self, tick: Tick) {
        while let Some(Written { id, write, result }) = self.outside.store.machine.poll_written() {
            self.note_refusal(tick.now, &write, &result);
            self.handle_result(tick, id, &write, result);
            self.outside.store.note_saved(tick.now);
        }
    }

    /// Hands to the shell what is to be written now: one write at a time, which the machine sees to.
    pub fn send_writes(&mut self) {
        while let Some((id, write)) = self.outside.store.machine.poll_write() {
            self.outside.effects.push(Effect::Keep(id, write));
        }
    }

    fn handle_result(&mut self, tick: Tick, id: WriteId, write: &Write, result: Outcome) {
        let who = self.outside.store.awaited.remove(&id);
        match write {
            Write::Revocations { from, .. } => {
                self.standing
                    .handle_list_kept(&mut self.outside, *from, who, result)
            }
            Write::Edit(edit) => self.handle_edited(tick, edit, who, result),
            Write::NextStatic => self.handle_next_static(tick, result),
            Write::Name(name) => self.handle_renamed(tick, name.as_deref(), who, result),
            Write::Pins {
                network,
                keys,
                stay,
            } => {
                let pins = (network, keys.as_slice(), *stay);
                let out = &mut self.outside;
                self.networks.handle_pinned(tick, out, pins, who, result);
            }
            Write::Sequences(_) => self.outside.store.sequences.handle_written(result.is_ok()),
            Write::HandshakeTime(_) if result.is_err() => self.outside.store.timestamp = 0,
            Write::HandshakeTime(_) => {}
            Write::LoopedPorts(_) => self.networks.looped.handle_kept(&mut self.outside, id),
            Write::Directory { network, .. } => {
                self.networks.handle_directory_kept(network, result.is_ok());
            }
            Write::Peers(_) => self.peers.changed |= result.is_err(),
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
                self.standing.edited_in_memory(tick, edit)
            }
            Err(refused) => Err(refused.into()),
        };
        let counts =
            |edited: &Edited| are_same(&edited.membership, &self.standing.identity.membership);
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

    /// From now on the edited membership is ours; the networks with a new epoch.
    pub(crate) fn adopt_edited(
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
        if !self.outside.store.machine.is_remembering() {
            self.save_now(tick);
        }
    }

    fn save_now(&mut self, tick: Tick) {
        self.outside.store.began = Some(tick.now);
        self.networks.save(&mut self.outside);
        self.peers.save(&mut self.outside);
        let timestamp = self.peers.tunnels.last_timestamp();
        if timestamp != self.outside.store.timestamp {
            self.outside.store.timestamp = timestamp;
            self.outside.store.put(Write::HandshakeTime(timestamp));
        }
        self.refill_sequences(tick);
        self.outside.store.note_saved(tick.now);
    }

    /// The numbers of lists and signals stay ahead of those in use.
    pub fn refill_sequences(&mut self, tick: Tick) {
        self.outside.store.refill_sequences(tick.wall);
    }

    /// The user learns what a restart will not know, once for as long as it is so.
    fn note_refusal(&mut self, now: Instant, write: &Write, result: &Outcome) {
        let Some(file) = file_of(write) else {
            return;
        };
        match result {
            Ok(_) => drop(self.outside.store.refused.remove(&file)),
            Err(Refused::Disk(why)) => drop(self.outside.store.refused.insert(file, why.clone())),
            Err(_) => return,
        }
        let first = self.outside.store.refused.values().next();
        let text = first.map(|why| {
            format!("what this node learns is not kept, and a restart will not know it: {why}")
        });
        self.outside.warnings.set(now, Topic::Disk, "", text);
    }

    /// The node ends: what a restart needs is to be written.
    pub fn save_at_the_end(&mut self, tick: Tick) {
        self.save_now(tick);
    }

    /// Is all written, or refused? The number of those that are not.
    pub fn unwritten(&self) -> usize {
        if self.outside.store.machine.is_idle() {
            0
        } else {
            self.outside.store.machine.left().max(1)
        }
    }
}
