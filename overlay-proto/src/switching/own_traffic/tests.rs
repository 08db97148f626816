use std::sync::Arc;
use std::time::Instant;

use nat_traversal::relay::RelayKey;

use super::*;
use crate::ethernet::{MacAddr, VlanId, build_frame};
use crate::ids::PeerId;
use crate::session::{RawSplit, Role, Session, SessionNames, Suite};
use crate::switching::{FibSession, PeerSlot};

const HOST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const FAR: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

/// What this node has drawn or was told, and what others have.
const LOCAL: u32 = 0x0101_0101;
const REMOTE: u32 = 0x0202_0202;
const DIALLING: u32 = 0x0303_0303;
const FOREIGN: u32 = 0x0909_0909;
const ALLOCATION: u64 = 0x0404_0404_0404_0404;

fn fib() -> Fib {
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let names = SessionNames {
        peer: PeerId([2; 32]),
        local_index: SessionIndex(LOCAL),
        remote_index: SessionIndex(REMOTE),
        networks: Vec::new(),
    };
    let split = RawSplit {
        to_responder: [3; 32],
        to_initiator: [4; 32],
    };
    let session = Session::new(names, &split, Suite::Aes256Gcm, Role::Initiator, now).unwrap();
    let from = FibSession {
        session: Arc::new(session),
        peer: PeerSlot(0),
    };
    Fib {
        sessions: FibMap::from_iter([(SessionIndex(LOCAL), from)]),
        relay_keys: [(AllocationId(ALLOCATION), RelayKey([5; 16]))].into(),
        own: OwnTraffic {
            remote_indices: FibMap::from_iter([(SessionIndex(REMOTE), ())]),
            dialling: FibMap::from_iter([(SessionIndex(DIALLING), ())]),
            last_handshake: 1,
            sockets: vec![
                "10.9.0.50:22611".parse().unwrap(),
                "[fd00:9::50]:22611".parse().unwrap(),
            ],
        },
        ..Fib::default()
    }
}

/// A datagram of `kind` whose header has these 32-bit words behind the first one.
fn payload(kind: DatagramKind, words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![kind.byte(), 0, 0, 0];
    for word in words {
        bytes.extend(word.to_be_bytes());
    }
    bytes.resize(64, 0);
    bytes
}

fn v4(protocol: u8, from: [u8; 4], to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(udp(ports, payload));
    build_frame(FAR, HOST, VlanId::UNTAGGED, ethertype::IPV4, &packet)
}

fn v6(from: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let udp = udp((22_611, 22_611), payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(8 + udp.len()).unwrap().to_be_bytes());
    packet.extend([protocol::DESTINATION, 64]);
    packet.extend(from);
    packet.extend([0xfd; 16]);
    // A destination options header: it names the next one.
    packet.extend([protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(udp);
    build_frame(FAR, HOST, VlanId::UNTAGGED, ethertype::IPV6, &packet)
}

fn udp((from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let header = [from, to, length, 0].map(u16::to_be_bytes);
    [header.concat(), payload.to_vec()].concat()
}

fn left(bytes: &[u8]) -> bool {
    fib().left_own_socket(&EthernetFrame::parse(bytes).unwrap())
}

fn arrives(bytes: &[u8]) -> bool {
    fib().is_for_own_socket(&EthernetFrame::parse(bytes).unwrap())
}

/// From a guest's address to a guest's: only the datagram itself tells.
fn between_guests(payload: &[u8]) -> Vec<u8> {
    v4(17, [10, 9, 0, 1], [10, 9, 0, 2], (40_000, 50_000), payload)
}

#[test]
fn own_datagrams_are_known_by_what_is_in_them_whatever_nat_they_passed() {
    use DatagramKind::*;
    let [high, low] = [0x0404_0404; 2];
    for sent in [
        payload(Data, &[REMOTE]),
        payload(HandshakeInit, &[DIALLING]),
        payload(HandshakeResponse, &[LOCAL, FOREIGN]),
        payload(Relayed, &[high, low, FOREIGN, FOREIGN]),
        payload(RelayBind, &[high, low]),
    ] {
        assert!(left(&between_guests(&sent)), "{sent:x?}");
        assert!(!arrives(&between_guests(&sent)), "{sent:x?}");
    }
    for received in [
        payload(Data, &[LOCAL]),
        payload(HandshakeResponse, &[FOREIGN, DIALLING]),
        payload(CookieReply, &[DIALLING]),
        payload(Relayed, &[FOREIGN, FOREIGN, high, low]),
        payload(RelayChallenge, &[high, low]),
        payload(RelayAck, &[high, low]),
    ] {
        assert!(arrives(&between_guests(&received)), "{received:x?}");
        assert!(!left(&between_guests(&received)), "{received:x?}");
    }
    let sealed = payload(Data, &[REMOTE]);
    assert!(left(&v6([0xfe; 16], &sealed)));
}

#[test]
fn what_carries_no_index_is_known_by_the_hosts_address() {
    use DatagramKind::*;
    let (host, guest) = ([10, 9, 0, 50], [10, 9, 0, 2]);
    let from_host = |kind| v4(17, host, guest, (22_611, 1), &payload(kind, &[FOREIGN]));
    let to_host = |kind| v4(17, guest, host, (1, 22_611), &payload(kind, &[FOREIGN]));
    for kind in [CookieReply, ReflectorRequest] {
        assert!(left(&from_host(kind)), "{kind:?}");
        assert!(!left(&to_host(kind)), "{kind:?}");
    }
    for kind in [HandshakeInit, ReflectorResponse] {
        assert!(arrives(&to_host(kind)), "{kind:?}");
        assert!(!arrives(&from_host(kind)), "{kind:?}");
    }
}

#[test]
fn a_node_in_a_guest_keeps_working_even_with_the_hosts_address_and_port() {
    use DatagramKind::*;
    let host = [10, 9, 0, 50];
    for kind in [Data, HandshakeInit, HandshakeResponse, Relayed, RelayBind] {
        let words = [FOREIGN, FOREIGN, FOREIGN, FOREIGN];
        let theirs = v4(17, host, host, (22_611, 22_611), &payload(kind, &words));
        assert!(!left(&theirs), "{kind:?}");
        assert!(kind == HandshakeInit || !arrives(&theirs), "{kind:?}");
    }
    // Other programs: the same bytes over TCP, DNS, nothing, and what is no IP.
    let sealed = payload(Data, &[REMOTE]);
    assert!(!left(&v4(6, host, host, (22_611, 22_611), &sealed)));
    for other in [&b"\x40quic"[..], b"", b"\x04", b"\x04\0\0\0\x02"] {
        assert!(!left(&between_guests(other)), "{other:x?}");
        assert!(!arrives(&between_guests(other)), "{other:x?}");
    }
    let arp = build_frame(FAR, HOST, VlanId::UNTAGGED, ethertype::ARP, &[0; 28]);
    assert!(!left(&arp) && !arrives(&arp));
}
