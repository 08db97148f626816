//! Reports as tables for people.

use node_core::duration;
use std::collections::BTreeMap;

use nat_traversal::nat_kind::Mapping;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::membership::Utc;

use super::table::{Table, WIDTH, bytes, list, or_dash, telling, wrap};
use crate::control_socket::api::{
    BootstrapReport, BootstrapState, MacReport, NatReport, NetworkReport, PeerReport, ShownName,
    StatusReport,
};

/// All ids begin with the same 8 letters.
pub(super) const LEAST_ID: usize = 12;

/// The words before a fact of the node, and what is below them.
const INDENT: usize = 10;

pub(super) fn status(report: &StatusReport) -> String {
    let member = report
        .member_until
        .map_or_else(|| "-".to_owned(), |until| format!("until {}", Utc(until)));
    let refused = report
        .refused
        .as_ref()
        .map_or_else(String::new, |why| format!("refused   {why}\n"));
    let warnings = report.warnings.iter();
    let warnings: String = warnings.map(|why| format!("warning   {why}\n")).collect();
    let nat = format!(
        "mapping {}{}, filtering {}, seen as {}",
        report.nat.mapping.name(),
        unknown_mapping(&report.nat),
        report.nat.filtering.name(),
        list(&report.nat.reflexive, ", "),
    );
    let own = ShownName {
        name: report.name.clone(),
        signed: report.name_signed,
    };
    let mut text = format!(
        "node      {}\nname      {}\noverlay   {}\nmember    {member}\n{warnings}{refused}\
         version   {}, up {}, workers {}\n{}{}{}\n",
        report.node,
        name(&own),
        report.overlay,
        report.version,
        duration::show(report.uptime_s),
        report.workers,
        fact("listen", &list(&report.listen, ", ")),
        fact("nat", &nat),
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
        let mut table = Table::new(&["DROPS", "COUNT", "MEANING"]).wrap(&["MEANING"]);
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
        (Mapping::Unknown, 0) => " (no bootstrap or peer has reported this node's address yet)",
        (Mapping::Unknown, _) => " (to learn it, a second bootstrap or a direct peer is needed)",
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
        let text = format!("{} {state}{why}", report.addresses.join(" "));
        fact("bootstrap", &text)
    };
    bootstraps.iter().map(line).collect()
}

/// One fact of the node, in as many lines as it needs.
fn fact(word: &str, value: &str) -> String {
    let lines = wrap(value, WIDTH - INDENT);
    let begins = std::iter::once(word).chain(std::iter::repeat(""));
    let lines = begins.zip(lines);
    lines
        .map(|(begin, line)| format!("{begin:INDENT$}{line}\n"))
        .collect()
}

/// A name as people read it: with a `~` in front if the authority did not sign it.
pub(super) fn name(name: &ShownName) -> String {
    match name.name.as_str() {
        "" => "-".to_owned(),
        signed if name.signed => signed.to_owned(),
        said => format!("~{said}"),
    }
}

/// The first letters of `id`.
pub(super) fn short(id: &str, length: usize) -> String {
    id.chars().take(length).collect()
}

pub(super) fn networks(networks: &[NetworkReport]) -> String {
    let heading = [
        "NETWORK", "TAP", "BRIDGE", "NIC", "VMS", "MTU", "OFFLOAD", "CLAMP",
    ];
    let mut table = Table::new(&heading).wrap(&["NIC", "VMS"]);
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
    let heading = [
        "PEER", "NAME", "PATH", "REMOTE", "RTT", "MTU", "TX", "RX", "WHY",
    ];
    let mut table = Table::new(&heading).cut(&["NAME"]).wrap(&["REMOTE", "WHY"]);
    let ids: Vec<String> = peers.iter().map(|peer| peer.node.to_string()).collect();
    let letters = telling(&ids, LEAST_ID);
    for (peer, id) in peers.iter().zip(&ids) {
        let path = &peer.path;
        table.row(vec![
            short(id, letters),
            name(&peer.name),
            kind(peer),
            or_dash(path.remote),
            or_dash(path.rtt_ms.map(|rtt| format!("{rtt:.1}ms"))),
            or_dash(path.mtu),
            bytes(peer.tx_bytes),
            bytes(peer.rx_bytes),
            or_dash(path.why.as_ref()),
        ]);
    }
    table.text() + &reasons(peers)
}

/// What the codes under WHY mean and what helps, each once.
fn reasons(peers: &[PeerReport]) -> String {
    let told: BTreeMap<&String, &String> = peers
        .iter()
        .filter_map(|peer| Some((peer.path.why.as_ref()?, peer.path.why_text.as_ref()?)))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["WHY", "MEANING"]).wrap(&["MEANING"]);
    for (why, meaning) in told {
        table.row(vec![why.clone(), meaning.clone()]);
    }
    format!("\n{}", table.text())
}

pub(super) fn macs(macs: &[MacReport]) -> String {
    let heading = [
        "NETWORK", "VLAN", "MAC", "NODE", "GEN", "KIND", "AGE", "IPS",
    ];
    let mut table = Table::new(&heading).cut(&["NODE"]).wrap(&["IPS"]);
    let ids: Vec<String> = macs.iter().map(|mac| mac.node.to_string()).collect();
    let letters = telling(&ids, LEAST_ID);
    for (mac, id) in macs.iter().zip(&ids) {
        let node = if mac.local {
            "here".to_owned()
        } else if mac.name.name.is_empty() {
            short(id, letters)
        } else {
            name(&mac.name)
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

fn kind(peer: &PeerReport) -> String {
    // The words are those of the JSON.
    let value = serde_json::to_value(peer.path.kind);
    value
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
