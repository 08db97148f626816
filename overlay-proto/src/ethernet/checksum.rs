//! The internet checksum (RFC 1071): the one's complement of the one's complement sum of 16-bit
//! words.

use std::net::IpAddr;

/// A sum in progress. Add an even number of bytes each time but the last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// An empty sum.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// A sum that begins with the pseudo header of TCP, UDP or ICMPv6 (RFC 9293 section 3.1, RFC
    /// 8200 section 8.1); `length` is that of the upper-layer packet in bytes.
    #[must_use]
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> Self {
        let mut sum = Self::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(v4) => sum.add(&v4.octets()),
                IpAddr::V6(v6) => sum.add(&v6.octets()),
            }
        }
        sum.add(&length.to_be_bytes());
        sum.add(&u16::from(protocol).to_be_bytes());
        sum
    }

    /// Adds bytes; an odd last one counts as if a zero followed.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<4>();
        // 2^32 words of 32 bits fit 64 bits: more than any packet has.
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        sum += u64::from(u32::from_be_bytes(last));
        self.0 = u64::from(fold(sum));
    }

    /// The checksum to write into the header. Over data that holds its own checksum it is 0.
    #[must_use]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// The checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Checksum::new();
    sum.add(bytes);
    sum.finish()
}

/// The checksum after one 16-bit word of the data changed from `old` to `new` (RFC 1624, equation
/// 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// Adds the carries until 16 bits are left.
#[allow(clippy::cast_possible_truncation)]
const fn fold(sum: u64) -> u16 {
    let mut sum = (sum >> 32) + (sum & 0xffff_ffff);
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One word at a time, as RFC 1071 section 1 says it.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn known_answer() {
        // RFC 1071 section 3: the sum is ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    proptest! {
        #[test]
        fn equals_the_reference(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), reference(&bytes));
        }

        #[test]
        fn update_equals_a_new_sum(
            mut bytes in prop::collection::vec(1u8..=255, 8..40), new in 1u16..0xffff,
        ) {
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[2], bytes[3]]);
            bytes[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), checksum(&bytes));
        }
    }
}
