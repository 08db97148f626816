//! What a node costs when nothing goes on, and after a guest has made a flood of addresses up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farlan_tests::frames::{Frame, RawPort};
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::proc::Usage;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// Processor time of each thread of a process so far, by its name and number.
fn cpu_by_thread(pid: u32) -> BTreeMap<(String, u32), Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let time = |tid: u32| {
        let dir = format!("/proc/{pid}/task/{tid}");
        let name = std::fs::read_to_string(format!("{dir}/comm")).ok()?;
        let spent = std::fs::read_to_string(format!("{dir}/schedstat")).ok()?;
        let nanos = spent.split_whitespace().next()?.parse().ok()?;
        Some(((name.trim().to_owned(), tid), Duration::from_nanos(nanos)))
    };
    tasks
        .flatten()
        .filter_map(|entry| time(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// The share of one core that a process takes during `span`.
fn share_of_a_core(pid: u32, span: Duration) -> f64 {
    let (before, start) = (cpu_by_thread(pid), Instant::now());
    std::thread::sleep(span);
    let (after, took) = (cpu_by_thread(pid), start.elapsed());
    let mut sum = Duration::ZERO;
    for (thread, spent) in &after {
        let spent = *spent - before.get(thread).copied().unwrap_or_default();
        if spent > Duration::from_micros(10) {
            println!("  {:<16} {spent:?} in {took:?}", thread.0);
        }
        sum += spent;
    }
    sum.as_secs_f64() / took.as_secs_f64()
}

/// What a node with a session and a guest may take of a core while nothing goes on. It takes 0.1 to 1.3 %,
/// by how cold the machine is; a loop that does not end takes all.
const AT_REST: f64 = 0.1;

#[test]
fn a_node_at_rest_costs_next_to_nothing() {
    require_lab!();
    let nats = [NatKind::PortPreserving, NatKind::PortRewriting];
    let mut world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    let limit = Duration::from_secs(20);
    world.nodes[0].wait_kind("b", "direct", limit).unwrap();
    // Paths and their MTU are found.
    std::thread::sleep(Duration::from_secs(10));
    let share = share_of_a_core(world.nodes[0].process().pid(), Duration::from_secs(20));
    println!("at rest: {:.3} % of a core", share * 100.0);
    assert!(share < AT_REST, "{:.3} % of a core", share * 100.0);
}

/// A guest makes up so many source addresses, in so long.
const MADE_UP: u32 = 733_000;
const FLOOD: Duration = Duration::from_secs(12);
/// What the flood may leave behind in a node's memory: the claims and records of a thousand MACs, and what
/// the allocator keeps between them.
const LEFT_KIB: u64 = 4 * 1024;
/// What a node may take of a core five seconds later.
const BUSY: f64 = 0.1;

/// Sends broadcasts with [`MADE_UP`] sources from a guest, evenly over [`FLOOD`].
fn flood(vm: &Vm) {
    let port = RawPort::open(&vm.ns, "eth0").unwrap();
    let start = Instant::now();
    for n in 0..MADE_UP {
        let [_, b, c, d] = n.to_be_bytes();
        // Sent as fast as the guest can where it cannot keep to the time.
        let due = FLOOD.mul_f64(f64::from(n) / f64::from(MADE_UP));
        if n % 64 == 0 {
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let _ = port.send(&Frame::build(
            [0xff; 6],
            [0x02, 0x77, 0, b, c, d],
            0x88b5,
            &[],
        ));
    }
    println!("{MADE_UP} addresses in {:?}", start.elapsed());
}

/// Floods, and looks at both nodes; `bridge` is how it is called in what is printed.
fn flooded(world: &mut World, bridge: &str) {
    let before: Vec<Usage> = usages(world);
    flood(&world.vms[0]);
    std::thread::sleep(Duration::from_secs(5));
    let pids: Vec<u32> = world.nodes.iter_mut().map(|n| n.process().pid()).collect();
    for (pid, before) in pids.into_iter().zip(before) {
        let share = share_of_a_core(pid, Duration::from_secs(2));
        let now = Usage::of(pid).unwrap();
        let left = now.memory_kib.saturating_sub(before.memory_kib);
        println!(
            "{bridge}: {left} KiB more, {:.2} % of a core",
            share * 100.0
        );
        assert!(left <= LEFT_KIB, "{bridge}: {left} KiB more than before");
        assert!(
            share < BUSY,
            "{bridge}: still {:.1} % of a core",
            share * 100.0
        );
    }
    let to = &world.vms[1].ip;
    let limit = Duration::from_secs(2);
    farlan_tests::probe::first_ping(&world.vms[0].ns, to, Instant::now(), limit).unwrap();
}

fn usages(world: &mut World) -> Vec<Usage> {
    let nodes = world.nodes.iter_mut();
    nodes
        .map(|n| Usage::of(n.process().pid()).unwrap())
        .collect()
}

#[test]
fn a_flood_of_made_up_addresses_leaves_a_node_as_it_was() {
    require_lab!();
    let nats = [NatKind::PortPreserving, NatKind::PortRewriting];
    let mut world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    flooded(&mut world, "own bridge");
}

#[test]
fn a_flood_behind_a_users_bridge_leaves_a_node_as_it_was() {
    require_lab!();
    let model = LinkModel::default();
    let mut world = World::build(&[], Family::V4, model).unwrap();
    for index in [1, 2] {
        let name = world.next_name().unwrap();
        let nat = NatKind::PortPreserving;
        let site = world
            .lab
            .site(&name, index, nat, Family::V4, 1, model)
            .unwrap();
        let host = &site.hosts[0];
        host.ns
            .ip("link add br0 type bridge stp_state 0 forward_delay 0")
            .unwrap();
        host.ns.ip("link set br0 up").unwrap();
        let node = Node::new(host, &name);
        assert_eq!(node.join(&world.invite(&name).unwrap()).unwrap().code, 0);
        node.farlan(&["attach", NETWORK, "--bridge", "br0"])
            .unwrap();
        world.vms.push(world.lab.vm(index, host, "br0").unwrap());
        world.sites.push(site);
        world.nodes.push(node);
    }
    let mut world = world.start().unwrap();
    flooded(&mut world, "user's bridge");
}
