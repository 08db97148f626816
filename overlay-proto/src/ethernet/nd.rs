//! IPv6 neighbour discovery (RFC 4861): read and build NS and NA, recognise RS and MLD.
//!
//! ```text
//!  0       1      2           4                        8                 24
//! | type  | 0    | checksum  | NS: 0; NA: R S O flags  | target address  | options: type, length / 8, .. |
//! ```

use std::net::{IpAddr, Ipv6Addr};

use super::addr::{MacAddr, VlanId};
use super::checksum::Checksum;
use super::frame::{EthernetFrame, build_frame, ethertype};
use super::ip::{Fragment, IpPacket, protocol};

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// MLD query, report, done (RFC 2710) and MLDv2 report (RFC 3810).
const MLD: [u8; 4] = [130, 131, 132, 143];

/// Source and target link-layer address options.
const SOURCE_LLADDR: u8 = 1;
const TARGET_LLADDR: u8 = 2;

/// Bytes of NS and NA before their options.
const FIXED_LEN: usize = 24;

/// Options that are read before the message counts as hostile; real ones have one or two.
const MAX_OPTIONS: usize = 16;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The neighbour discovery messages that tell something about the sender's MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NdMessage {
    /// Who has an address?
    Solicitation(NeighborSolicitation),
    /// The sender has an address.
    Advertisement(NeighborAdvertisement),
    /// Router solicitation.
    RouterSolicitation,
    /// Multicast listener discovery, any of its messages.
    Mld,
}

/// A neighbour solicitation (RFC 4861 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// The IP source; unspecified in duplicate address detection.
    pub source: Ipv6Addr,
    /// The IP destination.
    pub destination: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
    /// The sender's MAC, if it tells it.
    pub source_lladdr: Option<MacAddr>,
}

/// A neighbour advertisement (RFC 4861 section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// The IP source.
    pub source: Ipv6Addr,
    /// The IP destination.
    pub destination: Ipv6Addr,
    /// The address advertised.
    pub target: Ipv6Addr,
    /// The MAC that has it, if told.
    pub target_lladdr: Option<MacAddr>,
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation that had a source address.
    pub solicited: bool,
    /// It replaces what the receiver knows.
    pub overrides: bool,
}

impl NdMessage {
    /// The message in a frame; `None` if it is none of these or violates RFC 4861 section 7.1.
    #[must_use]
    pub fn from_frame(frame: &EthernetFrame<'_>) -> Option<Self> {
        if frame.ethertype() != ethertype::IPV6 {
            return None;
        }
        Self::parse(&IpPacket::from_frame(frame).ok()?)
    }

    /// The message in a packet; `None` if it is none of these or violates RFC 4861 section 7.1
    /// (hop limit 255, right checksum, options of a length) or RFC 6980 (not fragmented).
    #[must_use]
    pub fn parse(packet: &IpPacket<'_>) -> Option<Self> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination)
        else {
            return None;
        };
        if packet.protocol != protocol::ICMPV6 || packet.fragment != Fragment::Whole {
            return None;
        }
        let kind = *packet.l4.first()?;
        if MLD.contains(&kind) {
            return Some(Self::Mld);
        }
        if packet.hop_limit != 255 {
            return None;
        }
        match kind {
            ROUTER_SOLICITATION => Some(Self::RouterSolicitation),
            NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => {
                parse_neighbor(kind, source, destination, packet.l4)
            }
            _ => None,
        }
    }
}

fn parse_neighbor(
    kind: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    l4: &[u8],
) -> Option<NdMessage> {
    let (fixed, options) = l4.split_first_chunk::<FIXED_LEN>()?;
    if fixed[1] != 0 || icmp_checksum(source, destination, l4) != 0 {
        return None;
    }
    let target = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    if target.is_multicast() {
        return None;
    }
    let lladdrs = Lladdrs::parse(options)?;
    Some(if kind == NEIGHBOR_SOLICITATION {
        NdMessage::Solicitation(NeighborSolicitation {
            source,
            destination,
            target,
            source_lladdr: lladdrs.source,
        })
    } else {
        NdMessage::Advertisement(NeighborAdvertisement {
            source,
            destination,
            target,
            target_lladdr: lladdrs.target,
            router: fixed[4] & ROUTER != 0,
            solicited: fixed[4] & SOLICITED != 0,
            overrides: fixed[4] & OVERRIDE != 0,
        })
    })
}

/// The link-layer address options; the first of each kind counts.
#[derive(Default)]
struct Lladdrs {
    source: Option<MacAddr>,
    target: Option<MacAddr>,
}

