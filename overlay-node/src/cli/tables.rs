//! Reports as tables for people.

use nat_traversal::nat_kind::Mapping;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::membership::Utc;

use super::duration;
use super::output::{Table, or_dash};
use crate::control_socket::api::{
    BootstrapReport, BootstrapState, MacReport, NatReport, NetworkReport, PeerReport, StatusReport,
};

pub(super) fn status(report: &StatusReport) -> String {
    let name = if report.name.is_empty() {
        "-"
    } else {
        &report.name
    };
    let seen = list(&report.nat.reflexive, ", ");
    let member = report
        .member_until
        .map_or_else(|| "-".to_owned(), |until| format!("until {}", Utc(until)));
    let refused = report
        .refused
        .as_ref()
        .map_or_else(String::new, |why| format!("refused   {why}\n"));
    let warnings = report.warnings.iter();
    let warnings: String = warnings.map(|why| format!("warning   {why}\n")).collect();
    let mut text = format!(
        "node      {}\nname      {name}\noverlay   {}\nmember    {member}\n{warnings}{refused}\
         version   {}, up {}, workers {}\n\
         listen    {}\n\
         nat       mapping {}{}, filtering {}, seen as {seen}\n{}\n",
        report.node,
        report.overlay,
        report.version,
        duration::show(report.uptime_s),
        report.workers,
        list(&report.listen, ", "),
        report.nat.mapping.name(),
        unknown_mapping(&report.nat),
        report.nat.filtering.name(),
        bootstraps(&report.bootstraps),
    );
    text.push_str(&networks(&report.networks));
    text.push('\n');
    text.push_str(&peers(&report.peers));
    let drops: Vec<_> = report
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .collect();
    if !report.unknown.is_empty() {
        let mut table = Table::new(&["UNKNOWN MAC", "VLAN", "NETWORK", "ASKED", "DROPPED", "LAST"]);
        for one in &report.unknown {
            table.row(vec![
                one.mac.to_string(),
                one.vlan.to_string(),
                one.network.to_string(),
                one.asked.to_string(),
                one.dropped.to_string(),
                format!("{}s", one.last_s),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    if !drops.is_empty() {
        let mut table = Table::new(&["DROPS", "COUNT", "MEANING"]);
        for (reason, count) in drops {
            let known = DropReason::ALL.iter().find(|known| known.name() == reason);
            let meaning = known.map_or("", |known| known.meaning());
            table.row(vec![reason.clone(), count.to_string(), meaning.to_owned()]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

/// Why the mapping is not known: one observer's word cannot show it.
fn unknown_mapping(nat: &NatReport) -> &'static str {
    match (nat.mapping, nat.observers) {
        (Mapping::Unknown, 0) => " (nobody has seen this node yet)",
        (Mapping::Unknown, _) => " (a second bootstrap, or a direct peer, would show it)",
        _ => "",
    }
}

/// A line for each bootstrap.
fn bootstraps(bootstraps: &[BootstrapReport]) -> String {
    let line = |report: &BootstrapReport| {
        let state = match (report.state, report.udp) {
            (BootstrapState::Down, _) => "down",
            (BootstrapState::Up, Some(true)) => "up, answers by UDP",
            (BootstrapState::Up, Some(false)) => "up, but SILENT by UDP",
            (BootstrapState::Up, None) => "up",
        };
        let why = report.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        format!("bootstrap {} {state}{why}\n", report.addresses.join(" "))
    };
    bootstraps.iter().map(line).collect()
}

pub(super) fn networks(networks: &[NetworkReport]) -> String {
    let heading = [
        "NETWORK", "TAP", "BRIDGE", "NIC", "VMS", "MTU", "OFFLOAD", "CLAMP",
    ];
    let mut table = Table::new(&heading);
    for network in networks {
        table.row(vec![
            network.name.to_string(),
            or_dash(network.tap.as_ref()),
            or_dash(network.bridge.as_ref()),
            or_dash(network.nic.as_ref()),
            list(&network.vms, " "),
            network.mtu.to_string(),
            or_dash(network.offload.map(on_off)),
            or_dash(network.clamp.map(on_off)),
        ]);
    }
    table.text()
}

const fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

pub(super) fn peers(peers: &[PeerReport]) -> String {
    let mut table = Table::new(&[
        "PEER", "NAME", "PATH", "REMOTE", "RTT", "MTU", "SUITE", "TX", "RX", "WHY",
    ]);
    for peer in peers {
        let path = &peer.path;
        let name = Some(&peer.name).filter(|name| !name.is_empty());
        table.row(vec![
            peer.node.to_string(),
            or_dash(name),
            kind(peer),
            or_dash(path.remote),
            or_dash(path.rtt_ms.map(|rtt| format!("{rtt:.1}ms"))),
            or_dash(path.mtu),
            or_dash(peer.suite.as_ref()),
            peer.tx_bytes.to_string(),
            peer.rx_bytes.to_string(),
            or_dash(path.why.as_ref()),
        ]);
    }
    table.text()
}

pub(super) fn macs(macs: &[MacReport]) -> String {
    let heading = [
        "NETWORK",
        "VLAN",
        "MAC",
        "NODE",
        "GENERATION",
        "KIND",
        "AGE",
        "IPS",
    ];
    let mut table = Table::new(&heading);
    for mac in macs {
        let node = if mac.local {
            "here".to_owned()
        } else {
            mac.node.to_string()
        };
        table.row(vec![
            mac.network.to_string(),
            mac.vlan.to_string(),
            mac.mac.to_string(),
            node,
            mac.generation.to_string(),
            format!("{:?}", mac.kind).to_lowercase(),
            format!("{:.0}s", mac.age_s),
            list(&mac.ips, " "),
        ]);
    }
    table.text()
}

/// All of `items`, or a dash.
fn list<T: ToString>(items: &[T], between: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    or_dash(Some(items.join(between)).filter(|text| !text.is_empty()))
}

fn kind(peer: &PeerReport) -> String {
    // The words are those of the JSON.
    let value = serde_json::to_value(peer.path.kind);
    value
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
