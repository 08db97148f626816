//! Carries writes out: the only place of the slow path that changes the disk.
//!
//! One thread of its own, one write after the other: a disk that takes seconds holds up nothing else. It is no task of
//! the runtime, because a write that hangs must not keep the process from ending.

use std::sync::mpsc as queue;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use control_proto::admission::{Gatekeeper, MemberGate, Shelf};
use node_core::store::{Done, Edit, Edited, Refused, Write, WriteId};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::membership::{Revocations, RootStore};
use tokio::sync::mpsc;

use crate::pins::{self, Pin};
use crate::state::{StateDir, StateError, wall_clock};
use node_core::node::files::{LOOPED_PORTS, PEERS, blob_name};
use node_core::node::networks::attaching::Recalled;
use node_core::node::switchboard::answers::Answer;

/// What is on disk of a network.
///
/// # Errors
/// It is unreadable, or damaged.
pub(super) fn recall(state: &StateDir, id: &NetworkId, name: &NetworkName) -> Result<Recalled> {
    let directory = state.load_blob(&blob_name(id))?;
    let pins = pins::load(state).unwrap_or_else(|error| {
        tracing::error!("no MAC is pinned: {error:#}");
        Vec::new()
    });
    let pins = pins.iter().filter(|pin| pin.network == *name);
    let pins = pins.map(Pin::key).collect();
    Ok(Recalled { directory, pins })
}

/// Puts one write on the disk. Tests have one that is slow, or refuses.
pub(crate) type Disk = Box<dyn FnMut(&Write) -> Result<Done, Refused> + Send>;

/// The thread. It ends with its last write once this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct StoreThread {
    /// Bound: the one write that is under way.
    writes: queue::SyncSender<(WriteId, Arc<Write>)>,
}

impl StoreThread {
    /// Starts it; results go to `answers`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(crate) fn start(mut disk: Disk, answers: mpsc::Sender<Answer>) -> Result<Self> {
        let (writes, asked) = queue::sync_channel::<(WriteId, Arc<Write>)>(1);
        let work = move || {
            for (id, write) in asked {
                let result = disk(&write);
                if answers.blocking_send(Answer::Written(id, result)).is_err() {
                    // The slow path has ended.
                    return;
                }
            }
        };
        let named = std::thread::Builder::new().name("store".to_owned());
        named.spawn(work).context("the store cannot be started")?;
        Ok(Self { writes })
    }

    /// Carries `write` out. `false`: the thread is gone.
    pub(crate) fn begin(&self, id: WriteId, write: Arc<Write>) -> bool {
        self.writes.try_send((id, write)).is_ok()
    }
}

/// The state directory, until the node has left: there is no write after that.
#[derive(Debug)]
pub(crate) struct Kept {
    state: StateDir,
    has_left: Mutex<bool>,
}

impl Kept {
    pub(crate) const fn new(state: StateDir) -> Self {
        Self {
            state,
            has_left: Mutex::new(false),
        }
    }

    fn write<T>(&self, how: impl FnOnce(&StateDir) -> T) -> Option<T> {
        // Held meanwhile: leaving waits for what is under way.
        let has_left = self.has_left.lock().unwrap_or_else(PoisonError::into_inner);
        (!*has_left).then(|| how(&self.state))
    }

    fn leave(&self) -> Result<(), StateError> {
        let mut has_left = self.has_left.lock().unwrap_or_else(PoisonError::into_inner);
        *has_left = true;
        self.state.forget_membership()
    }
}

/// The disk of a running node. Lists go there by way of its gate.
pub(crate) fn disk(kept: Arc<Kept>, gate: Arc<MemberGate>) -> Disk {
    Box::new(move |write| carry_out(&kept, &gate, write))
}

fn carry_out(kept: &Kept, gate: &MemberGate, write: &Write) -> Result<Done, Refused> {
    match write {
        // The gate writes by its shelf before the list counts, so nothing is locked here.
        Write::Revocations { list, .. } => {
            let taken = gate.take_revocations(list);
            return taken
                .map(Done::Taken)
                .map_err(|error| Refused::Content(error.to_string()));
        }
        Write::Leave => return kept.leave().map(|()| Done::Saved).map_err(refused),
        _ => {}
    }
    kept.write(|state| save(state, write))
        .unwrap_or(Err(Refused::Leaving))
}

fn save(state: &StateDir, write: &Write) -> Result<Done, Refused> {
    let saved = match write {
        Write::Edit(edit) => return change(state, edit),
        Write::Pins {
            network,
            keys,
            stay,
        } => {
            let all = keys.iter().map(|key| Pin::new(network.clone(), *key));
            let all: Vec<Pin> = all.collect();
            let done = if *stay {
                pins::add(state, &all)
            } else {
                all.iter().try_for_each(|pin| pins::remove(state, pin))
            };
            done.map_err(|error| refused_or_unfit(&error))?;
            return Ok(Done::Saved);
        }
        Write::NextStatic => {
            let key = state.edit().and_then(|_edit| state.next_static_key());
            return key.map_err(refused).map(|key| Done::Static {
                public: key.public,
                sequence: key.sequence,
            });
        }
        Write::Name(name) => state.save_name(name.as_deref()),
        Write::Sequences(bound) => state.save_sequences(*bound),
        Write::HandshakeTime(time) => state.save_handshake_time(*time),
        Write::LoopedPorts(bytes) => state.save_blob(LOOPED_PORTS, bytes),
        Write::Directory { network, snapshot } => state.save_blob(&blob_name(network), snapshot),
        Write::Peers(bytes) => state.save_blob(PEERS, bytes),
        // Carried out before.
        Write::Revocations { .. } | Write::Leave => Ok(()),
    };
    saved.map(|()| Done::Saved).map_err(refused)
}

/// Applies `edit` to what is on disk, which `farlan join` may have written.
fn change(state: &StateDir, edit: &Edit) -> Result<Done, Refused> {
    let _edit = state.edit().map_err(refused)?;
    let before = state.require_membership().map_err(refused)?;
    let mut membership = before.clone();
    let begun = edit
        .apply(&mut membership, wall_clock())
        .map_err(|error| Refused::Content(error.to_string()))?;
    if membership != before {
        state.save_membership(&membership).map_err(refused)?;
    }
    Ok(Done::Edited(Box::new(Edited { membership, begun })))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: StateError) -> Refused {
    Refused::Disk(error.to_string())
}

fn refused_or_unfit(error: &anyhow::Error) -> Refused {
    let text = format!("{error:#}");
    match error.downcast_ref::<StateError>() {
        Some(_) => Refused::Disk(text),
        None => Refused::Content(text),
    }
}

/// Keeps what the gate learns in the state directory: by the thread that judges an admission, which must not go on
/// before, or by the store's.
#[derive(Debug)]
pub(crate) struct NodeShelf(pub(crate) Arc<Kept>);

impl Shelf for NodeShelf {
    fn keep_revocations(&self, all: &Revocations) {
        let saved = self.0.write(|state| state.save_revocations(all));
        if let Some(Err(error)) = saved {
            tracing::error!(%error, "the revocations were not saved; a restart will not know them");
        }
    }

    fn keep_roots(&self, roots: &RootStore) {
        let edit = Edit::FollowRoots(Box::new(roots.clone()));
        let saved = self.0.write(|state| change(state, &edit));
        if let Some(Err(error)) = saved {
            tracing::error!(%error, "newer root documents were not saved");
        }
    }
}

#[cfg(test)]
mod tests;
