//! How often a reflector answers: per IPv4 /24, per IPv6 /56, and in all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{MESSAGE_LEN, ReflectorError, decode_request, encode_response};
use crate::bucket::TokenBucket;

/// Answers a second for one prefix. A node asks about four addresses every 25 s, so this serves
/// 125 nodes behind one /24.
const PREFIX_PER_SECOND: f64 = 20.0;
/// Answers at once for one prefix: a site that starts together after a power cut.
const PREFIX_BURST: f64 = 100.0;
/// Answers a second in all: under 0.5 MB/s.
const TOTAL_PER_SECOND: f64 = 10_000.0;
/// Prefixes of one generation. Two are kept: at most 16,384 prefixes, about 1.5 MiB.
const GENERATION: usize = 8_192;

/// Judges and answers requests. Bounded: when 8,192 prefixes are full, the generation
/// before is forgotten, so that made-up sources cannot fill the memory.
#[derive(Debug)]
pub struct ReflectorLimiter {
    total: TokenBucket,
    young: BTreeMap<u64, TokenBucket>,
    old: BTreeMap<u64, TokenBucket>,
}

impl ReflectorLimiter {
    /// A limiter that has seen nobody.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            total: TokenBucket::new(now, TOTAL_PER_SECOND, TOTAL_PER_SECOND),
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }

    /// The answer to the request `bytes` from `from`, to be sent back to `from`.
    ///
    /// # Errors
    ///
    /// [`ReflectorError::Malformed`] or [`ReflectorError::Limited`]: stay silent.
    pub fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<[u8; MESSAGE_LEN], ReflectorError> {
        let id = decode_request(bytes)?;
        if self.admit(now, from.ip()) {
            Ok(encode_response(id, from))
        } else {
            Err(ReflectorError::Limited)
        }
    }

    /// Whether one more request from `ip` is answered; counts it.
    pub fn admit(&mut self, now: Instant, ip: IpAddr) -> bool {
        let key = prefix(ip);
        if !self.young.contains_key(&key) {
            if self.young.len() >= GENERATION {
                self.old = std::mem::take(&mut self.young);
            }
            let bucket = self.old.remove(&key);
            let fresh = || TokenBucket::new(now, PREFIX_PER_SECOND, PREFIX_BURST);
            self.young.insert(key, bucket.unwrap_or_else(fresh));
        }
        let own = self.young.get_mut(&key);
        own.is_some_and(|bucket| bucket.take(now, 1.0)) && self.total.take(now, 1.0)
    }
}

/// The /24 or /56 as a number; bit 63 tells the families apart.
fn prefix(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (1 << 63) | u64::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 72).unwrap_or(0),
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::reflector::{TransactionId, decode_response, encode_request};

    #[test]
    fn trust_20_answers_are_never_answered() {
        let now = Instant::now();
        let from = "192.0.2.9:4000".parse().unwrap();
        let mut limiter = ReflectorLimiter::new(now);
        let request = encode_request(TransactionId([7; 12]));
        let answer = limiter.answer(now, from, &request).unwrap();
        assert_eq!(decode_response(&answer), Ok((TransactionId([7; 12]), from)));
        let again = limiter.answer(now, from, &answer);
        assert_eq!(
            again,
            Err(ReflectorError::Malformed),
            "answers are never answered"
        );
    }

    #[test]
    fn trust_20_a_prefix_shares_one_bucket_and_refills() {
        let now = Instant::now();
        let mut limiter = ReflectorLimiter::new(now);
        let admitted = (0..=255u8)
            .filter(|last| limiter.admit(now, Ipv4Addr::new(192, 0, 2, *last).into()))
            .count();
        assert_eq!(admitted, 100);
        assert!(limiter.admit(now, Ipv4Addr::new(192, 0, 3, 1).into()));
        assert!(limiter.admit(
            now + Duration::from_secs(1),
            Ipv4Addr::new(192, 0, 2, 1).into()
        ));
    }

    #[test]
    fn made_up_sources_do_not_fill_the_memory() {
        let now = Instant::now();
        let mut limiter = ReflectorLimiter::new(now);
        for n in 0..40_000u32 {
            limiter.admit(now, Ipv4Addr::from_bits(n << 8).into());
        }
        assert!(limiter.young.len() + limiter.old.len() <= 2 * GENERATION);
    }
}
