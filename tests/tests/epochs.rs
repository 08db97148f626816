//! A network's epoch changes while guests talk, and while one node is off.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Node, farlan};
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::{self, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const FOUR: [NatKind; 4] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
    NatKind::PortRewriting,
];

/// The epoch of the one network, as the node shows it.
fn epoch(node: &Node) -> Option<u64> {
    node.status().ok()?["networks"][0]["epoch"].as_u64()
}

fn wait_epoch(node: &Node, wanted: u64, timeout: Duration) -> Duration {
    let what = format!("{} is in epoch {wanted}", node.name);
    let done = || (epoch(node)? == wanted).then_some(());
    let ((), took) = wait_for(&what, timeout, done).unwrap();
    println!("{what} after {took:?}");
    took
}

/// Revokes the node of that name; the line for `farlan apply -`.
fn revoke(world: &World, name: &str) -> String {
    let state = world.lab.dir().join("main-authority");
    let mut command = farlan(&world.boot.host.ns, &state);
    proc::check(command.args(["revoke", name])).unwrap()
}

fn apply(node: &Node, line: &str) {
    let mut command = farlan(&node.host.ns, &node.state);
    let out = proc::finish_with_input(command.args(["apply", "-"]), line).unwrap();
    assert_eq!(out.code, 0, "{out:?}");
}

#[test]
fn trust_8_an_epoch_changes_under_traffic_and_while_a_node_is_off() {
    require_lab!();
    let mut world = World::running(&FOUR, Family::V4, LinkModel::default()).unwrap();
    world.nodes[2].stop().unwrap();
    let mut talk = Ping::new(&world.vms[0].ip)
        .count(100)
        .spawn(&world.vms[1].ns)
        .unwrap();
    let line = revoke(&world, "d");
    apply(&world.nodes[0], &line);
    assert_eq!(epoch(&world.nodes[0]), Some(2));
    wait_epoch(&world.nodes[1], 2, Duration::from_secs(5));

    // Within the overlap the others are found as before: at the old rendezvous.
    let start = Instant::now();
    world.nodes[2].up_and_ready().unwrap();
    let (from, to) = (&world.vms[2].ns, &world.vms[0].ip);
    let took = first_ping(from, to, start, Duration::from_secs(20)).unwrap();
    println!("the one that was off is back after {took:?}");
    wait_epoch(&world.nodes[2], 2, Duration::from_secs(10));

    talk.wait_log("packets transmitted", Duration::from_secs(60))
        .unwrap();
    let result = parse_ping(&talk.log()).unwrap();
    println!("those that stayed: {result:?}");
    assert_eq!(result.sent, result.received, "the change lost a frame");
    // The revoked one has not got the key, whomever it asked meanwhile.
    assert_eq!(epoch(&world.nodes[3]), Some(1));
    let out = Ping::new(&world.vms[0].ip).run(&world.vms[3].ns).unwrap();
    assert_eq!(out.received, 0);
    // It is on disk.
    world.nodes[1].stop().unwrap();
    world.nodes[1].up_and_ready().unwrap();
    assert_eq!(epoch(&world.nodes[1]), Some(2));
}
