//! One bootstrap with two addresses: whoever knows it by one meets whoever knows it by the other.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::overlay::{Bootstrap, InviteSpec};
use farlan_tests::probe::{figure, first_ping};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// From the start of both nodes to the first ping between their guests.
const LIMIT: Duration = Duration::from_secs(5);

/// Two sites behind NATs that only a relay joins, each with an invite that names the bootstrap's
/// addresses as `order` says of the addresses that end in .11 and .12.
fn meet(order: [&[&str]; 2]) -> Duration {
    let model = LinkModel::default();
    let mut world = World::build(&[], Family::V4, model).unwrap();
    // It does not know by which of its addresses it is known.
    world.boot.process.stop(Duration::from_secs(5)).unwrap();
    world.boot = Bootstrap::start_on(&world.boot.host, &world.authority.id, &[]).unwrap();
    for ends in order {
        let name = world.next_name().unwrap();
        let all = &world.boot.addresses;
        let bootstraps: Vec<String> = ends
            .iter()
            .flat_map(|end| all.iter().filter(move |at| at.contains(end)).cloned())
            .collect();
        assert!(bootstraps.len() >= ends.len(), "{all:?}");
        let invite = world
            .authority
            .invite(&InviteSpec {
                networks: &[NETWORK],
                name: &name,
                bootstraps: &bootstraps,
                expires: "1h",
            })
            .unwrap();
        world
            .add_site_with(&invite, NatKind::Symmetric, Family::V4, model)
            .unwrap();
    }
    let start = Instant::now();
    for node in &mut world.nodes {
        node.up(&[]).unwrap();
    }
    let (from, to) = (&world.vms[1], &world.vms[0]);
    let took = first_ping(&from.ns, &to.ip, start, Duration::from_secs(30)).unwrap();
    println!("{order:?}: {took:?}");
    world.nodes[0].wait_kind("b", "relayed", LIMIT).unwrap();
    took
}

#[test]
fn members_that_know_one_bootstrap_by_different_addresses_meet() {
    require_lab!();
    let (one, two) = (".11/", ".12/");
    let limit = figure(LIMIT);
    for order in [[&[one][..], &[two]], [&[one, two], &[two, one]]] {
        let took = meet(order);
        assert!(took <= limit, "{order:?}: {took:?} is over {limit:?}");
    }
}
