//! Documents: round trips, refusals, and that arbitrary bytes never panic.

use std::net::{IpAddr, Ipv6Addr};

use nat_traversal::candidate::{Candidate, CandidateKind};
use proptest::prelude::*;

use super::support::*;
use crate::SeededEntropy;
use crate::directory::card::{Card, MAX_SEALED_CARD, OpenedCard, open_card, seal_card};
use crate::directory::claim::{Claim, DefenderTag, SignedClaim, VerifiedClaim, generation_limit};
use crate::directory::messages::{
    DirectoryMessage, HASHES_PER_MESSAGE, MAX_MESSAGE, pack_claims, pack_roster,
};
use crate::directory::record::{RECORD_LEN, RecordKey, RecordReader, StoredRecord, seal_record};
use crate::directory::roster::{Presence, RosterEntry, SignedRosterEntry};
use crate::directory::signal::{
    RoutedSignal, Signal, SignalInbox, open_signal, seal_signal, signal_is_for,
};
use crate::directory::signed::{Document, Signed, decode, encode};
use crate::directory::sync::ShortHash;
use crate::drop_reason::DropReason;
use crate::ethernet::MacAddr;
use crate::ids::{NetworkId, OverlayId};
use crate::membership::{MAX_CHAIN_BYTES, NodeKey};
use crate::time::UnixTime;

fn entry(node: &NodeKey) -> RosterEntry {
    RosterEntry {
        network: NETWORK,
        node: node.peer_id(),
        incarnation: 3,
        certificate: [1; 32],
        static_key: [2; 32],
        addresses: vec!["/ip4/192.0.2.1/udp/22611/quic-v1".to_owned()],
        presence: Presence::Joined,
    }
}

fn card(node: &NodeKey) -> Card {
    Card {
        entry: Signed::seal(&entry(node), node, &OVERLAY).unwrap(),
        chain: vec![7; 800],
        static_document: vec![8; 150],
        candidates: vec![
            Candidate {
                kind: CandidateKind::Host,
                addr: "[2001:db8::1]:22611".parse().unwrap(),
                allocation: None,
                relay: None,
            };
            16
        ],
        sequence: 9,
        name: "host-a".to_owned(),
    }
}

fn largest_claim(node: &NodeKey) -> Claim {
    let mut largest = claim(1, u64::MAX, u64::MAX);
    largest.contested = 6;
    largest.defender = DefenderTag::of(&NETWORK, &node.peer_id());
    largest.predecessor = [0xff; 32];
    largest.vlan = crate::ethernet::VlanId::new(4094).unwrap();
    largest.ips = vec![IpAddr::V6(Ipv6Addr::LOCALHOST); 16];
    largest
}

#[test]
fn the_largest_claim_fits_claim_record_and_message() {
    let node = test_node(1);
    let largest = verified(&node, &largest_claim(&node));
    let keys = RecordKey::derive(&EPOCH_KEY, &largest.claim.key());
    let record = seal_record(&keys, &OVERLAY, &largest).unwrap();
    assert_eq!(record.len(), RECORD_LEN);
    const { assert!(RECORD_LEN <= 1024) };
    for message in pack_claims(vec![largest.signed; 20]) {
        assert!(message.encode().unwrap().len() <= MAX_MESSAGE);
    }
}

/// The format of a claim, byte by byte: what is signed cannot change.
#[test]
fn a_claim_has_these_bytes() {
    let mut said = claim(7, 300, 2);
    said.ips = vec!["192.0.2.7".parse().unwrap()];
    let network = [0x4e; 32];
    let expected = [
        &[1][..],
        &network,
        &[0],
        &[0x52, 0x54, 0, 0, 0, 7],
        &[0xac, 0x02],
        &[2],
        &[0; 32],
        &[0],
        &[0; 8],
        &[1, 0, 192, 0, 2, 7],
        &[2],
    ]
    .concat();
    assert_eq!(encode(&said).unwrap(), expected);
}

