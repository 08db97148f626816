//! The overlay does not ride on itself, whatever leads from the host into its own bridge.

use std::time::{Duration, Instant};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::proc::{Usage, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

/// Where an answer must be back after the host's route is, and the largest share of a core meanwhile.
const BACK: Duration = Duration::from_secs(5);
const SHARE: f64 = 0.2;

/// On host `n`: addresses above the bridge, each reached from the other host through the overlay alone.
fn addresses_above_the_bridge(world: &World, n: usize) {
    let host = &world.sites[n].hosts[0].ns;
    let (own, other) = (n + 1, 2 - n);
    let given = format!("10.9.0.{}/24", 50 + own);
    let args = ["attach", NETWORK, "--address", &given];
    world.nodes[n].farlan(&args).unwrap();
    for line in [
        // One end of a pair is a port of the bridge.
        "link add above type veth peer name below".to_owned(),
        format!("link set below master {BRIDGE} up"),
        "link set above up".to_owned(),
        format!("addr add 10.50.0.{own}/24 dev above"),
        // A second card on the bridge.
        format!("link add card link {BRIDGE} type macvlan mode bridge"),
        "link set card up".to_owned(),
        format!("addr add 10.51.0.{own}/24 dev card"),
        // A network of pods behind each host, routed over the hosts' addresses on the bridge.
        "link add pods type bridge".to_owned(),
        "link add pod type veth peer name podeth".to_owned(),
        "link set pod master pods up".to_owned(),
        "link set podeth up".to_owned(),
        "link set pods up".to_owned(),
        format!("addr add 10.42.{own}.1/16 dev pods"),
        format!("route add 10.42.{other}.0/24 via 10.9.0.{}", 50 + other),
    ] {
        host.ip(&line).unwrap();
    }
    // Through another namespace, so that no link of the host leads to the bridge.
    let switch = world.lab.namespace(&format!("switch{n}")).unwrap();
    let full = switch.full_name();
    host.ip(&format!(
        "link add far type veth peer name near netns {full}"
    ))
    .unwrap();
    host.ip(&format!(
        "link add inner type veth peer name outer netns {full}"
    ))
    .unwrap();
    host.ip(&format!("link set inner master {BRIDGE} up"))
        .unwrap();
    host.ip("link set far up").unwrap();
    for line in [
        "link add sw type bridge",
        "link set sw up",
        "link set near master sw up",
        "link set outer master sw up",
    ] {
        switch.ip(line).unwrap();
    }
    host.ip(&format!("addr add 10.52.0.{own}/24 dev far"))
        .unwrap();
}

fn direct_paths(world: &World) -> [String; 2] {
    let limit = Duration::from_secs(10);
    [(0, "b"), (1, "a")].map(|(node, peer)| {
        let path = world.nodes[node].wait_kind(peer, "direct", limit);
        path.unwrap().remote
    })
}

#[test]
fn no_path_goes_to_an_address_that_the_overlay_itself_carries() {
    require_lab!();
    let mut world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let before = direct_paths(&world);
    for n in [0, 1] {
        addresses_above_the_bridge(&world, n);
    }
    // The addresses are reached: by the overlay.
    let host = world.sites[0].hosts[0].ns.clone();
    for to in ["10.50.0.2", "10.51.0.2", "10.42.2.1", "10.52.0.2"] {
        first_ping(&host, to, Instant::now(), BACK).unwrap();
    }
    let lost = |world: &World| {
        let ping = Ping::new(&world.vms[0].ip).count(350);
        let result = ping
            .interval(Duration::from_millis(20))
            .run(&world.vms[1].ns);
        let result = result.unwrap();
        println!("{result:?}");
        result.sent - result.received
    };
    assert_eq!(lost(&world), 0);
    assert_eq!(direct_paths(&world), before);
    let drops = || {
        let drops = |node: &farlan_tests::overlay::Node| node.drops("overlay_on_itself").ok();
        let drops: Option<Vec<u64>> = world.nodes.iter().map(drops).collect();
        drops.filter(|counts| counts.iter().sum::<u64>() > 0)
    };
    let (drops, _) = wait_for("a datagram on its own tap is counted", BACK, drops).unwrap();
    println!("dropped: {drops:?}");
    // A new session tries every address that it knows.
    world.nodes[1].stop().unwrap();
    world.nodes[1].up_and_ready().unwrap();
    let limit = Duration::from_secs(10);
    first_ping(&world.vms[1].ns, &world.vms[0].ip, Instant::now(), limit).unwrap();
    direct_paths(&world);
    assert_eq!(lost(&world), 0);
    for path in direct_paths(&world) {
        let inside = ["10.9.", "10.42.", "10.50.", "10.51.", "10.52."];
        assert!(!inside.iter().any(|net| path.starts_with(net)), "{path}");
    }
}

/// Seconds of processor time that the process has used.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn warnings(world: &World, node: usize) -> Vec<String> {
    let status = world.nodes[node].status().unwrap();
    let all = status["warnings"].as_array().cloned().unwrap_or_default();
    let text = |one: &serde_json::Value| one.as_str().unwrap_or_default().to_owned();
    all.iter().map(text).collect()
}

#[test]
fn a_default_route_through_a_guest_costs_no_core_and_heals_with_the_route() {
    require_lab!();
    let mut world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    direct_paths(&world);
    let args = ["attach", NETWORK, "--address", "10.9.0.50/24"];
    world.nodes[0].farlan(&args).unwrap();
    let host: Ns = world.sites[0].hosts[0].ns.clone();
    let (near, far) = (world.vms[0].ns.clone(), world.vms[1].ns.clone());
    let to = world.vms[1].ip.clone();
    // The gateway is a guest of the other host that forwards.
    far.sysctl("net/ipv4/ip_forward", "1").unwrap();
    far.ip("route add default via 10.9.0.50").unwrap();
    first_ping(&host, &to, Instant::now(), BACK).unwrap();
    let before = host.ip("route show default").unwrap();
    host.ip(&format!("route replace default via {to} dev {BRIDGE}"))
        .unwrap();
    // What the guests send meanwhile must not go round either.
    let ping = Ping::new(&to)
        .count(150)
        .interval(Duration::from_millis(40));
    let _ping = ping.spawn(&near).unwrap();
    let pid = world.nodes[0].process().pid();
    std::thread::sleep(Duration::from_secs(1));
    let (used, start) = (processor_time(pid), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let share = (processor_time(pid) - used) / start.elapsed().as_secs_f64();
    let drops = world.nodes[0].drops("overlay_on_itself").unwrap();
    let told = warnings(&world, 0);
    println!("{share:.3} of a core, {drops} dropped, {told:?}");
    assert!(share < SHARE, "{share} of a core");
    assert!(drops > 0);
    let mine: Vec<_> = told.iter().filter(|one| one.contains(BRIDGE)).collect();
    assert_eq!(mine.len(), 1, "{told:?}");
    assert!(mine[0].contains(&to), "{told:?}");
    // As the message says.
    let back = format!("route replace {}", before.trim());
    assert!(mine[0].contains(&format!("`ip {back}`")), "{told:?} {back}");
    host.ip(&back).unwrap();
    let took = first_ping(&near, &to, Instant::now(), BACK).unwrap();
    println!("back after {took:?}");
    let gone = || warnings(&world, 0).is_empty().then_some(());
    wait_for("the warning goes", BACK, gone).unwrap();
    let usage = Usage::of(pid).unwrap();
    println!("{usage:?}");
}
