//! What a ladder of NAT traversal needs of a network, one by one.

mod changes;

use std::net::SocketAddr;
use std::num::NonZeroU64;

use super::*;
use crate::net::link::TooLarge;
use crate::net::nat::NatBehaviour as Nats;
use crate::net::random::Share;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const SERVER: &str = "192.0.2.1:22611";
const OTHER_SERVER: &str = "192.0.2.2:22611";
const INSIDE: &str = "192.168.1.10:22611";

/// A network with two public hosts, each 10 ms from anybody.
struct World {
    net: Net,
    now: Duration,
    server: HostId,
    other_server: HostId,
}

impl World {
    fn new() -> Self {
        let mut net = Net::new(1);
        net.set_medium(Net::INTERNET, ms(10));
        let [server, other_server] = [SERVER, OTHER_SERVER].map(|at| {
            let host = net.add_host(at).unwrap();
            net.attach(host, Net::INTERNET, AccessBehaviour::PERFECT)
                .unwrap();
            net.add_address(host, Net::INTERNET, addr(at).ip()).unwrap();
            host
        });
        Self {
            net,
            now: ms(1_000),
            server,
            other_server,
        }
    }

    /// A host at 192.168.1.x behind these gateways.
    fn home(&mut self, layers: &[Nats], public: &str, x: u8) -> (RealmId, HostId) {
        let access = AccessBehaviour::both(LinkBehaviour::with_delay(ms(5)));
        let public = public.parse().unwrap();
        let name = format!("home {public}");
        let realm = self.net.add_chain(&name, layers, public, access).unwrap();
        (realm, self.inmate(realm, x))
    }

    fn inmate(&mut self, realm: RealmId, x: u8) -> HostId {
        let host = self.net.add_host(&format!("inmate {x}")).unwrap();
        let perfect = AccessBehaviour::PERFECT;
        self.net.attach(host, realm, perfect).unwrap();
        let own = IpAddr::from([192, 168, 1, x]);
        self.net.add_address(host, realm, own).unwrap();
        host
    }

    fn send(&mut self, host: HostId, from: &str, to: SocketAddr) -> Result<(), Lost> {
        self.net.send(self.now, host, addr(from), to, b"x".to_vec())
    }

    /// Sends and gives who gets it, where, and from where.
    fn pass(&mut self, host: HostId, from: &str, to: SocketAddr) -> Option<Delivery> {
        self.send(host, from, to).ok()?;
        match self.arrivals().pop()? {
            Arrival::Datagram(delivery) => Some(delivery),
            Arrival::TooLarge(report) => panic!("{report:?}"),
        }
    }

    fn seen(&mut self, host: HostId, from: &str, to: &str) -> SocketAddr {
        self.pass(host, from, addr(to)).unwrap().source
    }

    /// Everything that arrives, until nothing is under way.
    fn arrivals(&mut self) -> Vec<Arrival> {
        let mut all = Vec::new();
        while let Some(next) = self.net.next_at() {
            self.now = self.now.max(next);
            all.extend(self.net.deliver(self.now));
        }
        all
    }
}

#[test]
fn a_reflexive_address_is_seen_and_answers_come_back() {
    let mut world = World::new();
    let (_, host) = world.home(&[Nats::PORT_REWRITING], "203.0.113.1", 10);
    let sent = world.now;
    let delivery = world.pass(host, INSIDE, addr(SERVER)).unwrap();
    assert_eq!(
        (delivery.host, delivery.local),
        (world.server, addr(SERVER))
    );
    assert_eq!(delivery.at, sent + ms(15), "5 ms and 10 ms");
    let reflexive = delivery.source;
    assert_eq!(reflexive.ip(), ip("203.0.113.1"));
    assert_ne!(reflexive.port(), 22_611);
    assert_eq!(world.seen(host, INSIDE, OTHER_SERVER), reflexive);
    let back = world.pass(world.server, SERVER, reflexive).unwrap();
    assert_eq!((back.host, back.local), (host, addr(INSIDE)));
    // Nobody was sent to at another port of the server.
    assert_eq!(world.pass(world.server, "192.0.2.1:9", reflexive), None);
    assert_eq!(world.net.tally().lost(Lost::Filtered), 1);
}

