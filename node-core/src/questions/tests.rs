//! Questions in virtual time: who is asked when, again, and what nobody is told of.

use std::time::{Duration, Instant};

use nat_traversal::path::AllocationId;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{MacKey, NetIndex};
use proptest::prelude::*;

use super::question::{CLASSES, Class};
use super::*;

/// A shell that answers when told to.
struct Shell {
    questions: Questions,
    now: Instant,
    asked: Vec<(QuestionId, Question)>,
    told: Vec<Answered>,
}

#[allow(clippy::disallowed_methods)]
fn shell() -> Shell {
    Shell {
        questions: Questions::default(),
        now: Instant::now(),
        asked: Vec::new(),
        told: Vec::new(),
    }
}

impl Shell {
    fn put(&mut self, question: Question) {
        self.questions.put(question);
        self.turn();
    }

    fn turn(&mut self) {
        while let Some(asked) = self.questions.poll_question(self.now) {
            self.asked.push(asked);
        }
        self.told
            .extend(std::iter::from_fn(|| self.questions.poll_answer()));
    }

    /// The oldest that is asked gets `outcome`.
    fn answer(&mut self, outcome: Outcome) -> Question {
        let (id, question) = self.asked.remove(0);
        self.questions.handle_outcome(self.now, id, outcome);
        self.turn();
        question
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.questions.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.questions.handle_timeout(self.now);
            self.turn();
        }
        self.now = end;
    }

    fn asked_of(&self, class: Class) -> usize {
        let of_it = |(_, question): &&(QuestionId, Question)| question.class() == class;
        self.asked.iter().filter(of_it).count()
    }
}

fn peer(n: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    PeerId(bytes)
}

fn lookup(n: usize) -> Question {
    Question::GetRecord {
        net: NetIndex(0),
        key: MacKey {
            vlan: VlanId::UNTAGGED,
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
        },
        dht_key: peer(n).0,
    }
}

fn record(n: usize) -> Question {
    Question::PutRecord {
        dht_key: peer(n).0,
        record: vec![1],
    }
}

fn card(bytes: u8) -> Question {
    Question::Register {
        net: NetIndex(0),
        rendezvous: [7; 32],
        card: vec![bytes],
    }
}

const BUSY: Outcome = Outcome::Failed(Failure::Busy);

#[test]
fn a_registration_passes_a_flood_of_look_ups() {
    let mut shell = shell();
    for n in 0..2 * Class::Lookups.room() {
        shell.put(lookup(n));
    }
    // Their own places and the 16 that are anybody's.
    assert_eq!(shell.asked_of(Class::Lookups), 24);
    shell.put(card(1));
    assert_eq!(shell.asked_of(Class::Standing), 1);
    let refused = |told: &&Answered| told.outcome == Outcome::Failed(Failure::NoRoom);
    let refusals = shell.told.iter().filter(refused).count();
    assert_eq!(refusals, Class::Lookups.room() - 24);
}

#[test]
fn what_has_no_room_is_told_and_never_taken_for_asked() {
    let mut shell = shell();
    let permit = |n| Question::Permit {
        infra: peer(0),
        allocation: AllocationId(1),
        peers: vec![peer(n)],
    };
    for n in 0..32 + Class::Standing.room() {
        shell.put(permit(n));
    }
    assert!(shell.told.is_empty());
    shell.put(card(1));
    let refused = Outcome::Failed(Failure::NoRoom);
    assert_eq!(
        shell.told,
        [Answered {
            question: card(1),
            outcome: refused
        }]
    );
}

#[test]
fn three_hundred_records_reach_a_bootstrap_that_takes_fifty_a_second() {
    let mut shell = shell();
    for n in 0..300 {
        shell.put(record(n));
    }
    let mut seconds = 0;
    let mut kept = 0;
    while kept < 300 {
        let (mut tokens, mut refused) = (50, 0);
        while !shell.asked.is_empty() {
            let outcome = if tokens > 0 { Outcome::Done } else { BUSY };
            kept += usize::from(tokens > 0);
            refused += u32::from(tokens == 0);
            tokens -= i32::from(tokens > 0);
            shell.answer(outcome);
        }
        // What is left to ask in this second is for the others.
        assert!(refused <= 24, "{refused} refused");
        shell.pass(Duration::from_secs(1));
        seconds += 1;
        assert!(seconds < 12, "{kept} after {seconds} s");
    }
    assert_eq!(shell.told.len(), 300);
    assert!(shell.told.iter().all(|told| told.outcome == Outcome::Done));
}

