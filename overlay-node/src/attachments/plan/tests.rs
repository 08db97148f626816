use super::super::Switches;
use super::super::ports::Port;
use super::super::store::{NicPort, VmTap};
use super::*;
use overlay_proto::ethernet::MacAddr;

const BOOT: &str = "this boot";

/// A host with one attachment, all as it should be.
struct Host {
    book: Book,
    links: Vec<Link>,
}

impl Host {
    /// `br-lab` and its tap, made here, with a guest's port.
    fn own() -> Self {
        let mut book = Book::new();
        book.attachments.push(record("br-lab", true));
        let mark = book.mark.clone();
        let mut host = Self {
            book,
            links: vec![link(1, "lo", LinkKind::Other)],
        };
        host.add(10, "br-lab", LinkKind::Bridge).alias = Some(mark.clone());
        let tap = host.add(11, "fl-lab", LinkKind::Tun);
        (tap.alias, tap.master) = (Some(mark), Some(10));
        host.add(12, "vnet0", LinkKind::Tun).master = Some(10);
        host
    }

    /// A user's bridge with the tap and a NIC.
    fn joined() -> Self {
        let mut host = Self::own();
        host.book.attachments = vec![record("br0", false)];
        host.link("br-lab").alias = None;
        host.link("br-lab").name = "br0".to_owned();
        host.link("vnet0").name = "eth1".to_owned();
        host
    }

    fn add(&mut self, index: u32, name: &str, kind: LinkKind) -> &mut Link {
        self.links.push(link(index, name, kind));
        self.links.last_mut().unwrap()
    }

    fn link(&mut self, name: &str) -> &mut Link {
        self.links
            .iter_mut()
            .find(|link| link.name == name)
            .unwrap()
    }

    fn remove(&mut self, name: &str) {
        let index = self.link(name).index;
        self.links.retain(|link| link.name != name);
        for link in &mut self.links {
            link.master = link.master.filter(|master| *master != index);
        }
    }

    fn record(&mut self) -> &mut AttachmentRecord {
        self.book.attachments.first_mut().unwrap()
    }

    fn plan_with(&self, refused: Option<(u32, u32)>) -> Plan {
        let facts = Facts {
            book: &self.book,
            links: &self.links,
            boot: BOOT,
            refused,
        };
        facts.plan(self.book.attachments.first().unwrap())
    }

    fn plan(&self) -> Plan {
        self.plan_with(None)
    }

    fn steps(&self) -> Vec<String> {
        self.plan().steps.iter().map(short).collect()
    }

    /// Nothing is done, and the one finding has these words.
    fn only_told(&self, words: &[&str]) {
        let plan = self.plan();
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        let [finding] = plan.findings.as_slice() else {
            panic!("{:?}", plan.findings);
        };
        for word in words {
            assert!(finding.text.contains(word), "{word}: {}", finding.text);
        }
    }
}

fn record(bridge: &str, bridge_is_ours: bool) -> AttachmentRecord {
    AttachmentRecord {
        network: "lab".parse().unwrap(),
        tap: "fl-lab".to_owned(),
        bridge: bridge.to_owned(),
        bridge_is_ours,
        mtu: 1500,
        addresses: Vec::new(),
        nic: None,
        vms: Vec::new(),
        switches: Switches::default(),
    }
}

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        master: None,
        mtu: 1500,
        mac: MacAddr::ZERO,
        up: true,
        alias: None,
        is_loopback: false,
        carrier: true,
        bridge: None,
        learns: false,
    }
}

fn short(step: &Step) -> String {
    match step {
        Step::MakeBridge => "make bridge".to_owned(),
        Step::MakeTap { name, mtu, .. } => format!("make {name} {mtu}"),
        Step::Rename { link, to } => format!("rename {} {to}", link.name),
        Step::Join { port, bridge } => format!("join {} {}", port.name, bridge.name),
        Step::PutBack { port, bridge } => format!("back {} {}", port.name, bridge.name),
        Step::Up(link) => format!("up {}", link.name),
        Step::SetMtu { link, mtu } => format!("mtu {} {mtu}", link.name),
        Step::TryMtu { bridge, mtu, .. } => format!("try {} {mtu}", bridge.name),
        Step::PlugNic { .. } => "plug".to_owned(),
    }
}

