//! Hosts whose firewall drops what is bridged, as Docker's does.

use std::time::{Duration, Instant};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

/// The chains as Docker makes them.
const DOCKER: &str = "iptables -P FORWARD DROP && iptables -N DOCKER-USER && \
     iptables -A DOCKER-USER -j RETURN && iptables -A FORWARD -j DOCKER-USER";
/// As a restart of the firewall leaves them for a moment.
const FLUSH: &str = "iptables -F && iptables -X DOCKER-USER";

fn docker_like(ns: &Ns) {
    ns.sysctl("net/bridge/bridge-nf-call-iptables", "1")
        .unwrap();
    let done = ns.sh(DOCKER).unwrap();
    assert_eq!(done.code, 0, "{done:?}");
}

fn rule(bridge: &str) -> String {
    format!("iptables -C DOCKER-USER -i {bridge} -o {bridge} -j ACCEPT")
}

fn has_rule(node: &Node) -> bool {
    node.host.ns.sh(&rule(BRIDGE)).unwrap().code == 0
}

#[test]
fn a_firewall_that_drops_forwarded_packets_lets_the_bridge_pass() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let mut world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    let neighbour = world.lab.vm(9, &world.sites[0].hosts[0], BRIDGE).unwrap();
    docker_like(&world.nodes[0].host.ns);
    docker_like(&world.nodes[1].host.ns);
    let dropped = Ping::new(&world.vms[0].ip).count(2).run(&neighbour.ns);
    assert_eq!(dropped.unwrap().received, 0, "the trap is not set");
    for node in &world.nodes {
        let told = node.farlan(&["attach", NETWORK]).unwrap();
        assert!(told.contains("-I DOCKER-USER -i br-lab"), "{told}");
        let again = node.farlan(&["attach", NETWORK]).unwrap();
        assert!(!again.contains("DOCKER-USER"), "{again}");
    }
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    let limit = Duration::from_secs(20);
    let (here, there) = (&world.vms[0], &world.vms[1]);
    first_ping(&neighbour.ns, &here.ip, Instant::now(), limit).unwrap();
    first_ping(&there.ns, &here.ip, Instant::now(), limit).unwrap();
    for node in &world.nodes {
        let done = node.host.ns.sh(FLUSH).unwrap();
        assert_eq!(done.code, 0, "{done:?}");
        docker_like(&node.host.ns);
    }
    let ((), took) = wait_for("the rule is back", limit, || {
        world.nodes.iter().all(has_rule).then_some(())
    })
    .unwrap();
    println!("the rule was back after {took:?}");
    for vm in [&neighbour, there] {
        let pinged = Ping::new(&here.ip).run(&vm.ns).unwrap();
        assert!(pinged.received >= 4, "{pinged:?}");
    }
    let sysctl = "cat /proc/sys/net/bridge/bridge-nf-call-iptables";
    let node = &world.nodes[0];
    assert_eq!(node.host.ns.sh(sysctl).unwrap().stdout.trim(), "1");
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    assert!(!has_rule(node), "the rule outlived the attachment");
    // Nobody puts it back.
    std::thread::sleep(Duration::from_secs(6));
    assert!(!has_rule(node));
}

#[test]
fn for_a_bridge_of_others_the_line_is_told() {
    require_lab!();
    let nats = [NatKind::PortRewriting];
    let world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    let node = &world.nodes[0];
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    node.host.ns.ip("link add br0 type bridge").unwrap();
    docker_like(&node.host.ns);
    let told = node
        .farlan(&["attach", NETWORK, "--bridge", "br0"])
        .unwrap();
    let line = "iptables -I DOCKER-USER -i br0 -o br0 -j ACCEPT";
    assert!(told.contains(line), "{told}");
    assert_ne!(node.host.ns.sh(&rule("br0")).unwrap().code, 0);
}
