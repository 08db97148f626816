//! Directory messages and the documents in them, signed by a member that says what it likes.

use std::sync::LazyLock;

use nat_traversal::entropy::SeededEntropy;
use overlay_proto::directory::claim::DefenderTag;
use overlay_proto::directory::signed::Document;
use overlay_proto::directory::sync::ShortHash;
use overlay_proto::directory::{
    Card, Claim, ClaimKind, DirectoryMessage, OpenedCard, Presence, RecordKey, RecordReader,
    RosterEntry, RoutedSignal, Signal, Signed, StoredRecord, VerifiedClaim, open_card, open_signal,
    seal_card, seal_record, seal_signal, signal_is_for,
};
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkId, OverlayId};
use overlay_proto::membership::NodeKey;
use overlay_proto::switching::MacKey;

use super::nat::some_candidates;
use crate::{Seen, Target};

pub(crate) const OVERLAY: OverlayId = OverlayId([0x0f; 32]);
pub(crate) const NETWORK: NetworkId = NetworkId([0x4e; 32]);
pub(crate) const EPOCH_KEY: [u8; 32] = [0xe9; 32];
const VERSION: u8 = 1;

static NODE: LazyLock<NodeKey> = LazyLock::new(|| a_node(1));
static OTHER: LazyLock<NodeKey> = LazyLock::new(|| a_node(2));

/// Node `number`, the same in every run.
pub(crate) fn a_node(number: u8) -> NodeKey {
    NodeKey::from_secret(&[number; 32])
}

/// One of the invented MACs.
pub(crate) const fn a_key(number: u8) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, number]),
    }
}

/// A claim of it.
pub(crate) fn a_claim(mac: u8, generation: u64) -> Claim {
    Claim {
        network: NETWORK,
        vlan: VlanId::UNTAGGED,
        mac: a_key(mac).mac,
        generation,
        kind: ClaimKind::Learned,
        predecessor: [0; 32],
        contested: 0,
        defender: DefenderTag::default(),
        ips: vec!["192.0.2.7".parse().unwrap()],
        refresh: 1,
    }
}

/// What `node` says about itself.
pub(crate) fn an_entry(node: &NodeKey) -> RosterEntry {
    RosterEntry {
        network: NETWORK,
        node: node.peer_id(),
        incarnation: 1,
        certificate: [3; 32],
        static_key: [4; 32],
        addresses: vec!["/ip4/192.0.2.1/udp/4000/quic-v1".to_owned()],
        presence: Presence::Joined,
    }
}

fn a_card() -> Card {
    Card {
        entry: seal(&an_entry(&NODE)),
        chain: vec![1; 300],
        static_document: vec![2; 119],
        candidates: some_candidates(),
        sequence: 1,
        name: "ash".to_owned(),
    }
}

fn a_signal() -> RoutedSignal {
    RoutedSignal {
        from: NODE.peer_id(),
        to: OTHER.peer_id(),
        sequence: 1,
        signal: Signal::Hello(seal(&a_card())),
    }
}

fn seal<D: Document>(document: &D) -> Signed<D> {
    Signed::seal(document, &NODE, &OVERLAY).unwrap()
}

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "directory_message",
            run: message,
            seeds: || messages().iter().map(|m| m.encode().unwrap()).collect(),
            speed: 50,
        },
        Target {
            name: "directory_claim",
            run: claim,
            seeds: || vec![document(&a_claim(1, 7))],
            speed: 10,
        },
        Target {
            name: "directory_roster",
            run: roster,
            seeds: || vec![document(&an_entry(&NODE))],
            speed: 10,
        },
        Target {
            name: "directory_card",
            run: card,
            seeds: || vec![document(&a_card())],
            speed: 5,
        },
        Target {
            name: "directory_card_sealed",
            run: sealed_card,
            seeds: || {
                let mut entropy = SeededEntropy::new(1);
                vec![seal_card(&seal(&a_card()), &EPOCH_KEY, &mut entropy).unwrap()]
            },
            speed: 100,
        },
        Target {
            name: "directory_signal",
            run: signal,
            seeds: || vec![document(&a_signal())],
            speed: 5,
        },
        Target {
            name: "directory_signal_sealed",
            run: sealed_signal,
            seeds: || {
                let mut entropy = SeededEntropy::new(1);
                vec![seal_signal(&a_signal(), &NODE, &OVERLAY, &EPOCH_KEY, &mut entropy).unwrap()]
            },
            speed: 100,
        },
        Target {
            name: "directory_record",
            run: record,
            seeds: || vec![a_record()],
            speed: 10,
        },
    ]
}

fn document(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).unwrap()
}

/// `bytes` as node 1 would sign them, whatever they say.
fn signed<D: Document>(bytes: &[u8]) -> Signed<D> {
    let signature = NODE.sign(D::LABEL, OVERLAY, bytes);
    let wire = postcard::to_stdvec(&(bytes, NODE.peer_id(), signature)).unwrap();
    postcard::from_bytes(&wire).unwrap()
}

fn a_record() -> Vec<u8> {
    let claim = seal(&a_claim(1, 7));
    let verified = VerifiedClaim::open(&claim, &OVERLAY, &NETWORK, u64::MAX).unwrap();
    let keys = RecordKey::derive(&EPOCH_KEY, &a_key(1));
    seal_record(&keys, &OVERLAY, &verified).unwrap()
}

