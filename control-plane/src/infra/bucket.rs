//! How fast one connected node may ask.

use std::time::Instant;

/// Requests a second, sustained and at once. A node that starts sends some tens of records and
/// envelopes; 50 envelopes of 8 KiB are 3 Mbit/s.
const RATE: f64 = 50.0;

/// A token bucket of [`RATE`]. The map that holds it removes it with the peer's last connection.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    tokens: f64,
    since: Instant,
}

impl TokenBucket {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            tokens: RATE,
            since: now,
        }
    }

    /// Takes a token; `false` when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.tokens = passed.mul_add(RATE, self.tokens).min(RATE);
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
    fn fifty_a_second() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 50);
        let later = start + Duration::from_millis(100);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
    }
}