#[test]
fn what_is_as_recorded_needs_nothing() {
    for host in [Host::own(), Host::joined()] {
        let plan = host.plan();
        assert_eq!((plan.steps, plan.findings), (vec![], vec![]));
    }
}

#[test]
fn our_own_interfaces_are_put_back() {
    for joined in [false, true] {
        let bridge = if joined { "br0" } else { "br-lab" };
        let host = || if joined { Host::joined() } else { Host::own() };
        let mut unplugged = host();
        unplugged.link("fl-lab").master = None;
        assert_eq!(unplugged.steps(), [format!("join fl-lab {bridge}")]);
        unplugged.link("fl-lab").master = Some(1);
        assert_eq!(unplugged.steps(), [format!("join fl-lab {bridge}")]);
        let mut gone = host();
        gone.remove("fl-lab");
        assert_eq!(gone.steps(), ["make fl-lab 1500"]);
        let mut down = host();
        down.link("fl-lab").up = false;
        assert_eq!(down.steps(), ["up fl-lab"]);
        let mut renamed = host();
        renamed.link("fl-lab").name = "mine".to_owned();
        assert_eq!(renamed.steps(), ["rename mine fl-lab"]);
        let mut small = host();
        small.link("fl-lab").mtu = 1400;
        assert_eq!(small.steps(), ["mtu fl-lab 1500"]);
    }
}

#[test]
fn the_own_bridge_is_put_back() {
    let mut host = Host::own();
    host.link("br-lab").up = false;
    host.link("br-lab").mtu = 9000;
    assert_eq!(host.steps(), ["up br-lab", "mtu br-lab 1500"]);
    let mut host = Host::own();
    host.link("br-lab").name = "br-x".to_owned();
    assert_eq!(host.steps(), ["rename br-x br-lab"]);
    host.remove("br-x");
    assert_eq!(host.steps(), ["make bridge"]);
}

#[test]
fn guests_ports_are_put_back_on_the_bridge_that_was_made_again() {
    let mut host = Host::own();
    let ports = host.plan().ports.unwrap();
    let port = |name: &str, index| Port {
        name: name.to_owned(),
        index,
    };
    assert_eq!(ports.ports, [port("vnet0", 12)]);
    assert!(host.book.remember(ports.clone()));
    assert!(!host.book.remember(ports));
    // It is off the bridge, which is the same as before: somebody unplugged it.
    host.link("vnet0").master = None;
    assert!(host.plan().steps.is_empty());
    // The bridge is another one.
    let mark = host.book.mark.clone();
    host.remove("br-lab");
    host.add(20, "br-lab", LinkKind::Bridge).alias = Some(mark);
    host.link("fl-lab").master = Some(20);
    assert_eq!(host.steps(), ["back vnet0 br-lab"]);
    // A port that went elsewhere meanwhile, or that only has the name, is left alone.
    host.link("vnet0").master = Some(1);
    assert!(host.steps().is_empty());
    host.link("vnet0").master = None;
    host.link("vnet0").index = 13;
    assert!(host.steps().is_empty());
    host.link("vnet0").index = 12;
    // So is everything after a reboot.
    let mut other = host.plan();
    assert_eq!(other.steps.len(), 1);
    let facts = Facts {
        book: &host.book,
        links: &host.links,
        boot: "another boot",
        refused: None,
    };
    other = facts.plan(host.book.attachments.first().unwrap());
    assert!(other.steps.is_empty());
    // What will not come is not asked for for ever.
    host.book.settle_ports(&"lab".parse().unwrap(), 20);
    assert!(host.steps().is_empty());
}

