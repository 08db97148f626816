//! Which flow a frame belongs to, as one number.

use overlay_proto::ethernet::{ethertype, protocol};

/// A number for the frame's flow: addresses, protocol and ports, or what of these it has. Lengths and
/// checksums are not looked at: whatever else is wrong with a frame, it stays in its flow's order.
pub(super) fn flow_hash(frame: &[u8]) -> u64 {
    let (at, ethertype) = behind_tags(frame);
    let byte = |offset: usize| frame.get(at + offset).copied().unwrap_or(0);
    let has_ports = |protocol: u8| matches!(protocol, protocol::TCP | protocol::UDP);
    match ethertype {
        ethertype::IPV4 => {
            // More fragments, or an offset.
            let is_fragment = byte(6) & 0x3f != 0 || byte(7) != 0;
            let addresses = word(frame, at + 12);
            if has_ports(byte(9)) && !is_fragment {
                let l4 = at + usize::from(byte(0) & 0x0f) * 4;
                return spread([u64::from(byte(9)), addresses, half(frame, l4)]);
            }
            // ICMP, fragments, what a guest encrypts: no ports that all of its frames have.
            spread([addresses, word(frame, 0), half(frame, 8)])
        }
        ethertype::IPV6 => {
            let [s0, s1, d0, d1] = [8, 16, 24, 32].map(|offset| word(frame, at + offset));
            let rest = if has_ports(byte(6)) {
                [u64::from(byte(6)), half(frame, at + 40)]
            } else {
                [word(frame, 0), half(frame, 8)]
            };
            let [a, b] = rest;
            spread([s0, s1, d0, d1, a, b])
        }
        _ => spread([u64::from(ethertype), word(frame, 0), half(frame, 8)]),
    }
}

/// Every bit of `words` counts, and their order. The golden ratio spreads, the rotation keeps the
/// order.
fn spread<const N: usize>(words: [u64; N]) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words.into_iter().fold(0, mix) >> 32
}

/// The eight bytes at `at`; 0 where the frame is shorter.
fn word(frame: &[u8], at: usize) -> u64 {
    let bytes = frame.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u64::from_ne_bytes)
}

/// The four bytes at `at`; 0 where the frame is shorter.
fn half(frame: &[u8], at: usize) -> u64 {
    let bytes = frame.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u32::from_ne_bytes).into()
}

/// Where the payload behind at most two VLAN tags begins, and its type; type 0 for a short frame.
fn behind_tags(frame: &[u8]) -> (usize, u16) {
    let type_at = |at: usize| {
        let bytes = frame.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u16::from_be_bytes)
    };
    let mut at = 14;
    while at < 22 && matches!(type_at(at - 2), ethertype::VLAN | ethertype::SERVICE_VLAN) {
        at += 4;
    }
    (at, type_at(at - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fragments, ESP or ICMP on a VLAN, MPLS: what differs from packet to packet names no flow.
    #[test]
    fn what_has_no_ports_stays_one_flow() {
        let tagged = |tags: usize, ethertype: u16, number: u16| {
            let mut out = vec![2; 12];
            for _ in 0..tags {
                out.extend([0x81, 0x00, 0, 5]);
            }
            out.extend(ethertype.to_be_bytes());
            out.extend([0x45, 0, 0, 100]);
            // Identification, a fragment's offset, TTL, ESP, header checksum.
            out.extend(number.to_be_bytes());
            out.extend([0x20, 1, 64, 50]);
            out.extend((!number).to_be_bytes());
            out.extend([192, 0, 2, 1, 192, 0, 2, 2]);
            out.resize(out.len() + 100, number.to_be_bytes()[1]);
            out
        };
        for tags in 0..3 {
            for ethertype in [0x0800, 0x8847, 0x88e5] {
                let first = flow_hash(&tagged(tags, ethertype, 1));
                let same = |number| flow_hash(&tagged(tags, ethertype, number)) == first;
                assert!((2..100).all(same), "{tags} {ethertype:#x}");
            }
        }
    }
}
