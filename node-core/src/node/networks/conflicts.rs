//! Warnings of MACs that two hosts hear at once.

use overlay_proto::directory::ConflictReport;
use overlay_proto::ids::{NetworkName, PeerId};

use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

impl Node {
    /// Raises and lowers the warnings of conflicts, as the directories see them now.
    pub(crate) fn warn_of_conflicts(&mut self, tick: Tick) {
        let mut now = Vec::new();
        for network in &self.networks.all {
            let name = &network.secret.name;
            for conflict in network.directory.conflicts(tick.now) {
                let about = format!("{name} {} {}", conflict.key.vlan.get(), conflict.key.mac);
                now.push((about, self.tell_conflict(name, &conflict)));
            }
        }
        self.outside.warnings.retain(Topic::Conflict, |about| {
            now.iter().any(|(known, _)| known == about)
        });
        for (about, text) in now {
            self.outside
                .warnings
                .raise(tick.now, Topic::Conflict, &about, text);
        }
    }

    fn tell_conflict(&self, network: &NetworkName, conflict: &ConflictReport) -> String {
        let (mac, vlan) = (conflict.key.mac, conflict.key.vlan.get());
        let vlan = if vlan == 0 {
            String::new()
        } else {
            format!(" in VLAN {vlan}")
        };
        let keeps = if conflict.frozen {
            "keeps it for as long as it answers, since it moved to and fro too often"
        } else {
            "holds it"
        };
        format!(
            "{mac}{vlan} of network {network} is at two hosts: {} {keeps}, and {} hears it, too; \
             give one of the two machines another MAC, or type `farlan announce {network} {mac}` \
             where it belongs",
            self.called(conflict.owner),
            self.called(conflict.rival),
        )
    }

    /// What people call a node: its name and its id.
    pub(crate) fn called(&self, node: PeerId) -> String {
        if node == self.standing.identity.me {
            return "this node".to_owned();
        }
        let peer = self.peers.known.get(&node);
        match peer.and_then(|peer| self.name_of(peer)) {
            Some(name) if !name.is_empty() => format!("{name} ({node})"),
            _ => node.to_string(),
        }
    }
}