#[test]
fn claims_that_nobody_may_make_are_refused() {
    let node = test_node(1);
    let refused = |change: fn(&mut Claim)| {
        let mut wrong = claim(1, 1, 1);
        change(&mut wrong);
        Signed::seal(&wrong, &node, &OVERLAY).unwrap_err()
    };
    assert_eq!(
        refused(|c| c.mac = MacAddr::BROADCAST),
        DropReason::MacReserved
    );
    assert_eq!(refused(|c| c.mac = MacAddr::ZERO), DropReason::MacReserved);
    assert_eq!(refused(|c| c.contested = 6), DropReason::ClaimInvalid);
    assert_eq!(refused(|c| c.contested = 7), DropReason::ClaimInvalid);
    assert_eq!(
        refused(|c| c.ips = vec![IpAddr::V6(Ipv6Addr::LOCALHOST); 17]),
        DropReason::ClaimInvalid
    );
}

#[test]
fn trust_9_a_claim_counts_only_as_signed() {
    let node = test_node(1);
    let signed = Signed::seal(&claim(1, 1, 1), &node, &OVERLAY).unwrap();
    assert!(VerifiedClaim::open(&signed, &OVERLAY, &NETWORK, 1).is_ok());
    let other_overlay = OverlayId([1; 32]);
    assert!(VerifiedClaim::open(&signed, &other_overlay, &NETWORK, 1).is_err());
    assert!(VerifiedClaim::open(&signed, &OVERLAY, &NetworkId([1; 32]), 1).is_err());
    let mut bytes = encode(&signed).unwrap();
    for index in 1..bytes.len() {
        bytes[index] ^= 1;
        let bent: Option<SignedClaim> = decode(&bytes);
        assert!(
            bent.is_none_or(|bent| bent.open(&OVERLAY).is_err()),
            "byte {index}"
        );
        bytes[index] ^= 1;
    }
}

#[test]
fn generations_are_bounded_by_the_overlays_age() {
    let birth = UnixTime(1_000_000);
    let limit = generation_limit(birth, UnixTime(1_000_100));
    assert_eq!(limit, 1024 + 16 * (100 + 600));
    let node = test_node(1);
    let signed = Signed::seal(&claim(1, limit + 1, 1), &node, &OVERLAY).unwrap();
    assert_eq!(
        VerifiedClaim::open(&signed, &OVERLAY, &NETWORK, limit).unwrap_err(),
        DropReason::GenerationTooFar
    );
    // A clock before the birth leaves the free ones.
    assert_eq!(generation_limit(birth, UnixTime(0)), 1024);
}

#[test]
fn a_sealed_card_opens_for_members_only() {
    let node = test_node(1);
    let signed = Signed::seal(&card(&node), &node, &OVERLAY).unwrap();
    let sealed = seal_card(&signed, &EPOCH_KEY, &mut SeededEntropy::new(1)).unwrap();
    assert!(sealed.len() <= MAX_SEALED_CARD);
    let opened = open_card(&sealed, &EPOCH_KEY, &OVERLAY, &NETWORK).unwrap();
    assert_eq!(opened.card, card(&node));
    assert_eq!(opened.entry.node, node.peer_id());
    assert!(open_card(&sealed, &[0; 32], &OVERLAY, &NETWORK).is_err());
    let stolen = Card {
        entry: Signed::seal(&entry(&test_node(2)), &test_node(2), &OVERLAY).unwrap(),
        ..card(&node)
    };
    assert!(Signed::seal(&stolen, &node, &OVERLAY).is_err());
    assert!(OpenedCard::open(&signed, &OVERLAY, &NetworkId([1; 32])).is_err());
}

