//! Super-frames: cut, merged, and cut again.

use tap_bridge::VnetHdr;
use tap_bridge::offload::{
    Family, FrameChecksum, HEADROOM, Layout, MergeError, Merger, Plan, Protocol, clamp_mss,
    complete, plan, verify,
};

use crate::input::{Input, chunk};
use crate::{Seen, Target};

const KINDS: [FrameChecksum; 3] = [
    FrameChecksum::Complete,
    FrameChecksum::Partial,
    FrameChecksum::Verified,
];

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "tap_super_frame",
            run: cut,
            seeds: super_frames,
            speed: 400,
        },
        Target {
            name: "tap_merge",
            run: merge,
            seeds: merges,
            speed: 150,
        },
    ]
}

/// The longest frame that is kept, and the header in front of it, then the frame.
fn cut(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let max_frame = usize::from(input.u16());
    let header = VnetHdr::parse(&input.array::<10>()).unwrap();
    let frame = input.rest();
    let layout = Layout::parse(frame);
    seen.note(&layout.map(|layout| (layout.ip, layout.family, layout.protocol)));
    let mut clamped = frame.to_vec();
    let right = verify(frame);
    seen.note(&clamp_mss(&mut clamped, max_frame, FrameChecksum::Complete));
    assert!(!right || verify(&clamped), "a clamp broke a checksum");
    match segments(header, frame, max_frame) {
        Err(error) => seen.note(&error),
        Ok((parts, checksum)) => {
            seen.note(&(parts.len().min(3), checksum));
            if parts.len() > 1 {
                let layout = layout.unwrap();
                let payload: Vec<u8> = parts
                    .iter()
                    .flat_map(|part| &part[layout.payload..])
                    .copied()
                    .collect();
                assert_eq!(payload, frame[layout.payload..], "bytes were lost");
            }
            for mut part in parts {
                if checksum == FrameChecksum::Partial {
                    assert!(complete(&mut part), "a segment without consistent lengths");
                    assert!(verify(&part), "completed, but wrong");
                }
            }
        }
    }
    seen.number()
}

/// Frames in chunks, each behind its checksum's kind.
fn merge(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut frames = Vec::new();
    while !input.is_empty() && frames.len() < 200 {
        let kind = KINDS[input.below(3)];
        let mut frame = input.chunk().to_vec();
        // Only a sender that found it right says so.
        if kind == FrameChecksum::Verified && !verify(&frame) && !complete(&mut frame) {
            continue;
        }
        frames.push((frame, kind));
    }
    let mut merger = Merger::new();
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    let (mut longest, mut refused) = (0, 0_usize);
    for (frame, kind) in &mut frames {
        let was = frame.clone();
        if !merger.continues(frame, *kind) {
            longest = longest.max(take(&mut merger, &mut got));
        }
        match merger.push(frame, *kind) {
            Ok(()) => expected.push(canonical(was, *kind)),
            Err(MergeError::Occupied) => panic!("it was taken"),
            Err(MergeError::BadPartial) => refused += 1,
        }
    }
    longest = longest.max(take(&mut merger, &mut got));
    seen.note(&(longest.min(5), refused.min(2)));
    assert_eq!(got, expected, "a reader gets other frames than came");
    seen.number()
}

/// Adds what a reader of the tap makes of the run; how many frames it was.
fn take(merger: &mut Merger<'_>, got: &mut Vec<Vec<u8>>) -> usize {
    let Some(merged) = merger.take() else {
        return 0;
    };
    let frame = merged.frame();
    let bytes = [&[frame.head], frame.rest].concat().concat();
    let (parts, checksum) = segments(frame.header, &bytes, usize::MAX).unwrap();
    assert_eq!(parts.len(), merged.segments());
    got.extend(parts.into_iter().map(|part| canonical(part, checksum)));
    merged.segments()
}

/// The frame with a full checksum, and without the identification where it means nothing.
fn canonical(mut frame: Vec<u8>, kind: FrameChecksum) -> Vec<u8> {
    // Also one that was right: zero and all ones are the same sum, and the latter is written.
    if kind != FrameChecksum::Complete {
        assert!(complete(&mut frame));
    }
    if let Some(layout) = Layout::parse(&frame).filter(|layout| layout.family == Family::V4) {
        let header = &mut frame[layout.ip..layout.l4];
        if header[6] & 0x40 != 0 && ipv4_sum(header) == 0xffff {
            header[4..6].fill(0);
            header[10..12].fill(0);
        }
    }
    frame
}

