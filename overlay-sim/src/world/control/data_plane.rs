//! Reflector and relay of a bootstrap, behind UDP on the virtual network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use control_proto::messages::{Allocation, RefusedReason};
use control_proto::serving::Relay;
use nat_traversal::path::AllocationId;
use nat_traversal::reflector::{KIND_REQUEST, ReflectorLimiter};
use nat_traversal::relay::{
    KIND_ACK, KIND_BIND, KIND_RELAYED, RelayError, RelayServer, RelayServerConfig,
};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::PeerId;

use crate::net::topology::{Delivery, HostId};
use crate::world::Surroundings;

/// The machines of `bootstrap/src/data_plane/`, without its thread.
pub(super) struct DataPlane {
    relay: RelayServer,
    limiter: ReflectorLimiter,
    entropy: SeededEntropy,
    /// At which own address whoever bound an allocation was heard. Bound: the hosts' bindings.
    ways: BTreeMap<SocketAddr, SocketAddr>,
}

impl DataPlane {
    pub(super) fn new(entropy: SeededEntropy, now: Instant) -> Self {
        Self {
            relay: RelayServer::new(RelayServerConfig::default()),
            limiter: ReflectorLimiter::new(now),
            entropy,
            ways: BTreeMap::new(),
        }
    }

    /// Its process restarts.
    pub(super) fn restart(&mut self) {
        self.relay = RelayServer::new(RelayServerConfig::default());
        self.ways.clear();
    }

    /// Allocations that were not kept alive lapse.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.relay.handle_timeout(now);
    }

    /// The relay as the control plane sees it.
    pub(super) fn desk(&mut self, now: Instant) -> Desk<'_> {
        Desk {
            now,
            plane: RefCell::new(self),
        }
    }

    /// A datagram for reflector or relay of the bootstrap on `host`.
    pub(super) fn arrive(
        &mut self,
        around: &mut Surroundings,
        host: HostId,
        Delivery {
            local,
            source,
            mut bytes,
            ..
        }: Delivery,
    ) {
        let now = around.clock.instant();
        let (from, to, bytes) = match bytes.first() {
            Some(&KIND_REQUEST) => match self.limiter.answer(now, source, &bytes) {
                Ok(answer) => (local, source, answer.to_vec()),
                Err(_) => return,
            },
            Some(&(KIND_BIND | KIND_RELAYED)) => {
                let entropy = &mut self.entropy;
                let Ok(out) = self.relay.handle_datagram(now, entropy, source, &mut bytes) else {
                    return;
                };
                if out.bytes.first() == Some(&KIND_ACK) {
                    self.ways.insert(source, local);
                }
                let from = self.ways.get(&out.to).copied().unwrap_or(local);
                (from, out.to, out.bytes.to_vec())
            }
            _ => return,
        };
        // What is lost is lost.
        let _ = around.net.send(around.clock.now(), host, from, to, bytes);
    }
}

/// The relay for one call.
pub(super) struct Desk<'a> {
    now: Instant,
    plane: RefCell<&'a mut DataPlane>,
}

impl Relay for Desk<'_> {
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason> {
        let DataPlane { relay, entropy, .. } = &mut **self.plane.borrow_mut();
        let grant = relay.allocate(self.now, peer.0, entropy);
        let grant = grant.map_err(|error| refusal(&error))?;
        let lifetime = RelayServerConfig::default().lifetime;
        Ok(Allocation {
            id: grant.allocation,
            key: grant.key.0,
            lifetime_s: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        })
    }

    fn permit(
        &self,
        peer: PeerId,
        allocation: AllocationId,
        peers: &[PeerId],
    ) -> Result<(), RefusedReason> {
        let peers: Vec<_> = peers.iter().map(|peer| peer.0).collect();
        let relay = &mut self.plane.borrow_mut().relay;
        let permitted = relay.permit(self.now, peer.0, allocation, &peers);
        permitted.map_err(|error| refusal(&error))
    }

    fn revoke(&self, peer: PeerId) {
        self.plane.borrow_mut().relay.revoke_owner(&peer.0);
    }
}

fn refusal(error: &RelayError) -> RefusedReason {
    match error {
        RelayError::Full => RefusedReason::Busy,
        _ => RefusedReason::Invalid,
    }
}
