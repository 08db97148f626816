//! General queries for multicast groups: MLDv2 (RFC 3810 section 5.1) and IGMPv3 (RFC 3376 section
//! 4.1).
//!
//! A switch that snoops forwards a group only to ports on which somebody was heard to be in it. A
//! query makes a host join its groups again; it sends the older version of the report if it has lately
//! heard a querier of that version.
//!
//! These go to the MAC of one host, not to a group MAC: a switch takes no part in them, so that no
//! querier gives way to us, and nobody else has to answer. (RFC 6085 lets IPv6 multicast go to one
//! MAC; hosts take IPv4 multicast so, too.)
//!
//! ```text
//! IPv6: | 6 | .. | length | 0: hop-by-hop | hop limit 1 | source | ff02::1 |
//!       | next header 58 | length 0 | router alert 05 02 00 00 | padding 01 00 |
//! MLD:  | 130 | 0 | checksum | max response, ms | 0 | group :: | S and QRV | QQIC | 0 sources |
//! IPv4: | 4, 6 words | TOS c0 | .. | TTL 1 | 2 | checksum | 0.0.0.0 | 224.0.0.1 | alert 94 04 00 00 |
//! IGMP: | 0x11 | max response, 1/10 s | checksum | group 0.0.0.0 | S and QRV | QQIC | 0 sources |
//! ```

use std::net::{IpAddr, Ipv6Addr};

use super::checksum::{Checksum, checksum};
use super::{MacAddr, VlanId, build_frame, ethertype, protocol};

/// ff02::1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Hosts answer link-local sources only. The lowest one becomes the querier of a link (RFC 3810 section
/// 7.6.2): with the highest, nobody who asks regularly gives way to us.
const LAST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff);

/// Everybody answers at a random time within this: half a second.
const MLD_RESPONSE_MS: u16 = 500;
const IGMP_RESPONSE_TENTHS: u8 = 5;

/// Robustness 2 and a query interval of 125 s: the defaults of both RFCs, so that nobody who takes
/// them over changes anything.
const QRV: u8 = 2;
const QQIC: u8 = 125;

/// Asks `dst` in which IPv6 groups it is.
#[must_use]
pub fn mld_general_query(src: MacAddr, dst: MacAddr, vlan: VlanId) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0];
    message.extend_from_slice(&MLD_RESPONSE_MS.to_be_bytes());
    message.extend_from_slice(&[0; 18]);
    message.extend_from_slice(&[QRV, QQIC, 0, 0]);
    let ends = [LAST_LINK_LOCAL, ALL_NODES].map(IpAddr::V6);
    let [source, destination] = ends;
    // 28 bytes.
    let length = u32::try_from(message.len()).unwrap_or(0);
    let mut sum = Checksum::pseudo_header(source, destination, protocol::ICMPV6, length);
    sum.add(&message);
    put_checksum(&mut message, 2, sum.finish());
    let options = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let length = u8::try_from(options.len() + message.len()).unwrap_or(u8::MAX);
    let mut packet = vec![0x60, 0, 0, 0, 0, length, 0, 1];
    packet.extend_from_slice(&LAST_LINK_LOCAL.octets());
    packet.extend_from_slice(&ALL_NODES.octets());
    packet.extend_from_slice(&options);
    packet.append(&mut message);
    build_frame(dst, src, vlan, ethertype::IPV6, &packet)
}

/// Asks `dst` in which IPv4 groups it is. From 0.0.0.0, which a switch without an address uses (RFC 4541
/// section 2.1.1).
#[must_use]
pub fn igmp_general_query(src: MacAddr, dst: MacAddr, vlan: VlanId) -> Vec<u8> {
    let mut message = vec![
        0x11,
        IGMP_RESPONSE_TENTHS,
        0,
        0,
        0,
        0,
        0,
        0,
        QRV,
        QQIC,
        0,
        0,
    ];
    let sum = checksum(&message);
    put_checksum(&mut message, 2, sum);
    let mut packet = vec![0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2, 0, 0];
    packet.extend_from_slice(&[0, 0, 0, 0, 224, 0, 0, 1, 0x94, 4, 0, 0]);
    let sum = checksum(&packet);
    put_checksum(&mut packet, 10, sum);
    packet.append(&mut message);
    build_frame(dst, src, vlan, ethertype::IPV4, &packet)
}

fn put_checksum(bytes: &mut [u8], at: usize, sum: u16) {
    if let Some(slot) = bytes.get_mut(at..at + 2) {
        slot.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::EthernetFrame;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn mld_asks_all_nodes_from_the_last_address() {
        let bytes = mld_general_query(ASKER, GUEST, VlanId::UNTAGGED);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(frame.dst(), GUEST);
        let packet = frame.payload();
        assert_eq!(packet.len(), 40 + 8 + 28);
        assert_eq!(usize::from(packet[5]), 8 + 28, "the length");
        assert_eq!(packet[7], 1, "hop limit");
        assert_eq!(packet[8..24], LAST_LINK_LOCAL.octets());
        let message = &packet[48..];
        let ends = [LAST_LINK_LOCAL, ALL_NODES].map(IpAddr::V6);
        let mut sum = Checksum::pseudo_header(ends[0], ends[1], 58, 28);
        sum.add(message);
        assert_eq!(sum.finish(), 0, "over its own checksum");
        assert_eq!(message[4..6], 500_u16.to_be_bytes());
    }

    #[test]
    fn igmp_asks_all_systems_from_no_address() {
        let vlan = VlanId::new(7).unwrap();
        let bytes = igmp_general_query(ASKER, GUEST, vlan);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!((frame.vlan(), frame.src()), (vlan, ASKER));
        let packet = frame.payload();
        assert_eq!(usize::from(packet[3]), packet.len());
        let (header, message) = packet.split_at(24);
        assert_eq!(checksum(header), 0);
        assert_eq!(checksum(message), 0);
        assert_eq!(header[12..16], [0; 4]);
        assert_eq!(message.len(), 12, "what tells version 3 from 2");
    }
}