fn ipv4_sum(header: &[u8]) -> u32 {
    let words = header.chunks(2);
    let sum = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = sum.sum();
    (sum & 0xffff) + (sum >> 16)
}

type Parts = (Vec<Vec<u8>>, FrameChecksum);

fn segments(
    header: VnetHdr,
    frame: &[u8],
    max_frame: usize,
) -> Result<Parts, tap_bridge::offload::CutError> {
    let mut buffer = [&[0; HEADROOM][..], frame].concat();
    Ok(match plan(header, &mut buffer, max_frame)? {
        Plan::Whole(checksum) => (vec![buffer.split_off(HEADROOM)], checksum),
        Plan::Segments(mut cutter) => {
            let count = cutter.count();
            let next = || cutter.next(&mut buffer).map(|range| buffer[range].to_vec());
            let parts: Vec<_> = std::iter::from_fn(next).collect();
            assert_eq!(parts.len(), count);
            (parts, FrameChecksum::Partial)
        }
    })
}

/// A frame of 600 bytes of payload with a partial checksum, and its header.
fn a_super_frame(protocol: Protocol, family: Family, vlan: bool) -> (VnetHdr, Vec<u8>) {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
    if vlan {
        frame.extend([0x81, 0, 0, 7]);
    }
    let l4_len = match protocol {
        Protocol::Tcp => 632_u16,
        Protocol::Udp => 608,
    };
    match family {
        Family::V4 => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + l4_len).to_be_bytes());
            frame.extend([0, 9, 0x40, 0, 64, protocol.number(), 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((l4_len + 8).to_be_bytes());
            frame.extend([0, 64]);
            frame.extend([[0xfd; 16], [0xfe; 16]].concat());
            frame.extend([protocol.number(), 0, 1, 4, 0, 0, 0, 0]);
        }
    }
    let l4 = u16::try_from(frame.len()).unwrap();
    frame.extend([0x9c, 0x40, 0x14, 0x51]);
    match protocol {
        Protocol::Tcp => {
            frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
            frame.extend([2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 1, 1]);
        }
        Protocol::Udp => {
            frame.extend(l4_len.to_be_bytes());
            frame.extend([0, 0]);
        }
    }
    frame.resize(frame.len() + 600, 0x5a);
    let header = VnetHdr {
        flags: 1,
        gso_type: match (protocol, family) {
            (Protocol::Udp, _) => 5,
            (Protocol::Tcp, Family::V4) => 1,
            (Protocol::Tcp, Family::V6) => 4,
        },
        hdr_len: l4,
        gso_size: 200,
        csum_start: l4,
        csum_offset: u16::try_from(protocol.checksum_offset()).unwrap(),
    };
    (header, frame)
}

fn all_super_frames() -> Vec<(VnetHdr, Vec<u8>)> {
    let mut all = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [Family::V4, Family::V6] {
            all.extend([false, true].map(|vlan| a_super_frame(protocol, family, vlan)));
        }
    }
    all
}

fn super_frames() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (header, frame) in all_super_frames() {
        seeds.push([&1_500_u16.to_be_bytes()[..], &header.to_bytes(), &frame].concat());
    }
    // A SYN, whole; the same, found right.
    let (header, mut syn) = a_super_frame(Protocol::Tcp, Family::V4, false);
    syn[47] = 2;
    let whole = VnetHdr {
        gso_type: 0,
        ..header
    };
    seeds.push([&[2, 0][..], &whole.to_bytes(), &syn].concat());
    assert!(complete(&mut syn));
    let valid = VnetHdr {
        flags: 2,
        ..VnetHdr::PLAIN
    };
    seeds.push([&[2, 0][..], &valid.to_bytes(), &syn].concat());
    seeds
}

fn merges() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (n, (header, frame)) in all_super_frames().into_iter().enumerate() {
        let (parts, _) = segments(header, &frame, usize::MAX).unwrap();
        let kind = [1_u8, 2][n % 2];
        let framed = parts
            .iter()
            .map(|part| [&[kind][..], &chunk(part)].concat());
        seeds.push(framed.collect::<Vec<_>>().concat());
    }
    seeds
}