impl Lladdrs {
    /// `None` for an option of length 0, one that is cut off, or too many of them.
    fn parse(mut options: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        for _ in 0..MAX_OPTIONS {
            let [kind, length, ..] = *options else {
                return options.is_empty().then_some(found);
            };
            let bytes = usize::from(length) * 8;
            let (option, rest) = options.split_at_checked(bytes).filter(|_| bytes > 0)?;
            if let [_, _, a, b, c, d, e, f] = *option {
                let mac = MacAddr([a, b, c, d, e, f]);
                match kind {
                    SOURCE_LLADDR => found.source = found.source.or(Some(mac)),
                    TARGET_LLADDR => found.target = found.target.or(Some(mac)),
                    _ => {}
                }
            }
            options = rest;
        }
        options.is_empty().then_some(found)
    }
}

impl NeighborSolicitation {
    /// A question "is `target` there?" that tells nothing of the asker and changes no cache: the
    /// same bytes as duplicate address detection (RFC 4862 section 5.4.2), which every holder of
    /// the address answers to all nodes.
    #[must_use]
    pub fn probe(target: Ipv6Addr) -> Self {
        Self {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(target),
            target,
            source_lladdr: None,
        }
    }

    /// Duplicate address detection: no source address.
    #[must_use]
    pub fn is_dad(&self) -> bool {
        self.source.is_unspecified()
    }

    /// The message in a frame from `src` to `dst`; [`multicast_mac`] of the destination unless one
    /// MAC is to be asked (RFC 6085).
    #[must_use]
    pub fn to_frame(&self, src: MacAddr, dst: MacAddr, vlan: VlanId) -> Vec<u8> {
        let option = self.source_lladdr.map(|mac| (SOURCE_LLADDR, mac));
        let l4 = icmp_message(NEIGHBOR_SOLICITATION, 0, self.target, option);
        let packet = ip_packet(self.source, self.destination, l4);
        build_frame(dst, src, vlan, ethertype::IPV6, &packet)
    }
}

impl NeighborAdvertisement {
    /// An unsolicited announcement to all nodes that `mac` has `target` (RFC 4861 section 7.2.6).
    #[must_use]
    pub const fn announcement(target: Ipv6Addr, mac: MacAddr) -> Self {
        Self {
            source: target,
            destination: ALL_NODES,
            target,
            target_lladdr: Some(mac),
            router: false,
            solicited: false,
            overrides: true,
        }
    }

    /// The answer to `solicitation` that `mac` has its target (RFC 4861 section 7.2.4); to all
    /// nodes when it was duplicate address detection.
    #[must_use]
    pub fn answer(solicitation: &NeighborSolicitation, mac: MacAddr) -> Self {
        let dad = solicitation.is_dad();
        Self {
            destination: if dad { ALL_NODES } else { solicitation.source },
            solicited: !dad,
            ..Self::announcement(solicitation.target, mac)
        }
    }

    /// Not an answer to a solicitation with a source address: an announcement, or the defence of
    /// an address against duplicate address detection.
    #[must_use]
    pub const fn is_unsolicited(&self) -> bool {
        !self.solicited
    }

    /// The message in a frame from `src` to `dst`.
    #[must_use]
    pub fn to_frame(&self, src: MacAddr, dst: MacAddr, vlan: VlanId) -> Vec<u8> {
        let mut flags = 0;
        for (set, flag) in [
            (self.router, ROUTER),
            (self.solicited, SOLICITED),
            (self.overrides, OVERRIDE),
        ] {
            if set {
                flags |= flag;
            }
        }
        let option = self.target_lladdr.map(|mac| (TARGET_LLADDR, mac));
        let l4 = icmp_message(NEIGHBOR_ADVERTISEMENT, flags, self.target, option);
        let packet = ip_packet(self.source, self.destination, l4);
        build_frame(dst, src, vlan, ethertype::IPV6, &packet)
    }
}

/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The solicited-node multicast address of `target` (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    )
}

/// The MAC that a multicast IPv6 address is sent to (RFC 2464 section 7).
#[must_use]
pub fn multicast_mac(destination: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = destination.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// The message with a checksum of 0.
fn icmp_message(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, MacAddr)>) -> Vec<u8> {
    let mut l4 = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    l4.extend_from_slice(&target.octets());
    if let Some((kind, mac)) = option {
        l4.extend_from_slice(&[kind, 1]);
        l4.extend_from_slice(&mac.0);
    }
    l4
}

/// The message behind an IPv6 header with hop limit 255, its checksum filled in.
fn ip_packet(source: Ipv6Addr, destination: Ipv6Addr, mut l4: Vec<u8>) -> Vec<u8> {
    let [high, low] = icmp_checksum(source, destination, &l4).to_be_bytes();
    if let [_, _, first, second, ..] = l4.as_mut_slice() {
        (*first, *second) = (high, low);
    }
    // 24 bytes and at most one option of 8.
    let length = u8::try_from(l4.len()).unwrap_or(u8::MAX);
    let mut packet = vec![0x60, 0, 0, 0, 0, length, protocol::ICMPV6, 255];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.append(&mut l4);
    packet
}

