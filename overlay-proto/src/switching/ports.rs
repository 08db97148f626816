//! By which port of this host a MAC is reached, and what the port cost (docs/adr/0045-ports.md).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a port in this run of the node. Given once and never again; not on the wire, not on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

impl PortId {
    /// No port: all MACs of a network whose port is not known are charged to it together.
    pub const NEWCOMERS: Self = Self(0);
}

/// What a port, or the newcomers of a network, cost this node. In frames; a GSO frame is one.
#[derive(Debug, Default)]
pub struct PortCounters {
    punted: AtomicU64,
    refused: AtomicU64,
}

impl PortCounters {
    /// A frame of it is the slow path's.
    pub fn count_punted(&self) {
        self.punted.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame of it was dropped because of what it is.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames that the slow path had to decide.
    #[must_use]
    pub fn punted(&self) -> u64 {
        self.punted.load(Ordering::Relaxed)
    }

    /// Frames that were dropped because of what they are.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A port as the fast path sees it.
#[derive(Debug, Clone, Copy)]
pub struct FibPort<'a> {
    /// Its name.
    pub id: PortId,
    /// Whom its frames are charged to; the same while the port is there.
    pub counters: &'a Arc<PortCounters>,
}

/// The ports of one network. Bound: those of its attachment.
#[derive(Debug, Clone, Default)]
pub struct FibPorts {
    /// Who is charged for MACs whose port is not known.
    pub newcomers: Arc<PortCounters>,
    /// By their names.
    pub known: BTreeMap<PortId, Arc<PortCounters>>,
}

impl FibPorts {
    /// The port `id`; the newcomers for one that is not there.
    #[must_use]
    pub fn get(&self, id: PortId) -> FibPort<'_> {
        match self.known.get(&id) {
            Some(counters) => FibPort { id, counters },
            None => FibPort {
                id: PortId::NEWCOMERS,
                counters: &self.newcomers,
            },
        }
    }
}
