//! Cutting, merging and checksums against the reference.

mod clamp;

use std::ops::Range;

use proptest::prelude::*;

use super::merge::MAX_SEGMENTS;
use super::reference::{Packet, Sum, ones_sum, packet};
use super::*;
use crate::vnet::VnetHdr;

fn with_headroom(frame: &[u8]) -> Vec<u8> {
    [&[0xee; HEADROOM][..], frame].concat()
}

/// What comes out of `frame`: one frame or its segments, and how their checksums are to be read.
fn cut_all(header: VnetHdr, frame: &[u8], max_frame: usize) -> (Vec<Vec<u8>>, FrameChecksum) {
    let mut buffer = with_headroom(frame);
    match plan(header, &mut buffer, max_frame).unwrap() {
        Plan::Whole(checksum) => (vec![buffer.split_off(HEADROOM)], checksum),
        Plan::Segments(mut cutter) => {
            let mut segments = Vec::new();
            let (count, len, last) = (cutter.count(), cutter.segment_len(), cutter.last_len());
            while let Some(Range { start, end }) = cutter.next(&mut buffer) {
                assert!(start >= HEADROOM);
                segments.push(buffer[start..end].to_vec());
                // The inner header goes in front, and may destroy what is there.
                buffer[start - HEADROOM..start].fill(0xaa);
            }
            assert_eq!(segments.len(), count);
            let (tail, full) = segments.split_last().unwrap();
            assert!(full.iter().all(|segment| segment.len() == len));
            assert!(tail.len() == last && last <= len);
            (segments, FrameChecksum::Partial)
        }
    }
}

fn completed(mut frame: Vec<u8>) -> Vec<u8> {
    assert!(complete(&mut frame));
    frame
}

