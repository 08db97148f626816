//! A LAN that two nodes are plugged into, at first or by a cable that comes later: nothing goes round, and
//! one node carries the LAN's frames.

use std::time::{Duration, Instant};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::{Proc, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};
use serde_json::Value;

const THREE: [NatKind; 3] = [
    NatKind::PortPreserving,
    NatKind::PortRewriting,
    NatKind::PortPreserving,
];

/// Frames that may go round before the nodes have found each other.
const MOST_FRAMES: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(20);

/// Switches of an office in a namespace of their own.
struct Office(Ns);

impl Office {
    fn new(world: &World, switches: &[&str]) -> Self {
        let ns = world.lab.namespace("office").unwrap();
        for switch in switches {
            ns.ip(&format!("link add {switch} type bridge")).unwrap();
            ns.sysctl(&format!("net/ipv6/conf/{switch}/disable_ipv6"), "1")
                .unwrap();
            ns.ip(&format!("link set {switch} up")).unwrap();
        }
        Self(ns)
    }

    /// A cable from `switch` to `far` in `ns`.
    fn cable(&self, switch: &str, port: &str, ns: &Ns, far: &str) {
        let full = ns.full_name();
        self.0
            .ip(&format!(
                "link add {port} type veth peer name {far} netns {full}"
            ))
            .unwrap();
        for (ns, dev) in [(&self.0, port), (ns, far)] {
            ns.sysctl(&format!("net/ipv6/conf/{dev}/disable_ipv6"), "1")
                .unwrap();
        }
        self.0
            .ip(&format!("link set {port} master {switch} up"))
            .unwrap();
    }

    /// A desk on `switch` with the address 10.9.0.`n`.
    fn desk(&self, world: &World, switch: &str, n: u8) -> Ns {
        let ns = world.lab.namespace(&format!("desk{n}")).unwrap();
        self.cable(switch, &format!("d{n}"), &ns, "eth0");
        ns.ip(&format!("addr add 10.9.0.{n}/24 dev eth0")).unwrap();
        ns.ip("link set eth0 up").unwrap();
        ns
    }

    /// Frames that came out of these ports into the office.
    fn frames(&self, ports: &[&str]) -> u64 {
        let count = |port: &&str| {
            let line = format!("cat /sys/class/net/{port}/statistics/rx_packets");
            let text = self.0.sh(&line).unwrap().stdout;
            text.trim().parse::<u64>().unwrap()
        };
        ports.iter().map(count).sum()
    }
}

/// What `status` says of the untagged LAN: the forwarder and the port.
fn shared(node: &Node) -> Option<(String, String)> {
    let status = node.status().ok()?;
    let shared = status["networks"][0]["shared"].as_array()?.first()?.clone();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some((text(&shared["forwarder"])?, text(&shared["port"])?))
}

/// The warnings that name each of `words`.
fn warnings(node: &Node, words: &[&str]) -> Vec<String> {
    let status = node.status().unwrap();
    let all = status["warnings"].as_array().unwrap().clone();
    let all = all
        .iter()
        .filter_map(|line| line.as_str().map(str::to_owned));
    all.filter(|line| words.iter().all(|word| line.contains(word)))
        .collect()
}

