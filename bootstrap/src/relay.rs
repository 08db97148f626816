//! The relay, shared between the data plane and the control planes of all overlays.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use control_plane::InfraService;
use control_plane::messages::{Allocation, RefusedReason};
use nat_traversal::entropy::Entropy;
use nat_traversal::path::AllocationId;
use nat_traversal::relay::{RelayError, RelayServer, RelayServerConfig};
use overlay_proto::ids::PeerId;

/// The relay behind a lock that is held for one datagram or one request.
pub(crate) struct SharedRelay {
    server: Mutex<RelayServer>,
    lifetime_s: u32,
}

impl SharedRelay {
    /// A relay through which each member may send `mbit` Mbit/s.
    pub(crate) fn new(mbit: u32) -> Self {
        let config = RelayServerConfig {
            bytes_per_second: f64::from(mbit) * 125_000.0,
            ..RelayServerConfig::default()
        };
        Self {
            server: Mutex::new(RelayServer::new(config)),
            lifetime_s: u32::try_from(config.lifetime.as_secs()).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, RelayServer> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InfraService for SharedRelay {
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason> {
        let grant = self
            .lock()
            .allocate(Instant::now(), peer.0, &mut OsEntropy)
            .map_err(|error| refusal(&error))?;
        Ok(Allocation {
            id: grant.allocation,
            key: grant.key.0,
            lifetime_s: self.lifetime_s,
        })
    }

    fn permit(
        &self,
        peer: PeerId,
        allocation: AllocationId,
        peers: &[PeerId],
    ) -> Result<(), RefusedReason> {
        let peers: Vec<_> = peers.iter().map(|peer| peer.0).collect();
        self.lock()
            .permit(Instant::now(), peer.0, allocation, &peers)
            .map_err(|error| refusal(&error))
    }

    fn revoke(&self, peer: PeerId) {
        self.lock().revoke_owner(&peer.0);
    }
}

fn refusal(error: &RelayError) -> RefusedReason {
    match error {
        RelayError::Full => RefusedReason::Busy,
        _ => RefusedReason::Invalid,
    }
}

/// The operating system's randomness. Keys are made from it, so the program ends without it.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            tracing::error!(%error, "the operating system gives no randomness");
            std::process::abort();
        }
    }
}
