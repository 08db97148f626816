//! IP headers as the routers of the WAN see them: destination, hop limit, MTU, ICMP errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where the WAN's routers send ICMP over IPv4.
pub const HOP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// From where the WAN's routers send ICMP over IPv6.
pub const HOP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// What the WAN reports back to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// The hop limit ran out.
    TimeExceeded,
    /// No route to that address.
    Unreachable,
    /// The packet is larger than this link's MTU, in bytes.
    TooBig(u16),
}

/// The destination, or `None` when this is no IP packet with a whole header.
#[must_use]
pub fn destination(p: &[u8]) -> Option<IpAddr> {
    address(p, 16, 24)
}

/// The source, as [`destination`].
#[must_use]
pub fn source(p: &[u8]) -> Option<IpAddr> {
    address(p, 12, 8)
}

fn address(p: &[u8], v4: usize, v6: usize) -> Option<IpAddr> {
    match p.first()? >> 4 {
        4 if p.len() >= 20 => {
            let b: [u8; 4] = p.get(v4..v4 + 4)?.try_into().ok()?;
            Some(IpAddr::from(b))
        }
        6 if p.len() >= 40 => {
            let b: [u8; 16] = p.get(v6..v6 + 16)?.try_into().ok()?;
            Some(IpAddr::from(b))
        }
        _ => None,
    }
}

/// Takes `hops` from the hop limit; false when it does not last that far.
pub fn take_hops(p: &mut [u8], hops: u8) -> bool {
    let at = if p[0] >> 4 == 4 { 8 } else { 7 };
    if p[at] <= hops {
        return false;
    }
    p[at] -= hops;
    if at == 8 {
        set_v4_checksum(p);
    }
    true
}

/// Whether this packet is a fragment of an IP datagram.
#[must_use]
pub fn is_fragment(p: &[u8]) -> bool {
    match p[0] >> 4 {
        4 => u16::from_be_bytes([p[6], p[7]]) & 0x3fff != 0,
        _ => p[6] == 44,
    }
}

/// Whether a router may not fragment it: IPv6, or IPv4 with DF.
#[must_use]
pub fn dont_fragment(p: &[u8]) -> bool {
    p[0] >> 4 != 4 || p[6] & 0x40 != 0
}

/// Cuts an IPv4 packet to fragments of at most `mtu` bytes (RFC 791 section 3.2).
#[must_use]
pub fn fragment(p: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(p[0] & 15) * 4;
    let step = (mtu - header) & !7;
    let first = u16::from_be_bytes([p[6], p[7]]);
    let body = &p[header..];
    let mut out = Vec::new();
    for (i, chunk) in body.chunks(step).enumerate() {
        let last = (i + 1) * step >= body.len();
        let mut f = p[..header].to_vec();
        f.extend_from_slice(chunk);
        let offset = (first & 0x1fff) + u16::try_from(i * step / 8).unwrap_or(0);
        let more = if last { first & 0x2000 } else { 0x2000 };
        f[2..4].copy_from_slice(
            &u16::try_from(header + chunk.len())
                .unwrap_or(0)
                .to_be_bytes(),
        );
        f[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        set_v4_checksum(&mut f);
        out.push(f);
    }
    out
}

/// The ICMP error about `p`, addressed to its source; `None` for errors about errors.
#[must_use]
pub fn icmp_error(p: &[u8], kind: Icmp) -> Option<Vec<u8>> {
    match source(p)? {
        IpAddr::V4(to) => icmp4_error(p, to, kind),
        IpAddr::V6(to) => icmp6_error(p, to, kind),
    }
}

fn icmp4_error(p: &[u8], to: Ipv4Addr, kind: Icmp) -> Option<Vec<u8>> {
    let header = usize::from(p[0] & 15) * 4;
    let is_error = p[9] == 1 && !matches!(p.get(header), Some(0 | 8));
    if is_error || to.is_unspecified() || to.is_multicast() || to.is_broadcast() {
        return None;
    }
    let (kind, code, mtu) = match kind {
        Icmp::TimeExceeded => (11, 0, 0),
        Icmp::Unreachable => (3, 0, 0),
        Icmp::TooBig(mtu) => (3, 4, mtu),
    };
    let quoted = &p[..p.len().min(header + 64)];
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend_from_slice(&mtu.to_be_bytes());
    icmp.extend_from_slice(quoted);
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let len = u16::try_from(20 + icmp.len()).ok()?;
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 64, 1, 0, 0]);
    out.extend_from_slice(&HOP_V4.octets());
    out.extend_from_slice(&to.octets());
    set_v4_checksum(&mut out);
    out.extend_from_slice(&icmp);
    Some(out)
}

