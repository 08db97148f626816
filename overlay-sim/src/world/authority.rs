//! Who rules the overlay of a world, and the witness of its invites.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use node_core::api::{Request, SecretLine};
use overlay_proto::SeededEntropy;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{
    AuthorityKey, Chain, InviteId, InviteRequest, InviteUses, Membership, NetworkAuthority,
    NodeKey, OverlaySecret, RevocationLine, Revocations, Revoked, Rights, RootStore, SignedPart,
    SignedRevocations, SignedRoot, WitnessRefusal, issue_invite,
};
use overlay_proto::time::UnixTime;

use crate::net::random::stream;

/// How long memberships last.
const MEMBERSHIP: u64 = 365 * 86_400;

/// The authority, its networks, and the witness, which is the bootstrap.
pub(super) struct Authority {
    key: AuthorityKey,
    pub(super) roots: RootStore,
    secret: OverlaySecret,
    networks: Vec<NetworkAuthority>,
    pub(super) witness: NodeKey,
    /// Where the bootstrap is dialled.
    bootstrap: String,
    /// Bound: the invites that were issued, one for each node.
    uses: BTreeMap<InviteId, InviteUses>,
    revoked: Revocations,
    entropy: SeededEntropy,
}

impl Authority {
    /// With these networks; `place` is where the bootstrap is dialled, without its name.
    ///
    /// # Errors
    /// A name is none, or two are the same.
    pub(super) fn new(seed: u64, names: &[&str], place: &str, now: UnixTime) -> Result<Self> {
        let mut entropy = stream(seed, "authority");
        let key = AuthorityKey::generate(&mut entropy);
        let roots = RootStore::from_roots([SignedRoot::first(&key, now)])?;
        let witness = NodeKey::generate(&mut entropy);
        let mut networks = Vec::new();
        for name in names {
            let name = name.parse().ok().context("no name for a network")?;
            networks.push(NetworkAuthority::create(name, 1_500, &mut entropy));
        }
        Ok(Self {
            secret: OverlaySecret::generate(&mut entropy),
            bootstrap: format!("{place}/p2p/{}", witness.peer_id()),
            key,
            roots,
            networks,
            witness,
            uses: BTreeMap::new(),
            revoked: Revocations::default(),
            entropy,
        })
    }

    /// `node` joins these networks, by an invite of its own.
    ///
    /// # Errors
    /// There is no such network.
    pub(super) fn join(
        &mut self,
        node: &NodeKey,
        networks: &[usize],
        now: UnixTime,
    ) -> Result<Membership> {
        let secret = |index: &usize| Some(self.networks.get(*index)?.secret());
        let networks: Option<Vec<_>> = networks.iter().map(secret).collect();
        let request = InviteRequest {
            networks: networks.context("no such network")?,
            rights: Rights::DEFAULT,
            name: None,
            join_until: UnixTime(now.0 + MEMBERSHIP),
            member_until: UnixTime(now.0 + MEMBERSHIP),
            max_nodes: 1,
            witness: None,
            bootstraps: vec![self.bootstrap.clone()],
        };
        let (roots, secret) = (&self.roots, &self.secret);
        let entropy = &mut self.entropy;
        let invite = issue_invite(&self.key, roots, secret, request, now, entropy)?;
        Ok(invite.accept(node, now)?)
    }

    /// The witness counts the use of an invite. `None`: the certificate does not count.
    pub(super) fn receipt(
        &mut self,
        chain: &Chain,
        now: UnixTime,
    ) -> Option<Result<SignedPart, WitnessRefusal>> {
        let application = chain.apply(&self.roots, now).ok()?;
        let uses = self.uses.entry(chain.claimed_invite()).or_default();
        let receipt = uses.count(&application, now);
        Some(receipt.map(|receipt| receipt.sign(&self.witness, self.roots.overlay())))
    }

    /// The line for `farlan apply` that revokes `node`.
    ///
    /// # Errors
    /// The list is full.
    pub(super) fn revoke(&mut self, node: PeerId) -> Result<Request> {
        let version = self.roots.newest().version;
        let list = self.revoked.successor(version, Revoked::Node(node))?;
        let list = SignedRevocations::sign(&self.key, self.roots.overlay(), list);
        self.revoked.take(list.clone(), &self.roots)?;
        let line = RevocationLine {
            roots: self.roots.above(0).to_vec(),
            list,
            epochs: Vec::new(),
        };
        let line = SecretLine(line.to_text().to_string());
        Ok(Request::Apply { line })
    }
}
