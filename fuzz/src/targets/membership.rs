//! Documents of the authority: roots, invites, chains, static keys, revocation lists.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use nat_traversal::entropy::SeededEntropy;
use overlay_proto::handshake::static_public;
pub(super) use overlay_proto::membership::test_authority::BORN;
use overlay_proto::membership::test_authority::TestOverlay;
use overlay_proto::membership::{
    AuthorityKey, Chain, DelegatedKey, INVITE_PREFIX, Invite, Label, Membership, NetworkAuthority,
    NodeKey, OverlaySecret, Page, PageAssembly, REVOCATION_PREFIX, Receipt, RevocationLine,
    RevocationList, RevocationNumber, Revocations, Revoked, RootStore, SignedEpoch, SignedPart,
    SignedRevocations, SignedRoot, SignedStatic, StaticBinding,
};
use overlay_proto::time::UnixTime;
use sha2::{Digest, Sha256};

use crate::input::{Input, chunk};
use crate::{Seen, Target};

const HOUR: u64 = 3_600;
const VERSION: u8 = 1;

/// An invented overlay with one invite and one member; every secret is known here.
pub(crate) struct Overlay {
    authority: AuthorityKey,
    delegated: DelegatedKey,
    pub(crate) roots: RootStore,
    pub(crate) secret: OverlaySecret,
    pub(crate) node: NodeKey,
    witness: NodeKey,
    invite: String,
    pub(crate) member: Membership,
    epoch: SignedEpoch,
    pub(crate) static_secret: [u8; 32],
    pub(crate) signed_static: SignedStatic,
}

/// Made once: the keys cost time.
pub(crate) static OVERLAY: LazyLock<Overlay> = LazyLock::new(Overlay::new);

impl Overlay {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new(1);
        // In the order in which the corpora have them.
        let authority = AuthorityKey::generate(&mut entropy);
        let secret = OverlaySecret::generate(&mut entropy);
        let network = NetworkAuthority::create("lab".parse().unwrap(), 1500, &mut entropy);
        let witness = NodeKey::generate(&mut entropy);
        let node = NodeKey::generate(&mut entropy);
        let (networks, keys) = (vec![network], (secret, witness));
        let mut overlay = TestOverlay::with_keys(BORN, authority, networks, keys, entropy);
        let mut request = overlay.request(&["lab"]);
        request.name = Some("ash".to_owned());
        // The same draw as `issue_invite` makes.
        let delegated = DelegatedKey::generate(&mut overlay.entropy.clone());
        let invite = overlay.issue(request).unwrap();
        let text = invite.to_text().to_string();
        let member = overlay.receipted(invite.accept(&node, BORN).unwrap());
        // As if somebody had been revoked before.
        let (authority, roots) = (&overlay.authority, &overlay.roots);
        let epoch = overlay.networks[0].next_epoch(authority, roots, RevocationNumber(1), BORN);
        let static_secret = [0x51; 32];
        let binding = StaticBinding {
            public: static_public(&static_secret),
            sequence: 1,
            not_after: UnixTime(BORN.0 + 1000 * HOUR),
        };
        let signed_static = SignedStatic::sign(&node, overlay.id(), &binding);
        Self {
            authority: overlay.authority,
            delegated,
            roots: overlay.roots,
            secret: overlay.secret,
            node,
            witness: overlay.witness.key,
            invite: text,
            member,
            epoch: epoch.unwrap(),
            static_secret,
            signed_static,
        }
    }

    /// The member's chain, encoded.
    pub(crate) fn chain(&self) -> Vec<u8> {
        self.member.chain().unwrap().encode()
    }

    /// The invite's bytes without its checksum.
    fn invite_body(&self) -> Vec<u8> {
        let text = self.invite.strip_prefix(INVITE_PREFIX).unwrap();
        let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        bytes.truncate(bytes.len() - 8);
        bytes
    }
}

