//! The membership from end to end, and every way it must be refused.

use proptest::prelude::*;

use super::test_authority::{BORN, TestOverlay, bootstrap_address};
use super::*;
use crate::ids::{NetworkId, PeerId};
use crate::time::UnixTime;

const YEARS: u64 = 4 * 366 * 86_400;
const LATE: UnixTime = UnixTime(BORN.0 + YEARS);

fn network_id(overlay: &TestOverlay, index: usize) -> NetworkId {
    overlay.networks[index].id()
}

#[test]
fn invite_to_member() {
    let mut overlay = TestOverlay::new(1, &["lab", "home"]);
    let mut request = overlay.request(&["lab"]);
    request.name = Some("ash".to_owned());
    let text = overlay.issue(request).unwrap().to_text();
    assert!(text.starts_with(INVITE_PREFIX));
    let broken = format!("  {}\n{}\r\n", &text[..60], &text[60..]);
    let invite = Invite::parse(&broken).unwrap();
    assert_eq!(invite.overlay(), Some(overlay.roots.overlay()));
    let node = NodeKey::generate(&mut overlay.entropy);
    let membership = overlay.receipted(invite.accept(&node, BORN).unwrap());
    assert_eq!(membership.name(), Some("ash"));
    assert!(membership.is_bootstrap(overlay.witness.peer_id()));
    assert!(!membership.is_bootstrap(node.peer_id()));

    let bytes = membership.chain().unwrap().encode();
    let chain = Chain::decode(&bytes).unwrap();
    assert_eq!(chain.hash(), certificate_hash(&bytes));
    let member = chain.verify(&overlay.roots, BORN).unwrap();
    assert_eq!(member.peer, node.peer_id());
    assert!(member.may_send(&network_id(&overlay, 0)));
    assert!(!member.is_member_of(&network_id(&overlay, 1)));
    assert!(member.rights.contains(Rights::RELAY));
    assert!(!member.rights.contains(Rights::WITNESS));
}

#[test]
fn trust_2_keys_are_shared_by_members_and_by_nobody_else() {
    let overlay = TestOverlay::new(2, &["lab"]);
    let other = TestOverlay::new(3, &["lab"]);
    let (mine, theirs) = (overlay.networks[0].secret(), other.networks[0].secret());
    assert_ne!(mine.id, theirs.id);
    assert_ne!(mine.epoch_key, theirs.epoch_key);
    assert_ne!(mine.id.0, mine.epoch_key);
    assert_ne!(psk(&overlay.secret, 1), psk(&overlay.secret, 2));
    let mut next = overlay.networks[0].clone();
    next.epoch += 1;
    assert_eq!(next.id(), mine.id);
    assert_ne!(next.secret().epoch_key, mine.epoch_key);
}

#[test]
fn nothing_secret_is_shown() {
    let mut overlay = TestOverlay::new(4, &["lab"]);
    let request = overlay.request(&["lab"]);
    let invite = overlay.issue(request).unwrap();
    let shown = format!("{invite:?} {:?} {:?}", overlay.secret, overlay.networks);
    let secret = format!("{:?}", overlay.secret.as_bytes());
    let key = format!("{:?}", overlay.networks[0].secret().epoch_key);
    assert!(!shown.contains(&secret) && !shown.contains(&key));
    assert!(!shown.contains(&format!("{:?}", overlay.networks[0].id().0)));
}

/// `place` with the node of the full address `full`.
fn address_of(full: &str, place: &str) -> String {
    let (_, peer) = full.split_once("/p2p/").unwrap();
    format!("{place}/p2p/{peer}")
}

