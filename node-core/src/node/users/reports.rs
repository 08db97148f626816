//! What `farlan status` and its kin show.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::reasons::{self, Facts};
use crate::underlay::RelaySpot;
use nat_traversal::path::PathKind;
use overlay_proto::directory::Entry;
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::membership::Chain;

use crate::api::{
    MacOrIp, MacReport, MemberReport, NatReport, NetworkReport, PathReport, PeerReport, ShownName,
    StatusReport, UnknownMacReport,
};
use crate::node::introductions::names::Names;
use crate::node::networks::network::Network;
use crate::node::peers::peer::Peer;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// `farlan status`.
    pub(crate) fn status(&self, tick: Tick) -> StatusReport {
        StatusReport {
            node: self.standing.identity.me,
            name: self.standing.identity.name.clone(),
            name_signed: self.standing.identity.membership.name().is_some(),
            overlay: self.standing.identity.membership.overlay(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: tick
                .now
                .duration_since(self.standing.identity.epoch)
                .as_secs(),
            workers: self.publication.workers,
            // The shell knows.
            tasks: 0,
            member_until: self
                .standing
                .identity
                .membership
                .own_member(tick.wall)
                .ok()
                .map(|member| member.member_until),
            warnings: self.outside.warnings.lines().collect(),
            refused: self.standing.last_refusal.clone(),
            bootstraps: self.bootstrap_reports(),
            listen: self.candidates.listen.clone(),
            nat: self.nat_report(tick.now),
            networks: self.network_reports(),
            peers: self.peer_reports(tick.now),
            drops: self.drop_report(),
            unknown: self.unknown_macs(tick),
        }
    }

    fn nat_report(&self, now: Instant) -> NatReport {
        let nat = self.candidates.underlay.nat();
        NatReport {
            mapping: nat.mapping(),
            filtering: nat.filtering(),
            reflexive: self.candidates.underlay.current_reflexive(now),
            observers: nat.observers(),
        }
    }

    fn unknown_macs(&self, tick: Tick) -> Vec<UnknownMacReport> {
        let mut reports = Vec::new();
        for network in &self.networks.all {
            for one in network.directory.unknown(tick.now) {
                reports.push(UnknownMacReport {
                    network: network.secret.name.clone(),
                    vlan: one.key.vlan.get(),
                    mac: one.key.mac,
                    asked: one.asked,
                    dropped: one.dropped,
                    since_s: one.since.as_secs(),
                    last_s: one.last.as_secs(),
                });
            }
        }
        reports.sort_by(|a, b| (&a.network, a.vlan, a.mac).cmp(&(&b.network, b.vlan, b.mac)));
        reports
    }

    fn drop_report(&self) -> BTreeMap<String, u64> {
        self.outside
            .drops
            .occurred()
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect()
    }

    /// `farlan networks`.
    pub(crate) fn network_reports(&self) -> Vec<NetworkReport> {
        self.networks
            .all
            .iter()
            .map(|network| NetworkReport {
                shared: network.shared_reports(self.standing.identity.me, &*self.outside.sight),
                ports: network.port_reports(&*self.outside.sight),
                ..NetworkReport::of(
                    &network.secret,
                    network
                        .attached
                        .as_ref()
                        .map(|record| (record, self.outside.sight.tap_port(&record.tap))),
                )
            })
            .collect()
    }

    /// `farlan peers`: by name, then by id.
    pub(crate) fn peer_reports(&self, now: Instant) -> Vec<PeerReport> {
        let routes = self.candidates.underlay.routes();
        let names = self.names();
        let report = |peer: &Peer| self.peer_report(now, peer, names.get(&peer.id), &routes);
        let mut reports: Vec<PeerReport> = self.peers.known.values().map(report).collect();
        reports.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        reports
    }

    /// One line of it.
    pub(crate) fn report_on(&self, now: Instant, peer: PeerId) -> Option<PeerReport> {
        let routes = self.candidates.underlay.routes();
        let name = self.names().get(&peer);
        Some(self.peer_report(now, self.peers.known.get(&peer)?, name, &routes))
    }

    fn peer_report(
        &self,
        now: Instant,
        peer: &Peer,
        name: ShownName,
        routes: &[RelaySpot],
    ) -> PeerReport {
        let session = self.peers.tunnels.current(peer.id);
        let connected = session.is_some();
        let path = peer.agent.chosen().filter(|_| connected);
        let why = reasons::why(&self.facts(now, peer, routes));
        PeerReport {
            node: peer.id,
            name,
            path: PathReport {
                kind: path.map_or(PathKind::None, |path| path.kind()),
                remote: path.map(|path| path.remote),
                via: path.and_then(|path| self.candidates.underlay.relay_at(&path)),
                why: why.map(|why| why.name().to_owned()),
                why_text: why.map(|why| why.text().to_owned()),
                rtt_ms: peer.agent.rtt().filter(|_| connected).map(|rtt| {
                    // Tenths of a millisecond are what a person reads.
                    (rtt.as_secs_f64() * 10_000.0).round() / 10.0
                }),
                mtu: path.and_then(|_| u16::try_from(peer.agent.path_mtu_payload()).ok()),
            },
            suite: session.map(|session| session.suite().name().to_owned()),
            heard_s: peer
                .heard
                .at
                .map(|at| now.saturating_duration_since(at).as_secs()),
            tx_bytes: peer.counters.tx_bytes.load(Ordering::Relaxed),
            rx_bytes: peer.counters.rx_bytes.load(Ordering::Relaxed),
        }
    }

    fn facts(&self, now: Instant, peer: &Peer, routes: &[RelaySpot]) -> Facts {
        let path = peer.agent.chosen();
        let last = path.or(peer.last_path);
        let relayed = last.filter(|path| path.relay.is_some());
        Facts {
            infra_up: self.candidates.is_any_up(),
            admitted: self.standing.last_refusal.is_none()
                && self
                    .standing
                    .identity
                    .membership
                    .without_receipt()
                    .next()
                    .is_none(),
            udp_blocked: self.candidates.underlay.is_udp_blocked(),
            session: self.peers.tunnels.current(peer.id).is_some(),
            was_reached: peer.heard.in_session,
            path: last.map_or(PathKind::None, |path| path.kind()),
            has_path: path.is_some(),
            relay_answers: relayed.map(|path| self.candidates.underlay.relay_answers(&path)),
            introduced: peer.static_key.is_some(),
            greeted: peer.greeted,
            relay_in_common: peer.whereabouts.has_relay_in_common(routes),
            just_dialled: peer.attempts.just_dialled(now),
            agent: peer.agent.reason(),
        }
    }

    /// `farlan members`, this node among them.
    pub(crate) fn member_reports(&self, name: Option<&NetworkName>) -> Vec<MemberReport> {
        let names = self.names();
        let mut all: BTreeMap<PeerId, MemberReport> = BTreeMap::new();
        for network in &self.networks.all {
            if name.is_some_and(|name| *name != network.secret.name) {
                continue;
            }
            for (node, chain) in network.directory.certificates() {
                let Ok(chain) = Chain::decode(chain) else {
                    continue;
                };
                let report = all.entry(node).or_insert_with(|| MemberReport {
                    node,
                    name: names.get(&node),
                    networks: Vec::new(),
                    invite: chain.claimed_invite().to_string(),
                    joined: chain.claimed_joined(),
                    member_until: chain.claimed_end(),
                    certificate: chain.to_text(),
                });
                report.networks.push(network.secret.name.clone());
            }
        }
        all.into_values().collect()
    }

    /// `farlan macs`.
    pub(crate) fn mac_reports(&self, tick: Tick, name: Option<&NetworkName>) -> Vec<MacReport> {
        let names = self.names();
        let mut reports = Vec::new();
        for network in &self.networks.all {
            if name.is_none_or(|name| *name == network.secret.name) {
                let entries = network.directory.entries(tick.now);
                reports.extend(entries.map(|entry| mac_report(network, &entry, &names)));
            }
        }
        reports.sort_by(|a: &MacReport, b| {
            (&a.network, a.vlan, a.mac).cmp(&(&b.network, b.vlan, b.mac))
        });
        reports
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

fn mac_report(network: &Network, entry: &Entry, names: &Names) -> MacReport {
    let port = entry.local.then(|| network.port_shown(&entry.key));
    let (port, vm) = port.flatten().unzip();
    MacReport {
        network: network.secret.name.clone(),
        vlan: entry.key.vlan.get(),
        mac: entry.key.mac,
        node: entry.owner,
        name: names.get(&entry.owner),
        local: entry.local,
        port,
        vm: vm.flatten(),
        generation: entry.generation,
        contested: entry.contested,
        kind: entry.kind,
        ips: entry.ips.clone(),
        age_s: (entry.age.as_secs_f64() * 10.0).round() / 10.0,
    }
}
