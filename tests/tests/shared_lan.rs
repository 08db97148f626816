//! A LAN that two nodes are plugged into, at first or by a cable that comes later: nothing goes round, and
//! one node carries the LAN's frames.

use std::time::{Duration, Instant, SystemTime};

use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::office::{Office, Watched, agreed, shared, warnings};
use farlan_tests::overlay::Node;
use farlan_tests::probe::{Ping, first_ping, parse_ping};
use farlan_tests::proc::{Proc, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

const THREE: [NatKind; 3] = [
    NatKind::PortPreserving,
    NatKind::PortRewriting,
    NatKind::PortPreserving,
];

/// Frames out of two ports, beacons among them, within the 2 s in which the nodes find each other.
const MOST_FRAMES: u64 = 2 * 64;
const LIMIT: Duration = Duration::from_secs(20);
/// No station is unreachable for longer, whatever becomes of the forwarder.
const MOST_SILENCE: Duration = Duration::from_secs(2);

fn ended(mut ping: Proc) -> (u32, u32) {
    ping.signal(libc::SIGINT);
    let _ = ping.wait(Duration::from_secs(5));
    let result = parse_ping(&ping.log()).unwrap();
    (result.sent, result.received)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One switch that the first `hosts` hosts have their `lan1` on, by `p1`, `p2` and so on, and two desks.
fn one_office(world: &World, hosts: usize) -> (Office, [Ns; 2]) {
    let office = Office::new(world, &["switch"]).unwrap();
    for (n, site) in world.sites[..hosts].iter().enumerate() {
        let (host, port) = (&site.hosts[0].ns, format!("p{}", n + 1));
        office.cable("switch", &port, host, "lan1").unwrap();
        host.ip("link set lan1 up").unwrap();
    }
    let desks = [201, 202].map(|n| office.desk(world, "switch", n).unwrap());
    (office, desks)
}

#[test]
fn a_lan_plugged_in_twice_is_carried_by_one() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let (office, desks) = one_office(&world, 2);
    let among_desks = Ping::new("10.9.0.202")
        .count(100_000)
        .interval(millis(20))
        .spawn(&desks[0])
        .unwrap();
    for node in &world.nodes[..2] {
        node.farlan(&["attach", NETWORK, "--nic", "lan1"]).unwrap();
    }
    let start = Instant::now();
    let far = world.vms[2].ns.clone();
    first_ping(&far, "10.9.0.201", start, LIMIT).unwrap();
    println!(
        "a desk answered {:?} after the second attach",
        start.elapsed()
    );
    // A desk asks all, too.
    first_ping(&desks[1], &world.vms[2].ip, Instant::now(), LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(2).saturating_sub(start.elapsed()));
    let frames = office.frames(&["p1", "p2"]).unwrap();
    println!("{frames} frames came from both hosts");
    assert!(frames < MOST_FRAMES, "{frames}");

    // Both say so, and name both hosts and the NIC.
    let ids = [world.nodes[0].id().unwrap(), world.nodes[1].id().unwrap()];
    let both = [&world.nodes[0], &world.nodes[1]];
    let (forwarder, port) = agreed(&both).unwrap().0;
    assert_eq!(port, "lan1");
    assert!(ids.contains(&forwarder), "{forwarder}");
    for node in &world.nodes[..2] {
        let told = warnings(node, &["(a)", " b", "lan1"]).len()
            + warnings(node, &["(b)", " a", "lan1"]).len();
        assert_eq!(told, 1, "{:?}", warnings(node, &[]));
    }
    // The guests of the one that stands by are reached by the LAN.
    let guests = [&world.vms[0].ip, &world.vms[1].ip];
    for guest in guests {
        first_ping(&far, guest, Instant::now(), LIMIT).unwrap();
    }

    let (sent, received) = ended(among_desks);
    println!("desks among themselves: {received} of {sent}");
    assert!(received * 100 >= sent * 99, "{received} of {sent}");
}

#[test]
fn a_cable_that_comes_later_is_found_and_each_lan_is_alone_without_it() {
    require_lab!();
    let world = World::running(&THREE, Family::V4, LinkModel::default()).unwrap();
    let office = Office::new(&world, &["east", "west"]).unwrap();
    for (n, switch, port) in [(0, "east", "p1"), (1, "west", "p2")] {
        let host = world.sites[n].hosts[0].ns.clone();
        office.cable(switch, port, &host, "lan1").unwrap();
        host.ip("link set lan1 up").unwrap();
        world.nodes[n]
            .farlan(&["attach", NETWORK, "--nic", "lan1"])
            .unwrap();
    }
    let (east, _west) = (
        office.desk(&world, "east", 201).unwrap(),
        office.desk(&world, "west", 202).unwrap(),
    );
    let far = world.vms[2].ns.clone();
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), Instant::now(), LIMIT).unwrap();
    }
    assert_eq!(shared(&world.nodes[0]), None);
    // Somebody plugs the switches together, while a guest and a desk ask for machines that are not there.
    let silent = |ns: &Ns, n: u8| {
        let to = format!("10.9.0.{n}");
        let line = format!("ping -n -q -c 100000 -i 0.2 {to}");
        ns.spawn(&format!("ask{n}"), &line).unwrap()
    };
    let _asking = [silent(&far, 240), silent(&east, 241)];
    std::thread::sleep(millis(500));
    let before = office.frames(&["p1", "p2"]).unwrap();
    office.join(["east", "west"], "between").unwrap();
    let plugged = Instant::now();
    agreed(&[&world.nodes[0], &world.nodes[1]]).unwrap();
    println!("found {:?} after the cable came", plugged.elapsed());
    std::thread::sleep(Duration::from_secs(2).saturating_sub(plugged.elapsed()));
    let frames = office.frames(&["p1", "p2"]).unwrap() - before;
    println!("{frames} frames came from both hosts");
    assert!(frames < MOST_FRAMES, "{frames}");
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), Instant::now(), LIMIT).unwrap();
    }
    // The cable goes: each LAN has its own forwarder again.
    office.0.ip("link del between").unwrap();
    let start = Instant::now();
    let apart =
        || (shared(&world.nodes[0]).is_none() && shared(&world.nodes[1]).is_none()).then_some(());
    wait_for("they are alone", LIMIT, apart).unwrap();
    for n in [201, 202] {
        first_ping(&far, &format!("10.9.0.{n}"), start, LIMIT).unwrap();
    }
    println!("apart again after {:?}", start.elapsed());
}

