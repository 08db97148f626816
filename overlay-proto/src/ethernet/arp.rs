//! ARP (RFC 826) and RARP (RFC 903) for IPv4 over Ethernet.
//!
//! ```text
//!  0         2             4      5      6           8             14            18            24            28
//! | 1 (eth) | 0x0800 (IP) | 6    | 4    | operation | sender MAC  | sender IP   | target MAC  | target IP   |
//! ```

use std::net::Ipv4Addr;

use super::addr::{MacAddr, VlanId};
use super::frame::{EthernetFrame, build_frame, ethertype};

/// Bytes of an ARP packet; Ethernet pads it.
const LEN: usize = 28;

/// Ethernet, IPv4, address lengths 6 and 4.
const PREFIX: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What an ARP or RARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target IP?
    Request,
    /// The sender has the sender IP.
    Reply,
    /// Which IP has the target MAC? Hypervisors send it to announce a MAC.
    ReverseRequest,
    /// The answer to it.
    ReverseReply,
}

impl ArpOperation {
    const fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::ReverseRequest => 3,
            Self::ReverseReply => 4,
        }
    }

    const fn ethertype(self) -> u16 {
        match self {
            Self::Request | Self::Reply => ethertype::ARP,
            Self::ReverseRequest | Self::ReverseReply => ethertype::RARP,
        }
    }
}

