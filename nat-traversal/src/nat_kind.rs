//! What the reflexive addresses say about the NAT, in the terms of RFC 4787.
//!
//! Only what is shown is claimed: two ports of one reflector prove dependence on the port, never
//! independence of the address. The kind adds rungs to the ladder, it never takes one away.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::candidate::is_private;
use crate::path::SocketId;
use crate::wire_bytes::canonical;

/// Observers kept. A reflector takes the place of the oldest peer; a peer that of one whose observation counts no
/// more, and else it is not kept: with more peers than places the list would be another one with each answer.
const MAX_OBSERVERS: usize = 32;
/// Observations that far apart may straddle a change of the mapping and are not compared. Two
/// rounds of the reflector client and its retries.
const COMPARABLE: Duration = Duration::from_secs(60);
/// An observation is current for this long: three rounds of the reflector client less its jitter. Direct peers
/// answer every 15 s.
const CURRENT: Duration = Duration::from_secs(75);
/// Outer addresses of a socket that are told to others. Behind a NAT that maps by destination there are as
/// many as observers, and none is of use to anybody else.
const MAX_TOLD: usize = 4;

/// How the NAT chooses the outer address (RFC 4787 section 4.1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// One outer address for all destinations.
    EndpointIndependent,
    /// Another outer address for another destination address. Whether the port matters as well
    /// was not seen.
    AddressDependent,
    /// Another outer address for another destination port.
    AddressAndPortDependent,
    /// No NAT: the outer address is the socket's own.
    None,
    /// Not enough was seen.
    #[default]
    Unknown,
}

/// Whose packets the NAT lets in (RFC 4787 section 5).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// Anybody's, once the mapping exists.
    EndpointIndependent,
    /// Those of addresses that were sent to.
    AddressDependent,
    /// Those of address and port that were sent to.
    AddressAndPortDependent,
    /// Nothing filters.
    None,
    /// Not shown.
    #[default]
    Unknown,
}

