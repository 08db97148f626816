//! What users are told of LANs that other nodes are plugged into, too.

use std::collections::BTreeMap;
use std::time::Instant;

use overlay_proto::ethernet::VlanId;
use overlay_proto::ids::PeerId;
use overlay_proto::segment::{SegmentId, SegmentReport};
use overlay_proto::switching::NetIndex;

use super::Networks;
use super::network::Network;
use crate::api::SharedLanReport;
use crate::node::outside::Outside;
use crate::node::sight::HostSight;
use crate::node::warnings::Topic;

impl Networks {
    /// What to warn of at the LANs of `net`, by VLAN. `host`: what this host is called; `called`: what the others are.
    pub(crate) fn find_shared_lans(
        &self,
        net: NetIndex,
        (me, host): (PeerId, &str),
        sight: &dyn HostSight,
        called: impl Fn(PeerId) -> String,
    ) -> BTreeMap<VlanId, String> {
        let Some(network) = self.all.get(usize::from(net.0)) else {
            return BTreeMap::new();
        };
        let reports = network.lan.machine.report();
        let texts = reports.iter().map(|report| {
            let shared = network.shared_report(me, sight, report);
            let name = network.secret.name.as_str();
            (report.vlan, warning(name, host, report, &shared, &called))
        });
        texts.collect()
    }

    /// Raises and lowers the warnings of the LANs of `net`.
    pub(crate) fn warn_of_shared_lans(
        &self,
        now: Instant,
        out: &mut Outside,
        net: NetIndex,
        texts: BTreeMap<VlanId, String>,
    ) {
        let Some(network) = self.all.get(usize::from(net.0)) else {
            return;
        };
        let prefix = format!("{}/", network.secret.name);
        let texts = texts.into_iter();
        let texts: BTreeMap<String, String> = texts
            .map(|(vlan, text)| (format!("{prefix}{}", vlan.get()), text))
            .collect();
        let stays = |about: &str| !about.starts_with(&prefix) || texts.contains_key(about);
        out.warnings.retain(Topic::SharedLan, stays);
        for (about, text) in texts {
            out.warnings.raise(now, Topic::SharedLan, &about, text);
        }
    }
}

impl Network {
    /// For `farlan status`.
    pub(crate) fn shared_reports(&self, me: PeerId, sight: &dyn HostSight) -> Vec<SharedLanReport> {
        let reports = self.lan.machine.report();
        let reports = reports.iter();
        reports
            .map(|report| self.shared_report(me, sight, report))
            .collect()
    }

    fn shared_report(
        &self,
        me: PeerId,
        sight: &dyn HostSight,
        report: &SegmentReport,
    ) -> SharedLanReport {
        let peer = |id: &SegmentId| self.lan.peer(id);
        let others = report.others.iter();
        let mut forwards = others.clone().filter(|(_, forwards)| *forwards);
        SharedLanReport {
            vlan: report.vlan.get(),
            port: port_of(sight, self, report),
            forwarder: if report.open {
                Some(me)
            } else {
                forwards.next().and_then(|(id, _)| peer(id))
            },
            others: others.filter_map(|(id, _)| peer(id)).collect(),
        }
    }
}

/// `host`: what this host is called.
fn warning(
    network: &str,
    host: &str,
    report: &SegmentReport,
    shared: &SharedLanReport,
    called: &impl Fn(PeerId) -> String,
) -> String {
    let others: Vec<String> = shared.others.iter().map(|p| called(*p)).collect();
    let vlan = match report.vlan {
        VlanId::UNTAGGED => String::new(),
        vlan => format!(" (VLAN {})", vlan.get()),
    };
    let role = match shared.forwarder {
        _ if report.open => "this node carries its frames, the others stand by".to_owned(),
        Some(peer) => format!("{} carries its frames, this node stands by", called(peer)),
        None => "nobody carries its frames yet".to_owned(),
    };
    format!(
        "network {network}: the LAN behind {}{vlan} is plugged in at this host ({host}) and at {}; {role}; \
         to end that: farlan detach {network} at all of them but one",
        shared.port,
        others.join(", "),
    )
}

/// The port by which the others are heard; if the bridge does not tell, the NIC or the bridge.
fn port_of(sight: &dyn HostSight, network: &Network, report: &SegmentReport) -> String {
    let Some(record) = &network.attached else {
        return String::new();
    };
    let mut macs = report.others.iter().map(|(id, _)| id.mac());
    let port = macs.find_map(|mac| {
        let port = sight.port_behind(&record.bridge, mac);
        port.filter(|port| *port != record.tap)
    });
    let nic = record.nic.as_ref().map(|nic| nic.name.clone());
    port.or(nic).unwrap_or_else(|| record.bridge.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: PeerId = PeerId([1; 32]);
    const OAK: PeerId = PeerId([2; 32]);

    fn told(vlan: VlanId, open: bool, forwarder: Option<PeerId>) -> String {
        let report = SegmentReport {
            vlan,
            open,
            others: Vec::new(),
        };
        let shared = SharedLanReport {
            vlan: vlan.get(),
            port: "eth1".to_owned(),
            forwarder,
            others: vec![OAK],
        };
        warning("lab", "elm", &report, &shared, &|peer| {
            assert_eq!(peer, OAK, "this host has its own name");
            "oak".to_owned()
        })
    }

    #[test]
    fn a_warning_says_who_carries_the_frames() {
        let open = told(VlanId::UNTAGGED, true, Some(ME));
        let where_ = "the LAN behind eth1 is plugged in at this host (elm) and at oak; ";
        assert!(
            open.contains(&format!("{where_}this node carries")),
            "{open}"
        );
        let shut = told(VlanId::new(10).unwrap(), false, Some(OAK));
        assert!(
            shut.contains("eth1 (VLAN 10)")
                && shut.contains("oak carries its frames, this node stands by")
        );
        assert!(told(VlanId::UNTAGGED, false, None).contains("nobody carries"));
    }
}