#[test]
fn the_largest_card_and_signal_fit() {
    let node = test_node(1);
    let mut largest = card(&node);
    let mut roster_entry = entry(&node);
    roster_entry.addresses = vec!["x".repeat(80); 8];
    largest.entry = Signed::seal(&roster_entry, &node, &OVERLAY).unwrap();
    largest.chain = vec![7; MAX_CHAIN_BYTES];
    largest.static_document = vec![7; 256];
    largest.name = "n".repeat(64);
    let signed = Signed::seal(&largest, &node, &OVERLAY).unwrap();
    let mut entropy = SeededEntropy::new(1);
    assert!(seal_card(&signed, &EPOCH_KEY, &mut entropy).is_ok());
    let signal = RoutedSignal {
        from: node.peer_id(),
        to: test_node(2).peer_id(),
        sequence: u64::MAX,
        signal: Signal::Hello(signed),
    };
    assert!(seal_signal(&signal, &node, &OVERLAY, &EPOCH_KEY, &mut entropy).is_ok());
}

#[test]
fn a_signal_is_bound_to_its_route() {
    let (a, b, c) = (test_node(1), test_node(2), test_node(3));
    let signal = RoutedSignal {
        from: a.peer_id(),
        to: b.peer_id(),
        sequence: 1,
        signal: Signal::Bye,
    };
    let mut entropy = SeededEntropy::new(1);
    let sealed = seal_signal(&signal, &a, &OVERLAY, &EPOCH_KEY, &mut entropy).unwrap();
    assert!(signal_is_for(&sealed, &EPOCH_KEY));
    let open = |from: &NodeKey, to: &NodeKey| {
        open_signal(
            &sealed,
            &from.peer_id(),
            &to.peer_id(),
            &OVERLAY,
            &EPOCH_KEY,
        )
    };
    assert_eq!(open(&a, &b), Ok(signal.clone()));
    assert!(open(&a, &c).is_err());
    assert!(open(&c, &b).is_err());
    assert!(seal_signal(&signal, &c, &OVERLAY, &EPOCH_KEY, &mut entropy).is_err());
    let mut inbox = SignalInbox::default();
    assert!(inbox.accept(a.peer_id(), 1));
    assert!(!inbox.accept(a.peer_id(), 1));
    assert!(inbox.accept(a.peer_id(), 2));
}

#[test]
fn trust_9_a_storer_checks_what_it_cannot_read() {
    let node = test_node(1);
    let own = verified(&node, &claim(1, 5, 2));
    let keys = RecordKey::derive(&EPOCH_KEY, &mac_key(1));
    let record = seal_record(&keys, &OVERLAY, &own).unwrap();
    let dht_key = keys.dht_key();
    let stored = StoredRecord::verify(&OVERLAY, &dht_key, &record).unwrap();
    assert_eq!((stored.generation, stored.refresh), (5, 2));
    assert!(StoredRecord::verify(&OVERLAY, &[0; 32], &record).is_err());
    for index in [0, 1, 40, 100, RECORD_LEN - 1] {
        let mut bent = record.clone();
        bent[index] ^= 1;
        assert!(
            StoredRecord::verify(&OVERLAY, &dht_key, &bent).is_err(),
            "byte {index}"
        );
    }
    let reader = RecordReader {
        overlay: &OVERLAY,
        network: &NETWORK,
        epoch_key: &EPOCH_KEY,
        generation_limit: 100,
    };
    assert_eq!(
        reader.open_record(&mac_key(1), &record).unwrap().claim,
        own.claim
    );
    assert!(reader.open_record(&mac_key(2), &record).is_err());
    let too_far = RecordReader {
        generation_limit: 4,
        ..reader
    };
    assert!(too_far.open_record(&mac_key(1), &record).is_err());
}

#[test]
fn records_of_one_key_have_an_order() {
    let keys = RecordKey::derive(&EPOCH_KEY, &mac_key(1));
    let record = |node: u8, generation, refresh| {
        let own = verified(&test_node(node), &claim(1, generation, refresh));
        let bytes = seal_record(&keys, &OVERLAY, &own).unwrap();
        StoredRecord::verify(&OVERLAY, &keys.dht_key(), &bytes).unwrap()
    };
    assert!(record(1, 9, 1).supersedes(&record(2, 1, 5)));
    assert!(record(2, 1, 2).supersedes(&record(2, 1, 1)));
    let (one, other) = (record(1, 3, 1), record(2, 3, 9));
    assert_ne!(one.supersedes(&other), other.supersedes(&one));
    assert!(!one.supersedes(&one));
}

