//! What the reflexive addresses say about the NAT, in the terms of RFC 4787.
//!
//! Only what is shown is claimed: two ports of one reflector prove dependence on the port, never
//! independence of the address. The kind adds rungs to the ladder, it never takes one away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::path::SocketId;
use crate::wire_bytes::canonical;

/// Observers kept; the oldest makes room.
const MAX_OBSERVERS: usize = 32;
/// Observations that far apart may straddle a change of the mapping and are not compared. Two
/// rounds of the reflector client and its retries.
const COMPARABLE: Duration = Duration::from_secs(60);

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

/// Collects what reflectors and peers see of one socket.
#[derive(Debug, Default)]
pub struct NatKind {
    local: Vec<SocketAddr>,
    /// Observer -> what it saw and when. At most [`MAX_OBSERVERS`].
    seen: BTreeMap<SocketAddr, (SocketAddr, Instant)>,
    unasked: bool,
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

    /// `observer` (a reflector or an authenticated direct peer) sees the socket at `observed`.
    pub fn handle_observation(&mut self, now: Instant, observer: SocketAddr, observed: SocketAddr) {
        self.seen
            .insert(canonical(observer), (canonical(observed), now));
        if self.seen.len() > MAX_OBSERVERS {
            let oldest = self.seen.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(observer, _)| *observer) {
                self.seen.remove(&oldest);
            }
        }
    }

    /// An authentic datagram came from an address that nothing was ever sent to.
    pub const fn handle_unasked(&mut self) {
        self.unasked = true;
    }

    /// The kind of mapping that the observations prove.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        let Some(newest) = self.seen.values().map(|(_, at)| *at).max() else {
            return Mapping::Unknown;
        };
        let recent: Vec<(SocketAddr, SocketAddr)> = self
            .seen
            .iter()
            .filter(|(_, (_, at))| newest.saturating_duration_since(*at) <= COMPARABLE)
            .map(|(observer, (observed, _))| (*observer, *observed))
            .collect();
        if recent
            .iter()
            .all(|(_, observed)| self.local.contains(observed))
        {
            return Mapping::None;
        }
        let (mut port_matters, mut address_matters, mut independent) = (false, false, false);
        for (index, (observer, observed)) in recent.iter().enumerate() {
            for (other, other_observed) in recent.iter().skip(index + 1) {
                let same_host = observer.ip() == other.ip();
                match (same_host, observed == other_observed) {
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

    /// The kind of filtering, as far as shown.
    #[must_use]
    pub const fn filtering(&self) -> Filtering {
        if self.unasked {
            Filtering::EndpointIndependent
        } else {
            Filtering::Unknown
        }
    }

    /// The outer addresses seen, newest first, without repeats and without the host's own.
    #[must_use]
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen: Vec<_> = self.seen.values().copied().collect();
        seen.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut found = Vec::new();
        for (observed, _) in seen {
            if !found.contains(&observed) && !self.local.contains(&observed) {
                found.push(observed);
            }
        }
        found
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
            kind.handle_observation(now, observer.parse().unwrap(), observed.parse().unwrap());
        }
        kind
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
            "192.0.2.1:1".parse().unwrap(),
            "192.0.2.2:1".parse().unwrap(),
        );
        kind.handle_observation(now, first, "203.0.113.5:7".parse().unwrap());
        let later = now + Duration::from_secs(61);
        kind.handle_observation(later, second, "203.0.113.5:9".parse().unwrap());
        assert_eq!(kind.mapping(), Mapping::Unknown);
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
            kind.handle_observation(now, observer, "203.0.113.5:7".parse().unwrap());
        }
        assert_eq!(kind.seen.len(), MAX_OBSERVERS);
    }
}