#[test]
fn bootstraps_that_cannot_be_dialled_are_refused_by_issuer_and_joiner() {
    for (place, good) in [
        ("/ip4/192.0.2.1/tcp/22611", true),
        ("/ip4/192.0.2.1/udp/22612/quic-v1", true),
        ("/ip6/2001:db8::1/tcp/22611", true),
        ("/ip6/2001:db8::1/udp/22612/quic-v1", true),
        ("/dns/boot.example.org/tcp/22611", false),
        ("/dns4/boot.example.org/udp/22612/quic-v1", false),
        ("/dns6/boot.example.org/tcp/22611", false),
        ("/dnsaddr/boot.example.org", false),
        ("/ip4/192.0.2.1/udp/22612", false),
        ("/ip4/192.0.2.1/udp/22612/quic", false),
        ("/ip4/192.0.2.1/tcp/22611/ws", false),
        ("/ip4/192.0.2.1/tcp/22611/tls", false),
        ("/ip4/192.0.2.1/tcp/0", false),
        ("/ip4/0.0.0.0/tcp/22611", false),
        ("/ip6/::/udp/22612/quic-v1", false),
        ("/ip4/224.0.0.1/udp/22612/quic-v1", false),
        ("/ip6/192.0.2.1/tcp/22611", false),
        ("/ip4/boot.example.org/tcp/22611", false),
        ("/ip4/192.0.2.1", false),
        ("/unix/tmp/socket", false),
    ] {
        let mut overlay = TestOverlay::new(30, &["lab"]);
        let mut request = overlay.request(&["lab"]);
        let address = address_of(&request.bootstraps[0], place);
        request.bootstraps.push(address.clone());
        let issued = overlay.issue(request);
        if good {
            assert!(issued.unwrap().verify(BORN).is_ok(), "{place}");
            continue;
        }
        let refused = issued.unwrap_err();
        assert_eq!(refused, IssueError::BootstrapForm(address.clone()));
        // One that names what works, and one that a program without this check has issued.
        assert!(refused.to_string().contains("/quic-v1/p2p/"));
        let mut invite = overlay.issue(overlay.request(&["lab"])).unwrap();
        invite.bootstraps.push(address.clone());
        invite.part.bootstraps = super::invite::bootstraps_hash(&invite.bootstraps);
        let overlay_id = overlay.roots.overlay();
        let bytes = invite.part.encode();
        invite.signed = overlay
            .authority
            .sign_part(Label::INVITE, overlay_id, bytes);
        assert_eq!(
            invite.verify(BORN),
            Err(InviteError::BootstrapForm(address))
        );
    }
}

#[test]
fn issue_refuses() {
    let mut overlay = TestOverlay::new(5, &["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"]);
    let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];
    let base = overlay.request(&["n1"]);
    let with = |change: &dyn Fn(&mut InviteRequest)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    let named = |place: &str| address_of(&base.bootstraps[0], place);
    let cases = [
        (overlay.request(&names), IssueError::TooManyNetworks(9)),
        (overlay.request(&[]), IssueError::NoNetwork),
        (with(&|r| r.bootstraps.clear()), IssueError::NoBootstrap),
        (
            with(&|r| r.bootstraps.push("/ip4/192.0.2.1/tcp/1".to_owned())),
            IssueError::BootstrapWithoutPeerId("/ip4/192.0.2.1/tcp/1".to_owned()),
        ),
        (
            with(&|r| r.bootstraps.push(named("/dns4/boot.example.org/tcp/22611"))),
            IssueError::BootstrapForm(named("/dns4/boot.example.org/tcp/22611")),
        ),
        (
            with(&|r| r.name = Some("a b".to_owned())),
            IssueError::BadName("a b".to_owned()),
        ),
        (
            with(&|r| r.join_until = BORN),
            IssueError::EndsInThePast { until: BORN },
        ),
        (with(&|r| r.join_until = LATE), IssueError::MemberBeforeJoin),
        (with(&|r| r.max_nodes = 0), IssueError::NoNodes),
        (
            with(&|r| r.networks.push(r.networks[0].clone())),
            IssueError::NetworkTwice("n1".parse().unwrap()),
        ),
        (
            with(&|r| r.rights = Rights::SEND | Rights::MIGRATE_IN | Rights::ROUTER),
            IssueError::RightDecidesNothing(Rights::MIGRATE_IN | Rights::ROUTER),
        ),
        (
            with(&|r| r.rights = Rights::SEND | Rights::WITNESS),
            IssueError::WitnessByRight,
        ),
    ];
    for (request, error) in cases {
        assert_eq!(overlay.issue(request).unwrap_err(), error);
    }
    let full = overlay.request(&names[..8]);
    overlay.authority = AuthorityKey::generate(&mut overlay.entropy);
    assert_eq!(
        overlay.issue(full).unwrap_err(),
        IssueError::NotTheAuthority
    );
}

