//! `attach --nic --move-addresses`: the host is reached by the NIC that it gives to the network, and
//! goes on being reached.

use std::time::Duration;

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::first_ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::ssh::{SshServer, SshSession};
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

/// The time for a confirmation, and how much later all must be back: the node looks every 5 s after
/// a watcher that is gone.
const WITHIN: &str = "5s";
const BACK: Duration = Duration::from_secs(5 + 2 + 5 + 3);

/// Routes and addresses as `ip` shows them; those of `dev` alone.
fn network(ns: &Ns, dev: &str) -> String {
    let mut all = String::new();
    for what in ["-4 route", "-6 route", "-4 route show table 77"] {
        all += &ns.ip(what).unwrap_or_default();
    }
    let addresses = ns
        .ip(&format!("-o addr show dev {dev} scope global"))
        .unwrap();
    for line in addresses.lines() {
        // Without the interface's number.
        all += line.split_once(": ").map_or(line, |(_, rest)| rest);
        all.push('\n');
    }
    // The other bridge of the scene and its guests are nobody's matter here.
    let lines = all.lines().filter(|line| !line.contains("tentative"));
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

struct Scene {
    world: World,
    sessions: Vec<SshSession>,
    before: String,
    _server: SshServer,
}

impl Scene {
    fn new() -> Self {
        let world = World::running(&TWO, Family::Dual, LinkModel::default()).unwrap();
        let site = &world.sites[0];
        let (host, router) = (&site.hosts[0], &site.router);
        for line in [
            "addr add 192.168.1.77/24 dev eth0 label eth0:7",
            "addr add 10.77.0.1/32 dev eth0 noprefixroute valid_lft 5000 preferred_lft 4000",
            "route add 203.0.113.128/25 via 192.168.1.1 metric 50 src 192.168.1.77 mtu 1400",
            "route add 10.78.0.0/16 dev eth0",
            "route add 10.79.0.0/16 via 10.99.0.1 dev eth0 onlink",
            "route add default via 192.168.1.1 metric 900",
            "route add default via 192.168.1.1 table 77",
            "-6 route add 2001:db8:77::/48 via 2001:db8:1::1 metric 50",
        ] {
            host.ns.ip(line).unwrap();
        }
        let server = SshServer::start(&host.ns).unwrap();
        let addresses = host.addrs.iter();
        let sessions = addresses.map(|addr| server.session(router, *addr).unwrap());
        Self {
            sessions: sessions.collect(),
            before: network(&host.ns, "eth0"),
            _server: server,
            world,
        }
    }

    fn node(&self) -> &Node {
        &self.world.nodes[0]
    }

    fn host(&self) -> &Ns {
        &self.world.sites[0].hosts[0].ns
    }

    fn attach(&self) -> String {
        let args = ["attach", NETWORK, "--nic", "eth0", "--move-addresses"];
        let args = [&args[..], &["--confirm-within", WITHIN]].concat();
        let told = self.node().farlan(&args).unwrap();
        assert_eq!(self.moved(), steady(&self.before), "{told}");
        told
    }

    /// What the bridge has, under the NIC's name.
    fn moved(&self) -> String {
        let text = network(self.host(), BRIDGE);
        steady(&text.replace(BRIDGE, "eth0"))
    }

    fn is_back(&self) -> bool {
        let link = self.host().ip("link show eth0").unwrap();
        !link.contains("master") && steady(&network(self.host(), "eth0")) == steady(&self.before)
    }

    fn wait_until_back(&mut self, why: &str) {
        let back = wait_for("all is back", BACK, || self.is_back().then_some(()));
        let now = network(self.host(), "eth0");
        let (_, took) = back.unwrap_or_else(|_| panic!("{why}: {}\nnot\n{now}", self.before));
        println!("{why}: back after {took:?}");
        self.go_on(why);
    }

    fn go_on(&mut self, when: &str) {
        for session in &mut self.sessions {
            let took = session.goes_on(when).unwrap();
            println!("{when}: counted on after {took:?}");
        }
    }

    fn guests_talk(&self) {
        let start = std::time::Instant::now();
        let (near, far) = (&self.world.vms[0], &self.world.vms[1]);
        first_ping(&far.ns, &near.ip, start, Duration::from_secs(5)).unwrap();
    }
}

/// Without the seconds that run down.
fn steady(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let mut line: Vec<&str> = line.split_whitespace().collect();
        for at in 1..line.len() {
            if line[at - 1].ends_with("_lft") && line[at] != "forever" {
                line[at] = "some";
            }
        }
        words.push(line.join(" "));
    }
    words.join("\n")
}

