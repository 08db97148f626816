//! The kernel as judge of the headers in front of super-frames: what it makes of them on the other
//! side of a bridge is compared byte by byte. Needs root; skipped loudly without.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use common::{MARK, in_namespace, overlay_tap};
use tap_bridge::offload::{FrameChecksum, HEADROOM, Merger, Plan, complete, plan, verify};
use tap_bridge::{FrameBatch, FrameQueue, Links, Offload, TapQueue, TxFrame, VnetHdr, host};

/// A packet of a guest, and what is varied about it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    is_v6: bool,
    is_udp: bool,
    vlan: bool,
}

const KINDS: [Kind; 6] = [
    kind(false, false, false),
    kind(true, false, false),
    kind(false, true, false),
    kind(true, true, false),
    kind(false, false, true),
    kind(true, true, true),
];

const fn kind(is_v6: bool, is_udp: bool, vlan: bool) -> Kind {
    Kind {
        is_v6,
        is_udp,
        vlan,
    }
}

/// A super-frame with `payload` bytes and the header that a guest's kernel would give it.
fn super_frame(kind: Kind, payload: usize, gso_size: u16) -> (VnetHdr, Vec<u8>) {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
    if kind.vlan {
        frame.extend([0x81, 0, 0, 7]);
    }
    let l4_header = if kind.is_udp { 8 } else { 32 };
    let l4_len = u16::try_from(l4_header + payload).unwrap();
    let protocol = if kind.is_udp { 17 } else { 6 };
    if kind.is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(l4_len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend([&[0xfd, 1][..], &[0; 13], &[1, 0xfd, 1], &[0; 13], &[2]].concat());
    } else {
        frame.extend([8, 0]);
        let ip = frame.len();
        frame.extend([0x45, 0]);
        frame.extend((20 + l4_len).to_be_bytes());
        frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let words = frame[ip..].chunks(2);
        let sum: u32 = words.map(|w| u32::from(w[0]) * 256 + u32::from(w[1])).sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let l4 = frame.len();
    frame.extend([0x9c, 0x40, 0x14, 0x51]);
    if kind.is_udp {
        frame.extend(l4_len.to_be_bytes());
        frame.extend([0, 0]);
    } else {
        frame.extend([
            0xff, 0xff, 0xf0, 0, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0,
        ]);
        frame.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    frame.extend((0..payload).map(|i| (i * 7 + i / 256) as u8));
    let header = VnetHdr {
        flags: 1,
        gso_type: match (kind.is_udp, kind.is_v6) {
            (true, _) => 5,
            (false, true) => 4,
            (false, false) => 1,
        },
        hdr_len: 0,
        gso_size,
        csum_start: u16::try_from(l4).unwrap(),
        csum_offset: if kind.is_udp { 6 } else { 16 },
    };
    (header, frame)
}

/// The segments of a super-frame, with partial checksums.
fn segments(header: VnetHdr, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = [&[0; HEADROOM][..], frame].concat();
    match plan(header, &mut buffer, usize::MAX).unwrap() {
        Plan::Whole(_) => vec![buffer.split_off(HEADROOM)],
        Plan::Segments(mut cutter) => {
            std::iter::from_fn(|| cutter.next(&mut buffer).map(|range| buffer[range].to_vec()))
                .collect()
        }
    }
}

fn completed(mut frame: Vec<u8>) -> Vec<u8> {
    assert!(complete(&mut frame));
    frame
}

/// Two bridged taps; the frames of the second are read as `offload` says.
async fn bridged(links: &Links, offload: bool) -> (TapQueue, TapQueue) {
    let (bridge, _) = host::make_bridge(links, "br-lab", 1500, MARK)
        .await
        .unwrap();
    let mut queues = Vec::new();
    for (name, offload) in [("fl-in", true), ("fl-out", offload)] {
        host::make_tap(links, overlay_tap(name), &bridge)
            .await
            .unwrap();
        queues.push(TapQueue::open(name, offload).unwrap());
    }
    let mut out = queues.pop().unwrap();
    let mut input = queues.pop().unwrap();
    // A port that has just got its carrier loses frames.
    let hello = [
        &[0xff; 6][..],
        &[0x52, 0x54, 0, 0, 0, 9, 0x88, 0xb5],
        &[0; 50],
    ]
    .concat();
    let got = exchange(&mut input, TxFrame::plain(&hello), &mut out, hello.len());
    assert_eq!(got.concat(), hello);
    (input, out)
}

/// Writes `frame` until frames of `bytes` bytes came out, each as its segments, partial checksums
/// completed. What had come before the last write is forgotten.
fn exchange(
    input: &mut TapQueue,
    frame: TxFrame<'_>,
    out: &mut TapQueue,
    bytes: usize,
) -> Vec<Vec<u8>> {
    let mut batch = FrameBatch::default();
    let offload = out.offload() != Offload::Off;
    for _ in 0..5 {
        let report = input.write_batch(&[frame]);
        assert_eq!(report.written, 1, "{report:?}");
        let mut got: Vec<Vec<u8>> = Vec::new();
        let end = Instant::now() + Duration::from_millis(400);
        while Instant::now() < end {
            out.read_batch(&mut batch).unwrap();
            assert_eq!(batch.refused(), 0);
            for (header, bytes) in batch.frames_mut() {
                assert!(header.is_plain() || offload, "{header:?}");
                if header.is_plain() {
                    got.push(bytes[HEADROOM..].to_vec());
                } else {
                    let parts = segments(header, &bytes[HEADROOM..]);
                    got.extend(parts.into_iter().map(completed));
                }
            }
            if got.iter().map(Vec::len).sum::<usize>() >= bytes {
                return got;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    panic!("the kernel dropped a frame of header {:?}", frame.header);
}

/// Segments that are merged and written come out of the kernel as the same segments.
fn round_trip(offload: bool) {
    in_namespace(move |links| async move {
        let (mut input, mut out) = bridged(&links, offload).await;
        for kind in KINDS {
            if kind.is_udp && input.offload() != Offload::TcpUdp {
                eprintln!("SKIPPED: this kernel has no UDP super-frames on taps");
                continue;
            }
            for (payload, gso_size) in [(60_000, 1_400), (4_000, 1_000), (64 * 64, 64), (100, 100)]
            {
                let (header, frame) = super_frame(kind, payload, gso_size);
                let mut parts = segments(header, &frame);
                let expected: Vec<_> = parts.iter().cloned().map(completed).collect();
                let total = expected.iter().map(Vec::len).sum();
                let mut merger = Merger::for_tap(input.offload() == Offload::TcpUdp);
                for part in &mut parts {
                    merger.push(part, FrameChecksum::Partial).unwrap();
                }
                let merged = merger.take().unwrap();
                assert_eq!(merged.segments(), expected.len());
                let got = exchange(&mut input, merged.frame(), &mut out, total);
                assert!(got.iter().all(|frame| verify(frame)), "{kind:?}");
                assert!(got == expected, "{kind:?} {payload} {gso_size}");
            }
        }
    });
}

#[test]
fn the_kernel_cuts_what_was_merged_into_the_same_segments() {
    round_trip(false);
}

#[test]
fn a_reader_with_offload_gets_the_same_segments() {
    round_trip(true);
}

#[test]
fn offload_is_switched_while_the_tap_is_in_use() {
    in_namespace(|links| async move {
        let (mut input, mut out) = bridged(&links, true).await;
        let mut old = out.try_clone().unwrap();
        let (header, frame) = super_frame(kind(false, false, false), 20_000, 1_400);
        let mut parts = segments(header, &frame);
        let expected: Vec<_> = parts.iter().cloned().map(completed).collect();
        let total = expected.iter().map(Vec::len).sum();
        let mut merger = Merger::new();
        for part in &mut parts {
            merger.push(part, FrameChecksum::Partial).unwrap();
        }
        let merged = merger.take().unwrap();
        let whole = merged.frame();
        let mut batch = FrameBatch::default();
        for offload in [false, true, false] {
            // One that waits in the queue is read as it is.
            assert_eq!(input.write_batch(&[whole]).written, 1);
            std::thread::sleep(Duration::from_millis(50));
            out.set_offload(offload).unwrap();
            assert_eq!(out.offload() != Offload::Off, offload);
            let before = old.read_batch(&mut batch).unwrap();
            assert!(before > 0 && batch.refused() == 0, "{before}");
            assert_eq!(batch.frames().next().unwrap().header.is_plain(), offload);
            let now = exchange(&mut input, whole, &mut out, total);
            assert!(now == expected, "{offload}");
        }
    });
}