#[test]
fn trust_11_the_largest_chain_fits_the_handshake() {
    let names = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
    let mut overlay = TestOverlay::new(6, &names);
    let mut request = overlay.request(&names);
    request.name = Some("x".repeat(63));
    request.max_nodes = u32::MAX;
    request.join_until = LATE;
    request.member_until = UnixTime(u64::MAX);
    let invite = overlay.issue(request).unwrap();
    let id = invite.id();
    let node = NodeKey::generate(&mut overlay.entropy);
    let membership = invite.accept(&node, BORN).unwrap();
    let receipt = Receipt {
        peer: node.peer_id(),
        invite: id,
        time: BORN,
    };
    let part = receipt.sign(&overlay.witness.key, overlay.roots.overlay());
    let chain = membership.chain().unwrap().clone().with_receipt(part);
    let length = chain.encode().len();
    assert!(length <= MAX_CHAIN_BYTES, "{length}");
    assert!(
        Chain::decode(&chain.encode())
            .unwrap()
            .verify(&overlay.roots, BORN)
            .is_ok()
    );
}

#[test]
fn trust_9_the_floor_of_the_clock_and_foreign_chains() {
    let mut overlay = TestOverlay::new(7, &["lab"]);
    let other = TestOverlay::new(8, &["lab"]);
    let (_, membership) = overlay.member(&["lab"]);
    let chain = membership.chain().unwrap();
    let until = chain.verify(&overlay.roots, BORN).unwrap().member_until;
    assert!(
        chain
            .verify(&overlay.roots, UnixTime(until.0 + 600))
            .is_ok()
    );
    let late = UnixTime(until.0 + 601);
    assert_eq!(
        chain.verify(&overlay.roots, late),
        Err(MembershipError::Expired { until })
    );
    assert_eq!(
        chain.verify(&other.roots, BORN),
        Err(MembershipError::Foreign)
    );

    // The clock went back; what the authority signed since says so.
    let mut roots = overlay.roots.clone();
    roots.raise_floor(late);
    assert_eq!(
        chain.verify(&roots, UnixTime(0)),
        Err(MembershipError::Expired { until })
    );

    // An invite by another key that claims this overlay.
    let mut thief = TestOverlay::new(7, &["lab"]);
    thief.authority = AuthorityKey::from_secret(&[9; 32]);
    let fake = SignedRoot::first(&thief.authority, BORN);
    thief.roots = RootStore::from_roots([fake]).unwrap();
    let (_, forged) = thief.member(&["lab"]);
    let chain = forged.chain().unwrap();
    assert_eq!(
        chain.verify(&overlay.roots, BORN),
        Err(MembershipError::Foreign)
    );
}

#[test]
fn trust_3_an_exchanged_part_is_forged() {
    let mut overlay = TestOverlay::new(9, &["lab", "home"]);
    let request = overlay.request(&["lab"]);
    let other = overlay.request(&["home"]);
    let make = |overlay: &mut TestOverlay| overlay.issue(request.clone()).unwrap();
    let second = overlay.issue(other).unwrap();

    let mut invite = make(&mut overlay);
    invite.bootstraps = vec![bootstrap_address(PeerId([3; 32]))];
    assert!(matches!(invite.verify(BORN), Err(InviteError::Forged(_))));
    let mut invite = make(&mut overlay);
    invite.networks.clone_from(&second.networks);
    assert!(matches!(invite.verify(BORN), Err(InviteError::Forged(_))));
    let mut invite = make(&mut overlay);
    invite.delegated = second.delegated.clone();
    assert!(matches!(invite.verify(BORN), Err(InviteError::Forged(_))));
    let mut invite = make(&mut overlay);
    invite.roots = TestOverlay::new(10, &[]).roots.above(0).to_vec();
    assert!(matches!(invite.verify(BORN), Err(InviteError::Forged(_))));

    let invite = make(&mut overlay);
    let until = request.join_until;
    assert_eq!(
        invite.verify(UnixTime(until.0 + 601)),
        Err(InviteError::Expired { until })
    );
}

