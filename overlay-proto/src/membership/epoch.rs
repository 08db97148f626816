//! A network's next epoch: a new key, signed by the authority, for members only (TRUST.md 8).
//!
//! ```text
//! signed epoch = 1 | part, authority's signature
//! part         = 1 | root version | network id (32) | epoch | key (32) | list | time of signing
//! ```
//! Numbers are varints. `list` is the number of the revocation list that goes with the epoch: who
//! does not hold it yet hands the key to nobody, since it cannot know who must not get it.
//!
//! It is a secret: it enters a node by `farlan apply -` and travels in sealed sessions. An epoch key
//! proves nothing about who uses it: it hides cards, signals and records from those who are no
//! members, and each of them is believed for its signer's certificate alone. So a node may go on
//! reading under the key of the epoch before for a while, and members who change at different times
//! do not lose each other.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::codec;
use super::error::MembershipError;
use super::revocation::RevocationNumber;
use super::root::RootStore;
use super::signed::{AuthorityKey, Label, SignedPart};
use crate::ids::NetworkId;
use crate::time::UnixTime;

/// How long cards and records of the epoch before are still laid down and read: as long as a card
/// at a rendezvous or a record in the DHT lives (600 s), so that none that was made before the
/// change is lost. Longer would let a revoked node watch the members' addresses longer.
pub const EPOCH_OVERLAP: Duration = Duration::from_secs(600);

/// How long greetings under the key of the epoch before are still opened: for a node that was off
/// during the change and finds the others by what it remembers. Nothing is sent under that key.
pub const OLD_KEY_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

const VERSION: u8 = 1;
/// Version, root version, network, epoch, key, list, time.
const MAX_PART_BYTES: usize = 1 + 5 + 32 + 10 + 32 + 10 + 10;

/// What the authority signs.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
pub(super) struct EpochPart {
    /// The root version whose key signs.
    #[zeroize(skip)]
    root_version: u32,
    #[zeroize(skip)]
    pub(super) network: NetworkId,
    /// 1 is the first.
    #[zeroize(skip)]
    pub(super) epoch: u64,
    pub(super) key: [u8; 32],
    #[zeroize(skip)]
    list: RevocationNumber,
    #[zeroize(skip)]
    pub(super) issued: UnixTime,
}

/// An epoch of a network under the authority's signature. Erased on drop, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEpoch(SignedPart);

impl Drop for SignedEpoch {
    fn drop(&mut self) {
        self.0.bytes.zeroize();
    }
}

/// Names the epoch, not its key.
impl fmt::Debug for SignedEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part() {
            Ok(part) => write!(f, "SignedEpoch({:?}, {})", part.network, part.epoch),
            Err(_) => f.write_str("SignedEpoch(damaged)"),
        }
    }
}

impl SignedEpoch {
    /// The most bytes of [`SignedEpoch::encode`].
    pub const MAX_BYTES: usize = 1 + 1 + MAX_PART_BYTES + 64;

    /// `authority` must be the key of the newest root document, as for an invite.
    pub(super) fn sign(
        authority: &AuthorityKey,
        roots: &RootStore,
        network: NetworkId,
        (epoch, key): (u64, [u8; 32]),
        list: RevocationNumber,
        now: UnixTime,
    ) -> Self {
        let part = EpochPart {
            root_version: roots.newest().version,
            network,
            epoch,
            key,
            list,
            issued: now,
        };
        let bytes = codec::encode(VERSION, &part);
        Self(authority.sign_part(Label::EPOCH, roots.overlay(), bytes))
    }

    /// The bytes for a sealed session, the disk or the line that `apply -` takes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.0)
    }

    /// Reads [`SignedEpoch::encode`]; nothing is verified yet.
    ///
    /// # Errors
    /// Too long, malformed, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let signed = Self(codec::decode(
            "signed epoch",
            VERSION,
            Self::MAX_BYTES,
            bytes,
        )?);
        signed.part()?;
        Ok(signed)
    }

    /// The network; not verified. `None` if the part does not parse.
    #[must_use]
    pub fn claimed_network(&self) -> Option<NetworkId> {
        self.part().ok().map(|part| part.network)
    }

    /// The number of the epoch; not verified. `None` if the part does not parse.
    #[must_use]
    pub fn claimed_epoch(&self) -> Option<u64> {
        self.part().ok().map(|part| part.epoch)
    }

    /// May a node that goes by the revocation list `held` hand it on? Not without the list that
    /// belongs to it, which says who must not get the key.
    #[must_use]
    pub fn may_be_handed_on(&self, held: RevocationNumber) -> bool {
        self.part().is_ok_and(|part| part.list <= held)
    }

    /// What it says, if the authority signed it.
    pub(super) fn verify(&self, roots: &RootStore) -> Result<EpochPart, MembershipError> {
        let part = self.part()?;
        let authority = roots.authority_of(part.root_version)?;
        self.0.verify(&authority, Label::EPOCH, roots.overlay())?;
        Ok(part)
    }

    fn part(&self) -> Result<EpochPart, MembershipError> {
        codec::decode("signed epoch", VERSION, MAX_PART_BYTES, &self.0.bytes)
    }
}

