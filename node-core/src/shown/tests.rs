use overlay_proto::membership::test_authority::{BORN, TestOverlay, bootstrap_address};
use overlay_proto::membership::{NodeKey, Revoked};

use super::*;
use crate::control::GateState;

/// A node that joined by an invite for each of two networks.
struct Joined {
    overlay: TestOverlay,
    me: PeerId,
    /// The witness, and another bootstrap.
    bootstraps: [PeerId; 2],
    /// By its first invite, without the receipt.
    fresh: Membership,
    membership: Membership,
}

fn two_invites() -> Joined {
    let mut overlay = TestOverlay::new(8, &["lab", "home"]);
    let other = NodeKey::generate(&mut overlay.entropy).peer_id();
    overlay.bootstraps.push(bootstrap_address(other));
    let node = NodeKey::generate(&mut overlay.entropy);
    let fresh = overlay.join(&node, &["lab"]);
    let mut membership = overlay.receipted(fresh.clone());
    let home = overlay.join(&node, &["home"]);
    membership.merge(overlay.receipted(home), BORN).unwrap();
    Joined {
        me: node.peer_id(),
        bootstraps: [overlay.witness.peer_id(), other],
        overlay,
        fresh,
        membership,
    }
}

#[test]
fn trust_8_a_node_shows_what_is_not_revoked_and_is_out_with_its_last_invite() {
    let Joined {
        mut overlay,
        me,
        membership,
        ..
    } = two_invites();
    let mut revoke = |entry| {
        let list = overlay.next_list(entry);
        overlay.revoked.take(list, membership.roots()).unwrap();
        showable(&membership, &overlay.revoked, me).map(Chain::claimed_invite)
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
    let all = &overlay.revoked;
    assert!(is_out(&membership, all, me));
    // Each bootstrap would refuse it; what it says at the gate is the usual one.
    let gate = GateState::of(&membership, all, me).unwrap();
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
    assert_eq!(texts(&joined.fresh), [bootstrap_address(witness)]);
    assert_eq!(
        texts(&joined.membership),
        joined.bootstraps.map(bootstrap_address)
    );
    let gate = |membership: &Membership| GateState::of(membership, &none, me).unwrap();
    assert_eq!(gate(&joined.fresh).bootstraps, [witness]);
    assert_eq!(gate(&joined.membership).bootstraps, joined.bootstraps);
    assert_eq!(&gate(&joined.membership).roots, joined.membership.roots());
}
