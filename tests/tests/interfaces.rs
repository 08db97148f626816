//! Taps and bridges stay as they are recorded while the node runs, whatever is done to them by hand;
//! what is not ours to mend is told.

use std::time::{Duration, Instant};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, TAP, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
/// To put back, and to warn.
const LIMIT: Duration = Duration::from_secs(10);
/// To join a bridge that comes late.
const LATE: Duration = Duration::from_secs(15);

fn ip_all(ns: &Ns, commands: &[&str]) {
    for command in commands {
        ns.ip(command).unwrap();
    }
}

/// Is `port` up and on `bridge`, with this MTU?
fn is_on(ns: &Ns, port: &str, bridge: &str, mtu: u32) -> Option<()> {
    let text = ns.ip(&format!("link show {port}")).ok()?;
    let wanted = [&format!("master {bridge} "), &format!("mtu {mtu} "), ",UP"];
    wanted.iter().all(|part| text.contains(*part)).then_some(())
}

fn warnings(node: &Node) -> Vec<String> {
    let status = node.status().unwrap();
    let lines = status["warnings"].as_array().unwrap();
    lines
        .iter()
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

/// Waits until a warning has these words, or none has.
fn wait_warning(node: &Node, words: &[&str], is_there: bool, limit: Duration) -> Duration {
    let all = |line: &String| words.iter().all(|word| line.contains(word));
    let look = || (warnings(node).iter().any(all) == is_there).then_some(());
    let what = format!("a warning with {words:?}: {is_there}");
    wait_for(&what, limit, look).unwrap().1
}

#[test]
fn what_was_made_by_attach_is_put_back_within_seconds() {
    require_lab!();
    let mut world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let host = world.sites[0].hosts[0].ns.clone();
    world.nodes[0]
        .farlan(&["attach", NETWORK, "--vm", "web1"])
        .unwrap();
    let guests = |world: &World, since: Instant| {
        first_ping(&world.vms[1].ns, &world.vms[0].ip, since, LIMIT).unwrap()
    };
    let cases: [&[&str]; 8] = [
        &["link set fl-lab nomaster"],
        &["link set fl-lab down"],
        &["link set fl-lab mtu 1400"],
        &["link delete fl-lab"],
        &["link delete web1"],
        &["link set br-lab down"],
        &["link delete br-lab"],
        &["link delete br-lab", "link delete fl-lab"],
    ];
    for commands in cases {
        ip_all(&host, commands);
        let since = Instant::now();
        for port in [TAP, "vm1", "web1"] {
            let whole = || is_on(&host, port, BRIDGE, 1500);
            wait_for(&format!("{commands:?}: {port} is back"), LIMIT, whole).unwrap();
        }
        let back = since.elapsed();
        let pings = guests(&world, since);
        println!("{commands:?}: whole after {back:?}, pings after {pings:?}");
        assert!(back <= LIMIT && pings <= LIMIT);
    }
    assert_eq!(warnings(&world.nodes[0]), [""; 0]);
    // While the node is stopped, too.
    world.nodes[0].stop().unwrap();
    ip_all(&host, &["link delete br-lab", "link delete fl-lab"]);
    world.nodes[0].up_and_ready().unwrap();
    let since = Instant::now();
    let pings = guests(&world, since);
    println!("after a start: pings after {pings:?}");
    // And detach asks first.
    let refused = world.nodes[0].run(&["detach", NETWORK]).unwrap();
    assert_eq!(refused.code, 1);
    for word in ["vm1", "farlan detach lab --force"] {
        assert!(refused.stderr.contains(word), "{refused:?}");
    }
    world.nodes[0]
        .farlan(&["detach", NETWORK, "--force"])
        .unwrap();
    world.nodes[0].farlan(&["attach", NETWORK]).unwrap();
    let pings = guests(&world, Instant::now());
    println!("after detach and attach: pings after {pings:?}");
}

#[test]
fn a_users_bridge_comes_late_is_made_anew_and_changes_its_mtu() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    let host = world.sites[0].hosts[0].ns.clone();
    let make = [
        "link add br0 type bridge",
        "link set br0 up",
        "link set vm1 master br0",
    ];
    for (node, port) in world.nodes.iter().zip(["vm1", "vm2"]) {
        let ns = &node.host.ns;
        node.farlan(&["detach", NETWORK, "--force"]).unwrap();
        ip_all(ns, &make[..2]);
        ns.ip(&format!("link set {port} master br0")).unwrap();
        node.farlan(&["attach", NETWORK, "--bridge", "br0"])
            .unwrap();
    }
    // As at a boot: neither bridge nor tap, and the node starts first.
    ip_all(&host, &["link delete br0", "link delete fl-lab"]);
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    let node = &world.nodes[0];
    wait_warning(node, &["there is no bridge br0"], true, LIMIT);
    for round in ["comes late", "is made anew after 2 s"] {
        ip_all(&host, &make);
        let since = Instant::now();
        wait_for("the tap is on it", LATE, || is_on(&host, TAP, "br0", 1500)).unwrap();
        let joined = since.elapsed();
        let pings = first_ping(&world.vms[1].ns, &world.vms[0].ip, since, LATE).unwrap();
        println!("the bridge {round}: joined after {joined:?}, pings after {pings:?}");
        wait_warning(node, &["br0"], false, LIMIT);
        if round == "comes late" {
            ip_all(&host, &["link delete br0"]);
            wait_warning(node, &["there is no bridge br0"], true, LIMIT);
            std::thread::sleep(Duration::from_secs(2));
        }
    }
    // What is typed as the warning says works.
    node.farlan(&["attach", NETWORK, "--bridge", "br0"])
        .unwrap();
    ip_all(&host, &["link set br0 down"]);
    wait_warning(node, &["br0 is down", "ip link set br0 up"], true, LIMIT);
    ip_all(&host, &["link set br0 up"]);
    wait_warning(node, &["br0"], false, LIMIT);
    // One site first, then both.
    let mtus = |index: usize| world.nodes[index].status().unwrap()["networks"][0]["mtu"].clone();
    let grow = |index: usize| {
        let ns = &world.sites[index].hosts[0].ns;
        let port = format!("vm{}", index + 1);
        ip_all(
            ns,
            &[
                &format!("link set {port} mtu 9000"),
                "link set br0 mtu 9000",
            ],
        );
        world.vms[index].ns.ip("link set eth0 mtu 9000").unwrap();
    };
    grow(0);
    let (_, took) = wait_for("the tap follows", LIMIT, || is_on(&host, TAP, "br0", 9000)).unwrap();
    wait_for("status has it", LIMIT, || (mtus(0) == 9000).then_some(())).unwrap();
    println!("the tap followed after {took:?}");
    for (node, site) in [(&world.nodes[0], "b"), (&world.nodes[1], "this host")] {
        let took = wait_warning(node, &["1500", site], true, LIMIT);
        println!("the warning came after {took:?}");
    }
    assert_eq!(mtus(1), 1500);
    grow(1);
    for node in &world.nodes {
        wait_warning(node, &["MTU"], false, LIMIT);
    }
    let large = format!("ping -c 1 -W 2 -M do -s 8000 {}", world.vms[0].ip);
    let crosses = || {
        world.vms[1]
            .ns
            .sh(&large)
            .is_ok_and(|out| out.code == 0)
            .then_some(())
    };
    let (_, took) = wait_for("8,000 bytes cross", LIMIT, crosses).unwrap();
    println!("8,000 bytes crossed after {took:?}");
}

