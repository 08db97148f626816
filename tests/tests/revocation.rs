//! `revoke` at an offline authority, `apply` on one member: everybody cuts the revoked node off, and
//! it stays out (TRUST.md 8).

use std::time::{Duration, Instant, SystemTime};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Bootstrap, Node};
use farlan_tests::probe::{Ping, figure, first_answer_after};
use farlan_tests::proc::{Proc, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const THREE: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
];
const FOUR: [NatKind; 4] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
    NatKind::PortPreserving,
];

/// From `farlan apply` on one member to the last connected node that cuts the revoked one off.
const CUT: Duration = Duration::from_secs(5);

/// How long a revoked node is watched for signs of life.
const WATCH: Duration = Duration::from_secs(6);

fn running(nats: &[NatKind]) -> World {
    World::running(nats, Family::V4, LinkModel::default()).unwrap()
}

/// Every guest has a session with every other.
fn mesh(world: &World) {
    for (n, from) in world.vms.iter().enumerate() {
        for to in world.vms.iter().skip(n + 1) {
            let start = Instant::now();
            let limit = Duration::from_secs(30);
            farlan_tests::probe::first_ping(&from.ns, &to.ip, start, limit).unwrap();
        }
    }
}

/// No session with, and no MAC of, the node named `name` behind which guest `vm` is.
fn is_cut_off(node: &Node, name: &str, mac: &str) -> Option<()> {
    let path = node.path_to(name).ok()?;
    let macs = node.macs().ok()?;
    let has_mac = macs.iter().any(|entry| entry["mac"] == mac);
    (path.is_none_or(|path| path.kind == "none") && !has_mac).then_some(())
}

/// Before: all of `nodes` know node `n`, and the MAC of its guest.
fn assert_known(world: &World, nodes: &[usize], n: usize) {
    let (name, mac) = (&world.nodes[n].name, &world.vms[n].mac);
    for &other in nodes {
        let node = &world.nodes[other];
        node.wait_path(name, CUT, |path| path.kind != "none")
            .unwrap();
        node.wait_mac(mac, CUT).unwrap();
    }
}

/// Waits until all of `nodes` have cut off node `n`; gives the time from `start` to the last.
fn wait_cut_off(world: &World, nodes: &[usize], n: usize, start: Instant) -> Duration {
    let (name, mac) = (&world.nodes[n].name, &world.vms[n].mac);
    for &other in nodes {
        let node = &world.nodes[other];
        let what = format!("{} cuts {name} off", node.name);
        wait_for(&what, Duration::from_secs(20), || {
            is_cut_off(node, name, mac)
        })
        .unwrap();
        println!("sample {what} after {:?}", start.elapsed());
    }
    start.elapsed()
}

/// No guest of `nodes` and guest `n` hear each other, for a while.
fn assert_silent(world: &World, nodes: &[usize], n: usize) {
    for &other in nodes {
        let (a, b) = (&world.vms[other], &world.vms[n]);
        let there = Ping::new(&b.ip).count(10).run(&a.ns).unwrap();
        let back = Ping::new(&a.ip).count(10).run(&b.ns).unwrap();
        assert_eq!((there.received, back.received), (0, 0), "{other} and {n}");
    }
}

/// Pings guest 1 from guest `from`, without pause, for two minutes at most.
fn traffic(world: &World, from: usize) -> Proc {
    Ping::new(&world.vms[0].ip)
        .count(6_000)
        .interval(Duration::from_millis(20))
        .spawn(&world.vms[from].ns)
        .unwrap()
}

/// The longest pause between two answers of a ping that printed times.
fn answers_go_on(ping: &Proc) {
    let now = SystemTime::now();
    first_answer_after(ping, now, Duration::from_secs(1)).unwrap();
}

/// `farlan status` of the revoked node says why nobody talks to it.
fn wait_told(node: &Node) {
    let (told, took) = wait_for("the revoked node is told", Duration::from_secs(30), || {
        let told = node.status().ok()?["refused"].as_str()?.to_owned();
        told.contains("revoked").then_some(told)
    })
    .unwrap();
    println!("{} is told after {took:?}: {told}", node.name);
}

