//! Nodes with invented keys.

use crate::directory::claim::{Claim, ClaimKind, DefenderTag, VerifiedClaim};
use crate::directory::signed::Signed;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, OverlayId};
use crate::membership::NodeKey;
use crate::switching::MacKey;

pub(crate) const OVERLAY: OverlayId = OverlayId([0x0f; 32]);
pub(crate) const NETWORK: NetworkId = NetworkId([0x4e; 32]);
pub(crate) const EPOCH_KEY: [u8; 32] = [0xe9; 32];

/// The key of an invented node.
pub(crate) fn test_node(number: u8) -> NodeKey {
    NodeKey::from_secret(&[number; 32])
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

pub(crate) fn verified(node: &NodeKey, claim: &Claim) -> VerifiedClaim {
    let signed = Signed::seal(claim, node, &OVERLAY).unwrap();
    VerifiedClaim::open(&signed, &OVERLAY, &NETWORK, u64::MAX).unwrap()
}
