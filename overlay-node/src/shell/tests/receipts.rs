use node_core::control::{BootstrapAddr, ControlEvent};

use node_core::questions::Question;
use node_core::store::{Edit, Write};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::test_authority::TestOverlay;

use crate::shell::house::{House, Word};
use crate::shell::read_clocks;
use node_core::node::effects::Effect;

/// Of whom receipts are asked.
fn asked(house: &mut House) -> Vec<PeerId> {
    let node = &mut house.shell.node;
    node.send_questions(read_clocks().now);
    let mut witnesses = Vec::new();
    while let Some(effect) = node.outside.effects.pop() {
        if let Effect::Ask(_, Question::Receipt { infra, .. }) = effect {
            witnesses.push(infra);
        }
    }
    witnesses
}

/// The witness is up, and the gate shows `chain` since.
fn up(house: &mut House, authority: &TestOverlay, chain: Vec<u8>) {
    let remote = "192.0.2.1:22612".parse().unwrap();
    let event = ControlEvent::InfraUp {
        peer: authority.witness.peer_id(),
        remote,
        data_addrs: vec![remote],
        chain,
    };
    let node = &mut house.shell.node;
    node.handle_control_event(read_clocks(), event);
}

#[tokio::test]
async fn trust_4_a_witness_that_gave_no_receipt_with_the_admission_is_asked() {
    let (authority, mut house) = House::build().await;
    let witness = authority.witness.peer_id();
    let shown = house.shell.node.standing.identity.chain.clone();
    up(&mut house, &authority, shown);
    assert_eq!(asked(&mut house), [witness]);
    // One that did needs not be asked.
    let (mut authority, mut house) = House::build().await;
    let given = authority.receipt_of(house.on_disk().chain().unwrap());
    up(&mut house, &authority, given.encode());
    assert_eq!(asked(&mut house), []);
}

#[tokio::test]
async fn trust_4_the_receipt_of_an_admission_goes_to_the_disk_and_then_to_the_gate() {
    let (mut authority, mut house) = House::build().await;
    let bare = house.on_disk().chain().unwrap().clone();
    let given = authority.receipt_of(&bare);
    house.admit_us(&given);
    house.infra_up(authority.witness.peer_id());
    let edit = Edit::TakeReceipt(Box::new(given.clone()));
    assert_eq!(house.in_hand(), Write::Edit(edit));
    // As if somebody had set the gate meanwhile.
    house.admit_us(&bare);
    house.word.send(Word::Take).unwrap();
    house.hear().await;
    assert_eq!(house.shell.node.standing.identity.chain, given.encode());
    assert_eq!(house.gate.chain(), given.encode());
}

#[tokio::test]
async fn an_address_is_silent_until_its_bootstrap_is_up() {
    let (authority, mut house) = House::build().await;
    let addr = |peer| BootstrapAddr::new(&format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}"));
    let witness = authority.witness.peer_id();
    let node = &mut house.shell.node;
    for peer in [witness, PeerId([3; 32])] {
        let event = ControlEvent::Unreachable {
            addr: addr(peer),
            reason: "refused".to_owned(),
        };
        node.handle_control_event(read_clocks(), event);
    }
    let why = node.bootstrap_reports().remove(0).why;
    assert_eq!(why.as_deref(), Some("refused"));
    let shown = node.standing.identity.chain.clone();
    up(&mut house, &authority, shown);
    let left = house.shell.node.candidates.unreachable.keys();
    assert!(left.eq([&addr(PeerId([3; 32]))]));
}
