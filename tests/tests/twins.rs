//! A guest elsewhere sends with the MAC of a guest here, under a VLAN tag that nobody asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, TAP, World};

const THREE: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortPreserving,
];
const WAIT: Duration = Duration::from_secs(10);

/// About 2,000 broadcasts a second from `ns` with the source `victim`, in a VLAN that changes; 0 for all
/// VLANs in turn.
struct Twin {
    stop: Arc<AtomicBool>,
    vlan: Arc<AtomicU16>,
    thread: Option<JoinHandle<u64>>,
}

impl Twin {
    fn start(ns: &Ns, victim: &str, vlan: u16) -> Self {
        let port = RawPort::open(ns, "eth0").unwrap();
        let victim = mac(victim);
        let stop = Arc::new(AtomicBool::new(false));
        let vlan = Arc::new(AtomicU16::new(vlan));
        let (until, of) = (Arc::clone(&stop), Arc::clone(&vlan));
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            while !until.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() / 500;
                while u128::from(sent) < due {
                    let vlan = match of.load(Ordering::Relaxed) {
                        0 => 1 + u16::try_from(sent % 4094).unwrap(),
                        vlan => vlan,
                    };
                    let frame = Frame::build([0xff; 6], victim, 0x88b5, b"twin").tagged(vlan);
                    // A full queue loses some, as with any flood.
                    let _ = port.send(&frame);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        Self {
            stop,
            vlan,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The port and the flags of a MAC's entry in the bridge's database.
fn entry(host: &Ns, mac: &str) -> Option<String> {
    let fdb = host
        .sh(&format!("bridge fdb show br {BRIDGE}"))
        .ok()?
        .stdout;
    let line = fdb.lines().find(|line| line.starts_with(mac))?;
    Some(line.to_owned())
}

#[test]
fn a_tagged_twin_elsewhere_costs_no_ping() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let host = &world.sites[0].hosts[0];
    let (victim, attacker, far) = (&world.vms[0], &world.vms[1], &world.vms[2]);
    let neighbour = world.lab.vm(9, host, BRIDGE).unwrap();
    first_ping(&neighbour.ns, &victim.ip, Instant::now(), WAIT).unwrap();
    // What the directory says is in the bridge's database, and stays there.
    let kept = || {
        let line = entry(&host.ns, &far.mac)?;
        (line.contains(TAP) && line.contains("extern_learn")).then_some(())
    };
    wait_for("the far guest is an entry at the tap", WAIT, kept).unwrap();
    let port = host.ns.ip(&format!("-d link show {TAP}")).unwrap();
    assert!(port.contains("learning off"), "{port}");
    let twin = Twin::start(&attacker.ns, &victim.mac, 10);
    let mut lost = Vec::new();
    for (vlan, name) in [(10, "one VLAN"), (0, "all VLANs in turn")] {
        twin.vlan.store(vlan, Ordering::Relaxed);
        let mut pings = Vec::new();
        for from in [&neighbour, far] {
            let mut ping = Ping::new(&victim.ip);
            ping.count = 150;
            ping.interval = Duration::from_millis(20);
            pings.push((from, ping.spawn(&from.ns).unwrap()));
        }
        for (from, mut ping) in pings {
            ping.wait(WAIT).unwrap();
            let result = parse_ping(&ping.log()).unwrap();
            println!("{name}, from {}: {result:?}", from.ns.name());
            lost.push(result.sent - result.received);
        }
        println!("{:?}", entry(&host.ns, &victim.mac));
    }
    println!("{} frames with the victim's MAC", twin.end());
    assert_eq!(lost, [0; 4], "pings lost");
    // In all VLANs but the few that the directory does not yet know to be elsewhere.
    let refused = world.nodes[0].drops("mac_twin").unwrap();
    println!("{refused} refused as mac_twin");
    assert!(refused > 300, "{refused} frames refused as mac_twin");
    // It has no say over the far guest, either.
    assert!(entry(&host.ns, &victim.mac).unwrap().contains("vm1"));
}

#[test]
fn a_new_bridge_is_told_again_and_a_guest_that_comes_is_found_at_its_port() {
    require_lab!();
    let two = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::running(&two, Family::V4, LinkModel::default()).unwrap();
    let (from, to) = (&world.sites[1].hosts[0], &world.sites[0].hosts[0]);
    let (here, there) = (&world.vms[0], &world.vms[1]);
    let place = |at: &'static str| {
        move || {
            let line = entry(&to.ns, &there.mac)?;
            line.split_whitespace().any(|word| word == at).then_some(())
        }
    };
    wait_for("it is at the tap", WAIT, place(TAP)).unwrap();
    // Somebody flushes the database.
    to.ns
        .sh(&format!("bridge fdb del {} dev {TAP} master", there.mac))
        .unwrap();
    let (_, took) = wait_for("it is at the tap again", WAIT, place(TAP)).unwrap();
    println!("written again after {took:?}");
    // The port leaves the bridge and comes back: the kernel drops all entries and learns again.
    to.ns.ip(&format!("link set {TAP} nomaster")).unwrap();
    to.ns
        .ip(&format!("link set {TAP} master {BRIDGE}"))
        .unwrap();
    let back = || {
        let port = to.ns.ip(&format!("-d link show {TAP}")).ok()?;
        port.contains("learning off").then_some(())
    };
    let (_, took) = wait_for("the bridge does not learn at the tap", WAIT, back).unwrap();
    println!("learning off again after {took:?}");
    wait_for("it is at the tap again", WAIT, place(TAP)).unwrap();
    // The guest comes here.
    there.unplug_and_move(from, to, BRIDGE).unwrap();
    first_ping(&here.ns, &there.ip, Instant::now(), WAIT).unwrap();
    wait_for("it is at its port", WAIT, place("vm2")).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(place("vm2")().is_some(), "{:?}", entry(&to.ns, &there.mac));
}
