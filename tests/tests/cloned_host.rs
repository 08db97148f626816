//! A state directory on two hosts: both say so, nobody else suffers, and the one that stays is whole
//! when the other has gone.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, World};

const SITES: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
];

/// How long the two run side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(12);
/// Both and the bootstrap have said so by then.
const WARNED: Duration = Duration::from_secs(60);
/// The original is whole so long after its copy has gone.
const WHOLE: Duration = Duration::from_secs(10);

fn warns(node: &Node, addrs: [&str; 2]) -> bool {
    let status = node.status().unwrap();
    let warnings = status["warnings"].to_string();
    warnings.contains("another machine has this node's identity")
        && addrs.iter().all(|addr| warnings.contains(addr))
}

/// Links to the bootstrap so far, of both.
fn links(nodes: [&mut Node; 2]) -> usize {
    let up = |node: &mut Node| {
        node.process()
            .log()
            .matches("answers: bootstrap is up")
            .count()
    };
    nodes.into_iter().map(up).sum()
}

#[test]
fn a_cloned_host_is_reported_and_leaves_no_trace_when_it_has_gone() {
    require_lab!();
    let model = LinkModel::default();
    let mut world = World::running(&SITES, Family::V4, model).unwrap();
    let (two, three) = (&world.vms[1], &world.vms[2]);
    first_ping(&two.ns, &three.ip, Instant::now(), WHOLE).unwrap();

    // The host of `a` is cloned: another site, the same state directory, a guest of its own.
    let site = world
        .lab
        .site("z", 9, NatKind::PortRewriting, Family::V4, 1, model)
        .unwrap();
    let mut copy = Node::new(&site.hosts[0], "z");
    let copied = world.lab.dir().join("z-state");
    let from = world.nodes[0].state.display().to_string();
    let cp = format!("cp -a {from} {} && rm -f {0}/farlan.sock", copied.display());
    let done = site.hosts[0].ns.sh(&cp).unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    let mut pings = Ping::new(&three.ip)
        .count(260)
        .interval(Duration::from_millis(100))
        .spawn(&two.ns)
        .unwrap();
    copy.up_and_ready().unwrap();
    let guest = world.lab.vm(9, &site.hosts[0], BRIDGE).unwrap();
    let ours = world.sites[0].public.to_string();
    let theirs = site.public.to_string();
    let both = [ours.as_str(), theirs.as_str()];
    let said = || {
        let log = world.boot.process.log();
        let line = log
            .lines()
            .find(|line| line.contains("two machines have the identity"))?;
        (both.iter().all(|addr| line.contains(addr))
            && warns(&world.nodes[0], both)
            && warns(&copy, both))
        .then_some(())
    };
    let (_, took) = wait_for("all three warn", WARNED, said).unwrap();
    println!("all three warn after {took:?}");

    let before = links([&mut world.nodes[0], &mut copy]);
    let counted = Instant::now();
    std::thread::sleep(SIDE_BY_SIDE);
    let dials = links([&mut world.nodes[0], &mut copy]) - before;
    let span = counted.elapsed();
    println!("{dials} connections of the two in {span:?}");
    assert!(
        dials as f64 <= 2.0 * (span.as_secs_f64() / 10.0 + 1.0),
        "{dials} in {span:?}"
    );

    copy.process().kill();
    drop(guest);
    let gone = Instant::now();
    for guest in [two, three] {
        let took = first_ping(&guest.ns, &world.vms[0].ip, gone, WHOLE).unwrap();
        println!(
            "{} reaches the original's guest {took:?} after the copy has gone",
            guest.ip
        );
    }
    std::thread::sleep(WHOLE.saturating_sub(gone.elapsed()));
    for guest in [two, three] {
        let whole = Ping::new(&world.vms[0].ip)
            .count(20)
            .run(&guest.ns)
            .unwrap();
        assert_eq!(whole.received, 20, "{whole:?}");
    }
    pings.wait(WARNED).unwrap();
    let quiet = parse_ping(&pings.log()).unwrap();
    println!("bystanders: {quiet:?}");
    assert_eq!(quiet.received, quiet.sent, "{quiet:?}");
}