#[test]
fn the_node_answers_and_carries_frames_while_the_host_is_changed() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let (node, host) = (&world.nodes[0], &world.sites[0].hosts[0]);
    // Somebody else changes attachments for 12 s: longer than the node has for a question.
    let lock = node.state.join("attachments.lock");
    let line = format!("flock {} sleep 12", lock.display());
    let mut holder = host.ns.spawn("holder", &line).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    std::thread::scope(|scope| {
        let since = Instant::now();
        let attach = scope.spawn(|| node.farlan(&["attach", NETWORK, "--vm", "web1"]).unwrap());
        let mut ping = Ping::new(&world.vms[0].ip);
        (ping.count, ping.interval) = (200, Duration::from_millis(20));
        let mut pings = ping.spawn(&world.vms[1].ns).unwrap();
        for _ in 0..4 {
            let asked = Instant::now();
            node.status().unwrap();
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "status took {took:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        pings.wait(LIMIT).unwrap();
        let result = parse_ping(&pings.log()).unwrap();
        assert_eq!((result.sent, result.received), (200, 200));
        assert!(!attach.is_finished(), "nothing was waited for");
        attach.join().unwrap();
        println!("attached after {:?}", since.elapsed());
    });
    holder.wait(LIMIT).unwrap();
    let made = host.ns.ip("link show web1").unwrap();
    assert!(made.contains(&format!("master {BRIDGE} ")), "{made}");
}
