//! A loop inside one host: two NICs in one LAN, a second network of the host's own, a cable from port to
//! port. The kernel's bridge forwards round and round by itself; the node shuts one port, and the rest
//! goes on.

use std::time::{Duration, Instant, SystemTime};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::office::{Office, Watched, counter, silence, warnings};
use farlan_tests::probe::first_ping;
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
/// Frames that one broadcast may make at a port once one is shut.
const MOST_FRAMES: u64 = 64;
const KIND: u16 = 0x88b5;

/// Two sites; host `a` has its `lan1` in an office with two desks.
struct Scene {
    world: World,
    office: Office,
    host: Ns,
    watched: Watched,
}

impl Scene {
    fn new() -> Self {
        let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
        let office = Office::new(&world, &["east"]).unwrap();
        let host = world.sites[0].hosts[0].ns.clone();
        office.cable("east", "p1", &host, "lan1").unwrap();
        host.ip("link set lan1 up").unwrap();
        for n in [201, 202] {
            office.desk(&world, "east", n).unwrap();
        }
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

    /// The loop came at `since`: one of `ports` is shut, and no other within `secs` s. Returns it.
    fn one_is_shut(&self, what: &str, since: SystemTime, ports: &[&str], secs: u64) -> String {
        let one = || self.shut().first().cloned();
        let (port, _) = wait_for("a port is shut", 10 * SHOWN, one).unwrap();
        let took = since.elapsed().unwrap();
        println!("{what}: {port} was shut after {took:?}");
        assert!(took <= SHOWN, "{took:?}");
        assert!(ports.contains(&port.as_str()), "{port}");
        let told = || (!self.warned(&port).is_empty()).then_some(());
        wait_for("it is told", SHOWN, told).unwrap();
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
    let before = office.frames(&["p1", "p3"]).unwrap();
    let since = SystemTime::now();
    host.ip(&format!("link set lan2 master {BRIDGE} up"))
        .unwrap();
    let port = scene.one_is_shut("two NICs", since, &["lan1", "lan2"], 6);
    let frames = office.frames(&["p1", "p3"]).unwrap() - before;
    println!("two NICs: {frames} frames came out of both in all");
    scene.one_broadcast("two NICs", &["lan1", "lan2"]);
    // Its carrier goes and comes: the kernel opens the port, and the loop is there again.
    let since = SystemTime::now();
    host.ip(&format!("link set {port} down")).unwrap();
    host.ip(&format!("link set {port} up")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    scene.one_is_shut("its carrier came back", since, &[&port], 3);
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
    let since = SystemTime::now();
    office.0.ip(&format!("link set {cable} up")).unwrap();
    let port = scene.one_is_shut("mended", since, &["lan1", "lan2"], 3);
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
    let since = SystemTime::now();
    host.ip(&format!("link set in2 master {BRIDGE} up"))
        .unwrap();
    let port = scene.one_is_shut("two veths", since, &["in1", "in2"], 6);
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
    let since = SystemTime::now();
    host.ip("link set self2 up").unwrap();
    scene.one_is_shut("from port to port", since, &["self1", "self2"], 4);
    scene.one_broadcast("from port to port", &["self1", "self2", "lan1"]);
}
