//! A guest moves without a word between bridges that forward multicast only to who asked for it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_answer_after, first_ping};
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::{Family, Host};
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// The user's bridge on each host.
const BR: &str = "br0";
const WAIT: Duration = Duration::from_secs(20);
const BACK: Duration = Duration::from_secs(2);

/// Two sites whose networks are attached to bridges of the user, which snoop. The first one's asks the
/// guests for their groups if `querier` is 1.
fn world(querier: u8) -> Result<World> {
    let (family, model) = (Family::V4, LinkModel::default());
    let mut world = World::build(&[], family, model)?;
    for (index, nat) in [(1, NatKind::PortRewriting), (2, NatKind::PortPreserving)] {
        let name = world.next_name()?;
        let site = world.lab.site(&name, index, nat, family, 1, model)?;
        let host = &site.hosts[0];
        let querier = if index == 1 { querier } else { 0 };
        host.ns.ip(&format!(
            "link add {BR} type bridge mcast_snooping 1 mcast_querier {querier} \
             mcast_startup_query_interval 100 mcast_query_response_interval 100 forward_delay 0"
        ))?;
        host.ns.ip(&format!("link set {BR} up"))?;
        let node = Node::new(host, &name);
        assert_eq!(node.join(&world.invite(&name)?)?.code, 0);
        node.farlan(&["attach", NETWORK, "--bridge", BR])?;
        world.vms.push(world.lab.vm(index, host, BR)?);
        world.sites.push(site);
        world.nodes.push(node);
    }
    world.start()
}

/// A guest whose own interface sees nothing of a move, as that of a virtual machine: a switch of its own
/// is between it and the bridge.
struct Mover {
    guest: Ns,
}

impl Mover {
    const IP6: &str = "fd00:9::77";
    const MAC: &str = "52:54:00:00:00:77";

    fn new(world: &World, host: &Host) -> Result<Self> {
        let (guest, switch) = (
            world.lab.namespace("mover")?,
            world.lab.namespace("mover-switch")?,
        );
        switch.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        switch.ip("link add sw type bridge mcast_snooping 0 forward_delay 0")?;
        switch.ip("link set sw up")?;
        let full = guest.full_name();
        let mac = Self::MAC;
        switch.ip(&format!(
            "link add guest type veth peer name eth0 address {mac} netns {full}"
        ))?;
        let full = host.ns.full_name();
        switch.ip(&format!(
            "link add uplink type veth peer name mover netns {full}"
        ))?;
        for port in ["guest", "uplink"] {
            switch.ip(&format!("link set {port} master sw up"))?;
        }
        guest.ip("link set eth0 up")?;
        guest.ip(&format!("addr add {}/64 dev eth0 nodad", Self::IP6))?;
        let mover = Self { guest };
        mover.plug(host)?;
        Ok(mover)
    }

    fn plug(&self, host: &Host) -> Result<()> {
        host.ns.sysctl("net/ipv6/conf/mover/disable_ipv6", "1")?;
        host.ns.ip(&format!("link set mover master {BR} up"))?;
        Ok(())
    }

    fn go(&self, from: &Host, to: &Host) -> Result<()> {
        from.ns.ip("link set mover nomaster down")?;
        from.ns
            .ip(&format!("link set mover netns {}", to.ns.full_name()))?;
        self.plug(to)
    }
}

fn groups(host: &Host) -> String {
    let out = host.ns.sh(&format!("bridge mdb show dev {BR}"));
    out.map(|out| out.stdout).unwrap_or_default()
}

fn move_silently(querier: u8) {
    let world = world(querier).unwrap();
    let (here, there) = (&world.sites[0].hosts[0], &world.sites[1].hosts[0]);
    let pinger = &world.vms[0].ns;
    let mover = Mover::new(&world, there).unwrap();
    first_ping(pinger, Mover::IP6, Instant::now(), WAIT).unwrap();
    if querier == 1 {
        // Its group is behind the overlay: the first host's querier was answered from there.
        let known = || {
            let groups = groups(here);
            let mut lines = groups.lines();
            let solicited = |line: &str| line.contains("ff02::1:ff00:77");
            lines
                .any(|line| solicited(line) && line.contains("fl-lab"))
                .then_some(())
        };
        let known = wait_for("its group is behind the overlay", WAIT, known);
        assert!(known.is_ok(), "{}", groups(here));
    }
    for (from, to) in [(there, here), (here, there)] {
        let mut ping = Ping::new(Mover::IP6);
        ping.count = 400;
        ping.interval = Duration::from_millis(50);
        let mut ping = ping.spawn(pinger).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        mover.go(from, to).unwrap();
        let moved = SystemTime::now();
        let back = first_answer_after(&ping, moved, WAIT).unwrap();
        // Whoever asks for its MAC now asks a group.
        pinger.ip("-6 neigh flush dev eth0").unwrap();
        let flushed = Instant::now();
        let found = first_ping(pinger, Mover::IP6, flushed, WAIT).unwrap();
        ping.kill();
        println!(
            "querier {querier}, to {}: back after {back:?}, found after {found:?}\n{}",
            to.ns.name(),
            groups(to)
        );
        assert!(back <= BACK, "back after {back:?}");
        assert!(found <= BACK, "found after {found:?}");
    }
    drop(mover.guest);
}

#[test]
fn a_silent_move_between_snooping_bridges_with_a_querier() {
    require_lab!();
    move_silently(1);
}

#[test]
fn a_silent_move_between_snooping_bridges_without_a_querier() {
    require_lab!();
    move_silently(0);
}
