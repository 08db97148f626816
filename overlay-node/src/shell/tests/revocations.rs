use node_core::questions::Question;

use std::sync::Arc;

use node_core::store::{Edit, Write};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Revocations, Revoked};

use crate::shell::house::{House, Word, list};
use crate::shell::read_clocks;
use node_core::api::{Request, Response};
use node_core::node::effects::Effect;

#[tokio::test]
async fn trust_8_what_an_admission_taught_counts_before_the_next_input() {
    let (authority, mut house) = House::build().await;
    let me = house.shell.node.standing.identity.me;
    house.admit(&authority.next_list(Revoked::Node(me)).encode());
    assert!(!house.shell.node.is_out(), "nobody has told the slow path");
    let mut answer = house.call(Request::Status);
    let Response::Status(status) = answer.try_recv().unwrap() else {
        panic!("no status");
    };
    let why = status.refused.unwrap();
    assert!(why.contains("ask for a new invite"), "{why}");
    assert!(house.shell.node.is_out());
}

#[tokio::test]
async fn trust_8_a_node_that_is_out_shows_nothing_else_and_dials_nobody() {
    let (authority, mut house) = House::build().await;
    let node = &mut house.shell.node;
    let (tick, me) = (read_clocks(), node.standing.identity.me);
    let mut book = Revocations::default();
    book.take(authority.next_list(Revoked::Node(me)), &authority.roots)
        .unwrap();
    node.handle_revocations(tick, Arc::new(book));
    assert!(node.standing.last_refusal.is_some());
    node.send_questions(tick.now);
    // The gate hears of it before anything is asked.
    let Some(Effect::SetGate(state)) = node.outside.effects.pop() else {
        panic!("the gate is not told first");
    };
    assert_eq!(state.bootstraps, []);
    let mut dialled = None;
    while let Some(effect) = node.outside.effects.pop() {
        if let Effect::Ask(_, Question::SetBootstraps(addrs)) = effect {
            dialled = Some(addrs);
        }
    }
    assert_eq!(dialled, Some(Vec::new()));
}

#[tokio::test]
async fn lists_are_checked_by_the_gates_documents_before_the_membership_has_them() {
    let (mut authority, mut house) = House::build().await;
    let first = authority.roots.clone();
    authority.rotate(1);
    let (peer, list) = (PeerId([1; 32]), list(&authority).encode());
    let version = |house: &House| {
        let roots = house.shell.node.standing.identity.membership.roots();
        roots.newest().version
    };
    assert!(house.shell.node.learn_list(peer, &list).is_err());
    house.shell.node.handle_roots(authority.roots.clone());
    assert_eq!(version(&house), 1, "they are not on disk yet");
    house.shell.node.learn_list(peer, &list).unwrap();
    house.turn();
    let roots = house.tell(Word::Take).await;
    assert!(matches!(roots, Write::Edit(Edit::FollowRoots(_))));
    assert_eq!(version(&house), 2);
    // The gate was told of the documents before the list came to it.
    let list = house.tell(Word::Take).await;
    assert!(matches!(list, Write::Revocations { from: Some(_), .. }));
    assert_eq!(house.shell.node.standing.revocations.held.number().0, 1);
    assert!(!house.shell.node.knows_older(&authority.roots));
    assert!(!house.shell.node.knows_older(&first));
}

#[tokio::test]
async fn documents_that_an_admission_brought_are_followed_with_the_next_event() {
    let (mut authority, mut house) = House::build().await;
    authority.rotate(1);
    house.admit_roots(&authority.roots);
    house.infra_up(authority.witness.peer_id());
    assert_eq!(
        house.shell.node.known_roots().newest(),
        authority.roots.newest()
    );
    house.tell(Word::Take).await;
    let own = house
        .shell
        .node
        .standing
        .identity
        .membership
        .roots()
        .newest()
        .version;
    assert_eq!(own, 2);
}
