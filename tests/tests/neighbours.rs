//! Guests that only talk to neighbours on their host are known to the others all the same.

use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::first_ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, TAP, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
const WAIT: Duration = Duration::from_secs(10);

/// A MAC whose frames never reach our tap.
const QUIET: &str = "52:54:00:00:00:77";

/// A frame to a neighbour that the bridge knows. Not from the guest's own MAC: that one becomes
/// known by what its kernel sends to groups.
fn to_neighbour(port: &RawPort, to: &str) {
    let frame = Frame::build(mac(to), mac(QUIET), 0x88b5, b"between neighbours");
    port.send(&frame).unwrap();
}

#[test]
fn a_guest_that_talks_to_neighbours_only_is_known_and_its_port_is_watched() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let (here, there) = (&world.sites[0].hosts[0], &world.nodes[1]);
    let quiet = world.lab.vm(9, here, BRIDGE).unwrap();
    let port = RawPort::open(&quiet.ns, "eth0").unwrap();
    to_neighbour(&port, &world.vms[0].mac);
    let entry = there.wait_mac(QUIET, WAIT).unwrap();
    let owner = entry["node"].as_str().unwrap();
    assert_eq!(owner, world.nodes[0].id().unwrap());
    // Its port goes: the claim is withdrawn, long before it would age.
    here.ns.ip("link set vm9 nomaster").unwrap();
    let gone = || {
        let macs = there.macs().ok()?;
        macs.iter().all(|m| m["mac"] != QUIET).then_some(())
    };
    let ((), took) = wait_for("the claim is withdrawn", WAIT, gone).unwrap();
    println!("withdrawn after {took:?}");
    // And back.
    let plug = format!("link set vm9 master {BRIDGE}");
    here.ns.ip(&plug).unwrap();
    to_neighbour(&port, &world.vms[0].mac);
    there.wait_mac(QUIET, WAIT).unwrap();
}

#[test]
fn what_the_bridge_knew_before_the_node_started_is_claimed() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    let neighbour = world.lab.vm(9, &world.sites[0].hosts[0], BRIDGE).unwrap();
    // It speaks while no node reads the tap.
    first_ping(&neighbour.ns, &world.vms[0].ip, Instant::now(), WAIT).unwrap();
    let port = RawPort::open(&neighbour.ns, "eth0").unwrap();
    to_neighbour(&port, &world.vms[0].mac);
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    world.nodes[1].wait_mac(QUIET, WAIT).unwrap();
}

#[test]
fn a_mac_that_moved_away_leaves_no_entry_behind() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let from = &world.sites[1].hosts[0];
    // No address of it is known: no announcement on its behalf can teach the bridge.
    let port = RawPort::open(&world.vms[1].ns, "eth0").unwrap();
    let frame = Frame::build([0xff; 6], mac(QUIET), 0x88b5, b"here");
    port.send(&frame).unwrap();
    world.nodes[0].wait_mac(QUIET, WAIT).unwrap();
    let place = || {
        let fdb = from.ns.sh("bridge fdb show br br-lab").ok()?.stdout;
        let line = fdb.lines().find(|line| line.starts_with(QUIET))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    };
    assert_eq!(place().as_deref(), Some("vm2"));
    world.nodes[0].farlan(&["announce", "lab", QUIET]).unwrap();
    let moved = || (place()? == TAP).then_some(());
    wait_for("the entry points to the tap", WAIT, moved).unwrap();
}
