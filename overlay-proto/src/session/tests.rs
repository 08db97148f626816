use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn names(peer: u8, local: u32, remote: u32) -> SessionNames {
    SessionNames {
        peer: PeerId([peer; 32]),
        local_index: SessionIndex(local),
        remote_index: SessionIndex(remote),
        networks: Vec::new(),
    }
}

fn split() -> RawSplit {
    RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    }
}

fn pair(suite: Suite, now: Instant) -> (Session, Session) {
    let split = split();
    let a = Session::new(names(2, 10, 20), &split, suite, Role::Initiator, now).unwrap();
    let b = Session::new(names(1, 20, 10), &split, suite, Role::Responder, now).unwrap();
    (a, b)
}

/// The same end, once by each library.
fn both(suite: Suite, role: Role) -> [Session; 2] {
    let (peer, local, remote) = match role {
        Role::Initiator => (2, 10, 20),
        Role::Responder => (1, 20, 10),
    };
    Library::ALL.map(|library| {
        let cipher = Cipher { suite, library };
        Session::with_cipher(names(peer, local, remote), &split(), cipher, role, start()).unwrap()
    })
}

fn seal(session: &Session, lane: u8, inner: &[u8], body: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; 10_000];
    let len = session.seal_into(Lane(lane), inner, body, &mut out)?;
    out.truncate(len);
    Ok(out)
}

fn open(session: &Session, datagram: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut copy = datagram.to_vec();
    let header = DataHeader::parse(&copy)?;
    session
        .open_in_place(&header, &mut copy)
        .map(|text| text.to_vec())
}

#[test]
fn both_suites_and_all_lanes_carry_both_ways() {
    for suite in Suite::ALL {
        let (a, b) = pair(suite, start());
        for lane in 0..LANES as u8 {
            let there = seal(&a, lane, b"head", b"body").unwrap();
            assert_eq!(there.len(), DataHeader::LEN + 8 + TAG_LEN);
            assert_eq!(open(&b, &there).unwrap(), b"headbody");
            assert_eq!(open(&b, &there), Err(DropReason::Replayed));
            let back = seal(&b, lane, b"", b"answer").unwrap();
            assert_eq!(open(&a, &back).unwrap(), b"answer");
            let mut whole = [0; 100];
            let len = a
                .seal_text(Lane(lane), b"in one piece", &mut whole)
                .unwrap();
            assert_eq!(len, DataHeader::LEN + 12 + TAG_LEN);
            assert_eq!(open(&b, &whole[..len]).unwrap(), b"in one piece");
        }
    }
}

#[test]
fn trust_12_lanes_and_directions_have_different_keys() {
    let (a, b) = pair(Suite::Aes256Gcm, start());
    // The nonces differ by lane, too; so under one and the same nonce.
    let header = DataHeader {
        receiver: SessionIndex(1),
        lane: Lane(0),
        counter: 0,
    };
    let mut made = std::collections::BTreeSet::new();
    for lane in a.seal.iter().chain(&b.seal) {
        let mut tag = [0; TAG_LEN];
        let sealed = lane
            .key
            .seal_in_place(nonce(&header), &[], &mut [0; 16], &mut tag);
        assert!(sealed.is_ok() && made.insert(tag));
    }
    let packet = seal(&a, 1, b"", b"same text").unwrap();
    // A packet sent back to its sender does not open.
    assert_eq!(open(&a, &packet), Err(DropReason::BadTag));
    assert_eq!(b.failed_opens(), 0);
}

#[test]
fn trust_12_a_forgery_does_not_move_the_window() {
    let (a, b) = pair(Suite::Aes256Gcm, start());
    let good = seal(&a, 0, b"", b"x").unwrap();
    let mut forged = good.clone();
    // The counter's low byte: the header is bound by the tag.
    forged[15] = 200;
    assert_eq!(open(&b, &forged), Err(DropReason::BadTag));
    // A counter far ahead, and the very counter of the packet that is still under way.
    forged[12..].fill(0);
    forged[12] = 1;
    assert_eq!(open(&b, &forged), Err(DropReason::BadTag));
    let mut bent = good.clone();
    bent[16] ^= 1;
    assert_eq!(open(&b, &bent), Err(DropReason::BadTag));
    assert_eq!(b.failed_opens(), 3);
    assert_eq!(open(&b, &good).unwrap(), b"x");
}

