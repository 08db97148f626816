//! Who this node is, and what it is a member of.

use std::time::Instant;

use overlay_proto::directory::OpenedCard;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::{
    Member, MemberVerifier, Membership, MembershipError, NodeKey, SignedStatic, StaticBinding,
};
use overlay_proto::time::UnixTime;

use crate::node::standing::expiry::STATIC_LIFETIME;

/// Identity and membership of this node.
#[derive(Debug)]
pub struct Identity {
    /// Our name.
    pub me: PeerId,
    /// Our key: signs claims, cards, roster entries.
    pub key: NodeKey,
    /// What `join` brought.
    pub membership: Membership,
    /// Checks the chains of peers, and remembers those that are good.
    pub verifier: MemberVerifier,
    /// Our certificate chain, as it travels.
    pub chain: Vec<u8>,
    /// What people call this node; empty if nothing.
    pub name: String,
    /// The signed x25519 static, as it travels.
    pub signed_static: Vec<u8>,
    /// Its public part.
    pub static_public: [u8; 32],
    /// The last second in which that signature counts.
    pub static_until: UnixTime,
    /// Random per run of the process; peers tell a restart from a rekey by it.
    pub incarnation: u32,
    /// When the process began; the fast path counts milliseconds from it.
    pub epoch: Instant,
}

impl Identity {
    /// Whose certificate is this, and what does it allow?
    pub(crate) fn verify_chain(&self, chain: &[u8], wall: UnixTime) -> Result<Member, DropReason> {
        self.verifier.show(chain, wall).map_err(|error| {
            tracing::info!(%error, "certificate refused");
            match error {
                MembershipError::Revoked(_) => DropReason::Revoked,
                _ => DropReason::CertificateRefused,
            }
        })
    }

    /// The x25519 static that `peer` signed.
    pub(crate) fn verify_static(
        &self,
        document: &[u8],
        peer: PeerId,
        wall: UnixTime,
    ) -> Result<[u8; 32], DropReason> {
        let overlay = self.membership.overlay();
        let binding = SignedStatic::decode(document)
            .and_then(|signed| signed.verify(peer, overlay, wall))
            .map_err(|_| DropReason::CertificateRefused)?;
        Ok(binding.public)
    }

    /// Who showed `card` in `network`, and its x25519 static.
    pub(crate) fn judge_card(
        &self,
        card: &OpenedCard,
        network: &NetworkId,
        wall: UnixTime,
    ) -> Result<(Member, [u8; 32]), DropReason> {
        let id = card.entry.node;
        let verified = self
            .verify_chain(&card.card.chain, wall)
            .and_then(|member| {
                let document = &card.card.static_document;
                Ok((member, self.verify_static(document, id, wall)?))
            });
        let (member, static_key) = verified.inspect_err(|reason| {
            tracing::info!(peer = %id, reason = reason.name(), "card refused");
        })?;
        if member.peer != id || !member.is_member_of(network) {
            return Err(DropReason::CertificateRefused);
        }
        Ok((member, static_key))
    }

    /// Signs our x25519 key as of `wall`; `sequence` is above all before, and on disk.
    pub fn sign_static(&mut self, sequence: u64, wall: UnixTime) {
        self.static_until = wall.plus(STATIC_LIFETIME);
        let binding = StaticBinding {
            public: self.static_public,
            sequence,
            not_after: self.static_until,
        };
        let overlay = self.membership.overlay();
        self.signed_static = SignedStatic::sign(&self.key, overlay, &binding).encode();
    }

    /// Is `peer` still a member of `network` at `wall`, by the certificate that it is known by or
    /// by another one that it has shown?
    pub(crate) fn is_member(
        &self,
        peer: PeerId,
        network: &NetworkId,
        chain: &[u8],
        wall: UnixTime,
    ) -> bool {
        self.verifier
            .show(chain, wall)
            .is_ok_and(|member| member.peer == peer && member.is_member_of(network))
            || self.verifier.rights_in(peer, network, wall).is_some()
    }

    /// Where our own questions to the guests on this host come from: a locally administered
    /// address that no other node uses.
    pub(crate) const fn probe_mac(&self) -> MacAddr {
        let [a, b, c, d, e, ..] = self.me.0;
        MacAddr([0x02, a, b, c, d, e])
    }
}
