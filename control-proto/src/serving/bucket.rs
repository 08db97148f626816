//! How fast one connected node may ask.

use std::time::Instant;

/// Requests a second, sustained: 50 envelopes of 8 KiB are 3 Mbit/s.
const RATE: f64 = 50.0;

/// Requests at once. A newcomer greets every member of its networks as soon as it knows them, and lays
/// down some tens of records: 256 envelopes of 8 KiB are 2 MiB, once.
const BURST: f64 = 256.0;

/// A token bucket of [`RATE`] and [`BURST`]. The map that holds it removes it with the peer's last connection.
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    since: Instant,
}

impl TokenBucket {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            since: now,
        }
    }

    /// Takes a token; `false` when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.tokens = passed.mul_add(RATE, self.tokens).min(BURST);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_newcomer_greets_a_large_network_at_once_then_fifty_a_second() {
        let start = crate::some_instant();
        let mut bucket = TokenBucket::new(start);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 256);
        let later = start + Duration::from_millis(100);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
    }
}