#[test]
fn a_symmetric_nat_shows_each_its_own_port() {
    let mut world = World::new();
    let (_, host) = world.home(&[Nats::SYMMETRIC], "203.0.113.1", 10);
    let first = world.seen(host, INSIDE, SERVER);
    assert_ne!(world.seen(host, INSIDE, OTHER_SERVER), first);
    assert_eq!(world.seen(host, INSIDE, SERVER), first);
}

#[test]
fn hosts_of_one_site_reach_each_other_over_the_lan_and_by_hairpin_where_there_is_one() {
    for (behaviour, turns) in [(Nats::PORT_PRESERVING, false), (Nats::FULL_CONE, true)] {
        let mut world = World::new();
        let (realm, a) = world.home(&[behaviour], "203.0.113.1", 10);
        let b = world.inmate(realm, 11);
        let at = "192.168.1.11:22611";
        let direct = world.pass(a, INSIDE, addr(at)).unwrap();
        assert_eq!((direct.host, direct.source), (b, addr(INSIDE)));
        let reflexive = world.seen(b, at, SERVER);
        let round = world.pass(a, INSIDE, reflexive);
        assert_eq!(round.is_some(), turns);
        if let Some(round) = round {
            assert_eq!((round.host, round.local), (b, addr(at)));
            assert_eq!(round.source.ip(), ip("203.0.113.1"));
        } else {
            assert_eq!(world.net.tally().lost(Lost::NoHairpin), 1);
        }
    }
}

#[test]
fn homes_of_one_provider_meet_in_its_nat() {
    let mut world = World::new();
    let access = AccessBehaviour::PERFECT;
    let provider = world.net.add_realm("isp", Net::INTERNET, access).unwrap();
    world
        .net
        .put_nat(provider, Nats::PROVIDER, ip("203.0.113.9"))
        .unwrap();
    let hosts = [1u8, 2].map(|n| {
        let name = format!("home {n}");
        let home = world.net.add_realm(&name, provider, access).unwrap();
        let wan = IpAddr::from([100, 64, 0, n]);
        world.net.put_nat(home, Nats::PORT_PRESERVING, wan).unwrap();
        world.inmate(home, 10)
    });
    let seen = hosts.map(|host| world.seen(host, INSIDE, SERVER));
    assert_eq!(seen.map(|addr| addr.ip()), [ip("203.0.113.9"); 2]);
    assert_ne!(seen[0], seen[1]);
    // Both send to what the server saw; the second finds the first's permit at each of four passages.
    assert_eq!(world.pass(hosts[0], INSIDE, seen[1]), None);
    let met = world.pass(hosts[1], INSIDE, seen[0]).unwrap();
    assert_eq!((met.host, met.local), (hosts[0], addr(INSIDE)));
    // Or by the addresses that the provider gave, without its NAT.
    let inner = addr("100.64.0.2:22611");
    assert_eq!(world.pass(hosts[0], INSIDE, inner), None);
    let met = world
        .pass(hosts[1], INSIDE, addr("100.64.0.1:22611"))
        .unwrap();
    assert_eq!((met.host, met.source), (hosts[0], inner));
}

#[test]
fn two_nats_in_a_row_translate_twice() {
    let mut world = World::new();
    let (home, host) = world.home(&Nats::CARRIER_GRADE, "203.0.113.1", 10);
    let seen = world.seen(host, INSIDE, SERVER);
    assert_eq!(seen.ip(), ip("203.0.113.1"));
    let nat = world.net.nat(home, ip("0.0.0.0")).unwrap();
    assert_eq!((nat.wan(), nat.mappings()), (ip("100.64.0.2"), 1));
    assert_eq!(world.pass(world.server, SERVER, seen).unwrap().host, host);
}