#[test]
fn invite_text_errors() {
    let mut overlay = TestOverlay::new(11, &["lab"]);
    let request = overlay.request(&["lab"]);
    let text = overlay.issue(request).unwrap().to_text();
    for wrong in ["", "hello", "farlan-invit", &text[1..]] {
        assert_eq!(Invite::parse(wrong).unwrap_err(), InviteError::NotAnInvite);
    }
    let longer = format!("{}AAAA", *text);
    for wrong in [
        &text[..text.len() - 4],
        &text[..20],
        INVITE_PREFIX,
        &longer,
        "farlan-invite-*",
    ] {
        let error = Invite::parse(wrong).unwrap_err();
        assert!(matches!(error, InviteError::Damaged(_)), "{wrong}: {error}");
    }
    // Version 2 with a right checksum.
    let body = [2, 1, 2, 3];
    let hash = keys::labelled_hash("farlan/invite-checksum", &[&body]);
    let bytes = [&body[..], &hash[..8]].concat();
    let later = format!(
        "{INVITE_PREFIX}{}",
        data_encoding::BASE64URL_NOPAD.encode(&bytes)
    );
    assert_eq!(
        Invite::parse(&later).unwrap_err(),
        InviteError::LaterVersion(2)
    );
}

#[test]
fn trust_1_roots_follow_each_other() {
    let mut overlay = TestOverlay::new(12, &["lab"]);
    let (_, before) = overlay.member(&["lab"]);
    let new = AuthorityKey::generate(&mut overlay.entropy);
    let stranger = AuthorityKey::from_secret(&[1; 32]);
    let later = UnixTime(BORN.0 + 60);
    let second = overlay.roots.successor(&overlay.authority, &new, later, 1);
    let forged = overlay.roots.successor(&stranger, &new, later, 1);
    let mut roots = overlay.roots.clone();
    assert!(matches!(
        roots.advance(forged),
        Err(MembershipError::BadSignature(_))
    ));
    assert_eq!(roots.advance(second.clone()), Ok(true));
    assert_eq!(roots.advance(second.clone()), Ok(false));
    assert_eq!(
        (roots.newest().version, roots.floor(), roots.born()),
        (2, later, BORN)
    );
    assert_eq!(roots.above(1), &[second]);
    let chain = before.chain().unwrap();
    assert!(chain.verify(&roots, BORN).is_ok());

    let third = roots.successor(&new, &stranger, later, 3);
    let mut other = overlay.roots.clone();
    assert!(matches!(
        other.advance(third.clone()),
        Err(MembershipError::RootOrder { .. })
    ));
    roots.advance(third).unwrap();
    assert_eq!(
        chain.verify(&roots, BORN),
        Err(MembershipError::RetiredRoot(1))
    );
    let first = TestOverlay::new(13, &[]).roots.above(0)[0].clone();
    let wrong = RootStore::new(overlay.roots.overlay(), first);
    assert!(matches!(wrong, Err(MembershipError::OtherOverlay { .. })));
}