#[test]
fn what_is_not_ours_is_told_and_left_alone() {
    let mut host = Host::joined();
    host.link("br0").up = false;
    host.only_told(&["br0 is down", "`ip link set br0 up`"]);
    host.link("br0").kind = LinkKind::Other;
    host.only_told(&["br0 is no bridge"]);
    host.remove("br0");
    host.only_told(&["no bridge br0", "farlan detach lab"]);
    for name in ["br-lab", "fl-lab"] {
        let mut host = Host::own();
        host.link(name).alias = None;
        host.only_told(&[name, "did not make", "ip link delete"]);
        // The name was taken, ours is somewhere else: it cannot get its name back.
        let mut host = Host::own();
        host.link(name).name = "mine".to_owned();
        host.add(30, name, LinkKind::Other);
        host.only_told(&[name, "did not make"]);
    }
}

#[test]
fn nobody_knows_which_of_two_was_renamed() {
    let mut host = Host::own();
    host.record().vms.push(VmTap {
        name: "web1".to_owned(),
        owner: 0,
    });
    let mark = host.book.mark.clone();
    let vm = host.add(13, "b", LinkKind::Tun);
    (vm.alias, vm.master) = (Some(mark), Some(10));
    assert_eq!(host.steps(), ["rename b web1"]);
    host.link("fl-lab").name = "a".to_owned();
    assert_eq!(host.steps(), ["make fl-lab 1500", "make web1 1500"]);
}

#[test]
fn taps_of_vms_are_put_back_too() {
    let mut host = Host::own();
    host.record().vms.push(VmTap {
        name: "web1".to_owned(),
        owner: 0,
    });
    assert_eq!(host.steps(), ["make web1 1500"]);
    let mark = host.book.mark.clone();
    let vm = host.add(13, "web1", LinkKind::Tun);
    (vm.alias, vm.up) = (Some(mark), false);
    assert_eq!(host.steps(), ["join web1 br-lab", "up web1"]);
}

#[test]
fn the_tap_follows_a_users_bridge() {
    let mut host = Host::joined();
    // Set by hand.
    host.link("br0").mtu = 9000;
    assert_eq!(host.steps(), ["mtu fl-lab 9000"]);
    host.link("fl-lab").mtu = 9000;
    assert!(host.steps().is_empty());
    // As small as its smallest port, which is not ours.
    host.link("br0").mtu = 1500;
    assert_eq!(host.steps(), ["mtu fl-lab 1500"]);
    // Our port may be all that keeps it small.
    host.link("fl-lab").mtu = 1500;
    host.link("eth1").mtu = 9000;
    assert_eq!(host.steps(), ["try br0 9000"]);
    assert!(host.plan_with(Some((1500, 9000))).steps.is_empty());
    assert_eq!(host.plan_with(Some((1500, 4000))).steps.len(), 1);
    // No tap is larger than taps can be.
    host.link("eth1").mtu = 65_535;
    assert_eq!(host.steps(), ["try br0 65521"]);
    host.link("br0").mtu = 65_535;
    assert_eq!(host.steps(), ["mtu fl-lab 65521"]);
}

#[test]
fn a_nic_is_put_back_unless_somebody_else_has_it() {
    let mut host = Host::own();
    host.record().nic = Some(NicPort {
        name: "eth1".to_owned(),
        was_up: true,
        had_ipv6: false,
        moved: None,
    });
    host.only_told(&["eth1", "is not there", "farlan detach lab --nic eth1"]);
    host.add(14, "eth1", LinkKind::Other);
    assert_eq!(host.steps(), ["plug"]);
    host.link("eth1").master = Some(1);
    host.only_told(&["another bridge", "ip link set eth1 nomaster"]);
    host.link("eth1").master = Some(10);
    assert!(host.plan().findings.is_empty());
    host.link("eth1").up = false;
    assert_eq!(host.steps(), ["up eth1"]);
    host.link("eth1").up = true;
    host.link("eth1").mtu = 1400;
    host.only_told(&["1400", "1500"]);
}
