//! What is between two nodes, in the clear and inside the seal.

use std::time::{Duration, Instant};

use nat_traversal::nat_kind::Mapping;
use overlay_proto::directory::DirectoryMessage;
use overlay_proto::ids::NetworkId;
use overlay_proto::membership::{ListState, Page};
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};
use overlay_proto::wire::{
    DataHeader, DatagramKind, Forwarded, InnerHeader, InnerKind, L4Checksum, Lane, PieceBudget,
    PieceHeader, Reassembler, ReliableChannel, Selector, SessionIndex, split,
};

use super::nat::some_candidates;
use crate::input::{Input, chunk};
use crate::{Seen, Target};

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "wire_header",
            run: header,
            seeds: headers,
            speed: 400,
        },
        Target {
            name: "wire_inner",
            run: inner,
            seeds: inners,
            speed: 400,
        },
        Target {
            name: "wire_pieces",
            run: pieces,
            seeds: piece_sequences,
            speed: 200,
        },
        Target {
            name: "wire_channel",
            run: channel,
            seeds: channel_sequences,
            speed: 200,
        },
        Target {
            name: "wire_peer_message",
            run: peer_message,
            seeds: peer_messages,
            speed: 300,
        },
    ]
}

fn header(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    seen.note(&DatagramKind::parse(bytes));
    let header = DataHeader::parse(bytes);
    seen.result(&header);
    if let Ok(header) = header {
        assert_eq!(header.to_bytes(), bytes[..DataHeader::LEN]);
    }
    seen.number()
}

fn headers() -> Vec<Vec<u8>> {
    let header = DataHeader {
        receiver: SessionIndex(0x0102_0304),
        lane: Lane(1),
        counter: 77,
    };
    let mut data = header.to_bytes().to_vec();
    data.resize(DataHeader::LEN + 40, 0xaa);
    vec![data, vec![1; 148], vec![7; 40]]
}

fn inner(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    match InnerHeader::parse(bytes) {
        Ok((header, body)) => {
            let len = header.encoded_len();
            assert_eq!(len + body.len(), bytes.len());
            let mut again = vec![0; len];
            assert_eq!(header.write(&mut again), len);
            assert_eq!(again, bytes[..len]);
            seen.note(&std::mem::discriminant(&header.kind));
            seen.note(&(header.checksum, header.forwarded.is_some()));
        }
        Err(reason) => seen.note(&reason),
    }
    seen.number()
}

