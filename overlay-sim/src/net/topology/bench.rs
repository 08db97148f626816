//! How many datagrams a second of a core's time: the figures in the doc of [`crate::net`]. With `FARLAN_LONG` set it
//! measures; without it only a few are sent, to see that none is lost.
//!
//! `FARLAN_LONG=1 cargo test --release -p overlay-sim bench -- --nocapture`

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::net::nat::NatBehaviour;
use crate::net::random::{below, stream};

const PORT: u16 = 22_611;
const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10)), PORT);

fn public(host: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + host)), PORT)
}

/// The time that this thread has spent on a core.
fn core_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|text| text.parse().ok());
    nanos.unwrap_or(0.0) / 1e9
}

fn world(hosts: u32, link: LinkBehaviour) -> Net {
    let mut net = Net::new(1);
    let mut chance = stream(1, "places");
    for number in 0..hosts {
        let name = format!("site {number}");
        let IpAddr::V4(wan) = public(number).ip() else {
            unreachable!()
        };
        let access = AccessBehaviour::both(link);
        let nat = NatBehaviour::PORT_PRESERVING;
        let realm = net.add_chain(&name, &[nat], wan, access).unwrap();
        let mut milli = || i32::try_from(below(&mut chance, 100_000)).unwrap();
        let place = Place {
            x: milli(),
            y: milli(),
        };
        net.set_place(Station::Realm(realm), place);
        let host = net.add_host(&name).unwrap();
        net.attach(host, realm, AccessBehaviour::PERFECT).unwrap();
        net.add_address(host, realm, INSIDE.ip()).unwrap();
    }
    net
}

/// Every host, behind a NAT of its own, sends to `degree` others before it and as many after it, and they to it, so
/// that all NATs are open; whoever gets a datagram answers it.
fn run(name: &str, hosts: u32, degree: u32, link: LinkBehaviour, deliveries: u64) {
    let mut net = world(hosts, link);
    let mut now = Duration::ZERO;
    let payload = vec![7; 100];
    let begin = core_seconds();
    for number in 0..hosts {
        for step in (1..=degree).map(|peer| peer * peer * 17) {
            for to in [(number + step) % hosts, (number + hosts - step) % hosts] {
                let from = HostId::of(number);
                let _ = net.send(now, from, INSIDE, public(to), payload.clone());
            }
        }
    }
    let mut most = 0;
    while let Some(next) = net.next_at()
        && net.tally().delivered < deliveries
    {
        now = next;
        while let Some(Arrival::Datagram(delivery)) = net.deliver(now) {
            let Delivery {
                host,
                local,
                source,
                bytes,
                ..
            } = delivery;
            let _ = net.send(now, host, local, source, bytes);
        }
        most = most.max(net.in_flight());
    }
    let took = core_seconds() - begin;
    let tally = net.tally();
    assert!(tally.delivered >= deliveries && tally.all_lost() == 0);
    println!(
        "{hosts} hosts, {name}: {} delivered, at most {most} in flight, {} s virtual, {took:.2} s of a core: \
         {:.0} deliveries/s, digest {:016x}",
        tally.delivered,
        now.as_secs(),
        tally.delivered as f64 / took,
        net.trace().digest(),
    );
}

#[test]
fn deliveries_per_second() {
    let plain = LinkBehaviour::with_delay(Duration::from_millis(5));
    let mut jittery = plain;
    jittery.jitter = Duration::from_millis(2);
    jittery.rate = std::num::NonZeroU64::new(12_500_000);
    let sizes: &[(u32, u32, u64)] = if std::env::var_os("FARLAN_LONG").is_some() {
        &[(1_000, 4, 5_000_000), (10_000, 16, 5_000_000)]
    } else {
        &[(100, 2, 5_000)]
    };
    for (hosts, degree, deliveries) in sizes.iter().copied() {
        run("delay", hosts, degree, plain, deliveries);
        run(
            "delay, jitter and 100 Mbit/s",
            hosts,
            degree,
            jittery,
            deliveries,
        );
    }
}
