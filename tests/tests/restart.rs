//! Nodes that die without a word and come back: `kill -9` under traffic, also without the bootstrap,
//! and a reboot of everything. And one whose clock jumps.

use std::time::{Duration, SystemTime};

use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, figure, first_answer_after};
use farlan_tests::proc::{self, Proc};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, TAP, World};

/// From the restart to the first answer between guests.
const BACK: Duration = Duration::from_secs(2);
/// From the restart of everything to the first answer: first contact, then as any start.
const REBOOT: Duration = Duration::from_secs(10);

fn running(nats: &[NatKind]) -> World {
    World::running(nats, Family::V4, LinkModel::default()).unwrap()
}

/// Pings the first guest from the second, without pause, for two minutes at most.
fn traffic(world: &World) -> Proc {
    let ping = Ping::new(&world.vms[0].ip)
        .count(6000)
        .interval(Duration::from_millis(20))
        .spawn(&world.vms[1].ns)
        .unwrap();
    first_answer_after(&ping, SystemTime::now(), Duration::from_secs(5)).unwrap();
    ping
}

/// Watches the links of node `n`'s host: a tap or bridge that goes is written there.
fn watch_links(world: &World, n: usize) -> Proc {
    let host = &world.sites[n].hosts[0].ns;
    let watch = host.spawn("link-monitor", "ip monitor link").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    watch
}

fn assert_links_stayed(world: &World, n: usize, watch: &Proc, before: &str) {
    let gone: Vec<String> = watch
        .log()
        .lines()
        .filter(|line| line.contains("Deleted"))
        .map(str::to_owned)
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(links(world, n), before);
}

/// Index and master of the tap, and index of the bridge, of node `n`'s host.
fn links(world: &World, n: usize) -> String {
    let host = &world.sites[n].hosts[0].ns;
    [TAP, BRIDGE]
        .map(|link| {
            let path = format!("/sys/class/net/{link}");
            let line = format!("cat {path}/ifindex; readlink {path}/master || true");
            host.sh(&line).unwrap().stdout
        })
        .concat()
}

/// Kills node `n` with SIGKILL, leaves it dead for a second, starts it; gives the time from the
/// start to the first answer.
fn kill_and_restart(world: &mut World, n: usize, ping: &Proc) -> Duration {
    world.nodes[n].process().kill();
    assert!(links(world, n).lines().count() >= 3, "tap and bridge stay");
    std::thread::sleep(Duration::from_secs(1));
    let start = SystemTime::now();
    world.nodes[n].up(&[]).unwrap();
    first_answer_after(ping, start, Duration::from_secs(30)).unwrap()
}

