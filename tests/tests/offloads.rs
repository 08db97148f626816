//! What is switched off at an attachment, what guests and NICs have switched off, and mixtures: bytes arrive
//! as they were sent, and no kernel finds a wrong checksum.
//!
//! Between veth pairs a wrong checksum is not looked at as long as the ports trust each other. So the
//! host's ports have their offloads off wherever checksums are the matter.

use std::time::Duration;

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::tcp_transfer;
use farlan_tests::require_lab;
use farlan_tests::site::{Family, Site};
use farlan_tests::sums::{judge, mss};
use farlan_tests::tagging::TaggedGuest;
use farlan_tests::traffic::{exchange, no_offloads};
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, TAP, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
/// Of each transfer: some hundred super-frames.
const BYTES: usize = 3_000_001;
/// Ethernet header and MTU.
const LONGEST: usize = 1514;

/// Two sites 4 ms apart with a direct path.
fn near() -> World {
    let model = LinkModel {
        delay: Duration::from_millis(1),
        ..LinkModel::default()
    };
    let world = World::running(&TWO, Family::V4, model).unwrap();
    let limit = Duration::from_secs(15);
    world.nodes[0].wait_kind("b", "direct", limit).unwrap();
    world
}

/// The ports of both guests at their hosts.
fn strict_ports(world: &World) {
    for (site, port) in world.sites.iter().zip(["vm1", "vm2"]) {
        no_offloads(&site.hosts[0].ns, port).unwrap();
    }
}

/// Throws a switch of a running node.
fn switch(world: &World, node: usize, flag: &str) {
    let said = world.nodes[node].farlan(&["attach", NETWORK, flag]);
    println!("{}", said.unwrap().trim());
}

/// One more guest at each site, in VLAN 100.
fn tagged(world: &World) -> Vec<TaggedGuest> {
    let sites = world.sites.iter().zip(11..);
    let guest = |(site, n): (&Site, u8)| {
        TaggedGuest::new(&world.lab, n, &site.hosts[0], BRIDGE, 100).unwrap()
    };
    sites.map(guest).collect()
}

/// IPv4 and IPv6, both ways.
fn exchange_all(a: &Vm, b: &Vm) {
    let addresses = [(a.ip.as_str(), b.ip.as_str()), (&a.ip6, &b.ip6)];
    exchange(&a.ns, &b.ns, &addresses, BYTES).unwrap();
}

#[test]
fn checksums_are_right_with_offloads_on_off_and_mixed() {
    require_lab!();
    let world = near();
    let tagged = tagged(&world);
    strict_ports(&world);
    for (at_a, at_b) in [(true, true), (false, false), (true, false), (false, true)] {
        println!("offload at a {at_a}, at b {at_b}");
        for (node, on) in [at_a, at_b].into_iter().enumerate() {
            switch(&world, node, if on { "--offload" } else { "--no-offload" });
            let status = world.nodes[node].status().unwrap();
            assert_eq!(status["networks"][0]["offload"], on);
        }
        exchange_all(&world.vms[0], &world.vms[1]);
        let tap = open(&world.sites[1].hosts[0].ns, TAP);
        exchange_all(&tagged[0].vm, &tagged[1].vm);
        // The tagged ones are merged, too: else only the others' lengths would have been tried.
        let of_a = mac(&tagged[0].vm.mac);
        let seen = judge(&tap.drain(|frame| frame.ethertype() == 0x8100 && frame.src() == of_a));
        println!("tagged frames at the tap of b: {seen:?}");
        assert_eq!(seen.longest > LONGEST, at_b, "{seen:?}");
    }
}

#[test]
fn a_guest_without_offloads_gets_right_checksums() {
    require_lab!();
    let world = near();
    strict_ports(&world);
    // First of one side, then of both.
    for vm in &world.vms {
        no_offloads(&vm.ns, "eth0").unwrap();
        exchange_all(&world.vms[0], &world.vms[1]);
    }
}

