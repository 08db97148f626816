//! What crosses is a real Ethernet: every kind of frame, byte for byte, to whom it is meant for.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use farlan_tests::frames::{Frame, RawPort, mac};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::Ping;
use farlan_tests::proc::wait_for;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::LinkModel;
use farlan_tests::world::{TAP, World};

const WAIT: Duration = Duration::from_secs(3);
const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
const THREE: [NatKind; 3] = [
    NatKind::PortRewriting,
    NatKind::PortPreserving,
    NatKind::PortRewriting,
];

fn running(nats: &[NatKind]) -> World {
    World::running(nats, Family::V4, LinkModel::default()).unwrap()
}

#[test]
fn arp_and_neighbour_discovery_cross() {
    require_lab!();
    let world = running(&TWO);
    let (a, b) = (&world.vms[0], &world.vms[1]);
    a.ns.ip("neigh flush dev eth0").unwrap();
    assert!(Ping::new(&b.ip).run(&a.ns).unwrap().received >= 4);
    assert!(Ping::new(&b.ip6).run(&a.ns).unwrap().received >= 4);
    let neighbours = a.ns.ip("neigh show dev eth0").unwrap();
    for addr in [&b.ip, &b.ip6] {
        let entry = neighbours
            .lines()
            .find(|l| l.starts_with(&format!("{addr} ")));
        assert!(
            entry.is_some_and(|l| l.contains(&b.mac)),
            "{addr} in {neighbours}"
        );
    }
}

#[test]
fn a_dhcp_lease_crosses() {
    require_lab!();
    let world = running(&TWO);
    let server = &world.vms[0].ns;
    let dir = world.lab.dir();
    let lease = dir.join("leases");
    // In the foreground, no DNS, without reading or writing anything of the machine's own.
    let _dnsmasq = server
        .spawn(
            "dnsmasq",
            &format!(
                "dnsmasq -k -p 0 -C /dev/null -u root -i eth0 --bind-interfaces --log-dhcp \
                 --log-facility=- -F 10.9.0.100,10.9.0.110,1h -l {} -x {}",
                lease.display(),
                dir.join("dnsmasq.pid").display()
            ),
        )
        .unwrap();
    let client = world
        .lab
        .vm_without_address(9, &world.sites[1].hosts[0], "br-lab")
        .unwrap();
    // The script says what was leased and changes nothing.
    let script = dir.join("udhcpc.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] && echo leased $ip\nexit 0\n",
    )
    .unwrap();
    let line = format!(
        "chmod +x {0}; busybox udhcpc -f -n -q -t 10 -T 1 -i eth0 -s {0}",
        script.display()
    );
    let out = client.ns.sh(&line).unwrap();
    assert!(out.stdout.contains("leased 10.9.0.1"), "{out:?}");
    let leases = std::fs::read_to_string(lease).unwrap();
    assert!(leases.contains(&client.mac), "{leases}");
}

#[test]
fn mdns_crosses() {
    require_lab!();
    let world = running(&TWO);
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let socket = |vm: usize| {
        let local: Ipv4Addr = world.vms[vm].ip.parse().unwrap();
        world.vms[vm]
            .ns
            .within(move || {
                let s = UdpSocket::bind(("0.0.0.0", 5353))?;
                s.join_multicast_v4(&group, &local)?;
                Ok(s)
            })
            .unwrap()
    };
    for vm in [0, 1] {
        let ns = &world.vms[vm].ns;
        ns.ip("route add 224.0.0.0/4 dev eth0").unwrap();
    }
    let (sender, receiver) = (socket(0), socket(1));
    receiver.set_read_timeout(Some(WAIT)).unwrap();
    // A query for _http._tcp.local, PTR (RFC 6762).
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(b"\x05_http\x04_tcp\x05local\x00\x00\x0c\x00\x01");
    sender.send_to(&query, (group, 5353)).unwrap();
    let mut buffer = [0; 512];
    let (n, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..n], from.ip().to_string()),
        (&query[..], world.vms[0].ip.clone())
    );
}

