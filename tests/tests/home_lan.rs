//! A home network bridged by a NIC at one site; guests elsewhere are on it.

use std::time::{Duration, Instant};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::first_ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

/// A switch at home, the namespace `home`: `lan1` of `host` and `eth0` of a printer are on it.
fn home(world: &World, host: &Ns) -> (Ns, Ns) {
    let (home, printer) = (
        world.lab.namespace("home").unwrap(),
        world.lab.namespace("printer").unwrap(),
    );
    home.ip("link add switch type bridge").unwrap();
    home.ip("link set switch up").unwrap();
    home.ip("addr add 10.9.0.200/24 dev switch").unwrap();
    for (port, far, ns) in [("p1", "lan1", host), ("p2", "eth0", &printer)] {
        let full = ns.full_name();
        let line = format!("link add {port} type veth peer name {far} netns {full}");
        home.ip(&line).unwrap();
        home.ip(&format!("link set {port} master switch up"))
            .unwrap();
    }
    // It never speaks unless it is spoken to.
    printer
        .sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
        .unwrap();
    printer.ip("addr add 10.9.0.201/24 dev eth0").unwrap();
    printer.ip("link set eth0 up").unwrap();
    (home, printer)
}

#[test]
fn a_guest_two_nats_away_gets_its_lease_at_home_and_wakes_the_printer() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let host = &world.sites[0].hosts[0].ns;
    let (home, _printer) = home(&world, host);
    let attached = world.nodes[0].farlan(&["attach", NETWORK, "--nic", "lan1"]);
    assert!(attached.unwrap().contains("NIC lan1"));
    let dir = world.lab.dir();
    let _dnsmasq = home
        .spawn(
            "dnsmasq",
            &format!(
                "dnsmasq -k -p 0 -C /dev/null -u root -i switch --bind-interfaces \
                 --log-facility=- -F 10.9.0.100,10.9.0.110,1h -l {} -x {}",
                dir.join("leases").display(),
                dir.join("dnsmasq.pid").display()
            ),
        )
        .unwrap();
    let far = &world.sites[1].hosts[0];
    let client = world.lab.vm_without_address(9, far, BRIDGE).unwrap();
    let script = dir.join("udhcpc.sh");
    let text =
        "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev eth0 && echo leased $ip\nexit 0\n";
    std::fs::write(&script, text).unwrap();
    let line = format!(
        "chmod +x {0}; busybox udhcpc -f -n -q -t 10 -T 1 -i eth0 -s {0}",
        script.display()
    );
    let leased = client.ns.sh(&line).unwrap();
    assert!(leased.stdout.contains("leased 10.9.0.1"), "{leased:?}");
    let start = Instant::now();
    let limit = Duration::from_secs(10);
    let took = first_ping(&client.ns, "10.9.0.201", start, limit).unwrap();
    println!("first answer of the printer after {took:?}");
    assert!(took <= Duration::from_secs(1), "{took:?}");
    // It is claimed by the node at home, and given up when the NIC goes.
    let is_home = || {
        let macs = world.nodes[1].macs().ok()?;
        let printer = macs
            .iter()
            .find(|mac| mac["ips"].to_string().contains("10.9.0.201"))?;
        Some(printer["node"].as_str()?.to_owned())
    };
    let (owner, _) = wait_for("the printer is known", limit, is_home).unwrap();
    assert_eq!(owner, world.nodes[0].id().unwrap());
    world.nodes[0]
        .farlan(&["detach", NETWORK, "--nic", "lan1"])
        .unwrap();
    let link = host.ip("-d link show lan1").unwrap();
    assert!(!link.contains("master"), "{link}");
    let gone = || is_home().is_none().then_some(());
    wait_for("the printer is given up", limit, gone).unwrap();
}

/// Ethernet address of the first line of `ip link`.
fn mac_of(ns: &Ns, dev: &str) -> String {
    let text = ns.ip(&format!("-o link show {dev}")).unwrap();
    let mut words = text.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    words.next().unwrap().to_owned()
}

