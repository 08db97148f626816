//! Who the peers are: checks chains for the handshake and remembers what they proved.
//!
//! A node that joined with several invites has several certificates, and a handshake has room for
//! one. The others come in cards and admissions; whoever meets a certificate shows it to the
//! verifier, and a peer is in every network that any of its certificates proves.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chain::{Chain, Member, certificate_hash};
use super::error::MembershipError;
use super::member_store::MAX_CHAINS;
use super::rights::Rights;
use super::root::RootStore;
use super::static_key::SignedStatic;
use crate::drop_reason::DropReason;
use crate::handshake::{PeerVerifier, VerifiedPeer};
use crate::ids::{NetworkId, PeerId};
use crate::time::UnixTime;

/// Peers whose certificates are remembered; above it the one used longest ago is forgotten and
/// must show them again. With [`MAX_CHAINS`] each and about 400 bytes a certificate: 3.2 MB.
pub const MAX_KNOWN_PEERS: usize = 1_024;

/// A certificate that was verified once: signatures do not change, only dates pass.
#[derive(Debug)]
struct Proof {
    hash: [u8; 32],
    member: Member,
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
    peers: HashMap<PeerId, Peer>,
    uses: u64,
}

/// Checks certificates against the root documents and remembers who proved what.
///
/// Hold it in an `Arc`: [`crate::tunnels`] asks it, the driver shows it the certificates it meets
/// and asks it about rights. Make a new one when root documents or the own networks change.
#[derive(Debug)]
pub struct MemberVerifier {
    roots: RootStore,
    /// The own networks.
    networks: Vec<NetworkId>,
    known: Mutex<Known>,
}

impl MemberVerifier {
    /// Nobody is known yet. `networks` are the own ones.
    #[must_use]
    pub fn new(roots: RootStore, networks: Vec<NetworkId>) -> Self {
        Self {
            roots,
            networks,
            known: Mutex::default(),
        }
    }

    /// Checks a certificate of any peer and remembers it. It says whom it names, not who sent it:
    /// compare [`Member::peer`] with the signer or the connection that it came with.
    ///
    /// # Errors
    /// As [`Chain::decode`] and [`Chain::verify`].
    pub fn show(&self, chain: &[u8], wall: UnixTime) -> Result<Member, MembershipError> {
        let hash = certificate_hash(chain);
        let chain = Chain::decode(chain)?;
        let peer = chain.claimed_peer();
        if let Some(member) = self.known().proven(peer, &hash) {
            member.check_date(self.roots.now(wall))?;
            return Ok(member);
        }
        let member = chain.verify(&self.roots, wall)?;
        let proof = Proof {
            hash,
            member: member.clone(),
        };
        self.known().remember(peer, proof);
        Ok(member)
    }

    /// The rights of `peer` in `network` by all certificates it has shown that count at `wall`;
    /// `None` if none of them proves it a member there.
    #[must_use]
    pub fn rights_in(&self, peer: PeerId, network: &NetworkId, wall: UnixTime) -> Option<Rights> {
        let now = self.roots.now(wall);
        let known = self.known();
        let proofs = &known.peers.get(&peer)?.proofs;
        proofs
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
    fn proven(&mut self, peer: PeerId, hash: &[u8; 32]) -> Option<Member> {
        self.uses += 1;
        let uses = self.uses;
        let peer = self.peers.get_mut(&peer)?;
        peer.used = uses;
        let proof = peer.proofs.iter().find(|proof| proof.hash == *hash)?;
        Some(proof.member.clone())
    }

    fn remember(&mut self, peer: PeerId, proof: Proof) {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_KNOWN_PEERS {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used);
            if let Some(oldest) = oldest.map(|(&peer, _)| peer) {
                self.peers.remove(&oldest);
            }
        }
        let entry = self.peers.entry(peer).or_default();
        entry.used = self.uses;
        entry.proofs.insert(0, proof);
        entry.proofs.truncate(MAX_CHAINS);
    }
}

impl PeerVerifier for MemberVerifier {
    fn verify(
        &self,
        chain: &[u8],
        signed_static: &[u8],
        wall: UnixTime,
    ) -> Result<VerifiedPeer, DropReason> {
        let refused = |_: MembershipError| DropReason::CertificateRefused;
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
    use crate::membership::fixture::{BORN, TestOverlay};
    use crate::membership::{NodeKey, StaticBinding};

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
        let request = overlay.request(&["home"]);
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
        let wrong = signed_static(&overlay, &overlay.witness);
        assert_eq!(verifier.verify(&chain, &wrong, BORN), refused);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Known::default();
        let mut overlay = TestOverlay::new(34, &["lab"]);
        let (_, membership) = overlay.member(&["lab"]);
        let member = membership.own_member(BORN).unwrap();
        for n in 0..MAX_KNOWN_PEERS + 10 {
            let mut peer = PeerId([0; 32]);
            peer.0[..8].copy_from_slice(&n.to_be_bytes());
            for hash in 0..10 {
                known.proven(peer, &[hash; 32]);
                let member = member.clone();
                known.remember(
                    peer,
                    Proof {
                        hash: [hash; 32],
                        member,
                    },
                );
            }
            assert_eq!(known.peers[&peer].proofs.len(), (MAX_CHAINS).min(10));
        }
        assert_eq!(known.peers.len(), MAX_KNOWN_PEERS);
        assert!(!known.peers.contains_key(&PeerId([0; 32])));
    }
}
