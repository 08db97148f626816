//! The store in virtual time, with a disk that is slow, full, or both.

use std::time::Duration;

use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::membership::test_authority::{BORN, TestOverlay};
use overlay_proto::membership::{
    Membership, NodeKey, RevocationLine, Revoked, SignedEpoch, SignedRevocations, Taken,
};
use proptest::prelude::*;

use super::*;

/// Each write of the slow disk.
const SLOW: Duration = Duration::from_secs(3);

/// An authority, and a node that has not got its receipt yet.
struct World {
    overlay: TestOverlay,
    membership: Membership,
}

fn world() -> World {
    let mut overlay = TestOverlay::new(8, &["lab"]);
    let node = NodeKey::generate(&mut overlay.entropy);
    World {
        membership: overlay.join(&node, &["lab"]),
        overlay,
    }
}

impl World {
    fn epoch(&mut self) -> SignedEpoch {
        self.overlay.next_epoch(0)
    }

    fn list(&self) -> SignedRevocations {
        self.overlay.next_list(Revoked::Node(PeerId([9; 32])))
    }

    fn line(&mut self) -> RevocationLine {
        let (list, epoch) = (self.list(), self.epoch());
        let line = self.overlay.line(list, &[epoch]);
        RevocationLine::parse(&line.to_text()).unwrap()
    }
}

/// A shell with a disk that takes its time, and may be full.
struct Shell {
    store: Store,
    /// What the clock says, and when the write under way is through.
    now: Duration,
    through: Option<(Duration, WriteId, Arc<Write>)>,
    takes: Duration,
    is_full: bool,
    /// The membership on disk.
    disk: Membership,
    /// What was carried out, in that order.
    order: Vec<Arc<Write>>,
    told: Vec<Written>,
}

fn shell(disk: Membership) -> Shell {
    Shell {
        store: Store::default(),
        now: Duration::ZERO,
        through: None,
        takes: SLOW,
        is_full: false,
        disk,
        order: Vec::new(),
        told: Vec::new(),
    }
}

impl Shell {
    fn put(&mut self, write: Write) -> WriteId {
        let id = self.store.put(write);
        self.turn();
        id
    }

    fn turn(&mut self) {
        while let Some((id, write)) = self.store.poll_write() {
            assert!(self.through.is_none(), "one at a time");
            self.through = Some((self.now + self.takes, id, write));
        }
        self.told
            .extend(std::iter::from_fn(|| self.store.poll_written()));
    }

    fn carry_out(&mut self, write: &Write) -> Result<Done, Refused> {
        if self.is_full {
            return Err(Refused::Disk("no space left".to_owned()));
        }
        let Some(edit) = write.edit() else {
            return Ok(Done::Saved);
        };
        let mut membership = self.disk.clone();
        let begun = edit
            .apply(&mut membership, BORN)
            .map_err(|error| Refused::Content(error.to_string()))?;
        self.disk = membership.clone();
        Ok(Done::Edited(Box::new(Edited { membership, begun })))
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, id, write)) = self.through.take_if(|(at, ..)| *at <= end) {
            self.now = at;
            let result = self.carry_out(&write);
            self.order.push(write);
            self.store.handle_written(BORN, id, result);
            self.turn();
        }
        self.now = end;
    }

    fn result_of(&self, id: WriteId) -> Option<&Result<Done, Refused>> {
        let told = self.told.iter().find(|told| told.id == id);
        told.map(|told| &told.result)
    }

    fn last_membership(&self) -> &Membership {
        let edited = self.told.iter().rev().find_map(|told| match &told.result {
            Ok(Done::Edited(edited)) => Some(&edited.membership),
            _ => None,
        });
        edited.unwrap()
    }
}

fn peers(bytes: u8) -> Write {
    Write::Peers(vec![bytes])
}

fn directory(n: u8) -> Write {
    Write::Directory {
        network: NetworkId([n; 32]),
        snapshot: vec![n],
    }
}

fn name(text: &str) -> Write {
    Write::Name(Some(text.to_owned()))
}

fn receipt(world: &mut World) -> Write {
    let chain = world.membership.chain().unwrap();
    Write::Edit(Edit::TakeReceipt(Box::new(world.overlay.receipt_of(chain))))
}