/// The shifted port: the peer probes first, and what comes back comes from a port that its NAT does not know.
#[test]
fn an_early_probe_shifts_the_port_behind_a_bare_linux_router() {
    let mut world = World::new();
    let (_, a) = world.home(&[Nats::BARE_LINUX], "203.0.113.1", 10);
    let (_, b) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.2", 10);
    let [seen_a, seen_b] = [a, b].map(|host| world.seen(host, INSIDE, SERVER));
    assert_eq!(world.pass(b, INSIDE, seen_a), None, "too early");
    // b's NAT knows a's told port only.
    assert_eq!(world.pass(a, INSIDE, seen_b), None);
    assert_eq!(world.net.tally().lost(Lost::Filtered), 2);
    assert_eq!(
        world.seen(a, INSIDE, SERVER),
        seen_a,
        "and nobody else sees it"
    );

    let mut world = World::new();
    let (_, a) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let (_, b) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.2", 10);
    let [seen_a, seen_b] = [a, b].map(|host| world.seen(host, INSIDE, SERVER));
    assert_eq!(world.pass(b, INSIDE, seen_a), None);
    assert_eq!(world.pass(a, INSIDE, seen_b).unwrap().source, seen_a);
}

#[test]
fn a_mapping_that_nobody_uses_ends() {
    let mut world = World::new();
    let (_, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let seen = world.seen(host, INSIDE, SERVER);
    world.now += Duration::from_secs(119);
    assert!(world.pass(world.server, SERVER, seen).is_some());
    world.now += Duration::from_secs(121);
    assert_eq!(world.pass(world.server, SERVER, seen), None);
    assert_eq!(world.net.tally().lost(Lost::NoMapping), 1);
}

#[test]
fn tcp_goes_out_where_udp_is_blocked_and_never_in() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::UDP_BLOCKED], "203.0.113.1", 10);
    let (_, other) = world.home(&[Nats::FULL_CONE], "203.0.113.2", 10);
    let server = world.server;
    assert_eq!(
        world.send(host, INSIDE, addr(SERVER)),
        Err(Lost::UdpBlocked)
    );
    let tcp = |world: &World, from, to| world.net.tcp_reachable(from, to);
    assert!(tcp(&world, host, server));
    assert!(tcp(&world, server, world.other_server));
    assert!(!tcp(&world, server, host) && !tcp(&world, other, host) && !tcp(&world, host, other));
    let neighbour = world.inmate(home, 11);
    assert!(tcp(&world, host, neighbour));
    // Whatever keeps datagrams from it keeps connections from it.
    world.net.set_connected(Station::Realm(home), false);
    assert!(!tcp(&world, host, server) && tcp(&world, host, neighbour));
    world.net.set_connected(Station::Realm(home), true);
    world.net.set_running(server, false);
    assert!(!tcp(&world, host, server));
    world.net.set_running(server, true);
    world.net.set_connected(Station::Host(server), false);
    assert!(!tcp(&world, host, server));
    world.net.set_connected(Station::Host(server), true);
    world
        .net
        .block(Station::Host(server), Station::Realm(home), true);
    assert!(!tcp(&world, host, server), "nothing comes back");
}

#[test]
fn ipv6_passes_a_firewall_untranslated_beside_the_nat() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let own = "[2001:db8:1::10]:22611";
    let added = world.net.add_address(host, home, addr(own).ip());
    assert_eq!(added, Ok(()));
    let server6 = "[2001:db8:ff::1]:22611";
    let server = world.server;
    world
        .net
        .add_address(server, Net::INTERNET, addr(server6).ip())
        .unwrap();
    // Without a gateway for it IPv6 is the LAN's alone.
    assert_eq!(world.send(host, own, addr(server6)), Err(Lost::NoRoute));
    assert_eq!(world.net.source_for(host, ip("2001:db8:ff::1")), None);
    world
        .net
        .remove_address(host, home, addr(own).ip())
        .unwrap();
    let firewall = Nats::STATEFUL_FIREWALL;
    world.net.put_firewall(home, firewall, ip("::")).unwrap();
    world.net.add_address(host, home, addr(own).ip()).unwrap();
    assert_eq!(
        world.net.source_for(host, ip("2001:db8:ff::1")),
        Some(addr(own).ip())
    );
    assert_eq!(world.pass(server, server6, addr(own)), None);
    assert_eq!(world.seen(host, own, server6), addr(own));
    assert_eq!(world.pass(server, server6, addr(own)).unwrap().host, host);
    assert!(!world.net.tcp_reachable(server, host));
    // The families do not mix.
    assert_eq!(
        world.send(host, own, addr(SERVER)).unwrap_err(),
        Lost::NoRoute
    );
}

