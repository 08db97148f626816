//! What is looked at on this host alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use nat_traversal::host::HostView;
use tap_bridge::Links;

use super::Finding;
use super::reach::Reached;
use crate::attachments::{self, AttachmentRecord};
use crate::config::DEFAULT_PORT;
use crate::control_socket::api::StatusReport;
use crate::state::StateDir;
use node_core::duration;

/// Bit of `CAP_NET_ADMIN` (`capabilities(7)`).
const CAP_NET_ADMIN: u32 = 12;

/// Clocks that differ by more, in seconds, make invites and memberships seem to have ended.
const CLOCK_TOLERANCE_S: u64 = 600;

/// Below this MTU of the underlay not even the smallest datagrams of full frames pass: 1,200 bytes
/// sealed, 28 or 48 bytes of UDP and IP.
const LEAST_MTU: u32 = 1_248;

const TUN: &str = "/dev/net/tun";

pub(super) fn tun() -> Finding {
    let opened = std::fs::File::options().read(true).write(true).open(TUN);
    match opened {
        Ok(_) => Finding::ok("tun", format!("{TUN} opens")),
        Err(error) => Finding::fail(
            "tun",
            format!("{TUN} does not open: {error}"),
            "type `modprobe tun` as root; in a container, start it with --device /dev/net/tun",
        ),
    }
}

pub(super) fn rights(status: Option<&StatusReport>) -> Finding {
    if status.is_some() {
        return Finding::ok("rights", "the node runs");
    }
    let effective = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if has_capability(&effective, CAP_NET_ADMIN) {
        Finding::ok("rights", "this user may change interfaces (CAP_NET_ADMIN)")
    } else {
        Finding::fail(
            "rights",
            "this user may not change interfaces (no CAP_NET_ADMIN)",
            "run farlan as root, or by the unit farlan.service; in a container, start it with \
             --cap-add NET_ADMIN",
        )
    }
}

fn has_capability(proc_status: &str, bit: u32) -> bool {
    proc_status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> bit & 1 == 1)
}

/// Only told where the kernel has no bridge yet: then it may have none at all.
pub(super) fn bridging() -> Option<Finding> {
    let there = Path::new("/sys/module/bridge").exists();
    (!there).then(|| {
        Finding::note(
            "bridge",
            "the kernel's bridge is not loaded yet; attaching a network loads it",
        )
    })
}

/// Is the node's UDP port free, or the node's own?
pub(super) fn own_port(state: &StateDir, status: Option<&StatusReport>) -> Finding {
    if let Some(status) = status {
        let ports: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
        return Finding::ok(
            "port",
            format!("the node takes frames at UDP {}", ports.join(", ")),
        );
    }
    let kept = state.load_ports().ok().and_then(|ports| ports.udp4);
    let port = kept.unwrap_or(DEFAULT_PORT);
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Finding::ok("port", format!("UDP {port} is free for the node")),
        Err(error) => Finding::warning(
            "port",
            format!("UDP {port} cannot be bound: {error}"),
            format!(
                "see who has it with `ss -ulpn sport = {port}`; the node takes another port by itself, or \
                 the one that its option --listen names"
            ),
        ),
    }
}

pub(super) fn clock(status: Option<&StatusReport>) -> Finding {
    let set = "set it, as root: timedatectl set-ntp true";
    let measured = status
        .into_iter()
        .flat_map(|status| &status.bootstraps)
        .find_map(|one| Some((one.node, one.clock_ahead_s?)));
    if let Some((node, ahead_s)) = measured {
        let by = duration::show(ahead_s.unsigned_abs());
        let way = if ahead_s > 0 { "behind" } else { "ahead of" };
        let evidence = format!("{by} {way} that of bootstrap {node}");
        return match ahead_s.unsigned_abs() {
            0..=5 => Finding::ok("clock", format!("that of bootstrap {node}")),
            6..=120 => Finding::note("clock", evidence),
            121..=CLOCK_TOLERANCE_S => Finding::warning("clock", evidence, set),
            _ => Finding::fail("clock", evidence, set),
        };
    }
    // Without a node nobody has told the time. Is it kept at least?
    let kept = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    let word = kept.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    match word.as_deref() {
        Ok("yes") => Finding::ok("clock", "synchronized by NTP"),
        Ok("no") => Finding::warning("clock", "not synchronized by NTP", set),
        _ => Finding::note(
            "clock",
            "not compared: a running node compares it with the bootstrap's",
        ),
    }
}