#[test]
fn what_others_rely_on_is_written_first_and_leaving_last() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    // It is under way before the others come.
    shell.put(name("first"));
    let in_order = [
        Write::Edit(Edit::FollowRoots(Box::new(world.overlay.roots.clone()))),
        Write::Revocations {
            list: world.list().encode(),
            from: Some(PeerId([1; 32])),
        },
        receipt(&mut world),
        Write::Edit(Edit::TakeEpoch(Box::new(world.epoch()))),
        name("oak"),
        Write::NextStatic,
        Write::Sequences(7),
        Write::HandshakeTime(7),
        Write::LoopedPorts(vec![1]),
        directory(1),
        directory(2),
        peers(1),
    ];
    // Within a rank as they came, the ranks whichever way.
    let mut came = in_order.to_vec();
    came.sort_by_key(|write| std::cmp::Reverse(write.rank()));
    for write in came {
        shell.put(write);
    }
    shell.pass(SLOW * 20);
    let order: Vec<Write> = shell.order.iter().map(|one| Write::clone(one)).collect();
    assert_eq!(order[0], name("first"));
    assert_eq!(order[1..], in_order);
    assert!(shell.store.is_idle());
}

#[test]
fn leaving_erases_what_waits_and_there_is_nothing_after_it() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    shell.put(directory(1));
    shell.put(peers(1));
    shell.put(Write::HandshakeTime(7));
    let renamed = shell.put(name("oak"));
    let left = shell.put(Write::Leave);
    let late = shell.put(name("elm"));
    shell.put(peers(2));
    assert_eq!(shell.result_of(late), Some(&Err(Refused::Leaving)));
    shell.pass(SLOW * 20);
    let order: Vec<Write> = shell.order.iter().map(|one| Write::clone(one)).collect();
    assert_eq!(order, [directory(1), name("oak"), Write::Leave]);
    assert_eq!(shell.result_of(renamed), Some(&Ok(Done::Saved)));
    assert_eq!(shell.result_of(left), Some(&Ok(Done::Saved)));
    assert!(shell.store.is_idle());
    shell.put(receipt(&mut world));
    assert!(shell.store.is_idle());
}

#[test]
fn newer_content_replaces_what_waits_and_follows_what_is_under_way() {
    let world = world();
    let mut shell = shell(world.membership);
    let first = shell.put(peers(1));
    let second = shell.put(peers(2));
    let third = shell.put(peers(3));
    shell.put(directory(1));
    shell.put(directory(2));
    assert!(first < second && second < third);
    assert!(shell.store.is_remembering());
    shell.pass(SLOW * 2);
    assert_eq!(*shell.order[1], peers(3), "it has kept its place");
    shell.pass(SLOW * 2);
    assert_eq!(shell.order.len(), 4);
    assert!(!shell.store.is_remembering());
    let (told, saved) = (|id| shell.result_of(id), Ok(Done::Saved));
    assert_eq!((told(first), told(third)), (Some(&saved), Some(&saved)));
    assert_eq!(told(second), None, "the later one speaks for it");
}

#[test]
fn what_was_learnt_is_written_once_and_each_user_is_answered() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    let first = shell.put(receipt(&mut world));
    assert_eq!(shell.put(receipt(&mut world)), first);
    let oak = shell.put(name("oak"));
    let again = shell.put(name("oak"));
    shell.pass(SLOW * 9);
    assert_eq!(shell.order.len(), 3);
    for id in [first, oak, again] {
        assert!(shell.result_of(id).is_some_and(Result::is_ok));
    }
    let list = |peer| Write::Revocations {
        list: world.list().encode(),
        from: peer,
    };
    let first = shell.put(list(Some(PeerId([1; 32]))));
    assert_eq!(shell.put(list(Some(PeerId([2; 32])))), first);
    assert_ne!(shell.put(list(None)), first, "a user");
    shell.pass(SLOW * 9);
    // Afterwards it is another one.
    assert_ne!(shell.put(receipt(&mut world)), first);
}

#[test]
fn what_has_no_room_is_told() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    shell.put(peers(1));
    let ids: Vec<WriteId> = (0..=Rank::Asked.room())
        .map(|n| shell.put(name(&n.to_string())))
        .collect();
    let last = *ids.last().unwrap();
    assert_eq!(shell.told.len(), 1);
    assert_eq!(shell.result_of(last), Some(&Err(Refused::NoRoom)));
    // Others have theirs.
    shell.put(receipt(&mut world));
    assert_eq!(shell.told.len(), 1);
    shell.pass(SLOW * 50);
    let is_written = |id: &&WriteId| shell.result_of(**id) == Some(&Ok(Done::Saved));
    assert_eq!(ids.iter().filter(is_written).count(), Rank::Asked.room());
}

#[test]
fn a_receipt_that_a_full_disk_refused_counts_with_what_comes_later_and_is_tried_again() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    shell.is_full = true;
    let refused = shell.put(receipt(&mut world));
    shell.pass(SLOW);
    let full = Err(Refused::Disk("no space left".to_owned()));
    assert_eq!(shell.result_of(refused), Some(&full));
    let shown = |membership: &Membership| membership.chain().unwrap().has_receipt();
    assert!(!shown(&shell.disk));
    // Something that is small enough: a join, or an epoch.
    shell.is_full = false;
    shell.put(Write::Edit(Edit::TakeEpoch(Box::new(world.epoch()))));
    shell.pass(SLOW);
    let told = shell.last_membership();
    assert_eq!(told.networks()[0].epoch, 2);
    assert!(shown(told), "the receipt that is not on disk still counts");
    assert!(!shown(&shell.disk));
    shell.pass(SLOW);
    assert!(shown(&shell.disk), "it was tried again");
    shell.pass(SLOW * 5);
    assert_eq!(shell.order.len(), 3, "and not once more");
    assert!(shell.store.unsaved.is_empty());
}

