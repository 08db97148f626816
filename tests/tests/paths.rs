//! Which path two nodes end up with, and what it carries.

use std::time::Duration;

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Node, PathView};
use farlan_tests::probe::{Ping, parse_ping, tcp_transfer};
use farlan_tests::proc;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const SOON: Duration = Duration::from_secs(15);
const EIM: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortRewriting];
const RANDOM: [NatKind; 2] = [NatKind::Symmetric, NatKind::Symmetric];
const FIREWALLS: [NatKind; 2] = [NatKind::Firewall, NatKind::Firewall];

fn both_direct(nodes: &[Node]) {
    let path = nodes[0].wait_kind("b", "direct", SOON).unwrap();
    assert!(
        path.why.is_empty(),
        "a direct path needs no reason: {path:?}"
    );
    nodes[1].wait_kind("a", "direct", SOON).unwrap();
}

/// 20 pings without a loss and a TCP transfer, both ways.
fn traffic_flows(world: &World) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&world.vms[from], &world.vms[to]);
        let r = Ping::new(&to.ip).count(20).run(&from.ns).unwrap();
        println!("{} -> {}: {r:?}", from.ip, to.ip);
        assert_eq!(r.received, 20);
        let took = tcp_transfer(&from.ns, &to.ns, &to.ip, 2_000_000).unwrap();
        println!("2 MB in {took:?}");
    }
}

/// Both nodes have proven that datagrams of `size` bytes pass, soon after the first ping.
fn both_prove(world: &World, size: u64) {
    for (node, peer) in [(0, "b"), (1, "a")] {
        let proven = |p: &PathView| p.mtu == size;
        let (path, took) = world.nodes[node]
            .wait_path(peer, Duration::from_secs(5), proven)
            .unwrap();
        println!("{path:?} after {took:?}");
    }
}

