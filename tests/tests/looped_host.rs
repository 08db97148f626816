//! A loop inside one host: two NICs in one LAN, a second network of the host's own, a cable from port to
//! port. The kernel's bridge forwards round and round by itself; the node shuts one port, and the rest
//! goes on.

use std::time::{Duration, Instant, SystemTime};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::office::{Office, Watched, counter, silence, warnings};
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortPreserving, NatKind::PortRewriting];
/// A port is shut, and the warning is there, within this.
const SHOWN: Duration = Duration::from_secs(2);
/// No station is unreachable for longer.
const MOST_SILENCE: Duration = Duration::from_secs(2);
/// Frames that may come out of the ports of a loop in all before one is shut, the pings among them.
const MOST_UNTIL_SHUT: u64 = 1_000;
/// The same in three seconds in which nobody shuts a port and two desks send forty pings a second, of each of
/// which some copies pass. Without the table it is a million a second.
const MOST_HELD: u64 = 2_000;
/// Frames that one broadcast may make at a port once one is shut.
const MOST_FRAMES: u64 = 64;
const KIND: u16 = 0x88b5;
/// Steps of 2 ms in which a stream is sent: three seconds.
const STEPS: u32 = 1_500;

/// Two sites; host `a` has its `lan1` in an office with two desks.
struct Scene {
    world: World,
    office: Office,
    host: Ns,
    desks: Vec<Ns>,
    watched: Watched,
}

impl Scene {
    fn new() -> Self {
        let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
        let office = Office::new(&world, &["east"]).unwrap();
        let host = world.sites[0].hosts[0].ns.clone();
        office.cable("east", "p1", &host, "lan1").unwrap();
        host.ip("link set lan1 up").unwrap();
        let desk = |n| office.desk(&world, "east", n).unwrap();
        let desks = vec![desk(201), desk(202)];
        world.nodes[0]
            .farlan(&["attach", NETWORK, "--nic", "lan1"])
            .unwrap();
        let far = world.vms[1].ns.clone();
        for n in [201, 202] {
            first_ping(&far, &format!("10.9.0.{n}"), Instant::now(), 10 * SHOWN).unwrap();
        }
        let stations = ["10.9.0.201", "10.9.0.202", &world.vms[0].ip];
        let watched = Watched::start(&far, &stations).unwrap();
        Self {
            world,
            office,
            host,
            desks,
            watched,
        }
    }

    /// The ports of the bridge that are shut.
    fn shut(&self) -> Vec<String> {
        let text = self.host.sh("bridge link show").unwrap().stdout;
        let disabled = text.lines().filter(|line| {
            line.contains("state disabled") && line.contains(&format!("master {BRIDGE}"))
        });
        let name = |line: &str| {
            let name = line.split_whitespace().nth(1).unwrap();
            name.split(['@', ':']).next().unwrap().to_owned()
        };
        disabled.map(name).collect()
    }

    /// What came out of `ports` of the host until now.
    fn sent(&self, ports: &[&str]) -> u64 {
        let sent = |port: &&str| counter(&self.host, port, "tx_packets").unwrap();
        ports.iter().map(sent).sum()
    }

    /// `make` makes a loop of `ports` now: one of them is shut, and no other within `secs` s. Returns it.
    fn one_is_shut(&self, what: &str, make: impl FnOnce(), ports: &[&str], secs: u64) -> String {
        let before = self.sent(ports);
        let since = SystemTime::now();
        make();
        // One that has just come is disabled as well, until the kernel lets it forward.
        let is_told = |port: &String| !self.warned(port).is_empty();
        let one = || self.shut().into_iter().find(is_told);
        let (port, _) = wait_for("a port is shut, and told", 10 * SHOWN, one).unwrap();
        let (took, frames) = (since.elapsed().unwrap(), self.sent(ports) - before);
        println!("{what}: {port} was shut after {took:?}, {frames} frames came out of both");
        assert!(took <= SHOWN, "{took:?}");
        assert!(frames < MOST_UNTIL_SHUT, "{what}: {frames} frames");
        assert!(ports.contains(&port.as_str()), "{port}");
        let worst = self
            .watched
            .longest_gap(what, since, Duration::from_secs(secs));
        let worst = worst.unwrap();
        assert_eq!(
            self.shut(),
            std::slice::from_ref(&port),
            "the other stays open"
        );
        assert!(worst <= MOST_SILENCE, "{what}: {worst:?}");
        port
    }

    /// Is the table there that holds what goes round?
    fn is_held(&self) -> bool {
        let line = format!("nft list table bridge farlan-{BRIDGE}");
        self.host.sh(&line).unwrap().code == 0
    }

