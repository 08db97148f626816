//! The retransmission timeout (RFC 6298).

use std::time::Duration;

/// Smoothed round-trip time and its variation, once measured.
#[derive(Debug)]
pub(super) struct Rtt {
    smoothed: Option<(Duration, Duration)>,
    min_timeout: Duration,
    max_timeout: Duration,
}

impl Rtt {
    pub(super) const fn new(min_timeout: Duration, max_timeout: Duration) -> Self {
        Self {
            smoothed: None,
            min_timeout,
            max_timeout,
        }
    }

    /// A message came back acknowledged after `rtt`; more than the longest timeout counts as that.
    pub(super) fn sample(&mut self, rtt: Duration) {
        let rtt = rtt.min(self.max_timeout);
        self.smoothed = Some(match self.smoothed {
            None => (rtt, rtt / 2),
            Some((mean, variation)) => (
                (mean * 7 + rtt) / 8,
                (variation * 3 + mean.abs_diff(rtt)) / 4,
            ),
        });
    }

    /// How long to wait for the acknowledgement of a message that was repeated `repeats` times.
    pub(super) fn timeout(&self, repeats: u32) -> Duration {
        let base = self.smoothed.map_or(self.min_timeout, |(mean, variation)| {
            (mean + variation * 4).max(self.min_timeout)
        });
        base.saturating_mul(1 << repeats.min(16))
            .min(self.max_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn doubles_from_the_floor_to_the_ceiling() {
        let rtt = Rtt::new(MS(200), MS(3000));
        let timeouts: Vec<_> = (0..6).map(|repeats| rtt.timeout(repeats)).collect();
        assert_eq!(timeouts, [200, 400, 800, 1600, 3000, 3000].map(MS));
        assert_eq!(rtt.timeout(u32::MAX), MS(3000));
    }

    #[test]
    fn follows_the_path() {
        let mut rtt = Rtt::new(MS(200), MS(3000));
        rtt.sample(MS(10));
        assert_eq!(rtt.timeout(0), MS(200));
        for _ in 0..50 {
            rtt.sample(MS(400));
        }
        let timeout = rtt.timeout(0);
        assert!(timeout > MS(390) && timeout < MS(450), "{timeout:?}");
    }
}