/// The key of the epoch before. Erased on drop, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
pub struct OldEpoch {
    key: [u8; 32],
    /// When this node changed to the next epoch.
    #[zeroize(skip)]
    ended: UnixTime,
}

impl fmt::Debug for OldEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OldEpoch(ended {:?})", self.ended)
    }
}

impl OldEpoch {
    pub(super) const fn new(key: [u8; 32], ended: UnixTime) -> Self {
        Self { key, ended }
    }

    /// The key, for greetings: while it is kept at all.
    #[must_use]
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The key, while cards and records are laid down and read under it.
    #[must_use]
    pub fn read_at(&self, now: UnixTime) -> Option<&[u8; 32]> {
        (now <= self.ended.plus(EPOCH_OVERLAP)).then_some(&self.key)
    }

    pub(super) fn is_kept_at(&self, now: UnixTime) -> bool {
        now <= self.ended.plus(OLD_KEY_KEPT)
    }
}

/// What a member keeps of the epochs of one network beside the current key. The default: the key
/// came by invite, and there was no change since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochKeys {
    /// The current epoch as the authority signed it, to hand on; none if it came by invite.
    pub(super) signed: Option<SignedEpoch>,
    pub(super) old: Option<OldEpoch>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::test_authority::{BORN, TestOverlay};
    use crate::membership::{IssueError, Membership, NetworkAuthority};
    use crate::time::UnixTime;

    const LATER: UnixTime = UnixTime(BORN.0 + 1_000);
    const LIST: RevocationNumber = RevocationNumber(3);

    fn next(overlay: &mut TestOverlay, index: usize) -> SignedEpoch {
        let network = &mut overlay.networks[index];
        network
            .next_epoch(&overlay.authority, &overlay.roots, LIST, LATER)
            .unwrap()
    }

    fn key(membership: &Membership, network: &NetworkAuthority) -> (u64, [u8; 32]) {
        let secret = membership.network(&network.name).unwrap();
        (secret.epoch, secret.epoch_key)
    }

    #[test]
    fn trust_8_a_new_epoch_has_a_new_key_and_the_old_one_is_kept_beside_it() {
        let mut overlay = TestOverlay::new(51, &["lab", "home"]);
        let (_, mut membership) = overlay.member(&["lab"]);
        let lab = overlay.networks[0].id();
        let (_, first) = key(&membership, &overlay.networks[0]);
        assert_eq!(membership.signed_epoch(&lab), None);
        let signed = next(&mut overlay, 0);
        let signed = SignedEpoch::decode(&signed.encode()).unwrap();
        assert_eq!(signed.claimed_epoch(), Some(2));
        assert_eq!(signed.claimed_network(), Some(lab));

        assert_eq!(membership.take_epoch(&signed, LATER), Ok(true));
        let (epoch, second) = key(&membership, &overlay.networks[0]);
        assert_eq!(epoch, 2);
        assert_ne!(second, first);
        assert_eq!(second, overlay.networks[0].secret().epoch_key);
        assert_eq!(membership.signed_epoch(&lab), Some(&signed));
        assert_eq!(membership.old_epoch(&lab, LATER).unwrap().key(), &first);
        // It signs a time, which is a floor for the clock.
        assert_eq!(membership.roots().floor(), LATER);

        // Known: nothing to keep. Older: never back.
        assert_eq!(membership.take_epoch(&signed, LATER), Ok(false));
        let third = next(&mut overlay, 0);
        assert_eq!(membership.take_epoch(&third, LATER), Ok(true));
        assert_eq!(membership.take_epoch(&signed, LATER), Ok(false));
        assert_eq!(key(&membership, &overlay.networks[0]).0, 3);
        assert_eq!(membership.old_epoch(&lab, LATER).unwrap().key(), &second);

        // A network that this node is not in is none of its business.
        let home = next(&mut overlay, 1);
        assert_eq!(membership.take_epoch(&home, LATER), Ok(false));
        assert_eq!(membership.signed_epoch(&overlay.networks[1].id()), None);

        let kept = Membership::from_bytes(&membership.to_bytes()).unwrap();
        assert_eq!(kept, membership);
        assert_eq!(kept.signed_epoch(&lab), Some(&third));
    }

    #[test]
    fn trust_8_nobody_but_the_authority_starts_an_epoch() {
        let mut overlay = TestOverlay::new(52, &["lab"]);
        let (node, mut membership) = overlay.member(&["lab"]);
        let before = membership.clone();
        let (id, roots) = (overlay.networks[0].id(), &overlay.roots);
        let thief = AuthorityKey::from_secret(&node.secret_bytes());
        assert_eq!(
            overlay.networks[0]
                .clone()
                .next_epoch(&thief, roots, LIST, LATER),
            Err(IssueError::NotTheAuthority)
        );
        let forged = SignedEpoch::sign(&thief, roots, id, (2, [7; 32]), LIST, LATER);
        let refused = Err(MembershipError::BadSignature("farlan/epoch/1"));
        assert_eq!(membership.take_epoch(&forged, LATER), refused);
        // An authority's signature that says something else.
        let part = EpochPart {
            root_version: 1,
            network: id,
            epoch: 2,
            key: [7; 32],
            list: LIST,
            issued: LATER,
        };
        let bytes = codec::encode(VERSION, &part);
        let other = SignedEpoch(overlay.authority.sign_part(
            Label::INVITE,
            roots.overlay(),
            bytes.clone(),
        ));
        assert_eq!(membership.take_epoch(&other, LATER), refused);
        let elsewhere = TestOverlay::new(53, &[]).roots.overlay();
        let foreign = SignedEpoch(overlay.authority.sign_part(Label::EPOCH, elsewhere, bytes));
        assert_eq!(membership.take_epoch(&foreign, LATER), refused);
        assert_eq!(membership, before);
        // Every flipped bit.
        let good = next(&mut overlay, 0).encode();
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let taken = SignedEpoch::decode(&flipped)
                .and_then(|signed| membership.take_epoch(&signed, LATER));
            assert!(taken.is_err(), "bit {bit}");
        }
        assert_eq!(membership, before);
    }

    #[test]
    fn an_epoch_that_came_by_invite_gets_its_signature() {
        let mut overlay = TestOverlay::new(54, &["lab"]);
        let (node, mut membership) = overlay.member(&["lab"]);
        let (_, first) = key(&membership, &overlay.networks[0]);
        let signed = next(&mut overlay, 0);
        let request = overlay.request(&["lab"]);
        let newer = overlay.issue(request).unwrap().accept(&node, BORN).unwrap();
        membership.merge(newer, LATER).unwrap();
        let lab = overlay.networks[0].id();
        assert_eq!(key(&membership, &overlay.networks[0]).0, 2);
        assert_eq!(membership.old_epoch(&lab, LATER).unwrap().key(), &first);
        assert_eq!(membership.signed_epoch(&lab), None);
        assert_eq!(membership.take_epoch(&signed, LATER), Ok(true));
        assert_eq!(membership.signed_epoch(&lab), Some(&signed));
        assert_eq!(membership.old_epoch(&lab, LATER).unwrap().key(), &first);
        assert_eq!(membership.take_epoch(&signed, LATER), Ok(false));
    }

    #[test]
    fn trust_8_the_old_key_has_an_end() {
        let mut overlay = TestOverlay::new(55, &["lab"]);
        let (_, mut membership) = overlay.member(&["lab"]);
        let lab = overlay.networks[0].id();
        let signed = next(&mut overlay, 0);
        membership.take_epoch(&signed, LATER).unwrap();
        let old = membership.old_epoch(&lab, LATER).unwrap();
        assert!(old.read_at(LATER.plus(EPOCH_OVERLAP)).is_some());
        let over = UnixTime(LATER.plus(EPOCH_OVERLAP).0 + 1);
        assert_eq!(old.read_at(over), None);
        assert!(membership.old_epoch(&lab, over).is_some());
        assert!(!membership.forget_ended(over));
        let gone = UnixTime(LATER.plus(OLD_KEY_KEPT).0 + 1);
        assert_eq!(membership.old_epoch(&lab, gone), None);
        let before = membership.to_bytes().len();
        assert!(membership.forget_ended(gone));
        assert!(membership.to_bytes().len() < before);
        assert!(!membership.forget_ended(gone));
    }

    #[test]
    fn trust_8_an_epoch_is_not_handed_on_without_its_revocation_list() {
        let signed = next(&mut TestOverlay::new(57, &["lab"]), 0);
        assert!(!signed.may_be_handed_on(RevocationNumber::NONE));
        assert!(!signed.may_be_handed_on(RevocationNumber(LIST.0 - 1)));
        assert!(signed.may_be_handed_on(LIST));
        assert!(signed.may_be_handed_on(RevocationNumber(LIST.0 + 1)));
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let mut overlay = TestOverlay::new(56, &["lab"]);
        let (_, mut membership) = overlay.member(&["lab"]);
        let first = overlay.networks[0].secret().epoch_key;
        let signed = next(&mut overlay, 0);
        membership.take_epoch(&signed, LATER).unwrap();
        let second = overlay.networks[0].secret().epoch_key;
        let shown = format!("{signed:?} {membership:?}");
        for key in [first, second] {
            let bytes = format!("{key:?}");
            let inner = bytes.trim_matches(['[', ']']);
            assert!(!shown.contains(inner));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            proptest::prop_assert!(SignedEpoch::decode(&bytes).is_err());
        }
    }
}
