//! Two overlays on one host, each with its own state directory.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];

#[test]
fn two_overlays_with_networks_of_one_name_share_a_host() {
    require_lab!();
    let model = LinkModel::default();
    let world = World::running(&TWO, Family::V4, model).unwrap();
    let lab = &world.lab;
    let host = lab.bootstrap_host("boot2", 2, Family::V4, model).unwrap();
    let authority = Authority::init(lab, "other", &[NETWORK]).unwrap();
    let boot = Bootstrap::start(&host, &authority.id).unwrap();
    let mut nodes = Vec::new();
    let mut guests = Vec::new();
    for (index, site) in world.sites.iter().enumerate() {
        let name = format!("second{index}");
        let mut node = Node::new(&site.hosts[0], &name);
        let invite = authority
            .invite(&InviteSpec {
                networks: &[NETWORK],
                name: &name,
                bootstraps: &boot.addresses,
                expires: "1h",
            })
            .unwrap();
        let joined = node.join(&invite).unwrap();
        assert_eq!(joined.code, 0, "{joined:?}");
        // The names of the first are taken; those of the second are its own.
        let told = node.farlan(&["attach", NETWORK]).unwrap();
        assert!(told.contains("tap fl-1 on bridge br-1"), "{told}");
        node.up_and_ready().unwrap();
        let n = u8::try_from(index).unwrap();
        guests.push(lab.vm(11 + n, &site.hosts[0], "br-1").unwrap());
        nodes.push(node);
    }
    let limit = Duration::from_secs(30);
    first_ping(&guests[1].ns, &guests[0].ip, Instant::now(), limit).unwrap();
    // Neither network hears the other, on the same host or elsewhere.
    for guest in &world.vms {
        let crossed = Ping::new(&guest.ip).count(2).run(&guests[0].ns).unwrap();
        assert_eq!(crossed.received, 0, "{crossed:?}");
    }
    let both = Ping::new(&world.vms[0].ip).run(&world.vms[1].ns).unwrap();
    assert!(both.received >= 4, "{both:?}");
    // What one gives up is nothing to the other.
    nodes[0].farlan(&["detach", NETWORK, "--force"]).unwrap();
    let still = Ping::new(&world.vms[0].ip).run(&world.vms[1].ns).unwrap();
    assert!(still.received >= 4, "{still:?}");
    for node in &mut nodes {
        node.stop().unwrap();
    }
}
