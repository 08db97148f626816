//! Who may not join gets a clear error, and no frame in or out.

use std::time::Duration;

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::Ping;
use farlan_tests::proc::{Finished, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

/// Exit code 1, one line that says why.
fn refused(out: &Finished, why: &str) {
    println!("refused: {}", out.stderr.trim());
    assert_eq!(out.code, 1, "{out:?}");
    assert_eq!(out.stderr.trim().lines().count(), 1, "{out:?}");
    assert!(
        out.stderr.to_lowercase().contains(why),
        "no {why:?} in {out:?}"
    );
    assert!(
        !out.stderr.contains("farlan-invite-"),
        "a secret in an error"
    );
}

/// A host that was refused: its node, if it starts at all, exchanges nothing with the members.
fn gets_no_frame(world: &World, node: &mut Node) {
    let host = node.host.clone();
    // `attach` may refuse without membership; the bridge of the test then stands for it.
    let _ = node.run(&["attach", NETWORK]).unwrap();
    let _ = host.ns.ip(&format!("link add {BRIDGE} type bridge"));
    host.ns.ip(&format!("link set {BRIDGE} up")).unwrap();
    let vm = world.lab.vm(66, &host, BRIDGE).unwrap();
    node.up(&[]).unwrap();
    let out = Ping::new(&world.vms[0].ip).count(15).run(&vm.ns).unwrap();
    let back = Ping::new(&vm.ip).count(5).run(&world.vms[0].ns).unwrap();
    assert_eq!((out.received, back.received), (0, 0));
    for member in &world.nodes {
        assert_eq!(
            member.path_to(&node.name).unwrap(),
            None,
            "a stranger among the peers"
        );
    }
}

fn members() -> World {
    World::running(&TWO, Family::V4, LinkModel::default()).unwrap()
}

fn outsider(world: &World) -> Node {
    outsider_at(world, "z", 9)
}

fn outsider_at(world: &World, name: &str, number: u8) -> Node {
    let nat = NatKind::PortRewriting;
    let site = world
        .lab
        .site(name, number, nat, Family::V4, 1, LinkModel::default())
        .unwrap();
    Node::new(&site.hosts[0], name)
}

/// `farlan status` of the running node says why the witness gives no receipt.
fn wait_refused(node: &Node, why: &str) {
    let what = format!("{} is told: {why}", node.name);
    let (told, took) = wait_for(&what, Duration::from_secs(10), || {
        let told = node.status().ok()?["refused"].as_str()?.to_owned();
        told.contains(why).then_some(told)
    })
    .unwrap();
    println!("after {took:?}: {told}");
    assert!(node.farlan(&["status"]).unwrap().contains(why));
}

#[test]
fn an_expired_invite() {
    require_lab!();
    let world = members();
    let mut node = outsider(&world);
    // An overlay of its own that was born two hours ago: dates have ten minutes of tolerance.
    let old = Authority::init_with_clock(&world.lab, "old", &[NETWORK], Some("-2h")).unwrap();
    let boot = world
        .lab
        .bootstrap_host("boot2", 2, Family::V4, LinkModel::default())
        .unwrap();
    let boot = Bootstrap::start(&boot, &old.id).unwrap();
    let spec = |expires| InviteSpec {
        networks: &[NETWORK],
        name: "z",
        bootstraps: &boot.addresses,
        expires,
    };
    let invite = old.invite(&spec("1h")).unwrap();
    refused(&node.join(&invite).unwrap(), "expired");
    gets_no_frame(&world, &mut node);
    // The control: the same overlay, an invite that is still good.
    let good = Node::new(&node.host, "zz");
    let joined = good.join(&old.invite(&spec("24h")).unwrap()).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
}

#[test]
fn trust_4_an_invite_used_once_too_often() {
    require_lab!();
    let mut world = members();
    let invite = world.invite("z").unwrap();
    let mut first = outsider(&world);
    assert_eq!(first.join(&invite).unwrap().code, 0);
    first.up_and_ready().unwrap();
    first
        .wait_path("a", Duration::from_secs(20), |p| p.kind != "none")
        .unwrap();

    // The same line on a second host; the bootstrap has been started anew in between.
    world.boot.process.stop(Duration::from_secs(5)).unwrap();
    world.boot = Bootstrap::start(&world.boot.host, &world.authority.id).unwrap();
    let mut second = outsider_at(&world, "y", 8);
    // `join` asks, is told, and keeps nothing.
    refused(&second.join(&invite).unwrap(), "has been used by as many");
    assert!(
        second
            .run(&["networks"])
            .unwrap()
            .stderr
            .contains("farlan join")
    );
    assert_eq!(second.join_offline(&invite).unwrap().code, 0);
    second.up_and_ready().unwrap();
    wait_refused(&second, "has been used by as many");
    second.stop().unwrap();
    gets_no_frame(&world, &mut second);

    // The first one stays a member, also over its own restart.
    first.stop().unwrap();
    first.up_and_ready().unwrap();
    first
        .wait_path("a", Duration::from_secs(20), |p| p.kind != "none")
        .unwrap();
}

#[test]
fn trust_4_an_invite_joined_in_time_and_used_too_late() {
    require_lab!();
    let world = members();
    let mut node = outsider(&world);
    // An overlay that was born two hours ago; the node's clock was wrong when it joined.
    let old = Authority::init_with_clock(&world.lab, "old", &[NETWORK], Some("-2h")).unwrap();
    let boot = world
        .lab
        .bootstrap_host("boot2", 2, Family::V4, LinkModel::default())
        .unwrap();
    let boot = Bootstrap::start(&boot, &old.id).unwrap();
    let invite = old
        .invite(&InviteSpec {
            networks: &[NETWORK],
            name: "z",
            bootstraps: &boot.addresses,
            expires: "1h",
        })
        .unwrap();
    let joined = node.join_with_clock(&invite, "-2h").unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
    node.up_and_ready().unwrap();
    wait_refused(&node, "the invite could be used until");
    node.stop().unwrap();
    gets_no_frame(&world, &mut node);
}

#[test]
fn a_forged_invite() {
    require_lab!();
    let world = members();
    let mut node = outsider(&world);
    let invite = world.invite("z").unwrap();
    let head = "farlan-invite-".len();
    let body = invite.len() - head;
    // One changed character at places all over it; nothing of it may be taken.
    for part in 1..8 {
        let at = head + body * part / 8;
        let mut forged = invite.clone().into_bytes();
        forged[at] = if forged[at] == b'x' { b'y' } else { b'x' };
        let out = node.join(&String::from_utf8(forged).unwrap()).unwrap();
        refused(&out, "invite");
    }
    refused(&node.join(&invite[..invite.len() - 9]).unwrap(), "invite");
    refused(&node.join("farlan-invite-").unwrap(), "invite");
    gets_no_frame(&world, &mut node);
    let good = Node::new(&node.host, "zz");
    assert_eq!(
        good.join(&invite).unwrap().code,
        0,
        "the invite itself is good"
    );
}

#[test]
fn an_invite_of_another_overlay_does_not_replace_a_membership() {
    require_lab!();
    let world = members();
    let other = Authority::init(&world.lab, "other", &[NETWORK]).unwrap();
    let foreign = other
        .invite(&InviteSpec {
            networks: &[NETWORK],
            name: "a",
            bootstraps: &world.boot.addresses,
            expires: "24h",
        })
        .unwrap();
    let before = world.nodes[0].status().unwrap();
    refused(&world.nodes[0].join(&foreign).unwrap(), "overlay");
    let after = world.nodes[0].status().unwrap();
    assert_eq!(
        (&before["node"], &before["overlay"]),
        (&after["node"], &after["overlay"])
    );
    let r = Ping::new(&world.vms[1].ip).run(&world.vms[0].ns).unwrap();
    assert_eq!(r.received, 5);
    // The same overlay again is no error.
    let again = world.nodes[0].join(&world.invite("a").unwrap()).unwrap();
    assert_eq!(again.code, 0, "{again:?}");
}

#[test]
fn a_member_of_another_overlay_at_our_bootstrap() {
    require_lab!();
    let world = members();
    let mut node = outsider(&world);
    let other = Authority::init(&world.lab, "other", &[NETWORK]).unwrap();
    let foreign = other
        .invite(&InviteSpec {
            networks: &[NETWORK],
            name: "z",
            bootstraps: &world.boot.addresses,
            expires: "24h",
        })
        .unwrap();
    assert_eq!(
        node.join(&foreign).unwrap().code,
        0,
        "it is a good invite elsewhere"
    );
    gets_no_frame(&world, &mut node);
    let status = node.status().unwrap();
    assert_eq!(status["peers"].as_array().unwrap().len(), 0, "{status}");
    let r = Ping::new(&world.vms[1].ip).run(&world.vms[0].ns).unwrap();
    assert_eq!(r.received, 5, "the members do not notice");
}
