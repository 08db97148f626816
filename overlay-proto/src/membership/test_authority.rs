//! An overlay with its authority and its witness in memory, the same for the same seed: what the tests of all
//! rooms and the simulator join.
//!
//! Not part of the programs: it is built for this crate's tests, and for others with the feature
//! `test-authority`. Its keys come from a generator that anybody can run, and what goes wrong panics.
#![allow(
    clippy::unwrap_used,
    reason = "a test that has no overlay has nothing to go on with"
)]

use std::collections::BTreeMap;

use nat_traversal::entropy::SeededEntropy;

use super::{
    Application, AuthorityKey, Chain, Invite, InviteId, InviteRequest, InviteUses, IssueError,
    Membership, NetworkAuthority, NodeKey, OverlaySecret, RevocationLine, Revocations, Revoked,
    Rights, RootStore, SignedEpoch, SignedPart, SignedRevocations, SignedRoot, WitnessRefusal,
    issue_invite,
};
use crate::ids::{OverlayId, PeerId};
use crate::time::UnixTime;

/// When the overlay is born, unless a test says otherwise.
pub const BORN: UnixTime = UnixTime(1_800_000_000);

const HOUR: u64 = 3_600;

/// The witness of the overlay's invites, with its books.
#[derive(Debug, Clone)]
pub struct TestWitness {
    /// Its identity.
    pub key: NodeKey,
    /// Bound: the invites that tests use.
    uses: BTreeMap<InviteId, InviteUses>,
}

