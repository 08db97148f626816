//! Each row of the table of ADR 43, with a disk that waits, refuses, or is slow.

use std::time::{Duration, Instant};

use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;
use overlay_proto::time::UnixTime;
use tokio::sync::oneshot;

use super::*;
use crate::shell::house::{FULL, House, Word, joined, line, list, rename, said};
use crate::shell::read_clocks;
use crate::shell::startup;
use node_core::api::{Request, Response};
use node_core::node::tick::Tick;

#[tokio::test]
async fn a_name_and_a_pin_count_when_they_are_written_and_else_the_user_is_told() {
    let (_, mut house) = House::build().await;
    let mut answer = house.call(rename("oak"));
    assert!(answer.try_recv().is_err(), "the disk has not answered");
    assert_eq!(house.shell.node.standing.identity.name, "before");
    // The slow path goes on meanwhile.
    assert!(house.call(Request::Status).try_recv().is_ok());
    house.tell(Word::Take).await;
    assert_eq!(said(&mut answer).unwrap(), "this node is called oak now");
    assert_eq!(house.shell.node.standing.identity.name, "oak");

    let mut answer = house.call(rename("elm"));
    house.tell(Word::Refuse).await;
    assert_eq!(said(&mut answer).unwrap_err(), FULL);
    assert_eq!(house.shell.node.standing.identity.name, "oak");

    let pin = Pin {
        network: "lab".parse().unwrap(),
        vlan: overlay_proto::ethernet::VlanId::UNTAGGED,
        mac: "52:54:00:00:00:01".parse().unwrap(),
    };
    let mut refused = house.call(Request::Pin(pin.clone()));
    house.tell(Word::Refuse).await;
    assert_eq!(said(&mut refused).unwrap_err(), FULL);
    let mut pinned = house.call(Request::Pin(pin.clone()));
    assert!(pinned.try_recv().is_err());
    house.tell(Word::Take).await;
    assert!(said(&mut pinned).unwrap().contains("is pinned"));
    assert_eq!(pins::load(&house.setup.state).unwrap(), [pin]);
    // What only the user asked for is no warning.
    assert!(house.is_remembered());
}

#[tokio::test]
async fn what_apply_brings_counts_step_by_step_and_not_if_the_disk_refuses() {
    let (mut authority, mut house) = House::build().await;
    authority.rotate(1);
    let line = line(&mut authority);
    // The documents.
    let mut answer = house.call(line.clone());
    house.tell(Word::Refuse).await;
    assert_eq!(said(&mut answer).unwrap_err(), FULL);
    assert_eq!(
        house
            .shell
            .node
            .standing
            .identity
            .membership
            .roots()
            .newest()
            .version,
        1
    );
    // The documents are there, the epochs refused: in between the list, which counts.
    let mut answer = house.call(line.clone());
    house.tell(Word::Take).await;
    assert_eq!(
        house
            .shell
            .node
            .standing
            .identity
            .membership
            .roots()
            .newest()
            .version,
        2
    );
    assert!(
        !house
            .shell
            .node
            .standing
            .revocations
            .held
            .names_node(PeerId([9; 32]))
    );
    let list = house.tell(Word::Take).await;
    assert!(matches!(list, Write::Revocations { from: None, .. }));
    assert!(
        house
            .shell
            .node
            .standing
            .revocations
            .held
            .names_node(PeerId([9; 32]))
    );
    house.tell(Word::Refuse).await;
    assert_eq!(said(&mut answer).unwrap_err(), FULL);
    assert_eq!((house.epoch(), house.on_disk().networks()[0].epoch), (1, 1));
    // All of it; what is saved because of the list goes behind.
    let mut answer = house.call(line);
    while !matches!(house.tell(Word::Take).await, Write::Revocations { .. }) {}
    assert!(answer.try_recv().is_err());
    let epochs = house.tell(Word::Take).await;
    assert!(matches!(epochs, Write::Edit(Edit::ApplyEpochs(_))));
    let told = said(&mut answer).unwrap();
    assert!(told.contains("new keys for: lab"), "{told}");
    assert_eq!((house.epoch(), house.on_disk().networks()[0].epoch), (2, 2));
}

#[tokio::test]
async fn a_list_counts_when_it_is_on_disk_and_also_on_a_disk_that_is_gone() {
    let (authority, mut house) = House::build().await;
    let (peer, names) = (PeerId([1; 32]), |house: &House| {
        house.shell.node.standing.revocations.held.number().0
    });
    let list = list(&authority).encode();
    assert!(house.shell.node.learn_list(peer, &list[1..]).is_err());
    house.shell.node.learn_list(peer, &list).unwrap();
    house.shell.node.learn_list(peer, &list).unwrap();
    house.turn();
    house.in_hand();
    let gate = Arc::clone(&house.gate);
    assert_eq!((names(&house), gate.revocations().number().0), (0, 0));
    house.lose_disk();
    house.word.send(Word::Take).unwrap();
    loop {
        if let Answer::Written(id, outcome) = house.inputs.answers.recv().await.unwrap() {
            house.shell.handle_answer(Answer::Written(id, outcome));
            break;
        }
    }
    house.turn();
    let number = gate.revocations().number().0;
    assert!(number > 0, "the gate goes by it");
    assert_eq!(names(&house), number);
    // It is known now; what is in hand and what comes next are savings.
    house.shell.node.learn_list(peer, &list).unwrap();
    for _ in 0..2 {
        let next = house.tell(Word::Refuse).await;
        assert!(!matches!(next, Write::Revocations { .. }), "{next:?}");
    }
}

