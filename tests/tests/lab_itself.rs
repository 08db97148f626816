//! The lab measured: NAT kinds do what their names say, the WAN's delay and loss are what was
//! asked for, and nothing is left behind. No Farlan program runs here.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use farlan_tests::lab::Lab;
use farlan_tests::nat::{NatKind, REWRITE_PORTS};
use farlan_tests::probe::{Ping, observed_sources, reaches, tcp_transfer};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;

const PORT: u16 = 22_611;

/// Ports that two destinations (other address, other port) see for one socket behind `nat`.
fn mapping(nat: NatKind) -> (u16, u16) {
    let lab = Lab::new().unwrap();
    let quick = LinkModel {
        delay: Duration::from_millis(1),
        ..LinkModel::default()
    };
    let boot = lab.bootstrap_host("boot", 1, Family::V4, quick).unwrap();
    let site = lab.site("a", 1, nat, Family::V4, 1, quick).unwrap();
    let servers: Vec<SocketAddr> = vec![
        SocketAddr::new(boot.addrs[0], 5000),
        SocketAddr::new(boot.addrs[1], 5001),
    ];
    let seen = observed_sources(&site.hosts[0].ns, PORT, &boot.ns, &servers).unwrap();
    assert!(seen.iter().all(|s| s.ip() == site.public), "{seen:?}");
    // Address and port dependent filtering: a third port of an address that was asked stays out.
    let inside = site.hosts[0]
        .ns
        .within(|| Ok(UdpSocket::bind(("0.0.0.0", PORT))?))
        .unwrap();
    let known = reaches(&boot.ns, servers[0], seen[0], &inside).unwrap();
    let stranger = SocketAddr::new(boot.addrs[0], 5002);
    let unknown = reaches(&boot.ns, stranger, seen[0], &inside).unwrap();
    assert!(known, "the asked address must get in");
    assert!(!unknown, "another port must not get in");
    (seen[0].port(), seen[1].port())
}

#[test]
fn port_rewriting_maps_to_one_other_port() {
    require_lab!();
    let (first, second) = mapping(NatKind::PortRewriting);
    assert_eq!(first, second);
    assert!(REWRITE_PORTS.contains(&first), "{first}");
}

#[test]
fn symmetric_maps_to_a_new_port_each() {
    require_lab!();
    let (first, second) = mapping(NatKind::Symmetric);
    assert_ne!(first, second);
    assert_ne!(first, PORT);
}

#[test]
fn port_preserving_keeps_the_port() {
    require_lab!();
    assert_eq!(mapping(NatKind::PortPreserving), (PORT, PORT));
}

#[test]
fn an_early_probe_shifts_the_port_only_at_an_open_router() {
    require_lab!();
    let quick = LinkModel {
        delay: Duration::from_millis(1),
        ..LinkModel::default()
    };
    for (nat, shifted) in [
        (NatKind::PortPreserving, false),
        (NatKind::PortPreservingOpen, true),
    ] {
        let lab = Lab::new().unwrap();
        let boot = lab.bootstrap_host("boot", 1, Family::V4, quick).unwrap();
        let site = lab.site("a", 1, nat, Family::V4, 1, quick).unwrap();
        let peer = SocketAddr::new(boot.addrs[0], 5000);
        let early = boot.ns.within(move || Ok(UdpSocket::bind(peer)?)).unwrap();
        early.send_to(b"early", (site.public, PORT)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        drop(early);
        let seen = observed_sources(&site.hosts[0].ns, PORT, &boot.ns, &[peer]).unwrap();
        assert_eq!(seen[0].port() != PORT, shifted, "{nat:?}: {seen:?}");
    }
}

#[test]
fn firewall_lets_answers_in_and_nothing_else() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let boot = lab.bootstrap_host("boot", 1, Family::V6, model).unwrap();
    let site = lab
        .site("a", 1, NatKind::Firewall, Family::V6, 1, model)
        .unwrap();
    let host = &site.hosts[0];
    let asked = SocketAddr::new(boot.addrs[0], 5000);
    let seen = observed_sources(&host.ns, PORT, &boot.ns, &[asked]).unwrap();
    assert_eq!(seen[0], SocketAddr::new(host.addrs[0], PORT));
    let inside = host
        .ns
        .within(|| Ok(UdpSocket::bind(("::", PORT))?))
        .unwrap();
    assert!(reaches(&boot.ns, asked, seen[0], &inside).unwrap());
    let other = SocketAddr::new(boot.addrs[1], 5000);
    assert!(!reaches(&boot.ns, other, seen[0], &inside).unwrap());
}