    fn warned(&self, port: &str) -> Vec<String> {
        warnings(&self.world.nodes[0], &[port, "loop"])
    }

    /// What one broadcast of the far guest makes at each of `ports` of the host.
    fn one_broadcast(&self, what: &str, ports: &[&str]) {
        let far = RawPort::open(&self.world.vms[1].ns, "eth0").unwrap();
        let sum = |port: &str| {
            counter(&self.host, port, "rx_packets").unwrap()
                + counter(&self.host, port, "tx_packets").unwrap()
        };
        let before: Vec<u64> = ports.iter().map(|port| sum(port)).collect();
        std::thread::sleep(Duration::from_secs(1));
        let idle: Vec<u64> = ports.iter().map(|port| sum(port)).collect();
        let from = mac(&self.world.vms[1].mac);
        far.send(&Frame::build([0xff; 6], from, KIND, b"to all"))
            .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        for ((port, before), idle) in ports.iter().zip(before).zip(idle) {
            // Pings and beacons go on as in the second before.
            let frames = (sum(port) - idle).saturating_sub(idle - before);
            println!("{what}: one broadcast made {frames} frames more at {port}");
            assert!(frames <= MOST_FRAMES, "{frames} at {port}");
        }
    }
}

#[test]
fn of_two_nics_in_one_lan_one_is_shut_until_the_loop_is_gone() {
    require_lab!();
    let scene = Scene::new();
    let (office, host) = (&scene.office, &scene.host);
    office.cable("east", "p3", host, "lan2").unwrap();
    let both = ["lan1", "lan2"];
    let ip = |line: String| host.ip(&line).unwrap();
    let plug = || drop(ip(format!("link set lan2 master {BRIDGE} up")));
    let port = scene.one_is_shut("two NICs", plug, &both, 6);
    scene.one_broadcast("two NICs", &both);
    // Its carrier goes and comes: the kernel opens the port, and the loop is there again.
    let replug = || {
        ip(format!("link set {port} down"));
        ip(format!("link set {port} up"));
        std::thread::sleep(Duration::from_millis(100));
    };
    scene.one_is_shut("its carrier came back", replug, &[&port], 3);
    // The other one dies: the one that was shut is the only way, and opens long before its time.
    let (other, cable) = if port == "lan1" {
        ("lan2", "p3")
    } else {
        ("lan1", "p1")
    };
    let since = SystemTime::now();
    office.0.ip(&format!("link set {cable} down")).unwrap();
    let what = format!("the cable of {other} was cut");
    let worst = scene.watched.longest_gap(&what, since, 2 * SHOWN).unwrap();
    assert!(scene.shut().iter().all(|one| *one != port), "it is open");
    assert!(worst <= MOST_SILENCE, "{worst:?}");
    // The loop is there again, and then taken away.
    let mend = || drop(office.0.ip(&format!("link set {cable} up")).unwrap());
    let port = scene.one_is_shut("mended", mend, &both, 3);
    host.ip(&format!("link set {port} nomaster")).unwrap();
    let lowered = || scene.warned(&port).is_empty().then_some(());
    let (_, took) = wait_for("the warning goes", Duration::from_secs(5), lowered).unwrap();
    println!("two NICs: the warning went {took:?} after {port} left the bridge");
}

#[test]
fn a_second_network_of_the_host_and_a_cable_from_port_to_port_are_shut_as_well() {
    require_lab!();
    let scene = Scene::new();
    let host = &scene.host;
    // As two networks of a container engine that are joined twice.
    host.ip("link add docker1 type bridge").unwrap();
    silence(host, "docker1").unwrap();
    host.ip("link set docker1 up").unwrap();
    for n in [1, 2] {
        host.ip(&format!("link add in{n} type veth peer name out{n}"))
            .unwrap();
        for dev in [format!("in{n}"), format!("out{n}")] {
            silence(host, &dev).unwrap();
        }
        host.ip(&format!("link set out{n} master docker1 up"))
            .unwrap();
    }
    host.ip(&format!("link set in1 master {BRIDGE} up"))
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(scene.shut().is_empty(), "one cable is no loop");
    let ip = |line: String| host.ip(&line).unwrap();
    let join = || drop(ip(format!("link set in2 master {BRIDGE} up")));
    let port = scene.one_is_shut("two veths", join, &["in1", "in2"], 6);
    scene.one_broadcast("two veths", &["in1", "in2", "lan1"]);
    host.ip("link del in1").unwrap();
    host.ip("link del in2").unwrap();
    // Ports that are gone have shut ones tried again: those of the next loop must not be.
    let lowered = || scene.warned(&port).is_empty().then_some(());
    wait_for("the warning goes", SHOWN, lowered).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    // A cable from a port to another of the same bridge.
    host.ip("link add self1 type veth peer name self2").unwrap();
    for dev in ["self1", "self2"] {
        silence(host, dev).unwrap();
        host.ip(&format!("link set {dev} master {BRIDGE}")).unwrap();
    }
    host.ip("link set self1 up").unwrap();
    let up = || drop(ip("link set self2 up".to_owned()));
    scene.one_is_shut("from port to port", up, &["self1", "self2"], 4);
    scene.one_broadcast("from port to port", &["self1", "self2", "lan1"]);
}