#[test]
fn trust_4_a_receipt_that_is_there_must_be_right() {
    let mut overlay = TestOverlay::new(14, &["lab"]);
    let (node, membership) = overlay.member(&["lab"]);
    let chain = membership.chain().unwrap();
    let member = chain.verify(&overlay.roots, BORN).unwrap();
    let right = Receipt {
        peer: node.peer_id(),
        invite: member.invite_id,
        time: BORN,
    };
    let request = overlay.request(&["lab"]);
    let bare = overlay.issue(request).unwrap().accept(&node, BORN).unwrap();
    let bare = bare.chain().unwrap();
    assert_eq!(
        bare.verify(&overlay.roots, BORN),
        Err(MembershipError::ReceiptMissing)
    );
    assert_eq!(
        bare.apply(&overlay.roots, BORN).unwrap().witness,
        overlay.witness.peer_id()
    );
    let id = overlay.roots.overlay();
    let verify = |receipt: Receipt, by: &NodeKey| {
        let chain = chain.clone().with_receipt(receipt.sign(by, id));
        chain.verify(&overlay.roots, BORN)
    };
    assert_eq!(verify(right, &overlay.witness.key), Ok(member));
    assert!(matches!(
        verify(right, &node),
        Err(MembershipError::BadSignature(_))
    ));
    for wrong in [
        Receipt {
            peer: PeerId([1; 32]),
            ..right
        },
        Receipt {
            invite: InviteId([1; 32]),
            ..right
        },
        Receipt {
            time: LATE,
            ..right
        },
    ] {
        assert_eq!(
            verify(wrong, &overlay.witness.key),
            Err(MembershipError::ReceiptInvalid)
        );
    }
}

#[test]
fn merge_adds_networks_and_keeps_what_is_needed() {
    let mut overlay = TestOverlay::new(15, &["lab", "home"]);
    let (node, mut membership) = overlay.member(&["lab"]);
    let join = |overlay: &mut TestOverlay, names: &[&str]| {
        let request = overlay.request(names);
        overlay.issue(request).unwrap().accept(&node, BORN).unwrap()
    };
    let home = join(&mut overlay, &["home"]);
    let merged = membership.merge(home, BORN).unwrap();
    // Not to be shown before its receipt is there.
    assert_eq!(membership.chain_for(&network_id(&overlay, 1)), None);
    assert_eq!(membership.without_receipt().count(), 1);
    membership = overlay.receipted(membership);
    assert_eq!(membership.without_receipt().count(), 0);
    assert!(membership.chain_for(&network_id(&overlay, 1)).is_some());
    assert_eq!(merged.added, ["home".parse().unwrap()]);
    assert_eq!(
        (membership.networks().len(), membership.chains().len()),
        (2, 2)
    );
    let lab = network_id(&overlay, 0);
    let chain = membership.chain_for(&lab).unwrap();
    assert!(
        chain
            .verify(&overlay.roots, BORN)
            .unwrap()
            .is_member_of(&lab)
    );
    assert_eq!(
        Membership::from_bytes(&membership.to_bytes()).unwrap(),
        membership
    );

    let both = join(&mut overlay, &["lab", "home"]);
    let merged = membership.merge(both, BORN).unwrap();
    assert_eq!((merged.added.len(), merged.known.len()), (0, 2));
    assert_eq!(membership.chains().len(), 3);
    membership = overlay.receipted(membership);
    assert_eq!(membership.chains().len(), 1);
    assert!(membership.own_member(BORN).unwrap().is_member_of(&lab));

    let (_, foreign) = TestOverlay::new(16, &["lab"]).member(&["lab"]);
    let before = membership.clone();
    assert!(matches!(
        membership.merge(foreign, BORN),
        Err(MembershipError::OtherOverlay { .. })
    ));
    assert_eq!(membership, before);
}

#[test]
fn trust_8_a_certificate_that_was_verified_still_ends() {
    let mut overlay = TestOverlay::new(21, &["lab"]);
    let (node, membership) = overlay.member(&["lab"]);
    let lab = network_id(&overlay, 0);
    let verifier = MemberVerifier::new(overlay.roots.clone(), vec![lab]);
    let chain = membership.chain().unwrap();
    let last = chain.claimed_end().plus(CLOCK_TOLERANCE);
    let over = UnixTime(last.0 + 1);
    let bytes = chain.encode();
    for wall in [BORN, last] {
        assert_eq!(verifier.show(&bytes, wall).unwrap().peer, node.peer_id());
        assert!(verifier.may_send(node.peer_id(), &lab, wall));
    }
    assert!(matches!(
        verifier.show(&bytes, over),
        Err(MembershipError::Expired { .. })
    ));
    assert!(!verifier.may_send(node.peer_id(), &lab, over));
}

