//! Two ends of a session and whoever is between them.
//!
//! The ends seal with different libraries. The model is a list of what was sealed: each is opened at most once, by the right end, unchanged.

use std::time::Instant;

use overlay_proto::ids::PeerId;
use overlay_proto::session::{
    Cipher, LANES, Library, RawSplit, Role, Session, SessionNames, Suite,
};
use overlay_proto::wire::{DataHeader, Lane, SessionIndex};

use crate::Seen;
use crate::input::Input;

/// A bound on an input's work.
const MAX_OPERATIONS: usize = 400;

struct Sealed {
    to: usize,
    bytes: Vec<u8>,
    body: Vec<u8>,
    opened: bool,
}

fn ends(suite: Suite) -> [Session; 2] {
    let split = RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    };
    [
        (Role::Initiator, Library::AwsLc, 10, 20),
        (Role::Responder, Library::Ring, 20, 10),
    ]
    .map(|(role, library, local, remote)| {
        let cipher = Cipher { suite, library };
        let names = SessionNames {
            peer: PeerId([9; 32]),
            local_index: SessionIndex(local),
            remote_index: SessionIndex(remote),
            networks: Vec::new(),
        };
        Session::with_cipher(names, &split, cipher, role, Instant::now()).unwrap()
    })
}

pub(super) fn run(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let mut input = Input::new(bytes);
    let suite = Suite::ALL[input.below(2)];
    let ends = ends(suite);
    let mut sent: Vec<Sealed> = Vec::new();
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=2 => seal(&mut input, &ends, &mut sent, &mut seen),
            3..=5 => deliver(&mut input, &ends, &mut sent, &mut seen),
            _ => disturb(&mut input, &ends, &mut sent, &mut seen),
        }
    }
    seen.number()
}

fn seal(input: &mut Input<'_>, ends: &[Session; 2], sent: &mut Vec<Sealed>, seen: &mut Seen) {
    let from = input.below(2);
    let lane = Lane(input.u8() % (LANES as u8 + 1));
    let body = vec![input.u8(); usize::from(input.u8())];
    let mut out = vec![0; 400];
    let result = ends[from].seal_into(
        lane,
        &body[..body.len() / 2],
        &body[body.len() / 2..],
        &mut out,
    );
    seen.result(&result);
    assert_eq!(result.is_ok(), usize::from(lane.0) < LANES);
    if let Ok(len) = result {
        out.truncate(len);
        sent.push(Sealed {
            to: 1 - from,
            bytes: out,
            body,
            opened: false,
        });
    }
}

/// As it was sealed, once or again, early or late.
fn deliver(input: &mut Input<'_>, ends: &[Session; 2], sent: &mut [Sealed], seen: &mut Seen) {
    if sent.is_empty() {
        return;
    }
    let index = usize::from(input.u16()) % sent.len();
    let one = &mut sent[index];
    let mut copy = one.bytes.clone();
    let header = DataHeader::parse(&copy).unwrap();
    assert_eq!(header.receiver, ends[one.to].local_index);
    let result = ends[one.to].open_in_place(&header, &mut copy);
    seen.note(&result.as_ref().map(|_| ()));
    match result {
        Ok(text) => {
            assert!(!one.opened, "opened twice");
            assert_eq!(text, one.body);
            one.opened = true;
        }
        Err(reason) => assert!(one.opened, "refused the first time: {reason:?}"),
    }
}

/// Changed, cut, extended, or given back to its sender: never opens.
fn disturb(input: &mut Input<'_>, ends: &[Session; 2], sent: &mut [Sealed], seen: &mut Seen) {
    if sent.is_empty() {
        return;
    }
    let index = usize::from(input.u16()) % sent.len();
    let one = &sent[index];
    let mut bytes = one.bytes.clone();
    let mut to = one.to;
    let at = usize::from(input.u16()) % bytes.len();
    match input.below(5) {
        0 | 1 => bytes[at] ^= 1 << input.below(8),
        2 => bytes.truncate(at),
        3 => bytes.extend_from_slice(&input.array::<3>()),
        _ => to = 1 - to,
    }
    let Ok(header) = DataHeader::parse(&bytes) else {
        return;
    };
    let result = ends[to].open_in_place(&header, &mut bytes);
    seen.note(&result.as_ref().map(|_| ()));
    // The index is for whoever looks the session up; it is sealed, too.
    assert!(result.is_err(), "opened what was never sealed");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seal = |from: u8, lane: u8| [0, from, lane, 0x55, 60];
    let deliver = |n: u8| [3, 0, n];
    let mut plain = vec![0];
    let mut late = vec![1];
    for n in 0..12 {
        plain.extend_from_slice(&seal(n & 1, n % 8));
        plain.extend_from_slice(&deliver(n));
        late.extend_from_slice(&seal(0, 0));
    }
    for n in (0..12).rev() {
        late.extend_from_slice(&deliver(n));
        late.extend_from_slice(&deliver(n));
        late.extend_from_slice(&[6, 0, n, 0, 3, n % 5, 1]);
    }
    vec![plain, late]
}