#[test]
fn without_offload_no_frame_is_longer_than_the_mtu() {
    require_lab!();
    let mut world = near();
    let (a, b) = (world.vms[0].ns.clone(), world.vms[1].ns.clone());
    let host = world.sites[1].hosts[0].ns.clone();
    let guests = [&world.vms[0].mac, &world.vms[1].mac].map(|text| mac(text));
    let (to_a, to_b) = (world.vms[0].ip.clone(), world.vms[1].ip.clone());
    // What the tap of b has both ways, and what comes out at the port of its guest.
    let captured = |what: &str| {
        let (tap, port) = (open(&host, TAP), open(&host, "vm2"));
        for (from, to, ip) in [(&a, &b, &to_b), (&b, &a, &to_a)] {
            tcp_transfer(from, to, ip, BYTES).unwrap();
        }
        let of_guests = |frame: &Frame| guests.iter().any(|one| frame.src() == one);
        let tap = tap.drain(of_guests);
        let from_a = judge(tap.iter().filter(|frame| frame.src() == guests[0]));
        let from_b = judge(tap.iter().filter(|frame| frame.src() == guests[1]));
        let port = judge(&port.drain(|frame| frame.src() == guests[0]));
        println!("{what}: in by the tap {from_a:?}, out {from_b:?}; to the guest {port:?}");
        [from_a, from_b, port]
    };
    for seen in captured("offload on") {
        assert!(seen.longest > 4 * LONGEST && seen.wrong > 0, "{seen:?}");
    }
    let plain = |seen: [farlan_tests::sums::Verdict; 3]| {
        for seen in seen {
            assert!(seen.longest <= LONGEST && seen.wrong == 0, "{seen:?}");
            assert!(seen.checked > BYTES / LONGEST / 2, "{seen:?}");
        }
    };
    switch(&world, 1, "--no-offload");
    plain(captured("offload off"));
    // It is still so after a restart, and after an attach that says nothing of it.
    world.nodes[1].stop().unwrap();
    world.nodes[1].up_and_ready().unwrap();
    world.nodes[1].farlan(&["attach", NETWORK]).unwrap();
    let limit = Duration::from_secs(15);
    world.nodes[0].wait_kind("b", "direct", limit).unwrap();
    plain(captured("offload off, after a restart"));
}

fn open(ns: &Ns, dev: &str) -> RawPort {
    RawPort::open(ns, dev).unwrap()
}

#[test]
fn a_second_nic_on_the_bridge_gets_right_checksums_and_frames() {
    require_lab!();
    let world = near();
    let host = &world.sites[1].hosts[0].ns;
    let home = world.lab.namespace("home").unwrap();
    let full = home.full_name();
    host.ip(&format!(
        "link add lan1 type veth peer name eth0 netns {full}"
    ))
    .unwrap();
    home.ip("addr add 10.9.0.201/24 dev eth0").unwrap();
    home.ip("addr add fd00:9::c9/64 dev eth0 nodad").unwrap();
    home.ip("link set eth0 up").unwrap();
    let said = world.nodes[1].farlan(&["attach", NETWORK, "--nic", "lan1"]);
    println!("{}", said.unwrap().trim());
    let a = &world.vms[0];
    let addresses = [(a.ip.as_str(), "10.9.0.201"), (&a.ip6, "fd00:9::c9")];
    // A NIC that says it can cut and complete, and does not, as there are: nothing must be left to it.
    switch(&world, 1, "--no-offload");
    let wire = open(&home, "eth0");
    tcp_transfer(&a.ns, &home, "10.9.0.201", BYTES).unwrap();
    let seen = judge(&wire.drain(|frame| frame.src() == mac(&a.mac)));
    println!("offload off at the attachment, on at the NIC: {seen:?}");
    assert!(seen.longest <= LONGEST && seen.wrong == 0, "{seen:?}");
    assert!(seen.checked > BYTES / LONGEST / 2, "{seen:?}");
    // One that can do nothing: the kernel does it.
    no_offloads(host, "lan1").unwrap();
    no_offloads(&world.sites[0].hosts[0].ns, "vm1").unwrap();
    for flag in ["--no-offload", "--offload"] {
        switch(&world, 1, flag);
        exchange(&a.ns, &home, &addresses, BYTES).unwrap();
    }
}

#[test]
fn without_clamp_the_mss_stays_and_segments_that_do_not_fit_arrive() {
    require_lab!();
    let world = near();
    strict_ports(&world);
    let (a, b) = (&world.vms[0], &world.vms[1]);
    let addresses = [(a.ip.as_str(), b.ip.as_str()), (&a.ip6, &b.ip6)];
    // The MSS that each guest hears of the other, on IPv4 and on IPv6.
    let heard = || {
        let ports = [open(&a.ns, "eth0"), open(&b.ns, "eth0")];
        exchange(&a.ns, &b.ns, &addresses, BYTES).unwrap();
        let of = [(&b.mac, &ports[0]), (&a.mac, &ports[1])];
        let mut all: Vec<u16> = Vec::new();
        for (other, port) in of {
            let frames = port.drain(|frame| frame.src() == mac(other));
            all.extend(frames.iter().filter_map(mss));
        }
        // Two connections each way, on each family: as many SYNs as SYN ACKs.
        assert!(all.len() >= 8, "{all:?}");
        all.sort_unstable();
        all.dedup();
        all
    };
    let clamped = heard();
    println!("clamped: {clamped:?}");
    assert!(clamped.iter().all(|mss| *mss < 1440), "{clamped:?}");
    // The other end still clamps what it sends and gets.
    switch(&world, 0, "--no-clamp");
    assert_eq!(heard(), clamped);
    switch(&world, 1, "--no-clamp");
    assert_eq!(heard(), [1440, 1460]);
    // Each of those frames by itself, and with the offload of one end off.
    switch(&world, 1, "--no-offload");
    assert_eq!(heard(), [1440, 1460]);
    let status = world.nodes[1].status().unwrap();
    assert_eq!(status["networks"][0]["clamp"], false);
    for node in [0, 1] {
        switch(&world, node, "--clamp");
    }
    assert_eq!(heard(), clamped);
}
