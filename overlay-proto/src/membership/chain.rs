//! A node's certificate: authority -> invite -> node, checked offline by any member (TRUST.md 4).
//!
//! ```text
//! chain   = 1 | invite part, authority's signature | node part, delegated key's signature
//!             | receipt, witness's signature (or none)
//! ```
//! The node's part may only narrow what the invite grants, and no date in it would be trusted, so
//! it has none.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::codec;
use super::error::MembershipError;
use super::issue::MAX_INVITE_NETWORKS;
use super::keys::{InviteId, NetworkTag, labelled_hash, network_tag};
use super::receipt::{RECEIPT_POLICY, Receipt, ReceiptPolicy};
use super::rights::Rights;
use super::root::{CLOCK_TOLERANCE, RootStore};
use super::signed::{DelegatedKey, Label, SignedPart};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::time::UnixTime;

/// The most bytes of a chain with its receipt: message 1 of the handshake must fit (TRUST.md 11).
pub const MAX_CHAIN_BYTES: usize = 800;

/// A receipt with its signature and framing, for which a chain leaves room.
pub(super) const RECEIPT_ROOM: usize = 145;

const VERSION: u8 = 1;
const INVITE_PART_VERSION: u8 = 1;
const NODE_PART_VERSION: u8 = 1;

/// A network in a certificate, known to its members only, and the rights there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkGrant {
    /// HMAC(network id, invite id).
    pub tag: NetworkTag,
    /// The rights in that network.
    pub rights: Rights,
}

/// What the authority signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InvitePart {
    /// The first bytes of the overlay id: tells a foreign certificate from a forged one.
    pub(super) overlay_hint: [u8; 8],
    /// The root version whose key signs.
    pub(super) root_version: u32,
    /// The delegated public key.
    pub(super) id: InviteId,
    pub(super) name: Option<String>,
    /// Rights in the overlay.
    pub(super) rights: Rights,
    pub(super) grants: Vec<NetworkGrant>,
    pub(super) issued: UnixTime,
    pub(super) join_until: UnixTime,
    pub(super) member_until: UnixTime,
    pub(super) max_nodes: u32,
    pub(super) witness: PeerId,
    /// Hash of the bootstrap list.
    pub(super) bootstraps: [u8; 32],
}

impl InvitePart {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(INVITE_PART_VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let part: Self = codec::decode("invite part", INVITE_PART_VERSION, MAX_CHAIN_BYTES, bytes)?;
        let right = part.grants.len() <= MAX_INVITE_NETWORKS
            && part.name.as_deref().is_none_or(is_host_name)
            && part.max_nodes > 0;
        if right {
            Ok(part)
        } else {
            Err(MembershipError::Invalid("invite part"))
        }
    }
}

/// 1 to 63 of `A-Z a-z 0-9 - . _`: what a terminal and a table can show.
pub(super) fn is_host_name(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    (1..=63).contains(&name.len()) && name.bytes().all(legal)
}

/// The first bytes of the overlay id.
pub(super) fn overlay_hint(overlay: OverlayId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = overlay.0;
    [a, b, c, d, e, f, g, h]
}

/// One of the invite's networks, by its place in the invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct NodeGrant {
    index: u8,
    rights: Rights,
}

/// What the delegated key signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NodePart {
    peer: PeerId,
    rights: Rights,
    /// Growing indices.
    grants: Vec<NodeGrant>,
}

impl NodePart {
    /// The grants of `invite` that the node took, if it took no more than was given.
    fn narrow(&self, invite: &InvitePart) -> Result<Vec<NetworkGrant>, MembershipError> {
        let ascending = self
            .grants
            .iter()
            .zip(self.grants.iter().skip(1))
            .all(|(a, b)| a.index < b.index);
        if !ascending || !invite.rights.contains(self.rights) {
            return Err(MembershipError::Widened);
        }
        self.grants
            .iter()
            .map(|taken| {
                let given = invite.grants.get(usize::from(taken.index));
                given
                    .filter(|given| given.rights.contains(taken.rights))
                    .map(|given| NetworkGrant {
                        tag: given.tag,
                        rights: taken.rights,
                    })
                    .ok_or(MembershipError::Widened)
            })
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChainWire {
    invite: SignedPart,
    node: SignedPart,
    receipt: Option<SignedPart>,
}

/// A certificate that parses; [`Chain::verify`] says whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    wire: ChainWire,
    invite: InvitePart,
    node: NodePart,
}

impl Chain {
    /// A node's part that takes all that the invite gives.
    pub(super) fn build(
        invite: SignedPart,
        part: InvitePart,
        delegated: &DelegatedKey,
        overlay: OverlayId,
        peer: PeerId,
    ) -> Self {
        let grants = (0..)
            .zip(&part.grants)
            .map(|(index, grant)| NodeGrant {
                index,
                rights: grant.rights,
            })
            .collect();
        let node = NodePart {
            peer,
            rights: part.rights,
            grants,
        };
        let bytes = codec::encode(NODE_PART_VERSION, &node);
        Self {
            wire: ChainWire {
                invite,
                node: delegated.sign_part(Label::NODE, overlay, bytes),
                receipt: None,
            },
            invite: part,
            node,
        }
    }