fn icmp_checksum(source: Ipv6Addr, destination: Ipv6Addr, l4: &[u8]) -> u16 {
    let length = u32::try_from(l4.len()).unwrap_or(u32::MAX);
    let mut sum =
        Checksum::pseudo_header(source.into(), destination.into(), protocol::ICMPV6, length);
    sum.add(l4);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn read(bytes: &[u8]) -> Option<NdMessage> {
        NdMessage::from_frame(&EthernetFrame::parse(bytes).unwrap())
    }

    #[test]
    fn solicited_node_and_its_mac() {
        let group = solicited_node(ip("2001:db8::12:3456"));
        assert_eq!(group, ip("ff02::1:ff12:3456"));
        assert_eq!(
            multicast_mac(group),
            MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
        );
    }

    #[test]
    fn probe_is_dad_and_its_answer_goes_to_all() {
        let probe = NeighborSolicitation::probe(ip("2001:db8::7"));
        assert!(probe.is_dad());
        let bytes = probe.to_frame(OTHER, MAC, VlanId::UNTAGGED);
        assert_eq!(read(&bytes), Some(NdMessage::Solicitation(probe)));
        let answer = NeighborAdvertisement::answer(&probe, MAC);
        assert!(answer.is_unsolicited());
        assert_eq!(answer.destination, ALL_NODES);
    }

    #[test]
    fn known_answer_checksum() {
        // Every nonzero word of pseudo header and message, added one by one.
        let solicitation = NeighborSolicitation {
            source: ip("fe80::2"),
            destination: ip("ff02::1:ff00:1"),
            target: ip("fe80::1"),
            source_lladdr: None,
        };
        let bytes = solicitation.to_frame(MAC, OTHER, VlanId::UNTAGGED);
        let words = [
            0xfe80u32, 2, 0xff02, 1, 0xff00, 1, 24, 58, 0x8700, 0xfe80, 1,
        ];
        let sum: u32 = words.iter().sum();
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        assert_eq!(bytes[56..58], (!folded).to_be_bytes());
    }

    #[test]
    fn refused() {
        let good = NeighborAdvertisement::announcement(ip("2001:db8::7"), MAC).to_frame(
            MAC,
            OTHER,
            VlanId::UNTAGGED,
        );
        assert!(read(&good).is_some());
        // Hop limit, code, checksum, option length 0.
        for (at, value) in [(14 + 7, 64), (14 + 41, 1), (14 + 42, 0xaa), (14 + 65, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn recognised_behind_hop_by_hop() {
        // MLD comes behind a router alert.
        let mut packet = vec![0x60, 0, 0, 0, 0, 16, 0, 1];
        packet.extend(ip("fe80::1").octets());
        packet.extend(ip("ff02::16").octets());
        packet.extend([58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0]);
        let bytes = build_frame(OTHER, MAC, VlanId::UNTAGGED, ethertype::IPV6, &packet);
        assert_eq!(read(&bytes), Some(NdMessage::Mld));

        let rs = ip_packet(ip("fe80::1"), ip("ff02::2"), vec![133, 0, 0, 0, 0, 0, 0, 0]);
        let bytes = build_frame(OTHER, MAC, VlanId::UNTAGGED, ethertype::IPV6, &rs);
        assert_eq!(read(&bytes), Some(NdMessage::RouterSolicitation));
    }

    proptest! {
        #[test]
        fn round_trip(
            source in any::<[u8; 16]>(), mut target in any::<[u8; 16]>(), flags in any::<[bool; 3]>(),
            lladdr in prop::option::of(any::<[u8; 6]>()), vlan in 0u16..=4094,
        ) {
            target[0] &= 0x7f;
            let (source, target) = (Ipv6Addr::from(source), Ipv6Addr::from(target));
            let lladdr = lladdr.map(MacAddr);
            let vlan = VlanId::new(vlan).unwrap();
            let destination = solicited_node(target);
            let ns = NeighborSolicitation { source, destination, target, source_lladdr: lladdr };
            let na = NeighborAdvertisement {
                source, destination, target, target_lladdr: lladdr,
                router: flags[0], solicited: flags[1], overrides: flags[2],
            };
            prop_assert_eq!(read(&ns.to_frame(MAC, OTHER, vlan)), Some(NdMessage::Solicitation(ns)));
            prop_assert_eq!(read(&na.to_frame(MAC, OTHER, vlan)), Some(NdMessage::Advertisement(na)));
        }

        #[test]
        fn arbitrary_messages_never_panic(
            kind in 130u8..145, l4 in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let l4 = [&[kind, 0, 0, 0][..], &l4].concat();
            let packet = ip_packet(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, l4);
            let bytes = build_frame(OTHER, MAC, VlanId::UNTAGGED, ethertype::IPV6, &packet);
            let _ = read(&bytes);
        }
    }
}