macro_rules! names {
    ($kind:ty) => {
        impl $kind {
            /// The name in `farlan status --json`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::EndpointIndependent => "endpoint-independent",
                    Self::AddressDependent => "address-dependent",
                    Self::AddressAndPortDependent => "address-and-port-dependent",
                    Self::None => "none",
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}
names!(Mapping);
names!(Filtering);

impl Mapping {
    /// Whether a peer cannot guess the outer address from what others see.
    #[must_use]
    pub const fn is_dependent(self) -> bool {
        matches!(self, Self::AddressDependent | Self::AddressAndPortDependent)
    }
}

/// Who sees a socket's outer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observer {
    /// A reflector of the overlay.
    Reflector,
    /// An authenticated direct peer, which may say what it likes.
    Peer,
}

/// Collects what reflectors and peers see of one socket.
#[derive(Debug, Default)]
pub struct NatKind {
    local: Vec<SocketAddr>,
    /// By the observer's address. At most [`MAX_OBSERVERS`].
    seen: BTreeMap<SocketAddr, Seen>,
    unasked: bool,
}

/// What an observer saw.
#[derive(Debug, Clone, Copy)]
struct Seen {
    by: Observer,
    observed: SocketAddr,
    at: Instant,
    /// It has not been silent since.
    confirmed: bool,
}

impl NatKind {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of the host's interfaces with the socket's port. A change forgets the rest:
    /// the host may be in another network now.
    pub fn set_local(&mut self, local: &[SocketAddr]) {
        let local: Vec<_> = local.iter().map(|addr| canonical(*addr)).collect();
        if local != self.local {
            *self = Self {
                local,
                ..Self::default()
            };
        }
    }

    /// The observer at `observer` sees the socket at `observed`.
    pub fn handle_observation(
        &mut self,
        now: Instant,
        (by, observer): (Observer, SocketAddr),
        observed: SocketAddr,
    ) {
        let observed = canonical(observed);
        let seen = Seen {
            by,
            observed,
            at: now,
            confirmed: true,
        };
        let observer = canonical(observer);
        if self.seen.contains_key(&observer) || self.make_room(now, by) {
            self.seen.insert(observer, seen);
        }
    }

    /// Is there a place for a new observer of this kind?
    fn make_room(&mut self, now: Instant, by: Observer) -> bool {
        if self.seen.len() < MAX_OBSERVERS {
            return true;
        }
        // Peers before reflectors, then by age.
        let oldest = self
            .seen
            .iter()
            .min_by_key(|(_, seen)| (seen.by == Observer::Reflector, seen.at));
        let Some((&oldest, seen)) = oldest else {
            return true;
        };
        let counts = now.saturating_duration_since(seen.at) <= COMPARABLE;
        let room = by == Observer::Reflector || !counts;
        if room {
            self.seen.remove(&oldest);
        }
        room
    }

    /// An authentic datagram came from an address that nothing was ever sent to.
    pub const fn handle_unasked(&mut self) {
        self.unasked = true;
    }

    /// The kind of mapping that the observations prove.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        let is_local = |seen: &Seen| self.local.contains(&seen.observed);
        let (seen_bare, seen_translated): (Vec<_>, Vec<_>) =
            self.recent().partition(|(_, seen)| is_local(seen));
        if seen_translated.is_empty() {
            return if seen_bare.is_empty() {
                Mapping::Unknown
            } else {
                Mapping::None
            };
        }
        let recent = self.through_the_same_nat(seen_translated);
        let (mut port_matters, mut address_matters, mut independent) = (false, false, false);
        for (index, (observer, seen)) in recent.iter().enumerate() {
            for (other, other_seen) in recent.iter().skip(index + 1) {
                let same_host = observer.ip() == other.ip();
                match (same_host, seen.observed == other_seen.observed) {
                    (true, false) => port_matters = true,
                    (false, false) => address_matters = true,
                    (false, true) => independent = true,
                    (true, true) => {}
                }
            }
        }
        match (port_matters, address_matters, independent) {
            (true, ..) => Mapping::AddressAndPortDependent,
            (false, true, _) => Mapping::AddressDependent,
            (false, false, true) => Mapping::EndpointIndependent,
            (false, false, false) => Mapping::Unknown,
        }
    }

    /// Without what observers see through another NAT, or through none: a peer on our own side sees the
    /// socket bare, by a hairpin, or behind the inner one of two NATs. It says nothing about how the
    /// NAT towards everybody else maps.
    fn through_the_same_nat<'a>(
        &self,
        mut seen: Vec<(&'a SocketAddr, &'a Seen)>,
    ) -> Vec<(&'a SocketAddr, &'a Seen)> {
        let outer: Vec<IpAddr> = seen.iter().map(|(_, seen)| seen.observed.ip()).collect();
        seen.retain(|(observer, _)| !outer.contains(&observer.ip()));
        let reflected = |(_, seen): &(_, &Seen)| seen.by == Observer::Reflector;
        if let Some((reflector, outermost)) = seen.iter().copied().find(reflected) {
            let scopes = |observer: &SocketAddr, seen: &Seen| {
                (is_private(observer.ip()), is_private(seen.observed.ip()))
            };
            let theirs = scopes(reflector, outermost);
            seen.retain(|(observer, seen)| scopes(observer, seen) == theirs);
        }
        seen
    }

    /// The observer did not answer: what it saw last may be true no more.
    pub fn handle_silence(&mut self, observer: SocketAddr) {
        if let Some(seen) = self.seen.get_mut(&canonical(observer)) {
            seen.confirmed = false;
        }
    }

    /// The outer addresses that somebody has seen within [`CURRENT`] and not been silent since, without the host's own.
    #[must_use]
    pub fn current(&self, now: Instant) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for seen in self.seen.values() {
            let lately = now.saturating_duration_since(seen.at) <= CURRENT;
            let addr = seen.observed;
            let outer = !self.local.contains(&addr) && !found.contains(&addr);
            if seen.confirmed && lately && outer && self.reflexive().contains(&addr) {
                found.push(addr);
            }
        }
        found
    }

    /// By how many addresses of observers the mapping is judged: one alone cannot show how the NAT
    /// maps.
    #[must_use]
    pub fn observers(&self) -> usize {
        self.recent().count()
    }

    /// The kind of filtering, as far as shown.
    #[must_use]
    pub const fn filtering(&self) -> Filtering {
        if self.unasked {
            Filtering::EndpointIndependent
        } else {
            Filtering::Unknown
        }
    }

    /// The outer addresses to tell others, four at most, without repeats and without the host's own. Where
    /// reflectors answer, what peers say is not told: with each answer of a peer the list might be another one,
    /// for all others to probe anew. The order is that of the observers, so that it stays.
    #[must_use]
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let reflected = |seen: &Seen| seen.by == Observer::Reflector;
        let any_reflected = self.recent().any(|(_, seen)| reflected(seen));
        let mut found = Vec::new();
        for (_, seen) in self.recent() {
            let is_told = reflected(seen) || !any_reflected;
            let addr = seen.observed;
            if is_told && !found.contains(&addr) && !self.local.contains(&addr) {
                found.push(addr);
            }
        }
        found.truncate(MAX_TOLD);
        found
    }

    /// What was seen not long before the newest.
    fn recent(&self) -> impl Iterator<Item = (&SocketAddr, &Seen)> {
        let newest = self.seen.values().map(|seen| seen.at).max();
        self.seen.iter().filter(move |(_, seen)| {
            newest.is_some_and(|newest| newest.saturating_duration_since(seen.at) <= COMPARABLE)
        })
    }
}

