//! Which flow a frame belongs to, as a hash.

use overlay_proto::ethernet::{ethertype, protocol};

/// Hashes addresses, protocol and ports, as far as the frame has them. Lengths and checksums are not
/// checked: a frame that is malformed otherwise still keeps its place in its flow.
pub(super) fn flow_hash(frame: &[u8]) -> u64 {
    let (at, ethertype) = behind_tags(frame);
    let byte = |offset: usize| frame.get(at + offset).copied().unwrap_or(0);
    let has_ports = |protocol: u8| matches!(protocol, protocol::TCP | protocol::UDP);
    match ethertype {
        ethertype::IPV4 => {
            // Either the flag "more fragments" is set, or there is a fragment offset.
            let is_fragment = byte(6) & 0x3f != 0 || byte(7) != 0;
            let addresses = word(frame, at + 12);
            if has_ports(byte(9)) && !is_fragment {
                let l4 = at + usize::from(byte(0) & 0x0f) * 4;
                return spread([u64::from(byte(9)), addresses, half(frame, l4)]);
            }
            // ICMP, fragments, encrypted packets: they have no ports, or not all packets of the flow
            // have them.
            spread([addresses, word(frame, 0), half(frame, 8)])
        }
        ethertype::IPV6 => {
            let [s0, s1, d0, d1] = [8, 16, 24, 32].map(|offset| word(frame, at + offset));
            let (protocol, l4) = behind_options(frame, at);
            let rest = if has_ports(protocol) {
                [u64::from(protocol), half(frame, l4)]
            } else {
                [word(frame, 0), half(frame, 8)]
            };
            let [a, b] = rest;
            spread([s0, s1, d0, d1, a, b])
        }
        _ => spread([u64::from(ethertype), word(frame, 0), half(frame, 8)]),
    }
}

/// The protocol behind the extension headers of the IPv6 packet at `at`, and where it begins. Hop-by-hop
/// options come first; destination options may follow (RFC 8200, 4.1). Wherever
/// [`Layout`](tap_bridge::offload::Layout) finds TCP or UDP, this function finds it, too.
fn behind_options(frame: &[u8], at: usize) -> (u8, usize) {
    let byte = |offset: usize| frame.get(offset).copied().unwrap_or(0);
    let first = at + 40;
    let (mut protocol, mut l4) = (byte(at + 6), first);
    while (protocol == protocol::HOP_BY_HOP && l4 == first)
        || (protocol == protocol::DESTINATION && l4 < frame.len())
    {
        (protocol, l4) = (byte(l4), l4 + (usize::from(byte(l4 + 1)) + 1) * 8);
    }
    (protocol, l4)
}

/// Mixes all bits of `words` into one hash. The order of the words matters, because of the rotation.
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

/// The offset of the payload behind at most two VLAN tags, and its Ethernet type; type 0 if the frame is too
/// short.
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
    use proptest::prelude::*;
    use tap_bridge::offload::Layout;

    use super::*;

    /// A UDP datagram over IPv6, behind these options: their kinds and lengths in units of 8 bytes.
    fn behind(options: &[(u8, u8)], port: u16) -> Vec<u8> {
        let mut rest = Vec::new();
        let kinds = options.iter().map(|(kind, _)| *kind).chain([17]);
        let kinds: Vec<u8> = kinds.collect();
        for ((_, units), next) in options.iter().zip(kinds.iter().skip(1)) {
            // Padding (RFC 8200, 4.2): a PadN over all that there is.
            let pad = usize::from(*units) * 8 + 6;
            rest.extend([*next, *units, 1, u8::try_from(pad - 2).unwrap()]);
            rest.resize(rest.len() + pad - 2, 0);
        }
        rest.extend(port.to_be_bytes());
        rest.extend([0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        let mut out = vec![2; 12];
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        out.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        out.extend([kinds[0], 64]);
        out.extend([0xfd; 32]);
        out.extend(rest);
        out
    }

    proptest! {
        /// Whatever else a merger takes for TCP or UDP, its flow is that of its ports.
        #[test]
        fn options_of_ipv6_change_no_flow(
            first in prop::option::of(0_u8..4),
            others in prop::collection::vec(0_u8..3, 0..4),
        ) {
            let first = first.map(|units| (protocol::HOP_BY_HOP, units));
            let others = others.into_iter().map(|units| (protocol::DESTINATION, units));
            let options: Vec<_> = first.into_iter().chain(others).collect();
            let frame = behind(&options, 7);
            if Layout::parse(&frame).is_some() {
                prop_assert_eq!(flow_hash(&frame), flow_hash(&behind(&[], 7)));
                prop_assert_ne!(flow_hash(&frame), flow_hash(&behind(&options, 8)));
            } else {
                let bytes: usize = options.iter().map(|(_, units)| usize::from(*units) * 8 + 8).sum();
                prop_assert!(bytes > 64);
            }
        }
    }

    /// Any end of the frame, and options without one.
    #[test]
    fn frames_that_end_early_have_a_flow() {
        let frame = behind(&[(protocol::HOP_BY_HOP, 1), (protocol::DESTINATION, 2)], 7);
        for len in 0..frame.len() {
            flow_hash(&frame[..len]);
        }
        let mut endless = frame;
        endless[20] = protocol::DESTINATION;
        endless.resize(9_000, 0);
        for at in (54..9_000).step_by(8) {
            endless[at] = protocol::DESTINATION;
        }
        flow_hash(&endless);
    }

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
