//! Byte identity: random frames cross and are compared from captures on both sides. Under loss and
//! reordering some may be missing; none may be altered, doubled or invented.

use std::collections::HashMap;
use std::time::Duration;

use farlan_tests::frames::{Frame, RawPort};
use farlan_tests::nat::NatKind;
use farlan_tests::probe::tcp_transfer;
use farlan_tests::require_lab;
use farlan_tests::site::Family;
use farlan_tests::wan::model::{Chance, LinkModel};
use farlan_tests::world::{BRIDGE, NETWORK, TAP, World};

const TWO: [NatKind; 2] = [NatKind::PortRewriting, NatKind::PortPreserving];
/// Neither is a guest's own: no kernel answers, so all that is seen with them was sent here.
const FROM: [u8; 6] = [0x52, 0x54, 0, 0x1d, 0xe0, 1];
const TO: [u8; 6] = [0x52, 0x54, 0, 0x1d, 0xe0, 2];
const ALL: [u8; 6] = [0xff; 6];
/// The IEEE's ethertype for local experiments.
const EXPERIMENT: u16 = 0x88b5;
const VLANS: [u16; 2] = [100, 4094];
/// Header and addresses of an untagged frame.
const HEADER: usize = 14;

/// Random frames of every kind that a guest may send.
struct Frames {
    chance: Chance,
    /// The largest payload, in bytes.
    mtu: usize,
}