#[test]
fn who_is_cut_off_or_on_another_island_is_not_reached() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::FULL_CONE], "203.0.113.1", 10);
    let seen = world.seen(host, INSIDE, SERVER);
    let (server, other) = (world.server, world.other_server);
    world.net.set_connected(Station::Realm(home), false);
    assert_eq!(world.send(host, INSIDE, addr(SERVER)), Err(Lost::CutOff));
    assert_eq!(world.send(server, SERVER, seen), Err(Lost::CutOff));
    world.net.set_connected(Station::Realm(home), true);
    world.net.set_island(Station::Realm(home), 1);
    assert_eq!(
        world.send(host, INSIDE, addr(SERVER)),
        Err(Lost::Partitioned)
    );
    assert_eq!(world.send(server, SERVER, seen), Err(Lost::Partitioned));
    world.net.set_island(Station::Realm(home), 0);
    // One way only, and for one pair only.
    world
        .net
        .block(Station::Host(server), Station::Realm(home), true);
    assert_eq!(world.send(server, SERVER, seen), Err(Lost::Partitioned));
    assert!(world.pass(host, INSIDE, addr(SERVER)).is_some());
    assert!(world.pass(other, OTHER_SERVER, seen).is_some());
    world
        .net
        .block(Station::Host(server), Station::Realm(home), false);
    assert!(world.pass(server, SERVER, seen).is_some());
    // Unplugged while it is under way.
    assert_eq!(world.send(server, SERVER, seen), Ok(()));
    world.net.set_connected(Station::Host(host), false);
    assert!(world.arrivals().is_empty());
    assert_eq!(world.net.tally().lost(Lost::CutOff), 3);
}

#[test]
fn senders_hear_of_what_is_too_large_where_the_path_tells() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let narrow = |too_large| {
        let mut link = LinkBehaviour::with_delay(ms(5));
        (link.mtu, link.too_large) = (1_400, too_large);
        AccessBehaviour::both(link)
    };
    let send = |world: &mut World, payload| {
        let (now, from, to) = (world.now, addr(INSIDE), addr(SERVER));
        let sent = world.net.send(now, host, from, to, vec![0; payload]);
        (sent, world.arrivals().pop())
    };
    let gate = Station::Realm(home);
    world.net.set_access(gate, narrow(TooLarge::Silent));
    assert!(matches!(
        send(&mut world, 1_372),
        (Ok(()), Some(Arrival::Datagram(_)))
    ));
    assert_eq!(send(&mut world, 1_373), (Err(Lost::TooLarge), None));
    let mut telling = LinkBehaviour::PERFECT;
    telling.too_large = TooLarge::Told;
    let own = Station::Host(host);
    world.net.set_access(own, AccessBehaviour::both(telling));
    world.net.set_access(gate, narrow(TooLarge::Told));
    let report = Report {
        at: world.now,
        host,
        local: addr(INSIDE),
        to: addr(SERVER),
        mtu: 1_400,
    };
    let told = Some(Arrival::TooLarge(report));
    assert_eq!(send(&mut world, 1_373), (Err(Lost::TooLarge), told));
    // An own interface says so at once, and only so.
    assert_eq!(send(&mut world, 1_473), (Err(Lost::TooLarge), None));
    // The far end's link: the way there, and the way back.
    world.net.set_access(gate, AccessBehaviour::PERFECT);
    let far = Station::Host(world.server);
    world.net.set_access(far, narrow(TooLarge::Told));
    let (sent, report) = (world.now, send(&mut world, 1_373).1);
    assert!(matches!(report, Some(Arrival::TooLarge(report)) if report.at == sent + ms(20)));
    assert_eq!(world.net.tally().told, 2);
}

