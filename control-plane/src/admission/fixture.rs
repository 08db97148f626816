//! An overlay with members and a bootstrap, for tests.

use std::sync::{Arc, Mutex};

use control_proto::admission::gates::MemberState;
use control_proto::admission::{InfraGate, MemberGate, Witness};
use host_services::clocks;
use overlay_proto::ids::OverlayId;
use overlay_proto::membership::test_authority::{self, TestWitness};
use overlay_proto::membership::{
    Application, AuthorityKey, Chain, NodeKey, RevocationList, Revocations, Revoked, RootStore,
    SignedPart, SignedRevocations, WitnessRefusal,
};
use overlay_proto::time::UnixTime;

const YEAR: u64 = 365 * 86_400;

/// A witness's books in memory.
#[derive(Debug)]
struct Books(Mutex<TestWitness>);

impl Witness for Books {
    fn receipt(
        &self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let mut witness = self.0.lock().unwrap();
        witness.receipt(overlay, application, now)
    }
}

/// An overlay that is as old as memberships can have ended in it.
pub(crate) struct TestOverlay {
    overlay: test_authority::TestOverlay,
    pub(crate) roots: RootStore,
    pub(crate) infra: NodeKey,
    pub(crate) now: UnixTime,
}

impl TestOverlay {
    pub(crate) fn new(seed: u64) -> Self {
        let now = UnixTime(clocks::wall().as_secs());
        let born = UnixTime(now.0 - 2 * YEAR);
        let overlay = test_authority::TestOverlay::born(born, seed, &["lab"]);
        Self {
            roots: overlay.roots.clone(),
            infra: overlay.witness.key.clone(),
            overlay,
            now,
        }
    }

    pub(crate) fn id(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// A node and its encoded chain with its receipt, a member from a year ago until `seconds` from now.
    pub(crate) fn join(&mut self, seconds: i64) -> (NodeKey, Vec<u8>) {
        let (node, chain) = self.apply(UnixTime(self.now.0 - YEAR), seconds);
        (node, self.overlay.receipt_of(&chain).encode())
    }

    /// A node with an invite for one, issued at `issued` for an hour, and its certificate without a
    /// receipt, good until `seconds` from now.
    pub(crate) fn apply(&mut self, issued: UnixTime, seconds: i64) -> (NodeKey, Chain) {
        self.overlay.now = issued;
        let mut request = self.overlay.request(&["lab"]);
        request.member_until = UnixTime(self.now.0.saturating_add_signed(seconds));
        let invite = self.overlay.issue(request).unwrap();
        let node = NodeKey::generate(&mut self.overlay.entropy);
        let membership = invite.accept(&node, issued).unwrap();
        (node, membership.chain().unwrap().clone())
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
        let books = Books(Mutex::new(TestWitness::new(self.infra.clone())));
        Arc::new(InfraGate::new(
            self.id(),
            addrs,
            None,
            Some(Arc::new(books)),
            None,
        ))
    }

    /// The root documents after a planned change of the authority's key, which it keeps to itself.
    pub(crate) fn next_root(&mut self) -> RootStore {
        let new = AuthorityKey::generate(&mut self.overlay.entropy);
        let mut roots = self.roots.clone();
        let next = roots.successor(&self.overlay.authority, &new, self.now, 1);
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
        SignedRevocations::sign(&self.overlay.authority, self.id(), list).encode()
    }
}
