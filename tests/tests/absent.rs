//! A member is away: killed, switched off, cut off for good. The others do not wait for it.

use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::first_ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const WAIT: Duration = Duration::from_secs(10);
/// Until its path counts as lost.
const LOST: Duration = Duration::from_secs(40);
/// Until it counts as away: 10 s of seeking it, and the next look after that.
const AWAY: Duration = Duration::from_secs(16);

const BROADCASTS: u64 = 4_000;

/// Frames that came to the guest so far.
fn received(guest: &Ns) -> u64 {
    let file = "/sys/class/net/eth0/statistics/rx_packets";
    let out = guest.sh(&format!("cat {file}")).unwrap();
    out.stdout.trim().parse().unwrap()
}

/// 2,000 a second.
fn broadcast(guest: &Ns, from: &str) {
    let port = RawPort::open(guest, "eth0").unwrap();
    let start = Instant::now();
    for n in 0..BROADCASTS {
        while u64::try_from(start.elapsed().as_micros()).unwrap() < n * 500 {
            std::thread::sleep(Duration::from_micros(200));
        }
        // All the same would be a loop.
        port.send(&Frame::build(
            [0xff; 6],
            mac(from),
            0x88b5,
            &n.to_be_bytes(),
        ))
        .unwrap();
    }
}

fn lost(node: &Node) -> u64 {
    let reasons = [
        "pending_overflow",
        "pending_timeout",
        "no_session",
        "punt_overflow",
        "punt_limit",
    ];
    reasons
        .iter()
        .map(|reason| node.drops(reason).unwrap())
        .sum()
}

#[test]
fn broadcasts_do_not_wait_for_a_member_that_is_away() {
    require_lab!();
    let sites = [
        NatKind::PortRewriting,
        NatKind::PortPreserving,
        NatKind::PortRewriting,
    ];
    let mut world = World::running(&sites, Family::V4, LinkModel::default()).unwrap();
    let name = world.nodes[2].name.clone();
    world.nodes[2].process().kill();
    let (_, took) = world.nodes[0]
        .wait_path(&name, LOST, |path| path.kind == "none")
        .unwrap();
    println!("its path is lost after {took:?}");
    std::thread::sleep(AWAY);
    let (sender, other) = (&world.vms[0], &world.vms[1]);
    let (lost_before, before) = (lost(&world.nodes[0]), received(&other.ns));
    broadcast(&sender.ns, &sender.mac);
    let all = || (received(&other.ns) - before >= BROADCASTS).then_some(());
    wait_for("all broadcasts are at the other member", WAIT, all).unwrap();
    assert_eq!(lost(&world.nodes[0]) - lost_before, 0, "frames lost");
    // It comes back, and is a member as before.
    world.nodes[2].up(&[]).unwrap();
    world.nodes[2].ready().unwrap();
    let took = first_ping(&world.vms[0].ns, &world.vms[2].ip, Instant::now(), WAIT).unwrap();
    println!("reached again after {took:?}");
}
