//! Addresses at which a node may be reachable, and the one filter for them.
//!
//! A peer tells its candidates; whoever believed them blindly could be made to send packets to
//! anybody. The filter (TRUST.md 19) is the same for probes and for the control plane's dials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::path::{AllocationId, RelayName};

/// How a node knows an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateKind {
    /// An interface of the host.
    Host,
    /// Seen by a reflector or by a peer.
    Reflexive,
    /// Mapped by the router (PCP, NAT-PMP, UPnP).
    PortMapped,
    /// An allocation at a relay.
    Relayed,
}

/// One address. At most [`MAX_CANDIDATES`] a peer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// How the node knows it.
    pub kind: CandidateKind,
    /// The address; for a relayed candidate the one at which its node uses the relay.
    pub addr: SocketAddr,
    /// The allocation, for a relayed candidate.
    pub allocation: Option<AllocationId>,
    /// The relay of a relayed candidate.
    pub relay: Option<RelayName>,
}

/// Candidates of one peer that are looked at; more are ignored (TRUST.md 19).
pub const MAX_CANDIDATES: usize = 16;

/// Why a candidate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CandidateError {
    /// Port 0 is no port.
    #[error("the candidate has port 0")]
    PortZero,
    /// Loopback, unspecified, multicast, broadcast or reserved: no single other host.
    #[error("the candidate is not the address of a single other host")]
    NotUnicast,
    /// An address inside the overlay: the tunnel would run through itself.
    #[error("the candidate lies inside the overlay")]
    InOverlay,
    /// An address of this host: container engines give many hosts the same.
    #[error("the candidate is an address of this host")]
    Own,
    /// A private or link-local address that is not ours to reach.
    #[error("the candidate is private and the peer is on no subnet of ours")]
    ForeignPrivate,
    /// A relayed candidate names its relay and its allocation there, the others neither.
    #[error("the candidate's relay or allocation does not fit its kind")]
    Allocation,
}

/// What the filter knows about this node. Replaced whole when an interface or an address changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandidateFilter {
    /// IP prefixes that this host reaches through the overlay.
    pub overlay_prefixes: Vec<IpNet>,
    /// Longer prefixes within these that it reaches another way.
    pub beside_overlay: Vec<IpNet>,
    /// All addresses of this host.
    pub own_addresses: Vec<IpAddr>,
    /// The subnets of the host's own interfaces.
    pub own_subnets: Vec<IpNet>,
    /// The addresses at which reflectors and peers see this node.
    pub own_reflexive: Vec<IpAddr>,
}

impl CandidateFilter {
    /// Whether `candidate`, told by a peer that also told (or is seen at) `peer_reflexive`, may be
    /// sent to.
    ///
    /// # Errors
    ///
    /// The first rule of TRUST.md 19 that it breaks.
    pub fn admit(
        &self,
        candidate: &Candidate,
        peer_reflexive: &[IpAddr],
    ) -> Result<(), CandidateError> {
        let relayed = candidate.kind == CandidateKind::Relayed;
        if relayed != candidate.allocation.is_some() || relayed != candidate.relay.is_some() {
            return Err(CandidateError::Allocation);
        }
        self.admit_source(candidate.addr)?;
        let ip = candidate.addr.ip().to_canonical();
        if is_private(ip) && !self.shares_subnet(ip) && !self.same_site(peer_reflexive) {
            return Err(CandidateError::ForeignPrivate);
        }
        Ok(())
    }

    /// The rules for an address that an authenticated datagram came from: all but the one about
    /// private addresses, which this one has just been shown to reach us.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn admit_source(&self, addr: SocketAddr) -> Result<(), CandidateError> {
        admit_anywhere(addr)?;
        let ip = addr.ip().to_canonical();
        if self.own_addresses.contains(&ip) {
            return Err(CandidateError::Own);
        }
        if self.is_in_overlay(ip) {
            return Err(CandidateError::InOverlay);
        }
        Ok(())
    }

    /// Whether the longest prefix that holds `ip` is reached through the overlay.
    #[must_use]
    pub fn is_in_overlay(&self, ip: IpAddr) -> bool {
        let longest = |nets: &[IpNet]| {
            let holding = nets.iter().filter(|net| net.contains(&ip));
            holding.map(IpNet::prefix_len).max()
        };
        longest(&self.overlay_prefixes) > longest(&self.beside_overlay)
    }

    /// Whether `ip` is on a subnet of one of our interfaces.
    #[must_use]
    pub fn shares_subnet(&self, ip: IpAddr) -> bool {
        self.own_subnets.iter().any(|net| net.contains(&ip))
    }

    /// Whether the peer is seen at one of our own public addresses: behind the same NAT.
    fn same_site(&self, peer_reflexive: &[IpAddr]) -> bool {
        (peer_reflexive.iter()).any(|ip| self.own_reflexive.contains(ip) && !is_private(*ip))
    }
}

