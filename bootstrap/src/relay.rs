//! The relay's two sides: the data plane's thread owns its table ([`RelayDesk`]), the control planes
//! of all overlays ask it ([`RelayOffice`]) and wait for the answer, which takes one turn of the
//! thread.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control_proto::messages::{Allocation, RefusedReason};
use control_proto::serving::Relay;
use host_services::OsEntropy;
use nat_traversal::path::AllocationId;
use nat_traversal::relay::{RelayError, RelayGrant, RelayServer, RelayServerConfig};
use overlay_proto::ids::PeerId;

/// Orders that wait for the data plane; whoever brings one more waits.
const MAX_ORDERS: usize = 64;

/// How long an answer may take before the member is told to ask again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the control plane wants.
enum Order {
    Allocate {
        owner: [u8; 32],
        answer: SyncSender<Result<RelayGrant, RelayError>>,
    },
    Permit {
        owner: [u8; 32],
        allocation: AllocationId,
        peers: Vec<[u8; 32]>,
        answer: SyncSender<Result<(), RelayError>>,
    },
    Revoke {
        owner: [u8; 32],
    },
}

/// The relay where it works.
pub(crate) struct RelayDesk {
    pub(crate) server: RelayServer,
    /// Readable when an order may wait.
    pub(crate) waker: UnixStream,
    orders: Receiver<Order>,
}

/// The relay as the control planes see it.
pub(crate) struct RelayOffice {
    orders: SyncSender<Order>,
    bell: UnixStream,
    lifetime_s: u32,
}

/// A relay through which each member may send `mbit` Mbit/s.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn open(mbit: u32) -> Result<(RelayDesk, RelayOffice)> {
    let config = RelayServerConfig::with_rate(f64::from(mbit) * 125_000.0);
    let (bell, waker) = UnixStream::pair().context("no descriptors for the relay")?;
    bell.set_nonblocking(true)?;
    waker.set_nonblocking(true)?;
    let (sender, receiver) = sync_channel(MAX_ORDERS);
    let desk = RelayDesk {
        server: RelayServer::new(config),
        waker,
        orders: receiver,
    };
    let office = RelayOffice {
        orders: sender,
        bell,
        lifetime_s: u32::try_from(config.lifetime.as_secs()).unwrap_or(u32::MAX),
    };
    Ok((desk, office))
}

impl RelayDesk {
    /// Carries out all orders that wait.
    pub(crate) fn serve(&mut self, now: Instant) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.carry_out(now, order),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn carry_out(&mut self, now: Instant, order: Order) {
        // Whoever has given up waiting asks again: the same allocation is given again.
        match order {
            Order::Allocate { owner, answer } => {
                let grant = self.server.allocate(now, owner, &mut OsEntropy);
                let _ = answer.try_send(grant);
            }
            Order::Permit {
                owner,
                allocation,
                peers,
                answer,
            } => {
                let result = self.server.permit(now, owner, allocation, &peers);
                let _ = answer.try_send(result);
            }
            Order::Revoke { owner } => self.server.revoke_owner(&owner),
        }
    }
}

impl RelayOffice {
    /// Hands an order over, and wakes the thread.
    fn hand_over(&self, order: Order) -> Result<(), RefusedReason> {
        self.orders.send(order).map_err(|_| RefusedReason::Busy)?;
        // A full pipe wakes as well.
        let _ = (&self.bell).write(&[1]);
        Ok(())
    }

    /// Hands over an order that is answered, and waits for the answer.
    fn ask<T>(
        &self,
        order: impl FnOnce(SyncSender<Result<T, RelayError>>) -> Order,
    ) -> Result<T, RefusedReason> {
        let (answer, answered) = sync_channel(1);
        self.hand_over(order(answer))?;
        let answer = answered.recv_timeout(ANSWER_TIMEOUT);
        let answer = answer.map_err(|_| RefusedReason::Busy)?;
        answer.map_err(|error| refusal(&error))
    }
}

impl Relay for RelayOffice {
    fn allocate(&self, peer: PeerId) -> Result<Allocation, RefusedReason> {
        let owner = peer.0;
        let grant = self.ask(|answer| Order::Allocate { owner, answer })?;
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
        self.ask(|answer| Order::Permit {
            owner: peer.0,
            allocation,
            peers,
            answer,
        })
    }

    fn revoke(&self, peer: PeerId) {
        let _ = self.hand_over(Order::Revoke { owner: peer.0 });
    }
}

fn refusal(error: &RelayError) -> RefusedReason {
    match error {
        RelayError::Full => RefusedReason::Busy,
        _ => RefusedReason::Invalid,
    }
}