fn ended(mut ping: Proc) -> (u32, u32) {
    ping.signal(libc::SIGINT);
    let _ = ping.wait(Duration::from_secs(5));
    let result = parse_ping(&ping.log()).unwrap();
    (result.sent, result.received)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One switch that the first two hosts have their `lan1` on, and two desks.
fn one_office(world: &World) -> (Office, [Ns; 2]) {
    let office = Office::new(world, &["switch"]);
    for (n, port) in [(0, "p1"), (1, "p2")] {
        let host = &world.sites[n].hosts[0].ns;
        office.cable("switch", port, host, "lan1");
        host.ip("link set lan1 up").unwrap();
    }
    let desks = [201, 202].map(|n| office.desk(world, "switch", n));
    (office, desks)
}

/// The forwarder and the port, once both nodes name the same.
fn agreed(world: &World) -> (String, String) {
    let agree = || {
        let (a, b) = (shared(&world.nodes[0])?, shared(&world.nodes[1])?);
        (a == b).then_some(a)
    };
    wait_for("both agree", LIMIT, agree).unwrap().0
}

#[test]
fn a_lan_plugged_in_twice_is_carried_by_one() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let (office, desks) = one_office(&world);
    let among_desks = Ping::new("10.9.0.202")
        .count(100_000)
        .interval(millis(20))
        .spawn(&desks[0])
        .unwrap();
    for node in &world.nodes[..2] {
        node.farlan(&["attach", NETWORK, "--nic", "lan1"]).unwrap();
    }
    let start = Instant::now();
    let far = world.vms[2].ns.clone();
    first_ping(&far, "10.9.0.201", start, LIMIT).unwrap();
    println!(
        "a desk answered {:?} after the second attach",
        start.elapsed()
    );
    // A desk asks all, too.
    first_ping(&desks[1], &world.vms[2].ip, Instant::now(), LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(2).saturating_sub(start.elapsed()));
    let frames = office.frames(&["p1", "p2"]);
    println!("{frames} frames came from both hosts");
    assert!(frames < MOST_FRAMES, "{frames}");

    // Both say so, and name both hosts and the NIC.
    let ids = [world.nodes[0].id().unwrap(), world.nodes[1].id().unwrap()];
    let (forwarder, port) = agreed(&world);
    assert_eq!(port, "lan1");
    assert!(ids.contains(&forwarder), "{forwarder}");
    for node in &world.nodes[..2] {
        let told = warnings(node, &["(a)", " b", "lan1"]).len()
            + warnings(node, &["(b)", " a", "lan1"]).len();
        assert_eq!(told, 1, "{:?}", warnings(node, &[]));
    }
    // The guests of the one that stands by are reached by the LAN.
    let guests = [&world.vms[0].ip, &world.vms[1].ip];
    for guest in guests {
        first_ping(&far, guest, Instant::now(), LIMIT).unwrap();
    }

    let (sent, received) = ended(among_desks);
    println!("desks among themselves: {received} of {sent}");
    assert!(received * 100 >= sent * 99, "{received} of {sent}");
}

#[test]
fn a_cable_that_comes_later_is_found_and_each_lan_is_alone_without_it() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let office = Office::new(&world, &["east", "west"]);
    for (n, switch, port) in [(0, "east", "p1"), (1, "west", "p2")] {
        let host = world.sites[n].hosts[0].ns.clone();
        office.cable(switch, port, &host, "lan1");
        host.ip("link set lan1 up").unwrap();
        world.nodes[n]
            .farlan(&["attach", NETWORK, "--nic", "lan1"])
            .unwrap();
    }
    let (east, _west) = (
        office.desk(&world, "east", 201),
        office.desk(&world, "west", 202),
    );
    let far = world.vms[2].ns.clone();
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), Instant::now(), LIMIT).unwrap();
    }
    assert_eq!(shared(&world.nodes[0]), None);
    // Somebody plugs the switches together, while a guest and a desk ask for machines that are not there.
    let silent = |ns: &Ns, n: u8| {
        let to = format!("10.9.0.{n}");
        let line = format!("ping -n -q -c 100000 -i 0.2 {to}");
        ns.spawn(&format!("ask{n}"), &line).unwrap()
    };
    let _asking = [silent(&far, 240), silent(&east, 241)];
    std::thread::sleep(millis(500));
    let before = office.frames(&["p1", "p2"]);
    office
        .0
        .ip("link add between type veth peer name beside")
        .unwrap();
    for (dev, switch) in [("between", "east"), ("beside", "west")] {
        office
            .0
            .sysctl(&format!("net/ipv6/conf/{dev}/disable_ipv6"), "1")
            .unwrap();
        office
            .0
            .ip(&format!("link set {dev} master {switch} up"))
            .unwrap();
    }
    let plugged = Instant::now();
    agreed(&world);
    println!("found {:?} after the cable came", plugged.elapsed());
    std::thread::sleep(Duration::from_secs(2).saturating_sub(plugged.elapsed()));
    let frames = office.frames(&["p1", "p2"]) - before;
    println!("{frames} frames came from both hosts");
    assert!(frames < MOST_FRAMES, "{frames}");
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), Instant::now(), LIMIT).unwrap();
    }
    // The cable goes: each LAN has its own forwarder again.
    office.0.ip("link del between").unwrap();
    let start = Instant::now();
    let apart =
        || (shared(&world.nodes[0]).is_none() && shared(&world.nodes[1]).is_none()).then_some(());
    wait_for("they are alone", LIMIT, apart).unwrap();
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), start, LIMIT).unwrap();
    }
    println!("apart again after {:?}", start.elapsed());
}
