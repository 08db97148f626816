//! Mistakes of the user: one line that says what to do, and the exit code of the contract.

use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Node, farlan, program};
use farlan_tests::proc::{self, Finished};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// Exit code 1 and one line that contains `words`.
fn one_line(out: &Finished, words: &[&str]) {
    println!("{}", out.stderr.trim());
    assert_eq!(out.code, 1, "{out:?}");
    assert_eq!(out.stderr.trim().lines().count(), 1, "one line: {out:?}");
    let text = out.stderr.to_lowercase();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

fn world() -> World {
    World::build(&[NatKind::PortRewriting], Family::V4, LinkModel::default()).unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    require_lab!();
    let world = world();
    let node = &world.nodes[0];
    for args in [
        &["frobnicate"][..],
        &["up", "--no-such-flag"],
        &["attach"],
        &["join"],
        &["network", "add"],
        &["attach", NETWORK, "--bridge", "x", "--vm", "y"],
    ] {
        let out = node.run(args).unwrap();
        assert_eq!(out.code, 2, "{args:?}: {out:?}");
        assert!(
            out.stdout.is_empty() && !out.stderr.is_empty(),
            "{args:?}: {out:?}"
        );
    }
    let out = node.run(&["--help"]).unwrap();
    assert_eq!(out.code, 0);
    for command in [
        "init", "invite", "join", "up", "attach", "detach", "status", "macs",
    ] {
        assert!(out.stdout.contains(command), "no {command} in --help");
    }
    let out = node.run(&["version"]).unwrap();
    assert_eq!(out.code, 0, "{out:?}");
    let mut boot = node.host.ns.command(program("farlan-bootstrap"));
    assert_eq!(proc::finish(boot.arg("--no-such-flag")).unwrap().code, 2);
}

#[test]
fn missing_rights() {
    require_lab!();
    let world = world();
    let node = &world.nodes[0];
    // The state is the user's own, so that only the capability is missing.
    let mut paths = vec![node.state.clone()];
    while let Some(path) = paths.pop() {
        chown(&path, Some(65_534), Some(65_534)).unwrap();
        if path.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.lab.dir(), open).unwrap();
    // A copy where that user may execute it.
    let copy = world.lab.dir().join("farlan");
    std::fs::copy(program("farlan"), &copy).unwrap();
    let mut cmd = node.host.ns.command("setpriv");
    cmd.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ])
    .args(["timeout", "10"])
    .arg(&copy)
    .arg("up")
    .env("FARLAN_STATE", &node.state)
    .env("FARLAN_LOG", "off");
    let out = proc::finish(&mut cmd).unwrap();
    one_line(&out, &["cap_net_admin"]);
}

#[test]
fn a_busy_port() {
    require_lab!();
    let world = world();
    let node = &world.nodes[0];
    let taken = node
        .host
        .ns
        .within(|| Ok(UdpSocket::bind("0.0.0.0:5555")?))
        .unwrap();
    let up = |listen: &str| {
        let mut cmd = node.host.ns.command("timeout");
        cmd.arg("10")
            .arg(program("farlan"))
            .args(["up", "--listen", listen]);
        cmd.env("FARLAN_STATE", &node.state)
            .env("FARLAN_LOG", "off");
        proc::finish(&mut cmd).unwrap()
    };
    one_line(&up("0.0.0.0:5555"), &["5555", "use"]);
    drop(taken);
}

#[test]
fn the_default_port_taken_means_another_one_kept() {
    require_lab!();
    let mut world = world();
    let host = world.nodes[0].host.clone();
    let _taken = host
        .ns
        .within(|| Ok(UdpSocket::bind("0.0.0.0:22611")?))
        .unwrap();
    let node = &mut world.nodes[0];
    let ports = |node: &Node| {
        let out = node.host.ns.sh("ss -Hlunp4").unwrap().stdout;
        let port = |l: &str| {
            l.split_whitespace()
                .nth(3)?
                .rsplit(':')
                .next()?
                .parse::<u16>()
                .ok()
        };
        let mut all: Vec<u16> = out
            .lines()
            .filter(|l| l.contains("farlan"))
            .filter_map(port)
            .collect();
        all.sort_unstable();
        all
    };
    node.up_and_ready().unwrap();
    let first = ports(node);
    node.stop().unwrap();
    node.up_and_ready().unwrap();
    let second = ports(node);
    println!("UDP ports {first:?}, after a restart {second:?}");
    assert!(!first.contains(&22_611));
    assert!(first.iter().any(|p| second.contains(p)), "no port was kept");
}

#[test]
fn a_bridge_that_does_not_exist() {
    require_lab!();
    let world = world();
    let node = &world.nodes[0];
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    let out = node
        .run(&["attach", NETWORK, "--bridge", "br-nowhere"])
        .unwrap();
    one_line(&out, &["br-nowhere"]);
    let out = node.run(&["attach", "nonet"]).unwrap();
    one_line(&out, &["nonet"]);
}

#[test]
fn no_membership_no_node() {
    require_lab!();
    let world = world();
    let node = Node::new(&world.nodes[0].host, "nobody");
    let mut cmd = farlan(&node.host.ns, &node.state);
    let out = proc::finish(cmd.arg("up").env("FARLAN_LOG", "off")).unwrap();
    one_line(&out, &["join"]);
    let out = node.run(&["status"]).unwrap();
    assert_eq!(out.code, 1, "{out:?}");
}

#[test]
fn a_clean_stop_leaves_tap_and_bridge() {
    require_lab!();
    let mut world = world();
    let node = &mut world.nodes[0];
    node.up_and_ready().unwrap();
    node.stop().unwrap();
    for device in ["fl-lab", "br-lab"] {
        node.host.ns.ip(&format!("link show {device}")).unwrap();
    }
    let out = node.run(&["detach", NETWORK]).unwrap();
    one_line(&out, &["vm1", "br-lab", "farlan detach lab --force"]);
    node.farlan(&["detach", NETWORK, "--force"]).unwrap();
    assert!(
        node.host.ns.ip("link show fl-lab").is_err(),
        "detach removes the tap"
    );
}
