//! The Internet checksum (RFC 1071).

use super::{Layout, get_u16};

/// The sum of the big-endian 16-bit words of `bytes`, an odd last byte padded with zero; below
/// 2^16. Sums may be added, then [`fold`]ed.
#[must_use]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Eight independent lanes let the compiler use vectors. The order of bytes does not matter to
    // the sum until the end (RFC 1071, 2 B).
    let (blocks, tail) = bytes.as_chunks::<32>();
    let mut lanes = [0_u64; 8];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (words, tail) = tail.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let (words, odd) = tail.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u64::from(u16::from_be(fold(total)))
}

/// The ones' complement sum in 16 bits.
#[must_use]
pub(crate) const fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    // The last two lines leave nothing above 16 bits.
    (sum & 0xffff) as u16
}

/// Completes the partial checksum of a frame that goes where no offload is. `false`, and nothing
/// done, if it is no unfragmented TCP or UDP with consistent lengths.
#[must_use]
pub fn complete(frame: &mut [u8]) -> bool {
    let Some(layout) = Layout::parse(frame) else {
        return false;
    };
    layout.write_complete(frame);
    true
}

/// The checksum that belongs to a sum. Never 0, which would mean "none" to UDP; all ones is the
/// same number.
pub(super) const fn finish(sum: u64) -> u16 {
    match !fold(sum) {
        0 => 0xffff,
        value => value,
    }
}

/// Is the frame's full TCP or UDP checksum right? `false` also for what is no unfragmented TCP or
/// UDP with consistent lengths, for padded frames, for UDP without a checksum, and for TCP with a
/// checksum of 0, which would come out as all ones: the same number, but not the same bytes.
#[must_use]
pub fn verify(frame: &[u8]) -> bool {
    let Some(layout) = Layout::parse(frame).filter(|layout| layout.fills(frame)) else {
        return false;
    };
    if get_u16(frame, layout.checksum()) == Some(0) {
        return false;
    }
    let packet = frame.get(layout.l4..).unwrap_or_default();
    let pseudo = layout.pseudo_base(frame) + packet.len() as u64;
    fold(sum(packet) + pseudo) == 0xffff
}
