//! What `farlan status` says when frames do not pass, or not directly: the cause, and no other one.

use std::time::{Duration, Instant};

use farlan_tests::frames::{RawPort, gratuitous_arp, mac};
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const RANDOM: [NatKind; 2] = [NatKind::Symmetric, NatKind::Symmetric];
const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
const SOON: Duration = Duration::from_secs(15);

/// The first warning that contains `text`, if any.
fn warning(node: &Node, text: &str) -> Option<String> {
    let status = node.status().ok()?;
    let mut warnings = status["warnings"].as_array()?.iter();
    let found = warnings.find_map(|one| one.as_str().filter(|one| one.contains(text)))?;
    Some(found.to_owned())
}

#[test]
fn a_bootstrap_without_udp_is_named_within_five_seconds() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    let boot = world.boot.host.ns.clone();
    let block = "nft 'add table inet shut; add chain inet shut in { type filter hook input priority 0; }; \
                 add rule inet shut in udp dport 22611 drop'";
    boot.sh(block).unwrap();
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    let ready = Instant::now();
    let node = &world.nodes[0];
    let named = || warning(node, "no UDP answer comes from 192.0.2.11:22611");
    let (text, took) = wait_for("a warning about UDP", Duration::from_secs(10), named).unwrap();
    println!("after {took:?}: {text}");
    assert!(ready.elapsed() < Duration::from_secs(6));
    assert!(text.contains("no frame passes"), "{text}");
    let why = node.wait_path("b", SOON, |path| path.why == "udp-blocked");
    println!("{:?}", why.unwrap());
    // It is opened, and all is well by itself.
    boot.sh("nft delete table inet shut").unwrap();
    node.wait_kind("b", "direct", SOON).unwrap();
    let gone = || warning(node, "UDP").is_none().then_some(());
    wait_for("no warning", SOON, gone).unwrap();
}

/// The findings of `farlan doctor --json`, and its exit code.
fn examine(node: &Node, args: &[&str]) -> (i32, Vec<serde_json::Value>) {
    let all = [&["doctor", "--json"], args].concat();
    let out = node.run(&all).unwrap();
    let report: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    println!("{}: exit {}: {report:#}", node.name, out.code);
    (out.code, report["findings"].as_array().unwrap().clone())
}

/// Does a check of this name end so?
fn ends(findings: &[serde_json::Value], check: &str, verdict: &str) -> bool {
    let mut these = findings.iter().filter(|one| one["check"] == check);
    these.any(|one| one["verdict"] == verdict)
}

#[test]
fn the_doctor_finds_what_is_wrong_before_and_after_the_join() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    let boot = world.boot.host.ns.clone();
    // A host that has joined nothing.
    let stranger = Node::new(&world.sites[0].hosts[0], "stranger");
    let contact = ["--bootstrap", "192.0.2.11:22611"];
    let (code, found) = examine(&stranger, &contact);
    assert_eq!(code, 0);
    for check in ["tun", "rights", "bootstrap", "mtu", "firewall"] {
        assert!(ends(&found, check, "ok"), "{check}");
    }
    assert!(ends(&found, "membership", "note") && ends(&found, "nat", "note"));
    let text = stranger
        .farlan(&["doctor", contact[0], contact[1]])
        .unwrap();
    println!("{text}");
    // UDP is forgotten at the bootstrap's firewall.
    boot.sh(
        "nft 'add table inet shut; add chain inet shut in { type filter hook input priority 0; }; \
             add rule inet shut in udp dport 22611 drop'",
    )
    .unwrap();
    let (code, found) = examine(&stranger, &contact);
    assert_eq!(code, 1);
    let cure = found.iter().find(|one| one["verdict"] == "fail").unwrap();
    assert!(
        cure["cure"]
            .as_str()
            .unwrap()
            .contains("open UDP port 22611")
    );
    boot.sh("nft delete table inet shut").unwrap();
    // Joined, attached, up.
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    world.nodes[0].wait_kind("b", "direct", SOON).unwrap();
    let (code, found) = examine(&world.nodes[0], &[]);
    assert_eq!(code, 0);
    for check in ["membership", "port", "clock", "nat", "bootstrap"] {
        assert!(ends(&found, check, "ok"), "{check}");
    }
    // The bootstrap is gone.
    world.boot.process.kill();
    let (code, found) = examine(&world.nodes[0], &[]);
    assert_eq!(code, 1);
    assert!(ends(&found, "bootstrap", "fail"));
}