fn write(header: InnerHeader, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header.encoded_len()];
    header.write(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn a_piece(index: u8, count: u8, frame_len: u16) -> PieceHeader {
    PieceHeader {
        frame_id: 9,
        index,
        count,
        frame_len,
    }
}

fn inners() -> Vec<Vec<u8>> {
    let selector = Selector(5);
    let forwarded = InnerHeader {
        forwarded: Some(Forwarded {
            origin: 1,
            sequence: 2,
            generation: 3,
        }),
        checksum: L4Checksum::Verified,
        hops: 1,
        ..InnerHeader::frame(selector)
    };
    vec![
        write(InnerHeader::frame(selector), &[0x55; 60]),
        write(InnerHeader::piece(selector, a_piece(1, 3, 2000)), &[7; 30]),
        write(forwarded, &[0x55; 20]),
        write(InnerHeader::plain(InnerKind::Control), &[1; 12]),
        write(InnerHeader::plain(InnerKind::Probe), &[1; 32]),
        write(InnerHeader::plain(InnerKind::KeepAlive), &[]),
    ]
}

/// Packets of a datagram each, from two sessions, with pauses.
fn pieces(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut now = Instant::now();
    let budget = PieceBudget::new(2 * Reassembler::MAX_BYTES);
    let mut reassembler = Reassembler::new(budget.clone());
    while !input.is_empty() {
        let control = input.u8();
        now += Duration::from_millis(u64::from(control >> 2));
        let session = SessionIndex(u32::from(control & 1));
        if control & 2 != 0 {
            seen.note(&(reassembler.expire(now) > 0));
        }
        let Ok((header, body)) = InnerHeader::parse(input.chunk()) else {
            continue;
        };
        let whole = reassembler.handle_piece(now, session, &header, body);
        seen.note(&whole.as_ref().map(Option::is_some));
        if let (Ok(Some(whole)), InnerKind::Piece(piece)) = (&whole, header.kind) {
            assert_eq!(whole.frame.len(), usize::from(piece.frame_len));
        }
        assert!(reassembler.bytes() <= Reassembler::MAX_BYTES);
        assert!(budget.used() <= 2 * Reassembler::MAX_BYTES);
    }
    drop(reassembler);
    assert_eq!(budget.used(), 0, "what was taken is given back");
    seen.number()
}

fn piece_sequences() -> Vec<Vec<u8>> {
    let plan = split(3000, 1200).unwrap();
    let frame: Vec<u8> = (0..3000u16).map(|n| n as u8).collect();
    let packet = |(header, range): (PieceHeader, std::ops::Range<usize>)| {
        let bytes = write(InnerHeader::piece(Selector(5), header), &frame[range]);
        [vec![0], chunk(&bytes)].concat()
    };
    let forward: Vec<Vec<u8>> = plan.pieces(1).map(packet).collect();
    let mut backward = forward.clone();
    backward.reverse();
    let tiny = (0..2)
        .map(|index| {
            let bytes = write(
                InnerHeader::piece(Selector(5), a_piece(index, 2, 4)),
                &[1, 2],
            );
            [vec![3], chunk(&bytes)].concat()
        })
        .collect::<Vec<_>>();
    vec![forward.concat(), backward.concat(), tiny.concat()]
}

/// Packets from the other end, our own messages, and time.
fn channel(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let mut now = Instant::now();
    let mut channel = ReliableChannel::new(1);
    while !input.is_empty() {
        match input.below(4) {
            0 => seen.result(&channel.send(now, input.chunk().to_vec())),
            1 => now += Duration::from_millis(u64::from(input.u16())),
            _ => match channel.handle_packet(now, input.chunk()) {
                Ok(message) => seen.note(&message.is_some()),
                Err(reason) => seen.note(&reason),
            },
        }
        let mut sent = 0;
        while channel.poll_transmit(now).is_some() {
            sent += 1;
            assert!(sent <= 4096, "it never ends");
        }
        seen.note(&(sent > 0, channel.poll_failed().is_some()));
        assert!(channel.poll_timeout().is_none_or(|due| due > now));
    }
    seen.number()
}

fn channel_sequences() -> Vec<Vec<u8>> {
    let now = Instant::now();
    let mut peer = ReliableChannel::new(2);
    for n in 0..3u8 {
        peer.send(now, vec![n; 9]).unwrap();
    }
    let packets = std::iter::from_fn(|| peer.poll_transmit(now))
        .map(|packet| [vec![2], chunk(&packet)].concat())
        .collect::<Vec<_>>()
        .concat();
    let own = [vec![0], chunk(b"hello"), vec![1, 0, 200, 1, 0xff, 0xff]].concat();
    vec![packets.clone(), [own, packets].concat()]
}

fn peer_message(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    match PeerMessage::decode(bytes) {
        Ok(message) => {
            let again = message.encode();
            assert_eq!(PeerMessage::decode(&again).as_ref(), Ok(&message));
            seen.note(&std::mem::discriminant(&message));
            if let PeerMessage::Candidates { candidates, .. } = &message {
                seen.note(&candidates.len());
            }
        }
        Err(reason) => seen.note(&reason),
    }
    seen.number()
}

fn peer_messages() -> Vec<Vec<u8>> {
    let network = NetworkTag::from(&NetworkId([7; 32]));
    let key = super::directory::a_key(1);
    let body = DirectoryMessage::query(key).encode().unwrap();
    let directory = PeerMessage::Directory {
        network,
        body: &body,
    };
    let candidates = PeerMessage::Candidates {
        sequence: 3,
        mapping: Mapping::EndpointIndependent,
        candidates: some_candidates(),
    };
    let number = PeerMessage::EpochNumber { network, epoch: 2 };
    let signed = &[5; 90];
    let epoch = PeerMessage::Epoch { network, signed };
    let held = PeerMessage::ListsHeld(ListState {
        number: 3,
        digest: 9,
    });
    let page = PeerMessage::ListPage(Page {
        id: 5,
        index: 0,
        count: 1,
        bytes: b"list",
    });
    let mtu = PeerMessage::GuestMtu { network, mtu: 1500 };
    let messages = [directory, candidates, number, epoch, held, page, mtu];
    messages.iter().map(PeerMessage::encode).collect()
}
