//! A node's standing alone: no session, no directory, no disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::test_authority::{BORN, TestOverlay};
use overlay_proto::membership::{Chain, ListState, MemberVerifier, NodeKey, Revoked, SignedEpoch};
use overlay_proto::time::UnixTime;
use overlay_proto::wire::peer_message::NetworkTag;

use super::identity::Identity;
use super::revocations::{Changed, Own};
use super::{Said, Standing};
use crate::node::effects::Effect;
use crate::node::fixtures::outside;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::questions::{Failure, Outcome, Question};
use crate::store::{Edit, Write};

struct House {
    overlay: TestOverlay,
    standing: Standing,
    out: Outside,
    tick: Tick,
}

/// A member of `lab` and, by another invite, of `den`; with the receipts, or without.
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
fn house(with_receipts: bool) -> House {
    let mut overlay = TestOverlay::new(3, &["lab", "den"]);
    let key = NodeKey::generate(&mut overlay.entropy);
    let mut membership = overlay.join(&key, &["lab"]);
    membership
        .merge(overlay.join(&key, &["den"]), BORN)
        .unwrap();
    if with_receipts {
        membership = overlay.receipted(membership);
    }
    let tick = Tick {
        now: Instant::now(),
        wall: BORN,
    };
    let networks = membership.networks().iter().map(|one| one.id).collect();
    let shown = membership.chain().or(membership.chains().first());
    let identity = Identity {
        me: key.peer_id(),
        key,
        chain: shown.unwrap().encode(),
        verifier: MemberVerifier::new(membership.roots().clone(), networks),
        membership,
        name: String::new(),
        signed_static: Vec::new(),
        static_public: [1; 32],
        static_until: UnixTime(0),
        incarnation: 0,
        epoch: tick.now,
    };
    House {
        overlay,
        standing: Standing::new(tick.now, identity, Arc::default(), None),
        out: outside(tick.now),
        tick,
    }
}

impl House {
    /// Another member of `lab`, which is known and has shown its certificate.
    fn peer(&mut self) -> (PeerId, Chain) {
        let (key, membership) = self.overlay.member(&["lab"]);
        let chain = membership.chains().first().unwrap().clone();
        let chain = match chain.has_receipt() {
            true => chain,
            false => self.overlay.receipt_of(&chain),
        };
        let identity = &self.standing.identity;
        identity.verify_chain(&chain.encode(), BORN).unwrap();
        self.standing.theirs.meet(key.peer_id());
        (key.peer_id(), chain)
    }

    /// The authority revokes `entry`; the gate has the list.
    fn revoke(&mut self, entry: Revoked) -> Changed {
        let list = self.overlay.next_list(entry);
        let roots = &self.overlay.roots;
        self.overlay.revoked.take(list, roots).unwrap();
        let held = Arc::new(self.overlay.revoked.clone());
        self.standing.handle_revocations(held)
    }

    fn lab(&self) -> NetworkId {
        self.overlay.networks[0].id()
    }

    fn questions(&mut self) -> Vec<Question> {
        let (asking, now) = (&mut self.out.asking, self.tick.now);
        let asked = std::iter::from_fn(|| asking.poll_question(now));
        asked.map(|(_, question)| question).collect()
    }

    /// The edit that is written next, if any.
    fn edit(&mut self) -> Option<Edit> {
        let (_, write) = self.out.store.machine.poll_write()?;
        match &*write {
            Write::Edit(edit) => Some(edit.clone()),
            _ => None,
        }
    }

    fn later(&mut self, time: Duration) {
        self.tick.now += time;
    }
}

#[test]
fn trust_8_whoever_is_named_is_gone_and_the_others_are_handed_what_is_new() {
    let mut house = house(true);
    let (ash, chain) = house.peer();
    let (oak, _) = house.peer();
    // It showed its certificate so long ago that the verifier has forgotten it.
    let elm = PeerId([5; 32]);
    house.standing.theirs.meet(elm);
    let invite = chain.claimed_invite();
    house.standing.theirs.note_invite(elm, Some(invite));
    let first = house.revoke(Revoked::Invite(invite));
    assert_eq!(first.gone, BTreeSet::from([ash, elm]));
    let now = house.tick.now;
    let list = Said::List(house.overlay.revoked.lists()[0].encode());
    assert_eq!(house.standing.hand_news(now, oak, &first), [list]);
    let second = house.revoke(Revoked::Node(oak));
    assert!(second.gone.contains(&oak));
    assert!(!house.standing.has_rights(house.tick, oak, &house.lab()));
}

