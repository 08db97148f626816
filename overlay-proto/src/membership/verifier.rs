//! Who the peers are: checks chains for the handshake and remembers what they proved.
//!
//! A node that joined with several invites has several certificates, and a handshake has room for
//! one. The others come in cards and admissions; whoever meets a certificate shows it to the
//! verifier, and a peer is in every network that any of its certificates proves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::{Chain, Member, certificate_hash};
use super::error::MembershipError;
use super::member_store::MAX_CHAINS;
use super::revocation::Revocations;
use super::rights::Rights;
use super::root::RootStore;
use super::static_key::SignedStatic;
use crate::drop_reason::DropReason;
use crate::handshake::{PeerVerifier, VerifiedPeer};
use crate::ids::{NetworkId, PeerId};
use crate::time::UnixTime;

/// Peers whose certificates are remembered: as many as one network has members. Above it the one used
/// longest ago is forgotten and must show them again.
pub const MAX_KNOWN_PEERS: usize = 4_096;

/// Certificates of all of them together; a peer has more than one if it joined by several invites. About 1 KB
/// each, the certificate and what it says: 8 MB.
const MAX_PROOFS: usize = 2 * MAX_KNOWN_PEERS;

/// A certificate that was verified once: signatures do not change, only dates pass. Root documents change,
/// too, but rarely; then each is verified once more, when it is next asked for.
#[derive(Debug)]
struct Proof {
    hash: [u8; 32],
    chain: Chain,
    member: Member,
    /// The count of changes of the root documents when it was verified.
    roots: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// Newest first, at most [`MAX_CHAINS`].
    proofs: Vec<Proof>,
    /// The count of uses when it was last used.
    used: u64,
}

#[derive(Debug, Default)]
struct Known {
    peers: BTreeMap<PeerId, Peer>,
    /// Certificates of all.
    proofs: usize,
    uses: u64,
    /// How often the root documents have changed.
    roots: u64,
}

/// Checks certificates against the root documents and remembers who proved what.
///
/// Hold it in an `Arc`: [`crate::tunnels`] asks it, the driver shows it the certificates it meets
/// and asks it about rights. Tell it each change of the root documents, the own networks and the revocations.
#[derive(Debug)]
pub struct MemberVerifier {
    roots: RootStore,
    /// The own networks.
    networks: Vec<NetworkId>,
    revocations: Arc<Revocations>,
    known: Mutex<Known>,
}

impl MemberVerifier {
    /// Nobody is known yet. `networks` are the own ones.
    #[must_use]
    pub fn new(roots: RootStore, networks: Vec<NetworkId>) -> Self {
        Self {
            roots,
            networks,
            revocations: Arc::default(),
            known: Mutex::default(),
        }
    }

    /// Goes by `roots` from now on, and asks in handshakes about `networks`. Whoever is known stays known by what
    /// proves it under these roots as well.
    pub fn set_roots(&mut self, roots: RootStore, networks: Vec<NetworkId>) {
        self.roots = roots;
        self.networks = networks;
        self.known().roots += 1;
    }

    /// Goes by `revocations` from now on, and forgets what they void. The peers that lost a
    /// certificate: ask what they still may.
    pub fn set_revocations(&mut self, revocations: Arc<Revocations>) -> Vec<PeerId> {
        self.revocations = revocations;
        let mut known = self.known();
        let mut lost = Vec::new();
        let mut proofs = 0;
        known.peers.retain(|&id, peer| {
            let before = peer.proofs.len();
            peer.proofs.retain(|proof| {
                let invite = proof.member.invite_id;
                self.revocations.check(id, invite).is_ok()
            });
            if peer.proofs.len() < before {
                lost.push(id);
            }
            proofs += peer.proofs.len();
            !peer.proofs.is_empty()
        });
        known.proofs = proofs;
        drop(known);
        lost
    }