#[test]
fn static_keys() {
    let mut overlay = TestOverlay::new(17, &["lab"]);
    let node = NodeKey::generate(&mut overlay.entropy);
    let id = overlay.roots.overlay();
    let binding = StaticBinding {
        public: [5; 32],
        sequence: u64::MAX,
        not_after: LATE,
    };
    let signed = SignedStatic::sign(&node, id, &binding);
    let bytes = signed.encode();
    assert!(bytes.len() <= SignedStatic::MAX_BYTES);
    let read = SignedStatic::decode(&bytes).unwrap();
    assert_eq!(read.verify(node.peer_id(), id, LATE), Ok(binding));
    let late = UnixTime(LATE.0 + 601);
    assert!(matches!(
        read.verify(node.peer_id(), id, late),
        Err(MembershipError::Expired { .. })
    ));
    assert!(read.verify(overlay.witness.peer_id(), id, BORN).is_err());
    let other = TestOverlay::new(18, &[]).roots.overlay();
    assert!(read.verify(node.peer_id(), other, BORN).is_err());
}

/// Every single-bit change of `bytes`.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

#[test]
fn trust_9_every_flipped_bit_is_refused() {
    let mut overlay = TestOverlay::new(19, &["lab"]);
    let request = overlay.request(&["lab"]);
    let text = overlay.issue(request).unwrap().to_text();
    let (node, membership) = overlay.member(&["lab"]);
    let id = overlay.roots.overlay();

    let whole = text.strip_prefix(INVITE_PREFIX).unwrap();
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(whole.as_bytes())
        .unwrap();
    for flipped in flips(&bytes) {
        let text = format!(
            "{INVITE_PREFIX}{}",
            data_encoding::BASE64URL_NOPAD.encode(&flipped)
        );
        assert!(Invite::parse(&text).is_err());
    }
    for flipped in flips(&membership.chain().unwrap().encode()) {
        let outcome = Chain::decode(&flipped).and_then(|c| c.verify(&overlay.roots, BORN));
        assert!(outcome.is_err());
    }
    for flipped in flips(&overlay.roots.above(0)[0].encode()) {
        let outcome = SignedRoot::decode(&flipped).and_then(|root| RootStore::new(id, root));
        assert!(outcome.is_err());
    }
    let binding = StaticBinding {
        public: [5; 32],
        sequence: 7,
        not_after: LATE,
    };
    for flipped in flips(&SignedStatic::sign(&node, id, &binding).encode()) {
        let outcome = SignedStatic::decode(&flipped);
        assert!(
            outcome
                .and_then(|s| s.verify(node.peer_id(), id, BORN))
                .is_err()
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
        let _ = Chain::decode(&bytes);
        let _ = SignedRoot::decode(&bytes);
        let _ = SignedStatic::decode(&bytes);
        let _ = Membership::from_bytes(&bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", tail in "[A-Za-z0-9_-]{0,400}") {
        prop_assert!(Invite::parse(&text).is_err());
        let invite = format!("{INVITE_PREFIX}{tail}");
        prop_assert!(Invite::parse(&invite).is_err());
        let _ = bootstrap_peer(&text);
    }

    #[test]
    fn damaged_chains_never_panic(at in 0_usize..400, value: u8, cut in 0_usize..400) {
        let mut overlay = TestOverlay::new(20, &["lab"]);
        let (_, membership) = overlay.member(&["lab"]);
        let bytes = membership.chain().unwrap().encode();
        prop_assert!(Chain::decode(&bytes[..cut % bytes.len()]).is_err());
        let mut changed = bytes.clone();
        changed[at % bytes.len()] = value;
        let _ = Chain::decode(&changed).map(|chain| chain.verify(&overlay.roots, BORN));
    }
}
