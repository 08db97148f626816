use proptest::prelude::*;

use super::*;
use crate::drop_reason::DropReason;
use crate::membership::test_authority::{BORN, TestOverlay};
use crate::membership::{MAX_ROOTS, SignedRoot};

fn node(n: u8) -> Revoked {
    Revoked::Node(PeerId([n; 32]))
}

fn signed(overlay: &TestOverlay, number: u64, entries: &[u8]) -> SignedRevocations {
    let mut entries: Vec<Revoked> = entries.iter().map(|&n| node(n)).collect();
    entries.sort();
    entries.dedup();
    let list = RevocationList {
        root_version: 1,
        number,
        entries,
    };
    SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), list)
}

fn holding(overlay: &TestOverlay, lists: &[SignedRevocations]) -> Revocations {
    let mut all = Revocations::default();
    for list in lists {
        all.take(list.clone(), &overlay.roots).unwrap();
    }
    all
}

#[test]
fn trust_8_a_list_is_cumulative_and_never_rolled_back() {
    let overlay = TestOverlay::new(81, &["lab"]);
    let mut all = Revocations::default();
    let first = all.successor(1, node(1)).unwrap();
    let first = SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), first);
    assert_eq!(all.take(first.clone(), &overlay.roots), Ok(Taken::Newer));
    let second = all.successor(1, node(2)).unwrap();
    assert_eq!((second.number, second.entries.len()), (2, 2));
    let second = SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), second);
    assert_eq!(all.take(second.clone(), &overlay.roots), Ok(Taken::Newer));
    // The older one again, also after a restart: nothing changes.
    let mut kept = Revocations::from_bytes(&all.to_bytes(), &overlay.roots).unwrap();
    assert_eq!(kept, all);
    assert_eq!(kept.take(first, &overlay.roots), Ok(Taken::Known));
    assert_eq!(kept, all);
    assert!(kept.names_node(PeerId([1; 32])) && kept.names_node(PeerId([2; 32])));
    assert_eq!(kept.lists(), [second]);
}

#[test]
fn trust_8_a_higher_number_with_fewer_entries_takes_nothing_back() {
    let overlay = TestOverlay::new(81, &["lab"]);
    let mut all = holding(&overlay, &[signed(&overlay, 1, &[1, 2])]);
    let fewer = signed(&overlay, 9, &[2]);
    assert_eq!(all.take(fewer, &overlay.roots), Ok(Taken::Rival));
    assert!(all.names_node(PeerId([1; 32])));
    assert_eq!(all.number(), RevocationNumber(9));
}

#[test]
fn trust_8_two_lists_of_one_number_are_united_and_reported() {
    let overlay = TestOverlay::new(81, &["lab"]);
    let (a, b) = (signed(&overlay, 5, &[1]), signed(&overlay, 5, &[2]));
    let mut one = holding(&overlay, std::slice::from_ref(&a));
    let mut other = holding(&overlay, std::slice::from_ref(&b));
    // Both see that the other has something.
    assert!(one.state().is_above(&other.state()) && other.state().is_above(&one.state()));
    assert_eq!(one.take(b, &overlay.roots), Ok(Taken::Rival));
    assert_eq!(other.take(a, &overlay.roots), Ok(Taken::Rival));
    assert_eq!(one, other);
    assert!(!one.state().is_above(&other.state()));
    assert_eq!(one.entries().len(), 2);
    // The next list of an authority that has seen both heals it.
    let next = one.successor(1, node(3)).unwrap();
    assert_eq!(next.number, 6);
    let next = SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), next);
    assert_eq!(one.take(next, &overlay.roots), Ok(Taken::Newer));
    assert_eq!((one.lists().len(), one.entries().len()), (1, 3));
}