    /// Checks a certificate of any peer and remembers it. It says whom it names, not who sent it:
    /// compare [`Member::peer`] with the signer or the connection that it came with.
    ///
    /// # Errors
    /// As [`Chain::decode`] and [`Chain::verify`]; [`MembershipError::Revoked`], before any signature
    /// is checked.
    pub fn show(&self, chain: &[u8], wall: UnixTime) -> Result<Member, MembershipError> {
        let hash = certificate_hash(chain);
        let chain = Chain::decode(chain)?;
        let peer = chain.claimed_peer();
        self.revocations.check(peer, chain.claimed_invite())?;
        let mut known = self.known();
        if let Some(member) = known.proven(peer, &hash, &self.roots, wall) {
            member.check_date(self.roots.now(wall))?;
            return Ok(member);
        }
        let member = chain.verify(&self.roots, wall)?;
        let proof = Proof {
            hash,
            chain,
            member: member.clone(),
            roots: known.roots,
        };
        known.remember(peer, proof);
        Ok(member)
    }

    /// The rights of `peer` in `network` by all certificates it has shown that count at `wall`;
    /// `None` if none of them proves it a member there.
    #[must_use]
    pub fn rights_in(&self, peer: PeerId, network: &NetworkId, wall: UnixTime) -> Option<Rights> {
        let now = self.roots.now(wall);
        let mut known = self.known();
        let peer = known.current(peer, &self.roots, wall)?;
        peer.proofs
            .iter()
            .filter(|proof| proof.member.check_date(now).is_ok())
            .filter_map(|proof| proof.member.rights_in(network))
            .reduce(|all, rights| all | rights)
    }

    /// May `peer` send frames and claim MACs in `network`?
    #[must_use]
    pub fn may_send(&self, peer: PeerId, network: &NetworkId, wall: UnixTime) -> bool {
        let rights = self.rights_in(peer, network, wall);
        rights.is_some_and(|rights| rights.contains(Rights::SEND))
    }

    /// The name that the authority gave `peer`, by its newest certificate that has one.
    #[must_use]
    pub fn name_of(&self, peer: PeerId) -> Option<String> {
        let known = self.known();
        let mut proofs = known.peers.get(&peer)?.proofs.iter();
        proofs.find_map(|proof| proof.member.name.clone())
    }

    /// A panic elsewhere leaves the map whole: every change of it is one insertion or removal.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is known of `peer`, by certificates that count under `roots`.
    fn current(&mut self, id: PeerId, roots: &RootStore, wall: UnixTime) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&id)?;
        let before = peer.proofs.len();
        let version = self.roots;
        peer.proofs.retain_mut(|proof| {
            if proof.roots != version {
                let Ok(member) = proof.chain.verify(roots, wall) else {
                    return false;
                };
                (proof.member, proof.roots) = (member, version);
            }
            true
        });
        self.proofs -= before - peer.proofs.len();
        if peer.proofs.is_empty() {
            self.peers.remove(&id);
        }
        self.peers.get_mut(&id)
    }

    fn proven(
        &mut self,
        id: PeerId,
        hash: &[u8; 32],
        roots: &RootStore,
        wall: UnixTime,
    ) -> Option<Member> {
        self.uses += 1;
        let uses = self.uses;
        let peer = self.current(id, roots, wall)?;
        peer.used = uses;
        let proof = peer.proofs.iter().find(|proof| proof.hash == *hash)?;
        Some(proof.member.clone())
    }

    fn remember(&mut self, id: PeerId, proof: Proof) {
        let entry = self.peers.entry(id).or_default();
        entry.used = self.uses;
        entry.proofs.insert(0, proof);
        self.proofs += 1;
        if entry.proofs.len() > MAX_CHAINS {
            entry.proofs.truncate(MAX_CHAINS);
            self.proofs -= 1;
        }
        while self.peers.len() > MAX_KNOWN_PEERS || self.proofs > MAX_PROOFS {
            let others = self.peers.iter().filter(|(other, _)| **other != id);
            let Some((&oldest, _)) = others.min_by_key(|(_, peer)| peer.used) else {
                return;
            };
            let gone = self.peers.remove(&oldest);
            self.proofs -= gone.map_or(0, |peer| peer.proofs.len());
        }
    }
}

