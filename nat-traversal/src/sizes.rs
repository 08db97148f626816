//! From the MTU of the underlay to the segment of a guest, and back: the one place where lengths
//! of headers are added and taken off.
//!
//! ```text
//! bytes, on an underlay with MTU 1500            direct, IPv4   direct, IPv6   relayed, IPv4
//!   underlay packet (its IP MTU)                         1500           1500            1500
//!     - IP header 20 or 40, UDP header 8
//!   UDP payload                                          1472           1452            1472
//!     - relay header 28 on a relayed path
//!   sealed datagram (the path MTU of `farlan status`)    1472           1452            1444
//!     - clear header 16, inner header 8, tag 16
//!   frame (with its Ethernet header)                     1432           1412            1404
//!     - Ethernet header 14, 4 for each VLAN tag
//!   guest packet (its IP MTU)                            1418           1398            1390
//!     - IP header 20 or 40, TCP header 20
//!   MSS over IPv4                                        1378           1358            1350
//!   MSS over IPv6                                        1358           1338            1330
//! ```
//! Each function is named after what it gives and what it takes. Going down stops at 0; going up
//! adds to lengths that are far from `usize::MAX`, and stays there otherwise.

use crate::path::{Path, PathKind, SocketId};
use crate::relay;

/// IPv4 header without options (RFC 791).
const IPV4_HEADER: usize = 20;
/// IPv6 header without extensions (RFC 8200).
const IPV6_HEADER: usize = 40;
/// UDP header (RFC 768).
const UDP_HEADER: usize = 8;
/// TCP header without options; the MSS counts without them, too (RFC 9293 section 3.7.1).
const TCP_HEADER: usize = 20;
/// Destination, source, ethertype.
const ETHERNET_HEADER: usize = 14;
/// One VLAN tag (IEEE 802.1Q).
const VLAN_TAG: usize = 4;

/// What sealing adds to a frame, or to the body of a probe: clear header 16, inner header 8,
/// tag 16. `overlay_proto::wire` asserts that its headers are that long.
pub const SEALING: usize = 40;

/// The smallest MTU of an IPv6 link (RFC 8200 section 5): what any underlay carries.
pub const MIN_UNDERLAY_MTU: usize = 1_280;

/// The largest MTU of an underlay that is probed: jumbo frames as most networks have them.
pub const MAX_UNDERLAY_MTU: usize = 9_000;

/// The largest sealed datagram before more is proven. Behind a relay header, IPv6 and UDP it is
/// still under [`MIN_UNDERLAY_MTU`], so that the same datagram fits a direct and a relayed path.
pub const SAFE_DATAGRAM: usize = 1_200;
const _: () = assert!(
    SAFE_DATAGRAM + relay::HEADER_LEN <= udp_payload_of_ip_mtu(MIN_UNDERLAY_MTU, SocketId::V6)
);

/// The largest UDP payload that is ever sent, 8,972 bytes: a slot for sending holds it.
pub const MAX_UDP_PAYLOAD: usize = udp_payload_of_ip_mtu(MAX_UNDERLAY_MTU, SocketId::V4);

/// UDP payload of a packet of `ip_mtu` bytes, of the family of `socket`.
#[must_use]
pub const fn udp_payload_of_ip_mtu(ip_mtu: usize, socket: SocketId) -> usize {
    ip_mtu.saturating_sub(ip_header(socket) + UDP_HEADER)
}

/// Bytes of the IP packet around a UDP payload.
#[must_use]
pub const fn ip_mtu_of_udp_payload(udp_payload: usize, socket: SocketId) -> usize {
    udp_payload.saturating_add(ip_header(socket) + UDP_HEADER)
}

/// Bytes of the sealed datagram in a UDP payload on `path`.
#[must_use]
pub const fn sealed_of_udp_payload(udp_payload: usize, path: &Path) -> usize {
    udp_payload.saturating_sub(relay_header(path))
}

/// Bytes of the UDP payload that carries a sealed datagram on `path`.
#[must_use]
pub const fn udp_payload_of_sealed(sealed: usize, path: &Path) -> usize {
    sealed.saturating_add(relay_header(path))
}

/// Bytes of the sealed datagram on `path`, over an underlay of `ip_mtu` bytes.
#[must_use]
pub const fn sealed_of_ip_mtu(ip_mtu: usize, path: &Path) -> usize {
    sealed_of_udp_payload(udp_payload_of_ip_mtu(ip_mtu, path.socket), path)
}

/// Bytes of the largest frame, Ethernet header included, or of the body of a probe, in a sealed
/// datagram.
#[must_use]
pub const fn frame_of_sealed(sealed: usize) -> usize {
    sealed.saturating_sub(SEALING)
}

