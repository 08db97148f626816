//! The same owner everywhere, whatever the order, the losses and the repetitions.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::support::*;
use crate::directory::claim::{ClaimKind, VerifiedClaim};
use crate::directory::claims::{CLAIM_TTL, ClaimStore, MAX_CLAIMS_PER_SIGNER, Outcome};
use crate::directory::record::{RecordKey, StoredRecord, seal_record};
use crate::directory::sync::{CLAIM_BUCKETS, ShortHash, Summary};
use crate::drop_reason::DropReason;
use crate::membership::signer_blind;
use crate::switching::MacKey;

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

/// Claims of three nodes to two MACs, also several of the same rank but for the hash.
fn some_claims() -> impl Strategy<Value = Vec<VerifiedClaim>> {
    let one = (1_u8..=3, 1_u8..=2, 0_u64..4, 0_u64..3, any::<bool>());
    prop::collection::vec(one, 1..14).prop_map(|all| {
        all.into_iter()
            .map(|(node, mac, generation, refresh, withdrawn)| {
                let mut said = claim(mac, generation, refresh);
                if withdrawn {
                    said.kind = ClaimKind::Withdrawn;
                }
                verified(&test_node(node), &said)
            })
            .collect()
    })
}

fn winners(store: &ClaimStore) -> Vec<(MacKey, [u8; 32])> {
    store
        .iter()
        .map(|stored| (stored.claim.claim.key(), stored.claim.hash()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_and_repetition_gives_the_same_owner(
        claims in some_claims(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let now = start();
        let mut straight = ClaimStore::default();
        for one in &claims {
            straight.insert(now, one.clone());
        }
        let mut mixed = ClaimStore::default();
        for index in &order {
            mixed.insert(now, index.get(&claims).clone());
        }
        for one in claims.iter().rev() {
            mixed.insert(now, one.clone());
        }
        prop_assert_eq!(winners(&straight), winners(&mixed));
    }

    #[test]
    fn what_was_lost_comes_back_by_exchanging_winners(
        claims in some_claims(),
        lost in prop::collection::vec(any::<bool>(), 14),
    ) {
        let now = start();
        let (mut a, mut b, mut all) = (
            ClaimStore::default(), ClaimStore::default(), ClaimStore::default(),
        );
        for (one, lost) in claims.iter().zip(&lost) {
            all.insert(now, one.clone());
            if *lost { &mut a } else { &mut b }.insert(now, one.clone());
        }
        let (of_a, of_b): (Vec<_>, Vec<_>) = (
            a.iter().map(|stored| stored.claim.clone()).collect(),
            b.iter().map(|stored| stored.claim.clone()).collect(),
        );
        of_b.into_iter().for_each(|one| { a.insert(now, one); });
        of_a.into_iter().for_each(|one| { b.insert(now, one); });
        prop_assert_eq!(winners(&a), winners(&all));
        prop_assert_eq!(winners(&b), winners(&all));
    }

    #[test]
    fn the_dht_orders_records_as_members_order_claims(claims in some_claims()) {
        let keys = RecordKey::derive(&EPOCH_KEY, &mac_key(1));
        let records: Vec<(VerifiedClaim, StoredRecord)> = claims
            .into_iter()
            .filter(|one| one.claim.key() == mac_key(1))
            .map(|one| {
                let bytes = seal_record(&keys, &OVERLAY, &one).unwrap();
                let stored = StoredRecord::verify(&OVERLAY, &keys.dht_key(), &bytes).unwrap();
                (one, stored)
            })
            .collect();
        for (claim_a, record_a) in &records {
            for (claim_b, record_b) in &records {
                if record_a.supersedes(record_b) {
                    prop_assert!(claim_a.rank > claim_b.rank);
                    prop_assert!(!record_b.supersedes(record_a));
                } else if claim_a.rank > claim_b.rank {
                    // Only the hash tells them apart, which a storer cannot see.
                    prop_assert_eq!(claim_a.rank.generation, claim_b.rank.generation);
                    prop_assert_eq!(claim_a.rank.blind, claim_b.rank.blind);
                    prop_assert_eq!(claim_a.rank.refresh, claim_b.rank.refresh);
                }
            }
        }
    }

    #[test]
    fn a_summary_does_not_know_order(mut hashes in prop::collection::hash_set(any::<[u8; 8]>(), 0..50)
        .prop_map(|set| set.into_iter().map(ShortHash).collect::<Vec<_>>()))
    {
        let summary = Summary::of(&hashes, CLAIM_BUCKETS);
        hashes.reverse();
        let reverse = Summary::of(&hashes, CLAIM_BUCKETS);
        prop_assert_eq!(summary.root(), reverse.root());
        prop_assert_eq!(summary.differing(&reverse.buckets()), 0);
        if hashes.pop().is_some() {
            let less = Summary::of(&hashes, CLAIM_BUCKETS);
            prop_assert_eq!(summary.differing(&less.buckets()).count_ones(), 1);
        }
    }
}

#[test]
fn ties_go_to_the_lower_blind() {
    let (a, b) = (test_node(1), test_node(2));
    let (of_a, of_b) = (verified(&a, &claim(1, 3, 9)), verified(&b, &claim(1, 3, 1)));
    let lower_is_a = signer_blind(&NETWORK, a.peer_id()) < signer_blind(&NETWORK, b.peer_id());
    assert_eq!(of_a.rank > of_b.rank, lower_is_a);
    assert!(verified(&b, &claim(1, 4, 0)).rank > of_a.rank);
    assert!(verified(&a, &claim(1, 3, 10)).rank > of_a.rank);
}

#[test]
fn age_starts_anew_only_with_a_higher_refresh() {
    let node = test_node(1);
    let mut store = ClaimStore::default();
    let t0 = start();
    let first = verified(&node, &claim(1, 1, 1));
    store.insert(t0, first.clone());
    let later = t0 + CLAIM_TTL - Duration::from_secs(1);
    assert!(matches!(store.insert(later, first.clone()), Outcome::Known));
    assert!(
        !store
            .get(&mac_key(1))
            .unwrap()
            .is_offered(t0 + CLAIM_TTL * 2 / 3)
    );
    let dead = t0 + CLAIM_TTL;
    assert!(store.live(dead, &mac_key(1)).is_none());
    // A copy that was still travelling does not raise it from the dead.
    store.expire(dead);
    assert!(matches!(store.insert(dead, first), Outcome::Known));
    assert!(store.live(dead, &mac_key(1)).is_none());
    let refreshed = verified(&node, &claim(1, 1, 2));
    assert!(matches!(
        store.insert(dead, refreshed),
        Outcome::Accepted { previous: None }
    ));
    assert!(store.live(dead, &mac_key(1)).is_some());
    store.expire(dead + 2 * CLAIM_TTL);
    assert!(store.is_empty());
}

#[test]
fn outcomes_name_the_owner_before_and_the_winner() {
    let (a, b) = (test_node(1), test_node(2));
    let mut store = ClaimStore::default();
    let now = start();
    let old = verified(&a, &claim(1, 1, 1));
    store.insert(now, old.clone());
    let new = verified(&b, &claim(1, 2, 1));
    assert!(matches!(
        store.insert(now, new.clone()),
        Outcome::Accepted { previous: Some(peer) } if peer == a.peer_id()
    ));
    assert!(matches!(
        store.insert(now, old),
        Outcome::Stale { winner } if winner == new.signed
    ));
    assert_eq!(store.void_signer(&b.peer_id()), vec![mac_key(1)]);
    assert!(store.is_empty());
}

#[test]
fn one_signer_cannot_fill_the_store() {
    let node = test_node(1);
    let mut store = ClaimStore::default();
    let now = start();
    let own = |number: usize| {
        let mut said = claim(0, 1, 1);
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        said.mac.0[4] = high;
        said.mac.0[5] = low;
        verified(&node, &said)
    };
    for number in 0..MAX_CLAIMS_PER_SIGNER {
        assert!(matches!(
            store.insert(now, own(number)),
            Outcome::Accepted { .. }
        ));
    }
    assert!(matches!(
        store.insert(now, own(MAX_CLAIMS_PER_SIGNER)),
        Outcome::Refused(DropReason::ClaimOverflow)
    ));
    // Another node still may, and so may the same one for a MAC it has.
    assert!(matches!(
        store.insert(now, verified(&test_node(2), &claim(250, 2, 1))),
        Outcome::Accepted { .. }
    ));
}