/// The node sees nothing and shuts nothing: what is left is what the kernel does by itself.
#[test]
fn copies_that_go_round_are_held_while_the_node_hangs() {
    require_lab!();
    let mut scene = Scene::new();
    assert!(scene.is_held());
    let both = ["lan1", "lan2"];
    scene
        .office
        .cable("east", "p3", &scene.host, "lan2")
        .unwrap();
    scene.world.nodes[0].process().signal(libc::SIGSTOP);
    let before = scene.sent(&both);
    let plug = format!("link set lan2 master {BRIDGE} up");
    scene.host.ip(&plug).unwrap();
    // They ask for each other by ARP, and then speak to each other alone: both go round.
    let mut pings = Vec::new();
    for (desk, ip) in scene.desks.iter().zip(["10.9.0.202", "10.9.0.201"]) {
        desk.ip("neigh flush all").unwrap();
        let ping = Ping::new(ip).interval(Duration::from_millis(50));
        pings.push(ping.count(1_000_000).spawn(desk).unwrap());
    }
    std::thread::sleep(Duration::from_secs(3));
    let frames = scene.sent(&both) - before;
    println!("held: {frames} frames came out of both while the node hung");
    assert!(frames < MOST_HELD, "{frames} frames");
    drop(pings);
    scene.world.nodes[0].process().signal(libc::SIGCONT);
    let one = || scene.shut().first().cloned();
    wait_for("a port is shut", 10 * SHOWN, one).unwrap();
}

/// Frames that differ are no loop, however many: a video for a group, and a busy LAN's broadcasts.
#[test]
fn streams_of_different_frames_for_all_lose_nothing_where_loops_are_held() {
    require_lab!();
    let scene = Scene::new();
    assert!(scene.is_held());
    let from = RawPort::open(&scene.desks[0], "eth0").unwrap();
    let guest = RawPort::open(&scene.world.vms[0].ns, "eth0").unwrap();
    let source = [2, 0, 0, 0, 0, 201];
    let start = Instant::now();
    let (mut sent, mut heard) = (0_u64, 0);
    let mut send = |group: [u8; 6]| {
        // All alike but for a number, deep inside.
        let mut payload = [0x47; 1_316];
        payload[60..68].copy_from_slice(&sent.to_be_bytes());
        from.send(&Frame::build(group, source, KIND, &payload))
            .unwrap();
        sent += 1;
    };
    let hears = |frame: &Frame| frame.src() == source;
    for step in 0..STEPS {
        for _ in 0..10 {
            send([0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]);
        }
        send([0xff; 6]);
        heard += guest.drain(hears).len();
        let due = Duration::from_millis(2) * step;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let took = start.elapsed();
    std::thread::sleep(Duration::from_millis(200));
    heard += guest.drain(hears).len();
    println!("different: {heard} of {sent} frames within {took:?}");
    assert_eq!(u64::try_from(heard).unwrap(), sent);
    assert!(
        took < Duration::from_secs(6),
        "the trap is not set: {took:?}"
    );
}

#[test]
fn the_table_that_holds_loops_comes_back_and_goes_with_the_attachment() {
    require_lab!();
    let scene = Scene::new();
    assert!(scene.is_held());
    scene.host.sh("nft flush ruleset").unwrap();
    assert!(!scene.is_held());
    let back = || scene.is_held().then_some(());
    let ((), took) = wait_for("the table is back", 10 * SHOWN, back).unwrap();
    println!("the table was back after {took:?}");
    let node = &scene.world.nodes[0];
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    let left = scene.host.sh("nft list tables").unwrap().stdout;
    assert!(!left.contains("farlan"), "{left}");
    // Nobody puts it back.
    std::thread::sleep(Duration::from_secs(6));
    assert!(!scene.is_held());
    // A bridge of others is theirs.
    scene.host.ip("link add br0 type bridge").unwrap();
    node.farlan(&["attach", NETWORK, "--bridge", "br0"])
        .unwrap();
    let none = scene.host.sh("nft list tables").unwrap().stdout;
    assert!(!none.contains("farlan"), "{none}");
}