impl TestWitness {
    /// Whose books are empty.
    #[must_use]
    pub fn new(key: NodeKey) -> Self {
        Self {
            key,
            uses: BTreeMap::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Counts the use of an invite, and signs the receipt.
    ///
    /// # Errors
    /// The invite is used up, or it is too late.
    pub fn receipt(
        &mut self,
        overlay: OverlayId,
        application: &Application,
        now: UnixTime,
    ) -> Result<SignedPart, WitnessRefusal> {
        let uses = self.uses.entry(application.member.invite_id).or_default();
        let receipt = uses.count(application, now)?;
        Ok(receipt.sign(&self.key, overlay))
    }
}

/// An authority with its networks.
#[derive(Debug)]
pub struct TestOverlay {
    /// The key of the newest root document.
    pub authority: AuthorityKey,
    /// All root documents.
    pub roots: RootStore,
    /// The secret that invites carry.
    pub secret: OverlaySecret,
    /// In the order of their names as they were given.
    pub networks: Vec<NetworkAuthority>,
    /// Who gives the receipts.
    pub witness: TestWitness,
    /// What invites name: at first the witness, at an address where nobody is.
    pub bootstraps: Vec<String>,
    /// Who is out, as far as lists were taken into it.
    pub revoked: Revocations,
    /// What the clock of authority, witness and those who join says.
    pub now: UnixTime,
    /// What further keys are drawn from.
    pub entropy: SeededEntropy,
}

impl TestOverlay {
    /// An overlay with networks of these names, born at [`BORN`].
    ///
    /// # Panics
    /// A name is none.
    #[must_use]
    pub fn new(seed: u64, networks: &[&str]) -> Self {
        Self::born(BORN, seed, networks)
    }

    /// As [`TestOverlay::new`], born at another time.
    ///
    /// # Panics
    /// A name is none.
    #[must_use]
    pub fn born(now: UnixTime, seed: u64, networks: &[&str]) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let authority = AuthorityKey::generate(&mut entropy);
        let named =
            |name: &&str| NetworkAuthority::create(name.parse().unwrap(), 1_500, &mut entropy);
        let networks = networks.iter().map(named).collect();
        let secret = OverlaySecret::generate(&mut entropy);
        let witness = NodeKey::generate(&mut entropy);
        Self::with_keys(now, authority, networks, (secret, witness), entropy)
    }

    /// Of these keys. Whoever has documents or histories from an order of draws of his own keeps them.
    ///
    /// # Panics
    /// Never: the root document is our own.
    #[must_use]
    pub fn with_keys(
        now: UnixTime,
        authority: AuthorityKey,
        networks: Vec<NetworkAuthority>,
        (secret, witness): (OverlaySecret, NodeKey),
        entropy: SeededEntropy,
    ) -> Self {
        Self {
            roots: RootStore::from_roots([SignedRoot::first(&authority, now)]).unwrap(),
            bootstraps: vec![bootstrap_address(witness.peer_id())],
            witness: TestWitness::new(witness),
            revoked: Revocations::default(),
            authority,
            secret,
            networks,
            now,
            entropy,
        }
    }

    /// The overlay's name.
    #[must_use]
    pub fn id(&self) -> OverlayId {
        self.roots.overlay()
    }

    /// What to ask for an invite to the named networks: default rights, one node, within an hour, for 1,000.
    #[must_use]
    pub fn request(&self, networks: &[&str]) -> InviteRequest {
        let wanted = |network: &&NetworkAuthority| networks.contains(&network.name.as_str());
        let networks = self.networks.iter().filter(wanted);
        InviteRequest {
            networks: networks.map(NetworkAuthority::secret).collect(),
            rights: Rights::DEFAULT,
            name: None,
            join_until: UnixTime(self.now.0 + HOUR),
            member_until: UnixTime(self.now.0 + 1_000 * HOUR),
            max_nodes: 1,
            witness: None,
            bootstraps: self.bootstraps.clone(),
        }
    }

    /// The invite.
    ///
    /// # Errors
    /// Nobody may issue what is asked for.
    pub fn issue(&mut self, request: InviteRequest) -> Result<Invite, IssueError> {
        let (authority, roots, secret) = (&self.authority, &self.roots, &self.secret);
        issue_invite(
            authority,
            roots,
            secret,
            request,
            self.now,
            &mut self.entropy,
        )
    }

    /// A node of this key joins by an invite of its own to the named networks; it has no receipt yet.
    ///
    /// # Panics
    /// The time is none in which that can be.
    pub fn join(&mut self, node: &NodeKey, networks: &[&str]) -> Membership {
        let request = self.request(networks);
        let invite = self.issue(request).unwrap();
        invite.accept(node, self.now).unwrap()
    }

    /// A node that joined the named networks.
    ///
    /// # Panics
    /// As [`TestOverlay::join`].
    pub fn member(&mut self, networks: &[&str]) -> (NodeKey, Membership) {
        let node = NodeKey::generate(&mut self.entropy);
        let membership = self.join(&node, networks);
        (node, self.receipted(membership))
    }

    /// What `nodes` nodes ask the witness who share one invite for `max_nodes` of them.
    ///
    /// # Panics
    /// As [`TestOverlay::join`].
    pub fn applications(&mut self, max_nodes: u32, nodes: usize) -> Vec<Application> {
        let names: Vec<_> = self.networks.iter().map(|n| n.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        let mut request = self.request(&names);
        request.max_nodes = max_nodes;
        let text = self.issue(request).unwrap().to_text();
        let apply = |_| {
            let node = NodeKey::generate(&mut self.entropy);
            let invite = Invite::parse(&text).unwrap();
            let membership = invite.accept(&node, self.now).unwrap();
            let chain = membership.chain().unwrap();
            chain.apply(&self.roots, self.now).unwrap()
        };
        (0..nodes).map(apply).collect()
    }

    /// The certificate with the witness's receipt.
    ///
    /// # Panics
    /// It does not count, or the witness gives none.
    pub fn receipt_of(&mut self, chain: &Chain) -> Chain {
        let (id, application) = (self.id(), chain.apply(&self.roots, self.now).unwrap());
        let receipt = self.witness.receipt(id, &application, self.now);
        chain.clone().with_receipt(receipt.unwrap())
    }

    /// As the witness leaves it: every certificate with its receipt.
    ///
    /// # Panics
    /// As [`TestOverlay::receipt_of`].
    pub fn receipted(&mut self, mut membership: Membership) -> Membership {
        loop {
            let next = membership.without_receipt().next().cloned();
            let Some(chain) = next else {
                return membership;
            };
            membership.take_receipt(self.receipt_of(&chain)).unwrap();
        }
    }

    /// The authority changes its key; what root versions before `oldest` signed counts no more.
    ///
    /// # Panics
    /// There were too many already.
    pub fn rotate(&mut self, oldest: u32) {
        let new = AuthorityKey::generate(&mut self.entropy);
        let next = self
            .roots
            .successor(&self.authority, &new, self.now, oldest);
        self.roots.advance(next).unwrap();
        self.authority = new;
    }

    /// New keys for the network with this place, because of the lists taken so far.
    ///
    /// # Panics
    /// There is no such network.
    pub fn next_epoch(&mut self, network: usize) -> SignedEpoch {
        let list = self.revoked.number();
        let network = self.networks.get_mut(network).unwrap();
        let epoch = network.next_epoch(&self.authority, &self.roots, list, self.now);
        epoch.unwrap()
    }

    /// The list after those taken so far, with one entry more. Taking it is the caller's.
    ///
    /// # Panics
    /// There is no room on it.
    #[must_use]
    pub fn next_list(&self, entry: Revoked) -> SignedRevocations {
        let version = self.roots.newest().version;
        let list = self.revoked.successor(version, entry).unwrap();
        SignedRevocations::sign(&self.authority, self.id(), list)
    }

    /// The line for `farlan apply` with all root documents.
    #[must_use]
    pub fn line(&self, list: SignedRevocations, epochs: &[SignedEpoch]) -> RevocationLine {
        let epochs = epochs.iter().map(|epoch| epoch.encode().into());
        RevocationLine {
            roots: self.roots.above(0).to_vec(),
            list,
            epochs: epochs.collect(),
        }
    }
}

/// Where invites say that `peer` is: documentation's address, so nobody is.
#[must_use]
pub fn bootstrap_address(peer: PeerId) -> String {
    format!("/ip4/192.0.2.1/udp/22611/quic-v1/p2p/{peer}")
}
