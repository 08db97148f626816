//! The few shared pieces of the fixed-size messages of this crate: big-endian numbers and an
//! address of 20 bytes.
//!
//! ```text
//! 0        1     2      4              20
//! | 4 or 6 | 0   | port | 16 bytes     |     an IPv4 address fills the first four, zeros follow
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an encoded address.
pub(crate) const ADDR_LEN: usize = 20;

/// The `N` bytes at `at`, or nothing when `bytes` is too short.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The big-endian number of 8 bytes at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// Writes `part` at `at`; false when it does not fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, part: &[u8]) -> bool {
    let Some(end) = at.checked_add(part.len()) else {
        return false;
    };
    match bytes.get_mut(at..end) {
        Some(space) => {
            space.copy_from_slice(part);
            true
        }
        None => false,
    }
}

/// `addr` with an IPv4-mapped IPv6 address made plain, without flow label and scope.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Encodes `addr`, made canonical.
pub(crate) fn encode_addr(addr: SocketAddr) -> [u8; ADDR_LEN] {
    let mut bytes = [0; ADDR_LEN];
    let addr = canonical(addr);
    put(&mut bytes, 2, &addr.port().to_be_bytes());
    match addr.ip() {
        IpAddr::V4(ip) => {
            put(&mut bytes, 0, &[4]);
            put(&mut bytes, 4, &ip.octets());
        }
        IpAddr::V6(ip) => {
            put(&mut bytes, 0, &[6]);
            put(&mut bytes, 4, &ip.octets());
        }
    }
    bytes
}

/// Decodes what [`encode_addr`] makes, and nothing else.
pub(crate) fn decode_addr(bytes: &[u8; ADDR_LEN]) -> Option<SocketAddr> {
    let family: [u8; 2] = array(bytes, 0)?;
    let port = u16::from_be_bytes(array(bytes, 2)?);
    let octets: [u8; 16] = array(bytes, 4)?;
    let ip = match family {
        [4, 0] => {
            if octets.iter().skip(4).any(|byte| *byte != 0) {
                return None;
            }
            IpAddr::V4(Ipv4Addr::from(array::<4>(&octets, 0)?))
        }
        [6, 0] => IpAddr::V6(Ipv6Addr::from(octets)),
        _ => return None,
    };
    let addr = SocketAddr::new(ip, port);
    (canonical(addr) == addr).then_some(addr)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_round_trip(addr in any::<SocketAddr>()) {
            prop_assert_eq!(decode_addr(&encode_addr(addr)), Some(canonical(addr)));
        }

        #[test]
        fn one_encoding_each(bytes in any::<[u8; ADDR_LEN]>(), family in 0u8..8) {
            let mut bytes = bytes;
            bytes[0] = family;
            bytes[1] = 0;
            if let Some(addr) = decode_addr(&bytes) {
                prop_assert_eq!(encode_addr(addr), bytes);
            }
        }
    }
}