#[test]
fn an_ssh_session_survives_the_move_the_roll_back_the_confirmation_and_detach() {
    require_lab!();
    let mut scene = Scene::new();
    let session = scene.node().path_to("b").unwrap();
    let told = scene.attach();
    let state = scene.node().state.display().to_string();
    assert!(
        told.contains(&format!("unless you type: farlan --state {state} confirm")),
        "{told}"
    );
    assert!(told.contains("192.168.1.10/24"), "{told}");
    scene.go_on("after the move");
    scene.wait_until_back("nobody confirmed");

    // A neighbour on the network: it sees the moved addresses, and nothing else of the host.
    let guest = scene.world.vms[0].ns.clone();
    guest.ip("addr add 192.168.1.200/24 dev eth0").unwrap();
    guest.ip("route add 10.200.0.1 dev eth0").unwrap();
    scene.host().ip("addr add 10.200.0.1/32 dev lo").unwrap();
    let reaches = |ip: &str| guest.sh(&format!("ping -c1 -W1 {ip}")).unwrap().code == 0;
    assert!(!reaches("192.168.1.10"));
    scene.attach();
    let confirmed = scene.node().farlan(&["confirm"]).unwrap();
    assert!(confirmed.contains("stay on br-lab"), "{confirmed}");
    let again = scene.node().run(&["confirm"]).unwrap();
    assert_eq!(again.code, 1, "{again:?}");
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(scene.moved(), steady(&scene.before));
    scene.go_on("after the confirmation");
    assert!(reaches("192.168.1.10") && reaches("192.168.1.1"));
    assert!(!reaches("10.200.0.1"));
    // The underlay rides on the bridge now, and the overlay goes on.
    scene.guests_talk();
    let path = scene.node().path_to("b").unwrap();
    assert_eq!(path.map(|p| p.kind), session.map(|p| p.kind));
    // A restart of the node finds all as it is.
    scene.world.nodes[0].stop().unwrap();
    scene.world.nodes[0].up_and_ready().unwrap();
    assert_eq!(scene.moved(), steady(&scene.before));
    scene.guests_talk();
    scene.go_on("after a restart of the node");

    let args = ["detach", NETWORK, "--nic", "eth0"];
    scene.node().farlan(&args).unwrap();
    assert!(scene.is_back(), "{}", network(scene.host(), "eth0"));
    scene.go_on("after detach");
    scene.guests_talk();
    // The host is not part of the network any more.
    assert!(!reaches("192.168.1.10"));
}

