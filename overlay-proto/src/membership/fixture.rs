//! A small overlay for tests, the same for the same seed.

use nat_traversal::entropy::SeededEntropy;

use super::{
    AuthorityKey, Invite, InviteRequest, InviteUses, IssueError, Membership, NetworkAuthority,
    NodeKey, OverlaySecret, Rights, RootStore, SignedRoot, issue_invite,
};
use crate::ids::PeerId;
use crate::time::UnixTime;

/// When the fixture's overlay is born.
pub(crate) const BORN: UnixTime = UnixTime(1_800_000_000);

const HOUR: u64 = 3_600;

/// An authority with its networks.
pub(crate) struct TestOverlay {
    pub(crate) authority: AuthorityKey,
    pub(crate) roots: RootStore,
    pub(crate) secret: OverlaySecret,
    pub(crate) networks: Vec<NetworkAuthority>,
    pub(crate) witness: NodeKey,
    pub(crate) entropy: SeededEntropy,
}

impl TestOverlay {
    pub(crate) fn new(seed: u64, networks: &[&str]) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let authority = AuthorityKey::generate(&mut entropy);
        let roots = RootStore::from_roots([SignedRoot::first(&authority, BORN)]).unwrap();
        let networks = networks
            .iter()
            .map(|name| NetworkAuthority::create(name.parse().unwrap(), 1_500, &mut entropy))
            .collect();
        Self {
            secret: OverlaySecret::generate(&mut entropy),
            witness: NodeKey::generate(&mut entropy),
            authority,
            roots,
            networks,
            entropy,
        }
    }

    /// An invite to the named networks with default rights, for an hour.
    pub(crate) fn request(&self, networks: &[&str]) -> InviteRequest {
        let wanted = |network: &&NetworkAuthority| networks.contains(&network.name.as_str());
        InviteRequest {
            networks: self
                .networks
                .iter()
                .filter(wanted)
                .map(NetworkAuthority::secret)
                .collect(),
            rights: Rights::DEFAULT,
            name: Some("ash".to_owned()),
            join_until: UnixTime(BORN.0 + HOUR),
            member_until: UnixTime(BORN.0 + 1_000 * HOUR),
            max_nodes: 1,
            witness: None,
            bootstraps: vec![bootstrap_address(self.witness.peer_id())],
        }
    }

    pub(crate) fn issue(&mut self, request: InviteRequest) -> Result<Invite, IssueError> {
        let (authority, roots) = (&self.authority, &self.roots);
        issue_invite(
            authority,
            roots,
            &self.secret,
            request,
            BORN,
            &mut self.entropy,
        )
    }

    /// The authority changes its key; what root versions before `oldest` signed counts no more.
    pub(crate) fn rotate(&mut self, oldest: u32) {
        let new = AuthorityKey::generate(&mut self.entropy);
        let next = self.roots.successor(&self.authority, &new, BORN, oldest);
        self.roots.advance(next).unwrap();
        self.authority = new;
    }

    /// A node that joined the named networks.
    pub(crate) fn member(&mut self, networks: &[&str]) -> (NodeKey, Membership) {
        let request = self.request(networks);
        let invite = self.issue(request).unwrap();
        let node = NodeKey::generate(&mut self.entropy);
        let membership = invite.accept(&node, BORN).unwrap();
        (node, self.receipted(membership))
    }

    /// As the witness leaves it: every certificate with its receipt.
    pub(crate) fn receipted(&self, mut membership: Membership) -> Membership {
        loop {
            let next = membership.without_receipt().next().cloned();
            let Some(chain) = next else {
                return membership;
            };
            let mut uses = InviteUses::default();
            let application = chain.apply(&self.roots, BORN).unwrap();
            let receipt = uses.count(&application, BORN).unwrap();
            let part = receipt.sign(&self.witness, self.roots.overlay());
            membership.take_receipt(chain.with_receipt(part)).unwrap();
        }
    }
}

pub(crate) fn bootstrap_address(peer: PeerId) -> String {
    format!("/ip4/192.0.2.1/udp/22611/quic-v1/p2p/{peer}")
}