#[test]
fn trust_8_only_the_authority_revokes() {
    let mut overlay = TestOverlay::new(82, &["lab"]);
    let other = TestOverlay::new(83, &["lab"]);
    let list = signed(&overlay, 1, &[1]).list().clone();
    let mut all = Revocations::default();
    let mut refused = |by: &AuthorityKey, of: &TestOverlay, list: &RevocationList| {
        let list = SignedRevocations::sign(by, of.roots.overlay(), list.clone());
        all.take(list, &overlay.roots)
    };
    let bad = Err(MembershipError::BadSignature("farlan/revocations/1"));
    assert_eq!(refused(&other.authority, &overlay, &list), bad);
    assert_eq!(refused(&overlay.authority, &other, &list), bad);
    let later = RevocationList {
        root_version: 2,
        ..list.clone()
    };
    let unknown = Err(MembershipError::UnknownRoot(2));
    assert_eq!(refused(&overlay.authority, &overlay, &later), unknown);
    assert_eq!(all, Revocations::default());

    // The authority's key was stolen and replaced: what it signed counts no more, nor after a start.
    let stolen = signed(&overlay, 7, &[9]);
    let mut all = holding(&overlay, std::slice::from_ref(&stolen));
    let kept = all.to_bytes();
    let new = AuthorityKey::generate(&mut overlay.entropy);
    let next = overlay.roots.successor(&overlay.authority, &new, BORN, 2);
    overlay.roots.advance(next).unwrap();
    let retired = Err(MembershipError::RetiredRoot(1));
    assert_eq!(Revocations::default().take(stolen, &overlay.roots), retired);
    assert!(all.retain_trusted(&overlay.roots));
    assert!(!all.names_node(PeerId([9; 32])));
    let loaded = Revocations::from_bytes(&kept, &overlay.roots).unwrap();
    assert_eq!(loaded, Revocations::default());
}

#[test]
fn bounds_and_forms() {
    let overlay = TestOverlay::new(84, &["lab"]);
    let many = |count: usize| {
        let entries = (0..count).map(|n| {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Revoked::Invite(InviteId(id))
        });
        let list = RevocationList {
            root_version: 1,
            number: u64::MAX,
            entries: entries.collect(),
        };
        SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), list)
    };
    let full = many(MAX_REVOKED).encode();
    assert!(full.len() <= SignedRevocations::MAX_BYTES);
    let full = SignedRevocations::decode(&full).unwrap();
    assert!(SignedRevocations::decode(&many(MAX_REVOKED + 1).encode()).is_err());
    let all = holding(&overlay, &[full]);
    assert!(all.successor(1, node(1)).is_err());

    let bytes = signed(&overlay, 1, &[1, 2]).encode();
    assert!(SignedRevocations::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(SignedRevocations::decode(&bytes[..bytes.len() - 1]).is_err());
    for entries in [vec![node(2), node(1)], vec![node(1), node(1)]] {
        let list = RevocationList {
            root_version: 1,
            number: 1,
            entries,
        };
        let wrong = SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), list);
        let wrong = SignedRevocations::decode(&wrong.encode());
        assert_eq!(wrong, Err(MembershipError::Invalid("revocation list")));
    }
    assert!(SignedRevocations::decode(&signed(&overlay, 0, &[1]).encode()).is_err());

    // As many rivals as are held, and no more.
    let rivals: Vec<_> = (0..MAX_LISTS)
        .map(|n| signed(&overlay, 1, &[u8::try_from(n).unwrap()]))
        .collect();
    let mut all = holding(&overlay, &rivals);
    let before = all.clone();
    let more = all.take(signed(&overlay, 1, &[200]), &overlay.roots);
    assert!(matches!(more, Err(MembershipError::Full { .. })));
    assert_eq!(all, before);
    assert_eq!(
        Revocations::from_bytes(&all.to_bytes(), &overlay.roots),
        Ok(all)
    );
}

