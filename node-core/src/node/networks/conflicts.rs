//! Warnings of MACs that two hosts hear at once.

use std::time::Instant;

use overlay_proto::directory::ConflictReport;
use overlay_proto::ids::{NetworkName, PeerId};

use super::Networks;
use crate::node::outside::Outside;
use crate::node::views::Called;
use crate::node::warnings::Topic;

/// A MAC of a network that two hosts hear.
#[derive(Debug)]
pub(crate) struct Conflict {
    network: NetworkName,
    report: ConflictReport,
}

impl Conflict {
    /// The two hosts.
    pub(crate) const fn hosts(&self) -> [PeerId; 2] {
        [self.report.owner, self.report.rival]
    }

    /// What the warning is known by.
    fn about(&self) -> String {
        let key = &self.report.key;
        format!("{} {} {}", self.network, key.vlan.get(), key.mac)
    }

    /// What the user is told, who knows the hosts as they are `called`.
    fn tell(&self, called: &Called) -> String {
        let (network, report) = (&self.network, &self.report);
        let (mac, vlan) = (report.key.mac, report.key.vlan.get());
        let vlan = if vlan == 0 {
            String::new()
        } else {
            format!(" in VLAN {vlan}")
        };
        let keeps = if report.frozen {
            "keeps it for as long as it answers, since it moved to and fro too often"
        } else {
            "holds it"
        };
        format!(
            "{mac}{vlan} of network {network} is at two hosts: {} {keeps}, and {} hears it, too; \
             give one of the two machines another MAC, or type `farlan announce {network} {mac}` \
             where it belongs",
            called.of(&report.owner),
            called.of(&report.rival),
        )
    }
}

impl Networks {
    /// The conflicts, as the directories see them now.
    pub(crate) fn conflicts(&self, now: Instant) -> Vec<Conflict> {
        let mut all = Vec::new();
        for network in &self.all {
            all.extend(network.directory.conflicts(now).map(|report| Conflict {
                network: network.secret.name.clone(),
                report,
            }));
        }
        all
    }
}

/// Raises the warnings of these `conflicts` and lowers those of all others.
pub(crate) fn warn(now: Instant, out: &mut Outside, conflicts: &[Conflict], called: &Called) {
    let told: Vec<(String, String)> = conflicts
        .iter()
        .map(|conflict| (conflict.about(), conflict.tell(called)))
        .collect();
    out.warnings.retain(Topic::Conflict, |about| {
        told.iter().any(|(known, _)| known == about)
    });
    for (about, text) in told {
        out.warnings.raise(now, Topic::Conflict, &about, text);
    }
}

#[cfg(test)]
mod tests {
    use overlay_proto::ethernet::{MacAddr, VlanId};
    use overlay_proto::switching::MacKey;

    use super::*;

    #[test]
    fn both_hosts_are_named_and_what_can_be_done() {
        let (owner, rival) = (PeerId([1; 32]), PeerId([2; 32]));
        let called = Called::from_iter([
            (owner, "this node".to_owned()),
            (rival, "oak (2)".to_owned()),
        ]);
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
        let mut conflict = Conflict {
            network: "lab".parse().unwrap(),
            report: ConflictReport {
                key: MacKey {
                    vlan: VlanId::UNTAGGED,
                    mac,
                },
                owner,
                rival,
                frozen: false,
            },
        };
        assert_eq!(conflict.hosts(), [owner, rival]);
        let text = conflict.tell(&called);
        let start = format!(
            "{mac} of network lab is at two hosts: this node holds it, and oak (2) hears it, too;"
        );
        assert!(text.starts_with(&start), "{text}");
        assert!(
            text.contains(&format!("`farlan announce lab {mac}`")),
            "{text}"
        );
        conflict.report.frozen = true;
        let text = conflict.tell(&called);
        assert!(text.contains("this node keeps it for as long as"), "{text}");
    }
}
