//! How many connections may be on their way through crypto and admission at once.
//!
//! A newcomer for whom there is no room takes the place of the oldest one that has not said its hello: who
//! opens connections and says nothing keeps nobody out. TCP and QUIC have a pool each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Pending inbound connections of a transport: each holds a few tens of KiB for at most five seconds.
pub(super) const MAX_PENDING: usize = 128;

/// Pending inbound connections of one source network: an IPv4 /24 or an IPv6 /56, what one site is
/// usually given.
pub(super) const MAX_PENDING_PER_SOURCE: usize = 16;

/// Those on their way by one transport, the oldest first. An entry is removed with its [`Slot`], so that
/// the map holds at most [`MAX_PENDING`], and for a moment those that make room.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<Pool>>);

#[derive(Debug, Default)]
struct Pool {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    network: Option<IpAddr>,
    said_hello: bool,
    /// Told to make room.
    out: Option<oneshot::Sender<()>>,
}

impl Pending {
    /// A slot for a connection from `source`, perhaps that of another one, which [`Slot::lost`] tells
    /// so; `None` when all have said their hello.
    pub(super) fn enter(&self, source: Option<IpAddr>) -> Option<Slot> {
        let network = source.map(network_of);
        let mut pool = self.lock();
        let own = pool.count(|one| one.network == network);
        if own >= MAX_PENDING_PER_SOURCE {
            pool.make_room(|one| one.network == network)?;
        } else if pool.count(|_| true) >= MAX_PENDING {
            pool.make_room(|_| true)?;
        }
        let number = pool.next;
        pool.next += 1;
        let (out, lost) = oneshot::channel();
        let waiting = Waiting {
            network,
            said_hello: false,
            out: Some(out),
        };
        pool.waiting.insert(number, waiting);
        Some(Slot {
            pending: self.clone(),
            number,
            lost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Those of them that have not been told to go.
    fn count(&self, which: impl Fn(&Waiting) -> bool) -> usize {
        let staying = self.waiting.values().filter(|one| one.out.is_some());
        staying.filter(|one| which(one)).count()
    }

    /// Tells the oldest of them that has said nothing to go.
    fn make_room(&mut self, which: impl Fn(&Waiting) -> bool) -> Option<()> {
        let silent = |one: &&mut Waiting| one.out.is_some() && !one.said_hello && which(one);
        let out = self.waiting.values_mut().find(silent)?.out.take()?;
        // It may be going by itself.
        let _ = out.send(());
        Some(())
    }
}

/// A place among the pending; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pending: Pending,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Slot {
    /// The other side has said its hello: it keeps its place.
    pub(super) fn note_hello(&self) -> HelloNote {
        HelloNote {
            pending: self.pending.clone(),
            number: self.number,
        }
    }

    /// Completes when the place went to a newer connection.
    pub(super) async fn lost(&mut self) {
        // The sender goes with the slot, or when it tells.
        let _ = (&mut self.lost).await;
    }
}

/// Notes that the connection of a [`Slot`] has said its hello.
#[derive(Debug)]
pub(super) struct HelloNote {
    pending: Pending,
    number: u64,
}

impl HelloNote {
    pub(super) fn said(&self) {
        if let Some(one) = self.pending.lock().waiting.get_mut(&self.number) {
            one.said_hello = true;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pending.lock().waiting.remove(&self.number);
    }
}

fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & 0xffff_ff00).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & (u128::MAX << 72)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    fn is_lost(slot: &mut Slot) -> bool {
        slot.lost.try_recv().is_ok()
    }

    #[test]
    fn trust_7_pending_is_bounded_per_source() {
        let pending = Pending::default();
        let held: Vec<_> = (0..16).map(|n| pending.enter(ip(n)).unwrap()).collect();
        held.iter().for_each(|slot| slot.note_hello().said());
        assert!(pending.enter(ip(200)).is_none());
        assert!(pending.enter(Some([198, 51, 100, 1].into())).is_some());
        drop(held);
        assert!(pending.enter(ip(200)).is_some());
        assert!(pending.lock().waiting.is_empty());
    }

    #[test]
    fn many_sources_cannot_pass_the_total() {
        let pending = Pending::default();
        let held: Vec<_> = (0..=255)
            .filter_map(|n| {
                let slot = pending.enter(Some([10, 0, n, 1].into()))?;
                slot.note_hello().said();
                Some(slot)
            })
            .collect();
        assert_eq!(held.len(), MAX_PENDING);
    }

    #[test]
    fn the_oldest_that_says_nothing_makes_room() {
        let pending = Pending::default();
        let mut idle: Vec<_> = (0..128)
            .map(|n| pending.enter(Some([10, 0, n, 1].into())).unwrap())
            .collect();
        idle[0].note_hello().said();
        let member = pending.enter(ip(1)).unwrap();
        assert!(!is_lost(&mut idle[0]) && is_lost(&mut idle[1]) && !is_lost(&mut idle[2]));
        // The one that was told to go is not told twice.
        let second = pending.enter(ip(2)).unwrap();
        assert!(is_lost(&mut idle[2]) && !is_lost(&mut idle[3]));
        drop((member, second));
        // Of one network, its own oldest.
        let mut near: Vec<_> = (0..16).map(|n| pending.enter(ip(n)).unwrap()).collect();
        let _next = pending.enter(ip(99)).unwrap();
        assert!(is_lost(&mut near[0]) && !is_lost(&mut near[1]));
    }

    #[test]
    fn ipv6_sources_are_56_bits() {
        let net = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(net("2001:db8:0:1::1"), net("2001:db8:0:ff::2"));
        assert_ne!(net("2001:db8:0:1::1"), net("2001:db8:0:100::1"));
    }
}