pub(super) fn all() -> Vec<Target> {
    vec![
        Target {
            name: "membership_root",
            run: root,
            seeds: || vec![OVERLAY.roots.above(0)[0].encode()],
            speed: 10,
        },
        Target {
            name: "membership_invite_text",
            run: invite_text,
            seeds: || vec![OVERLAY.invite.clone().into_bytes()],
            speed: 100,
        },
        Target {
            name: "membership_invite",
            run: invite,
            seeds: || vec![OVERLAY.invite_body()],
            speed: 10,
        },
        Target {
            name: "membership_chain",
            run: chain,
            seeds: || vec![OVERLAY.chain()],
            speed: 10,
        },
        Target {
            name: "membership_parts",
            run: parts,
            seeds: || vec![chain_parts(false), chain_parts(true)],
            speed: 5,
        },
        Target {
            name: "membership_static",
            run: static_key,
            seeds: || vec![OVERLAY.signed_static.encode()],
            speed: 10,
        },
        Target {
            name: "membership_epoch",
            run: epoch,
            seeds: || vec![OVERLAY.epoch.encode(), epoch_part()],
            speed: 10,
        },
        Target {
            name: "membership_revocations",
            run: revocations,
            seeds: || vec![revocation_list().encode(), revocation_list_body()],
            speed: 10,
        },
        Target {
            name: "membership_revocation_line",
            run: revocation_line,
            seeds: || vec![revocation_line_bodies()],
            speed: 10,
        },
        Target {
            name: "membership_revocation_pages",
            run: revocation_pages,
            seeds: || vec![vec![3, 1, 2, 0, 4, 250, 7]],
            speed: 20,
        },
        Target {
            name: "membership_store",
            run: store,
            seeds: || {
                let mut second = OVERLAY.member.clone();
                second.take_epoch(&OVERLAY.epoch, BORN).unwrap();
                let both = [OVERLAY.member.to_bytes(), second.to_bytes()];
                both.iter().map(|bytes| bytes.to_vec()).collect()
            },
            speed: 10,
        },
    ]
}

fn root(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let root = SignedRoot::decode(bytes);
    seen.result(&root);
    if let Ok(root) = root {
        assert_eq!(root.encode(), bytes, "one encoding");
        seen.result(&OVERLAY.roots.clone().advance(root.clone()));
        seen.note(&RootStore::from_roots([root]).is_ok());
    }
    // The same bytes as a document that the authority signed.
    let signed = OVERLAY
        .authority
        .sign_part(Label::ROOT, OVERLAY.roots.overlay(), bytes.to_vec());
    let encoded = with_version(&(signed.bytes, signed.signature));
    if let Ok(root) = SignedRoot::decode(&encoded) {
        seen.note(&"document");
        seen.result(&OVERLAY.roots.clone().advance(root.clone()));
        seen.note(&RootStore::from_roots([root]).is_ok());
    }
    seen.number()
}

fn invite_text(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    judge_invite(&mut seen, &String::from_utf8_lossy(bytes));
    seen.number()
}

/// The invite's content, its checksum made right.
fn invite(bytes: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"farlan/invite-checksum\0");
    hash.update(bytes);
    let sum: [u8; 32] = hash.finalize().into();
    let text = BASE64URL_NOPAD.encode(&[bytes, &sum[..8]].concat());
    let mut seen = Seen::default();
    judge_invite(&mut seen, &format!("{INVITE_PREFIX}{text}"));
    seen.number()
}

fn judge_invite(seen: &mut Seen, text: &str) {
    match Invite::parse(text) {
        Ok(invite) => {
            let verdict = invite.verify(BORN);
            seen.note(&verdict.as_ref().map_err(std::mem::discriminant));
            let again = invite.to_text();
            assert!(Invite::parse(&again).is_ok());
            seen.note(&(invite.name().is_some(), invite.network_names().count()));
            let accepted = invite.accept(&OVERLAY.node, BORN);
            assert_eq!(accepted.is_ok(), verdict.is_ok());
        }
        Err(error) => seen.note(&error),
    }
}

fn chain(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    judge_chain(&mut seen, bytes);
    seen.number()
}

fn judge_chain(seen: &mut Seen, bytes: &[u8]) {
    match Chain::decode(bytes) {
        Ok(chain) => {
            assert_eq!(chain.encode(), bytes, "one encoding");
            match chain.verify(&OVERLAY.roots, BORN) {
                Ok(member) => {
                    assert_eq!(member.peer, chain.claimed_peer());
                    seen.note(&(member.rights, member.name.is_some()));
                }
                Err(error) => seen.note(&std::mem::discriminant(&error)),
            }
        }
        Err(error) => seen.note(&error),
    }
}

