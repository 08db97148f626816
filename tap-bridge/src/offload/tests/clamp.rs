//! Clamping the MSS.

use proptest::prelude::*;

use super::super::reference::{Packet, Sum, ones_sum, packet};
use super::super::{FrameChecksum, clamp_mss, verify};
use super::tcp;

/// A SYN with `options`; its payload is not empty, so that the sum covers more.
fn syn(options: &[u8], is_v6: bool) -> Packet {
    Packet {
        is_v6,
        tcp_options: options.to_vec(),
        tcp_flags: 0x12,
        ..tcp(3)
    }
}

proptest! {
    #[test]
    fn a_clamped_syn_is_what_the_guest_would_have_sent(
        packet in packet(5), mss: u16, max_frame in 100..2_000_usize, odd: bool, kind in 0..3_u8
    ) {
        let options = |mss: u16| {
            let [a, b] = mss.to_be_bytes();
            // No operation in front moves the number to an odd offset.
            if odd { vec![1, 2, 4, a, b, 3, 3, 7] } else { vec![2, 4, a, b, 1, 3, 3, 7] }
        };
        let syn = |mss| Packet {
            is_udp: false, tcp_flags: 0x02, tcp_options: options(mss), ..packet.clone()
        };
        let fixed = 14 + 4 * packet.vlans + if packet.is_v6 { 40 } else { 20 } + 20;
        let limit = u16::try_from(max_frame.saturating_sub(fixed)).unwrap();
        let (sum, checksum) = match kind {
            0 => (Sum::Partial, FrameChecksum::Partial),
            1 => (Sum::Full, FrameChecksum::Complete),
            _ => (Sum::Full, FrameChecksum::Verified),
        };
        let mut frame = syn(mss).build(sum);
        prop_assert_eq!(clamp_mss(&mut frame, max_frame, checksum), mss > limit);
        prop_assert!(sum == Sum::Partial || verify(&frame));
        // Zero and all ones are the same number to the sum.
        prop_assert_eq!(frame, syn(mss.min(limit)).build(sum));
    }
}

#[test]
fn a_clamped_syn_with_a_wrong_checksum_stays_wrong() {
    let mut frame = syn(&[2, 4, 5, 0xb4], false).build(Sum::Full);
    frame[50] ^= 0x40;
    let before = ones_sum(&frame[34..]);
    assert!(clamp_mss(&mut frame, 1_400, FrameChecksum::Complete));
    assert_eq!(frame[56..58], 1_346_u16.to_be_bytes());
    assert!(!verify(&frame));
    assert_eq!(ones_sum(&frame[34..]), before);
}

#[test]
fn a_syn_without_mss_a_signed_one_and_other_frames_are_not_clamped() {
    let mss = [2, 4, 0xff, 0xff];
    let untouched = |packet: &Packet| {
        let mut frame = packet.build(Sum::Full);
        let was = frame.clone();
        !clamp_mss(&mut frame, 1_400, FrameChecksum::Complete) && frame == was
    };
    assert!(!untouched(&syn(&mss, false)) && !untouched(&syn(&mss, true)));
    for is_v6 in [false, true] {
        for kind in [19, 29] {
            let signed = [&mss[..], &[1, 1, kind, 18], &[7; 16]].concat();
            assert!(untouched(&syn(&signed, is_v6)));
        }
        for without in [
            &[][..],
            &[1, 1, 1, 1],
            &[0, 2, 4, 0xff],
            &[2, 3, 255, 255],
            &[1, 1, 2, 4],
        ] {
            assert!(untouched(&syn(without, is_v6)), "{without:?}");
        }
        let ack = Packet {
            tcp_flags: 0x10,
            ..syn(&mss, is_v6)
        };
        assert!(untouched(&ack));
        let udp = Packet {
            is_udp: true,
            payload: vec![2; 40],
            ..syn(&mss, is_v6)
        };
        assert!(untouched(&udp));
    }
}
