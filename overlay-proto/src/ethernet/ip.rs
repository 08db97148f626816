//! A bounded walk over an IPv4 or IPv6 header (RFC 791, RFC 8200) to the upper-layer protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::{EthernetFrame, ethertype};

/// Extension headers that the walk passes before it gives up.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// The protocol numbers that Farlan looks at (IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HIP: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// Why bytes are no IP packet that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// The ethertype is neither IPv4 nor IPv6.
    #[error("not IP")]
    NotIp,
    /// The version field contradicts the ethertype.
    #[error("the IP version contradicts the ethertype")]
    Version,
    /// The bytes end before the headers or the announced length do.
    #[error("the packet ends before its announced length")]
    Truncated,
    /// A header length that cannot be.
    #[error("a header length that cannot be")]
    HeaderLength,
    /// More than [`MAX_EXTENSION_HEADERS`].
    #[error("too many extension headers")]
    TooManyHeaders,
}

/// Is the packet a fragment?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// No.
    Whole,
    /// The first: it begins with the upper-layer header. Also an IPv6 packet that is whole but has
    /// a fragment header (RFC 6946).
    First,
    /// A later one: its bytes are in the midst of the upper-layer packet.
    Later,
}

/// What the walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The upper-layer protocol, behind all extension headers.
    pub protocol: u8,
    /// Whether and which fragment.
    pub fragment: Fragment,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Where the upper layer begins, in bytes from the start of the IP header.
    pub l4_offset: usize,
    /// The upper layer's bytes, without the frame's padding.
    pub l4: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// The IP packet in a frame.
    ///
    /// # Errors
    /// [`IpError::NotIp`] for other ethertypes, else what is wrong with the packet.
    pub fn from_frame(frame: &EthernetFrame<'a>) -> Result<Self, IpError> {
        match frame.ethertype() {
            ethertype::IPV4 => Self::parse_v4(frame.payload()),
            ethertype::IPV6 => Self::parse_v6(frame.payload()),
            _ => Err(IpError::NotIp),
        }
    }

    /// Reads an IPv4 packet; bytes behind its total length are padding. The header checksum is not
    /// checked.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn parse_v4(bytes: &'a [u8]) -> Result<Self, IpError> {
        let header = bytes.first_chunk::<IPV4_LEN>().ok_or(IpError::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(IpError::Version);
        }
        let l4_offset = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if l4_offset < IPV4_LEN || total < l4_offset {
            return Err(IpError::HeaderLength);
        }
        let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
        Ok(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
            protocol: header[9],
            fragment: fragment(flags_and_offset & 0x1fff, flags_and_offset & 0x2000 != 0),
            hop_limit: header[8],
            l4_offset,
            l4: bytes.get(l4_offset..total).ok_or(IpError::Truncated)?,
        })
    }

    /// Reads an IPv6 packet; bytes behind its payload length are padding.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn parse_v6(bytes: &'a [u8]) -> Result<Self, IpError> {
        let (header, rest) = bytes
            .split_first_chunk::<IPV6_LEN>()
            .ok_or(IpError::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(IpError::Version);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = rest.get(..length).ok_or(IpError::Truncated)?;
        let walk = Walk::run(header[6], payload)?;
        Ok(Self {
            source: v6(header.last_chunk::<32>().and_then(|a| a.first_chunk())),
            destination: v6(header.last_chunk()),
            protocol: walk.protocol,
            fragment: walk.fragment,
            hop_limit: header[7],
            l4_offset: IPV6_LEN + payload.len() - walk.rest.len(),
            l4: walk.rest,
        })
    }
}

fn v6(octets: Option<&[u8; 16]>) -> IpAddr {
    IpAddr::V6(octets.map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets)))
}