#[test]
fn a_narrow_access_link_is_a_queue_in_the_order_of_arrival() {
    let mut world = World::new();
    let (_, near) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let (far_home, far) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.2", 10);
    // 30 ms further, 100 bytes a millisecond down to the server, two waiting.
    world.net.set_place(
        Station::Realm(far_home),
        Place {
            x: 18_000,
            y: -24_000,
        },
    );
    let mut narrow = LinkBehaviour::PERFECT;
    narrow.rate = NonZeroU64::new(100_000);
    narrow.queue = ms(2);
    let down = AccessBehaviour {
        up: LinkBehaviour::PERFECT,
        down: narrow,
    };
    world.net.set_access(Station::Host(world.server), down);
    let start = world.now;
    let mut send = |host, at: u64| {
        let bytes = vec![0; 72];
        let sent = world
            .net
            .send(start + ms(at), host, addr(INSIDE), addr(SERVER), bytes);
        assert_eq!(sent, Ok(()));
    };
    send(far, 0);
    for _ in 0..5 {
        send(near, 1);
    }
    let arrivals: Vec<_> = world
        .arrivals()
        .into_iter()
        .map(|arrival| match arrival {
            Arrival::Datagram(delivery) => (delivery.source.ip(), delivery.at - start),
            Arrival::TooLarge(report) => panic!("{report:?}"),
        })
        .collect();
    let near = |at| (ip("203.0.113.1"), ms(at));
    let far = (ip("203.0.113.2"), ms(46));
    assert_eq!(arrivals, [near(17), near(18), near(19), far]);
    assert_eq!(world.net.tally().lost(Lost::QueueFull), 2);
}

#[test]
fn copies_count_and_all_arrive() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let mut twice = LinkBehaviour::PERFECT;
    twice.duplication = Share::percent(100);
    let both = AccessBehaviour::both(twice);
    world.net.set_access(Station::Realm(home), both);
    world.net.set_access(Station::Host(world.server), both);
    world.send(host, INSIDE, addr(SERVER)).unwrap();
    assert_eq!(world.arrivals().len(), 4);
    let tally = world.net.tally();
    assert_eq!((tally.sent, tally.duplicated, tally.delivered), (1, 3, 4));
}

#[test]
fn a_forwarded_port_lets_in_anybody() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::SYMMETRIC], "203.0.113.1", 10);
    let nat = world.net.nat_mut(home, ip("0.0.0.0")).unwrap();
    nat.forward(4_000, addr(INSIDE));
    let outer = addr("203.0.113.1:4000");
    let delivery = world.pass(world.server, SERVER, outer).unwrap();
    assert_eq!((delivery.host, delivery.local), (host, addr(INSIDE)));
    assert_eq!(world.seen(host, INSIDE, SERVER), outer);
}

#[test]
fn what_cannot_be_built_says_why() {
    let mut world = World::new();
    let (home, host) = world.home(&[Nats::PORT_PRESERVING], "203.0.113.1", 10);
    let net = &mut world.net;
    let perfect = AccessBehaviour::PERFECT;
    let (nowhere, nobody) = (RealmId(99), HostId(99));
    let taken = Err(BuildError::AddressTaken);
    assert_eq!(
        net.add_realm("x", nowhere, perfect),
        Err(BuildError::NoSuchRealm)
    );
    assert_eq!(
        net.attach(nobody, home, perfect),
        Err(BuildError::NoSuchHost)
    );
    assert_eq!(
        net.attach(host, home, perfect),
        Err(BuildError::AttachedAlready)
    );
    assert_eq!(
        net.detach(host, Net::INTERNET),
        Err(BuildError::NotAttached)
    );
    assert_eq!(net.add_address(host, home, ip("192.168.1.10")), taken);
    let nat = net.put_nat(home, Nats::PORT_PRESERVING, ip("203.0.113.5"));
    assert_eq!(nat, Err(BuildError::InUse));
    let realm = net.add_realm("x", Net::INTERNET, perfect).unwrap();
    let wrong = Err(BuildError::WrongBehaviour);
    let wan = ip("203.0.113.1");
    assert_eq!(net.put_nat(realm, Nats::ROUTER, wan), wrong);
    assert_eq!(net.put_firewall(realm, Nats::SYMMETRIC, wan), wrong);
    assert_eq!(net.put_nat(realm, Nats::SYMMETRIC, wan), taken);
    assert_eq!(net.put_firewall(realm, Nats::ROUTER, wan), Ok(()));
    let second = net.put_firewall(realm, Nats::ROUTER, wan);
    assert_eq!(second, Err(BuildError::InUse));
    assert_eq!(net.set_wan(home, ip("192.0.2.1")), taken);
    let internet = net.put_nat(Net::INTERNET, Nats::SYMMETRIC, ip("9.9.9.9"));
    assert_eq!(internet, Err(BuildError::NoSuchRealm));
    assert_eq!(net.name(host), Some("inmate 10"));
}
