//! What can be switched off for a network: clamping the MSS, and the offload of its tap.

use overlay_proto::wire::max_frame;
use tap_bridge::Offload;

use super::super::delivery::Taps;
use super::super::readahead::Tap;
use super::*;

/// The MSS with which a segment fits into one datagram: the frame limit less Ethernet, IPv4 and TCP
/// headers.
const CLAMPED: u16 = (max_frame(SAFE_DATAGRAM) - 14 - 40) as u16;
const GUESTS: u16 = 1460;
const MSS_AT: usize = 14 + 20 + 20 + 2;

/// A SYN with the MSS [`GUESTS`]. Nobody verifies its checksum.
fn syn(dst: MacAddr, src: MacAddr) -> Vec<u8> {
    let ip = [
        0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2,
    ];
    let tcp = [
        1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0x20, 0, 0, 0, 0, 0,
    ];
    let [hi, lo] = GUESTS.to_be_bytes();
    let payload = [&ip[..], &tcp, &[2, 4, hi, lo]].concat();
    build_frame(dst, src, VlanId::UNTAGGED, 0x0800, &payload)
}

#[test]
fn a_syn_is_clamped_unless_both_ends_leave_it() {
    let (mut a, mut b) = two_joined("127.0.0.1:0");
    let sent = syn(MAC_B, MAC_A);
    for (at_a, at_b, mss) in [
        (true, true, CLAMPED),
        // It is enough that one end has it, whichever it is.
        (true, false, CLAMPED),
        (false, true, CLAMPED),
        (false, false, GUESTS),
    ] {
        a.change(|fib| fib.networks[0].clamp = at_a);
        b.change(|fib| fib.networks[0].clamp = at_b);
        a.says(&sent);
        let got = b.hears();
        assert_eq!(got[MSS_AT..MSS_AT + 2], mss.to_be_bytes(), "{at_a} {at_b}");
        assert_eq!(got == sent, mss == GUESTS);
    }
    a.no_drops();
    b.no_drops();
}

#[test]
fn a_tap_without_offload_keeps_no_other_from_merged_datagrams() {
    let tap = |net, offload| {
        let (tap, _) = MemoryTap::pair_with(offload).unwrap();
        Tap::new(NetIndex(net), Box::new(tap))
    };
    let (off, on) = (tap(0, false), tap(1, true));
    let offloads = [&off, &on].map(|tap| tap.queue.offload());
    assert_eq!(offloads, [Offload::Off, Offload::TcpUdp]);
    assert!(Taps(vec![off, on]).take_udp());
}