#[test]
fn who_has_a_certificate_left_shows_it_and_who_has_none_is_out() {
    let mut house = house(true);
    let invite = |house: &House| {
        let shown = Chain::decode(&house.standing.identity.chain);
        shown.unwrap().claimed_invite()
    };
    let first = invite(&house);
    let _ = house.revoke(Revoked::Node(PeerId([9; 32])));
    let (tick, own) = (house.tick, Own::Counts);
    assert_eq!(house.standing.judge_own(tick, &mut house.out), own);
    let _ = house.revoke(Revoked::Invite(first));
    let own = house.standing.judge_own(tick, &mut house.out);
    assert_eq!((own, &house.standing.last_refusal), (Own::Void, &None));
    let membership = house.standing.identity.membership.clone();
    let adopted = house.standing.adopt(&mut house.out, membership).unwrap();
    // It goes on as a member, by the other certificate.
    assert!(adopted.judged_by.is_none() && !adopted.pinned.is_empty());
    let second = invite(&house);
    assert_ne!(second, first);
    let _ = house.revoke(Revoked::Invite(second));
    assert_eq!(house.standing.judge_own(tick, &mut house.out), Own::Out);
    assert!(house.standing.last_refusal.is_some());
}

#[test]
fn the_lower_side_asks_and_is_handed_the_lists_once_in_ten_seconds() {
    let mut house = house(true);
    let (peer, now) = (PeerId([4; 32]), house.tick.now);
    let standing = &mut house.standing;
    assert_eq!(standing.compare_numbers(now, peer, 0, true), []);
    let none = ListState::default();
    assert_eq!(
        standing.compare_numbers(now, peer, 7, false),
        [Said::Held(none)]
    );
    let _ = house.revoke(Revoked::Node(PeerId([9; 32])));
    let (standing, ours) = (&mut house.standing, house.overlay.revoked.state());
    // Of two that hold as much the first one asks: there may be two lists of one number.
    let held = [Said::Held(ours)];
    assert_eq!(standing.compare_numbers(now, peer, ours.number, true), held);
    assert_eq!(standing.compare_numbers(now, peer, ours.number, false), []);
    assert_eq!(standing.handle_lists_held(now, peer, ours), []);
    let list = [Said::List(house.overlay.revoked.lists()[0].encode())];
    assert_eq!(standing.handle_lists_held(now, peer, none), list);
    assert_eq!(standing.revocations.take_owed(), []);
    // It may have restarted since, so what it holds is asked for soon.
    assert_eq!(standing.compare_numbers(now, peer, 0, false), []);
    assert_eq!(standing.revocations.take_owed(), [peer]);
    house.later(Duration::from_secs(10));
    let (standing, now) = (&mut house.standing, house.tick.now);
    assert_eq!(standing.compare_numbers(now, peer, 0, false), list);
    // What got lost is handed over again at once.
    standing.revocations.owe(peer);
    assert_eq!(standing.compare_numbers(now, peer, 0, false), list);
}

/// The next epoch of `lab`, because of a list that names somebody.
fn begin_epoch(house: &mut House) -> SignedEpoch {
    let list = house.overlay.next_list(Revoked::Node(PeerId([9; 32])));
    let roots = &house.overlay.roots;
    house.overlay.revoked.take(list, roots).unwrap();
    house.overlay.next_epoch(0)
}

#[test]
fn trust_8_an_epoch_is_handed_once_to_members_that_are_behind_by_whoever_has_the_list() {
    let (mut house, lab) = (house(true), house(true).lab());
    let ((ash, _), tick) = (house.peer(), house.tick);
    let signed = begin_epoch(&mut house);
    let standing = &mut house.standing;
    let membership = &mut standing.identity.membership;
    assert!(membership.take_epoch(&signed, BORN).unwrap());
    let epoch = signed.claimed_epoch().unwrap();
    assert_eq!(
        standing.offer_epoch(tick, ash, &lab),
        None,
        "it said nothing"
    );
    let said = standing.handle_epoch_number(tick, ash, lab, epoch - 1);
    assert_eq!(said, None, "the list is not here");
    let _ = standing.handle_revocations(Arc::new(house.overlay.revoked.clone()));
    let handed = Some(Said::Epoch(lab, signed.encode()));
    assert_eq!(standing.offer_epoch(tick, ash, &lab), handed);
    assert_eq!(standing.offer_epoch(tick, ash, &lab), None, "it has it");
    standing.theirs.owe_epoch(ash, NetworkTag::from(&lab));
    assert_eq!(standing.offer_epoch(tick, ash, &lab), handed, "it got lost");
    let stranger = PeerId([5; 32]);
    standing.theirs.meet(stranger);
    let said = standing.handle_epoch_number(tick, stranger, lab, 0);
    assert_eq!(said, None, "no certificate of it is known");
}

