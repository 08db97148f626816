use super::*;
use crate::wire::{SAFE_DATAGRAM, max_frame};
use proptest::prelude::*;

const SESSION: SessionIndex = SessionIndex(7);
const LAB: Selector = Selector(1);

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// The pieces of a frame as (header, body).
fn cut(frame: &[u8], id: u32) -> Vec<(InnerHeader, Vec<u8>)> {
    split(frame.len(), SAFE_DATAGRAM)
        .unwrap()
        .pieces(id)
        .map(|(piece, range)| (InnerHeader::piece(LAB, piece), frame[range].to_vec()))
        .collect()
}

fn reassembler() -> Reassembler {
    Reassembler::new(PieceBudget::default())
}

#[test]
fn plan_of_a_full_frame() {
    let plan = split(1514, SAFE_DATAGRAM).unwrap();
    let ranges: Vec<_> = plan.pieces(1).map(|(_, range)| range).collect();
    assert_eq!(ranges, [0..757, 757..1514]);
    assert_eq!(split(max_frame(1200) + 1, 1200).unwrap().count(), 2);
    assert_eq!(split(8 * max_piece(1200), 1200).unwrap().count(), 8);
    assert_eq!(split(8 * max_piece(1200) + 1, 1200), None);
    assert_eq!(split(70_000, 9000), None);
    assert_eq!(split(100, 48), None);
    assert_eq!(split(1, 1200), None);
}

#[test]
fn two_frames_interleaved_and_backwards() {
    let (now, mut joiner) = (start(), reassembler());
    let (a, b) = (frame(1514), frame(9000));
    let mut pieces = cut(&a, 1);
    pieces.extend(cut(&b, 2));
    let mut whole = Vec::new();
    for (inner, body) in pieces.iter().rev() {
        whole.extend(joiner.handle_piece(now, SESSION, inner, body).unwrap());
    }
    let frames: Vec<_> = whole.into_iter().map(|whole| whole.frame).collect();
    assert_eq!(frames, [b, a]);
    assert_eq!((joiner.bytes(), joiner.budget.used()), (0, 0));
}

#[test]
fn trust_17_contradictions_discard_the_frame() {
    let now = start();
    let pieces = cut(&frame(1514), 1);
    let (first, body) = &pieces[0];
    let other_network = InnerHeader {
        selector: Selector(2),
        ..pieces[1].0
    };
    let other_sum = InnerHeader {
        checksum: L4Checksum::Partial,
        ..pieces[1].0
    };
    let longer = cut(&frame(1513), 1)[1].0;
    for (bad, bad_body) in [
        (*first, body.clone()),
        (other_network, pieces[1].1.clone()),
        (other_sum, pieces[1].1.clone()),
        (longer, vec![0; 756]),
    ] {
        let mut joiner = reassembler();
        assert_eq!(joiner.handle_piece(now, SESSION, first, body), Ok(None));
        let verdict = joiner.handle_piece(now, SESSION, &bad, &bad_body);
        assert_eq!(verdict, Err(DropReason::BadPiece));
        assert_eq!(joiner.bytes(), 0);
    }
}

#[test]
fn wrong_size_is_refused_before_it_costs_anything() {
    let (now, mut joiner) = (start(), reassembler());
    let (inner, body) = &cut(&frame(1514), 1)[0];
    for wrong in [&body[1..], &[&body[..], &[0]].concat(), &[]] {
        let verdict = joiner.handle_piece(now, SESSION, inner, wrong);
        assert_eq!(verdict, Err(DropReason::BadPiece));
    }
    // 9 bytes in 8 pieces of 2: the last ones would be empty.
    let empty_last = InnerHeader::piece(
        LAB,
        PieceHeader {
            frame_id: 1,
            index: 0,
            count: 8,
            frame_len: 9,
        },
    );
    let verdict = joiner.handle_piece(now, SESSION, &empty_last, &[0, 0]);
    assert_eq!(verdict, Err(DropReason::BadPiece));
    let no_piece = InnerHeader::frame(LAB);
    let verdict = joiner.handle_piece(now, SESSION, &no_piece, body);
    assert_eq!(verdict, Err(DropReason::BadPiece));
    assert_eq!(joiner.bytes(), 0);
}

#[test]
fn trust_17_sessions_do_not_mix() {
    let (now, mut joiner) = (start(), reassembler());
    let pieces = cut(&frame(1514), 1);
    let (a, b) = (&pieces[0], &pieces[1]);
    assert_eq!(joiner.handle_piece(now, SESSION, &a.0, &a.1), Ok(None));
    let other = SessionIndex(8);
    assert_eq!(joiner.handle_piece(now, other, &b.0, &b.1), Ok(None));
    assert!(
        joiner
            .handle_piece(now, SESSION, &b.0, &b.1)
            .unwrap()
            .is_some()
    );
}

#[test]
fn trust_17_late_pieces_do_not_complete() {
    let (now, mut joiner) = (start(), reassembler());
    let pieces = cut(&frame(1514), 1);
    let (a, b) = (&pieces[0], &pieces[1]);
    assert_eq!(joiner.handle_piece(now, SESSION, &a.0, &a.1), Ok(None));
    let late = joiner.poll_timeout().unwrap();
    assert_eq!(late, now + Reassembler::LIFETIME);
    assert_eq!(joiner.handle_piece(late, SESSION, &b.0, &b.1), Ok(None));
    assert_eq!((joiner.expire(late), joiner.expire(late)), (1, 0));
    assert_eq!(joiner.expire(late + Reassembler::LIFETIME), 1);
    assert_eq!((joiner.poll_timeout(), joiner.bytes()), (None, 0));
}

