//! `farlan join` asks the bootstrap and tells what it hears, before a node runs.

use std::time::Duration;

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node, program};
use farlan_tests::proc::{self, Finished};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// Exit code 1 and one line that contains `words`.
fn refused(out: &Finished, words: &[&str]) {
    println!("{}", out.stderr.trim());
    assert_eq!(out.code, 1, "{out:?}");
    assert_eq!(out.stderr.trim().lines().count(), 1, "{out:?}");
    for word in words {
        assert!(out.stderr.contains(word), "no {word:?} in {out:?}");
    }
}

/// Exit code 0 and an output that contains `words`.
fn joined(out: &Finished, words: &[&str]) {
    println!("{}", out.stdout.trim());
    assert_eq!(out.code, 0, "{out:?}");
    for word in words {
        assert!(out.stdout.contains(word), "no {word:?} in {out:?}");
    }
}

#[test]
fn join_asks_the_bootstrap_and_tells_what_it_hears() {
    require_lab!();
    let mut world =
        World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap();
    let host = world.nodes[0].host.clone();
    let node = |name: &str| Node::new(&host, name);

    // A receipt at once; the second host is told, and keeps nothing.
    let invite = world.invite("b").unwrap();
    let first = node("first");
    joined(&first.join(&invite).unwrap(), &["member    until "]);
    let second = node("second");
    refused(
        &second.join(&invite).unwrap(),
        &["has been used by as many"],
    );
    assert_eq!(second.run(&["networks"]).unwrap().code, 1);

    // By how much the clock is off.
    let late = node("late");
    let mut cmd = host.ns.command("faketime");
    cmd.args(["-f", "+2h"])
        .arg(program("farlan"))
        .args(["join", "-"]);
    cmd.env("FARLAN_STATE", &late.state);
    let out = proc::finish_with_input(&mut cmd, &world.invite("c").unwrap()).unwrap();
    joined(&out, &["this host's clock is", "ahead of the bootstrap's"]);

    // An identity that the authority revoked: the cure works as typed.
    let status: serde_json::Value =
        serde_json::from_str(&first.run(&["join", "--json", &invite]).unwrap().stdout).unwrap();
    let line = world
        .authority
        .revoke(status["node"].as_str().unwrap())
        .unwrap();
    let other = node("other");
    other.join(&world.invite("d").unwrap()).unwrap();
    first.apply(&line).unwrap();
    let again = world.invite("b2").unwrap();
    refused(
        &first.join(&again).unwrap(),
        &["leave, then join again", "farlan leave --yes"],
    );
    first.farlan(&["leave", "--yes"]).unwrap();
    joined(&first.join(&again).unwrap(), &["member    until "]);

    // A bootstrap of another overlay.
    let foreign = Authority::init(&world.lab, "foreign", &[NETWORK]).unwrap();
    let invite = foreign
        .invite(&InviteSpec {
            networks: &[NETWORK],
            name: "e",
            bootstraps: &world.boot.addresses,
            expires: "1h",
        })
        .unwrap();
    joined(
        &node("lost").join(&invite).unwrap(),
        &["not yet", "it does not serve this overlay"],
    );

    // One that has lost its state.
    let invite = world.invite("f").unwrap();
    world.boot.process.stop(Duration::from_secs(5)).unwrap();
    let name = world.boot.host.ns.name().to_owned();
    std::fs::remove_dir_all(world.lab.dir().join(format!("{name}-state"))).unwrap();
    world.boot = Bootstrap::start(&world.boot.host, &world.authority.id).unwrap();
    let out = node("fresh").join(&invite).unwrap();
    joined(
        &out,
        &[
            "it answers as 12D3KooW",
            "the invite names 12D3KooW",
            "did it lose its state?",
        ],
    );
}
