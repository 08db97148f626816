//! Reports as tables for people.

use overlay_proto::drop_reason::DropReason;
use overlay_proto::membership::Utc;

use super::duration;
use super::output::{Table, or_dash};
use crate::control_socket::api::{MacReport, NetworkReport, PeerReport, StatusReport};

pub(super) fn status(report: &StatusReport) -> String {
    let name = if report.name.is_empty() {
        "-"
    } else {
        &report.name
    };
    let reflexive: Vec<_> = report
        .nat
        .reflexive
        .iter()
        .map(ToString::to_string)
        .collect();
    let seen = if reflexive.is_empty() {
        "-".to_owned()
    } else {
        reflexive.join(", ")
    };
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
         nat       mapping {}, filtering {}, seen as {seen}\n\n",
        report.node,
        report.overlay,
        report.version,
        duration::show(report.uptime_s),
        report.workers,
        report.nat.mapping.name(),
        report.nat.filtering.name(),
    );
    text.push_str(&networks(&report.networks));
    text.push('\n');
    text.push_str(&peers(&report.peers));
    let drops: Vec<_> = report
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .collect();
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

pub(super) fn networks(networks: &[NetworkReport]) -> String {
    let mut table = Table::new(&["NETWORK", "TAP", "BRIDGE", "MTU", "OFFLOAD", "CLAMP"]);
    for network in networks {
        table.row(vec![
            network.name.to_string(),
            or_dash(network.tap.as_ref()),
            or_dash(network.bridge.as_ref()),
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
    let heading = ["NETWORK", "VLAN", "MAC", "NODE", "GENERATION", "AGE", "IPS"];
    let mut table = Table::new(&heading);
    for mac in macs {
        let ips: Vec<_> = mac.ips.iter().map(ToString::to_string).collect();
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
            format!("{:.0}s", mac.age_s),
            or_dash(Some(ips.join(" ")).filter(|ips| !ips.is_empty())),
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