#[test]
fn a_stopped_peer_is_no_lost_relay_and_who_left_is_no_ghost() {
    require_lab!();
    let mut world = World::running(&RANDOM, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].wait_kind("b", "relayed", SOON).unwrap();
    world.nodes[1].stop().unwrap();
    // Traffic goes on being asked for.
    let ping = world.vms[1].ip.clone();
    let ping = farlan_tests::probe::Ping::new(&ping).count(1000);
    let _ping = ping.spawn(&world.vms[0].ns).unwrap();
    let gone = |why: &str| why == "peer-offline" || why == "peer-silent";
    let end = Duration::from_secs(30);
    let seen = |path: &farlan_tests::overlay::PathView| {
        assert_ne!(path.why, "relay-lost", "the relay answers");
        gone(&path.why)
    };
    let (path, took) = world.nodes[0].wait_path("b", end, seen).unwrap();
    println!("{path:?} after {took:?}");
    let offline = |path: &farlan_tests::overlay::PathView| path.why == "peer-offline";
    let (_, took) = world.nodes[0].wait_path("b", end, offline).unwrap();
    println!("known to be offline after {took:?}");
    // It comes back and leaves for good.
    world.nodes[1].up_and_ready().unwrap();
    world.nodes[0].wait_kind("b", "relayed", end).unwrap();
    world.nodes[1].farlan(&["leave", "--yes"]).unwrap();
    let parted = || {
        let status = world.nodes[0].status().ok()?;
        status["peers"].as_array()?.is_empty().then_some(())
    };
    let ((), took) = wait_for("the leaver is gone from status", SOON, parted).unwrap();
    println!("no ghost after {took:?}");
}

#[test]
fn a_healthy_overlay_counts_no_drops_and_warns_of_nothing() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    for (node, peer) in [(0, "b"), (1, "a")] {
        world.nodes[node].wait_kind(peer, "direct", SOON).unwrap();
    }
    // By name, by a guest's address, and what there is not.
    let node = &world.nodes[0];
    let text = node.farlan(&["ping", "b", "--until-direct"]).unwrap();
    println!("{text}");
    assert!(
        text.contains(" ms  direct ") && text.contains("0 % lost"),
        "{text}"
    );
    let by_ip = node
        .farlan(&["ping", "10.9.0.2", "-c", "2", "--json"])
        .unwrap();
    let by_ip: serde_json::Value = serde_json::from_str(&by_ip).unwrap();
    assert_eq!(
        (&by_ip["name"], &by_ip["answered"]),
        (&"b".into(), &2.into())
    );
    // The second of two new addresses is told a second after the first: a ping asks, and waits.
    let guest = &world.vms[1];
    let raw = RawPort::open(&guest.ns, "eth0").unwrap();
    for last in [77, 78] {
        let announce = gratuitous_arp(mac(&guest.mac), [10, 9, 0, last]);
        raw.send(&announce).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    node.farlan(&["ping", "10.9.0.78", "-c", "1"]).unwrap();
    let here = node.run(&["ping", "10.9.0.1", "-c", "1"]).unwrap();
    assert!(
        here.code == 1 && here.stderr.contains("on this host"),
        "{here:?}"
    );
    let nobody = node.run(&["ping", "nobody", "-c", "1"]).unwrap();
    assert!(
        nobody.code == 1 && nobody.stderr.contains("`farlan peers`"),
        "{nobody:?}"
    );
    std::thread::sleep(Duration::from_secs(2));
    for node in &world.nodes {
        let status = node.status().unwrap();
        let drops = status["drops"].as_object().unwrap();
        assert!(drops.is_empty(), "{}: {drops:?}", node.name);
        let warnings = status["warnings"].as_array().unwrap();
        assert!(warnings.is_empty(), "{}: {warnings:?}", node.name);
        assert_eq!(status["bootstraps"][0]["state"], "up");
        assert_eq!(status["bootstraps"][0]["udp"], true);
    }
}
