//! From `farlan up` to the first ping between guests, both sites behind NATs, 50 ms between any
//! two sites and the bootstrap.

use std::time::{Duration, Instant};

use farlan_tests::nat::NatKind;
use farlan_tests::probe::{figure, first_ping};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::World;

const LIMIT: Duration = Duration::from_secs(3);

/// Every round is a new overlay: nothing is known from the round before. The first node and its
/// guest are up; the second joined and now starts.
fn round() -> Duration {
    let nats = [NatKind::PortRewriting, NatKind::PortRewriting];
    let mut world = World::build(&nats, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].up_and_ready().unwrap();
    // The first has its relay allocation and its reflexive address, as a host that runs for long.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    world.nodes[1].up(&[]).unwrap();
    first_ping(
        &world.vms[1].ns,
        &world.vms[0].ip,
        start,
        Duration::from_secs(30),
    )
    .unwrap()
}

#[test]
fn up_to_first_ping_between_guests() {
    require_lab!();
    // `./test --long first-ping` repeats it 20 times and gates at the figure itself.
    let repeat = std::env::var("FARLAN_REPEAT")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let mut times: Vec<Duration> = (0..repeat).map(|_| round()).collect();
    println!("sample up to first ping: {times:?}");
    times.sort();
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("sample up to first ping: median {median:?} max {max:?} of {repeat}");
    let limit = figure(LIMIT);
    assert!(median <= limit, "median {median:?} is over {limit:?}");
}