/// One [`NatKind`] for each socket.
#[derive(Debug, Default)]
pub struct NatKinds {
    v4: NatKind,
    v6: NatKind,
}

impl NatKinds {
    /// What is known of `socket`.
    #[must_use]
    pub const fn of(&self, socket: SocketId) -> &NatKind {
        match socket {
            SocketId::V4 => &self.v4,
            SocketId::V6 => &self.v6,
        }
    }

    /// The same, to be told more.
    pub const fn of_mut(&mut self, socket: SocketId) -> &mut NatKind {
        match socket {
            SocketId::V4 => &mut self.v4,
            SocketId::V6 => &mut self.v6,
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test needs one instant to start from"
)]
mod tests {
    use super::*;

    fn kind_of(seen: &[(&str, &str)]) -> NatKind {
        let now = Instant::now();
        let mut kind = NatKind::new();
        kind.set_local(&["10.0.0.2:22611".parse().unwrap()]);
        for (observer, observed) in seen {
            let observer = (Observer::Reflector, observer.parse().unwrap());
            kind.handle_observation(now, observer, observed.parse().unwrap());
        }
        kind
    }

    /// Behind a NAT that maps by destination each peer sees another address, and they answer in turn.
    #[test]
    fn peers_answers_do_not_change_what_is_told() {
        let mut kind = kind_of(&[
            ("192.0.2.1:1", "203.0.113.5:7"),
            ("192.0.2.1:2", "203.0.113.5:8"),
        ]);
        let told = kind.reflexive();
        assert_eq!(told.len(), 2);
        let now = Instant::now();
        for (n, port) in [(1, 900), (2, 901), (1, 902), (2, 903)] {
            let peer = SocketAddr::from(([198, 51, 100, n], 1));
            let observed = SocketAddr::from(([203, 0, 113, 5], port));
            kind.handle_observation(now, (Observer::Peer, peer), observed);
            assert_eq!(kind.reflexive(), told);
        }
        assert_eq!(kind.mapping(), Mapping::AddressAndPortDependent);
        // No reflector answers any more.
        let later = now + Duration::from_secs(61);
        let peer = (Observer::Peer, "198.51.100.9:1".parse().unwrap());
        kind.handle_observation(later, peer, "203.0.113.6:5".parse().unwrap());
        assert_eq!(kind.reflexive(), ["203.0.113.6:5".parse().unwrap()]);
    }

    /// Each answer of a peer would make the list another one, all peers would probe anew, and answer.
    #[test]
    fn many_peers_do_not_change_what_is_told_either() {
        let now = Instant::now();
        let reflector: SocketAddr = "192.0.2.1:1".parse().unwrap();
        for any_reflected in [true, false] {
            let mut kind = NatKind::new();
            if any_reflected {
                let seen_at = "203.0.113.5:7".parse().unwrap();
                kind.handle_observation(now, (Observer::Reflector, reflector), seen_at);
            }
            let mut told = BTreeMap::new();
            for turn in 0..1_000_u16 {
                let n = u8::try_from(turn % 60).unwrap();
                let peer = SocketAddr::from(([198, 51, 100, n], 1));
                let observed = SocketAddr::from(([203, 0, 113, 5], 900 + u16::from(n)));
                let at = now + Duration::from_millis(10 * u64::from(turn));
                kind.handle_observation(at, (Observer::Peer, peer), observed);
                told.insert(turn, kind.reflexive());
            }
            let settled = told.range(60..).map(|(_, told)| told);
            let other = settled.filter(|told| **told != kind.reflexive());
            assert_eq!(other.count(), 0, "a reflector: {any_reflected}");
        }
    }

