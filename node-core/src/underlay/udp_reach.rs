//! Which addresses of the bootstraps answer by UDP.
//!
//! A bootstrap may be up over TCP while every frame's datagram is dropped on the way. The reflector
//! client asks each address again and again; here is what came of the last round.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What became of the last round of questions to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpAnswer {
    /// No round has ended yet.
    Awaited,
    /// It answered.
    Answers,
    /// It was silent in the whole round, 3.5 s.
    Silent,
}

/// By the reflector's address. Bound: those that are asked, `nat_traversal`'s `MAX_REFLECTORS`.
#[derive(Debug, Default)]
pub(super) struct UdpReach {
    by: BTreeMap<SocketAddr, UdpAnswer>,
}

impl UdpReach {
    /// Exactly these are asked from now on.
    pub(super) fn set(&mut self, asked: &[SocketAddr]) {
        self.by.retain(|addr, _| asked.contains(addr));
        for addr in asked {
            self.by.entry(*addr).or_insert(UdpAnswer::Awaited);
        }
    }

    /// A round at `addr` has ended.
    pub(super) fn note(&mut self, addr: SocketAddr, answered: bool) {
        if let Some(answer) = self.by.get_mut(&addr) {
            *answer = if answered {
                UdpAnswer::Answers
            } else {
                UdpAnswer::Silent
            };
        }
    }

    /// What is known of a host with these addresses: one that answers is enough.
    pub(super) fn of(&self, addrs: &[SocketAddr]) -> UdpAnswer {
        let mut known = addrs.iter().filter_map(|addr| self.by.get(addr)).peekable();
        if known.peek().is_none() {
            return UdpAnswer::Awaited;
        }
        let known: Vec<UdpAnswer> = known.copied().collect();
        for answer in [UdpAnswer::Answers, UdpAnswer::Awaited] {
            if known.contains(&answer) {
                return answer;
            }
        }
        UdpAnswer::Silent
    }

    /// All were asked, and none answers.
    pub(super) fn is_blocked(&self) -> bool {
        !self.by.is_empty() && self.by.values().all(|one| *one == UdpAnswer::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_that_answers_is_enough() {
        let [first, second]: [SocketAddr; 2] =
            ["192.0.2.1:22611", "[2001:db8::1]:22611"].map(|addr| addr.parse().unwrap());
        let mut reach = UdpReach::default();
        assert!(!reach.is_blocked());
        reach.set(&[first, second]);
        reach.note(first, false);
        assert_eq!(reach.of(&[first]), UdpAnswer::Silent);
        assert_eq!(reach.of(&[first, second]), UdpAnswer::Awaited);
        assert!(!reach.is_blocked());
        reach.note(second, false);
        assert!(reach.is_blocked());
        reach.note(second, true);
        assert_eq!(reach.of(&[first, second]), UdpAnswer::Answers);
        reach.set(&[first]);
        assert!(reach.is_blocked());
    }
}
