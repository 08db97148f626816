//! Counters that workers and the slow path both increase.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::drop_reason::{DROP_REASON_COUNT, DropReason};

/// Drops by reason.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DROP_REASON_COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DROP_REASON_COUNT])
    }
}

impl DropCounters {
    /// Counts one drop.
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `n` drops.
    pub fn add(&self, reason: DropReason, n: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The count of one reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0
            .get(reason as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All reasons that occurred, with their counts.
    pub fn occurred(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|&reason| (reason, self.get(reason)))
            .filter(|&(_, n)| n > 0)
    }
}

/// Traffic with one peer, in guest frame bytes (Ethernet header included, no tunnel overhead).
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Bytes of frames sent.
    pub tx_bytes: AtomicU64,
    /// Frames sent.
    pub tx_frames: AtomicU64,
    /// Bytes of frames received.
    pub rx_bytes: AtomicU64,
    /// Frames received.
    pub rx_frames: AtomicU64,
}

impl PeerCounters {
    /// Counts one frame to the peer.
    pub fn sent(&self, bytes: usize) {
        self.sent_all(1, bytes);
    }

    /// Counts `frames` frames to the peer, of `bytes` bytes together.
    pub fn sent_all(&self, frames: usize, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tx_frames.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Counts one frame from the peer.
    pub fn received(&self, bytes: usize) {
        self.received_all(1, bytes);
    }

    /// Counts `frames` frames from the peer, of `bytes` bytes together.
    pub fn received_all(&self, frames: usize, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rx_frames.fetch_add(frames as u64, Ordering::Relaxed);
    }
}
