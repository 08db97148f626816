//! What `farlan status` and its kin show.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use nat_traversal::path::{Path, PathKind};
use overlay_proto::directory::Entry;
use overlay_proto::ids::NetworkName;

use super::network::Network;
use super::node::Tick;
use super::peer::Peer;
use super::run::Driver;
use crate::control_socket::api::{
    MacOrIp, MacReport, NatReport, NetworkReport, PathReport, PeerReport, StatusReport,
};

impl Driver {
    /// `farlan status`.
    pub(crate) fn status(&self, tick: Tick) -> StatusReport {
        StatusReport {
            node: self.node.me,
            name: self.node.name.clone(),
            overlay: self.node.membership.overlay(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: tick.now.duration_since(self.node.epoch).as_secs(),
            workers: self.workers.len(),
            tasks: tokio::runtime::Handle::try_current()
                .map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
            member_until: self
                .node
                .membership
                .own_member(tick.wall)
                .ok()
                .map(|member| member.member_until),
            warnings: self
                .warnings
                .lines()
                .chain(self.silent_bootstraps())
                .collect(),
            refused: self.last_refusal.clone(),
            listen: self.sender.local_addrs(),
            nat: self.nat_report(),
            networks: self.network_reports(),
            peers: self.peer_reports(),
            drops: self.drop_report(),
        }
    }

    fn nat_report(&self) -> NatReport {
        let nat = self.underlay.nat();
        NatReport {
            mapping: nat.mapping(),
            filtering: nat.filtering(),
            reflexive: self.underlay.reflexive(),
        }
    }

    fn drop_report(&self) -> BTreeMap<String, u64> {
        self.drops
            .occurred()
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect()
    }

    /// `farlan networks`.
    pub(crate) fn network_reports(&self) -> Vec<NetworkReport> {
        self.networks
            .iter()
            .map(|network| NetworkReport::of(&network.secret, network.attached.as_ref()))
            .collect()
    }

    /// `farlan peers`: by name, then by id.
    pub(crate) fn peer_reports(&self) -> Vec<PeerReport> {
        let mut reports: Vec<PeerReport> = self
            .peers
            .values()
            .map(|peer| self.peer_report(peer))
            .collect();
        reports.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        reports
    }

    fn peer_report(&self, peer: &Peer) -> PeerReport {
        let session = self.tunnels.current(peer.id);
        let connected = session.is_some();
        let path = peer.agent.chosen().filter(|_| connected);
        PeerReport {
            node: peer.id,
            name: peer.name.clone().unwrap_or_default(),
            path: PathReport {
                kind: path.map_or(PathKind::None, |path| path.kind()),
                remote: path.map(|path| path.remote),
                via: path.and_then(|path| self.underlay.relay_at(&path)),
                why: self.why_no_better(peer, connected),
                rtt_ms: peer.agent.rtt().filter(|_| connected).map(|rtt| {
                    // Tenths of a millisecond are what a person reads.
                    (rtt.as_secs_f64() * 10_000.0).round() / 10.0
                }),
                mtu: path.and_then(|_| u16::try_from(peer.agent.path_mtu_payload()).ok()),
            },
            suite: session.map(|session| session.suite().name().to_owned()),
            tx_bytes: peer.counters.tx_bytes.load(Ordering::Relaxed),
            rx_bytes: peer.counters.rx_bytes.load(Ordering::Relaxed),
        }
    }

    fn why_no_better(&self, peer: &Peer, connected: bool) -> Option<String> {
        let silent = |path: Path| path.relay.is_some() && !self.underlay.relay_answers(&path);
        if peer.relay_lost || peer.agent.chosen().is_some_and(silent) {
            return Some("relay-lost".to_owned());
        }
        if !connected {
            // No path was probed: nothing can be sealed for it.
            return Some("no-session".to_owned());
        }
        let reason = peer.agent.reason()?;
        Some(reason.name().to_owned())
    }

    /// `farlan macs`.
    pub(crate) fn mac_reports(&self, tick: Tick, name: Option<&NetworkName>) -> Vec<MacReport> {
        let mut reports = Vec::new();
        for network in &self.networks {
            if name.is_none_or(|name| *name == network.secret.name) {
                let entries = network.directory.entries(tick.now);
                reports.extend(entries.map(|entry| self.mac_report(network, &entry)));
            }
        }
        reports.sort_by(|a: &MacReport, b| {
            (&a.network, a.vlan, a.mac).cmp(&(&b.network, b.vlan, b.mac))
        });
        reports
    }

    fn mac_report(&self, network: &Network, entry: &Entry) -> MacReport {
        MacReport {
            network: network.secret.name.clone(),
            vlan: entry.key.vlan.get(),
            mac: entry.key.mac,
            node: entry.owner,
            local: entry.local,
            generation: entry.generation,
            ips: entry.ips.clone(),
            age_s: (entry.age.as_secs_f64() * 10.0).round() / 10.0,
        }
    }

    /// `farlan where`: what is known now of one address.
    pub(crate) fn where_is(
        &self,
        tick: Tick,
        what: &MacOrIp,
        name: Option<&NetworkName>,
    ) -> Vec<MacReport> {
        let mut reports = self.mac_reports(tick, name);
        reports.retain(|report| match what {
            MacOrIp::Mac(mac) => report.mac == *mac,
            MacOrIp::Ip(ip) => report.ips.contains(ip),
        });
        reports
    }
}
