//! What guests send, and the header that a tap puts in front of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use overlay_proto::ethernet::checksum::Checksum;
use overlay_proto::ethernet::{
    ArpPacket, EthernetFrame, IpPacket, MacAddr, NdMessage, NeighborAdvertisement,
    NeighborSolicitation, VlanId, build_frame, classify, ethertype, protocol,
};
use tap_bridge::VnetHdr;

use crate::input::Input;
use crate::{Seen, Target};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const ALL: MacAddr = MacAddr([0xff; 6]);
const IP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// The fixed part of an IPv6 header.
const IPV6_LEN: usize = 40;

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "ethernet_frame",
            run: frame,
            seeds: frames,
            speed: 400,
        },
        Target {
            name: "ethernet_arp",
            run: arp,
            seeds: || vec![ArpPacket::request(MAC, IP4, IP4).to_bytes().to_vec()],
            speed: 400,
        },
        Target {
            name: "ethernet_ip",
            run: ip,
            seeds: || payloads(&frames()),
            speed: 400,
        },
        Target {
            name: "ethernet_nd",
            run: nd,
            seeds: || {
                let nd: Vec<_> = frames().into_iter().skip(3).take(2).collect();
                payloads(&nd)
            },
            speed: 400,
        },
        Target {
            name: "tap_vnet_header",
            run: vnet,
            seeds: || {
                let mut checksum = vec![1, 0, 0, 0, 0, 0, 34, 0, 16, 0];
                checksum.extend_from_slice(&1500u16.to_be_bytes());
                vec![VnetHdr::PLAIN.to_bytes().to_vec(), checksum]
            },
            speed: 400,
        },
    ]
}

fn frame(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    match EthernetFrame::parse(bytes) {
        Ok(frame) => {
            assert_eq!(frame.bytes(), bytes);
            assert!(bytes.ends_with(frame.payload()));
            seen.note(&(frame.vlan() == VlanId::UNTAGGED, frame.payload().is_empty()));
            let evidence = classify(&frame);
            let count = evidence.ips.iter().count();
            assert!(count <= 2);
            seen.note(&(evidence.class, count));
            seen.note(&ArpPacket::from_frame(&frame).map(|arp| arp.operation));
            seen.note(&NdMessage::from_frame(&frame).is_some());
            seen.result(&IpPacket::from_frame(&frame));
        }
        Err(error) => seen.note(&std::mem::discriminant(&error)),
    }
    seen.number()
}

fn arp(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    if let Some(packet) = ArpPacket::parse(bytes) {
        let again = packet.to_bytes();
        assert_eq!(again, bytes[..again.len()], "padding may follow");
        assert_eq!(ArpPacket::parse(&again), Some(packet));
        seen.note(&(packet.operation, packet.is_gratuitous(), packet.is_probe()));
    }
    seen.number()
}

fn ip(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    for packet in [IpPacket::parse_v4(bytes), IpPacket::parse_v6(bytes)] {
        seen.result(&packet);
        if let Ok(packet) = packet {
            let end = packet.l4_offset + packet.l4.len();
            assert_eq!(bytes[packet.l4_offset..end], *packet.l4);
            seen.note(&(packet.fragment, packet.protocol, packet.l4.is_empty()));
            seen.note(&NdMessage::parse(&packet).is_some());
        }
    }
    seen.number()
}