#[tokio::test]
async fn a_receipt_and_an_epoch_count_when_written_and_all_the_same_if_the_disk_refuses() {
    let (mut authority, mut house) = House::build().await;
    let shown = |house: &House| {
        house
            .shell
            .node
            .standing
            .identity
            .membership
            .chain()
            .unwrap()
            .has_receipt()
    };
    let chain = house.on_disk().chain().unwrap().clone();
    let receipt = Edit::TakeReceipt(Box::new(authority.receipt_of(&chain)));
    house.shell.node.outside.store.put(Write::Edit(receipt));
    house.turn();
    assert!(!shown(&house), "not before it is on disk");
    house.tell(Word::Refuse).await;
    assert!(shown(&house) && !house.on_disk().chain().unwrap().has_receipt());
    assert!(!house.is_remembered());
    // The disk has room again: the epoch is there, and the receipt after it.
    let epoch = Edit::TakeEpoch(Box::new(authority.next_epoch(0)));
    house.shell.node.outside.store.put(Write::Edit(epoch));
    house.turn();
    assert_eq!(house.epoch(), 1);
    house.tell(Word::Take).await;
    assert_eq!(house.epoch(), 2);
    assert!(shown(&house), "what came from the disk has no receipt");
    // That it is on disk at last changes nothing more: no card is laid down anew.
    let (lab, later) = (NetIndex(0), Instant::now() + Duration::from_secs(99));
    let cards = &mut house.shell.node.introductions.schedule;
    cards.put_off(lab, later);
    house.tell(Word::Take).await;
    assert!(house.on_disk().chain().unwrap().has_receipt());
    assert!(shown(&house) && house.is_remembered());
    let cards = &house.shell.node.introductions.schedule;
    assert_eq!(cards.next(lab), Some(later));
}

#[tokio::test]
async fn a_port_is_shut_when_it_is_on_disk_or_the_disk_refused() {
    for word in [Word::Take, Word::Refuse] {
        let (_, mut house) = House::build().await;
        // No such port: the kernel says so as soon as it is asked.
        let shut = |house: &mut House| {
            let port = "nowhere".to_owned();
            let node = &mut house.shell.node;
            let (ports, out) = (&mut node.networks.looped, &mut node.outside);
            ports.shut_port(read_clocks(), out, 999_999, port);
            house.turn();
        };
        shut(&mut house);
        let kept = house.in_hand();
        assert!(matches!(kept, Write::LoopedPorts(_)));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(house.inputs.answers.try_recv().is_err(), "before its time");
        house.word.send(word).unwrap();
        let mut set = false;
        while !set {
            let answer = house.inputs.answers.recv().await.unwrap();
            set = matches!(answer, Answer::PortSet(_));
            house.shell.handle_answer(answer);
            house.turn();
        }
    }
}

#[tokio::test]
async fn caches_are_never_waited_for_and_newer_ones_follow_when_they_are_written() {
    let (_, mut house) = House::build().await;
    house.shell.node.save_state(read_clocks());
    house.turn();
    // The timestamp is before the directory; a user before the directory, too.
    let mut answer = house.call(rename("oak"));
    assert!(matches!(
        house.tell(Word::Refuse).await,
        Write::HandshakeTime(_)
    ));
    assert!(!house.is_remembered());
    assert_eq!(
        house.tell(Word::Take).await,
        Write::Name(Some("oak".into()))
    );
    assert!(said(&mut answer).is_ok());
    assert!(matches!(
        house.tell(Word::Refuse).await,
        Write::Directory { .. }
    ));
    // What the disk refused comes again with the next saving, and no sooner.
    assert!(
        house
            .asked
            .recv_timeout(Duration::from_millis(100))
            .is_err()
    );
    house.shell.node.save_state(read_clocks());
    house.turn();
    assert!(matches!(
        house.tell(Word::Take).await,
        Write::HandshakeTime(_)
    ));
    // A saving meanwhile is none.
    house.shell.node.peers.changed = true;
    house.shell.node.save_state(read_clocks());
    assert!(matches!(
        house.tell(Word::Take).await,
        Write::Directory { .. }
    ));
    assert!(house.is_remembered());
    assert!(
        house
            .asked
            .recv_timeout(Duration::from_millis(100))
            .is_err()
    );
    assert!(house.shell.node.peers.changed);
}