#[test]
fn what_a_user_asked_for_and_the_disk_refused_does_not_count_later() {
    let mut world = world();
    let mut shell = shell(world.membership.clone());
    let line = world.line();
    shell.is_full = true;
    let refused = shell.put(Write::Edit(Edit::ApplyEpochs(Box::new(line.clone()))));
    shell.pass(SLOW);
    assert!(shell.result_of(refused).unwrap().is_err());
    shell.is_full = false;
    shell.put(Write::Edit(Edit::Look));
    shell.pass(SLOW * 5);
    assert_eq!(shell.last_membership().networks()[0].epoch, 1);
    assert_eq!(shell.order.len(), 2, "it is not tried again");
    let again = shell.put(Write::Edit(Edit::ApplyEpochs(Box::new(line))));
    shell.pass(SLOW);
    let Some(Ok(Done::Edited(edited))) = shell.result_of(again) else {
        panic!("{:?}", shell.result_of(again));
    };
    assert_eq!(edited.begun, ["lab".parse().unwrap()]);
    assert_eq!(edited.membership.networks()[0].epoch, 2);
}

#[test]
fn an_edit_that_the_disk_has_another_mind_of_is_told_and_not_tried_again() {
    let world = world();
    let mut shell = shell(world.membership.clone());
    let mut other = self::world();
    other.overlay.rotate(1);
    // Signed by a root that the disk does not know.
    let refused = shell.put(Write::Edit(Edit::TakeEpoch(Box::new(other.epoch()))));
    shell.pass(SLOW);
    let told = shell.result_of(refused);
    assert!(matches!(told, Some(Err(Refused::Content(_)))), "{told:?}");
    assert!(shell.store.unsaved.is_empty());
    // Once it knows, it takes it.
    shell.put(Write::Edit(Edit::FollowRoots(Box::new(
        other.overlay.roots.clone(),
    ))));
    let taken = shell.put(Write::Edit(Edit::TakeEpoch(Box::new(other.epoch()))));
    shell.pass(SLOW * 2);
    assert!(shell.result_of(taken).unwrap().is_ok());
    assert_eq!(shell.disk.roots().newest().version, 2);
}

#[test]
fn a_result_of_another_write_is_nobodys() {
    let mut world = world();
    let mut store = Store::default();
    store.put(name("oak"));
    let (id, write) = store.poll_write().unwrap();
    let other = store.put(receipt(&mut world));
    store.handle_written(BORN, other, Ok(Done::Taken(Taken::Known)));
    assert!(store.poll_written().is_none() && !store.is_due());
    store.handle_written(BORN, id, Ok(Done::Saved));
    assert_eq!(store.poll_written().unwrap().write, write);
    assert_eq!((store.left(), store.is_due()), (1, true));
}

proptest! {
    /// Whatever happens: bounds hold, each write that is not replaced is told once, and all come to an end.
    #[test]
    fn bounds_hold_and_all_ends(steps in prop::collection::vec((0_u8..9, 0_u8..70), 0..300)) {
        let mut world = world();
        let mut shell = shell(world.membership.clone());
        let mut users = Vec::new();
        for (step, n) in steps {
            match step {
                0 => { shell.put(peers(n)); }
                1 => { shell.put(directory(n % 64)); }
                2 | 3 => users.push(shell.put(name(&n.to_string()))),
                4 => { shell.put(receipt(&mut world)); }
                5 => { shell.put(Write::Edit(Edit::TakeEpoch(Box::new(world.epoch())))); }
                6 => shell.is_full = n % 2 == 0,
                7 => { shell.put(Write::LoopedPorts(vec![n])); }
                _ => shell.pass(SLOW * u32::from(n % 8)),
            }
            for rank in shell.store.waiting.keys().map(|(rank, _)| *rank) {
                prop_assert!(shell.store.waiting_in(rank) <= rank.room());
            }
            prop_assert!(shell.store.unsaved.len() <= MAX_UNSAVED);
        }
        shell.is_full = false;
        shell.put(peers(0));
        shell.pass(SLOW * 1_000);
        prop_assert!(shell.store.is_idle() && !shell.store.is_due());
        prop_assert!(shell.store.unsaved.is_empty());
        for id in users {
            prop_assert_eq!(shell.told.iter().filter(|told| told.id == id).count(), 1);
        }
    }
}