impl PeerVerifier for MemberVerifier {
    fn verify(
        &self,
        chain: &[u8],
        signed_static: &[u8],
        wall: UnixTime,
    ) -> Result<VerifiedPeer, DropReason> {
        let refused = |error: MembershipError| match error {
            MembershipError::Revoked(_) => DropReason::Revoked,
            _ => DropReason::CertificateRefused,
        };
        let member = self.show(chain, wall).map_err(refused)?;
        let binding = SignedStatic::decode(signed_static)
            .and_then(|signed| {
                signed.verify(member.peer, self.roots.overlay(), self.roots.now(wall))
            })
            .map_err(refused)?;
        let shared = |network: &&NetworkId| self.rights_in(member.peer, network, wall).is_some();
        Ok(VerifiedPeer {
            peer: member.peer,
            static_key: binding.public,
            networks: self.networks.iter().filter(shared).copied().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::test_authority::{BORN, TestOverlay};
    use crate::membership::{NodeKey, Revoked, SignedRevocations, StaticBinding};

    fn signed_static(overlay: &TestOverlay, node: &NodeKey) -> Vec<u8> {
        let binding = StaticBinding {
            public: [5; 32],
            sequence: 1,
            not_after: UnixTime(BORN.0 + 1_000_000_000),
        };
        SignedStatic::sign(node, overlay.roots.overlay(), &binding).encode()
    }

    #[test]
    fn certificates_of_one_peer_add_up() {
        let mut overlay = TestOverlay::new(31, &["lab", "home", "other"]);
        let ids: Vec<_> = overlay
            .networks
            .iter()
            .map(|network| network.id())
            .collect();
        let (node, lab) = overlay.member(&["lab"]);
        let mut request = overlay.request(&["home"]);
        request.name = Some("ash".to_owned());
        let home = overlay.issue(request).unwrap().accept(&node, BORN).unwrap();
        let home = overlay.receipted(home);
        let binding = signed_static(&overlay, &node);
        let verifier = MemberVerifier::new(overlay.roots.clone(), ids.clone());
        let chain = lab.chain().unwrap().encode();
        let verify = || verifier.verify(&chain, &binding, BORN).unwrap();
        assert_eq!(verify().networks, ids[..1]);
        verifier
            .show(&home.chain().unwrap().encode(), BORN)
            .unwrap();
        assert_eq!(verify().networks, ids[..2]);
        assert!(verifier.may_send(node.peer_id(), &ids[1], BORN));
        assert!(!verifier.may_send(node.peer_id(), &ids[2], BORN));
        assert_eq!(verifier.name_of(node.peer_id()).as_deref(), Some("ash"));

        // Remembered, and still judged by its dates.
        let late = UnixTime(lab.own_member(BORN).unwrap().member_until.0 + 601);
        assert!(matches!(
            verifier.show(&chain, late),
            Err(MembershipError::Expired { .. })
        ));
        assert!(!verifier.may_send(node.peer_id(), &ids[0], late));
    }

    #[test]
    fn strangers_are_refused_and_not_remembered() {
        let mut overlay = TestOverlay::new(32, &["lab"]);
        let mut other = TestOverlay::new(33, &["lab"]);
        let (node, membership) = overlay.member(&["lab"]);
        let (_, foreign) = other.member(&["lab"]);
        let verifier = MemberVerifier::new(overlay.roots.clone(), vec![overlay.networks[0].id()]);
        let binding = signed_static(&overlay, &node);
        let refused = Err(DropReason::CertificateRefused);
        let chain = foreign.chain().unwrap().encode();
        assert_eq!(verifier.verify(&chain, &binding, BORN), refused);
        assert!(verifier.known().peers.is_empty());
        let chain = membership.chain().unwrap().encode();
        let wrong = signed_static(&overlay, &overlay.witness.key);
        assert_eq!(verifier.verify(&chain, &wrong, BORN), refused);
    }

    fn revoking(overlay: &TestOverlay, entries: &[Revoked]) -> Arc<Revocations> {
        let mut all = Revocations::default();
        for entry in entries {
            let list = all.successor(1, *entry).unwrap();
            let list = SignedRevocations::sign(&overlay.authority, overlay.roots.overlay(), list);
            all.take(list, &overlay.roots).unwrap();
        }
        Arc::new(all)
    }

    #[test]
    fn trust_8_a_revoked_node_is_forgotten_and_refused() {
        let mut overlay = TestOverlay::new(35, &["lab"]);
        let id = overlay.networks[0].id();
        let (node, membership) = overlay.member(&["lab"]);
        let (other, theirs) = overlay.member(&["lab"]);
        let (binding, chain) = (
            signed_static(&overlay, &node),
            membership.chain().unwrap().encode(),
        );
        let mut verifier = MemberVerifier::new(overlay.roots.clone(), vec![id]);
        verifier.verify(&chain, &binding, BORN).unwrap();
        let theirs = theirs.chain().unwrap().encode();
        verifier.show(&theirs, BORN).unwrap();
        let revoked = revoking(&overlay, &[Revoked::Node(node.peer_id())]);
        assert_eq!(verifier.set_revocations(revoked), [node.peer_id()]);
        assert!(!verifier.may_send(node.peer_id(), &id, BORN));
        let refused = verifier.verify(&chain, &binding, BORN);
        assert_eq!(refused, Err(DropReason::Revoked));
        assert!(verifier.may_send(other.peer_id(), &id, BORN));
        assert!(verifier.show(&theirs, BORN).is_ok());
    }

    #[test]
    fn trust_8_a_revoked_invite_voids_its_certificates_alone() {
        let mut overlay = TestOverlay::new(36, &["lab", "home"]);
        let ids: Vec<_> = overlay.networks.iter().map(|n| n.id()).collect();
        let (node, lab) = overlay.member(&["lab"]);
        let home = overlay.join(&node, &["home"]);
        let home = overlay.receipted(home).chain().unwrap().encode();
        let chain = lab.chain().unwrap().encode();
        let mut verifier = MemberVerifier::new(overlay.roots.clone(), ids.clone());
        let member = verifier.show(&chain, BORN).unwrap();
        verifier.show(&home, BORN).unwrap();
        let entry = Revoked::Invite(member.invite_id);
        let lost = verifier.set_revocations(revoking(&overlay, &[entry]));
        assert_eq!(lost, [node.peer_id()]);
        assert!(!verifier.may_send(node.peer_id(), &ids[0], BORN));
        assert!(verifier.may_send(node.peer_id(), &ids[1], BORN));
        let refused = Err(MembershipError::Revoked(entry));
        assert_eq!(verifier.show(&chain, BORN), refused);
        assert!(verifier.show(&home, BORN).is_ok());
    }

    #[test]
    fn new_roots_leave_known_who_is_a_member_under_them() {
        let mut overlay = TestOverlay::new(37, &["lab"]);
        let id = overlay.networks[0].id();
        let (node, membership) = overlay.member(&["lab"]);
        let chain = membership.chain().unwrap().encode();
        let mut verifier = MemberVerifier::new(overlay.roots.clone(), vec![id]);
        verifier.show(&chain, BORN).unwrap();
        assert!(verifier.may_send(node.peer_id(), &id, BORN));
        // The old key's word still counts: nothing has to be shown again.
        overlay.rotate(1);
        verifier.set_roots(overlay.roots.clone(), vec![id]);
        assert!(verifier.may_send(node.peer_id(), &id, BORN));
        // Now it does not.
        overlay.rotate(3);
        verifier.set_roots(overlay.roots.clone(), vec![id]);
        assert!(!verifier.may_send(node.peer_id(), &id, BORN));
        assert_eq!(verifier.known().proofs, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Known::default();
        let mut overlay = TestOverlay::new(34, &["lab"]);
        let (_, membership) = overlay.member(&["lab"]);
        let member = membership.own_member(BORN).unwrap();
        let chain = membership.chain().unwrap().clone();
        for n in 0..MAX_KNOWN_PEERS + 10 {
            let mut peer = PeerId([0; 32]);
            peer.0[..8].copy_from_slice(&n.to_be_bytes());
            // Every fourth has joined over and over.
            let certificates = if n % 4 == 0 { 10 } else { 1 };
            for hash in 0..certificates {
                known.proven(peer, &[hash; 32], &overlay.roots, BORN);
                let proof = Proof {
                    hash: [hash; 32],
                    chain: chain.clone(),
                    member: member.clone(),
                    roots: 0,
                };
                known.remember(peer, proof);
            }
            let kept = known.peers[&peer].proofs.len();
            assert_eq!(kept, MAX_CHAINS.min(usize::from(certificates)));
            let all: usize = known.peers.values().map(|peer| peer.proofs.len()).sum();
            assert!(all == known.proofs && all <= MAX_PROOFS);
            assert!(known.peers.len() <= MAX_KNOWN_PEERS);
        }
        assert!(!known.peers.contains_key(&PeerId([0; 32])));
    }
}
