//! A guest that forwards in software: it copies frames from one interface to another as bytes, and
//! does not see that a kernel has left a checksum to be completed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use farlan_tests::frames::{RawPort, mac};
use farlan_tests::lab::Ns;
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, tcp_transfer};
use farlan_tests::proc::Proc;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::traffic::no_offloads;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{BRIDGE, NETWORK, World};

const LIMIT: Duration = Duration::from_secs(15);
/// The station behind the copying guest.
const MAC: &str = "52:54:00:00:00:63";
const NAME: &str = "printer.lan.test";

/// The copying guest at site b. It ends when dropped.
struct Copier {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Copier {
    /// Copies what `MAC` sends from `inside` to `outside`, and all else from `outside` to `inside`.
    fn start(ns: &Ns, inside: &str, outside: &str) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let threads = [(inside, outside, true), (outside, inside, false)]
            .map(|(from, to, of_inside)| {
                let (from, to) = (open(ns, from), open(ns, to));
                let ends = ends.clone();
                std::thread::spawn(move || {
                    // A port shows what goes out by it, too.
                    let comes = |src: &[u8]| (src == mac(MAC)) == of_inside;
                    while !ends.load(Ordering::Relaxed) {
                        let frame = from.recv(Duration::from_millis(100), |f| comes(f.src()));
                        if let Some(frame) = frame {
                            // One longer than the MTU is refused, as any switch would.
                            let _ = to.send(&frame);
                        }
                    }
                })
            })
            .into();
        Self { ends, threads }
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(ns: &Ns, dev: &str) -> RawPort {
    RawPort::open(ns, dev).unwrap()
}

/// DHCP and DNS at guest 1.
fn services(world: &World) -> Proc {
    let server = &world.vms[0];
    let pid = world.lab.dir().join("dnsmasq.pid");
    let line = format!(
        "dnsmasq -k -C /dev/null -u root -i eth0 --bind-interfaces --no-resolv --no-hosts \
         --dhcp-range=10.9.0.100,10.9.0.120,1h --address=/{NAME}/10.9.0.77 --pid-file={}",
        pid.display()
    );
    server.ns.spawn("dnsmasq", &line).unwrap()
}

/// A station with `eth0` behind a guest of site b that copies frames.
fn station(world: &World) -> (Ns, Copier) {
    let host = &world.sites[1].hosts[0].ns;
    let firewall = world.lab.namespace("firewall").unwrap();
    let station = world.lab.namespace("station").unwrap();
    let (full, behind) = (firewall.full_name(), station.full_name());
    host.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        .unwrap();
    host.ip(&format!(
        "link add fw0 type veth peer name out netns {full}"
    ))
    .unwrap();
    host.ip(&format!("link set fw0 master {BRIDGE} up"))
        .unwrap();
    firewall
        .ip(&format!(
            "link add in type veth peer name eth0 address {MAC} netns {behind}"
        ))
        .unwrap();
    for dev in ["in", "out"] {
        firewall.ip(&format!("link set {dev} up")).unwrap();
    }
    station.ip("link set eth0 up").unwrap();
    // What this station's own kernel would leave to its NIC is not the matter.
    no_offloads(&station, "eth0").unwrap();
    let copier = Copier::start(&firewall, "in", "out");
    (station, copier)
}

/// A few bytes each way over TCP.
fn few_bytes(from: &Ns, to: &Ns, ip: &str) {
    let addr = SocketAddr::new(ip.parse().unwrap(), 7003);
    let listener = to.within(move || Ok(TcpListener::bind(addr)?)).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = [0; 100];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&[8; 600]).unwrap();
    });
    from.within(move || {
        let mut stream = TcpStream::connect_timeout(&addr, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&[7; 100])?;
        let mut got = [0; 600];
        Ok(stream.read_exact(&mut got)?)
    })
    .unwrap();
    server.join().unwrap();
}

#[test]
fn dhcp_and_dns_pass_a_guest_that_copies_frames() {
    require_lab!();
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    world.nodes[0].wait_kind("b", "direct", LIMIT).unwrap();
    let _services = services(&world);
    let (station, _copier) = station(&world);

    let script = world.lab.dir().join("udhcpc.sh");
    let lines = "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n";
    std::fs::write(&script, lines).unwrap();
    let dhcp = format!(
        "chmod +x {0}; busybox udhcpc -f -n -q -t 10 -T 1 -i eth0 -s {0}",
        script.display()
    );
    let done = station.sh(&dhcp).unwrap();
    println!("{}{}", done.stdout, done.stderr);
    assert_eq!(done.code, 0, "no lease: {done:?}");

    let server = &world.vms[0].ip;
    let asked = station
        .sh(&format!("busybox nslookup {NAME} {server}"))
        .unwrap();
    assert!(asked.stdout.contains("10.9.0.77"), "{asked:?}");
    let pings = Ping::new(server).count(5).run(&station).unwrap();
    assert_eq!(pings.received, 5);
    few_bytes(&station, &world.vms[0].ns, server);

    // Megabytes come merged, which only --no-offload ends.
    let said = world.nodes[1].farlan(&["attach", NETWORK, "--no-offload"]);
    println!("{}", said.unwrap().trim());
    let own = station.sh("ip -4 -o addr show dev eth0").unwrap().stdout;
    let own = own
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/24"));
    let took = tcp_transfer(&world.vms[0].ns, &station, own.unwrap(), 1_000_000).unwrap();
    println!("1 MB to {own:?} in {took:?}");
}