/// The parts of a chain, each signed by whom it must be.
fn parts(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let overlay = OVERLAY.roots.overlay();
    let invite = OVERLAY
        .authority
        .sign_part(Label::INVITE, overlay, input.chunk().to_vec());
    let node = OVERLAY
        .delegated
        .sign_part(Label::NODE, overlay, input.chunk().to_vec());
    let receipt = input.bool().then(|| {
        OVERLAY
            .witness
            .sign_part(Label::RECEIPT, overlay, input.chunk().to_vec())
    });
    let mut seen = Seen::default();
    judge_chain(&mut seen, &with_version(&(invite, node, receipt)));
    seen.number()
}

fn chain_parts(with_receipt: bool) -> Vec<u8> {
    let chain = OVERLAY.chain();
    let (invite, node, _): (SignedPart, SignedPart, Option<SignedPart>) =
        postcard::from_bytes(&chain[1..]).unwrap();
    let receipt = Receipt {
        peer: OVERLAY.node.peer_id(),
        invite: overlay_proto::membership::InviteId(OVERLAY.delegated.public()),
        time: BORN,
    };
    let receipt = receipt.sign(&OVERLAY.witness, OVERLAY.roots.overlay());
    [
        chunk(&invite.bytes),
        chunk(&node.bytes),
        vec![u8::from(with_receipt)],
        chunk(&receipt.bytes),
    ]
    .concat()
}

fn static_key(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let overlay = OVERLAY.roots.overlay();
    // As it is, then as a body that the node signed.
    let part = OVERLAY
        .node
        .sign_part(Label::STATIC, overlay, bytes.to_vec());
    for bytes in [bytes.to_vec(), with_version(&part)] {
        match SignedStatic::decode(&bytes) {
            Ok(signed) => {
                assert_eq!(signed.encode(), bytes, "one encoding");
                assert!(bytes.len() <= SignedStatic::MAX_BYTES);
                let binding = signed.verify(OVERLAY.node.peer_id(), overlay, BORN);
                seen.note(&binding.is_ok());
            }
            Err(error) => seen.note(&error),
        }
    }
    seen.number()
}

/// As it is, then as a part that the authority signed.
fn epoch(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let overlay = OVERLAY.roots.overlay();
    let part = OVERLAY
        .authority
        .sign_part(Label::EPOCH, overlay, bytes.to_vec());
    for bytes in [bytes.to_vec(), with_version(&part)] {
        match SignedEpoch::decode(&bytes) {
            Ok(signed) => {
                assert_eq!(signed.encode(), bytes, "one encoding");
                assert!(bytes.len() <= SignedEpoch::MAX_BYTES);
                let mut member = OVERLAY.member.clone();
                let before = member.networks()[0].epoch;
                let taken = member.take_epoch(&signed, BORN);
                seen.note(&taken.as_ref().map_err(std::mem::discriminant));
                let after = member.networks()[0].epoch;
                assert!(after >= before, "an epoch went back");
                if taken == Ok(true) {
                    assert_eq!(signed.claimed_epoch(), Some(after));
                    let kept = Membership::from_bytes(&member.to_bytes());
                    assert_eq!(kept, Ok(member));
                }
            }
            Err(error) => seen.note(&error),
        }
    }
    seen.number()
}

/// The part that the authority signs.
fn epoch_part() -> Vec<u8> {
    let signed: SignedPart = postcard::from_bytes(&OVERLAY.epoch.encode()[1..]).unwrap();
    signed.bytes
}

fn store(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    match Membership::from_bytes(bytes) {
        Ok(member) => {
            let again = member.to_bytes();
            assert!(Membership::from_bytes(&again).is_ok());
            seen.note(&(member.networks().len(), member.chains().len()));
            seen.note(&member.own_member(BORN).is_ok());
            seen.note(&member.clone().merge(OVERLAY.member.clone(), BORN).is_ok());
        }
        Err(error) => seen.note(&std::mem::discriminant(&error)),
    }
    seen.number()
}

fn revocation_list() -> SignedRevocations {
    let mut entries = vec![
        Revoked::Node(OVERLAY.node.peer_id()),
        Revoked::Invite(overlay_proto::membership::InviteId(
            OVERLAY.delegated.public(),
        )),
    ];
    entries.sort();
    let list = RevocationList {
        root_version: 1,
        number: 7,
        entries,
    };
    SignedRevocations::sign(&OVERLAY.authority, OVERLAY.roots.overlay(), list)
}