#[test]
fn trust_12_keys_end_by_time() {
    let now = start();
    let (a, _) = pair(Suite::Aes256Gcm, now);
    let just_before = now + REKEY_AFTER - Duration::from_millis(1);
    assert!(!a.needs_rekey(just_before));
    assert!(a.needs_rekey(now + REKEY_AFTER));
    assert!(!a.is_dead(now + REKEY_AFTER));
    assert!(a.is_dead(now + DEAD_AFTER));
}

#[test]
fn trust_12_keys_end_by_count() {
    let now = start();
    let (a, b) = pair(Suite::Aes256Gcm, now);
    a.seal[3]
        .next
        .store(REKEY_AFTER_PACKETS - 1, Ordering::Relaxed);
    assert!(!a.needs_rekey(now));
    let packet = seal(&a, 3, b"", b"").unwrap();
    assert!(a.needs_rekey(now));
    // The receiver counts, too: only one end rekeys.
    open(&b, &packet).unwrap();
    assert!(b.needs_rekey(now));

    a.seal[3]
        .next
        .store(DEAD_AFTER_PACKETS - 1, Ordering::Relaxed);
    assert!(seal(&a, 3, b"", b"").is_ok());
    assert_eq!(seal(&a, 3, b"", b""), Err(DropReason::SessionExpired));
    assert!(a.is_dead(now));
}

#[test]
fn trust_12_too_many_failed_opens_close_a_session() {
    let now = start();
    let (a, b) = pair(Suite::Aes256Gcm, now);
    b.failed_opens
        .store(DEAD_AFTER_FAILED_OPENS - 1, Ordering::Relaxed);
    let mut forged = seal(&a, 0, b"", b"").unwrap();
    forged[20] ^= 1;
    assert_eq!(open(&b, &forged), Err(DropReason::BadTag));
    assert!(b.is_dead(now));
    assert_eq!(seal(&b, 0, b"", b""), Err(DropReason::SessionExpired));
}