#[test]
fn a_list_travels_in_pages() {
    let overlay = TestOverlay::new(85, &["lab"]);
    let short = signed(&overlay, 1, &[1]).encode();
    let long = signed(&overlay, 2, &(0..=255).collect::<Vec<u8>>()).encode();
    let mut pages: Vec<Page<'_>> = Page::split(&short).chain(Page::split(&long)).collect();
    assert_eq!(pages.len(), 1 + 8);
    pages.reverse();
    // Twice each, mixed up: both come out, once whole.
    let mut assembly = PageAssembly::default();
    let mut whole = Vec::new();
    for page in &pages {
        whole.extend(assembly.take(*page).unwrap());
    }
    assert_eq!(whole, [long.clone(), short]);
    let bad = Err(DropReason::ControlMalformed);
    let page = Page::split(&long).nth(1).unwrap();
    for wrong in [
        Page { index: 8, ..page },
        Page { count: 0, ..page },
        Page { count: 255, ..page },
        Page {
            bytes: &page.bytes[1..],
            ..page
        },
        Page { bytes: &[], ..page },
    ] {
        assert_eq!(PageAssembly::default().take(wrong), bad);
    }
    // Whoever begins many lists keeps but a few.
    for id in 0..100 {
        assert_eq!(assembly.take(Page { id, ..page }), Ok(None));
    }
    // Pages of two lists under one name make none.
    let mut assembly = PageAssembly::default();
    for page in Page::split(&long).skip(1) {
        assert_eq!(assembly.take(page), Ok(None));
    }
    let forged = Page {
        index: 0,
        bytes: &[0; PAGE_BYTES],
        ..page
    };
    assert_eq!(assembly.take(forged), bad);
}

#[test]
fn the_line_has_a_public_and_a_secret_part() {
    let overlay = TestOverlay::new(86, &["lab"]);
    let line = RevocationLine {
        roots: overlay.roots.above(0).to_vec(),
        list: signed(&overlay, 3, &[1, 2, 3]),
        epochs: vec![zeroize::Zeroizing::new(vec![0xaa; 100])],
    };
    let text = line.to_text();
    assert_eq!(RevocationLine::parse(&text), Ok(line.clone()));
    let wrapped = text.replace('A', "A\n ");
    assert_eq!(RevocationLine::parse(&wrapped), Ok(line.clone()));
    let (public, _) = text.split_once('.').unwrap();
    let open = RevocationLine::parse(public).unwrap();
    assert_eq!((&open.list, open.epochs.len()), (&line.list, 0));
    assert!(!format!("{line:?}").contains("aa"));
    assert_eq!(RevocationLine::parse("hello"), Err(LineError::NotALine));
    for cut in [public.len() - 1, text.len() - 1] {
        let cut = RevocationLine::parse(&text[..cut]);
        assert!(matches!(cut, Err(LineError::Damaged(_))));
    }
    // The longest line there can be is read.
    let most = REVOCATION_PREFIX.len()
        + (16 + MAX_ROOTS * (SignedRoot::MAX_BYTES + 2) + SignedRevocations::MAX_BYTES) * 4 / 3
        + (16 + 1_024 * 190) * 4 / 3;
    assert!(most < MAX_REVOCATION_TEXT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Commutative, associative, idempotent: whatever the order and the repetitions, the same lists
    /// end up the same, and nothing ever leaves. (Up to three lists, which never fill the set.)
    #[test]
    fn trust_8_lists_merge_in_any_order_and_never_shrink(
        lists in prop::collection::vec((1_u64..4, prop::collection::vec(0_u8..6, 0..5)), 1..=3),
        order in prop::collection::vec(0_usize..3, 0..8),
    ) {
        let overlay = TestOverlay::new(87, &["lab"]);
        let lists: Vec<_> = lists
            .iter()
            .map(|(number, entries)| signed(&overlay, *number, entries))
            .collect();
        let straight = holding(&overlay, &lists);
        let mut mixed = Revocations::default();
        for index in order.into_iter().chain((0..lists.len()).rev()) {
            let Some(list) = lists.get(index) else { continue };
            let before: Vec<_> = mixed.entries().copied().collect();
            let number = mixed.number();
            mixed.take(list.clone(), &overlay.roots).unwrap();
            prop_assert!(before.iter().all(|entry| mixed.entries().any(|e| e == entry)));
            prop_assert!(mixed.number() >= number);
        }
        prop_assert_eq!(&mixed, &straight);
        let kept = Revocations::from_bytes(&mixed.to_bytes(), &overlay.roots).unwrap();
        prop_assert_eq!(&kept, &mixed);
        // What one hands on is all that the other lacks.
        let mut other = Revocations::default();
        for list in mixed.lists() {
            other.take(list.clone(), &overlay.roots).unwrap();
        }
        prop_assert_eq!(other, mixed);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(list) = SignedRevocations::decode(&bytes) {
            prop_assert_eq!(list.encode(), bytes.clone());
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = RevocationLine::parse(&format!("{REVOCATION_PREFIX}{text}"));
    }
}
