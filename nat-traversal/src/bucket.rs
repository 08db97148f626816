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
        if self.available(now) < cost {
            return false;
        }
        self.tokens -= cost;
        true
    }

    /// The tokens that there are.
    pub(crate) fn available(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled_at);
        if passed > Duration::ZERO {
            self.tokens = (passed.as_secs_f64())
                .mul_add(self.per_second, self.tokens)
                .min(self.burst);
            self.filled_at = now;
        }
        self.tokens
    }

    /// When there will be `cost` tokens, if none are taken: at most an hour ahead.
    pub(crate) fn ready_at(&self, cost: f64) -> Instant {
        const HOUR_S: f64 = 3_600.0;
        let missing = (cost - self.tokens).max(0.0);
        let seconds = (missing / self.per_second).min(HOUR_S);
        // One nanosecond more than computed: rounding down would wake too early.
        self.filled_at + Duration::from_secs_f64(seconds.max(0.0)) + Duration::from_nanos(1)
    }
}
