//! What a host keeps while its node does not run: the state directory, and the book of its gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use node_core::control::GateState;
use node_core::node::files::{LOOPED_PORTS, PEERS, blob_name};
use node_core::node::networks::attaching::Recalled;
use node_core::store::{Done, Edited, Refused, Write};
use overlay_proto::ids::{NetworkId, NetworkName};
use overlay_proto::membership::{
    Chain, Membership, Revocations, RootStore, SignedPart, SignedRevocations,
};
use overlay_proto::switching::MacKey;
use overlay_proto::time::UnixTime;

use super::trouble::DiskManner;

/// The state directory. Bound: what a node writes, see [`Write`].
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) membership: Option<Membership>,
    /// The secret x25519 key, and the sequence of the newest signature over its public half.
    pub(super) static_key: ([u8; 32], u64),
    pub(super) sequences: u64,
    pub(super) handshake_time: u64,
    pub(super) revocations: Arc<Revocations>,
    pub(super) manner: DiskManner,
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
            revocations: Arc::default(),
            manner: DiskManner::default(),
            name: None,
            pins: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
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

/// What the gate of a running node goes by.
pub(super) struct Gate {
    pub(super) held: Arc<Revocations>,
    pub(super) roots: RootStore,
    pub(super) chain: Vec<u8>,
}

impl Gate {
    pub(super) fn new(state: GateState, held: Arc<Revocations>) -> Self {
        Self {
            held,
            roots: state.roots,
            chain: state.chain,
        }
    }

    /// What the node says. Of root documents the newer ones stay, and lists under a retired one are forgotten.
    pub(super) fn set(&mut self, state: GateState, disk: &mut Disk) {
        if state.roots.newest().version > self.roots.newest().version {
            self.roots = state.roots;
            let mut next = Revocations::clone(&self.held);
            if next.retain_trusted(&self.roots) {
                self.hold(next, disk);
            }
        }
        self.chain = state.chain;
    }

    /// Takes a list; it is on `disk` before it counts.
    ///
    /// # Errors
    /// It is malformed, or nobody known has signed it.
    pub(super) fn take(&mut self, list: &[u8], disk: &mut Disk) -> Result<Done, Refused> {
        let refused = |error: &dyn std::fmt::Display| Refused::Content(error.to_string());
        let list = SignedRevocations::decode(list).map_err(|error| refused(&error))?;
        let mut next = Revocations::clone(&self.held);
        let taken = next
            .take(list, &self.roots)
            .map_err(|error| refused(&error))?;
        self.hold(next, disk);
        Ok(Done::Taken(taken))
    }

    /// What is held counts also where the disk refuses.
    fn hold(&mut self, next: Revocations, disk: &mut Disk) {
        if next != *self.held {
            self.held = Arc::new(next);
            if !disk.manner.is_full {
                disk.revocations = Arc::clone(&self.held);
            }
        }
    }

    /// A bootstrap lets the node in: with the receipt, if it has none.
    ///
    /// # Errors
    /// The receipt is missing, or does not count.
    pub(super) fn take_receipt(
        &mut self,
        receipt: Option<SignedPart>,
        wall: UnixTime,
    ) -> Result<()> {
        let chain = Chain::decode(&self.chain)?;
        if chain.has_receipt() {
            return Ok(());
        }
        let receipt = receipt.context("this node is no member yet")?;
        let chain = chain.with_receipt(receipt);
        chain.verify(&self.roots, wall)?;
        self.chain = chain.encode();
        Ok(())
    }
}
