//! Bridges that filter VLANs.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::Ns;
use crate::rig::scene::{Scene, answers, does_not_reach, reaches, wait_line};

/// The user's bridge on each host.
const BRIDGE: &str = "vbr0";
const NETWORK: &str = "vlans";
const TAP: &str = "fl-vlans";

/// How long a change on the bridge may take until the overlay follows: 10 s, and as much again for an
/// emulated processor on a machine that does other things.
const FOLLOWS: Duration = Duration::from_secs(20);

/// A guest with one address, on a port that is in VLAN `vid` alone; 0: in the default VLAN.
fn access(scene: &Scene, index: usize, name: &str, vid: u16, host: u8) -> Result<Ns> {
    let guest = scene.guest(index, name, BRIDGE)?;
    guest.ip(&format!("addr add 10.2.0.{host}/24 dev eth0"))?;
    if vid != 0 {
        let ports = scene.host(index);
        let line = format!(
            "bridge vlan del dev {name} vid 1 && bridge vlan add dev {name} vid {vid} pvid untagged"
        );
        let done = ports.sh(&line)?;
        ensure!(done.code == 0, "{done:?}");
    }
    Ok(guest)
}

/// A guest with a VLAN device, on a port that carries `vids` with their tags.
fn trunk(scene: &Scene, index: usize, name: &str, vids: &str, vid: u16, host: u8) -> Result<Ns> {
    let guest = scene.guest(index, name, BRIDGE)?;
    guest.ip(&format!(
        "link add link eth0 name v{vid} type vlan id {vid}"
    ))?;
    guest.ip(&format!("link set v{vid} up"))?;
    guest.ip(&format!("addr add 10.3.0.{host}/24 dev v{vid}"))?;
    let line = format!("bridge vlan add dev {name} vid {vids}");
    let done = scene.host(index).sh(&line)?;
    ensure!(done.code == 0, "{done:?}");
    Ok(guest)
}

fn port(scene: &Scene, index: usize) -> Result<String> {
    let shown = scene
        .host(index)
        .sh(&format!("bridge vlan show dev {TAP}"))?;
    Ok(shown.stdout)
}

/// All VLANs cross the overlay, from `attach` on, when ports come later, and after a restart with a new
/// tap; untagged stays untagged, and VLANs stay apart.
pub(super) fn all_vlans_cross(scene: &mut Scene) -> Result<()> {
    for index in 0..2 {
        let host = scene.host(index);
        host.ip(&format!(
            "link add {BRIDGE} type bridge vlan_filtering 1 forward_delay 0"
        ))?;
        host.ip(&format!("link set {BRIDGE} up"))?;
    }
    let near = access(scene, 0, "va10", 10, 1)?;
    let _far = access(scene, 1, "vb10", 10, 2)?;
    for index in 0..2 {
        let node = &scene.nodes[index];
        println!("{}", node.farlan(&["attach", NETWORK, "--bridge", BRIDGE])?);
        let carried = port(scene, index)?;
        ensure!(carried.contains("10"), "after attach: {carried}");
        ensure!(carried.contains("1 PVID Egress Untagged"), "{carried}");
    }
    reaches(&near, "10.2.0.2", FOLLOWS)?;
    let untagged = access(scene, 0, "vau", 0, 3)?;
    let _far = access(scene, 1, "vbu", 0, 4)?;
    reaches(&untagged, "10.2.0.4", FOLLOWS)?;
    does_not_reach(&untagged, "10.2.0.2")?;
    // A trunk comes later.
    let near = trunk(scene, 0, "vat", "20-29", 22, 1)?;
    let _far = trunk(scene, 1, "vbt", "20-29", 22, 2)?;
    reaches(&near, "10.3.0.2", FOLLOWS)?;
    // As after a reboot: no tap.
    let show = format!("bridge vlan show dev {TAP}");
    scene.nodes[0].stop()?;
    scene.host(0).ip(&format!("link del {TAP}"))?;
    scene.nodes[0].up(&[])?;
    answers(&scene.nodes[0])?;
    let line = wait_line(scene.host(0), &show, FOLLOWS, |line| line.contains("29"))?;
    println!("after a restart: {line}");
    reaches(&near, "10.3.0.2", FOLLOWS)?;
    println!("{}", port(scene, 0)?);
    Ok(())
}

/// One MAC in two VLANs on two hosts: each is reached in its own.
pub(super) fn one_mac_in_two_vlans(scene: &mut Scene) -> Result<()> {
    let mac = "52:54:00:00:77:77";
    let near = access(scene, 0, "va50", 50, 51)?;
    let far = access(scene, 1, "vb60", 60, 61)?;
    for guest in [&near, &far] {
        guest.ip(&format!("link set eth0 address {mac}"))?;
    }
    // The neighbours of each on the other host.
    let near60 = access(scene, 0, "va60", 60, 62)?;
    let far50 = access(scene, 1, "vb50", 50, 52)?;
    reaches(&near60, "10.2.0.61", FOLLOWS)?;
    reaches(&far50, "10.2.0.51", FOLLOWS)?;
    for (from, to) in [(&near60, "10.2.0.61"), (&far50, "10.2.0.51")] {
        let out = from.sh(&format!("ping -n -q -c 20 -i 0.1 -W 2 {to}"))?;
        ensure!(out.stdout.contains(" 0% packet loss"), "{}", out.stdout);
    }
    Ok(())
}