#[test]
fn tagged_and_unknown_frames_cross_byte_for_byte() {
    require_lab!();
    let world = running(&TWO);
    let (a, b) = (&world.vms[0], &world.vms[1]);
    let (tx, rx) = (
        RawPort::open(&a.ns, "eth0").unwrap(),
        RawPort::open(&b.ns, "eth0").unwrap(),
    );
    let back = RawPort::open(&a.ns, "eth0").unwrap();
    let (from, to) = (mac(&a.mac), mac(&b.mac));
    let payload: Vec<u8> = (0..1500u16).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
    let small = &payload[..100];
    for frame in [
        // 0x88b5 is the IEEE's ethertype for local experiments.
        Frame::build(to, from, 0x88b5, small),
        Frame::build(to, from, 0x88b5, &payload),
        Frame::build([0xff; 6], from, 0x88b5, small),
        // IPX, an 802.3 length field with LLC, LLDP's neighbour MACsec.
        Frame::build(to, from, 0x8137, small),
        Frame::build(to, from, 100, small),
        Frame::build(to, from, 0x88e5, small),
    ] {
        tx.send(&frame).unwrap();
        let got = rx.recv(WAIT, |f| {
            f.src() == from && f.ethertype() == frame.ethertype()
        });
        assert_eq!(got.as_ref(), Some(&frame));
    }
    // A MAC is known per VLAN: the first frame asks where it is, so both sides speak up.
    for vid in [7, 4094] {
        let hello = Frame::build([0xff; 6], to, 0x88b5, b"here").tagged(vid);
        rx.send(&hello).unwrap();
        let got = back.recv(WAIT, |f| f == &hello);
        assert!(got.is_some(), "broadcast in VLAN {vid}");
        for frame in [
            Frame::build([0xff; 6], from, 0x88b5, small).tagged(vid),
            Frame::build(to, from, 0x88b5, small).tagged(vid),
            Frame::build(to, from, 0x0800, small).tagged(vid),
        ] {
            tx.send(&frame).unwrap();
            let got = rx.recv(WAIT, |f| f == &frame);
            assert!(got.is_some(), "VLAN {vid}: {:x?}", &frame.0[..18]);
        }
    }
}

#[test]
fn unicast_goes_to_one_host_only() {
    require_lab!();
    let world = running(&THREE);
    let (a, b) = (&world.vms[0], &world.vms[1]);
    world.nodes[0]
        .wait_kind("b", "direct", Duration::from_secs(15))
        .unwrap();
    assert!(Ping::new(&b.ip).run(&a.ns).unwrap().received >= 4);
    let third = &world.sites[2];
    let tap = RawPort::open(&third.hosts[0].ns, TAP).unwrap();
    let guest = RawPort::open(&world.vms[2].ns, "eth0").unwrap();
    let before = world.lab.wan().stats(third.link).delivered_bytes;
    let ping = Ping::new(&b.ip)
        .df(1400)
        .count(100)
        .interval(Duration::from_millis(20));
    assert_eq!(ping.run(&a.ns).unwrap().received, 100);
    let bytes = world.lab.wan().stats(third.link).delivered_bytes - before;
    let pair = [mac(&a.mac), mac(&b.mac)];
    let foreign = |f: &Frame| {
        f.dst()[0] & 1 == 0
            && pair.iter().any(|m| f.src() == m)
            && f.dst() != mac(&world.vms[2].mac)
    };
    assert_eq!(tap.drain(foreign).len(), 0, "others' unicast on the tap");
    assert_eq!(
        guest.drain(foreign).len(),
        0,
        "others' unicast at the guest"
    );
    println!("third host received {bytes} bytes during 280,000 bytes of others' unicast");
    assert!(bytes < 30_000, "{bytes}");
}

#[test]
fn an_unknown_mac_is_looked_up_and_only_the_question_carries_a_frame() {
    require_lab!();
    let world = running(&THREE);
    let nobody = mac("52:54:00:99:99:99");
    let ports: Vec<RawPort> = [1, 2]
        .iter()
        .flat_map(|n| {
            let host = &world.sites[*n].hosts[0].ns;
            [
                RawPort::open(host, TAP).unwrap(),
                RawPort::open(&world.vms[*n].ns, "eth0").unwrap(),
            ]
        })
        .collect();
    let before = world.nodes[0].drops("unknown_mac").unwrap();
    let tx = RawPort::open(&world.vms[0].ns, "eth0").unwrap();
    for _ in 0..20 {
        let from = mac(&world.vms[0].mac);
        tx.send(&Frame::build(nobody, from, 0x88b5, b"anybody?"))
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    // Frames wait 2 s for an answer, then they are dropped and counted by name.
    let (after, _) = wait_for("drops counted", Duration::from_secs(10), || {
        let now = world.nodes[0].drops("unknown_mac").ok()?;
        (now > before).then_some(now)
    })
    .unwrap();
    println!("unknown_mac: {before} -> {after}");
    for port in ports {
        // One frame a second goes with the question, while frames for this MAC wait.
        let came = port.drain(|f| f.dst() == nobody).len();
        assert!(came <= 3, "{came} of 20 were flooded");
    }
}