#[test]
fn trust_17_bounded_in_frames_and_bytes() {
    let (now, mut joiner) = (start(), reassembler());
    for id in 0..100 {
        let (inner, body) = &cut(&frame(1514), id)[0];
        assert_eq!(joiner.handle_piece(now, SESSION, inner, body), Ok(None));
    }
    assert_eq!(joiner.bytes(), 64 * 1514);
    assert_eq!((joiner.take_evicted(), joiner.take_evicted()), (36, 0));
    for id in 100..200 {
        let (inner, body) = &cut(&frame(9216), id)[0];
        assert_eq!(joiner.handle_piece(now, SESSION, inner, body), Ok(None));
        assert!(joiner.bytes() <= Reassembler::MAX_BYTES);
    }
}

/// However a peer spreads its pieces over the receivers, it gets no more memory than from one.
#[test]
fn trust_17_receivers_share_the_bounds_of_a_peer() {
    for sharers in 1..=7 {
        let budget = PieceBudget::default();
        let new = |_| Reassembler::one_of(sharers, budget.clone());
        let mut all: Vec<_> = (0..sharers).map(new).collect();
        for (length, id) in [1514, 9216].into_iter().zip([0, 1000]) {
            for number in 0..100 * all.len() {
                let at = number % all.len();
                let id = id + u32::try_from(number).unwrap();
                let (inner, body) = &cut(&frame(length), id)[0];
                let verdict = all[at].handle_piece(start(), SESSION, inner, body);
                assert_eq!(verdict, Ok(None));
            }
            let frames: usize = all.iter().map(|joiner| joiner.partial.len()).sum();
            let bytes: usize = all.iter().map(Reassembler::bytes).sum();
            assert!(frames <= Reassembler::MAX_PARTIAL, "{frames}");
            assert!(bytes <= Reassembler::MAX_BYTES, "{bytes}");
            assert!(all.iter().all(|joiner| !joiner.partial.is_empty()));
        }
    }
}

#[test]
fn the_budget_is_shared_and_given_back() {
    let now = start();
    let budget = PieceBudget::new(4000);
    let mut a = Reassembler::new(budget.clone());
    let mut b = Reassembler::new(budget.clone());
    for id in 0..3 {
        let (inner, body) = &cut(&frame(1514), id)[0];
        assert_eq!(a.handle_piece(now, SESSION, inner, body), Ok(None));
    }
    assert_eq!((budget.used(), a.take_evicted()), (2 * 1514, 1));
    let (inner, body) = &cut(&frame(1514), 1)[0];
    let verdict = b.handle_piece(now, SESSION, inner, body);
    assert_eq!(verdict, Err(DropReason::PieceOverflow));
    drop(a);
    assert_eq!(budget.used(), 0);
    assert_eq!(b.handle_piece(now, SESSION, inner, body), Ok(None));
}

proptest! {
    #[test]
    fn plans_cover_the_frame(length in 0usize..80_000, limit in 0usize..10_000) {
        let Some(plan) = split(length, limit) else {
            let room = max_piece(limit);
            prop_assert!(length < 2 || length > 8 * room || length > 65_535);
            return Ok(());
        };
        let mut at = 0;
        let ranges: Vec<_> = plan.pieces(0).map(|(_, range)| range).collect();
        prop_assert_eq!(ranges.len(), usize::from(plan.count()));
        for range in &ranges {
            prop_assert_eq!(range.start, at);
            prop_assert!(!range.is_empty() && range.len() <= max_piece(limit));
            prop_assert!(range.len() <= ranges[0].len());
            at = range.end;
        }
        prop_assert_eq!(at, length);
    }

    #[test]
    fn any_order_rejoins(length in 2usize..9217, order in any::<[u8; 8]>()) {
        let (now, mut joiner) = (start(), reassembler());
        let frame = frame(length);
        let mut pieces = cut(&frame, 9);
        pieces.sort_by_key(|(inner, _)| match inner.kind {
            InnerKind::Piece(piece) => order[usize::from(piece.index)],
            _ => 0,
        });
        let (last, rest) = pieces.split_last().unwrap();
        for (inner, body) in rest {
            prop_assert_eq!(joiner.handle_piece(now, SESSION, inner, body), Ok(None));
        }
        let whole = joiner.handle_piece(now, SESSION, &last.0, &last.1).unwrap().unwrap();
        prop_assert_eq!(whole.frame, frame);
        prop_assert_eq!(whole.selector, LAB);
    }

    #[test]
    fn arbitrary_pieces_stay_bounded(
        pieces in prop::collection::vec(
            (0u32..6, any::<u8>(), any::<u8>(), any::<u16>(), 0usize..9000, 0u64..400), 1..200,
        ),
    ) {
        let (mut now, mut joiner) = (start(), reassembler());
        for (frame_id, index, count, frame_len, length, wait) in pieces {
            now += Duration::from_millis(wait);
            let piece = PieceHeader { frame_id, index, count: count % 10, frame_len };
            let inner = InnerHeader::piece(LAB, piece);
            // Mostly of the right length, so that the rules behind it are reached.
            let length = byte_range(&piece).map_or(length, |range| range.len());
            let _ = joiner.handle_piece(now, SESSION, &inner, &vec![0; length]);
            prop_assert!(joiner.bytes() <= Reassembler::MAX_BYTES);
            prop_assert!(joiner.partial.len() <= Reassembler::MAX_PARTIAL);
            prop_assert_eq!(joiner.bytes(), joiner.budget.used());
        }
    }
}