#[test]
fn whoever_is_killed_the_addresses_come_back() {
    require_lab!();
    let mut scene = Scene::new();
    // The node, which has moved them.
    scene.attach();
    scene.world.nodes[0].process().kill();
    scene.go_on("after the node was killed");
    scene.wait_until_back("the node was killed");

    // The command, in the middle of it or just after; no node runs.
    let state = scene.node().state.clone();
    let mut command = farlan_tests::overlay::farlan(scene.host(), &state);
    command.args(["attach", NETWORK, "--nic", "eth0", "--move-addresses"]);
    command.args(["--confirm-within", WITHIN]);
    let log = scene.world.lab.dir().join("killed-attach.log");
    let mut process = farlan_tests::proc::Proc::spawn(&mut command, &log).unwrap();
    let master = || {
        let link = scene.host().ip("link show eth0").unwrap();
        link.contains("master").then_some(())
    };
    wait_for("the move begins", Duration::from_secs(5), master).unwrap();
    process.kill();
    scene.wait_until_back("the command was killed");

    // The watcher: then the node does it.
    scene.world.nodes[0].up_and_ready().unwrap();
    scene.attach();
    let watcher = format!(
        "pkill -KILL -f -- '--state {} [w]atch-move'",
        state.display()
    );
    assert_eq!(scene.host().sh(&watcher).unwrap().code, 0);
    scene.wait_until_back("the watcher was killed");

    // Both: then the next start does it.
    scene.attach();
    assert_eq!(scene.host().sh(&watcher).unwrap().code, 0);
    scene.world.nodes[0].process().kill();
    std::thread::sleep(Duration::from_secs(6));
    assert!(!scene.is_back());
    scene.go_on("with nobody there to bring them back");
    scene.world.nodes[0].up_and_ready().unwrap();
    scene.wait_until_back("watcher and node were killed");
    scene.guests_talk();
}

#[test]
fn two_sites_do_not_reach_each_other_through_their_own_overlay() {
    require_lab!();
    let mut world = World::build(&TWO, Family::V4, LinkModel::default()).unwrap();
    // The same private subnet at both sites, as many have: each takes the other's address for a
    // neighbour's.
    for (site, n) in world.sites.iter().zip(1..) {
        let line = format!("addr add 10.50.0.{n}/24 dev eth0");
        site.hosts[0].ns.ip(&line).unwrap();
    }
    for node in &mut world.nodes {
        node.up_and_ready().unwrap();
    }
    let talk = |world: &World, limit: u64| {
        let (near, far) = (&world.vms[0], &world.vms[1]);
        let start = std::time::Instant::now();
        first_ping(&far.ns, &near.ip, start, Duration::from_secs(limit)).unwrap();
    };
    talk(&world, 30);
    for node in &world.nodes {
        let args = ["attach", NETWORK, "--nic", "eth0", "--move-addresses"];
        node.farlan(&args).unwrap();
        node.farlan(&["confirm"]).unwrap();
    }
    // Now it is one: by the overlay.
    let limit = Duration::from_secs(10);
    let host = world.sites[0].hosts[0].ns.clone();
    first_ping(&host, "10.50.0.2", std::time::Instant::now(), limit).unwrap();
    // A new session tries all addresses of the other.
    world.nodes[1].stop().unwrap();
    world.nodes[1].up_and_ready().unwrap();
    let tried = || {
        let drops = world
            .nodes
            .iter()
            .map(|node| node.drops("overlay_on_itself"));
        drops.flatten().any(|count| count > 0).then_some(())
    };
    let (_, took) = wait_for("one tries the way through itself", 3 * limit, tried).unwrap();
    println!("tried after {took:?}");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        for (node, peer) in [(0, "b"), (1, "a")] {
            let path = world.nodes[node].path_to(peer).unwrap().unwrap();
            assert!(
                path.kind != "none" && !path.remote.contains("10.50.0"),
                "{path:?}"
            );
        }
        talk(&world, 5);
    }
}

#[test]
fn an_address_for_the_host_is_reached_and_goes_with_detach() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    let (node, host) = (&world.nodes[0], &world.sites[0].hosts[0].ns);
    let far = &world.vms[1].ns;
    node.farlan(&["attach", NETWORK, "--address", "10.9.0.50/24"])
        .unwrap();
    let limit = Duration::from_secs(5);
    first_ping(far, "10.9.0.50", std::time::Instant::now(), limit).unwrap();
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    let addresses = host.ip("-o addr").unwrap();
    assert!(!addresses.contains("10.9.0.50"), "{addresses}");
    let ping = far.sh("ping -c1 -W1 10.9.0.50").unwrap();
    assert_ne!(ping.code, 0, "{ping:?}");
}
