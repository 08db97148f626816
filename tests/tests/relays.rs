//! How much the relay carries: the quota's worth of TCP, and without a quota a good part of what the
//! direct path carries.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farlan_tests::lab::{Lab, Ns};
use farlan_tests::overlay::{Authority, Bootstrap, InviteSpec, Node};
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::require_lab;
use farlan_tests::site::{Family, Host};
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK};

const LIMIT: Duration = Duration::from_secs(30);
/// What joins the two hosts; without it they meet at the relay only.
const WIRE: &str = "wire0";

/// Two hosts, each on a wire to the bootstrap's, and one between them. Nothing is slow. Dropped from
/// top to bottom: the programs end before the lab does.
struct Star {
    nodes: Vec<Node>,
    boot: Bootstrap,
    vms: Vec<Vm>,
    lab: Arc<Lab>,
}

fn pair(a: &Ns, a_name: &str, b: &Ns, b_name: &str) {
    let there = b.full_name();
    a.ip(&format!(
        "link add {a_name} type veth peer name {b_name} netns {there}"
    ))
    .unwrap();
    a.ip(&format!("link set {a_name} up")).unwrap();
    b.ip(&format!("link set {b_name} up")).unwrap();
}

impl Star {
    /// Running, with more arguments for the bootstrap.
    fn start(more: &[&str]) -> Self {
        let lab = Lab::new().unwrap();
        let model = LinkModel::default();
        let mut host = lab.bootstrap_host("boot", 1, Family::V4, model).unwrap();
        // Its place on the WAN stays unused.
        host.addrs.clear();
        let ends = ["a", "b"].map(|name| lab.namespace(name).unwrap());
        pair(&ends[0], WIRE, &ends[1], WIRE);
        for (n, end) in (0_u8..).zip(&ends) {
            let wire = format!("addr add 203.0.113.{}/24 dev {WIRE}", n + 1);
            end.ip(&wire).unwrap();
            pair(end, "boot0", &host.ns, &format!("host{n}"));
            let own = format!("addr add 198.51.100.{}/30 dev boot0", 4 * n + 1);
            end.ip(&own).unwrap();
            let there = Ipv4Addr::new(198, 51, 100, 4 * n + 2);
            let addr = format!("addr add {there}/30 dev host{n}");
            host.ns.ip(&addr).unwrap();
            host.addrs.push(IpAddr::V4(there));
        }
        let authority = Authority::init(&lab, "main", &[NETWORK]).unwrap();
        let boot = Bootstrap::start_with(&host, &authority.id, more).unwrap();
        let (mut nodes, mut vms) = (Vec::new(), Vec::new());
        for (n, end) in (0_u8..).zip(ends) {
            let host = Host {
                ns: end,
                addrs: vec![Ipv4Addr::new(203, 0, 113, n + 1).into()],
                link: host.link,
            };
            let name = host.ns.name().to_owned();
            let mut node = Node::new(&host, &name);
            let invite = authority.invite(&InviteSpec {
                networks: &[NETWORK],
                name: &name,
                bootstraps: &boot.addresses,
                expires: "1h",
            });
            let joined = node.join(&invite.unwrap()).unwrap();
            assert_eq!(joined.code, 0, "{joined:?}");
            node.farlan(&["attach", NETWORK]).unwrap();
            node.up_and_ready().unwrap();
            vms.push(lab.vm(n + 1, &host, BRIDGE).unwrap());
            nodes.push(node);
        }
        let star = Self {
            nodes,
            boot,
            vms,
            lab,
        };
        first_ping(&star.vms[1].ns, &star.vms[0].ip, Instant::now(), LIMIT).unwrap();
        star
    }

    /// Cuts the wire between the hosts; returns once both nodes use the relay, with the size proven.
    fn relay_only(&self) {
        self.nodes[0]
            .host
            .ns
            .ip(&format!("link set {WIRE} down"))
            .unwrap();
        let ping = Ping::new(&self.vms[1].ip).count(1_000);
        let _traffic = ping.spawn(&self.vms[0].ns).unwrap();
        for (node, peer) in [(0, "b"), (1, "a")] {
            let ready = |path: &farlan_tests::overlay::PathView| {
                path.kind == "relayed" && path.mtu == 1_444
            };
            let (path, took) = self.nodes[node].wait_path(peer, LIMIT, ready).unwrap();
            println!("{path:?} after {took:?}");
        }
    }