const fn fragment(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// The walk over IPv6 extension headers.
struct Walk<'a> {
    protocol: u8,
    fragment: Fragment,
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn run(first: u8, payload: &'a [u8]) -> Result<Self, IpError> {
        let mut walk = Walk {
            protocol: first,
            fragment: Fragment::Whole,
            rest: payload,
        };
        for _ in 0..=MAX_EXTENSION_HEADERS {
            let unit = match walk.protocol {
                protocol::FRAGMENT => {
                    walk.pass_fragment()?;
                    if walk.fragment == Fragment::Later {
                        return Ok(walk);
                    }
                    continue;
                }
                // RFC 4302: in words of four bytes, minus 2; all others in eight bytes, minus 1.
                protocol::AUTHENTICATION => 4,
                protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION
                | protocol::MOBILITY
                | protocol::HIP
                | protocol::SHIM6 => 8,
                _ => return Ok(walk),
            };
            let [next, length, ..] = *walk.rest else {
                return Err(IpError::Truncated);
            };
            let bytes = usize::from(length) * unit + 8;
            walk.rest = walk.rest.get(bytes..).ok_or(IpError::Truncated)?;
            walk.protocol = next;
        }
        Err(IpError::TooManyHeaders)
    }

    /// RFC 8200 section 4.5.
    fn pass_fragment(&mut self) -> Result<(), IpError> {
        let (header, rest) = self
            .rest
            .split_first_chunk::<8>()
            .ok_or(IpError::Truncated)?;
        self.fragment = if u16::from_be_bytes([header[2], header[3]]) >> 3 == 0 {
            Fragment::First
        } else {
            Fragment::Later
        };
        self.protocol = header[0];
        self.rest = rest;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(ihl: u8, total: u16, flags_and_offset: u16, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x40 | ihl, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(flags_and_offset.to_be_bytes());
        bytes.extend([64, protocol::UDP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        bytes.extend(tail);
        bytes
    }

    fn v6(next: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![
            0x60,
            0,
            0,
            0,
            0,
            u8::try_from(tail.len()).unwrap(),
            next,
            255,
        ];
        bytes.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn ipv4_options_and_padding() {
        let bytes = v4(6, 26, 0, &[1, 1, 1, 1, 7, 8, 0, 0, 0]);
        let packet = IpPacket::parse_v4(&bytes).unwrap();
        assert_eq!(packet.source.to_string(), "192.0.2.1");
        assert_eq!(packet.destination.to_string(), "192.0.2.2");
        assert_eq!((packet.protocol, packet.hop_limit), (protocol::UDP, 64));
        assert_eq!((packet.l4_offset, packet.l4), (24, &[7, 8][..]));
        assert_eq!(packet.fragment, Fragment::Whole);
    }

    #[test]
    fn ipv4_fragments() {
        let kind = |field| IpPacket::parse_v4(&v4(5, 20, field, &[])).unwrap().fragment;
        assert_eq!(kind(0x4000), Fragment::Whole);
        assert_eq!(kind(0x2000), Fragment::First);
        assert_eq!(kind(0x2001), Fragment::Later);
        assert_eq!(kind(0x0001), Fragment::Later);
    }

    #[test]
    fn ipv4_refused() {
        let error = |bytes: &[u8]| IpPacket::parse_v4(bytes).unwrap_err();
        assert_eq!(error(&[0x45; 19]), IpError::Truncated);
        assert_eq!(error(&v4(4, 20, 0, &[])), IpError::HeaderLength);
        assert_eq!(error(&v4(6, 20, 0, &[])), IpError::HeaderLength);
        assert_eq!(error(&v4(5, 21, 0, &[])), IpError::Truncated);
        assert_eq!(error(&[0x65; 40]), IpError::Version);
    }

    #[test]
    fn ipv6_extension_headers() {
        let tail = [
            protocol::AUTHENTICATION,
            0,
            5,
            2,
            0,
            0,
            0,
            0, // hop-by-hop
            protocol::UDP,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // authentication, 12 bytes
            9,
            9,
        ];
        let bytes = v6(protocol::HOP_BY_HOP, &tail);
        let packet = IpPacket::parse_v6(&bytes).unwrap();
        assert_eq!((packet.protocol, packet.l4_offset), (protocol::UDP, 60));
        assert_eq!(packet.l4, [9, 9]);
        assert_eq!(packet.source.to_string(), "2001:db8::1");
        assert_eq!(packet.destination.to_string(), "2001:db8::2");
    }

    #[test]
    fn ipv6_fragments() {
        let first = v6(protocol::FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 1, 5]);
        let packet = IpPacket::parse_v6(&first).unwrap();
        assert_eq!((packet.fragment, packet.protocol), (Fragment::First, 6));
        // A later fragment's bytes are no header: the walk must stop there.
        let later = v6(protocol::FRAGMENT, &[60, 0, 0, 8, 0, 0, 0, 1, 5]);
        let packet = IpPacket::parse_v6(&later).unwrap();
        assert_eq!((packet.fragment, packet.protocol), (Fragment::Later, 60));
        assert_eq!(packet.l4, [5]);
    }

    #[test]
    fn eight_extension_headers_and_no_more() {
        let chain = |n: usize| {
            let mut tail = [protocol::DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(n);
            let last = tail.len() - 8;
            tail[last] = protocol::TCP;
            v6(protocol::DESTINATION, &tail)
        };
        assert_eq!(IpPacket::parse_v6(&chain(8)).unwrap().protocol, 6);
        assert_eq!(IpPacket::parse_v6(&chain(9)), Err(IpError::TooManyHeaders));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..120), next in 0u8..64,
        ) {
            for first in [0x45, 0x60] {
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                if let [_, _, _, _, _, length, kind, ..] = bytes.as_mut_slice() {
                    (*length, *kind) = (40, next);
                }
                let parsed = [IpPacket::parse_v4(&bytes), IpPacket::parse_v6(&bytes)];
                for packet in parsed.into_iter().flatten() {
                    let end = packet.l4_offset + packet.l4.len();
                    prop_assert_eq!(bytes.get(packet.l4_offset..end), Some(packet.l4));
                }
            }
        }
    }
}
