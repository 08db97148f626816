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

fn pair(suite: Suite, now: Instant) -> (Session, Session) {
    let split = RawSplit {
        to_responder: [1; 32],
        to_initiator: [2; 32],
    };
    let a = Session::new(names(2, 10, 20), &split, suite, Role::Initiator, now).unwrap();
    let b = Session::new(names(1, 20, 10), &split, suite, Role::Responder, now).unwrap();
    (a, b)
}

fn seal(session: &Session, lane: u8, inner: &[u8], body: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; 2048];
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
    for suite in Suite::PREFERENCE {
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
    let mut made = std::collections::HashSet::new();
    for lane in a.seal.iter().chain(&b.seal) {
        let tag = lane
            .key
            .seal_in_place_separate_tag(nonce(&header), Aad::empty(), &mut [0; 16]);
        assert!(made.insert(tag.unwrap().as_ref().to_vec()));
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
    assert_eq!(seal(&a, 8, b"", b""), Err(DropReason::UnknownLane));
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
        let (a, b) = pair(Suite::ChaCha20Poly1305, start());
        let mut packet = seal(&a, 0, b"in", &body).unwrap();
        let place = at.index(packet.len());
        packet[place] ^= 1 << bit;
        prop_assert!(open(&b, &packet).is_err());
    }
}

#[test]
fn a_session_is_small() {
    // The library keeps each of the 16 expanded keys in 584 bytes of its own.
    let memory = size_of::<Session>() + 2 * LANES * 584;
    assert!(memory <= 16 * 1024, "{memory}");
}
