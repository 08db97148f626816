//! Where a MAC is: when it moves, and when only the DHT can tell.

use std::time::{Duration, SystemTime};

use farlan_tests::frames::{RawPort, gratuitous_arp, mac};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, figure, first_answer_after};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, World};

const THREE: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
];

/// The operator's file that switches replication off: neither anti-entropy nor pushes to the
/// roster carry claims, so that only the DHT knows them.
const NO_REPLICATION: &str = "[directory]\nreplication = false\n";

/// Own claims are in the DHT within 5 s of a connection, jittered (DIRECTORY.md); a second more for
/// the connection.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn a_moved_mac_is_reached_at_its_new_host_within_a_second() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let (talker, moved) = (&world.vms[0], &world.vms[1]);
    let ping = Ping::new(&moved.ip)
        .count(2000)
        .interval(Duration::from_millis(20));
    let ping = ping.spawn(&talker.ns).unwrap();
    first_answer_after(&ping, SystemTime::now(), Duration::from_secs(5)).unwrap();
    let before = world.nodes[0]
        .wait_mac(&moved.mac, Duration::from_secs(5))
        .unwrap();
    let (from, to) = (&world.sites[1].hosts[0], &world.sites[2].hosts[0]);
    moved.unplug_and_move(from, to, BRIDGE).unwrap();
    let raw = RawPort::open(&moved.ns, "eth0").unwrap();
    let announced = SystemTime::now();
    raw.send(&gratuitous_arp(mac(&moved.mac), [10, 9, 0, 2]))
        .unwrap();
    let took = first_answer_after(&ping, announced, Duration::from_secs(20)).unwrap();
    println!("GARP at the new host to first answer for the talker: {took:?}");
    assert!(took <= figure(Duration::from_secs(1)), "{took:?}");
    let after = world.nodes[0]
        .wait_mac(&moved.mac, Duration::from_secs(5))
        .unwrap();
    println!("claim before {before}, after {after}");
    assert_eq!(
        after["node"].as_str().unwrap(),
        world.nodes[2].id().unwrap()
    );
    assert!(after["generation"].as_u64() > before["generation"].as_u64());
}

#[test]
fn frames_under_way_while_a_mac_moves_are_passed_on() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let (talker, moved) = (&world.vms[0], &world.vms[1]);
    // With 25 ms from host to host some requests are on their way to the old host when the claim
    // comes there.
    let ping = Ping::new(&moved.ip)
        .count(3000)
        .interval(Duration::from_millis(5));
    let ping = ping.spawn(&talker.ns).unwrap();
    first_answer_after(&ping, SystemTime::now(), Duration::from_secs(5)).unwrap();
    let old = &world.nodes[1];
    let sent_on = || {
        let status = old.status().unwrap();
        let peers = status["peers"].as_array().unwrap();
        let new = peers.iter().find(|peer| peer["name"] == "c").unwrap();
        new["tx_bytes"].as_u64().unwrap()
    };
    // As when a VM migrates: its source keeps its port for a while, the target announces it.
    let (dropped, sent) = (old.drops("unknown_mac").unwrap(), sent_on());
    let raw = RawPort::open(&world.vms[2].ns, "eth0").unwrap();
    raw.send(&gratuitous_arp(mac(&moved.mac), [10, 9, 0, 2]))
        .unwrap();
    let new = world.nodes[2].id().unwrap();
    let (_, took) = wait_for("the move", Duration::from_secs(5), || {
        let entry = old
            .macs()
            .ok()?
            .into_iter()
            .find(|m| m["mac"] == moved.mac)?;
        (entry["node"] == new.as_str()).then_some(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let dropped = old.drops("unknown_mac").unwrap() - dropped;
    let sent = sent_on() - sent;
    drop(ping);
    println!(
        "moved within {took:?}; the old host passed {sent} bytes on, dropped {dropped} frames"
    );
    // A request is 98 bytes long.
    assert!(sent >= 98, "{sent} bytes passed on");
    assert_eq!(dropped, 0);
}

#[test]
fn the_dht_alone_resolves_a_mac() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let mut world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    let config = world.lab.dir().join("no-replication.toml");
    std::fs::write(&config, NO_REPLICATION).unwrap();
    let config = config.to_str().unwrap().to_owned();
    // The second guest speaks once while its node runs alone, then only listens.
    world.nodes[1].up(&["--config", &config]).unwrap();
    world.nodes[1].ready().unwrap();
    let (asker, silent) = (&world.vms[0], &world.vms[1]);
    // Its kernel solicits routers; whoever hears that looks its source up.
    for vm in [asker, silent] {
        vm.ns
            .sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
            .unwrap();
    }
    let raw = RawPort::open(&silent.ns, "eth0").unwrap();
    raw.send(&gratuitous_arp(mac(&silent.mac), [10, 9, 0, 2]))
        .unwrap();
    world.nodes[1]
        .wait_mac(&silent.mac, Duration::from_secs(5))
        .unwrap();
    std::thread::sleep(PUBLISHED_WITHIN);
    // No ARP: neither guest asks by broadcast, which would carry the claim along.
    for (vm, other) in [(asker, silent), (silent, asker)] {
        let line = format!("neigh add {} lladdr {} dev eth0", other.ip, other.mac);
        vm.ns.ip(&line).unwrap();
    }
    world.nodes[0].up(&["--config", &config]).unwrap();
    world.nodes[0].ready().unwrap();
    // The asker's own claim must be there as well: the other host looks up whose frames it gets.
    std::thread::sleep(PUBLISHED_WITHIN);
    let known = world.nodes[0].macs().unwrap();
    assert!(
        known.iter().all(|m| m["mac"] != silent.mac.as_str()),
        "replicated: {known:?}"
    );
    let r = Ping::new(&silent.ip).count(20).run(&asker.ns).unwrap();
    println!("{r:?}");
    assert!(r.received >= 10, "{r:?}");
    world.nodes[0]
        .wait_mac(&silent.mac, Duration::from_secs(1))
        .unwrap();
}