/// Bytes of the sealed datagram around a frame, or around the body of a probe.
#[must_use]
pub const fn sealed_of_frame(frame: usize) -> usize {
    frame.saturating_add(SEALING)
}

/// Bytes of the guest's IP packet in a frame with `vlan_tags` tags.
#[must_use]
pub const fn guest_packet_of_frame(frame: usize, vlan_tags: usize) -> usize {
    frame.saturating_sub(ethernet_header(vlan_tags))
}

/// Bytes of the frame around a guest's IP packet.
#[must_use]
pub const fn frame_of_guest_packet(packet: usize, vlan_tags: usize) -> usize {
    packet.saturating_add(ethernet_header(vlan_tags))
}

/// The MSS of a guest whose TCP packets over IPv4 have at most `packet` bytes.
#[must_use]
pub const fn ipv4_mss_of_guest_packet(packet: usize) -> usize {
    packet.saturating_sub(IPV4_HEADER + TCP_HEADER)
}

/// The MSS of a guest whose TCP packets over IPv6 have at most `packet` bytes.
#[must_use]
pub const fn ipv6_mss_of_guest_packet(packet: usize) -> usize {
    packet.saturating_sub(IPV6_HEADER + TCP_HEADER)
}

const fn ip_header(socket: SocketId) -> usize {
    match socket {
        SocketId::V4 => IPV4_HEADER,
        SocketId::V6 => IPV6_HEADER,
    }
}

const fn relay_header(path: &Path) -> usize {
    match path.kind() {
        PathKind::Relayed => relay::HEADER_LEN,
        _ => 0,
    }
}

const fn ethernet_header(vlan_tags: usize) -> usize {
    vlan_tags
        .saturating_mul(VLAN_TAG)
        .saturating_add(ETHERNET_HEADER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::{AllocationId, RelayRoute};

    fn path(text: &str, relayed: bool) -> Path {
        let remote = text.parse().unwrap();
        let route = RelayRoute {
            own: AllocationId(1),
            peer: AllocationId(2),
        };
        if relayed {
            Path::relayed(remote, route)
        } else {
            Path::direct(remote)
        }
    }

    /// The columns of the drawing.
    #[test]
    fn the_drawing_is_true() {
        let columns = [
            (
                path("192.0.2.1:1", false),
                [1472, 1472, 1432, 1418, 1378, 1358],
            ),
            (
                path("[2001:db8::1]:1", false),
                [1452, 1452, 1412, 1398, 1358, 1338],
            ),
            (
                path("192.0.2.1:1", true),
                [1472, 1444, 1404, 1390, 1350, 1330],
            ),
        ];
        for (path, expected) in columns {
            let payload = udp_payload_of_ip_mtu(1500, path.socket);
            let sealed = sealed_of_udp_payload(payload, &path);
            assert_eq!(sealed, sealed_of_ip_mtu(1500, &path));
            let frame = frame_of_sealed(sealed);
            let packet = guest_packet_of_frame(frame, 0);
            let mss = [
                ipv4_mss_of_guest_packet(packet),
                ipv6_mss_of_guest_packet(packet),
            ];
            assert_eq!([payload, sealed, frame, packet, mss[0], mss[1]], expected);
        }
        assert_eq!(
            (MAX_UDP_PAYLOAD, guest_packet_of_frame(1514, 2)),
            (8_972, 1_492)
        );
    }

    #[test]
    fn nothing_goes_below_zero_or_wraps() {
        let relayed = path("[2001:db8::1]:1", true);
        assert_eq!(sealed_of_ip_mtu(10, &relayed), 0);
        assert_eq!(frame_of_sealed(SEALING - 1), 0);
        assert_eq!(guest_packet_of_frame(13, usize::MAX), 0);
        assert_eq!(ipv6_mss_of_guest_packet(59), 0);
        assert_eq!(sealed_of_frame(usize::MAX), usize::MAX);
    }

    proptest! {
        #[test]
        fn up_undoes_down(mtu in 200usize..=65_535, v6: bool, relayed: bool, tags in 0usize..3) {
            let path = path(if v6 { "[2001:db8::1]:1" } else { "192.0.2.1:1" }, relayed);
            let sealed = sealed_of_ip_mtu(mtu, &path);
            let payload = udp_payload_of_sealed(sealed, &path);
            prop_assert_eq!(ip_mtu_of_udp_payload(payload, path.socket), mtu);
            let packet = guest_packet_of_frame(frame_of_sealed(sealed), tags);
            prop_assert_eq!(sealed_of_frame(frame_of_guest_packet(packet, tags)), sealed);
        }
    }
}
