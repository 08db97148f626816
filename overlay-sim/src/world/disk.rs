//! What a host keeps while its node does not run: the state directory, and the book of its gate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_proto::admission::Shelf;
use node_core::node::files::{LOOPED_PORTS, PEERS, blob_name};
use node_core::node::networks::attaching::Recalled;
use node_core::store::{Done, Edited, Refused, Write};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::membership::{Membership, Revocations, RootStore};
use overlay_proto::switching::MacKey;
use overlay_proto::time::UnixTime;

use super::trouble::DiskManner;

/// The state directory. Bound: what a node writes, see [`Write`].
pub(super) struct Disk {
    pub(super) membership: Option<Membership>,
    /// The secret x25519 key, and the sequence of the newest signature over its public half.
    pub(super) static_key: ([u8; 32], u64),
    pub(super) sequences: u64,
    pub(super) handshake_time: u64,
    pub(super) book: Arc<Book>,
    manner: DiskManner,
    name: Option<String>,
    pins: BTreeMap<NetworkName, Vec<MacKey>>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Disk {
    /// That of a node that has just joined.
    pub(super) fn new(membership: Membership, secret: [u8; 32]) -> Self {
        Self {
            membership: Some(membership),
            static_key: (secret, 0),
            sequences: 0,
            handshake_time: 0,
            book: Book::new(Arc::default()),
            manner: DiskManner::default(),
            name: None,
            pins: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
    }

    /// The same on another host.
    pub(super) fn copied(&self) -> Self {
        let book = Book::new(self.revocations());
        book.lock().1 = self.manner.is_full;
        Self {
            membership: self.membership.clone(),
            book,
            name: self.name.clone(),
            pins: self.pins.clone(),
            blobs: self.blobs.clone(),
            ..*self
        }
    }

    /// What is revoked, as far as it was kept.
    pub(super) fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.book.lock().0)
    }

    /// How it is from now on.
    pub(super) fn set_manner(&mut self, manner: DiskManner) {
        self.book.lock().1 = manner.is_full;
        self.manner = manner;
    }

    /// What a write takes; `None`: what it takes everywhere.
    pub(super) const fn delay(&self) -> Option<Duration> {
        self.manner.delay
    }

    /// The sequence for the next signature over the x25519 key.
    pub(super) const fn next_static(&mut self) -> u64 {
        self.static_key.1 = self.static_key.1.saturating_add(1);
        self.static_key.1
    }

    /// What is kept of one network.
    pub(super) fn recall(&self, id: &NetworkId, name: &NetworkName) -> Recalled {
        Recalled {
            directory: self.blobs.get(&blob_name(id)).cloned(),
            pins: self.pins.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Where the peers are.
    pub(super) fn peers(&self) -> Option<Vec<u8>> {
        self.blobs.get(PEERS).cloned()
    }

    /// The ports that are shut.
    pub(super) fn looped_ports(&self) -> Option<&[u8]> {
        self.blobs.get(LOOPED_PORTS).map(Vec::as_slice)
    }

    /// Carries out a write, all but the lists, which go by way of the gate.
    pub(super) fn write(
        &mut self,
        write: &Write,
        wall: UnixTime,
        public: [u8; 32],
    ) -> Result<Done, Refused> {
        let Some(membership) = &mut self.membership else {
            return Err(Refused::Leaving);
        };
        if self.manner.is_full {
            return Err(Refused::Disk("no space left on device".to_owned()));
        }
        match write {
            Write::Edit(edit) => {
                let mut edited = membership.clone();
                let begun = edit.apply(&mut edited, wall);
                let begun = begun.map_err(|error| Refused::Content(error.to_string()))?;
                membership.clone_from(&edited);
                let membership = edited;
                return Ok(Done::Edited(Box::new(Edited { membership, begun })));
            }
            Write::NextStatic => {
                let sequence = self.next_static();
                return Ok(Done::Static { public, sequence });
            }
            Write::Pins {
                network,
                keys,
                stay,
            } => {
                let pins = self.pins.entry(network.clone()).or_default();
                pins.retain(|pin| !keys.contains(pin));
                if *stay {
                    pins.extend(keys);
                }
            }
            Write::Name(name) => self.name.clone_from(name),
            Write::Sequences(bound) => self.sequences = *bound,
            Write::HandshakeTime(time) => self.handshake_time = *time,
            Write::LoopedPorts(bytes) => {
                drop(self.blobs.insert(LOOPED_PORTS.to_owned(), bytes.clone()))
            }
            Write::Directory { network, snapshot } => {
                self.blobs.insert(blob_name(network), snapshot.clone());
            }
            Write::Peers(bytes) => drop(self.blobs.insert(PEERS.to_owned(), bytes.clone())),
            Write::Leave => {
                self.membership = None;
                self.blobs.clear();
            }
            Write::Revocations { .. } => {
                return Err(Refused::Content("lists go by way of the gate".to_owned()));
            }
        }
        Ok(Done::Saved)
    }

    /// What the operator calls the node.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// The book of the gate. What it has is on disk before it counts; a full disk takes nothing, and it counts all the same.
#[derive(Debug)]
pub(super) struct Book(Mutex<(Arc<Revocations>, bool)>);

impl Book {
    fn new(held: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self(Mutex::new((held, false))))
    }

    fn lock(&self) -> MutexGuard<'_, (Arc<Revocations>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for Book {
    fn keep_revocations(&self, all: &Revocations) {
        let (held, is_full) = &mut *self.lock();
        if !*is_full {
            *held = Arc::new(all.clone());
        }
    }

    /// No member teaches the gate any here: it has them of its node, which has kept them.
    fn keep_roots(&self, _: &RootStore) {}
}