/// The rules for which one need not know this host: what they refuse nobody probes or dials, whoever told it.
///
/// # Errors
///
/// The rule that it breaks.
pub fn admit_anywhere(addr: SocketAddr) -> Result<(), CandidateError> {
    if addr.port() == 0 {
        return Err(CandidateError::PortZero);
    }
    if !is_unicast(addr.ip().to_canonical()) {
        return Err(CandidateError::NotUnicast);
    }
    Ok(())
}

/// Private (RFC 1918), shared (RFC 6598), unique local (RFC 4193) or link-local (RFC 3927,
/// RFC 4291 section 2.5.6).
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_unicast_v4(ip),
        IpAddr::V6(ip) => is_unicast_v6(ip),
    }
}

/// RFC 6890; documentation ranges pass, they are harmless and tests use them.
const fn is_unicast_v4(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first != 127 && first < 224
}

const fn is_unicast_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// The order of addresses of which nothing else is known: smaller is better. Global IPv6, global IPv4,
/// private IPv4, unique local IPv6, link-local.
#[must_use]
pub fn host_rank(ip: IpAddr) -> u8 {
    match ip.to_canonical() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 5,
        IpAddr::V6(ip) if ip.is_unique_local() => 3,
        IpAddr::V6(_) => 0,
        IpAddr::V4(ip) if ip.is_link_local() => 4,
        IpAddr::V4(ip) if is_private(IpAddr::V4(ip)) => 2,
        IpAddr::V4(_) => 1,
    }
}