/// One of each kind.
pub(crate) fn messages() -> Vec<DirectoryMessage> {
    let (key, hash) = (a_key(1), ShortHash([5; 8]));
    let claim = seal(&a_claim(1, 7));
    let (vlan, mac) = (key.vlan, key.mac);
    let node = NODE.peer_id();
    let hashes = vec![hash; 3];
    vec![
        DirectoryMessage::Claims(vec![claim.clone(), seal(&a_claim(2, 1))]),
        DirectoryMessage::Roster(vec![seal(&an_entry(&NODE))]),
        DirectoryMessage::Digest {
            claims: hash,
            roster: hash,
        },
        DirectoryMessage::Buckets {
            claims: vec![hash; 64],
            roster: vec![hash; 16],
        },
        DirectoryMessage::Have {
            claim_buckets: u64::MAX,
            claims: hashes.clone(),
            roster_buckets: u16::MAX,
            roster: hashes.clone(),
        },
        DirectoryMessage::Pull {
            claims: hashes.clone(),
            roster: hashes,
        },
        DirectoryMessage::query(key),
        DirectoryMessage::answer(key, Some(claim)),
        DirectoryMessage::ask_owner(key, 9),
        DirectoryMessage::OwnerAnswer {
            nonce: 9,
            alive: true,
        },
        DirectoryMessage::WhoHas { vlan, mac },
        DirectoryMessage::AskChain { node },
        DirectoryMessage::Chain {
            node,
            chain: vec![1; 300],
        },
    ]
}

fn message(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    match DirectoryMessage::decode(bytes) {
        Ok(message) => {
            seen.note(&std::mem::discriminant(&message));
            // A longer way to write a number may have been read; what was understood stays.
            let again = message.encode().unwrap();
            assert_eq!(DirectoryMessage::decode(&again).as_ref(), Ok(&message));
            match message {
                DirectoryMessage::Claims(claims) => {
                    for claim in claims {
                        seen.result(&claim.open(&OVERLAY));
                    }
                }
                DirectoryMessage::Roster(entries) => {
                    for entry in entries {
                        seen.result(&entry.open(&OVERLAY));
                    }
                }
                _ => {}
            }
        }
        Err(reason) => seen.note(&reason),
    }
    seen.number()
}

fn claim(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let opened = VerifiedClaim::open(&signed::<Claim>(bytes), &OVERLAY, &NETWORK, 1000);
    seen.result(&opened);
    if let Ok(claim) = opened {
        assert!(claim.claim.mac.is_claimable() && claim.claim.generation <= 1000);
        assert_eq!(claim.signer(), NODE.peer_id());
        seen.note(&(claim.claim.kind, claim.claim.ips.len()));
        let keys = RecordKey::derive(&EPOCH_KEY, &claim.claim.key());
        let record = seal_record(&keys, &OVERLAY, &claim).unwrap();
        let back = reader().open_record(&claim.claim.key(), &record);
        assert_eq!(
            back.unwrap().signed,
            claim.signed,
            "every claim has a record"
        );
    }
    seen.number()
}

fn roster(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let opened = signed::<RosterEntry>(bytes).open(&OVERLAY);
    seen.result(&opened);
    if let Ok(entry) = opened {
        assert_eq!(entry.node, NODE.peer_id());
        seen.note(&(entry.presence, entry.addresses.len()));
    }
    seen.number()
}

fn card(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let signed = signed::<Card>(bytes);
    let opened = OpenedCard::open(&signed, &OVERLAY, &NETWORK);
    seen.result(&opened);
    if let Ok(opened) = opened {
        assert_eq!(opened.entry.node, NODE.peer_id());
        seen.note(&opened.card.candidates.len());
        let sealed = seal_card(&signed, &EPOCH_KEY, &mut SeededEntropy::new(1)).unwrap();
        assert_eq!(
            open_card(&sealed, &EPOCH_KEY, &OVERLAY, &NETWORK),
            Ok(opened)
        );
    }
    seen.number()
}

fn sealed_card(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    seen.result(&open_card(bytes, &EPOCH_KEY, &OVERLAY, &NETWORK));
    seen.number()
}

fn signal(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let opened = signed::<RoutedSignal>(bytes).open(&OVERLAY);
    seen.result(&opened);
    if let Ok(routed) = opened {
        assert_eq!(routed.from, NODE.peer_id());
        if let Signal::Hello(card) = &routed.signal {
            seen.result(&OpenedCard::open(card, &OVERLAY, &NETWORK));
        }
        let mut entropy = SeededEntropy::new(1);
        let sealed = seal_signal(&routed, &NODE, &OVERLAY, &EPOCH_KEY, &mut entropy);
        seen.result(&sealed);
        if let Ok(sealed) = sealed {
            let (from, to) = (routed.from, routed.to);
            let back = open_signal(&sealed, &from, &to, &OVERLAY, &EPOCH_KEY);
            assert_eq!(back, Ok(routed));
        }
    }
    seen.number()
}

fn sealed_signal(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    seen.note(&signal_is_for(bytes, &EPOCH_KEY));
    let (from, to) = (NODE.peer_id(), OTHER.peer_id());
    seen.result(&open_signal(bytes, &from, &to, &OVERLAY, &EPOCH_KEY));
    seen.number()
}

const fn reader() -> RecordReader<'static> {
    RecordReader {
        overlay: &OVERLAY,
        network: &NETWORK,
        epoch_key: &EPOCH_KEY,
        generation_limit: 1000,
    }
}

/// A record, as its keeper and as its reader sees it.
fn record(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let dht_key = RecordKey::derive(&EPOCH_KEY, &a_key(1)).dht_key();
    let stored = StoredRecord::verify(&OVERLAY, &dht_key, bytes);
    seen.result(&stored);
    if let Ok(stored) = stored {
        assert_eq!(stored.bytes(), bytes);
    }
    seen.result(&reader().open_record(&a_key(1), bytes));
    seen.number()
}
