//! What each stage of the offloads costs a frame: `cargo bench -p tap-bridge`.
//!
//! The copy of a payload is not in it, because no stage does one: see `verify` for what touching
//! each byte costs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use tap_bridge::VnetHdr;
use tap_bridge::offload::{
    FrameChecksum, HEADROOM, Layout, Merger, Plan, clamp_mss, complete, plan, verify,
};

fn main() {
    divan::main();
}

const MSS: usize = 1_370;
const SEGMENTS: usize = 47;

/// IPv4 and TCP with timestamps: 66 bytes of headers.
fn tcp(payload: usize) -> Vec<u8> {
    let mut frame = vec![
        0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 8, 0, 0x45, 0,
    ];
    frame.extend(u16::try_from(52 + payload).unwrap().to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([
        0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    frame.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    frame.resize(66 + payload, 0x5a);
    frame
}

/// IPv4 and UDP: 42 bytes of headers.
fn udp(payload: usize) -> Vec<u8> {
    let mut frame = tcp(0)[..34].to_vec();
    frame[16..18].copy_from_slice(&u16::try_from(28 + payload).unwrap().to_be_bytes());
    frame[23] = 17;
    frame.extend([0x9c, 0x40, 0x14, 0x51]);
    frame.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(42 + payload, 0x5a);
    frame
}

fn header(gso_type: u8, gso_size: usize) -> VnetHdr {
    VnetHdr {
        flags: 1,
        gso_type,
        hdr_len: 0,
        gso_size: u16::try_from(gso_size).unwrap(),
        csum_start: 34,
        csum_offset: if gso_type == 5 { 6 } else { 16 },
    }
}

fn segments(header: VnetHdr, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = [&[0; HEADROOM][..], frame].concat();
    let Ok(Plan::Segments(mut cutter)) = plan(header, &mut buffer, 65_549) else {
        panic!("not cut");
    };
    std::iter::from_fn(|| cutter.next(&mut buffer).map(|range| buffer[range].to_vec())).collect()
}

/// A super-frame of 64 KiB into its segments.
#[divan::bench]
fn cut_tcp(bencher: Bencher<'_, '_>) {
    let mut buffer = [&[0; HEADROOM][..], &tcp(MSS * SEGMENTS)].concat();
    let headers = buffer[..HEADROOM + 66].to_vec();
    let header = header(1, MSS);
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        // The first segment's headers took their place.
        buffer[..HEADROOM + 66].copy_from_slice(&headers);
        let Ok(Plan::Segments(mut cutter)) = plan(header, &mut buffer, 1_514) else {
            panic!("not cut");
        };
        while let Some(range) = cutter.next(&mut buffer) {
            black_box(&buffer[range]);
        }
    });
}

fn merge(bencher: Bencher<'_, '_>, mut parts: Vec<Vec<u8>>) {
    let heads: Vec<_> = parts.iter().map(|part| part[..42].to_vec()).collect();
    bencher
        .counter(ItemsCount::new(parts.len()))
        .bench_local(|| {
            // The head was rewritten.
            parts[0][..42].copy_from_slice(&heads[0]);
            let mut merger = Merger::new();
            for part in &mut parts {
                if !merger.continues(part, FrameChecksum::Partial) {
                    black_box(merger.take());
                }
                merger.push(part, FrameChecksum::Partial).unwrap();
            }
            black_box(merger.take());
        });
}

#[divan::bench]
fn merge_tcp(bencher: Bencher<'_, '_>) {
    merge(bencher, segments(header(1, MSS), &tcp(MSS * SEGMENTS)));
}

#[divan::bench]
fn merge_udp_of_64_bytes(bencher: Bencher<'_, '_>) {
    merge(bencher, segments(header(5, 64), &udp(64 * 64)));
}

/// Frames that no other continues: the price of looking.
#[divan::bench]
fn merge_nothing(bencher: Bencher<'_, '_>) {
    let part = segments(header(1, MSS), &tcp(MSS * 2)).remove(0);
    merge(bencher, vec![part; 47]);
}

#[divan::bench]
fn layout(bencher: Bencher<'_, '_>) {
    let frame = tcp(MSS);
    bencher.bench_local(|| Layout::parse(black_box(&frame)));
}

#[divan::bench]
fn plan_whole(bencher: Bencher<'_, '_>) {
    let mut buffer = [&[0; HEADROOM][..], &tcp(MSS)].concat();
    let header = header(0, 0);
    bencher.bench_local(|| plan(black_box(header), &mut buffer, 1_514).is_ok());
}

/// What each frame pays that is no SYN.
#[divan::bench]
fn clamp_no_syn(bencher: Bencher<'_, '_>) {
    let mut frame = tcp(MSS);
    bencher.bench_local(|| clamp_mss(black_box(&mut frame), 1_400, FrameChecksum::Partial));
}

#[divan::bench]
fn verify_full(bencher: Bencher<'_, '_>) {
    let mut frame = tcp(MSS);
    assert!(complete(&mut frame));
    bencher
        .counter(BytesCount::new(frame.len()))
        .bench_local(|| verify(black_box(&frame)));
}
