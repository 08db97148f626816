//! Stations that a bridge alone would manage: in several VLANs, at two hosts, or silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::figure;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, World};

const WAIT: Duration = Duration::from_secs(10);
const KIND: u16 = 0x88b5;

/// MACs that no kernel speaks for.
const TRUNK: &str = "52:54:00:00:00:77";
const TWIN: &str = "52:54:00:00:00:78";
const SPOKE_ONCE: &str = "52:54:00:00:00:79";
const NEVER_SPOKE: &str = "52:54:00:00:00:7a";
const ABSENT: &str = "52:54:00:00:00:7b";

const VLAN: u16 = 100;

fn frame(to: [u8; 6], from: &str, vlan: u16) -> Frame {
    let frame = Frame::build(to, mac(from), KIND, b"a station speaks");
    if vlan == 0 { frame } else { frame.tagged(vlan) }
}

/// What a hypervisor sends for a guest that has come: RARP, untagged.
fn rarp(of: &str) -> Frame {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 3];
    for address in [mac(of).to_vec(), vec![0; 4], mac(of).to_vec(), vec![0; 4]] {
        payload.extend(address);
    }
    Frame::build([0xff; 6], mac(of), 0x8035, &payload)
}

/// Frames from one device at a steady pace, until it is dropped.
struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    fn start(ns: &Ns, frames: Vec<Frame>, every: Duration) -> Self {
        let port = RawPort::open(ns, "eth0").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for frame in &frames {
                    // A device that is just being moved refuses some.
                    let _ = port.send(frame);
                }
                std::thread::sleep(every);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// The owner of `of` in `vlan`, as `node` sees it.
fn owner(node: &Node, of: &str, vlan: u16) -> Option<String> {
    let macs = node.macs().ok()?;
    let entry = macs.iter().find(|m| m["mac"] == of && m["vlan"] == vlan)?;
    entry["node"].as_str().map(str::to_owned)
}

/// How long until `node` sees `of` at `at` in all of `vlans`.
fn wait_owner(node: &Node, of: &str, vlans: &[u16], at: &Node) -> Duration {
    let id = at.id().unwrap();
    let all = || {
        let here = |vlan: &u16| owner(node, of, *vlan).as_ref() == Some(&id);
        vlans.iter().all(here).then_some(())
    };
    let what = format!("{of} at {}", at.name);
    wait_for(&what, WAIT, all).unwrap().1
}

/// Waits until `node` knows no owner of `of`.
fn wait_gone(node: &Node, of: &str) {
    let gone = || {
        let macs = node.macs().ok()?;
        macs.iter().all(|m| m["mac"] != of).then_some(())
    };
    wait_for("the claim ends", WAIT, gone).unwrap();
}

fn is_for(frame: &Frame, to: &str, vlan: u16) -> bool {
    let tagged = frame.ethertype() == 0x8100;
    let id = u16::from_be_bytes([frame.0[14], frame.0[15]]) & 0xfff;
    frame.dst() == mac(to) && tagged == (vlan != 0) && (!tagged || id == vlan)
}

/// How long until `port` gets a frame for `to`.
fn first_frame(port: &RawPort, to: &str, vlan: u16) -> Duration {
    let start = Instant::now();
    let got = port.recv(WAIT, |frame| is_for(frame, to, vlan));
    assert!(got.is_some(), "no frame for {to} in VLAN {vlan}");
    start.elapsed()
}

#[test]
fn a_machine_on_a_trunk_moves_with_all_its_vlans_and_a_twin_is_named() {
    require_lab!();
    let nats = [
        NatKind::PortRewriting,
        NatKind::PortPreserving,
        NatKind::PortRewriting,
    ];
    let mut world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    moves_with_its_vlans(&world);
    is_at_two_hosts(&mut world);
}

fn moves_with_its_vlans(world: &World) {
    let vlans = [0, VLAN];
    let [asker, old, new] = [0, 1, 2].map(|n| &world.nodes[n]);
    let (from, to) = (&world.sites[1].hosts[0], &world.sites[2].hosts[0]);
    let machine = world.lab.vm_without_address(9, from, BRIDGE).unwrap();
    machine
        .ns
        .sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
        .unwrap();
    let port = RawPort::open(&machine.ns, "eth0").unwrap();
    // The bridge may not forward yet what comes by a port that is new.
    let every = Duration::from_millis(100);
    let all = || vlans.map(|vlan| frame([0xff; 6], TRUNK, vlan)).to_vec();
    let speaking = Stream::start(&machine.ns, all(), every);
    wait_owner(asker, TRUNK, &vlans, old);
    drop(speaking);
    let talker = &world.vms[0];
    let talk = frame(mac(TRUNK), &talker.mac, VLAN);
    let talking = Stream::start(&talker.ns, vec![talk], Duration::from_millis(20));
    first_frame(&port, TRUNK, VLAN);

    // Its hypervisor announces it at the target, untagged; the source's port is still there.
    let target = RawPort::open(&world.vms[2].ns, "eth0").unwrap();
    target.send(&rarp(TRUNK)).unwrap();
    let arrived = first_frame(&target, TRUNK, VLAN);
    let known = wait_owner(asker, TRUNK, &vlans, new);
    println!(
        "one RARP: first tagged frame after {arrived:?}, all VLANs known after {known:?} more"
    );
    assert!(arrived <= figure(Duration::from_secs(1)), "{arrived:?}");

    // A hook says that it is back.
    old.farlan(&["announce", "lab", TRUNK]).unwrap();
    let took = wait_owner(asker, TRUNK, &vlans, old);
    println!("announce: all VLANs after {took:?}");
    assert!(took <= figure(Duration::from_secs(1)), "{took:?}");

    for vlan in vlans {
        port.send(&frame([0xff; 6], TRUNK, vlan)).unwrap();
    }
    first_frame(&port, TRUNK, VLAN);

    // Its port goes, and the machine says nothing anywhere.
    machine.unplug_and_move(from, to, BRIDGE).unwrap();
    port.drain(|_| true);
    let arrived = first_frame(&port, TRUNK, VLAN);
    println!("without a word: first tagged frame after {arrived:?}");
    assert!(
        arrived <= figure(Duration::from_millis(1_200)),
        "{arrived:?}"
    );
    assert_eq!(owner(asker, TRUNK, 0), None);
    assert_eq!(owner(asker, TRUNK, VLAN), None);
    // It answers what it got.
    port.send(&frame(mac(&talker.mac), TRUNK, VLAN)).unwrap();
    let took = wait_owner(asker, TRUNK, &[VLAN], new);
    println!("its answer: known after {took:?}");
    drop(talking);

    // Its port goes while it talks on at the new host.
    let speaking = Stream::start(&machine.ns, all(), Duration::from_millis(50));
    wait_owner(asker, TRUNK, &vlans, new);
    machine.unplug_and_move(to, from, BRIDGE).unwrap();
    let took = wait_owner(asker, TRUNK, &vlans, old);
    println!("ordinary frames: all VLANs after {took:?}");
    assert!(took <= figure(Duration::from_secs(1)), "{took:?}");
    drop(speaking);
}

/// The warnings of `node` about `of`.
fn warned(node: &Node, of: &str) -> Vec<String> {
    let status = node.status().unwrap();
    let all = status["warnings"].as_array().unwrap();
    let lines = all.iter().filter_map(|line| line.as_str());
    lines
        .filter(|line| line.contains(of))
        .map(str::to_owned)
        .collect()
}

fn is_at_two_hosts(world: &mut World) {
    let speak = || vec![frame([0xff; 6], TWIN, 0)];
    let every = Duration::from_millis(100);
    let first = Stream::start(&world.vms[1].ns, speak(), every);
    wait_owner(&world.nodes[0], TWIN, &[0], &world.nodes[1]);
    let second = Stream::start(&world.vms[2].ns, speak(), every);
    for (node, other) in [(1, 2), (2, 1)] {
        let id = world.nodes[other].id().unwrap();
        let named = || {
            let lines = warned(&world.nodes[node], TWIN);
            lines.into_iter().find(|line| line.contains(&id))
        };
        let (line, took) = wait_for("a warning with both hosts", WAIT, named).unwrap();
        println!("after {took:?}: {line}");
    }
    // The one who holds it dies; the other goes on.
    drop(first);
    let died = Instant::now();
    world.nodes[1].process().kill();
    wait_owner(&world.nodes[0], TWIN, &[0], &world.nodes[2]);
    let took = died.elapsed();
    println!("the owner died: taken after {took:?}");
    assert!(took <= Duration::from_secs(5), "{took:?}");
    drop(second);
}

/// Frames for `of` that come within `time`.
fn count(port: &RawPort, of: &[&str], time: Duration) -> Vec<usize> {
    port.drain(|_| true);
    std::thread::sleep(time);
    let all = port.drain(|_| true);
    let mine = |of: &&str| all.iter().filter(|frame| is_for(frame, of, 0)).count();
    of.iter().map(mine).collect()
}

#[test]
fn a_station_that_only_receives_gets_its_frames() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let mut world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    let config = world.lab.dir().join("short.toml");
    std::fs::write(&config, "[directory]\nttl_s = 6\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    for node in &mut world.nodes {
        node.up(&["--config", &config]).unwrap();
    }
    for node in &mut world.nodes {
        node.ready().unwrap();
    }
    let host = &world.sites[1].hosts[0];
    let station = world.lab.vm_without_address(9, host, BRIDGE).unwrap();
    let port = RawPort::open(&station.ns, "eth0").unwrap();
    let speaking = vec![frame([0xff; 6], SPOKE_ONCE, 0)];
    let speaking = Stream::start(&station.ns, speaking, Duration::from_millis(100));
    world.nodes[0].wait_mac(SPOKE_ONCE, WAIT).unwrap();
    drop(speaking);
    let both = [SPOKE_ONCE, NEVER_SPOKE];
    let sender = &world.vms[0];
    let to = |of: &str| frame(mac(of), &sender.mac, 0);
    let frames = vec![to(SPOKE_ONCE), to(NEVER_SPOKE), to(ABSENT)];
    let sending = Stream::start(&sender.ns, frames, Duration::from_millis(100));

    // Past the life of the one's claim: 3 s, and three probes.
    wait_gone(&world.nodes[0], SPOKE_ONCE);
    let unpinned = count(&port, &both, Duration::from_secs(5));
    println!("of 50 frames each in 5 s without a pin: {unpinned:?}");
    // The bridge still knows the one that spoke, and claims it whenever all are asked.
    assert!(unpinned[0] >= 4, "{unpinned:?}");
    assert!((4..=7).contains(&unpinned[1]), "{unpinned:?}");
    tells_what_is_unknown(&world.nodes[0]);

    world.nodes[1].farlan(&["pin", "lab", SPOKE_ONCE]).unwrap();
    let told = world.nodes[1].farlan(&["announce", "lab", NEVER_SPOKE, "--keep"]);
    println!("{}", told.unwrap());
    for of in both {
        wait_owner(&world.nodes[0], of, &[0], &world.nodes[1]);
    }
    // Longer than a claim of silence lives.
    std::thread::sleep(Duration::from_secs(5));
    let pinned = count(&port, &both, Duration::from_secs(3));
    println!("of 30 frames each in 3 s with a pin: {pinned:?}");
    assert!(pinned.iter().all(|got| *got >= 27), "{pinned:?}");

    world.nodes[1].stop().unwrap();
    world.nodes[1].up(&["--config", &config]).unwrap();
    world.nodes[1].ready().unwrap();
    for of in both {
        wait_owner(&world.nodes[0], of, &[0], &world.nodes[1]);
        first_frame(&port, of, 0);
    }
    let again = count(&port, &both, Duration::from_secs(3));
    println!("of 30 frames each in 3 s after a restart: {again:?}");
    assert!(again.iter().all(|got| *got >= 27), "{again:?}");
    world.nodes[1]
        .farlan(&["unpin", "lab", SPOKE_ONCE])
        .unwrap();
    wait_gone(&world.nodes[0], SPOKE_ONCE);
    assert!(owner(&world.nodes[0], NEVER_SPOKE, 0).is_some());
    drop(sending);
}

fn tells_what_is_unknown(node: &Node) {
    let status = node.status().unwrap();
    let unknown = status["unknown"].as_array().unwrap();
    let absent = unknown.iter().find(|one| one["mac"] == ABSENT);
    println!("{absent:?}");
    assert!(
        absent.unwrap()["asked"].as_u64().unwrap() >= 4,
        "{unknown:?}"
    );
    let asked = node.run(&["where", ABSENT]).unwrap();
    println!("{asked:?}");
    assert_eq!(asked.code, 1);
    assert!(asked.stderr.contains("nobody answers"), "{asked:?}");
}
