//! A token bucket with time as an argument.

use std::time::{Duration, Instant};

/// Refills with `per_second` tokens up to `burst`. Starts full.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) const fn new(now: Instant, per_second: f64, burst: f64) -> Self {
        Self {
            per_second,
            burst,
            tokens: burst,
            filled_at: now,
        }
    }

    /// Takes `cost` tokens if there are so many.
    pub(crate) fn take(&mut self, now: Instant, cost: f64) -> bool {
        let passed = now.saturating_duration_since(self.filled_at);
        if passed > Duration::ZERO {
            self.tokens = (passed.as_secs_f64())
                .mul_add(self.per_second, self.tokens)
                .min(self.burst);
            self.filled_at = now;
        }
        if self.tokens < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }
}
