//! Nodes with invented keys.

use ed25519_dalek::{Signer as _, SigningKey};

use crate::directory::claim::{Claim, ClaimKind, DefenderTag, VerifiedClaim};
use crate::directory::signed::{Signed, Signer, signed_message};
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::switching::MacKey;

pub(crate) const OVERLAY: OverlayId = OverlayId([0x0f; 32]);
pub(crate) const NETWORK: NetworkId = NetworkId([0x4e; 32]);
pub(crate) const EPOCH_KEY: [u8; 32] = [0xe9; 32];

/// A node's key.
pub(crate) struct TestNode(SigningKey);

impl TestNode {
    pub(crate) fn new(number: u8) -> Self {
        Self(SigningKey::from_bytes(&[number; 32]))
    }
}

impl Signer for TestNode {
    fn peer(&self) -> PeerId {
        PeerId(self.0.verifying_key().to_bytes())
    }

    fn sign(&self, label: &str, overlay: &OverlayId, bytes: &[u8]) -> [u8; 64] {
        self.0
            .sign(&signed_message(label, overlay, bytes))
            .to_bytes()
    }
}

pub(crate) fn mac_key(number: u8) -> MacKey {
    MacKey {
        vlan: VlanId::UNTAGGED,
        mac: MacAddr([0x52, 0x54, 0, 0, 0, number]),
    }
}

pub(crate) fn claim(mac: u8, generation: u64, refresh: u64) -> Claim {
    Claim {
        network: NETWORK,
        vlan: VlanId::UNTAGGED,
        mac: mac_key(mac).mac,
        generation,
        kind: ClaimKind::Learned,
        predecessor: [0; 32],
        contested: 0,
        defender: DefenderTag::default(),
        ips: Vec::new(),
        refresh,
    }
}

pub(crate) fn verified(node: &TestNode, claim: &Claim) -> VerifiedClaim {
    let signed = Signed::seal(claim, node, &OVERLAY).unwrap();
    VerifiedClaim::open(&signed, &OVERLAY, &NETWORK, u64::MAX).unwrap()
}
