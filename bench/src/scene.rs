//! The topology: two hosts on one wire, a guest behind a bridge on each.
//!
//! ```text
//!  guest 1 --veth-- [br] host a ===== veth, MTU 1500 ===== host b [br] --veth-- guest 2
//! ```
//! Every contestant gets a scene of its own, made the same way and removed after it: but for idle
//! pings, nothing of one is there while another is measured.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use farlan_tests::lab::{Lab, Ns};
use farlan_tests::proc::{self, wait_for};
use farlan_tests::site::{Family, Host};
use farlan_tests::vm::Vm;
use farlan_tests::wan::model::LinkModel;

/// Addresses of the hosts on the wire.
pub const HOST_IPS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The device that joins the hosts.
pub const WIRE: &str = "wire0";

/// The bridge and the tap that a rival's guests are on; Farlan makes its own.
pub const BRIDGE: &str = "br-bench";
/// The device a rival makes.
pub const TAP: &str = "ov0";

/// One scene.
#[derive(Debug)]
pub struct Scene {
    /// Hosts `a` and `b`.
    pub hosts: [Host; 2],
    /// Where Farlan's bootstrap runs: reached from both hosts by links that carry nothing else.
    pub boot: Host,
    /// The lab, whose directory holds state and logs.
    pub lab: Arc<Lab>,
}

impl Scene {
    /// Two hosts on a wire, with nothing on them yet.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn on_a_wire() -> Result<Self> {
        let lab = Lab::new()?;
        let mut boot = lab.bootstrap_host("boot", 1, Family::V4, LinkModel::default())?;
        // Its place on the WAN stays unused: it serves on the links to the hosts.
        boot.addrs.clear();
        let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
        pair(&a, WIRE, &b, WIRE)?;
        let mut hosts = Vec::new();
        for (index, ns) in [a, b].into_iter().enumerate() {
            let ip = HOST_IPS.get(index).copied().unwrap_or_default();
            ns.ip(&format!("addr add {ip}/24 dev {WIRE}"))?;
            // Some programs ask by their default route which address is theirs.
            let peer = HOST_IPS.get(1 - index).copied().unwrap_or_default();
            ns.ip(&format!("route add default via {peer} dev {WIRE}"))?;
            let n = u8::try_from(index)?;
            // 198.51.100.0/30 to a, 198.51.100.4/30 to b.
            pair(&ns, "boot0", &boot.ns, &format!("host{n}"))?;
            ns.ip(&format!("addr add 198.51.100.{}/30 dev boot0", 4 * n + 1))?;
            let there = Ipv4Addr::new(198, 51, 100, 4 * n + 2);
            boot.ns.ip(&format!("addr add {there}/30 dev host{n}"))?;
            boot.addrs.push(IpAddr::V4(there));
            hosts.push(Host {
                ns,
                addrs: vec![ip.parse()?],
                // The link of the WAN is the bootstrap's, which sends nothing over it.
                link: boot.link,
            });
        }
        let hosts: [Host; 2] = hosts.try_into().ok().context("two hosts")?;
        let scene = Self { hosts, boot, lab };
        for host in &scene.hosts {
            forget_windows(&host.ns)?;
        }
        Ok(scene)
    }

    /// Two hosts on the lab's WAN: `model` is each host's access link, `seed` decides what is lost.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn on_the_wan(model: LinkModel, seed: u64) -> Result<Self> {
        let lab = Lab::with_seed(seed)?;
        let boot = lab.bootstrap_host("boot", 1, Family::V4, model)?;
        let host = |name: &str, n: u8| -> Result<Host> {
            let host = lab.public_host(name, &[Ipv4Addr::new(203, 0, 113, n).into()], model)?;
            forget_windows(&host.ns)?;
            Ok(host)
        };
        let hosts = [host("a", 1)?, host("b", 2)?];
        Ok(Self { hosts, boot, lab })
    }

    /// Makes `br-bench` on both hosts and puts `ov0` on it, once that is there, with `mtu`.
    ///
    /// # Errors
    /// When `ov0` is not there within 10 s.
    pub fn bridge_taps(&self, mtu: u16) -> Result<()> {
        for host in &self.hosts {
            let ns = &host.ns;
            wait_for("the contestant's tap", Duration::from_secs(10), || {
                ns.ip(&format!("link show dev {TAP}")).ok()
            })?;
            ns.ip(&format!("link add {BRIDGE} type bridge stp_state 0"))?;
            // As Farlan's own bridges: no addresses of the host in the guests' network.
            ns.sysctl(&format!("net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1")?;
            ns.ip(&format!("link set {TAP} mtu {mtu}"))?;
            ns.ip(&format!("link set {TAP} master {BRIDGE} up"))?;
            ns.ip(&format!("link set {BRIDGE} up"))?;
        }
        Ok(())
    }

    /// Makes a guest on `bridge` of each host, with `mtu`.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn guests(&self, bridge: &str, mtu: u16) -> Result<[Vm; 2]> {
        let [a, b] = &self.hosts;
        let guests = [self.lab.vm(1, a, bridge)?, self.lab.vm(2, b, bridge)?];
        for (guest, host) in guests.iter().zip([a, b]) {
            forget_windows(&guest.ns)?;
            guest.ns.ip(&format!("link set eth0 mtu {mtu}"))?;
            host.ns
                .ip(&format!("link set {} mtu {mtu}", guest.ns.name()))?;
        }
        Ok(guests)
    }
}

/// Packets that left a host over the wire so far.
///
/// # Errors
/// When the host has no wire.
pub fn sent_over_wire(host: &Ns) -> Result<u64> {
    let file = format!("/sys/class/net/{WIRE}/statistics/tx_packets");
    let text = proc::check(host.command("cat").arg(&file))?;
    text.trim()
        .parse()
        .with_context(|| format!("in {file}: {text:?}"))
}

/// Switches features of a device: `what` is the tail of `ethtool -K DEV`.
///
/// # Errors
/// When `ethtool` refuses.
pub fn ethtool(ns: &Ns, device: &str, what: &str) -> Result<()> {
    proc::check(
        ns.command("ethtool")
            .args(["-K", device])
            .args(what.split_whitespace()),
    )?;
    Ok(())
}

fn pair(left: &Ns, left_name: &str, right: &Ns, right_name: &str) -> Result<()> {
    let full = right.full_name();
    left.ip(&format!(
        "link add {left_name} type veth peer name {right_name} netns {full}"
    ))?;
    left.ip(&format!("link set {left_name} up"))?;
    right.ip(&format!("link set {right_name} up"))?;
    Ok(())
}

fn forget_windows(ns: &Ns) -> Result<()> {
    // One run must not teach the next its window.
    ns.sysctl("net/ipv4/tcp_no_metrics_save", "1")
}