    /// One TCP stream from guest 1 to guest 2 for so long, in Mbit/s of what arrives.
    fn mbit(&mut self, time: Duration) -> f64 {
        let before = self.used();
        let [a, b] = [&self.vms[0], &self.vms[1]];
        let (bytes, took) = stream(&a.ns, &b.ns, &b.ip, time);
        let used: Vec<_> = std::iter::zip(before, self.used())
            .map(|(before, after)| format!("{:.2}", (after - before) * 1e9 / bytes as f64))
            .collect();
        let mbit = bytes as f64 * 8.0 / took.as_secs_f64() / 1e6;
        println!(
            "{bytes} bytes in {took:?}: {mbit:.0} Mbit/s; CPU s/GB of a, b, bootstrap: {used:?}"
        );
        mbit
    }

    /// CPU seconds of the nodes and the bootstrap so far.
    fn used(&mut self) -> Vec<f64> {
        let pids = self.nodes.iter_mut().map(|node| node.process().pid());
        let pids: Vec<_> = pids.chain([self.boot.process.pid()]).collect();
        let used = |pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // Behind the name: user and system time are the 12th and the 13th, in hundredths.
            let (_, rest) = stat.rsplit_once(") ").unwrap();
            let ticks = rest.split(' ').skip(11).take(2);
            ticks.map(|t| t.parse::<f64>().unwrap()).sum::<f64>() / 100.0
        };
        pids.into_iter().map(used).collect()
    }

    /// Segments that the guest's kernel has sent again.
    fn retransmitted(&self) -> u64 {
        let snmp = self.vms[0].ns.sh("cat /proc/net/snmp").unwrap().stdout;
        let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
        let mut both = names.split(' ').zip(values.split(' '));
        let (_, value) = both.find(|(name, _)| *name == "RetransSegs").unwrap();
        value.parse().unwrap()
    }
}

/// Sends for `time`; returns how many bytes arrived, and how long that took.
fn stream(from: &Ns, to: &Ns, ip: &str, time: Duration) -> (u64, Duration) {
    let addr = SocketAddr::new(ip.parse().unwrap(), 7002);
    let listener = to.within(move || Ok(TcpListener::bind(addr)?)).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (start, mut got) = (Instant::now(), 0);
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            got += n as u64;
        }
        (got, start.elapsed())
    });
    from.within(move || {
        let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
        let (start, block) = (Instant::now(), vec![7; 128 << 10]);
        while start.elapsed() < time {
            stream.write_all(&block)?;
        }
        Ok(())
    })
    .unwrap();
    receiver.join().unwrap()
}

#[test]
fn a_relayed_stream_gets_its_quota() {
    require_lab!();
    let mut star = Star::start(&[]);
    star.relay_only();
    let before = star.retransmitted();
    let mbit = star.mbit(Duration::from_secs(5));
    let again = star.retransmitted() - before;
    println!("sample relay_quota_mbit {mbit:.1}, {again} segments sent again");
    assert!(mbit >= 90.0, "{mbit} of 100 Mbit/s");
    assert!(mbit <= 101.0, "{mbit} Mbit/s are above the quota");
    // Of 36,000; TCP finds the rate by losing some.
    assert!(again <= 800, "{again} segments sent again");
    // Whoever sends little beside it is not starved, and waits for the short queue at most.
    let (from, to) = (star.vms[0].ns.clone(), star.vms[1].ip.clone());
    let pings = std::thread::spawn(move || Ping::new(&to).count(10).run(&from).unwrap());
    star.mbit(Duration::from_millis(2_500));
    let pings = pings.join().unwrap();
    println!("beside the stream: {pings:?}");
    assert!(pings.received >= 8 && pings.mean_ms < 40.0, "{pings:?}");
    // But for what a kernel says when an interface comes up.
    assert!(star.lab.wan().stats(star.boot.host.link).sent_bytes < 1_000);
}

#[test]
fn a_relay_without_a_quota_carries_a_good_part_of_the_direct_path() {
    require_lab!();
    let mut star = Star::start(&["--relay-quota-mbit", "100000"]);
    star.nodes[0].wait_kind("b", "direct", LIMIT).unwrap();
    star.nodes[1].wait_kind("a", "direct", LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let best = |star: &mut Star| {
        (0..3)
            .map(|_| star.mbit(Duration::from_secs(1)))
            .fold(0.0, f64::max)
    };
    let direct = best(&mut star);
    star.relay_only();
    let relayed = best(&mut star);
    let share = relayed / direct;
    println!("sample relay_share {share:.2}: {relayed:.0} of {direct:.0} Mbit/s");
    assert!(share >= 0.4, "{relayed} of {direct} Mbit/s");
}
