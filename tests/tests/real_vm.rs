//! A guest that is a real virtual machine: QEMU opens the tap of `attach --vm`, a Linux kernel
//! with virtio-net boots behind it and talks to a guest at another site.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farlan_tests::lab::{Lab, Ns};
use farlan_tests::machine::{Contents, Image};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::{Ping, first_ping};
use farlan_tests::proc::{Proc, wait_for};
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::traffic::{Received, no_offloads};
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{NETWORK, World};

/// With what they need; some kernels have some of them built in.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_net"];

/// The machine's first program: an address from the kernel's command line, a TCP echo, UDP
/// to the first guest, and what it received and refused, each second, on the console.
const INIT: &str = r"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
INSMOD
for word in $(cat /proc/cmdline); do
    case $word in vmip=*) ip address add ${word#vmip=} dev eth0 ;; esac
done
ip link set eth0 up
echo the machine is up
(while :; do nslookup machine.test 10.9.0.1; sleep 1; done) >/dev/null 2>&1 &
(while :; do echo counters; grep -E '^(Tcp|Udp):' /proc/net/snmp; echo end; sleep 1; done) &
while :; do nc -l -p 7001 -e cat; done
";

fn image(lab: &Lab) -> Result<Image> {
    let contents = Contents {
        modules: &MODULES,
        programs: &[],
        init: INIT,
    };
    Image::pack(lab.dir(), &contents)
}

/// What QEMU leaves to the machine's driver unless it is told otherwise.
const NO_GUEST_OFFLOADS: &str = ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,\
     host_ufo=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

fn serial(ns: &Ns) -> PathBuf {
    ns.lab().dir().join("machine-serial.log")
}

/// Starts the machine in `ns`, with its network card, which has these `options`, on `tap`.
fn boot(
    ns: &Ns,
    image: &Image,
    tap: &str,
    (mac, options): (&str, &str),
    address: &str,
) -> Result<Proc> {
    let words = format!("vmip={address}");
    let qemu = ns.command("qemu-system-x86_64");
    let mut cmd = image.qemu(qemu, 128, &serial(ns), &words);
    let netdev = format!("tap,id=n,ifname={tap},script=no,downscript=no");
    let device = format!("virtio-net-pci,netdev=n,mac={mac},romfile={options}");
    cmd.args(["-netdev", &netdev, "-device", &device]);
    Proc::spawn(&mut cmd, &ns.lab().dir().join("machine.log"))
}

/// Sends bytes to the machine's echo and compares what comes back.
fn echo(ns: &Ns, to: &'static str, bytes: usize) -> Result<()> {
    ns.within(move || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let sent: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let (mut writer, copy) = (stream.try_clone()?, sent.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy)?;
            writer.shutdown(Shutdown::Write)
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        writing.join().unwrap()?;
        ensure!(
            received == sent,
            "{} of {bytes} bytes came back",
            received.len()
        );
        Ok(())
    })
}

/// What the machine's kernel said last that it has received.
fn received(host: &Ns) -> Result<Received> {
    let text = fs::read(serial(host))?;
    let text = String::from_utf8_lossy(&text);
    let (whole, _) = text.rsplit_once("end").context("no counters yet")?;
    let (_, last) = whole.rsplit_once("counters").context("no counters")?;
    Received::parse(last)
}