/// The number of the host that carries the LAN, of `running`, once all of those say so.
fn forwarder(world: &World, running: &[usize]) -> usize {
    let nodes: Vec<&Node> = running.iter().map(|n| &world.nodes[*n]).collect();
    let ((id, _), took) = agreed(&nodes).unwrap();
    let found = running
        .iter()
        .find(|n| world.nodes[**n].id().unwrap() == id);
    println!(
        "{} carries the LAN; all agree after {took:?}",
        world.nodes[*found.unwrap()].name
    );
    *found.unwrap()
}

/// The bridges of the hosts forget what they learnt from the LAN: the next forwarder must reach stations
/// that its own bridge has never seen.
fn forget_stations(world: &World, hosts: &[usize]) {
    for n in hosts {
        let host = &world.sites[*n].hosts[0].ns;
        host.ip("link set lan1 type bridge_slave fdb_flush")
            .unwrap();
    }
    std::thread::sleep(millis(200));
}

#[test]
fn of_three_on_one_lan_one_carries_it_and_no_station_is_lost_with_it() {
    require_lab!();
    let four = [THREE[0], THREE[1], THREE[2], THREE[0]];
    let mut world = World::running(&four, Family::V4, LinkModel::default()).unwrap();
    let (office, _desks) = one_office(&world, 3);
    office.desk(&world, "switch", 203).unwrap();
    for node in &world.nodes[..3] {
        node.farlan(&["attach", NETWORK, "--nic", "lan1"]).unwrap();
    }
    let all = [0, 1, 2];
    let first = forwarder(&world, &all);
    let far = world.vms[3].ns.clone();
    let stations = ["10.9.0.201", "10.9.0.202", "10.9.0.203"];
    let watched = Watched::start(&far, &stations).unwrap();
    let judge = |what, since, time| {
        let worst = watched.longest_gap(what, since, Duration::from_secs(time));
        let worst = worst.unwrap();
        assert!(worst <= MOST_SILENCE, "{what}: {worst:?}");
    };

    // The forwarder dies without a word, and no other bridge knows a station.
    let left: Vec<usize> = all.into_iter().filter(|n| *n != first).collect();
    forget_stations(&world, &left);
    let died = SystemTime::now();
    world.nodes[first].process().kill();
    judge("the forwarder was killed", died, 4);
    let second = forwarder(&world, &left);
    // It comes back, and takes the LAN again or does not.
    let back = SystemTime::now();
    world.nodes[first].up(&[]).unwrap();
    world.nodes[first].ready().unwrap();
    judge("it came back", back, 5);
    let now = forwarder(&world, &all);
    assert_ne!(now, second, "the one of highest rank");

    // The link of the forwarder dies.
    let left: Vec<usize> = all.into_iter().filter(|n| *n != now).collect();
    forget_stations(&world, &left);
    let cut = SystemTime::now();
    let port = format!("p{}", now + 1);
    office.0.ip(&format!("link set {port} down")).unwrap();
    judge("its link died", cut, 4);
    forwarder(&world, &left);
    // And comes back.
    let mended = SystemTime::now();
    office.0.ip(&format!("link set {port} up")).unwrap();
    judge("its link came back", mended, 3);
    assert_eq!(forwarder(&world, &all), now);
}