    /// The bytes for the wire or the disk: at most [`MAX_CHAIN_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, &self.wire)
    }

    /// Reads [`Chain::encode`]; nothing is verified yet.
    ///
    /// # Errors
    /// Too long, malformed, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let wire: ChainWire = codec::decode("certificate", VERSION, MAX_CHAIN_BYTES, bytes)?;
        let invite = InvitePart::decode(&wire.invite.bytes)?;
        let node = codec::decode(
            "node part",
            NODE_PART_VERSION,
            MAX_CHAIN_BYTES,
            &wire.node.bytes,
        )?;
        Ok(Self { wire, invite, node })
    }

    /// [`certificate_hash`] of the encoding.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        certificate_hash(&self.encode())
    }

    /// Whom it names; not verified.
    #[must_use]
    pub const fn claimed_peer(&self) -> PeerId {
        self.node.peer
    }

    /// The invite it comes from; not verified.
    #[must_use]
    pub const fn claimed_invite(&self) -> InviteId {
        self.invite.id
    }

    /// The root version it names; not verified. Above the newest known: pull root documents first.
    #[must_use]
    pub const fn claimed_root_version(&self) -> u32 {
        self.invite.root_version
    }

    /// When its node joined, by the receipt; not verified.
    #[must_use]
    pub fn claimed_joined(&self) -> Option<UnixTime> {
        Receipt::read(self.wire.receipt.as_ref()?)
            .ok()
            .map(|receipt| receipt.time)
    }

    /// One line of text; [`Chain::from_text`] reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.encode())
    }

    /// Reads [`Chain::to_text`]; nothing is verified yet.
    ///
    /// # Errors
    /// As [`Chain::decode`].
    pub fn from_text(text: &str) -> Result<Self, MembershipError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
        Self::decode(&bytes.map_err(|_| MembershipError::Malformed("certificate"))?)
    }

    /// Does it carry a receipt? Not verified.
    #[must_use]
    pub const fn has_receipt(&self) -> bool {
        self.wire.receipt.is_some()
    }

    /// The one node whose receipt counts; not verified.
    #[must_use]
    pub const fn claimed_witness(&self) -> PeerId {
        self.invite.witness
    }

    /// Are both of the same node and invite? Then they differ in the receipt at most.
    pub(super) fn is_same_but_receipt(&self, other: &Self) -> bool {
        self.wire.invite == other.wire.invite && self.wire.node == other.wire.node
    }

    /// The same certificate with the receipt of its witness.
    #[must_use]
    pub fn with_receipt(mut self, receipt: SignedPart) -> Self {
        self.wire.receipt = Some(receipt);
        self
    }

    /// The name that it gives the node; not verified.
    #[must_use]
    pub fn claimed_name(&self) -> Option<&str> {
        self.invite.name.as_deref()
    }

    /// The last second of the membership; not verified.
    #[must_use]
    pub const fn claimed_end(&self) -> UnixTime {
        self.invite.member_until
    }

    /// Has the membership ended at `now`? Not verified.
    pub(super) fn has_ended(&self, now: UnixTime) -> bool {
        now > self.claimed_end().plus(CLOCK_TOLERANCE)
    }

    /// Does it name `network`? Not verified.
    pub(super) fn names(&self, network: &NetworkId) -> bool {
        let tag = network_tag(network, self.invite.id);
        self.node.grants.iter().any(|taken| {
            let given = self.invite.grants.get(usize::from(taken.index));
            given.is_some_and(|given| given.tag == tag)
        })
    }

    /// What a witness needs to decide about a receipt: everything is checked as by
    /// [`Chain::verify`], but the receipt may be missing.
    ///
    /// # Errors
    /// As [`Chain::verify`].
    pub fn apply(&self, roots: &RootStore, wall: UnixTime) -> Result<Application, MembershipError> {
        Ok(Application {
            member: self.check(roots, wall, ReceiptPolicy::IfPresent)?,
            witness: self.invite.witness,
            join_until: self.invite.join_until,
            max_nodes: self.invite.max_nodes,
        })
    }

    /// The whole check, offline: overlay, both signatures, narrowing, receipt, dates. `wall` is the
    /// wall clock; the store puts its floor under it, and dates have 10 minutes of tolerance.
    ///
    /// That the peer at the other end owns the key of [`Member::peer`] is for the transport or the
    /// handshake to prove.
    ///
    /// # Errors
    /// [`MembershipError::Foreign`], [`BadSignature`](MembershipError::BadSignature),
    /// [`Widened`](MembershipError::Widened), [`Expired`](MembershipError::Expired), an unknown or
    /// retired root version, or a receipt that does not fit.
    pub fn verify(&self, roots: &RootStore, wall: UnixTime) -> Result<Member, MembershipError> {
        self.check(roots, wall, RECEIPT_POLICY)
    }

    fn check(
        &self,
        roots: &RootStore,
        wall: UnixTime,
        policy: ReceiptPolicy,
    ) -> Result<Member, MembershipError> {
        let overlay = roots.overlay();
        let invite = &self.invite;
        if invite.overlay_hint != overlay_hint(overlay) {
            return Err(MembershipError::Foreign);
        }
        let authority = roots.authority_of(invite.root_version)?;
        self.wire
            .invite
            .verify(&authority, Label::INVITE, overlay)?;
        self.wire.node.verify(&invite.id.0, Label::NODE, overlay)?;
        let grants = self.node.narrow(invite)?;
        self.check_receipt(overlay, policy)?;
        let member = Member {
            peer: self.node.peer,
            name: invite.name.clone(),
            invite_id: invite.id,
            rights: self.node.rights,
            issued: invite.issued,
            member_until: invite.member_until,
            tags: grants,
        };
        member.check_date(roots.now(wall).max(invite.issued))?;
        Ok(member)
    }

    fn check_receipt(
        &self,
        overlay: OverlayId,
        policy: ReceiptPolicy,
    ) -> Result<(), MembershipError> {
        match (&self.wire.receipt, policy) {
            (Some(receipt), _) => {
                let subject = (self.node.peer, self.invite.id);
                let until = self.invite.join_until;
                Receipt::check(receipt, overlay, self.invite.witness, subject, until)
            }
            (None, ReceiptPolicy::IfPresent) => Ok(()),
            (None, ReceiptPolicy::Required) => Err(MembershipError::ReceiptMissing),
        }
    }
}