#[test]
fn an_epoch_counts_by_its_signature_and_is_written_once() {
    let (mut house, lab) = (house(true), house(true).lab());
    let ((ash, _), tick) = (house.peer(), house.tick);
    let signed = begin_epoch(&mut house);
    let mut forged = signed.encode();
    *forged.last_mut().unwrap() ^= 1;
    for (bytes, network, reason) in [
        (&forged, lab, DropReason::CertificateRefused),
        (
            &signed.encode(),
            house.overlay.networks[1].id(),
            DropReason::ControlMalformed,
        ),
    ] {
        let (standing, out) = (&mut house.standing, &mut house.out);
        standing.handle_epoch(tick, out, (ash, network), bytes);
        assert_eq!(house.out.drops.get(reason), 1);
        assert_eq!(house.edit(), None);
    }
    let (standing, out) = (&mut house.standing, &mut house.out);
    standing.handle_epoch(tick, out, (ash, lab), &signed.encode());
    let edit = house.edit().unwrap();
    let edited = house.standing.edited_in_memory(tick, &edit).unwrap();
    let before = house.standing.epochs_of(tick, &lab, 1).unwrap();
    assert!(before.begun.is_none() && before.old.is_none());
    let kept = house.standing.handle_epoch_kept(tick, &edit, Ok(edited));
    assert!(kept.is_none());
    let after = house.standing.epochs_of(tick, &lab, 1).unwrap();
    assert!(
        after
            .begun
            .is_some_and(|secret| Some(secret.epoch) == signed.claimed_epoch())
    );
    assert!(after.old.is_some() && after.read.is_some());
    // Whoever brings it again is not listened to.
    let (standing, out) = (&mut house.standing, &mut house.out);
    standing.handle_epoch(tick, out, (ash, lab), &signed.encode());
    assert_eq!(house.edit(), None);
    let other = Err(anyhow::anyhow!("somebody else wrote"));
    let kept = house.standing.handle_epoch_kept(tick, &edit, other);
    assert!(kept.is_some_and(|edited| edited.is_err()));
}

#[test]
fn receipts_are_asked_for_at_their_witness_and_adopted_from_the_disk() {
    let mut house = house(false);
    let (witness, tick) = (house.overlay.witness.peer_id(), house.tick);
    house
        .standing
        .ask_for_receipts(&mut house.out, PeerId([8; 32]));
    assert_eq!(house.questions(), []);
    house.standing.ask_for_receipts(&mut house.out, witness);
    let asked = house.questions();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let Some(Question::Receipt { chain, .. }) = asked.into_iter().next() else {
        panic!("no receipt is asked for");
    };
    let (standing, out) = (&mut house.standing, &mut house.out);
    let failed = Outcome::Failed(Failure::NotConnected);
    standing.handle_receipt(tick, out, Chain::clone(&chain), failed);
    let minute = tick.now + Duration::from_secs(60);
    assert!(standing.expiry.take_receipts_due(minute));
    assert_eq!(house.edit(), None);
    let given = house.overlay.receipt_of(&chain);
    // It comes with the admission, too: what the gate shows since.
    let (standing, out) = (&mut house.standing, &mut house.out);
    standing.take_receipts(out, witness, &given.encode());
    let edit = house.edit().unwrap();
    assert_eq!(edit, Edit::TakeReceipt(Box::new(given.clone())));
    let membership = house
        .standing
        .edited_in_memory(tick, &edit)
        .unwrap()
        .membership;
    let adopted = house.standing.adopt(&mut house.out, membership).unwrap();
    assert!(adopted.judged_by.is_none());
    assert_eq!(house.standing.identity.chain, given.encode());
    assert!(
        matches!(house.out.effects.pop(), Some(Effect::SetGate(gate)) if gate.chain == given.encode())
    );
}