#[test]
fn delay_is_50_ms_there_and_back() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let boot = lab.bootstrap_host("boot", 1, Family::Dual, model).unwrap();
    let site = lab
        .site("a", 1, NatKind::PortRewriting, Family::Dual, 1, model)
        .unwrap();
    for addr in &boot.addrs {
        let to = addr.to_string();
        let ping = Ping::new(&to).count(20).interval(Duration::from_millis(20));
        let r = ping.run(&site.hosts[0].ns).unwrap();
        println!("{addr}: {r:?}, WAN late by {:?}", lab.wan().lateness());
        assert_eq!(r.received, 20);
        assert!((50.0..53.0).contains(&r.mean_ms), "{r:?}");
    }
}

#[test]
fn loss_is_what_was_asked_for_and_repeats_with_the_seed() {
    require_lab!();
    let lossy = LinkModel {
        delay: Duration::from_millis(1),
        loss: 0.05,
        ..LinkModel::default()
    };
    let run = || {
        let lab = Lab::with_seed(7).unwrap();
        let boot = lab.bootstrap_host("boot", 1, Family::V4, lossy).unwrap();
        let site = lab
            .site("a", 1, NatKind::PortPreserving, Family::V4, 1, lossy)
            .unwrap();
        let to = boot.addrs[0].to_string();
        let ping = Ping::new(&to).count(500).interval(Duration::from_millis(4));
        ping.run(&site.hosts[0].ns).unwrap().received
    };
    let (first, second) = (run(), run());
    // Four draws of 5 % each way: 81.5 % arrive; 4 sigma of 500 are 7 %.
    assert!((372..=443).contains(&first), "{first}");
    assert_eq!(first, second, "same seed, same loss");
}

#[test]
fn cut_links_carry_nothing() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let boot = lab.bootstrap_host("boot", 1, Family::V4, model).unwrap();
    let a = lab
        .site("a", 1, NatKind::PortRewriting, Family::V4, 1, model)
        .unwrap();
    let b = lab
        .site("b", 2, NatKind::PortRewriting, Family::V4, 1, model)
        .unwrap();
    let to = boot.addrs[0].to_string();
    let ping = Ping::new(&to).count(3);
    lab.wan().cut_pair(a.link, boot.link, true);
    assert_eq!(ping.run(&a.hosts[0].ns).unwrap().received, 0);
    assert_eq!(ping.run(&b.hosts[0].ns).unwrap().received, 3);
    lab.wan().cut_pair(a.link, boot.link, false);
    assert_eq!(ping.run(&a.hosts[0].ns).unwrap().received, 3);
    lab.wan().cut(boot.link, true);
    assert_eq!(ping.run(&b.hosts[0].ns).unwrap().received, 0);
}

