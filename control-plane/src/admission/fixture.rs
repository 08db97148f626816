//! An overlay with members and a bootstrap, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use host_services::clocks;
use overlay_proto::SeededEntropy;
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{
    Application, AuthorityKey, Chain, InviteId, InviteRequest, InviteUses, NetworkAuthority,
    NodeKey, OverlaySecret, RevocationList, Revocations, Revoked, Rights, RootStore, SignedPart,
    SignedRevocations, SignedRoot, WitnessRefusal, issue_invite,
};
use overlay_proto::time::UnixTime;

use super::gates::MemberState;
use super::{InfraGate, MemberGate, Witness};

/// A witness's books in memory.
#[derive(Debug)]
pub(crate) struct Books {
    key: NodeKey,
    uses: Mutex<BTreeMap<InviteId, InviteUses>>,
}

impl Books {
    fn new(key: &NodeKey) -> Self {
        Self {
            key: key.clone(),
            uses: Mutex::default(),
        }
    }
}

impl Witness for Books {
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let mut all = self.uses.lock().unwrap();
        let uses = all.entry(application.member.invite_id).or_default();
        let receipt = uses.count(application, now)?;
        Ok(receipt.sign(&self.key, overlay))
    }
}

pub(crate) struct TestOverlay {
    authority: AuthorityKey,
    pub(crate) roots: RootStore,
    secret: OverlaySecret,
    network: NetworkAuthority,
    pub(crate) infra: NodeKey,
    entropy: SeededEntropy,
    pub(crate) now: UnixTime,
}

impl TestOverlay {
    pub(crate) fn new(seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let authority = AuthorityKey::generate(&mut entropy);
        // Born two years ago, so that memberships can have ended since.
        let now = UnixTime(clocks::wall().as_secs());
        let born = UnixTime(now.0 - 2 * 365 * 86_400);
        let root = SignedRoot::first(&authority, born);
        Self {
            roots: RootStore::from_roots([root]).unwrap(),
            secret: OverlaySecret::generate(&mut entropy),
            network: NetworkAuthority::create("lab".parse().unwrap(), 1500, &mut entropy),
            infra: NodeKey::generate(&mut entropy),
            authority,
            entropy,
            now,
        }
    }

    pub(crate) fn id(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// A node and its encoded chain with its receipt, a member from a year ago until `seconds` from now.
    pub(crate) fn join(&mut self, seconds: i64) -> (NodeKey, Vec<u8>) {
        let issued = UnixTime(self.now.0 - 365 * 86_400);
        let (node, chain) = self.apply(issued, seconds);
        let application = chain.apply(&self.roots, issued).unwrap();
        let receipt = Books::new(&self.infra).receipt(self.id(), &application, issued);
        (node, chain.with_receipt(receipt.unwrap()).encode())
    }

    /// A node with an invite for one, issued at `issued` for an hour, and its certificate without a
    /// receipt, good until `seconds` from now.
    pub(crate) fn apply(&mut self, issued: UnixTime, seconds: i64) -> (NodeKey, Chain) {
        let infra = self.infra.peer_id();
        let request = InviteRequest {
            networks: vec![self.network.secret()],
            rights: Rights::DEFAULT,
            name: None,
            join_until: UnixTime(issued.0 + 3600),
            member_until: UnixTime(self.now.0.saturating_add_signed(seconds)),
            max_nodes: 1,
            witness: None,
            bootstraps: vec![format!("/ip4/192.0.2.1/tcp/22611/p2p/{infra}")],
        };
        let invite = issue_invite(
            &self.authority,
            &self.roots,
            &self.secret,
            request,
            issued,
            &mut self.entropy,
        )
        .unwrap();
        let node = NodeKey::generate(&mut self.entropy);
        let membership = invite.accept(&node, issued).unwrap();
        let chain = membership.chain().unwrap().clone();
        (node, chain)
    }

    pub(crate) fn member_gate(&self, chain: Vec<u8>) -> Arc<MemberGate> {
        let state = MemberState {
            roots: self.roots.clone(),
            chain,
            bootstraps: vec![self.infra.peer_id()],
        };
        Arc::new(MemberGate::new(state, Revocations::default(), None))
    }

    pub(crate) fn infra_gate(&self) -> Arc<InfraGate> {
        let addrs = vec!["0.0.0.0:7".parse().unwrap(), "192.0.2.9:8".parse().unwrap()];
        Arc::new(InfraGate::new(
            self.id(),
            addrs,
            None,
            Some(Arc::new(Books::new(&self.infra))),
            None,
        ))
    }

    /// The root documents after a planned change of the authority's key, which it keeps to itself.
    pub(crate) fn next_root(&mut self) -> RootStore {
        let new = AuthorityKey::generate(&mut self.entropy);
        let next = self.roots.successor(&self.authority, &new, self.now, 1);
        let mut roots = self.roots.clone();
        roots.advance(next).unwrap();
        roots
    }

    /// A list that revokes `entries`, encoded.
    pub(crate) fn revoke(&self, number: u64, entries: &[Revoked]) -> Vec<u8> {
        let mut entries = entries.to_vec();
        entries.sort();
        let list = RevocationList {
            root_version: 1,
            number,
            entries,
        };
        SignedRevocations::sign(&self.authority, self.id(), list).encode()
    }
}