    #[test]
    fn only_what_is_shown_is_claimed() {
        let one = ("192.0.2.1:1", "203.0.113.5:7");
        assert_eq!(kind_of(&[]).mapping(), Mapping::Unknown);
        assert_eq!(kind_of(&[one]).mapping(), Mapping::Unknown);
        let same_port = kind_of(&[one, ("192.0.2.1:2", "203.0.113.5:7")]);
        assert_eq!(
            same_port.mapping(),
            Mapping::Unknown,
            "two ports prove nothing more"
        );
        let other_port = kind_of(&[one, ("192.0.2.1:2", "203.0.113.5:8")]);
        assert_eq!(other_port.mapping(), Mapping::AddressAndPortDependent);
        let same_addr = kind_of(&[one, ("192.0.2.77:1", "203.0.113.5:7")]);
        assert_eq!(same_addr.mapping(), Mapping::EndpointIndependent);
        let other_addr = kind_of(&[one, ("192.0.2.77:1", "203.0.113.5:8")]);
        assert_eq!(other_addr.mapping(), Mapping::AddressDependent);
        let plain = kind_of(&[("192.0.2.1:1", "10.0.0.2:22611")]);
        assert_eq!(plain.mapping(), Mapping::None);
        assert_eq!(plain.filtering(), Filtering::Unknown);
    }

    #[test]
    fn a_changed_mapping_is_not_taken_for_a_dependent_one() {
        let now = Instant::now();
        let mut kind = NatKind::new();
        let (first, second) = (
            (Observer::Peer, "192.0.2.1:1".parse().unwrap()),
            (Observer::Peer, "192.0.2.2:1".parse().unwrap()),
        );
        kind.handle_observation(now, first, "203.0.113.5:7".parse().unwrap());
        let later = now + Duration::from_secs(61);
        kind.handle_observation(later, second, "203.0.113.5:9".parse().unwrap());
        assert_eq!(kind.mapping(), Mapping::Unknown);
    }

    #[test]
    fn who_is_on_our_side_of_the_nat_says_nothing_about_it() {
        let now = Instant::now();
        let two = [
            ("192.0.2.1:1", "203.0.113.5:7"),
            ("192.0.2.77:1", "203.0.113.5:7"),
        ];
        for (observer, observed) in [
            // Another node on the LAN sees the socket bare, ..
            ("10.0.0.3:22611", "10.0.0.2:22611"),
            // .. or, by a hairpin, another port of the outer address, ..
            ("203.0.113.5:900", "203.0.113.5:901"),
            // .. or sits between the two NATs.
            ("100.64.0.9:22611", "100.64.0.2:40000"),
        ] {
            let mut kind = kind_of(&two);
            let peer = (Observer::Peer, observer.parse().unwrap());
            kind.handle_observation(now, peer, observed.parse().unwrap());
            let mapping = kind.mapping();
            assert_eq!(mapping, Mapping::EndpointIndependent, "{observer}");
        }
        // With one reflector alone nothing is shown, with or without it.
        let mut kind = kind_of(&two[..1]);
        let peer = (Observer::Peer, "10.0.0.3:22611".parse().unwrap());
        kind.handle_observation(now, peer, "10.0.0.2:22611".parse().unwrap());
        assert_eq!(kind.mapping(), Mapping::Unknown);
    }

    #[test]
    fn an_address_that_nobody_confirms_is_not_current() {
        let now = Instant::now();
        let mut kind = kind_of(&[("192.0.2.1:1", "203.0.113.5:7")]);
        let told: Vec<SocketAddr> = vec!["203.0.113.5:7".parse().unwrap()];
        assert_eq!(kind.current(now), told);
        assert!(kind.current(now + Duration::from_secs(80)).is_empty());
        kind.handle_silence("192.0.2.1:1".parse().unwrap());
        assert!(kind.current(now).is_empty());
        // It is still told: the silence may be the reflector's.
        assert_eq!(kind.reflexive(), told);
    }

    #[test]
    fn names_are_those_of_status() {
        for mapping in [
            Mapping::EndpointIndependent,
            Mapping::AddressDependent,
            Mapping::AddressAndPortDependent,
            Mapping::None,
            Mapping::Unknown,
        ] {
            let json = serde_json::to_string(&mapping).unwrap();
            assert_eq!(json, format!("\"{}\"", mapping.name()));
        }
    }

    #[test]
    fn observers_are_bounded() {
        let now = Instant::now();
        let mut kind = NatKind::new();
        for port in 1..200 {
            let observer = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            let observed = SocketAddr::from(([203, 0, 113, 5], port));
            kind.handle_observation(now, (Observer::Reflector, observer), observed);
            assert!(kind.reflexive().len() <= MAX_TOLD);
        }
        assert_eq!(kind.seen.len(), MAX_OBSERVERS);
    }
}
