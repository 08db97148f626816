use overlay_proto::SeededEntropy;
use overlay_proto::membership::{
    AuthorityKey, InviteRequest, InviteUses, NetworkAuthority, NodeKey, OverlaySecret, Revoked,
    Rights, RootStore, SignedRevocations, SignedRoot, issue_invite,
};
use overlay_proto::time::UnixTime;

use super::*;
use crate::control::GateState;

const BORN: UnixTime = UnixTime(1_800_000_000);

/// A node that joined by an invite for each of two networks.
struct Joined {
    authority: AuthorityKey,
    me: PeerId,
    /// The witness, and another bootstrap.
    bootstraps: [PeerId; 2],
    /// By its first invite, without the receipt.
    fresh: Membership,
    membership: Membership,
}

fn two_invites() -> Joined {
    let mut entropy = SeededEntropy::new(8);
    let authority = AuthorityKey::generate(&mut entropy);
    let roots = RootStore::from_roots([SignedRoot::first(&authority, BORN)]).unwrap();
    let secret = OverlaySecret::generate(&mut entropy);
    let witness = NodeKey::generate(&mut entropy);
    let bootstraps = [&witness, &NodeKey::generate(&mut entropy)].map(NodeKey::peer_id);
    let node = NodeKey::generate(&mut entropy);
    let (mut fresh, mut all) = (None, None::<Membership>);
    for name in ["lab", "home"] {
        let network = NetworkAuthority::create(name.parse().unwrap(), 1_500, &mut entropy);
        let request = InviteRequest {
            networks: vec![network.secret()],
            rights: Rights::DEFAULT,
            name: None,
            join_until: UnixTime(BORN.0 + 3_600),
            member_until: UnixTime(BORN.0 + 86_400),
            max_nodes: 1,
            witness: None,
            bootstraps: bootstraps.map(address).to_vec(),
        };
        let invite =
            issue_invite(&authority, &roots, &secret, request, BORN, &mut entropy).unwrap();
        let mut joined = invite.accept(&node, BORN).unwrap();
        fresh.get_or_insert_with(|| joined.clone());
        let chain = joined.chain().unwrap().clone();
        let application = chain.apply(&roots, BORN).unwrap();
        let receipt = InviteUses::default().count(&application, BORN).unwrap();
        let receipt = receipt.sign(&witness, roots.overlay());
        joined.take_receipt(chain.with_receipt(receipt)).unwrap();
        match &mut all {
            Some(all) => drop(all.merge(joined, BORN).unwrap()),
            None => all = Some(joined),
        }
    }
    Joined {
        authority,
        me: node.peer_id(),
        bootstraps,
        fresh: fresh.unwrap(),
        membership: all.unwrap(),
    }
}

fn address(peer: PeerId) -> String {
    format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}")
}

#[test]
fn trust_8_a_node_shows_what_is_not_revoked_and_is_out_with_its_last_invite() {
    let Joined {
        authority,
        me,
        membership,
        ..
    } = two_invites();
    let mut all = Revocations::default();
    let mut revoke = |entry| {
        let list = all.successor(1, entry).unwrap();
        let list = SignedRevocations::sign(&authority, membership.overlay(), list);
        all.take(list, membership.roots()).unwrap();
        showable(&membership, &all, me).map(Chain::claimed_invite)
    };
    let usual = membership.chain().unwrap().claimed_invite();
    let other = membership
        .chains()
        .iter()
        .map(Chain::claimed_invite)
        .find(|invite| *invite != usual)
        .unwrap();
    assert_eq!(revoke(Revoked::Node(PeerId([9; 32]))), Some(usual));
    assert_eq!(revoke(Revoked::Invite(usual)), Some(other));
    assert_eq!(revoke(Revoked::Invite(other)), None);
    assert!(is_out(&membership, &all, me));
    // Each bootstrap would refuse it; what it says at the gate is the usual one.
    let gate = GateState::of(&membership, &all, me).unwrap();
    assert_eq!(gate.bootstraps, []);
    assert_eq!(gate.chain, membership.chain().unwrap().encode());
}

#[test]
fn trust_4_the_witness_alone_is_dialled_until_it_gave_the_receipt() {
    let joined = two_invites();
    let (none, me) = (Revocations::default(), joined.me);
    let texts = |membership: &Membership| -> Vec<String> {
        let dialled = bootstraps_to_dial(membership, &none, me).into_iter();
        dialled.map(|addr| addr.text().to_owned()).collect()
    };
    let [witness, _] = joined.bootstraps;
    assert_eq!(texts(&joined.fresh), [address(witness)]);
    assert_eq!(texts(&joined.membership), joined.bootstraps.map(address));
    let gate = |membership: &Membership| GateState::of(membership, &none, me).unwrap();
    assert_eq!(gate(&joined.fresh).bootstraps, [witness]);
    assert_eq!(gate(&joined.membership).bootstraps, joined.bootstraps);
    assert_eq!(&gate(&joined.membership).roots, joined.membership.roots());
}
