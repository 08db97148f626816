//! How much may be sent to an address that has not answered (TRUST.md 19): 20 packets a minute,
//! over all peers, so that no peer and no set of peers can aim a host at a victim.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bucket::TokenBucket;

/// Packets a minute to one silent address.
const PER_MINUTE: f64 = 20.0;
/// An answer lifts the limit for so long.
const TRUSTED: Duration = Duration::from_secs(120);
/// Addresses of one generation; two are kept, at most 8,192 addresses, under 1 MiB.
const GENERATION: usize = 4_096;

#[derive(Debug)]
struct Destination {
    bucket: TokenBucket,
    answered: Option<Instant>,
}

/// The budget of one node, shared by its agents. The driver owns it and lends it to
/// [`super::PathAgent::poll_transmit`]. Bounded: when a generation is full the one before is
/// forgotten.
#[derive(Debug, Default)]
pub struct ProbeBudget {
    young: BTreeMap<IpAddr, Destination>,
    old: BTreeMap<IpAddr, Destination>,
}

impl ProbeBudget {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether one more packet may go to `ip`; counts it. Ports share: the address is the victim.
    pub fn take(&mut self, now: Instant, ip: IpAddr) -> bool {
        let Some(own) = self.destination(now, ip) else {
            return false;
        };
        let trusted = own
            .answered
            .is_some_and(|at| now.saturating_duration_since(at) < TRUSTED);
        trusted || own.bucket.take(now, 1.0)
    }

    /// `ip` has answered a challenge.
    pub fn answered(&mut self, now: Instant, ip: IpAddr) {
        if let Some(own) = self.destination(now, ip) {
            own.answered = Some(now);
        }
    }

    fn destination(&mut self, now: Instant, ip: IpAddr) -> Option<&mut Destination> {
        let ip = ip.to_canonical();
        if !self.young.contains_key(&ip) {
            if self.young.len() >= GENERATION {
                self.old = std::mem::take(&mut self.young);
            }
            let known = self.old.remove(&ip).unwrap_or_else(|| Destination {
                bucket: TokenBucket::new(now, PER_MINUTE / 60.0, PER_MINUTE),
                answered: None,
            });
            self.young.insert(ip, known);
        }
        self.young.get_mut(&ip)
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
mod tests {
    use super::*;

    #[test]
    fn trust_19_twenty_packets_a_minute_until_it_answers() {
        let now = Instant::now();
        let ip: IpAddr = "192.0.2.5".parse().unwrap();
        let mut budget = ProbeBudget::new();
        assert_eq!((0..100).filter(|_| budget.take(now, ip)).count(), 20);
        assert!(budget.take(now + Duration::from_secs(4), ip));
        budget.answered(now, ip);
        assert_eq!((0..100).filter(|_| budget.take(now, ip)).count(), 100);
        let later = now + TRUSTED + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.take(later, ip)).count(), 20);
    }
}
