//! `farlan leave`: a node takes its leave, and can come back with a new invite.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::probe::first_ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, TAP, World};

const THREE: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
];

#[test]
fn who_leaves_is_gone_for_all_within_seconds_and_comes_back_with_a_new_invite() {
    require_lab!();
    let mut world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let leaver = world.nodes[1].id().unwrap();
    let refused = world.nodes[1].run(&["leave"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);

    let start = Instant::now();
    let told = world.nodes[1].farlan(&["leave", "--yes"]).unwrap();
    assert!(told.contains("left overlay"), "{told}");
    println!("left after {:?}: {told}", start.elapsed());
    let status = world.nodes[1]
        .process()
        .wait(Duration::from_secs(5))
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(
        world.nodes[1]
            .process()
            .log()
            .contains("has left the overlay")
    );
    for other in [0, 2] {
        let node = &world.nodes[other];
        let gone = || {
            let peers = node.status().ok()?["peers"].to_string();
            let macs = format!("{:?}", node.macs().ok()?);
            (!peers.contains(&leaver) && !macs.contains(&leaver)).then_some(())
        };
        let (_, took) = wait_for("it is gone", Duration::from_secs(5), gone).unwrap();
        println!("{} saw it gone after {took:?}", node.name);
    }
    // Nothing of the network is left on the host, and the commands say what to do.
    let links = world.sites[1].hosts[0].ns.ip("link").unwrap();
    assert!(!links.contains(TAP) && !links.contains(BRIDGE), "{links}");
    for args in [
        &["status"][..],
        &["up"],
        &["attach", NETWORK],
        &["leave", "--yes"],
    ] {
        let done = world.nodes[1].run(args).unwrap();
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert!(
            done.stderr.contains("farlan join"),
            "{args:?}: {}",
            done.stderr
        );
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
    let kept: Vec<String> = std::fs::read_dir(&world.nodes[1].state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock") && name != "lock")
        .collect();
    assert_eq!(kept, ["ports"]);

    // A new invite, a new node; its guest is reached again.
    let invite = world.invite("b-again").unwrap();
    let joined = world.nodes[1].join(&invite).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
    world.nodes[1].farlan(&["attach", NETWORK]).unwrap();
    world.nodes[1].up_and_ready().unwrap();
    assert_ne!(world.nodes[1].id().unwrap(), leaver);
    let guest = world.lab.vm(8, &world.sites[1].hosts[0], BRIDGE).unwrap();
    let to = &world.vms[0].ip;
    first_ping(&guest.ns, to, Instant::now(), Duration::from_secs(10)).unwrap();
    // The old one is not seen again when the cards come round.
    let peers = world.nodes[0].status().unwrap()["peers"].to_string();
    assert!(!peers.contains(&leaver), "{peers}");
}

#[test]
fn a_stopped_node_leaves_and_says_that_nobody_was_told() {
    require_lab!();
    let world = World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap();
    let told = world.nodes[0].farlan(&["leave", "--yes"]).unwrap();
    assert!(told.contains("nobody was told"), "{told}");
    let links = world.sites[0].hosts[0].ns.ip("link").unwrap();
    assert!(!links.contains(TAP) && !links.contains(BRIDGE), "{links}");
    let done = world.nodes[0].run(&["up"]).unwrap();
    assert!(
        done.code == 1 && done.stderr.contains("farlan join"),
        "{done:?}"
    );
}
