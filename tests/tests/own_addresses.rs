//! Which of a host's addresses its peers are told, and that an old list never wins over a new one.

use std::time::{Duration, Instant};

use farlan_tests::lab::{Lab, Ns};
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::first_ping;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

/// The same on every host, as container engines make them; with something plugged in.
fn ten_docker_bridges(host: &Ns) {
    for n in 17..27 {
        for line in [
            format!("link add docker{n} type bridge"),
            format!("addr add 172.{n}.0.1/16 dev docker{n}"),
            format!("link add box{n} type veth peer name in{n}"),
            format!("link set box{n} master docker{n} up"),
            format!("link set in{n} up"),
            format!("link set docker{n} up"),
        ] {
            host.ip(&line).unwrap();
        }
    }
}

/// What privacy extensions leave behind on a host that is up for days.
fn nine_deprecated_addresses(host: &Ns, own: usize) {
    for n in 1..10 {
        let address = format!("2001:db8:1::{own}:{n}/64");
        host.ip(&format!(
            "addr add {address} dev eth0 nodad preferred_lft 0"
        ))
        .unwrap();
    }
}

/// Counts the UDP datagrams that the host sends to itself.
fn count_datagrams_to_itself(host: &Ns) {
    let rules = "add table inet own; \
        add chain inet own out { type filter hook output priority 0; }; \
        add rule inet own out oifname lo meta l4proto udp counter";
    let out = host.sh(&format!("nft '{rules}'")).unwrap();
    assert_eq!(out.code, 0, "{out:?}");
}

fn datagrams_to_itself(host: &Ns) -> u64 {
    let out = host.sh("nft list chain inet own out").unwrap().stdout;
    let mut words = out.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// Two hosts of one LAN behind one NAT; `prepare` makes the host with the given number what it is.
fn neighbours_find_each_other(family: Family, prepare: impl Fn(&Ns, usize)) {
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let place = lab.bootstrap_host("boot", 1, family, model).unwrap();
    let authority = Authority::init(&lab, "main", &[NETWORK]).unwrap();
    let boot = Bootstrap::start(&place, &authority.id).unwrap();
    let nat = NatKind::PortRewriting;
    let site = lab.site("a", 1, nat, family, 2, model).unwrap();
    let mut nodes = Vec::new();
    let mut vms = Vec::new();
    for (host, (n, name)) in site.hosts.iter().zip([(1, "oak"), (2, "elm")]) {
        prepare(&host.ns, usize::from(n));
        count_datagrams_to_itself(&host.ns);
        let invite = authority.invite(&InviteSpec {
            networks: &[NETWORK],
            name,
            bootstraps: &boot.addresses,
            expires: "24h",
        });
        let node = Node::new(host, name);
        assert_eq!(node.join(&invite.unwrap()).unwrap().code, 0);
        node.farlan(&["attach", NETWORK]).unwrap();
        vms.push(lab.vm(n, host, BRIDGE).unwrap());
        nodes.push(node);
    }
    for node in &mut nodes {
        node.up(&[]).unwrap();
    }
    let limit = Duration::from_secs(5);
    let start = Instant::now();
    for node in &mut nodes {
        node.ready().unwrap();
    }
    first_ping(&vms[0].ns, &vms[1].ip, start, limit).unwrap();
    for (node, peer) in [(0, "elm"), (1, "oak")] {
        let near = |path: &farlan_tests::overlay::PathView| {
            path.kind == "direct"
                && (path.remote.starts_with("192.168.1.") || path.remote.contains("2001:db8:1:"))
        };
        let left = limit.saturating_sub(start.elapsed());
        let (path, _) = nodes[node].wait_path(peer, left, near).unwrap();
        println!("{path:?} after {:?}", start.elapsed());
    }
    std::thread::sleep(Duration::from_secs(5));
    for host in &site.hosts {
        let own = datagrams_to_itself(&host.ns);
        println!("{own} datagrams to itself");
        assert_eq!(own, 0);
    }
}

#[test]
fn ten_docker_bridges_hide_no_neighbour() {
    require_lab!();
    neighbours_find_each_other(Family::V4, |host, _| ten_docker_bridges(host));
}

#[test]
fn nine_deprecated_addresses_hide_no_neighbour() {
    require_lab!();
    neighbours_find_each_other(Family::Dual, nine_deprecated_addresses);
}

#[test]
fn a_clock_that_was_ahead_hides_no_new_address() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].up(&[]).unwrap();
    world.nodes[1].up_with_clock("+7200").unwrap();
    let limit = Duration::from_secs(10);
    for node in &mut world.nodes {
        node.ready().unwrap();
    }
    world.nodes[0].wait_kind("b", "direct", 2 * limit).unwrap();
    // What a peer keeps on disk must not win either.
    std::thread::sleep(Duration::from_secs(6));
    world.nodes[1].stop().unwrap();
    world.nodes[0].stop().unwrap();
    world.nodes[0].up_and_ready().unwrap();
    // Another port is another address.
    let start = Instant::now();
    world.nodes[1].up(&["--listen", "0.0.0.0:23000"]).unwrap();
    world.nodes[1].ready().unwrap();
    for (node, peer) in [(0, "b"), (1, "a")] {
        let left = limit.saturating_sub(start.elapsed());
        let path = world.nodes[node].wait_kind(peer, "direct", left).unwrap();
        println!("{path:?} after {:?}", start.elapsed());
    }
}
