//! What routers on the way see of a guest's DSCP and ECN, and what the guests see of the routers'.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::proc::Proc;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

/// Captures so far.
static CAPTURES: AtomicU32 = AtomicU32::new(0);
const LIMIT: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_millis(300);

/// Captures `filter` at `dev` for as long as `work` takes; how many packets it saw.
fn count(ns: &Ns, dev: &str, filter: &str, work: impl FnOnce()) -> usize {
    let line = format!("tcpdump -n -l --immediate-mode -i {dev} '{filter}'");
    // A log of its own: one that is there already would say that the capture runs before it does.
    let number = CAPTURES.fetch_add(1, Ordering::Relaxed);
    let name = format!("tcpdump-{}-{number}", ns.name());
    let mut capture: Proc = ns.spawn(&name, &line).unwrap();
    let started = std::time::Instant::now();
    while !capture.log().contains("listening on") && started.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    work();
    std::thread::sleep(SETTLE);
    let log = capture.log();
    let seen = log.lines().filter(|line| line.contains(" > ")).count();
    capture.kill();
    seen
}

#[test]
fn dscp_goes_outward_and_congestion_comes_back() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].wait_kind("b", "direct", LIMIT).unwrap();
    let (a, b) = (&world.vms[0], &world.vms[1]);
    let router = &world.sites[0].router;
    let ping = |tos: &str| {
        let line = format!("ping -n -c 10 -i 0.05 -Q {tos} {}", b.ip);
        let done = a.ns.sh(&line).unwrap();
        assert!(done.stdout.contains(" 0% packet loss"), "{done:?}");
    };
    let outer = |tos: &str, mark: u8| {
        let filter = format!("udp and ip[1] == {mark}");
        count(router, "wan0", &filter, || ping(tos))
    };
    // Expedited forwarding, and one that knows ECN: ping and answer.
    for (tos, mark) in [("0xb8", 0xb8), ("0x2", 2), ("0xba", 0xba)] {
        let seen = outer(tos, mark);
        println!("inner {tos}: {seen} datagrams with {mark:#x}");
        assert!(seen >= 20, "{seen}");
    }
    // A router that marks congestion on what knows ECN, with the checksum that belongs to it.
    let rules = "add table ip aqm; \
        add chain ip aqm out { type filter hook postrouting priority 0; }; \
        add rule ip aqm out oifname wan0 udp dport > 0 ip ecn ect0 ip ecn set ce";
    let done = router.sh(&format!("nft '{rules}'")).unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    let seen = count(&b.ns, "eth0", "icmp[0] == 8 and ip[1] & 3 == 3", || {
        ping("0x2")
    });
    println!("{seen} pings told of congestion");
    assert_eq!(seen, 10);
    let seen = count(&b.ns, "eth0", "icmp[0] == 8 and ip[1] == 0", || ping("0"));
    assert_eq!(seen, 10, "what does not know ECN is let alone");
    assert_eq!(world.nodes[1].drops("congestion_marked").unwrap(), 0);
}