/// An IPv6 packet whose ICMPv6 checksum is made right, since a wrong one ends everything early.
fn nd(bytes: &[u8]) -> u64 {
    let mut bytes = bytes.to_vec();
    let place = IpPacket::parse_v6(&bytes).ok().and_then(|packet| {
        let is_icmp = packet.protocol == protocol::ICMPV6 && packet.l4.len() >= 4;
        is_icmp.then(|| {
            let mut l4 = packet.l4.to_vec();
            l4[2..4].fill(0);
            let length = u32::try_from(l4.len()).unwrap();
            let mut sum = Checksum::pseudo_header(
                packet.source,
                packet.destination,
                protocol::ICMPV6,
                length,
            );
            sum.add(&l4);
            (packet.l4_offset, sum.finish())
        })
    });
    if let Some((at, sum)) = place {
        bytes[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut seen = Seen::default();
    let frame = build_frame(ALL, MAC, VlanId::UNTAGGED, ethertype::IPV6, &bytes);
    let parsed = EthernetFrame::parse(&frame).unwrap();
    match NdMessage::from_frame(&parsed) {
        Some(NdMessage::Solicitation(message)) => {
            seen.note(&(message.is_dad(), message.source_lladdr.is_some()));
            let answer = NeighborAdvertisement::answer(&message, MAC);
            assert!(read_back(&answer.to_frame(MAC, ALL, VlanId::UNTAGGED)));
        }
        Some(NdMessage::Advertisement(message)) => {
            seen.note(&(message.is_unsolicited(), message.target_lladdr.is_some()));
            assert!(read_back(&message.to_frame(MAC, ALL, VlanId::UNTAGGED)));
        }
        other => seen.note(&other.is_some()),
    }
    seen.note(&classify(&parsed).class);
    seen.number()
}

fn read_back(frame: &[u8]) -> bool {
    let frame = EthernetFrame::parse(frame).unwrap();
    matches!(
        NdMessage::from_frame(&frame),
        Some(NdMessage::Advertisement(_))
    )
}

fn vnet(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let header = VnetHdr::parse(bytes);
    seen.result(&header);
    if let Ok(header) = header {
        let again = header.to_bytes();
        assert_eq!(again, bytes[..again.len()]);
        let frame_len = usize::from(Input::new(&bytes[again.len()..]).u16());
        let valid = header.validate(frame_len);
        seen.result(&valid);
        if valid.is_ok() && header.needs_checksum() {
            let end = usize::from(header.csum_start) + usize::from(header.csum_offset) + 2;
            assert!(end <= frame_len);
        }
        seen.note(&(header.is_super_frame(), header.is_plain()));
    }
    seen.number()
}

fn payloads(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames
        .iter()
        .map(|frame| EthernetFrame::parse(frame).unwrap().payload().to_vec())
        .collect()
}

/// ARP, tagged ARP, IPv4, two of ND, IPv6 with extension headers, IPv6 and IPv4 fragments.
fn frames() -> Vec<Vec<u8>> {
    let tagged = VlanId::new(100).unwrap();
    let plain = VlanId::UNTAGGED;
    let v4 = |flags: u16| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1];
        packet.extend_from_slice(&flags.to_be_bytes());
        packet.extend_from_slice(&[64, protocol::UDP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend_from_slice(&[0, 7, 0, 7, 0, 8, 0, 0]);
        build_frame(ALL, MAC, plain, ethertype::IPV4, &packet)
    };
    let v6 = |next: u8, body: &[u8]| {
        let mut packet = vec![0; IPV6_LEN];
        packet[0] = 0x60;
        packet[5] = u8::try_from(body.len()).unwrap();
        packet[6] = next;
        packet[7] = 255;
        packet[8..24].copy_from_slice(&IP6.octets());
        packet[24..40].copy_from_slice(&IP6.octets());
        packet.extend_from_slice(body);
        build_frame(ALL, MAC, plain, ethertype::IPV6, &packet)
    };
    let hop_by_hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 0, 0, 0, 0, 0, 0, 0];
    let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    let udp = [0, 7, 0, 7, 0, 8, 0, 0];
    let extended = [hop_by_hop, routing, options, udp].concat();
    let fragment = [[protocol::UDP, 0, 0, 1, 0, 0, 0, 9], udp].concat();
    vec![
        ArpPacket::announcement(MAC, IP4).to_frame(ALL, plain),
        ArpPacket::probe(MAC, IP4).to_frame(ALL, tagged),
        v4(0x4000),
        NeighborSolicitation::probe(IP6).to_frame(MAC, ALL, plain),
        NeighborAdvertisement::announcement(IP6, MAC).to_frame(MAC, ALL, plain),
        v6(0, &extended),
        v6(44, &fragment),
        v4(0x2000),
    ]
}