impl Frames {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.chance.next_u64() % n as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.chance.next_u64() as u8).collect()
    }

    /// Half of all sizes are drawn evenly, the others lie at the edges.
    fn size(&mut self, least: usize) -> usize {
        let edges = [
            least,
            46,
            47,
            1131,
            1132,
            1175,
            1176,
            self.mtu - 1,
            self.mtu,
        ];
        if self.below(2) == 0 {
            edges[self.below(edges.len())].max(least)
        } else {
            least + self.below(self.mtu - least + 1)
        }
    }

    fn next(&mut self) -> Frame {
        let (ethertype, mut payload, tags) = match self.below(8) {
            0 | 1 => (EXPERIMENT, self.random(), vec![]),
            2 => {
                // Unknown to everybody, or an 802.3 length.
                let known = [0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x8035, 0x8808];
                let one = self.below(0x1_0000) as u16;
                let one = if known.contains(&one) { 0x1234 } else { one };
                (one, self.random(), vec![])
            }
            3 => {
                let vid = VLANS[self.below(2)] | (self.below(8) as u16) << 13;
                // Linux drops a tag with less than two bytes behind its ethertype.
                let len = self.size(2);
                (EXPERIMENT, self.bytes(len), vec![(0x8100, vid)])
            }
            4 => {
                // 802.1ad: the outer tag is the one that counts.
                let tags = vec![(0x88a8, VLANS[0]), (0x8100, 7)];
                (EXPERIMENT, self.random(), tags)
            }
            5 => (0x86dd, self.ipv6(), vec![]),
            _ => (0x0800, self.ipv4(), vec![]),
        };
        // Linux has room of its own for one tag of 802.1Q only.
        let room = self.mtu - if tags.len() == 2 { 8 } else { 0 };
        payload.truncate(room);
        let mut frame = [&TO[..], &FROM].concat();
        for (kind, tag) in tags {
            frame.extend_from_slice(&u16::to_be_bytes(kind));
            frame.extend_from_slice(&u16::to_be_bytes(tag));
        }
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(&payload);
        Frame(frame)
    }

    fn random(&mut self) -> Vec<u8> {
        let len = self.size(0);
        self.bytes(len)
    }

    /// UDP with a zero checksum, or a fragment, the first or a later one.
    fn ipv4(&mut self) -> Vec<u8> {
        let len = self.size(28);
        let mut packet = self.bytes(len);
        packet[..2].copy_from_slice(&[0x45, 0]);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let fragment: u16 = [0x4000, 0, 0x2000, 0x2010, 0x0010][self.below(5)];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[8..12].copy_from_slice(&[64, 17, 0, 0]);
        packet[12..20].copy_from_slice(&[10, 9, 0, 101, 10, 9, 0, 102]);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        if fragment & 0x1fff == 0 {
            packet[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
            packet[26..28].fill(0);
        }
        packet
    }

    /// Hop-by-hop, routing and destination options, perhaps a fragment header, then UDP.
    fn ipv6(&mut self) -> Vec<u8> {
        let len = self.size(40 + 32 + 8);
        let mut packet = self.bytes(len);
        packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&[0, 64]);
        packet[8..24].copy_from_slice(&[0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        packet[24..40].copy_from_slice(&[0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        let last = [44, 60][self.below(2)];
        packet[40..48].copy_from_slice(&[43, 0, 1, 4, 0, 0, 0, 0]);
        packet[48..56].copy_from_slice(&[60, 0, 4, 0, 0, 0, 0, 0]);
        packet[56..64].copy_from_slice(&[last, 0, 1, 4, 0, 0, 0, 0]);
        let second = if last == 44 {
            [17, 0, 0, 1, 0, 0, 0, 9]
        } else {
            [17, 0, 1, 4, 0, 0, 0, 0]
        };
        packet[64..72].copy_from_slice(&second);
        packet[78..80].fill(0);
        packet
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Raw ports of one pair of guests, and what has passed them.
struct Line {
    tx: RawPort,
    /// At the sender's port of its host's bridge.
    sent: RawPort,
    rx: RawPort,
}

const SAFE: Duration = Duration::from_secs(5);

impl Line {
    fn open(world: &World) -> Self {
        let (a, b) = (&world.vms[0], &world.vms[1]);
        let line = Self {
            tx: RawPort::open(&a.ns, "eth0").unwrap(),
            sent: RawPort::open(&world.sites[0].hosts[0].ns, "vm1").unwrap(),
            rx: RawPort::open(&b.ns, "eth0").unwrap(),
        };
        // Both MACs say where they are, in every VLAN, and the first frame each way has come.
        for vid in [None, Some(VLANS[0]), Some(VLANS[1])] {
            let tag = |frame: Frame| vid.map_or(frame.clone(), |vid| frame.tagged(vid));
            let here = tag(Frame::build(ALL, TO, EXPERIMENT, b"here"));
            line.rx.send(&here).unwrap();
            assert!(line.tx.recv(SAFE, |f| *f == here).is_some(), "{vid:?}");
            let there = tag(Frame::build(TO, FROM, EXPERIMENT, b"there"));
            line.tx.send(&there).unwrap();
            assert!(line.rx.recv(SAFE, |f| *f == there).is_some(), "{vid:?}");
        }
        line.sent.drain(|_| false);
        line
    }

    /// Sends `count` frames, `burst` at a time, and waits for them before the next, `patience` for
    /// each: so no queue of a loaded machine runs over. Gives how many came, all unchanged.
    fn run(&self, frames: &mut Frames, count: usize, burst: usize, patience: Duration) -> usize {
        let ours = |f: &Frame| f.0.len() >= HEADER && f.src() == FROM && f.dst() == TO;
        let mut captured: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut got = Vec::new();
        for begin in (0..count).step_by(burst) {
            let sent = burst.min(count - begin);
            for _ in 0..sent {
                self.tx.send(&frames.next()).unwrap();
            }
            got.extend((0..sent).map_while(|_| self.rx.recv(patience, ours)));
            for frame in self.sent.drain(ours) {
                *captured.entry(frame.0).or_default() += 1;
            }
        }
        assert_eq!(captured.values().sum::<usize>(), count, "the capture");
        while let Some(frame) = self.rx.recv(Duration::from_secs(1), ours) {
            got.push(frame);
        }
        for frame in &got {
            match captured.get_mut(&frame.0) {
                Some(left) if *left > 0 => *left -= 1,
                Some(_) => panic!("{} bytes came twice: {:02x?}", frame.0.len(), frame.0),
                None => panic!("{} bytes nobody sent: {:02x?}", frame.0.len(), frame.0),
            }
        }
        let mut missing: Vec<usize> = captured
            .iter()
            .flat_map(|(frame, left)| std::iter::repeat_n(frame.len(), *left))
            .collect();
        missing.sort_unstable();
        missing.truncate(40);
        println!("lengths of missing frames, the shortest: {missing:?}");
        got.len()
    }
}

fn switch_bridge_netfilter_off(world: &World) {
    // The lab's namespaces have it off; where it is on, the kernel cuts fragments anew.
    for site in &world.sites {
        let read = site.hosts[0]
            .ns
            .sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo 0")
            .unwrap();
        assert_eq!(read.stdout.trim(), "0");
    }
}

#[test]
fn random_frames_cross_unchanged_under_loss_and_reordering() {
    require_lab!();
    let seed = 11;
    println!("frames from seed {seed}");
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    switch_bridge_netfilter_off(&world);
    world.nodes[0]
        .wait_kind("b", "direct", Duration::from_secs(15))
        .unwrap();
    let line = Line::open(&world);
    let mut frames = Frames {
        chance: Chance::new(seed),
        mtu: 1500,
    };
    let count = 2000;
    for (loss, reorder, least) in [
        (0.0, 0.0, 1.0),
        (0.0, 0.1, 1.0),
        (0.01, 0.1, 0.9),
        (0.1, 0.1, 0.5),
    ] {
        for site in &world.sites {
            // Half on either access line.
            let model = LinkModel {
                loss: loss / 2.0,
                reorder,
                ..LinkModel::default()
            };
            world.lab.wan().set_model(site.link, model);
        }
        let came = {
            // A frame takes 25 ms; where none is lost, a slow machine may take its time.
            let patience = Duration::from_millis(if loss == 0.0 { 3000 } else { 100 });
            line.run(&mut frames, count, 32, patience)
        };
        println!("loss {loss} reordering {reorder}: {came} of {count} frames, each as sent");
        assert!(came as f64 >= least * count as f64, "{came} of {count}");
    }
    let (a, b) = (&world.vms[0], &world.vms[1]);
    for site in &world.sites {
        let model = LinkModel {
            loss: 0.005,
            ..LinkModel::default()
        };
        world.lab.wan().set_model(site.link, model);
    }
    let took = tcp_transfer(&a.ns, &b.ns, &b.ip, 1_000_000).unwrap();
    println!("1,000,000 checked bytes of TCP under 1 % loss in {took:?}");
}

#[test]
fn random_frames_cross_unchanged_with_offloads_on_off_and_mixed() {
    require_lab!();
    let world = World::running(&TWO, Family::V4, LinkModel::default()).unwrap();
    switch_bridge_netfilter_off(&world);
    world.nodes[0]
        .wait_kind("b", "direct", Duration::from_secs(15))
        .unwrap();
    let line = Line::open(&world);
    let mut frames = Frames {
        chance: Chance::new(13),
        mtu: 1500,
    };
    for (at_a, at_b) in [
        ("--no-offload", "--no-offload"),
        ("--offload", "--no-offload"),
        ("--no-offload", "--offload"),
        ("--offload", "--offload"),
    ] {
        for (node, flag) in world.nodes.iter().zip([at_a, at_b]) {
            node.farlan(&["attach", NETWORK, flag]).unwrap();
        }
        let came = line.run(&mut frames, 500, 32, Duration::from_secs(3));
        println!("{at_a} {at_b}: {came} of 500 frames, each as sent");
        assert_eq!(came, 500);
    }
}

#[test]
fn jumbo_frames_cross_unchanged() {
    require_lab!();
    const MTU: usize = 9000;
    let world = World::running_with_mtu(&TWO, MTU as u16).unwrap();
    for (site, vm) in world.sites.iter().zip(&world.vms) {
        let host = &site.hosts[0].ns;
        let tap = host.ip(&format!("link show {TAP}")).unwrap();
        assert!(tap.contains(&format!("mtu {MTU} ")), "{tap}");
        for port in ["vm1", "vm2"] {
            if host.ip(&format!("link show {port}")).is_ok() {
                host.ip(&format!("link set {port} mtu {MTU}")).unwrap();
            }
        }
        host.ip(&format!("link set {BRIDGE} mtu {MTU}")).unwrap();
        vm.ns.ip(&format!("link set eth0 mtu {MTU}")).unwrap();
    }
    world.nodes[0]
        .wait_kind("b", "direct", Duration::from_secs(15))
        .unwrap();
    let line = Line::open(&world);
    let mut frames = Frames {
        chance: Chance::new(12),
        mtu: MTU,
    };
    let came = line.run(&mut frames, 500, 4, Duration::from_secs(3));
    println!("{came} of 500 frames of up to {MTU} bytes of payload, each as sent");
    assert_eq!(came, 500);
}