#[test]
fn small_buffers_and_strange_lanes() {
    let (a, b) = pair(Suite::Aes256Gcm, start());
    let mut small = [0; DataHeader::LEN + 3 + TAG_LEN];
    assert_eq!(
        a.seal_into(Lane(0), b"1234", b"", &mut small),
        Err(DropReason::FrameTooLarge)
    );
    assert_eq!(a.packets(), 0, "a refused packet uses no counter");
    let beyond = u8::try_from(LANES).unwrap();
    assert_eq!(seal(&a, beyond, b"", b""), Err(DropReason::UnknownLane));
    let header = DataHeader {
        receiver: SessionIndex(20),
        lane: Lane(0),
        counter: 0,
    };
    assert_eq!(
        b.open_in_place(&header, &mut [0; 20]),
        Err(DropReason::MalformedDatagram)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn trust_12_any_flipped_bit_is_refused(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        for suite in Suite::ALL {
            let [a, _] = both(suite, Role::Initiator);
            let mut packet = seal(&a, 0, b"in", &body).unwrap();
            let place = at.index(packet.len());
            packet[place] ^= 1 << bit;
            // Both libraries say the same, and both leave nothing of the text.
            let left = both(suite, Role::Responder).map(|b| {
                let mut copy = packet.clone();
                let said = DataHeader::parse(&copy)
                    .and_then(|header| b.open_in_place(&header, &mut copy).map(|_| ()));
                (said, copy)
            });
            prop_assert!(left[0].0.is_err());
            prop_assert_eq!(left[0].0, left[1].0);
            for (said, copy) in left {
                if said == Err(DropReason::BadTag) {
                    let text = &copy[DataHeader::LEN..copy.len() - TAG_LEN];
                    prop_assert!(text.iter().all(|&byte| byte == 0));
                }
            }
        }
    }

    #[test]
    fn trust_12_what_is_cut_short_is_refused(len in 0usize..64, body in 0usize..64) {
        for suite in Suite::ALL {
            let [a, _] = both(suite, Role::Initiator);
            let packet = seal(&a, 0, b"", &vec![7; body]).unwrap();
            let short = &packet[..len.min(packet.len() - 1)];
            let said = both(suite, Role::Responder).map(|b| open(&b, short));
            prop_assert!(said[0].is_err());
            prop_assert_eq!(&said[0], &said[1]);
        }
    }

    #[test]
    fn the_libraries_seal_and_open_the_same_bytes(
        text in proptest::collection::vec(any::<u8>(), 0..9_001),
        at in any::<prop::sample::Index>(),
        lane in 0..LANES as u8,
    ) {
        let inner = at.index(text.len() + 1);
        for suite in Suite::ALL {
            same_bytes(
                &both(suite, Role::Initiator),
                &both(suite, Role::Responder),
                lane,
                text.split_at(inner),
            );
        }
    }
}

/// Each of `from` seals the text in one piece and in two, and each of `to` opens all of it.
fn same_bytes(from: &[Session; 2], to: &[Session; 2], lane: u8, (inner, body): (&[u8], &[u8])) {
    let text = [inner, body].concat();
    for split in [true, false] {
        let [a, b] = from.each_ref().map(|session| {
            if split {
                return seal(session, lane, inner, body).unwrap();
            }
            let mut out = vec![0; 10_000];
            let len = session.seal_text(Lane(lane), &text, &mut out).unwrap();
            out.truncate(len);
            out
        });
        assert!(a == b, "{} bytes", text.len());
        for session in to {
            assert!(open(session, &a).unwrap() == text, "{} bytes", text.len());
        }
    }
}

#[test]
fn the_libraries_agree_at_every_size() {
    let bytes: Vec<u8> = (0..9_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    for suite in Suite::ALL {
        let ends = [Role::Initiator, Role::Responder].map(|role| both(suite, role));
        for len in 0..=bytes.len() {
            let text = &bytes[..len];
            same_bytes(&ends[0], &ends[1], 0, text.split_at(len * 7 % (len + 1)));
        }
    }
}

#[test]
fn a_dropped_key_is_overwritten() {
    let cipher = Cipher {
        suite: Suite::Aes256Gcm,
        library: Library::Ring,
    };
    let tag = |key: &Key| {
        let mut tag = [0; TAG_LEN];
        key.seal_in_place([0; 12], &[], &mut [], &mut tag).unwrap();
        tag
    };
    let mut key = Key::new(cipher, &[7; 32]).unwrap();
    let zeros = tag(&Key::new(cipher, &[0; 32]).unwrap());
    assert_ne!(tag(&key), zeros);
    let Key::Ring(ring) = &mut key else {
        panic!("a key of ring");
    };
    ring.overwrite();
    assert_eq!(tag(&key), zeros);
}

#[test]
fn the_processor_decides() {
    let aes = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let chacha = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    let case = |x86_64, aes, aes_512| {
        let processor = Processor {
            x86_64,
            aes,
            aes_512,
        };
        let library = processor.cipher(Suite::Aes256Gcm).library;
        (processor.suites(), library)
    };
    assert_eq!(case(true, true, true), (aes, Library::AwsLc));
    assert_eq!(case(true, true, false), (aes, Library::Ring));
    assert_eq!(case(true, false, false), (chacha, Library::Ring));
    assert_eq!(case(false, true, false), (aes, Library::AwsLc));
    assert_eq!(case(false, false, false), (chacha, Library::AwsLc));
    let here = Processor::detect();
    assert_eq!(here.x86_64, cfg!(target_arch = "x86_64"));
    assert!(here.aes || !here.aes_512);
    for suite in Suite::ALL {
        let (a, _) = pair(suite, start());
        assert_eq!(a.cipher, here.cipher(suite));
    }
}

#[test]
fn a_suite_is_agreed_from_two_lists() {
    let aes = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    let chacha = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];
    let (one, two) = (Some(Suite::Aes256Gcm), Some(Suite::ChaCha20Poly1305));
    assert_eq!(Suite::agree(&[1, 2], &aes), one);
    assert_eq!(Suite::agree(&[1, 2], &chacha), two);
    assert_eq!(Suite::agree(&[2, 1], &aes), two);
    assert_eq!(Suite::agree(&[2, 1], &chacha), two);
    // Only what both have, whatever else a later version lists, and however often.
    assert_eq!(Suite::agree(&[9, 1, 0], &chacha), one);
    assert_eq!(Suite::agree(&[9, 2, 2], &aes), two);
    assert_eq!(Suite::agree(&[1, 2], &[Suite::Aes256Gcm]), one);
    assert_eq!(Suite::agree(&[2, 1], &[Suite::Aes256Gcm]), one);
    assert_eq!(Suite::agree(&[2], &[Suite::Aes256Gcm]), None);
    assert_eq!(Suite::agree(&[0, 3, 255], &aes), None);
    assert_eq!(Suite::agree(&[], &aes), None);
}

#[test]
fn a_session_is_small() {
    // Each of the 32 expanded keys lies outside: 584 bytes with aws-lc-rs.
    let key = size_of::<ring::aead::LessSafeKey>().max(584);
    let memory = size_of::<Session>() + 2 * LANES * key;
    assert!(memory <= 32 * 1024, "{memory}");
}