#[test]
fn messages_keep_their_bound() {
    let node = test_node(1);
    let mut large = entry(&node);
    large.addresses = vec!["x".repeat(80); 8];
    let signed = Signed::seal(&large, &node, &OVERLAY).unwrap();
    for message in pack_roster(vec![signed; 3]) {
        assert!(message.encode().is_ok());
    }
    let full = DirectoryMessage::Have {
        claim_buckets: u64::MAX,
        claims: vec![ShortHash([0xff; 8]); HASHES_PER_MESSAGE],
        roster_buckets: u16::MAX,
        roster: Vec::new(),
    };
    let bytes = full.encode().unwrap();
    assert_eq!(DirectoryMessage::decode(&bytes), Ok(full));
    let chain = DirectoryMessage::Chain {
        node: node.peer_id(),
        chain: vec![0; MAX_CHAIN_BYTES],
    };
    assert!(chain.encode().is_ok());
}

#[test]
fn a_roster_entry_speaks_for_its_signer_only() {
    let (a, b) = (test_node(1), test_node(2));
    assert!(Signed::seal(&entry(&a), &b, &OVERLAY).is_err());
    let mut long = entry(&a);
    long.addresses = vec!["x".repeat(200); 12];
    assert!(Signed::seal(&long, &a, &OVERLAY).is_err());
    long.trim();
    assert_eq!(long.addresses.len(), 3);
    let signed: SignedRosterEntry = Signed::seal(&long, &a, &OVERLAY).unwrap();
    assert_eq!(signed.open(&OVERLAY), Ok(long));
}

/// Opens `bytes` as every kind of document there is.
fn open_all(bytes: &[u8]) {
    fn open<D: Document>(bytes: &[u8]) {
        if let Some(signed) = decode::<Signed<D>>(bytes) {
            let _ = signed.open(&OVERLAY);
        }
    }
    open::<Claim>(bytes);
    open::<RosterEntry>(bytes);
    open::<Card>(bytes);
    open::<RoutedSignal>(bytes);
    let _ = DirectoryMessage::decode(bytes);
    let _ = open_card(bytes, &EPOCH_KEY, &OVERLAY, &NETWORK);
    let peer = test_node(1).peer_id();
    let _ = open_signal(bytes, &peer, &peer, &OVERLAY, &EPOCH_KEY);
    let _ = StoredRecord::verify(&OVERLAY, &[0; 32], bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        open_all(&bytes);
        // The version is right more often than chance has it.
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        open_all(&bytes);
    }

    #[test]
    fn bent_messages_never_panic(index in 0_usize..400, byte in any::<u8>(), cut in 0_usize..400) {
        let node = test_node(1);
        let message = DirectoryMessage::Claims(vec![
            Signed::seal(&claim(1, 1, 1), &node, &OVERLAY).unwrap(); 2
        ]);
        let mut bytes = message.encode().unwrap();
        prop_assert_eq!(DirectoryMessage::decode(&bytes), Ok(message));
        let index = index % bytes.len();
        bytes[index] = byte;
        open_all(&bytes);
        bytes.truncate(cut);
        open_all(&bytes);
    }

    #[test]
    fn a_record_round_trips(generation in 0..=u64::MAX, refresh in any::<u64>(), mac in 0_u8..255) {
        let node = test_node(4);
        let own = verified(&node, &claim(mac, generation, refresh));
        let keys = RecordKey::derive(&EPOCH_KEY, &mac_key(mac));
        let record = seal_record(&keys, &OVERLAY, &own).unwrap();
        let reader = RecordReader {
            overlay: &OVERLAY,
            network: &NETWORK,
            epoch_key: &EPOCH_KEY,
            generation_limit: u64::MAX,
        };
        prop_assert_eq!(reader.open_record(&mac_key(mac), &record).unwrap().claim, own.claim);
    }
}
