//! Where the headers of a TCP or UDP frame are.

use super::{checksum, get_u16, put_u16};

const ETHERNET: usize = 14;
const MAX_VLAN_TAGS: usize = 2;
const IPV6: usize = 40;
const MAX_EXTENSIONS: usize = 64;
const MAX_TCP: usize = 60;

/// The most bytes in front of a payload: Ethernet, two VLAN tags, IPv6, 64 bytes of extension
/// headers, TCP with all options (IPv4 with all options is less). 186.
pub const MAX_HEADERS: usize = ETHERNET + 4 * MAX_VLAN_TAGS + IPV6 + MAX_EXTENSIONS + MAX_TCP;

/// Which IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Family {
    /// Bytes of the IP header without options or extension headers.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// What IP carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its number in the pseudo header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its checksum is, in bytes from its header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Offsets of an unfragmented TCP or UDP frame whose lengths agree, in bytes from its start.
///
/// `14 <= ip < l4 < payload <= end <= frame length`, and `payload <= `[`MAX_HEADERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The IP header.
    pub ip: usize,
    /// The TCP or UDP header.
    pub l4: usize,
    /// What TCP or UDP carries.
    pub payload: usize,
    /// The end of it, as IP says. What follows in the frame is padding.
    pub end: usize,
    /// Which IP.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Layout {
    /// Finds the headers behind at most two VLAN tags and 64 bytes of IPv6 extension headers.
    /// `None` for any other frame, for fragments, for lengths that contradict each other, and where
    /// the pseudo header is not made of the addresses in the IP header: source routes, routing
    /// headers, mobile IPv6's home address.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut ip = ETHERNET;
        let mut ethertype = get_u16(frame, ip - 2)?;
        for _ in 0..MAX_VLAN_TAGS {
            if !matches!(ethertype, 0x8100 | 0x88a8) {
                break;
            }
            ip += 4;
            ethertype = get_u16(frame, ip - 2)?;
        }
        match ethertype {
            0x0800 => Self::ipv4(frame, ip),
            0x86dd => Self::ipv6(frame, ip),
            _ => None,
        }
    }

    /// Is there nothing behind the end of the IP packet?
    #[must_use]
    pub const fn fills(&self, frame: &[u8]) -> bool {
        self.end == frame.len()
    }

    /// Where the TCP or UDP checksum is, in bytes from the start of the frame.
    #[must_use]
    pub const fn checksum(&self) -> usize {
        self.l4 + self.protocol.checksum_offset()
    }

    /// The folded sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) of a TCP or UDP packet
    /// of `l4_len` bytes, header included, with this frame's addresses.
    #[must_use]
    pub fn pseudo_sum(&self, frame: &[u8], l4_len: usize) -> u16 {
        checksum::fold(self.pseudo_base(frame) + l4_len as u64)
    }

    /// The sum of what the pseudo headers of all segments have in common.
    pub(super) fn pseudo_base(&self, frame: &[u8]) -> u64 {
        let addresses = match self.family {
            Family::V4 => self.ip + 12..self.ip + 20,
            Family::V6 => self.ip + 8..self.ip + 40,
        };
        let addresses = frame.get(addresses).unwrap_or_default();
        checksum::sum(addresses) + u64::from(self.protocol.number())
    }

    /// Writes the partial checksum that belongs to the frame's own length.
    pub(super) fn write_partial(&self, frame: &mut [u8]) {
        let sum = self.pseudo_sum(frame, self.end - self.l4);
        put_u16(frame, self.checksum(), sum);
    }

    /// Writes the full checksum.
    pub(super) fn write_complete(&self, frame: &mut [u8]) {
        self.write_partial(frame);
        let packet = frame.get(self.l4..self.end).unwrap_or_default();
        let value = checksum::finish(checksum::sum(packet));
        put_u16(frame, self.checksum(), value);
    }

    fn ipv4(frame: &[u8], ip: usize) -> Option<Self> {
        let header: &[u8; 20] = frame.get(ip..)?.first_chunk()?;
        let &[version, _, t0, t1, _, _, f0, f1, _, protocol, ..] = header;
        let header_len = usize::from(version & 0x0f) * 4;
        // More fragments, or a fragment offset: the rest of the bytes is elsewhere.
        if version >> 4 != 4 || header_len < 20 || f0 & 0x3f != 0 || f1 != 0 {
            return None;
        }
        let end = ip + usize::from(u16::from_be_bytes([t0, t1]));
        let l4 = ip + header_len;
        if header_len > 20 && has_source_route(frame.get(ip + 20..l4)?) {
            return None;
        }
        Self::transport(frame, ip, l4, end, Family::V4, protocol)
    }

    fn ipv6(frame: &[u8], ip: usize) -> Option<Self> {
        let header: &[u8; IPV6] = frame.get(ip..)?.first_chunk()?;
        let &[version, _, _, _, p0, p1, mut next, ..] = header;
        if version >> 4 != 6 {
            return None;
        }
        let end = ip + IPV6 + usize::from(u16::from_be_bytes([p0, p1]));
        let first = ip + IPV6;
        let mut l4 = first;
        // Hop-by-hop options may only come first (RFC 8200, 4.1).
        while (next == 0 && l4 == first) || next == 60 {
            let &[following, units] = frame.get(l4..)?.first_chunk()?;
            let behind = l4 + (usize::from(units) + 1) * 8;
            if behind - first > MAX_EXTENSIONS {
                return None;
            }
            if next == 60 && has_home_address(frame.get(l4 + 2..behind)?) {
                return None;
            }
            (next, l4) = (following, behind);
        }
        Self::transport(frame, ip, l4, end, Family::V6, next)
    }

    fn transport(
        frame: &[u8],
        ip: usize,
        l4: usize,
        end: usize,
        family: Family,
        protocol: u8,
    ) -> Option<Self> {
        if end > frame.len() {
            return None;
        }
        let (protocol, payload) = match protocol {
            6 => {
                let offset = usize::from(frame.get(l4 + 12)? >> 4) * 4;
                (Protocol::Tcp, (offset >= 20).then_some(l4 + offset)?)
            }
            17 => {
                let len = usize::from(get_u16(frame, l4 + 4)?);
                (Protocol::Udp, (l4 + len == end).then_some(l4 + 8)?)
            }
            _ => return None,
        };
        (payload <= end).then_some(Self {
            ip,
            l4,
            payload,
            end,
            family,
            protocol,
        })
    }
}

/// Does one of `options` (TLVs, RFC 791 or RFC 8200) have a type that `is_wanted`? `pad` types
/// are one byte long, `end` ends them; `base` is what a length does not count.
fn find_option(
    options: &[u8],
    end: Option<u8>,
    pad: u8,
    base: usize,
    is_wanted: impl Fn(u8) -> bool,
) -> bool {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if Some(kind) == end {
            return false;
        }
        if kind == pad {
            at += 1;
            continue;
        }
        if is_wanted(kind) {
            return true;
        }
        let len = base + options.get(at + 1).copied().map_or(2, usize::from);
        at += len.max(2);
    }
    false
}

fn has_source_route(options: &[u8]) -> bool {
    find_option(options, Some(0), 1, 0, |kind| matches!(kind, 131 | 137))
}

fn has_home_address(options: &[u8]) -> bool {
    find_option(options, None, 0, 2, |kind| kind == 0xc9)
}

/// Do the TCP `options` hold a signature over the segment: MD5 (RFC 2385) or AO (RFC 5925)?
pub(super) fn is_signed(options: &[u8]) -> bool {
    find_option(options, Some(0), 1, 0, |kind| matches!(kind, 19 | 29))
}