#[test]
fn trust_8_every_connected_node_cuts_the_revoked_off_within_5_s() {
    require_lab!();
    let mut world = running(&FOUR);
    mesh(&world);
    let out = world.nodes[3].id().unwrap();
    let ping = traffic(&world, 3);
    let others = traffic(&world, 2);
    let line = world.authority.revoke(&out).unwrap();
    assert_known(&world, &[0, 1, 2], 3);
    let start = Instant::now();
    println!("{}", world.nodes[1].apply(&line).unwrap());
    let took = wait_cut_off(&world, &[0, 1, 2], 3, start);
    println!("sample revoked node cut off by all after {took:?}");
    assert!(took <= figure(CUT), "{took:?}");
    assert_silent(&world, &[0, 1, 2], 3);
    answers_go_on(&others);
    wait_told(&world.nodes[3]);
    drop((ping, others));
    // All others have the key of the new epoch, and the revoked node has not.
    let epoch = |node: &Node| node.status().ok()?["networks"][0]["epoch"].as_u64();
    for node in &world.nodes[..3] {
        wait_for("the new epoch", CUT, || (epoch(node)? == 2).then_some(())).unwrap();
    }
    assert_eq!(epoch(&world.nodes[3]), Some(1));

    // The same once more changes nothing.
    let again = world.authority.revoke(&out).unwrap();
    assert!(
        world.nodes[0]
            .apply(&again)
            .unwrap()
            .contains("known already")
    );

    // After a restart of everybody it is still out.
    for node in &mut world.nodes {
        node.process().kill();
    }
    world.boot.process.kill();
    let host = world.boot.host.clone();
    world.boot = Bootstrap::start(&host, &world.authority.id).unwrap();
    for node in &mut world.nodes {
        node.up(&[]).unwrap();
    }
    for node in &mut world.nodes {
        node.ready().unwrap();
    }
    let start = Instant::now();
    for n in 1..3 {
        let (from, to) = (&world.vms[n].ns, &world.vms[0].ip);
        farlan_tests::probe::first_ping(from, to, start, Duration::from_secs(30)).unwrap();
    }
    std::thread::sleep(WATCH);
    assert_silent(&world, &[0, 1, 2], 3);
    for n in 0..3 {
        let mac = &world.vms[3].mac;
        assert_eq!(is_cut_off(&world.nodes[n], "d", mac), Some(()), "{n}");
    }
    wait_told(&world.nodes[3]);
}

#[test]
fn trust_8_a_bootstrap_that_restarts_alone_still_refuses() {
    require_lab!();
    let mut world = running(&THREE);
    mesh(&world);
    let line = world.authority.revoke("c").unwrap();
    world.nodes[0].apply(&line).unwrap();
    wait_cut_off(&world, &[0, 1], 2, Instant::now());
    world.boot.process.wait_log("cut off", CUT).unwrap();
    // Nobody who could teach it is there when the revoked node comes.
    for n in 0..3 {
        world.nodes[n].process().kill();
    }
    world.boot.process.kill();
    let host = world.boot.host.clone();
    world.boot = Bootstrap::start(&host, &world.authority.id).unwrap();
    // Without what it may have been told, so that the bootstrap has to.
    let state = world.nodes[2].state.clone();
    let _ = std::fs::remove_file(state.join("revocations"));
    world.nodes[2].up(&[]).unwrap();
    world.nodes[2].ready().unwrap();
    wait_told(&world.nodes[2]);
    assert!(
        state.join("revocations").exists(),
        "told with the list as proof"
    );
}

#[test]
fn trust_8_revoking_an_invite_cuts_its_nodes() {
    require_lab!();
    let mut world = running(&THREE);
    mesh(&world);
    let invites = world.authority.invites().unwrap();
    let id = |name: &str| {
        let mut all = invites.as_array().unwrap().iter();
        let invite = all.find(|invite| invite["name"] == name).unwrap();
        assert_eq!(invite["revoked"], false);
        invite["id"].as_str().unwrap().to_owned()
    };
    let traffic = traffic(&world, 1);
    let line = world.authority.revoke(&id("c")).unwrap();
    assert_known(&world, &[0, 1], 2);
    // The public part does for all who need no new key; here on a node that is stopped.
    let (public, _) = line.split_once('.').unwrap();
    world.nodes[0].stop().unwrap();
    world.nodes[0].apply(public).unwrap();
    world.nodes[0].up_and_ready().unwrap();
    let start = Instant::now();
    let took = wait_cut_off(&world, &[0, 1], 2, start);
    println!("sample nodes of a revoked invite cut off by all after {took:?}");
    assert_silent(&world, &[0, 1], 2);
    first_answer_after(&traffic, SystemTime::now(), Duration::from_secs(20)).unwrap();
    wait_told(&world.nodes[2]);
    let invites = world.authority.invites().unwrap();
    let revoked = invites
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["revoked"] == true);
    assert_eq!(revoked.count(), 1);

    // A new invite lets the same host in again.
    let invite = world.invite("c2").unwrap();
    let joined = world.nodes[2].join(&invite).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
    let (from, to) = (&world.vms[2].ns, &world.vms[0].ip);
    farlan_tests::probe::first_ping(from, to, Instant::now(), Duration::from_secs(30)).unwrap();
}

#[test]
fn what_is_no_revocation_is_refused_with_the_reason() {
    require_lab!();
    let world = World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap();
    let line = world.authority.revoke("a").unwrap();
    let lab = &world.lab;
    let other = farlan_tests::overlay::Authority::init(lab, "other", &["lab"]).unwrap();
    let foreign = other
        .revoke("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
        .unwrap();
    let cut = &line[..line.len() / 2];
    for (text, why) in [
        (foreign.as_str(), "another overlay"),
        (cut, "damaged"),
        ("hello", "no revocation"),
    ] {
        let out = world.nodes[0].try_apply(text).unwrap();
        println!("refused: {}", out.stderr.trim());
        assert_eq!(out.code, 1, "{out:?}");
        assert_eq!(out.stderr.trim().lines().count(), 1, "{out:?}");
        assert!(out.stderr.contains(why), "no {why:?} in {out:?}");
    }
    assert!(world.authority.revoke("nobody").is_err());
}
