//! What sealing and opening one packet costs, by cipher and size: `cargo bench -p overlay-proto`.
//!
//! Sizes are those of the plaintext, inner header and body. Sealing includes the copy into the
//! datagram's place, as in the data path. Opening includes fresh bytes for each packet, since it
//! destroys the old ones: `copy` says what that costs.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Instant;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use overlay_proto::ids::PeerId;
use overlay_proto::session::{
    Cipher, Library, Processor, RawSplit, Role, Session, SessionNames, Suite,
};
use overlay_proto::wire::{DataHeader, Lane, SessionIndex, TAG_LEN};

const SIZES: [usize; 3] = [64, 1_408, 8_900];
const CIPHERS: [(Suite, Library); 4] = [
    (Suite::Aes256Gcm, Library::AwsLc),
    (Suite::Aes256Gcm, Library::Ring),
    (Suite::ChaCha20Poly1305, Library::AwsLc),
    (Suite::ChaCha20Poly1305, Library::Ring),
];

fn main() {
    println!("this processor: {:?}", Processor::detect());
    divan::main();
}

fn args() -> impl Iterator<Item = Case> {
    CIPHERS.into_iter().flat_map(|(suite, library)| {
        SIZES.map(|size| Case {
            cipher: Cipher { suite, library },
            size,
        })
    })
}

struct Case {
    cipher: Cipher,
    size: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cipher { suite, library } = self.cipher;
        write!(f, "{} {} {}", suite.name(), library.name(), self.size)
    }
}

fn session(cipher: Cipher, role: Role) -> Session {
    let split = RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    };
    let names = SessionNames {
        peer: PeerId([3; 32]),
        local_index: SessionIndex(4),
        remote_index: SessionIndex(5),
        networks: Vec::new(),
    };
    Session::with_cipher(names, &split, cipher, role, Instant::now()).unwrap()
}

/// Text in one piece: `Session::seal_text`.
#[divan::bench(args = args())]
fn seal(bencher: Bencher<'_, '_>, case: &Case) {
    let session = session(case.cipher, Role::Initiator);
    let text = vec![0x5a; case.size];
    let mut out = vec![0; 10_000];
    bencher
        .counter(BytesCount::new(case.size))
        .bench_local(|| session.seal_text(Lane(0), black_box(&text), &mut out));
}

/// Text in two pieces: `Session::seal_into`.
#[divan::bench(args = args())]
fn seal_pieces(bencher: Bencher<'_, '_>, case: &Case) {
    let session = session(case.cipher, Role::Initiator);
    let text = vec![0x5a; case.size];
    let (inner, body) = text.split_at(16);
    let mut out = vec![0; 10_000];
    bencher
        .counter(BytesCount::new(case.size))
        .bench_local(|| session.seal_into(Lane(0), black_box(inner), body, &mut out));
}

/// Packets in order: `Session::open_in_place`.
#[divan::bench(args = args())]
fn open(bencher: Bencher<'_, '_>, case: &Case) {
    // More than any replay window: after the last, a new session opens them all again.
    const PACKETS: usize = 1_024;
    let sender = session(case.cipher, Role::Initiator);
    let packets: Vec<_> = (0..PACKETS)
        .map(|_| {
            let mut out = vec![0; DataHeader::LEN + case.size + TAG_LEN];
            sender
                .seal_text(Lane(0), &vec![0x5a; case.size], &mut out)
                .unwrap();
            (DataHeader::parse(&out).unwrap(), out)
        })
        .collect();
    let mut place = vec![0; DataHeader::LEN + case.size + TAG_LEN];
    let mut receiver = session(case.cipher, Role::Responder);
    let mut next = 0;
    bencher.counter(BytesCount::new(case.size)).bench_local(|| {
        if next == PACKETS {
            receiver = session(case.cipher, Role::Responder);
            next = 0;
        }
        let (header, bytes) = &packets[next];
        next += 1;
        place.copy_from_slice(bytes);
        assert!(receiver.open_in_place(header, &mut place).is_ok());
    });
}

/// The copy that is part of `open`.
#[divan::bench(args = SIZES)]
fn copy(bencher: Bencher<'_, '_>, size: usize) {
    let from = vec![0x5a; size];
    let mut to = vec![0; size];
    bencher
        .counter(BytesCount::new(size))
        .bench_local(|| black_box(&mut to).copy_from_slice(black_box(&from)));
}