/// How often each node is killed; `./test --long restart` does it 10 times.
fn rounds() -> usize {
    let asked = std::env::var("FARLAN_REPEAT").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Kills each of `nodes` in turn, again and again; prints the times and gates the worst.
fn kill_in_turn(world: &mut World, nodes: &[usize], ping: &Proc, what: &str) {
    for &n in nodes {
        let (watch, before) = (watch_links(world, n), links(world, n));
        let mut times = Vec::new();
        for _ in 0..rounds() {
            times.push(kill_and_restart(world, n, ping));
            std::thread::sleep(Duration::from_secs(2));
        }
        assert_links_stayed(world, n, &watch, &before);
        println!("sample {what}, node {n}: {times:?}");
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let count = times.len();
        println!("sample {what}, node {n}: median {median:?} worst {worst:?} of {count}");
        assert!(worst <= figure(BACK), "{worst:?}");
    }
}

#[test]
fn guests_pass_again_after_a_kill_under_traffic() {
    require_lab!();
    let mut world = running(&[NatKind::PortRewriting, NatKind::PortPreserving]);
    let ping = traffic(&world);
    kill_in_turn(&mut world, &[1, 0], &ping, "kill to first answer");
}

/// Each node in turn is the one whose peer is behind a NAT that rewrites ports, or keeps them.
#[test]
fn guests_pass_again_without_the_bootstrap() {
    require_lab!();
    let mut world = running(&[NatKind::PortRewriting, NatKind::PortPreserving]);
    // The peer is reachable: its NAT holds the mapping towards this node.
    world.nodes[1]
        .wait_kind("a", "direct", Duration::from_secs(15))
        .unwrap();
    let ping = traffic(&world);
    world.boot.process.kill();
    // What they know of each other is on disk within two seconds.
    std::thread::sleep(Duration::from_secs(2));
    kill_in_turn(&mut world, &[1, 0], &ping, "kill without a bootstrap");
    // The user learns why nobody new is found.
    proc::wait_for("a warning", Duration::from_secs(30), || {
        let status = world.nodes[0].status().ok()?;
        let warning = status["warnings"].get(0)?.as_str()?.to_owned();
        warning
            .starts_with("no bootstrap is up: /ip4/")
            .then_some(())
    })
    .unwrap();
    let host = world.boot.host.clone();
    world.boot = farlan_tests::overlay::Bootstrap::start(&host, &world.authority.id).unwrap();
    proc::wait_for("no warning", Duration::from_secs(60), || {
        let status = world.nodes[0].status().ok()?;
        status["warnings"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
}

#[test]
fn a_reboot_of_all_nodes_at_once_recovers() {
    require_lab!();
    let mut world = running(&[
        NatKind::PortRewriting,
        NatKind::PortPreserving,
        NatKind::PortRewriting,
    ]);
    let ping = traffic(&world);
    world.boot.process.kill();
    for n in 0..3 {
        world.nodes[n].process().kill();
        // A reboot leaves no interface.
        let host = &world.sites[n].hosts[0].ns;
        host.ip(&format!("link del {TAP}")).unwrap();
        host.ip(&format!("link del {BRIDGE}")).unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    let start = SystemTime::now();
    let host = world.boot.host.clone();
    world.boot = farlan_tests::overlay::Bootstrap::start(&host, &world.authority.id).unwrap();
    for node in &mut world.nodes {
        node.up(&[]).unwrap();
    }
    for (n, node) in world.nodes.iter_mut().enumerate() {
        node.ready().unwrap();
        // The hypervisor starts the guest again on its bridge.
        let host = &world.sites[n].hosts[0].ns;
        host.ip(&format!("link set vm{} master {BRIDGE} up", n + 1))
            .unwrap();
    }
    let took = first_answer_after(&ping, start, Duration::from_secs(60)).unwrap();
    println!("sample reboot of everything to first answer: {took:?}");
    let (third, first) = (&world.vms[2], &world.vms[0]);
    let result = Ping::new(&first.ip).count(20).run(&third.ns).unwrap();
    assert!(result.received >= 10, "{result:?}");
    assert!(took <= figure(REBOOT), "{took:?}");
}

/// The wall clock of one node is set a minute ahead under traffic: all its sessions end, and begin
/// anew, from either side.
#[test]
fn trust_12_a_node_whose_clock_jumps_begins_new_sessions() {
    require_lab!();
    let mut world = running(&[NatKind::PortRewriting, NatKind::PortPreserving]);
    let ping = traffic(&world);
    // libfaketime shifts the wall clock of one process, and reads again by how much every second.
    let shift = world.lab.dir().join("clock-shift");
    let set = |by: &str| {
        let new = shift.with_extension("new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(&new, &shift).unwrap();
    };
    set("+0\n");
    let preload = proc::check(std::process::Command::new("faketime").args([
        "-f",
        "+0",
        "sh",
        "-c",
        "echo $LD_PRELOAD",
    ]))
    .unwrap();
    let env = [
        ("LD_PRELOAD", preload.trim()),
        ("FAKETIME_TIMESTAMP_FILE", shift.to_str().unwrap()),
        ("FAKETIME_CACHE_DURATION", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    world.nodes[1].stop().unwrap();
    let start = SystemTime::now();
    world.nodes[1].up_with_env(&[], &env).unwrap();
    first_answer_after(&ping, start, Duration::from_secs(10)).unwrap();
    // An ordinary second changes nothing.
    std::thread::sleep(Duration::from_secs(3));
    let ended = "all sessions end and begin anew";
    assert!(!world.nodes[1].process().log().contains(ended));
    set("+60\n");
    let log = world.nodes[1]
        .process()
        .wait_log(ended, Duration::from_secs(5))
        .unwrap();
    // What was under way is there by then.
    let under_way = Duration::from_millis(200);
    let jump = SystemTime::now() + under_way;
    assert!(log.contains("the wall clock has jumped"), "{log}");
    let took = under_way + first_answer_after(&ping, jump, Duration::from_secs(10)).unwrap();
    println!("sample clock jump to first answer: {took:?}");
    assert!(took <= figure(BACK), "{took:?}");
    // Once is enough.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.nodes[1].process().log().matches(ended).count(), 1);
}