#[test]
fn an_ordinary_underlay_carries_datagrams_of_1472_bytes() {
    require_lab!();
    let world = World::running(&EIM, Family::V4, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    both_prove(&world, 1_472);
    let text = world.nodes[0].farlan(&["status"]).unwrap();
    assert!(text.contains("1472"), "{text}");
    traffic_flows(&world);
    for node in &world.nodes {
        assert_eq!(node.drops("datagram_too_large").unwrap(), 0);
        assert_eq!(node.drops("socket_error").unwrap(), 0);
    }
    // Sizes that do not pass are tried a few times, not for ever.
    let tried = world.lab.wan().stats(world.sites[0].link).too_big;
    println!("{tried} packets were too large for the WAN");
    assert!(tried <= 20, "{tried}");
}

#[test]
fn an_ordinary_underlay_carries_datagrams_of_1452_bytes_on_ipv6() {
    require_lab!();
    let world = World::running(&FIREWALLS, Family::V6, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    both_prove(&world, 1_452);
}

#[test]
fn a_relayed_pair_leaves_room_for_the_relay_header() {
    require_lab!();
    let world = World::running(&RANDOM, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].wait_kind("b", "relayed", SOON).unwrap();
    both_prove(&world, 1_444);
    traffic_flows(&world);
}

/// A router on the way gets a smaller MTU and says nothing: pings that are still small enough go
/// on, and so does a transfer, at the new size.
#[test]
fn a_path_that_shrinks_silently_is_noticed_and_goes_on() {
    require_lab!();
    let world = World::running(&EIM, Family::V4, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    both_prove(&world, 1_472);
    let narrow = LinkModel {
        mtu: 1_400,
        icmp_too_big: false,
        ..LinkModel::default()
    };
    world.lab.wan().set_model(world.sites[1].link, narrow);
    let (from, to) = (&world.vms[0], &world.vms[1]);
    let took = tcp_transfer(&from.ns, &to.ns, &to.ip, 1_000_000).unwrap();
    println!("1 MB in {took:?}");
    let (path, after) = world.nodes[0]
        .wait_path("b", Duration::from_secs(40), |p| p.mtu <= 1_372)
        .unwrap();
    println!("{path:?} after {after:?}");
    assert_eq!(path.kind, "direct", "small datagrams passed all the time");
    let smallest_sure = 1_372 - 7;
    let found = |p: &PathView| (smallest_sure..=1_372).contains(&p.mtu);
    world.nodes[0].wait_path("b", SOON, found).unwrap();
    traffic_flows(&world);
}

#[test]
fn port_rewriting_nats_on_both_sides_become_direct() {
    require_lab!();
    let world = World::running(&EIM, Family::V4, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    let path = world.nodes[0].path_to("b").unwrap().unwrap();
    let public = world.sites[1].public.to_string();
    assert!(
        path.remote.starts_with(&public),
        "{path:?} is not at {public}"
    );
    let boot = world.boot.host.link;
    let before = world.lab.wan().stats(boot).sent_bytes;
    traffic_flows(&world);
    let through_boot = world.lab.wan().stats(boot).sent_bytes - before;
    println!("{through_boot} bytes left the bootstrap meanwhile");
    assert!(
        through_boot < 500_000,
        "4 MB of direct traffic, {through_boot} bytes relayed"
    );
}

#[test]
fn random_ports_on_both_sides_become_relayed_and_traffic_flows() {
    require_lab!();
    let world = World::running(&RANDOM, Family::V4, LinkModel::default()).unwrap();
    for (node, peer) in [(0, "b"), (1, "a")] {
        let path = world.nodes[node].wait_kind(peer, "relayed", SOON).unwrap();
        assert!(!path.why.is_empty(), "a relayed path says why: {path:?}");
    }
    traffic_flows(&world);
}

#[test]
fn a_random_port_nat_and_a_port_keeping_one_exchange_frames() {
    require_lab!();
    let nats = [NatKind::Symmetric, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    traffic_flows(&world);
    println!("{:?}", world.nodes[0].path_to("b"));
}

#[test]
fn a_router_that_lets_probes_in_still_carries_frames() {
    require_lab!();
    let nats = [NatKind::PortPreservingOpen, NatKind::PortPreservingOpen];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    traffic_flows(&world);
    println!("{:?}", world.nodes[0].path_to("b"));
}

#[test]
fn ipv6_only_behind_stateful_firewalls_becomes_direct() {
    require_lab!();
    let world = World::running(&FIREWALLS, Family::V6, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    traffic_flows(&world);
}

#[test]
fn a_stateful_firewall_and_a_port_keeping_nat_become_direct() {
    require_lab!();
    let nats = [NatKind::Firewall, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    traffic_flows(&world);
}

/// MTU 1,280 in the middle, ICMP dropped: full-size guest packets with DF cross, and no packet on
/// the underlay is a fragment.
fn full_frames_cross_a_narrow_underlay(nats: [NatKind; 2], family: Family) {
    let narrow = LinkModel {
        mtu: 1280,
        icmp_too_big: false,
        ..LinkModel::default()
    };
    let world = World::running(&nats, family, narrow).unwrap();
    both_direct(&world.nodes);
    let mut captures = Vec::new();
    for site in &world.sites {
        let file = world.lab.dir().join(format!("{}.pcap", site.router.name()));
        let line = format!("tcpdump -U -n -i wan0 -w {}", file.display());
        let mut capture = site.router.spawn("tcpdump", &line).unwrap();
        capture
            .wait_log("listening on", Duration::from_secs(5))
            .unwrap();
        captures.push((capture, file));
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&world.vms[from], &world.vms[to]);
        let r = Ping::new(&to.ip).df(1472).count(10).run(&from.ns).unwrap();
        assert_eq!(r.received, 10, "1,500-byte pings with DF over IPv4");
        let r = Ping::new(&to.ip6).df(1452).count(10).run(&from.ns).unwrap();
        assert_eq!(r.received, 10, "1,500-byte pings over IPv6");
        tcp_transfer(&from.ns, &to.ns, &to.ip, 1_000_000).unwrap();
    }
    // MTU 1,280 less IP and UDP headers, found within 8 bytes.
    let fits = if family == Family::V4 { 1_252 } else { 1_232 };
    for (node, peer) in [(0, "b"), (1, "a")] {
        let found = |p: &PathView| (fits - 7..=fits).contains(&p.mtu);
        let (path, took) = world.nodes[node].wait_path(peer, SOON, found).unwrap();
        println!("{path:?} after {took:?}");
    }
    std::thread::sleep(Duration::from_millis(200));
    for ((mut capture, file), site) in captures.into_iter().zip(&world.sites) {
        capture.stop(Duration::from_secs(5)).unwrap();
        let count = |filter: &str| {
            let mut cmd = std::process::Command::new("tcpdump");
            cmd.args(["-n", "-r"]).arg(&file).arg(filter);
            proc::check(&mut cmd).unwrap().lines().count()
        };
        let all = count("udp or ip6");
        let fragments = count("ip[6:2] & 0x3fff != 0 or ip6 proto 44");
        let large = count("greater 1281");
        println!(
            "{}: {all} packets, {fragments} fragments, {large} over 1,280",
            file.display()
        );
        assert!(all > 100 && fragments == 0);
        // The WAN saw every packet, also those before the capture began.
        assert_eq!(world.lab.wan().stats(site.link).fragments, 0);
    }
}

#[test]
fn full_frames_cross_mtu_1280_without_icmp() {
    require_lab!();
    full_frames_cross_a_narrow_underlay(EIM, Family::V4);
}

#[test]
fn full_frames_cross_mtu_1280_without_icmp_on_ipv6() {
    require_lab!();
    full_frames_cross_a_narrow_underlay(FIREWALLS, Family::V6);
}

#[test]
fn bootstrap_killed_and_the_direct_flow_loses_nothing() {
    require_lab!();
    let mut world = World::running(&EIM, Family::V4, LinkModel::default()).unwrap();
    both_direct(&world.nodes);
    let to = world.vms[1].ip.clone();
    let ping = Ping::new(&to)
        .count(200)
        .interval(Duration::from_millis(50));
    let mut ping = ping.spawn(&world.vms[0].ns).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    world.boot.process.kill();
    ping.wait(Duration::from_secs(30)).unwrap();
    let r = parse_ping(&ping.log()).unwrap();
    println!("9 s without bootstrap: {r:?}");
    assert_eq!(r.received, r.sent);
    both_direct(&world.nodes);
}

#[test]
fn bootstrap_killed_and_the_relayed_pair_says_so() {
    require_lab!();
    let mut world = World::running(&RANDOM, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].wait_kind("b", "relayed", SOON).unwrap();
    world.boot.process.kill();
    // Traffic goes on being asked for: silence must be told from idleness.
    let to = world.vms[1].ip.clone();
    let _ping = Ping::new(&to).count(1000).spawn(&world.vms[0].ns).unwrap();
    let (after, took) = world.nodes[0]
        .wait_path("b", Duration::from_secs(30), |p| p.why == "relay-lost")
        .unwrap();
    println!("relay gone, status says {after:?} after {took:?}");
}