/// What the authority signs in it.
fn revocation_list_body() -> Vec<u8> {
    let encoded = revocation_list().encode();
    let part: SignedPart = postcard::from_bytes(&encoded[1..]).unwrap();
    part.bytes
}

/// As it is, then as a body that the authority signed, then as a file.
fn revocations(bytes: &[u8]) -> u64 {
    let mut seen = Seen::default();
    let part =
        OVERLAY
            .authority
            .sign_part(Label::REVOCATIONS, OVERLAY.roots.overlay(), bytes.to_vec());
    for bytes in [bytes.to_vec(), with_version(&part)] {
        match SignedRevocations::decode(&bytes) {
            Ok(list) => {
                assert_eq!(list.encode(), bytes, "one encoding");
                assert!(bytes.len() <= SignedRevocations::MAX_BYTES);
                let mut all = Revocations::default();
                all.take(revocation_list(), &OVERLAY.roots).unwrap();
                let before: Vec<Revoked> = all.entries().copied().collect();
                let taken = all.take(list, &OVERLAY.roots);
                seen.note(&taken.map_err(|error| std::mem::discriminant(&error)));
                let kept = |entry: &Revoked| all.entries().any(|held| held == entry);
                assert!(before.iter().all(kept), "it never shrinks");
                let again = Revocations::from_bytes(&all.to_bytes(), &OVERLAY.roots).unwrap();
                assert_eq!(again, all);
            }
            Err(error) => seen.note(&error),
        }
    }
    let file = Revocations::from_bytes(bytes, &OVERLAY.roots);
    seen.note(&file.map_err(|error| std::mem::discriminant(&error)));
    seen.number()
}

/// Both parts of a line, their checksums made right.
fn revocation_line(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let armour = |body: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(b"farlan/revocation-checksum\0");
        hash.update(body);
        let sum: [u8; 32] = hash.finalize().into();
        BASE64URL_NOPAD.encode(&[body, &sum[..8]].concat())
    };
    let mut text = format!("{REVOCATION_PREFIX}{}", armour(input.chunk()));
    if input.bool() {
        text = format!("{text}.{}", armour(input.chunk()));
    }
    let mut seen = Seen::default();
    for text in [text.as_str(), &String::from_utf8_lossy(bytes)] {
        match RevocationLine::parse(text) {
            Ok(line) => {
                assert_eq!(RevocationLine::parse(&line.to_text()), Ok(line.clone()));
                seen.note(&(line.roots.len(), line.epochs.len()));
                seen.note(&line.list.verify(&OVERLAY.roots).is_ok());
            }
            Err(error) => seen.note(&error),
        }
    }
    seen.number()
}

fn revocation_line_bodies() -> Vec<u8> {
    let roots = OVERLAY.roots.above(0).to_vec();
    let public = with_version(&(roots, revocation_list().encode()));
    let secret = with_version(&vec![vec![9_u8; 40]]);
    [chunk(&public), vec![1], chunk(&secret)].concat()
}

/// Pages of two lists in an order, with repetitions and changes, that the bytes say: what comes out
/// is one of them.
fn revocation_pages(bytes: &[u8]) -> u64 {
    let lists = [vec![1; 2_501], vec![2; 1_090]];
    let pages: Vec<Page<'_>> = lists.iter().flat_map(|list| Page::split(list)).collect();
    let mut input = Input::new(bytes);
    let mut seen = Seen::default();
    let (mut assembly, mut done) = (PageAssembly::default(), 0_u8);
    while !input.is_empty() {
        let choice = input.u8();
        let Some(page) = pages.get(usize::from(choice) % pages.len()) else {
            break;
        };
        let mut page = *page;
        if choice >= 128 {
            (page.index, page.count) = (input.u8(), input.u8());
            page.bytes = &page.bytes[..page.bytes.len().min(usize::from(input.u8()) * 8)];
        }
        match assembly.take(page) {
            Ok(Some(whole)) => {
                assert!(lists.contains(&whole), "a list that nobody sent");
                done |= 1 << (whole.len() % 2);
            }
            Ok(None) => {}
            Err(_) => done |= 4,
        }
    }
    seen.note(&done);
    seen.number()
}

fn with_version(body: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_extend(body, vec![VERSION]).unwrap()
}
