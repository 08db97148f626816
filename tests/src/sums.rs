//! Checksums and lengths of captured frames, computed with code of this crate's own.

use crate::frames::Frame;

/// What a capture says of its frames.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// TCP segments and UDP datagrams whose checksums were computed.
    pub checked: usize,
    /// Those among them whose checksum, or whose IPv4 header's, is wrong.
    pub wrong: usize,
    /// Length of the longest frame without its VLAN tag, in bytes.
    pub longest: usize,
}

/// Looks at each frame: unfragmented TCP and UDP over IPv4 and IPv6 without extension headers are checked.
#[must_use]
pub fn judge<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Verdict {
    let mut verdict = Verdict::default();
    for frame in frames {
        let tag = if frame.ethertype() == 0x8100 { 4 } else { 0 };
        verdict.longest = verdict.longest.max(frame.0.len() - tag);
        if let Some(right) = is_right(&frame.0[12 + tag..]) {
            verdict.checked += 1;
            verdict.wrong += usize::from(!right);
        }
    }
    verdict
}

/// The MSS that a SYN announces, when it is the first option, as Linux writes it.
#[must_use]
pub fn mss(frame: &Frame) -> Option<u16> {
    let packet = frame.0.get(14..)?;
    let l4 = match frame.ethertype() {
        0x0800 if packet[9] == 6 => packet.get(usize::from(packet[0] & 15) * 4..)?,
        0x86dd if packet[6] == 6 => packet.get(40..)?,
        _ => return None,
    };
    let is_syn = l4.get(13)? & 2 != 0;
    let [2, 4, hi, lo] = *l4.get(20..24)? else {
        return None;
    };
    is_syn.then_some(u16::from_be_bytes([hi, lo]))
}

/// `from_ethertype` begins with it. `None`: nothing to check.
fn is_right(from_ethertype: &[u8]) -> Option<bool> {
    let (kind, packet) = from_ethertype.split_first_chunk()?;
    let (l4, protocol, addresses, header_is_right) = match u16::from_be_bytes(*kind) {
        0x0800 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
                return None;
            }
            let right = sum(&packet[..header]) == 0xffff;
            (
                packet.get(header..total)?,
                packet[9],
                &packet[12..20],
                right,
            )
        }
        0x86dd => {
            let len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (packet.get(40..40 + len)?, packet[6], &packet[8..40], true)
        }
        _ => return None,
    };
    let has_sum = match protocol {
        6 => true,
        17 => l4[6..8] != [0, 0],
        _ => return None,
    };
    let len = u32::try_from(l4.len()).ok()?.to_be_bytes();
    let pseudo = [addresses, &len, &[0, 0, 0, protocol]].concat();
    let right = !has_sum || sum(&[&pseudo[..], l4].concat()) == 0xffff;
    Some(right && header_is_right)
}

/// RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 10.0.0.1:1 to 10.0.0.2:2, three bytes; its sums were computed by hand.
    fn datagram() -> Frame {
        let ip = [
            0x45, 0, 0, 31, 0, 0, 0x40, 0, 64, 17, 0x26, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        let udp = [0, 1, 0, 2, 0, 11, 0x67, 0x90, 0x41, 0x42, 0x43];
        Frame::build([2; 6], [4; 6], 0x0800, &[&ip[..], &udp].concat())
    }

    #[test]
    fn a_changed_bit_is_seen_and_padding_is_none() {
        let right = datagram();
        let seen = judge([&right]);
        assert_eq!((seen.checked, seen.wrong, seen.longest), (1, 0, 60));
        for at in [14 + 8, 14 + 13, 14 + 20, 14 + 30] {
            let mut wrong = right.clone();
            wrong.0[at] ^= 1;
            assert_eq!(judge([&wrong, &right]).wrong, 1, "{at}");
            assert_eq!(judge([&wrong.tagged(5)]).wrong, 1, "{at}");
        }
    }
}