#[tokio::test]
async fn numbers_come_from_what_is_on_disk() {
    let (_, mut house) = House::build().await;
    let later = UnixTime(wall_clock().0 + 400);
    let on_disk = house.setup.state.load_sequences().unwrap();
    let tick = Tick {
        wall: later,
        ..read_clocks()
    };
    house.shell.node.refill_sequences(tick);
    house.turn();
    // Nobody waits: the other half is there.
    let sequences = &mut house.shell.node.outside.store.sequences;
    assert!(sequences.next(later).unwrap() <= on_disk);
    let Write::Sequences(bound) = house.tell(Word::Refuse).await else {
        panic!("no numbers");
    };
    assert!(bound > on_disk);
    let sequences = &mut house.shell.node.outside.store.sequences;
    assert!(sequences.next(UnixTime(later.0 + 900)).unwrap() <= on_disk);
    house.shell.node.refill_sequences(tick);
    house.turn();
    let Write::Sequences(bound) = house.tell(Word::Take).await else {
        panic!("no numbers");
    };
    let sequences = &mut house.shell.node.outside.store.sequences;
    assert!(sequences.next(UnixTime(later.0 + 500)).unwrap() > on_disk);
    assert_eq!(house.setup.state.load_sequences().unwrap(), bound);
}

#[tokio::test]
async fn leaving_is_the_last_write() {
    let (authority, mut house) = House::build().await;
    let mut renamed = house.call(rename("oak"));
    let (reply, mut answer) = oneshot::channel();
    let tick = read_clocks();
    let call = house.shell.open_call(reply);
    house.shell.node.linger(tick, call);
    house.shell.node.forget_when_due(tick.now);
    assert!(
        house
            .shell
            .node
            .users
            .leaving
            .as_ref()
            .unwrap()
            .poll_timeout()
            .is_some()
    );
    house
        .shell
        .node
        .forget_when_due(tick.now + Duration::from_secs(2));
    house.shell.node.save_state(tick);
    house.turn();
    house.tell(Word::Take).await;
    assert!(said(&mut renamed).is_ok());
    assert!(answer.try_recv().is_err(), "it is not forgotten yet");
    assert!(!house.shell.node.users.leaving.as_ref().unwrap().is_over());
    assert_eq!(house.tell(Word::Take).await, Write::Leave);
    assert!(said(&mut answer).unwrap().contains("has ended"));
    assert!(house.shell.node.users.leaving.as_ref().unwrap().is_over());
    // Neither the node nor the gate writes any more.
    let list = list(&authority).encode();
    house.admit(&list);
    house.shell.node.save_state(tick);
    house.shell.finish_writes(&mut house.inputs.answers).await;
    assert!(house.asked.try_recv().is_err());
    let entries = std::fs::read_dir(house.dir.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["edit.lock", "lock", "name", "ports"]);
}

#[tokio::test]
async fn a_slow_disk_holds_up_nobody_and_all_is_written_at_the_end() {
    const EACH: Duration = Duration::from_secs(1);
    let dir = tempfile::tempdir().unwrap();
    let (_, setup) = joined(dir.path());
    let (caller, calls) = mpsc::channel(4);
    let slow = |kept, gate| -> Disk {
        let mut disk = disk(kept, gate);
        Box::new(move |write| {
            std::thread::sleep(EACH);
            disk(write)
        })
    };
    let (shell, inputs) = startup::start(&setup, calls, slow, read_clocks())
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let ask = async |request| {
        let (reply, answer) = oneshot::channel();
        caller.send((request, reply)).await.unwrap();
        answer.await.unwrap()
    };
    let script = async {
        let start = Instant::now();
        let looks = async {
            let mut longest = Duration::ZERO;
            while start.elapsed() < EACH * 2 {
                let asked = Instant::now();
                ask(Request::Status).await;
                longest = longest.max(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            longest
        };
        let (longest, renamed) = tokio::join!(looks, ask(rename("oak")));
        assert!(matches!(renamed, Response::Done(_)), "{renamed:?}");
        assert!(longest < EACH * 3 / 4, "status took {longest:?}");
        let waits = ask(rename("elm"));
        let end = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.send(()).unwrap();
        };
        let (renamed, ()) = tokio::join!(waits, end);
        assert!(matches!(renamed, Response::Done(_)), "{renamed:?}");
    };
    let run = shell.run(inputs, async {
        let _ = stopped.await;
    });
    tokio::join!(run, script);
    assert_eq!(setup.state.load_name().unwrap().unwrap(), "elm");
    let blobs = std::fs::read_dir(dir.path()).unwrap();
    let has_directory = blobs.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("blob-directory-")
    });
    assert!(has_directory);
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_node_from_ending() {
    let (_, mut house) = House::build().await;
    let start = Instant::now();
    house.shell.finish_writes(&mut house.inputs.answers).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(20));
}

#[test]
fn what_the_gate_learns_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut authority, setup) = joined(dir.path());
    let shelf = NodeShelf(Arc::new(Kept::new(setup.state.clone())));
    authority.rotate(1);
    shelf.keep_roots(&authority.roots);
    let kept = setup.state.require_membership().unwrap();
    assert_eq!(kept.roots().newest(), authority.roots.newest());
    let mut all = Revocations::default();
    all.take(list(&authority), &authority.roots).unwrap();
    shelf.keep_revocations(&all);
    assert_eq!(setup.state.load_revocations(&authority.roots).unwrap(), all);
}