/// TCP both ways and datagrams of odd sizes to the machine; no checksum is wrong anywhere.
fn assert_right_sums(world: &World) {
    let (guest, host) = (&world.vms[0].ns, &world.sites[1].hosts[0].ns);
    // It answers pings before it has said anything of its counters.
    let counts = || received(host).ok();
    let (before, _) = wait_for("the machine counts", Duration::from_secs(10), counts).unwrap();
    let told = Received::by(guest).unwrap();
    echo(guest, "10.9.0.77:7001", 1_000_001).unwrap();
    let sent = guest
        .within(|| {
            // To a closed port: the machine's kernel looks at the checksum first.
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let sizes = [1, 63, 64, 65, 999, 1471, 1472, 3001];
            for size in sizes {
                socket.send_to(&vec![7; size], "10.9.0.77:9")?;
            }
            Ok(sizes.len() as u64)
        })
        .unwrap();
    let all = || {
        let now = received(host).ok()?;
        (now.datagrams >= before.datagrams + sent).then_some(now)
    };
    let (now, _) = wait_for(
        "the machine has all datagrams",
        Duration::from_secs(10),
        all,
    )
    .unwrap();
    // It asks for a name each second; nobody listens there, but the kernel looks at the checksum first.
    let asked = || {
        Received::by(guest)
            .ok()
            .filter(|here| here.datagrams > told.datagrams)
    };
    let (here, _) = wait_for("a datagram of the machine", Duration::from_secs(10), asked).unwrap();
    println!("the machine: {before:?}, then {now:?}; the guest: {here:?}");
    assert!(now.segments > before.segments + 10 && here.segments > 10);
    assert_eq!((now.wrong, here.wrong), (0, 0));
}

#[test]
fn a_real_machine_gets_right_checksums_with_its_offloads_on_and_off() {
    require_lab!();
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED real_vm: its kernel is for x86-64");
        return;
    }
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    let image = image(&world.lab).unwrap();
    let (node, host) = (&world.nodes[1], &world.sites[1].hosts[0].ns);
    no_offloads(&world.sites[0].hosts[0].ns, "vm1").unwrap();
    node.farlan(&["attach", NETWORK, "--vm", "web1"]).unwrap();
    for options in ["", NO_GUEST_OFFLOADS] {
        let card = ("52:54:00:00:00:77", options);
        let mut machine = boot(host, &image, "web1", card, "10.9.0.77/24").unwrap();
        let limit = Duration::from_secs(60);
        if first_ping(&world.vms[0].ns, "10.9.0.77", Instant::now(), limit).is_err() {
            panic!("{}", machine.log());
        }
        for flag in ["--offload", "--no-offload"] {
            println!("the machine's card: virtio{options}; the attachment: {flag}");
            node.farlan(&["attach", NETWORK, flag]).unwrap();
            assert_right_sums(&world);
        }
        machine.stop(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn a_real_machine_on_a_vm_tap_talks_to_a_guest_at_another_site() {
    require_lab!();
    if cfg!(not(target_arch = "x86_64")) {
        println!("SKIPPED real_vm: its kernel is for x86-64");
        return;
    }
    let nats = [NatKind::PortRewriting, NatKind::PortPreserving];
    let world = World::running(&nats, Family::V4, LinkModel::default()).unwrap();
    let image = image(&world.lab).unwrap();
    let (node, host) = (&world.nodes[1], &world.sites[1].hosts[0].ns);
    let (tap, mac) = ("web1", "52:54:00:00:00:77");
    node.farlan(&["attach", NETWORK, "--vm", tap]).unwrap();
    let start = Instant::now();
    let mut machine = boot(host, &image, tap, (mac, ""), "10.9.0.77/24").unwrap();
    let guest = &world.vms[0].ns;
    let took = first_ping(guest, "10.9.0.77", start, Duration::from_secs(60));
    if took.is_err() {
        world.lab.print_logs();
        assert!(machine.is_running(), "{}", machine.log());
    }
    println!(
        "machine started to first ping from the other site: {:?}",
        took.unwrap()
    );
    let ping = Ping::new("10.9.0.77").df(1472).run(guest).unwrap();
    println!("full-size pings: {ping:?}");
    assert_eq!(ping.received, ping.sent);
    let known = world.nodes[0]
        .wait_mac(mac, Duration::from_secs(5))
        .unwrap();
    assert_eq!(known["node"], node.id().unwrap().as_str());
    echo(guest, "10.9.0.77:7001", 500_000).unwrap();
    // The tap waits for the machine's next start.
    machine.stop(Duration::from_secs(5)).unwrap();
    let link = host.ip(&format!("-d link show {tap}")).unwrap();
    assert!(
        link.contains("persist on") && link.contains("master br-lab"),
        "{link}"
    );
    assert!(Path::new("/run/netns").join(host.full_name()).exists());
}