#[test]
fn a_device_unheard_for_longer_than_the_ttl_answers_the_first_packet() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    let host = world.sites[0].hosts[0].ns.clone();
    let (_home, printer) = home(&world, &host);
    let config = world.lab.dir().join("farlan.toml");
    std::fs::write(&config, "[directory]\nttl_s = 10\n").unwrap();
    for node in &mut world.nodes {
        node.farlan(&["detach", NETWORK, "--force"]).unwrap();
        node.farlan(&["attach", NETWORK]).unwrap();
        node.up(&["--config", config.to_str().unwrap()]).unwrap();
        node.ready().unwrap();
    }
    world.nodes[0]
        .farlan(&["attach", NETWORK, "--nic", "lan1"])
        .unwrap();
    // A switch forgets, too: long before the claim's life is over.
    host.ip(&format!("link set {BRIDGE} type bridge ageing_time 200"))
        .unwrap();
    let far = world.lab.vm(9, &world.sites[1].hosts[0], BRIDGE).unwrap();
    let mac = mac_of(&printer, "eth0");
    let limit = Duration::from_secs(15);
    first_ping(&far.ns, "10.9.0.201", Instant::now(), limit).unwrap();
    let known = || {
        let macs = world.nodes[1].macs().ok()?;
        Some(macs.iter().any(|one| one["mac"] == mac.as_str()))
    };
    wait_for("it is claimed", limit, || known()?.then_some(())).unwrap();
    // It falls asleep and answers nobody, until its claim is gone and forgotten by all.
    let start = Instant::now();
    printer.ip("link set eth0 arp off").unwrap();
    wait_for("its claim is gone", limit, || (!known()?).then_some(())).unwrap();
    println!("given up after {:?}", start.elapsed());
    std::thread::sleep(Duration::from_secs(12).saturating_sub(start.elapsed()));
    assert_eq!(known(), Some(false));
    let bridge = host.sh(&format!("bridge fdb show br {BRIDGE}")).unwrap();
    assert!(!bridge.stdout.contains(&mac), "{}", bridge.stdout);
    printer.ip("link set eth0 arp on").unwrap();
    // The far guest knows its address still, so nothing is broadcast: the node has to ask who has it.
    let line = format!("neigh replace 10.9.0.201 lladdr {mac} dev eth0 nud permanent");
    far.ns.ip(&line).unwrap();
    let took = first_ping(&far.ns, "10.9.0.201", Instant::now(), limit).unwrap();
    println!("first answer after {took:?}");
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_nic_that_the_host_needs_is_refused() {
    require_lab!();
    let world = World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap();
    let (node, host) = (&world.nodes[0], &world.sites[0].hosts[0].ns);
    let refused = |nic: &str, why: &str| {
        let done = node.run(&["attach", NETWORK, "--nic", nic]).unwrap();
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(why), "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    };
    refused("eth0", "has the address 192.168.1.10/24");
    refused("lo", "is no NIC");
    refused("none0", "there is no interface none0");
    refused(BRIDGE, "belongs to network lab");
    host.ip("link add d0 type veth peer name d1").unwrap();
    host.ip("link set d0 up").unwrap();
    host.ip("route add default dev d0 metric 900").unwrap();
    refused("d0", "has a default route");
    host.ip("link add other type bridge").unwrap();
    host.ip("link set d0 master other").unwrap();
    refused("d0", "is a port of other");
    host.ip("link set d0 nomaster").unwrap();
    host.ip("link set d0 down").unwrap();
    node.farlan(&["attach", NETWORK, "--nic", "d0"]).unwrap();
    assert!(host.ip("link show d0").unwrap().contains("master br-lab"));
    // As it was: down, and in no bridge.
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    let link = host.ip("link show d0").unwrap();
    assert!(!link.contains("master") && !link.contains("UP"), "{link}");
}