/// The hash by which a roster entry names a certificate: SHA-256 of a label and the chain's bytes.
#[must_use]
pub fn certificate_hash(chain: &[u8]) -> [u8; 32] {
    labelled_hash("farlan/certificate/1", &[chain])
}

/// A node that asks its witness for a receipt; everything but the receipt is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Who it would be.
    pub member: Member,
    /// The one node whose receipt counts.
    pub witness: PeerId,
    /// The last second in which the invite can be used.
    pub join_until: UnixTime,
    /// How many nodes may use it.
    pub max_nodes: u32,
}

/// A verified member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub peer: PeerId,
    /// The name that the authority signed.
    pub name: Option<String>,
    /// The invite it joined with.
    pub invite_id: InviteId,
    /// Its rights in the overlay: `relay`, `witness`.
    pub rights: Rights,
    /// When the authority signed the invite.
    pub issued: UnixTime,
    /// The last second of the membership.
    pub member_until: UnixTime,
    /// Its networks, each with the rights there; at most 8.
    pub tags: Vec<NetworkGrant>,
}

impl Member {
    /// Is it in this network?
    #[must_use]
    pub fn is_member_of(&self, network: &NetworkId) -> bool {
        self.rights_in(network).is_some()
    }

    /// May it send frames and claim MACs there?
    #[must_use]
    pub fn may_send(&self, network: &NetworkId) -> bool {
        self.rights_in(network)
            .is_some_and(|rights| rights.contains(Rights::SEND))
    }

    /// Its rights in the network; `None` if it is not a member there.
    #[must_use]
    pub fn rights_in(&self, network: &NetworkId) -> Option<Rights> {
        let tag = network_tag(network, self.invite_id);
        let grant = self.tags.iter().find(|grant| grant.tag == tag)?;
        Some(grant.rights)
    }

    /// Has the membership not ended at `now`? To be asked again at each rekey.
    ///
    /// # Errors
    /// [`MembershipError::Expired`].
    pub fn check_date(&self, now: UnixTime) -> Result<(), MembershipError> {
        if now > self.member_until.plus(CLOCK_TOLERANCE) {
            Err(MembershipError::Expired {
                until: self.member_until,
            })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::test_authority::TestOverlay;

    #[test]
    fn trust_4_the_node_part_may_only_narrow() {
        let mut overlay = TestOverlay::new(41, &["lab", "home"]);
        let (_, membership) = overlay.member(&["lab", "home"]);
        let Chain { invite, node, .. } = membership.chain().unwrap().clone();
        assert_eq!(node.narrow(&invite).unwrap().len(), 2);
        let refused = |change: &dyn Fn(&mut NodePart)| {
            let mut node = node.clone();
            change(&mut node);
            node.narrow(&invite) == Err(MembershipError::Widened)
        };
        assert!(refused(&|node| node.rights = node.rights | Rights::WITNESS));
        assert!(refused(&|node| node.grants[1].rights = Rights::ROUTER));
        assert!(refused(&|node| node.grants[1].index = 2));
        assert!(refused(&|node| node.grants.swap(0, 1)));
        let mut less = node.clone();
        less.grants.pop();
        less.rights = Rights::NONE;
        assert_eq!(less.narrow(&invite).unwrap().len(), 1);
    }
}