/// One ARP or RARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpPacket {
    /// What it wants.
    pub operation: ArpOperation,
    /// Who sends it.
    pub sender_mac: MacAddr,
    /// The sender's IP; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// Whom it is about; zero in a request.
    pub target_mac: MacAddr,
    /// The IP it is about.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// The packet in a frame; `None` if it is no well-formed (R)ARP for IPv4 over Ethernet or its
    /// operation does not belong to the ethertype. Bytes behind it are padding.
    #[must_use]
    pub fn from_frame(frame: &EthernetFrame<'_>) -> Option<Self> {
        let packet = Self::parse(frame.payload())?;
        (packet.operation.ethertype() == frame.ethertype()).then_some(packet)
    }

    /// Reads the packet; `None` if it is no (R)ARP for IPv4 over Ethernet. Bytes behind it are
    /// padding.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [h0, h1, p0, p1, hl, pl, o0, o1, body @ ..] = payload.first_chunk::<LEN>()?;
        if [*h0, *h1, *p0, *p1, *hl, *pl] != PREFIX {
            return None;
        }
        let operation = match u16::from_be_bytes([*o0, *o1]) {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            3 => ArpOperation::ReverseRequest,
            4 => ArpOperation::ReverseReply,
            _ => return None,
        };
        let (sender, target) = (body.first_chunk::<10>()?, body.last_chunk::<10>()?);
        let address = |part: &[u8; 10]| {
            let [a, b, c, d, e, f, ip @ ..] = *part;
            (MacAddr([a, b, c, d, e, f]), Ipv4Addr::from(ip))
        };
        let ((sender_mac, sender_ip), (target_mac, target_ip)) = (address(sender), address(target));
        Some(Self {
            operation,
            sender_mac,
            sender_ip,
            target_mac,
            target_ip,
        })
    }

    /// The question "who has `target_ip`?".
    #[must_use]
    pub const fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Self {
        Self {
            operation: ArpOperation::Request,
            sender_mac,
            sender_ip,
            target_mac: MacAddr::ZERO,
            target_ip,
        }
    }

    /// The answer to `request` that `mac` has the IP asked for. Send it to the request's sender.
    #[must_use]
    pub const fn reply(request: &Self, mac: MacAddr) -> Self {
        Self {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        }
    }

    /// A gratuitous announcement that `mac` has `ip` (RFC 5227 section 2.3). Send it to all.
    #[must_use]
    pub const fn announcement(mac: MacAddr, ip: Ipv4Addr) -> Self {
        Self::request(mac, ip, ip)
    }

    /// A question without an own address (RFC 5227 section 2.1.1): it changes nobody's ARP cache.
    /// Sent to one MAC it asks whether that MAC is still there.
    #[must_use]
    pub const fn probe(sender_mac: MacAddr, target_ip: Ipv4Addr) -> Self {
        Self::request(sender_mac, Ipv4Addr::UNSPECIFIED, target_ip)
    }

    /// Does the sender announce its own address, as a request or as a reply?
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        matches!(self.operation, ArpOperation::Request | ArpOperation::Reply)
            && self.sender_ip == self.target_ip
            && !self.sender_ip.is_unspecified()
    }

    /// A request with sender 0.0.0.0: duplicate address detection or a liveness probe.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.operation == ArpOperation::Request && self.sender_ip.is_unspecified()
    }

    /// The packet's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let parts = [
            &PREFIX[..],
            &self.operation.number().to_be_bytes(),
            &self.sender_mac.0,
            &self.sender_ip.octets(),
            &self.target_mac.0,
            &self.target_ip.octets(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// The packet in a frame from its sender's MAC to `dst`.
    #[must_use]
    pub fn to_frame(&self, dst: MacAddr, vlan: VlanId) -> Vec<u8> {
        let ethertype = self.operation.ethertype();
        build_frame(dst, self.sender_mac, vlan, ethertype, &self.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const ASKER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const ASKER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);

    #[test]
    fn request_and_reply() {
        let request = ArpPacket::request(ASKER, ASKER_IP, IP);
        let reply = ArpPacket::reply(&request, GUEST);
        assert_eq!((reply.sender_mac, reply.sender_ip), (GUEST, IP));
        assert_eq!((reply.target_mac, reply.target_ip), (ASKER, ASKER_IP));
        for packet in [request, reply] {
            assert!(!packet.is_gratuitous() && !packet.is_probe());
        }
    }

    #[test]
    fn gratuitous_and_probe() {
        let announcement = ArpPacket::announcement(GUEST, IP);
        assert!(announcement.is_gratuitous() && !announcement.is_probe());
        let as_reply = ArpPacket {
            operation: ArpOperation::Reply,
            ..announcement
        };
        assert!(as_reply.is_gratuitous());
        let probe = ArpPacket::probe(GUEST, IP);
        assert!(probe.is_probe() && !probe.is_gratuitous());
        assert!(!ArpPacket::probe(GUEST, Ipv4Addr::UNSPECIFIED).is_gratuitous());
    }

    #[test]
    fn bytes_are_rfc_826s() {
        let bytes = ArpPacket::request(ASKER, ASKER_IP, IP).to_bytes();
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 192, 0, 2, 8, 0, 0, 0, 0, 0, 0, 192, 0,
            2, 7,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_operation_must_fit_the_ethertype() {
        let packet = ArpPacket::announcement(GUEST, IP);
        let right = packet.to_frame(MacAddr::BROADCAST, VlanId::new(5).unwrap());
        let frame = EthernetFrame::parse(&right).unwrap();
        assert_eq!(ArpPacket::from_frame(&frame), Some(packet));
        let wrong = build_frame(
            MacAddr::BROADCAST,
            GUEST,
            VlanId::UNTAGGED,
            ethertype::RARP,
            &packet.to_bytes(),
        );
        let frame = EthernetFrame::parse(&wrong).unwrap();
        assert_eq!(ArpPacket::from_frame(&frame), None);
    }

    proptest! {
        #[test]
        fn parse_then_write_is_identity(
            mut bytes in prop::collection::vec(any::<u8>(), 0..40), operation in 0u8..6,
        ) {
            for (to, from) in bytes.iter_mut().zip(PREFIX.iter().chain(&[0, operation])) {
                *to = *from;
            }
            match ArpPacket::parse(&bytes) {
                Some(packet) => prop_assert_eq!(Some(&packet.to_bytes()), bytes.first_chunk()),
                None => prop_assert!(bytes.len() < LEN || !(1..=4).contains(&operation)),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = ArpPacket::parse(&bytes);
        }
    }
}