/// The candidates a node tells: without repeats, host addresses first, then the others, each kind in
/// the order given, [`MAX_CANDIDATES`] at most. At most half are host addresses, so that a host
/// with many interfaces still tells its reflexive and relayed ones. Of these the relayed ones go before:
/// there is no path to a peer that nothing else reaches without them.
#[must_use]
pub fn select_local(all: &[Candidate]) -> Vec<Candidate> {
    let mut hosts: Vec<Candidate> = Vec::new();
    let mut outer: Vec<Candidate> = Vec::new();
    let mut relayed: Vec<Candidate> = Vec::new();
    for candidate in all {
        let list = match candidate.kind {
            CandidateKind::Host => &mut hosts,
            CandidateKind::Reflexive | CandidateKind::PortMapped => &mut outer,
            CandidateKind::Relayed => &mut relayed,
        };
        if !list.contains(candidate) {
            list.push(*candidate);
        }
    }
    hosts.truncate(MAX_CANDIDATES / 2);
    relayed.truncate(MAX_CANDIDATES - hosts.len());
    outer.truncate(MAX_CANDIDATES - hosts.len() - relayed.len());
    [hosts, outer, relayed].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> CandidateFilter {
        CandidateFilter {
            overlay_prefixes: vec!["10.77.0.0/16".parse().unwrap()],
            beside_overlay: vec!["10.77.9.0/24".parse().unwrap()],
            own_addresses: vec!["192.168.5.7".parse().unwrap()],
            own_subnets: vec!["192.168.5.0/24".parse().unwrap()],
            own_reflexive: vec!["203.0.113.9".parse().unwrap()],
        }
    }

    fn host(addr: &str) -> Candidate {
        Candidate {
            kind: CandidateKind::Host,
            addr: addr.parse().unwrap(),
            allocation: None,
            relay: None,
        }
    }

    #[test]
    fn public_and_documentation_addresses_pass() {
        for addr in [
            "192.0.2.1:1",
            "198.51.100.7:22611",
            "203.0.113.200:9",
            "[2001:db8::1]:22611",
            "8.8.8.8:53",
        ] {
            assert_eq!(filter().admit(&host(addr), &[]), Ok(()), "{addr}");
        }
    }

    #[test]
    fn trust_19_addresses_of_no_single_host_fail() {
        for addr in [
            "127.0.0.1:9",
            "0.0.0.0:9",
            "224.0.0.1:9",
            "255.255.255.255:9",
            "240.0.0.1:9",
            "[::1]:9",
            "[::]:9",
            "[ff02::1]:9",
            "[::ffff:127.0.0.1]:9",
        ] {
            let refused = filter().admit(&host(addr), &[]);
            assert_eq!(refused, Err(CandidateError::NotUnicast), "{addr}");
        }
        let zero = filter().admit(&host("192.0.2.1:0"), &[]);
        assert_eq!(zero, Err(CandidateError::PortZero));
        let overlay = filter().admit(&host("10.77.3.4:22611"), &[]);
        assert_eq!(overlay, Err(CandidateError::InOverlay));
    }

    #[test]
    fn trust_19_nothing_is_sent_to_an_own_address_or_through_the_overlay() {
        let site = ["203.0.113.9".parse().unwrap()];
        for addr in [
            "192.168.5.7:22611",
            "192.168.5.7:1",
            "[::ffff:192.168.5.7]:1",
        ] {
            let refused = filter().admit(&host(addr), &site);
            assert_eq!(refused, Err(CandidateError::Own), "{addr}");
            let source = filter().admit_source(addr.parse().unwrap());
            assert_eq!(source, Err(CandidateError::Own), "{addr}");
        }
        let inside = filter().admit_source("10.77.3.4:22611".parse().unwrap());
        assert_eq!(inside, Err(CandidateError::InOverlay));
        // A longer prefix that another route serves.
        let beside = filter().admit_source("10.77.9.4:22611".parse().unwrap());
        assert_eq!(beside, Ok(()));
    }

    #[test]
    fn trust_19_private_addresses_need_a_shared_subnet_or_site() {
        let same_site = ["203.0.113.9".parse().unwrap()];
        let other_site = ["203.0.113.10".parse().unwrap()];
        assert_eq!(filter().admit(&host("192.168.5.20:1"), &[]), Ok(()));
        for addr in [
            "192.168.6.1:1",
            "10.0.0.1:1",
            "172.16.9.9:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
            "[fd00::1]:1",
            "[fe80::1]:1",
        ] {
            let foreign = filter().admit(&host(addr), &other_site);
            assert_eq!(foreign, Err(CandidateError::ForeignPrivate), "{addr}");
            assert_eq!(filter().admit(&host(addr), &same_site), Ok(()), "{addr}");
            assert_eq!(filter().admit_source(host(addr).addr), Ok(()), "{addr}");
        }
    }

    #[test]
    fn a_relayed_candidate_names_its_relay_and_allocation() {
        let mut candidate = host("192.0.2.1:22611");
        candidate.kind = CandidateKind::Relayed;
        let without = filter().admit(&candidate, &[]);
        assert_eq!(without, Err(CandidateError::Allocation));
        candidate.allocation = Some(AllocationId(7));
        let without = filter().admit(&candidate, &[]);
        assert_eq!(without, Err(CandidateError::Allocation));
        candidate.relay = Some(RelayName([8; 32]));
        assert_eq!(filter().admit(&candidate, &[]), Ok(()));
    }

    #[test]
    fn a_host_with_many_addresses_still_tells_its_reflexive_one() {
        let mut all = vec![host("[2001:db8::5]:5")];
        all.extend((1..30).map(|n| host(&format!("10.0.0.{n}:5"))));
        all.push(Candidate {
            kind: CandidateKind::Reflexive,
            ..host("192.0.2.1:5")
        });
        let told = select_local(&all);
        assert_eq!(told.len(), MAX_CANDIDATES / 2 + 1);
        assert_eq!(told[0], host("[2001:db8::5]:5"));
        assert_eq!(told.last().unwrap().kind, CandidateKind::Reflexive);
        // Many outer addresses leave the relay its place.
        all.extend((1..=20).map(|port| Candidate {
            kind: CandidateKind::Reflexive,
            ..host(&format!("192.0.2.2:{port}"))
        }));
        let relay = Candidate {
            kind: CandidateKind::Relayed,
            ..host("198.51.100.1:22611")
        };
        all.push(relay);
        let told = select_local(&all);
        assert_eq!(told.len(), MAX_CANDIDATES);
        assert_eq!(told.last(), Some(&relay));
    }
}
