//! How many connections may be on their way through crypto and admission at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Pending inbound connections in all: each holds a few tens of KiB for at most five seconds.
pub(super) const MAX_PENDING: usize = 128;

/// Pending inbound connections of one source network: an IPv4 /24 or an IPv6 /56, what one site is
/// usually given.
pub(super) const MAX_PENDING_PER_SOURCE: usize = 16;

/// Counts those on their way. An entry is removed with its last [`Slot`], so that the map holds
/// at most [`MAX_PENDING`].
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

impl Pending {
    /// A slot for a connection from `source`; `None` when there is no room.
    pub(super) fn enter(&self, source: Option<IpAddr>) -> Option<Slot> {
        let network = source.map(network_of);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = counts.values().sum();
        let own = counts.get(&network).copied().unwrap_or(0);
        if total >= MAX_PENDING || own >= MAX_PENDING_PER_SOURCE {
            return None;
        }
        counts.insert(network, own + 1);
        Some(Slot {
            pending: self.clone(),
            network,
        })
    }
}

/// A place among the pending; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    pending: Pending,
    network: Option<IpAddr>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self
            .pending
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
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

    #[test]
    fn trust_7_pending_is_bounded_per_source() {
        let pending = Pending::default();
        let ip = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
        let held: Vec<_> = (0..16).map(|n| pending.enter(ip(n)).unwrap()).collect();
        assert!(pending.enter(ip(200)).is_none());
        assert!(pending.enter(Some([198, 51, 100, 1].into())).is_some());
        drop(held);
        assert!(pending.enter(ip(200)).is_some());
        assert!(pending.0.lock().unwrap().is_empty());
    }

    #[test]
    fn many_sources_cannot_pass_the_total() {
        let pending = Pending::default();
        let held: Vec<_> = (0..=255)
            .filter_map(|n| pending.enter(Some([10, 0, n, 1].into())))
            .collect();
        assert_eq!(held.len(), MAX_PENDING);
    }

    #[test]
    fn ipv6_sources_are_56_bits() {
        let net = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(net("2001:db8:0:1::1"), net("2001:db8:0:ff::2"));
        assert_ne!(net("2001:db8:0:1::1"), net("2001:db8:0:100::1"));
    }
}
