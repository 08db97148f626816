//! What a link does to packets, as data, and the seeded chance it draws from.

use std::time::Duration;

/// One direction of one site's access link, or both when used for both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkModel {
    /// Constant one-way delay.
    pub delay: Duration,
    /// Uniform extra delay in `0..jitter`. Order is kept.
    pub jitter: Duration,
    /// Chance that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Chance that a packet is held back for 5 ms and so overtaken by others, 0 to 1.
    pub reorder: f64,
    /// Bits per second; `None` means unlimited. The queue in front holds 100 ms.
    pub rate: Option<u64>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether a packet too large is answered with ICMP. A black hole when false.
    pub icmp_too_big: bool,
}

impl Default for LinkModel {
    /// 12.5 ms: two such links make 25 ms one way, 50 ms there and back.
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(12_500),
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            rate: None,
            mtu: 1500,
            icmp_too_big: true,
        }
    }
}

/// SplitMix64: small, seeded, good enough for loss and jitter.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The stream of draws that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with probability `p`.
    pub fn hit(&mut self, p: f64) -> bool {
        // No draw for certain outcomes: a lossless link leaves the stream of others alone.
        p > 0.0 && self.unit() < p
    }

    /// Uniform in `0..limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        if limit.is_zero() {
            limit
        } else {
            limit.mul_f64(self.unit())
        }
    }

    fn unit(&mut self) -> f64 {
        // 53 bits: what an f64 holds exactly.
        let bits = u32::try_from(self.next_u64() >> 32).unwrap_or(0);
        f64::from(bits) / f64::from(u32::MAX)
    }
}
