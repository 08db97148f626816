//! Cards and greetings between two nodes without anything around them.

#![allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]

use std::time::Instant;

use overlay_proto::directory::{Presence, RosterEntry, Signed, SignedCard};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::test_authority::{BORN, TestOverlay};
use overlay_proto::membership::{EPOCH_OVERLAP, Membership, NodeKey};
use overlay_proto::switching::NetIndex;

use super::Introductions;
use super::cards::{Author, Keys, lay_down, open};
use super::greetings::{Heard, greet};
use crate::node::fixtures::outside;
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::questions::{Outcome, Question};

const LAB: NetIndex = NetIndex(0);

/// A member of `lab`.
struct Member {
    key: NodeKey,
    membership: Membership,
}

impl Member {
    fn of(overlay: &mut TestOverlay) -> Self {
        let (key, membership) = overlay.member(&["lab"]);
        Self { key, membership }
    }

    fn author(&self) -> Author<'_> {
        Author {
            me: self.key.peer_id(),
            key: &self.key,
            overlay: self.membership.overlay(),
            static_document: &[1; 96],
            name: "ash",
        }
    }

    fn network(&self) -> NetworkId {
        self.membership.networks()[0].id
    }

    fn keys(&self) -> Keys<'_> {
        let network = &self.membership.networks()[0];
        Keys {
            net: LAB,
            id: network.id,
            newest: &network.epoch_key,
            old: self.membership.old_epoch(&network.id, BORN),
        }
    }

    fn card(&self) -> SignedCard {
        let entry = RosterEntry {
            network: self.network(),
            node: self.key.peer_id(),
            incarnation: 1,
            certificate: [1; 32],
            static_key: [2; 32],
            addresses: Vec::new(),
            presence: Presence::Joined,
        };
        let entry = Signed::seal(&entry, &self.key, &self.membership.overlay()).unwrap();
        self.author().card(entry, vec![7; 800], (3, &[])).unwrap()
    }
}

struct Pair {
    overlay: TestOverlay,
    ash: Member,
    oak: Member,
    out: Outside,
    tick: Tick,
}

fn pair() -> Pair {
    let mut overlay = TestOverlay::new(5, &["lab"]);
    let (ash, oak) = (Member::of(&mut overlay), Member::of(&mut overlay));
    let tick = Tick {
        now: Instant::now(),
        wall: BORN,
    };
    Pair {
        overlay,
        ash,
        oak,
        out: outside(tick.now),
        tick,
    }
}

impl Pair {
    fn asked(&mut self) -> Vec<Question> {
        let (asking, now) = (&mut self.out.asking, self.tick.now);
        let mut asked = Vec::new();
        while let Some((id, question)) = asking.poll_question(now) {
            asking.handle_outcome(now, id, Outcome::Done);
            asked.push(question);
        }
        asked
    }

    /// The envelope in which ash shows its card to oak.
    fn greeting(&mut self) -> Option<Vec<u8>> {
        let (author, card) = (self.ash.author(), self.ash.card());
        let to = (self.oak.key.peer_id(), self.ash.keys().newest);
        if !greet(self.tick, &mut self.out, &author, to, card) {
            return None;
        }
        match self.asked().pop() {
            Some(Question::Greet { envelope, .. }) => Some(envelope),
            _ => None,
        }
    }

    fn hear(
        &self,
        inbox: &mut Introductions,
        from: PeerId,
        envelope: &[u8],
    ) -> Result<Heard, DropReason> {
        let (me, overlay) = (self.oak.key.peer_id(), self.oak.membership.overlay());
        let networks = std::iter::once(self.oak.keys());
        inbox.open((from, me), envelope, &overlay, networks)
    }

    fn take_epoch(&mut self, ash: bool) {
        let epoch = self.overlay.next_epoch(0);
        let who = if ash { &mut self.ash } else { &mut self.oak };
        assert!(who.membership.take_epoch(&epoch, BORN).unwrap());
    }
}

#[test]
fn a_greeting_counts_once_and_from_whom_it_says_and_waits_for_its_number() {
    let mut pair = pair();
    assert_eq!(pair.greeting(), None, "the disk has taken no numbers");
    pair.out.store.sequences.handle_written(true);
    let envelope = pair.greeting().unwrap();
    let (from, mut inbox) = (pair.ash.key.peer_id(), Introductions::default());
    let other = PeerId([3; 32]);
    let taken = pair.hear(&mut inbox, other, &envelope);
    assert_eq!(taken.unwrap_err(), DropReason::ControlMalformed);
    let Heard::Hello(LAB, card) = pair.hear(&mut inbox, from, &envelope).unwrap() else {
        panic!("no greeting");
    };
    assert_eq!((card.entry.node, &*card.card.name), (from, "ash"));
    let again = pair.hear(&mut inbox, from, &envelope);
    assert_eq!(again.unwrap_err(), DropReason::Replayed);
    let next = pair.greeting().unwrap();
    assert!(pair.hear(&mut inbox, from, &next).is_ok());
}

#[test]
fn a_greeting_is_opened_also_under_the_old_key_and_not_under_a_newer_one() {
    let mut pair = pair();
    let _ = pair.greeting();
    pair.out.store.sequences.handle_written(true);
    let (from, mut inbox) = (pair.ash.key.peer_id(), Introductions::default());
    pair.take_epoch(false);
    let old = pair.greeting().unwrap();
    assert!(pair.hear(&mut inbox, from, &old).is_ok());
    // Ash is two epochs ahead of what oak has.
    pair.take_epoch(true);
    let newer = pair.greeting().unwrap();
    let taken = pair.hear(&mut inbox, from, &newer);
    assert_eq!(taken.unwrap_err(), DropReason::UnknownNetwork);
}

#[test]
fn cards_lie_under_the_old_name_too_until_the_overlap_ends() {
    let mut pair = pair();
    pair.take_epoch(true);
    let card = pair.ash.card();
    let late = BORN.plus(EPOCH_OVERLAP * 2);
    lay_down(&mut pair.out, &pair.ash.keys(), late, &card);
    let lone = pair.asked();
    lay_down(&mut pair.out, &pair.ash.keys(), BORN, &card);
    let both = pair.asked();
    let overlay = pair.ash.membership.overlay();
    let read = |member: &Member, question: &Question, wall| match question {
        Question::Register { card, .. } => open(card, &member.keys(), &overlay, wall).is_ok(),
        _ => false,
    };
    // Oak has missed the change: it has the old key alone.
    let oak = |asked: &[Question]| {
        asked
            .iter()
            .filter(|one| read(&pair.oak, one, BORN))
            .count()
    };
    let ash = |asked: &[Question], wall| {
        asked
            .iter()
            .filter(|one| read(&pair.ash, one, wall))
            .count()
    };
    assert_eq!((lone.len(), oak(&lone), ash(&lone, late)), (1, 0, 1));
    assert_eq!((both.len(), oak(&both)), (2, 1));
    assert_eq!((ash(&both, BORN), ash(&both, late)), (2, 1));
}