/// Merges frames as a worker does; what is written, and how many frames were refused.
fn merge_all(frames: &mut [(Vec<u8>, FrameChecksum)]) -> (Vec<(VnetHdr, Vec<u8>)>, usize) {
    let mut merger = Merger::new();
    let (mut written, mut refused) = (Vec::new(), 0);
    for (frame, checksum) in frames {
        let continues = merger.continues(frame, *checksum);
        let joined = merger.join(frame, *checksum);
        assert_eq!(joined.is_ok(), continues);
        let Err(frame) = joined else { continue };
        write(&mut merger, &mut written);
        match merger.push(frame, *checksum) {
            Ok(()) => {}
            Err(MergeError::BadPartial) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    write(&mut merger, &mut written);
    (written, refused)
}

fn write(merger: &mut Merger<'_>, written: &mut Vec<(VnetHdr, Vec<u8>)>) {
    if let Some(merged) = merger.take() {
        assert!(merged.segments() <= MAX_SEGMENTS);
        let frame = merged.frame();
        let bytes = [&[frame.head], frame.rest].concat().concat();
        frame.header.validate(bytes.len()).unwrap();
        written.push((frame.header, bytes));
    }
}

proptest! {
    #[test]
    fn cutting_is_what_the_reference_says(packet in packet(20_000), gso_size in 64..4_000_usize) {
        let frame = packet.build(Sum::Partial);
        let (segments, checksum) = cut_all(packet.header(gso_size), &frame, usize::MAX);
        prop_assert_eq!(checksum, FrameChecksum::Partial);
        let expected = packet.cut(gso_size);
        prop_assert_eq!(segments.len(), expected.len());
        for (segment, packet) in segments.into_iter().zip(expected) {
            prop_assert_eq!(&segment, &packet.build(Sum::Partial));
            let full = completed(segment);
            prop_assert!(verify(&full));
            prop_assert_eq!(full, packet.build(Sum::Full));
        }
    }

    #[test]
    fn a_shrunken_path_cuts_tcp_smaller_and_udp_as_it_is(
        packet in packet(20_000), gso_size in 64..4_000_usize, max_frame in 300..1_500_usize
    ) {
        let frame = packet.build(Sum::Partial);
        let (segments, _) = cut_all(packet.header(gso_size), &frame, max_frame);
        let fits = max_frame - packet.headers();
        let segment = if packet.is_udp { gso_size } else { gso_size.min(fits) };
        let expected = packet.cut(segment);
        let expected: Vec<_> = expected.iter().map(|packet| packet.build(Sum::Partial)).collect();
        prop_assert_eq!(segments, expected);
    }

    #[test]
    fn merging_undoes_cutting(packet in packet(60_000), gso_size in 64..4_000_usize, full: bool) {
        let mut packet = packet;
        packet.tcp_flags &= !0xa6;
        let frame = packet.build(Sum::Partial);
        let (segments, _) = cut_all(packet.header(gso_size), &frame, usize::MAX);
        prop_assume!(segments.len() <= MAX_SEGMENTS);
        let expected = if segments.len() > 1 {
            (packet.header(gso_size), frame)
        } else {
            (VnetHdr::PLAIN, completed(frame))
        };
        let mut frames: Vec<_> = segments
            .into_iter()
            .map(|segment| {
                if full {
                    (completed(segment), FrameChecksum::Verified)
                } else {
                    (segment, FrameChecksum::Partial)
                }
            })
            .collect();
        let (written, refused) = merge_all(&mut frames);
        prop_assert_eq!(refused, 0);
        prop_assert_eq!(written, vec![expected]);
    }

    /// Whatever is merged, a reader who cuts it gets the frames that came, in their order.
    #[test]
    fn trust_16_nothing_merges_that_a_cut_would_not_give_back(
        packets in proptest::collection::vec((packet(6_000), 64..1_500_usize), 1..4),
        order in proptest::collection::vec((0..4_usize, any::<u8>(), any::<u16>(), 0..3_u8), 0..150)
    ) {
        let mut sources: Vec<_> = packets
            .iter()
            .map(|(packet, segment)| packet.cut(*segment).into_iter())
            .collect();
        let mut frames = Vec::new();
        for (source, chance, bit, checksum) in order {
            let count = sources.len();
            let Some(segment) = sources[source % count].next() else { continue };
            let mut frame = segment.build(Sum::Partial);
            // Some are lost, some have a bit changed in a header.
            if chance < 8 { continue }
            if chance < 24 {
                let bit = usize::from(bit) % (segment.headers() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            let is_parsed = complete(&mut frame.clone());
            frames.push(match checksum {
                2 if is_parsed => (completed(frame), FrameChecksum::Verified),
                1 if is_parsed => (completed(frame), FrameChecksum::Complete),
                _ => (frame, FrameChecksum::Partial),
            });
        }
        assert_a_cut_gives_back(frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 0..6_usize, raw: [u8; 10], max_frame: u16, start: u8
    ) {
        // Half of them look like IP, so that the parsers are reached.
        let prefix: &[u8] = [
            &[][..], &[8, 0, 0x45, 0], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 1, 8, 0, 0x46],
            &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x86, 0xdd, 0x60], &[8, 0, 0x4f],
        ][kind];
        for (slot, byte) in bytes.iter_mut().skip(12).zip(prefix) {
            *slot = *byte;
        }
        if let Some(layout) = Layout::parse(&bytes) {
            prop_assert!(14 <= layout.ip && layout.ip < layout.l4 && layout.l4 < layout.payload);
            prop_assert!(layout.payload <= layout.end && layout.end <= bytes.len());
            prop_assert!(layout.payload <= layout::MAX_HEADERS);
        }
        let mut header = VnetHdr::parse(&raw).unwrap();
        header.flags &= 3;
        header.csum_start = u16::from(start);
        header.csum_offset &= 31;
        let _ = verify(&bytes);
        let _ = complete(&mut bytes.clone());
        let _ = clamp_mss(&mut bytes.clone(), max_frame.into(), FrameChecksum::Complete);
        let mut buffer = with_headroom(&bytes);
        if let Ok(Plan::Segments(mut cutter)) = plan(header, &mut buffer, max_frame.into()) {
            while cutter.next(&mut buffer).is_some() {}
        }
        for checksum in [FrameChecksum::Complete, FrameChecksum::Partial, FrameChecksum::Verified] {
            let (mut first, mut second) = (bytes.clone(), bytes.clone());
            let mut merger = Merger::new();
            if merger.push(&mut first, checksum).is_ok() {
                let continues = merger.continues(&second, checksum);
                prop_assert_eq!(merger.push(&mut second, checksum).is_ok(), continues);
                prop_assert!(merger.take().is_some());
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(checksum::fold(checksum::sum(&bytes)), ones_sum(&bytes));
    }
}

/// Merges `frames` and cuts what is written, as its reader may.
fn assert_a_cut_gives_back(mut frames: Vec<(Vec<u8>, FrameChecksum)>) {
    let is_bad = |frame: &(Vec<u8>, FrameChecksum)| {
        frame.1 == FrameChecksum::Partial
            && Layout::parse(&frame.0).is_none_or(|layout| !layout.fills(&frame.0))
    };
    let bad = frames.iter().filter(|frame| is_bad(frame)).count();
    let expected: Vec<_> = frames
        .iter()
        .filter(|frame| !is_bad(frame))
        .map(|(frame, checksum)| match checksum {
            FrameChecksum::Partial => without_atomic_id(completed(frame.clone())),
            _ => without_atomic_id(frame.clone()),
        })
        .collect();
    let (written, refused) = merge_all(&mut frames);
    assert_eq!(refused, bad);
    let mut got = Vec::new();
    for (header, frame) in written {
        let (segments, checksum) = cut_all(header, &frame, usize::MAX);
        for segment in segments {
            got.push(without_atomic_id(match checksum {
                FrameChecksum::Partial => completed(segment),
                _ => segment,
            }));
        }
    }
    assert_eq!(got, expected);
}

#[test]
fn trust_16_a_frame_with_a_changed_bit_joins_only_if_a_cut_gives_it_back() {
    for kind in 0..16 {
        let bit = |n: u8| kind & (1 << n) != 0;
        let packet = Packet {
            vlans: usize::from(bit(0)),
            is_v6: bit(1),
            is_udp: bit(2),
            dont_fragment: bit(3),
            tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            ..tcp(400)
        };
        let frames = segments_of(&packet, 100);
        for bit in 0..packet.headers() * 8 {
            // As a peer's partial, and as one that it says it verified.
            let mut frames = frames.clone();
            frames[1].0[bit / 8] ^= 1 << (bit % 8);
            assert_a_cut_gives_back(frames.clone());
            if complete(&mut frames[1].0) {
                frames[1].1 = FrameChecksum::Verified;
                assert_a_cut_gives_back(frames);
            }
        }
    }
}

/// The identification of a packet that may not be fragmented means nothing (RFC 6864, 4.1): a cut
/// counts it up though it was constant.
fn without_atomic_id(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(layout) = Layout::parse(&frame) {
        let ip = layout.ip;
        if layout.family == Family::V4 && frame[ip + 6] & 0x40 != 0 && ip_is_right(&frame, ip) {
            frame[ip + 4..ip + 6].fill(0);
            frame[ip + 10..ip + 12].fill(0);
        }
    }
    frame
}

fn ip_is_right(frame: &[u8], ip: usize) -> bool {
    let len = usize::from(frame[ip] & 15) * 4;
    ones_sum(&frame[ip..ip + len]) == 0xffff
}

fn tcp(payload: usize) -> Packet {
    Packet {
        vlans: 0,
        is_v6: false,
        is_udp: false,
        ip_options: Vec::new(),
        tcp_options: Vec::new(),
        dont_fragment: true,
        id: 0xfffe,
        seq: 0xffff_f000,
        tcp_flags: 0x10,
        payload: vec![0x5a; payload],
    }
}

fn segments_of(packet: &Packet, segment: usize) -> Vec<(Vec<u8>, FrameChecksum)> {
    let segments = packet.cut(segment);
    let built = segments.iter().map(|packet| packet.build(Sum::Partial));
    built.map(|frame| (frame, FrameChecksum::Partial)).collect()
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let packet = tcp(5_000);
    let frame = packet.build(Sum::Partial);
    let good = packet.header(1_000);
    let refusal =
        |header: VnetHdr, frame: &[u8]| plan(header, &mut with_headroom(frame), usize::MAX).err();
    assert_eq!(refusal(good, &frame), None);
    let udp = VnetHdr {
        gso_type: 5,
        ..good
    };
    assert_eq!(refusal(udp, &frame), Some(CutError::Kind));
    let fragmentation = VnetHdr {
        gso_type: 3,
        ..good
    };
    assert_eq!(refusal(fragmentation, &frame), Some(CutError::Kind));
    let further_in = VnetHdr {
        csum_start: 84,
        ..good
    };
    assert_eq!(refusal(further_in, &frame), Some(CutError::Checksum));
    let none = VnetHdr { flags: 0, ..good };
    assert_eq!(refusal(none, &frame), Some(CutError::Checksum));
    let padded = [&frame[..], &[0; 10]].concat();
    assert_eq!(refusal(good, &padded), Some(CutError::NoLayout));
    let mut fragment = frame.clone();
    fragment[21] = 1;
    assert_eq!(refusal(good, &fragment), Some(CutError::NoLayout));
    let many = tcp(129);
    let one_byte = VnetHdr {
        gso_size: 1,
        ..good
    };
    assert_eq!(
        refusal(one_byte, &many.build(Sum::Partial)),
        Some(CutError::TooMany)
    );
    let (parts, _) = cut_all(one_byte, &tcp(128).build(Sum::Partial), usize::MAX);
    assert_eq!(parts.len(), 128);
    let short = plan(good, &mut [0; 5], usize::MAX).err();
    assert_eq!(short, Some(CutError::NoHeadroom));
}

#[test]
fn signed_segments_are_cut_as_asked() {
    for kind in [19, 29] {
        let mut packet = tcp(4_000);
        packet.tcp_options = [&[1, 1, kind, 18][..], &[7; 16]].concat();
        let frame = packet.build(Sum::Partial);
        let (segments, _) = cut_all(packet.header(1_448), &frame, 1_400);
        assert_eq!(segments.len(), 3);
    }
}

#[test]
fn checksums_elsewhere_are_completed() {
    let packet = tcp(100);
    let full = packet.build(Sum::Full);
    let (whole, checksum) = cut_all(packet.header(0), &packet.build(Sum::Partial), 1_500);
    assert_eq!(checksum, FrameChecksum::Partial);
    assert_eq!(whole, [packet.build(Sum::Partial)]);
    // A number further in: bytes 100 to the end sum up to zero with it.
    let inner = VnetHdr {
        csum_start: 100,
        csum_offset: 4,
        ..packet.header(0)
    };
    let (whole, checksum) = cut_all(inner, &full, 1_500);
    assert_eq!(checksum, FrameChecksum::Complete);
    let mut expected = full.clone();
    let sum = !ones_sum(&full[100..]);
    expected[104..106].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole, [expected]);
}

#[test]
fn valid_is_believed_only_where_there_is_a_checksum() {
    let valid = VnetHdr {
        flags: 2,
        ..VnetHdr::PLAIN
    };
    let mut packet = tcp(100);
    assert_eq!(
        cut_all(valid, &packet.build(Sum::Full), 1_500).1,
        FrameChecksum::Verified
    );
    packet.is_udp = true;
    assert_eq!(
        cut_all(valid, &packet.build(Sum::Full), 1_500).1,
        FrameChecksum::Verified
    );
    let mut zero = packet.build(Sum::Full);
    zero[40..42].fill(0);
    assert_eq!(cut_all(valid, &zero, 1_500).1, FrameChecksum::Complete);
    assert!(!verify(&zero));
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    assert_eq!(cut_all(valid, &arp, 1_500).1, FrameChecksum::Complete);
    let mut wrong = packet.build(Sum::Full);
    assert!(verify(&wrong));
    wrong[60] ^= 1;
    assert!(!verify(&wrong));
}

#[test]
fn trust_16_partial_is_refused_on_what_is_no_consistent_tcp_or_udp() {
    let frame = tcp(100).build(Sum::Partial);
    let mut fragment = frame.clone();
    fragment[20] |= 0x20;
    let padded = [&frame[..], &[0; 4]].concat();
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    for bad in [fragment, padded, arp] {
        let mut bad = bad;
        let pushed = Merger::new().push(&mut bad, FrameChecksum::Partial);
        assert_eq!(pushed, Err(MergeError::BadPartial));
    }
}

/// A guest that copies frames between its interfaces does not see what a virtio header says.
#[test]
fn a_frame_alone_is_written_with_its_checksum() {
    for kind in 0..16 {
        let bit = |n: u8| kind & (1 << n) != 0;
        let packet = Packet {
            vlans: usize::from(bit(0)) * 2,
            is_v6: bit(1),
            is_udp: bit(2),
            tcp_flags: if bit(3) { 0x02 } else { 0x10 },
            ..tcp(301)
        };
        let (partial, full) = (packet.build(Sum::Partial), packet.build(Sum::Full));
        for frame in [
            (partial, FrameChecksum::Partial),
            (full.clone(), FrameChecksum::Verified),
            (full.clone(), FrameChecksum::Complete),
        ] {
            let (written, _) = merge_all(&mut [frame]);
            assert_eq!(written, [(VnetHdr::PLAIN, full.clone())], "{packet:?}");
        }
    }
}

#[test]
fn what_is_not_verified_is_written_as_it_came() {
    let frame = tcp(100).build(Sum::Full);
    let mut frames = vec![(frame.clone(), FrameChecksum::Complete); 2];
    let (written, _) = merge_all(&mut frames);
    assert_eq!(written, vec![(VnetHdr::PLAIN, frame); 2]);
    // No checksum: UDP's zero is not to be filled in, whatever the peer says.
    let mut packet = tcp(100);
    packet.is_udp = true;
    let mut zero = packet.build(Sum::Full);
    zero[40..42].fill(0);
    let mut frames = vec![(zero.clone(), FrameChecksum::Verified); 2];
    let (written, _) = merge_all(&mut frames);
    assert_eq!(written, vec![(VnetHdr::PLAIN, zero); 2]);
}

#[test]
fn trust_16_a_merge_has_at_most_64_segments_of_at_least_64_bytes_and_64_kib() {
    let many = tcp(200 * 64);
    let (written, _) = merge_all(&mut segments_of(&many, 64));
    let sizes: Vec<_> = written.iter().map(|(_, frame)| frame.len() - 54).collect();
    assert_eq!(sizes, [4_096, 4_096, 4_096, 512]);
    let (written, _) = merge_all(&mut segments_of(&tcp(630), 63));
    assert_eq!(written.len(), 10);
    let mut frames = segments_of(&tcp(60_000), 2_000);
    let mut more = tcp(20_000);
    more.seq = more.seq.wrapping_add(60_000);
    more.id = more.id.wrapping_add(30);
    frames.extend(segments_of(&more, 2_000));
    let (written, _) = merge_all(&mut frames);
    let sizes: Vec<_> = written.iter().map(|(_, frame)| frame.len() - 54).collect();
    assert_eq!(sizes, [64_000, 16_000]);
}

#[test]
fn special_segments_stand_alone_and_fin_or_psh_ends_a_run() {
    for (flag, expected) in [
        (0x02, 4),
        (0x04, 4),
        (0x20, 4),
        (0x80, 2),
        (0x08, 1),
        (0x01, 1),
    ] {
        let mut packet = tcp(400);
        packet.tcp_flags |= flag;
        let (written, _) = merge_all(&mut segments_of(&packet, 100));
        assert_eq!(written.len(), expected, "{flag:#x}");
    }
    let first = tcp(300);
    let mut second = first.clone();
    second.seq = second.seq.wrapping_add(300);
    second.id = second.id.wrapping_add(3);
    let mut frames = segments_of(
        &Packet {
            tcp_flags: 0x18,
            ..first
        },
        100,
    );
    frames.extend(segments_of(&second, 100));
    let (written, _) = merge_all(&mut frames);
    assert_eq!(written.len(), 2);
    assert!(written.iter().all(|(_, frame)| frame.len() == 354));
}

#[test]
fn an_identification_grows_or_stays_where_fragments_are_forbidden() {
    for (dont_fragment, step, expected) in
        [(true, 0, 1), (false, 0, 4), (false, 1, 1), (true, 2, 4)]
    {
        let mut packets = Packet {
            dont_fragment,
            ..tcp(400)
        }
        .cut(100);
        for (packet, i) in packets.iter_mut().zip(0_u16..) {
            packet.id = 9 + i * step;
        }
        let built = packets.iter().map(|packet| packet.build(Sum::Partial));
        let mut frames: Vec<_> = built.map(|frame| (frame, FrameChecksum::Partial)).collect();
        let (written, _) = merge_all(&mut frames);
        assert_eq!(written.len(), expected, "{dont_fragment} {step}");
    }
}

#[test]
fn datagrams_of_one_size_merge_only_where_the_tap_takes_it() {
    let packet = Packet {
        is_udp: true,
        ..tcp(640)
    };
    let mut frames = segments_of(&packet, 64);
    let (written, _) = merge_all(&mut frames.clone());
    assert_eq!(written, [(packet.header(64), packet.build(Sum::Partial))]);
    let (first, second) = frames.split_at_mut(1);
    let mut merger = Merger::for_tap(false);
    merger
        .push(&mut first[0].0, FrameChecksum::Partial)
        .unwrap();
    assert!(!merger.continues(&second[0].0, FrameChecksum::Partial));
}