#[test]
fn mtu_in_the_middle_with_and_without_icmp() {
    require_lab!();
    for icmp in [true, false] {
        let lab = Lab::new().unwrap();
        let narrow = LinkModel {
            delay: Duration::from_millis(1),
            mtu: 1280,
            icmp_too_big: icmp,
            ..LinkModel::default()
        };
        let boot = lab.bootstrap_host("boot", 1, Family::Dual, narrow).unwrap();
        let site = lab
            .site("a", 1, NatKind::PortRewriting, Family::Dual, 1, narrow)
            .unwrap();
        let host = &site.hosts[0].ns;
        for (to, fits, over) in [(boot.addrs[0], 1252, 1253), (boot.addrs[1], 1232, 1233)] {
            let to = to.to_string();
            assert_eq!(
                Ping::new(&to).df(fits).count(2).run(host).unwrap().received,
                2
            );
            assert_eq!(
                Ping::new(&to).df(over).count(2).run(host).unwrap().received,
                0
            );
        }
        let learnt = host
            .sh(&format!("ip route get {}", boot.addrs[0]))
            .unwrap()
            .stdout;
        assert_eq!(learnt.contains("mtu 1280"), icmp, "{learnt}");
        // Without DF the WAN cuts, and counts it.
        let to = boot.addrs[0].to_string();
        assert_eq!(lab.wan().stats(site.link).fragments, 0);
        let r = host.sh(&format!("ping -M dont -c 2 -s 1400 {to}")).unwrap();
        assert!(lab.wan().stats(site.link).fragments > 0, "{}", r.stdout);
    }
}

#[test]
fn low_ttl_dies_in_the_wan() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let boot = lab.bootstrap_host("boot", 1, Family::Dual, model).unwrap();
    let site = lab
        .site("a", 1, NatKind::PortRewriting, Family::Dual, 1, model)
        .unwrap();
    for addr in &boot.addrs {
        let line = |ttl| format!("ping -n -c 1 -W 1 -t {ttl} {addr}");
        let near = site.hosts[0].ns.sh(&line(4)).unwrap();
        assert!(
            near.code != 0 && near.stdout.contains("xceeded"),
            "{}",
            near.stdout
        );
        assert_eq!(site.hosts[0].ns.sh(&line(5)).unwrap().code, 0);
    }
}

#[test]
fn tcp_crosses_at_100_mbit() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel {
        delay: Duration::from_millis(2),
        ..LinkModel::default()
    };
    let boot = lab.bootstrap_host("boot", 1, Family::V4, model).unwrap();
    let site = lab
        .site("a", 1, NatKind::Symmetric, Family::V4, 1, model)
        .unwrap();
    let to = boot.addrs[0].to_string();
    let took = tcp_transfer(&site.hosts[0].ns, &boot.ns, &to, 10_000_000).unwrap();
    println!("10 MB in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn guests_move_between_bridges() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let a = lab
        .site("a", 1, NatKind::PortRewriting, Family::V4, 2, model)
        .unwrap();
    for host in &a.hosts {
        host.ns.ip("link add br-lab type bridge").unwrap();
        host.ns.ip("link set br-lab up").unwrap();
    }
    let (one, two) = (&a.hosts[0], &a.hosts[1]);
    let vm1 = lab.vm(1, one, "br-lab").unwrap();
    let vm2 = lab.vm(2, one, "br-lab").unwrap();
    let vm3 = lab.vm(3, two, "br-lab").unwrap();
    let reached = |to: &str| Ping::new(to).count(2).run(&vm1.ns).unwrap().received;
    assert_eq!(reached(&vm2.ip), 2);
    assert_eq!(reached(&vm2.ip6), 2);
    assert_eq!(reached(&vm3.ip), 0);
    vm3.unplug_and_move(two, one, "br-lab").unwrap();
    // Forget the failed resolution, which would go on for a while.
    vm1.ns.ip("neigh flush dev eth0").unwrap();
    assert_eq!(reached(&vm3.ip), 2);
}

#[test]
fn nothing_is_left_of_a_lab() {
    require_lab!();
    let lab = Lab::new().unwrap();
    let model = LinkModel::default();
    let site = lab
        .site("a", 1, NatKind::PortRewriting, Family::V4, 1, model)
        .unwrap();
    let sleeper = site.hosts[0].ns.spawn("sleeper", "sleep 1000").unwrap();
    let (pid, dir) = (sleeper.pid(), lab.dir().to_owned());
    let name = site.router.full_name().to_owned();
    assert!(std::path::Path::new("/run/netns").join(&name).exists());
    std::mem::forget(sleeper);
    drop((site, lab));
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
    assert!(!dir.exists());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "{state}");
}