/// Has this host a way out by IPv6? Connecting a UDP socket asks the routes and sends nothing.
pub(super) fn ipv6() -> Finding {
    // Any global address; 2001:db8::/32 has the route of all others.
    let anywhere = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    match own_address_towards(anywhere) {
        Some(ip) => Finding::ok("ipv6", format!("there is a route to the world, from {ip}")),
        None => Finding::note(
            "ipv6",
            "no route to the world; peers that have only IPv6 are not reached",
        ),
    }
}

/// The address that datagrams to `to` leave from.
pub(super) fn own_address_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

/// This host's links and addresses; empty where the kernel does not tell.
pub(super) fn view() -> HostView {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let view = runtime.ok().and_then(|runtime| {
        runtime.block_on(async { Links::connect().ok()?.host_view(&[]).await.ok() })
    });
    view.unwrap_or_default()
}

/// The MTU of the interface that leads to the bootstraps.
pub(super) fn mtu(reached: &[Reached], view: &HostView) -> Option<Finding> {
    let to = reached.iter().find_map(|one| one.addresses().next())?;
    let ip = own_address_towards(to)?;
    let own = view.addresses.iter().find(|own| own.net.addr() == ip)?;
    let name = &view.links.iter().find(|link| link.index == own.link)?.name;
    let read = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?;
    let mtu: u32 = read.trim().parse().ok()?;
    Some(if mtu < LEAST_MTU {
        Finding::warning(
            "mtu",
            format!(
                "{name}, the way out, has an MTU of {mtu}: datagrams of {LEAST_MTU} bytes do not fit"
            ),
            format!("type: ip link set {name} mtu 1280"),
        )
    } else {
        Finding::ok("mtu", format!("{mtu} on {name}, the way out"))
    })
}

/// Does a firewall (Docker's, mostly) drop what is bridged?
pub(super) fn firewall(state: &StateDir) -> Vec<Finding> {
    let records = attachments::load(state.path()).unwrap_or_default();
    let mut findings = Vec::new();
    for record in &records {
        for opening in tap_bridge::firewall::needed(&record.bridge) {
            findings.push(Finding::fail(
                "firewall",
                format!(
                    "the host's firewall drops {} between the ports of {}",
                    opening.family, record.bridge
                ),
                format!("type: {}", opening.command),
            ));
        }
    }
    if findings.is_empty() {
        let evidence = if records.is_empty() {
            "nothing is attached yet; attaching a network looks at it"
        } else {
            "lets pass what is bridged"
        };
        findings.push(Finding::ok("firewall", evidence));
    }
    findings
}

/// Is what goes round in a loop of an own bridge with a NIC held until a port is shut? Nothing where there is none.
pub(super) fn loops(state: &StateDir) -> Vec<Finding> {
    let records = attachments::load(state.path()).unwrap_or_default();
    let ours = records
        .iter()
        .filter(|record| record.bridge_is_ours && record.nic.is_some());
    let finding = |record: &AttachmentRecord| {
        let (bridge, tap) = (&record.bridge, &record.tap);
        let not_held =
            format!("what goes round in a loop of {bridge} is not held until a port is shut");
        match tap_bridge::loop_filter::is_held(bridge, tap) {
            Ok(true) => Finding::ok(
                "loops",
                format!("what goes round in a loop of {bridge} is held"),
            ),
            Ok(false) => Finding::warning(
                "loops",
                not_held,
                format!("type: farlan attach {}", record.network),
            ),
            Err(why) => Finding::warning(
                "loops",
                format!("{not_held}: {why}"),
                "install nftables; where it is there, look as root",
            ),
        }
    };
    ours.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_proc() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n";
        assert!(has_capability(all, CAP_NET_ADMIN));
        let none = "Name:\tx\nCapEff:\t0000000000000000\n";
        assert!(!has_capability(none, CAP_NET_ADMIN));
        assert!(!has_capability("", CAP_NET_ADMIN));
        assert!(has_capability("CapEff:\t0000000000001000\n", CAP_NET_ADMIN));
    }
}