fn icmp6_error(p: &[u8], to: Ipv6Addr, kind: Icmp) -> Option<Vec<u8>> {
    let is_error = p[6] == 58 && p.get(40).is_some_and(|t| *t < 128);
    if is_error || to.is_unspecified() || to.is_multicast() {
        return None;
    }
    let (kind, code, mtu) = match kind {
        Icmp::TimeExceeded => (3, 0, 0u32),
        Icmp::Unreachable => (1, 0, 0),
        Icmp::TooBig(mtu) => (2, 0, u32::from(mtu)),
    };
    let mut icmp = vec![kind, code, 0, 0];
    icmp.extend_from_slice(&mtu.to_be_bytes());
    icmp.extend_from_slice(&p[..p.len().min(1232)]);
    let len = u16::try_from(icmp.len()).ok()?;
    let pseudo = [
        &HOP_V6.octets()[..],
        &to.octets(),
        &u32::from(len).to_be_bytes(),
        &[0, 0, 0, 58],
    ];
    let sum = checksum(&[pseudo[0], pseudo[1], pseudo[2], pseudo[3], &icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut out = vec![0x60, 0, 0, 0];
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&[58, 64]);
    out.extend_from_slice(&HOP_V6.octets());
    out.extend_from_slice(&to.octets());
    out.extend_from_slice(&icmp);
    Some(out)
}

fn set_v4_checksum(p: &mut [u8]) {
    let header = usize::from(p[0] & 15) * 4;
    p[10..12].fill(0);
    let sum = checksum(&[&p[..header]]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum (RFC 1071) over parts; every part but the last has an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(len: usize, flags: u8) -> Vec<u8> {
        let mut p = vec![0u8; len];
        p[0] = 0x45;
        p[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        p[6] = flags;
        p[8] = 64;
        p[9] = 17;
        p[12..16].copy_from_slice(&[192, 0, 2, 1]);
        p[16..20].copy_from_slice(&[198, 51, 100, 2]);
        set_v4_checksum(&mut p);
        p
    }

    #[test]
    fn hops_are_taken_and_the_checksum_holds() {
        let mut p = v4(40, 0);
        assert!(take_hops(&mut p, 3));
        assert_eq!(p[8], 61);
        assert_eq!(checksum(&[&p[..20]]), 0);
        p[8] = 3;
        assert!(!take_hops(&mut p, 3));
    }

    #[test]
    fn fragments_cover_the_packet() {
        let p = v4(1400, 0);
        let f = fragment(&p, 1280);
        assert_eq!(f.len(), 2);
        assert!(
            f.iter()
                .all(|f| f.len() <= 1280 && is_fragment(f) && checksum(&[&f[..20]]) == 0)
        );
        assert_eq!(f.iter().map(|f| f.len() - 20).sum::<usize>(), 1380);
        assert_eq!(f[1][6] & 0x20, 0);
    }

    #[test]
    fn errors_quote_the_packet_and_never_answer_an_error() {
        let p = v4(1400, 0x40);
        let e = icmp_error(&p, Icmp::TooBig(1280)).unwrap();
        assert_eq!(destination(&e), source(&p));
        assert_eq!(
            (e[20], e[21], &e[26..28]),
            (3, 4, &1280u16.to_be_bytes()[..])
        );
        assert_eq!(checksum(&[&e[20..]]), 0);
        assert_eq!(icmp_error(&e, Icmp::TimeExceeded), None);
    }
}