#[test]
fn an_allocation_is_tried_four_times_and_holds_no_place_between() {
    let mut shell = shell();
    shell.put(Question::Allocate { infra: peer(1) });
    let mut at = Vec::new();
    let start = shell.now;
    while shell.told.is_empty() {
        at.push(shell.now.duration_since(start).as_millis());
        shell.answer(Outcome::Failed(Failure::NoAnswer));
        assert_eq!(shell.questions.lines.of(Class::Standing).asked, 0);
        if let Some(due) = shell.questions.poll_timeout() {
            shell.pass(due - shell.now);
        }
    }
    assert_eq!(at, [0, 200, 1_200, 5_200]);
}

#[test]
fn the_newer_card_replaces_the_older_one() {
    let mut shell = shell();
    shell.put(card(1));
    // Under way: the two that come meanwhile are one.
    shell.put(card(2));
    shell.put(card(3));
    assert_eq!(shell.asked.len(), 1);
    assert_eq!(shell.answer(Outcome::Cards(Vec::new())), card(1));
    assert_eq!(shell.answer(Outcome::Cards(Vec::new())), card(3));
    assert_eq!((shell.asked.len(), shell.told.len()), (0, 2));
}

#[test]
fn one_key_is_looked_up_once() {
    let mut shell = shell();
    shell.put(lookup(1));
    shell.put(lookup(1));
    assert_eq!(shell.asked.len(), 1);
    shell.answer(Outcome::Record(None));
    assert_eq!((shell.asked.len(), shell.told.len()), (0, 1));
    shell.put(lookup(1));
    assert_eq!(shell.asked.len(), 1);
}

#[test]
fn what_the_shell_loses_is_given_up_and_its_late_answer_is_nobodys() {
    let mut shell = shell();
    shell.put(Question::Clock { infra: peer(1) });
    let (id, question) = shell.asked.remove(0);
    shell.pass(question.patience() + SLACK);
    assert_eq!(shell.told.len(), 1);
    assert_eq!(shell.told[0].outcome, Outcome::Failed(Failure::NoAnswer));
    shell
        .questions
        .handle_outcome(shell.now, id, Outcome::Clock(1));
    shell.turn();
    assert_eq!(shell.told.len(), 1);
}

#[test]
fn what_is_cancelled_is_not_asked_and_not_told() {
    let mut shell = shell();
    for n in 0..40 {
        shell.put(lookup(n));
    }
    shell.put(card(1));
    shell
        .questions
        .cancel(|question| question.class() == Class::Lookups);
    while !shell.asked.is_empty() {
        shell.answer(Outcome::Record(None));
    }
    assert_eq!(shell.told.len(), 1);
    assert_eq!(shell.told[0].question, card(1));
}

proptest! {
    /// Whatever happens, what was put is answered once or replaced, and counts and bounds hold.
    #[test]
    fn counts_and_bounds_hold(steps in prop::collection::vec((0_u8..6, 0_usize..40), 0..400)) {
        let mut shell = shell();
        for (step, n) in steps {
            match step {
                0 => shell.put(lookup(n)),
                1 => shell.put(record(n)),
                2 => shell.put(card(u8::try_from(n).unwrap())),
                3 if !shell.asked.is_empty() => { shell.answer(BUSY); }
                4 if !shell.asked.is_empty() => { shell.answer(Outcome::Done); }
                _ => shell.pass(Duration::from_millis(300)),
            }
            let open = &shell.questions.open;
            let asked = open.values().filter(|open| open.is_asked).count();
            let lines = CLASSES.map(|class| shell.questions.lines.of(class));
            prop_assert_eq!(lines.iter().map(|line| line.asked).sum::<usize>(), asked);
            prop_assert_eq!(lines.iter().map(|line| line.waiting).sum::<usize>(), open.len() - asked);
            prop_assert!(asked <= MAX_ASKED);
            for (line, class) in lines.iter().zip(CLASSES) {
                prop_assert!(line.waiting <= class.room() + MAX_ASKED);
                prop_assert!(line.asked <= class.most_asked());
            }
        }
        // All of them come to an end.
        for _ in 0..200 {
            while !shell.asked.is_empty() {
                shell.answer(Outcome::Done);
            }
            shell.pass(Duration::from_secs(1));
        }
        prop_assert!(shell.questions.open.is_empty() && shell.questions.subjects.is_empty());
        prop_assert!(shell.questions.timers.is_empty());
    }
}
