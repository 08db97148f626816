//! MACs that two hosts hear, and what people call the hosts.

use overlay_proto::ids::PeerId;

use super::run::Node;
use crate::node::networks::conflicts::{self, Conflict};
use crate::node::tick::Tick;
use crate::node::views::Called;

impl Node {
    /// Raises and lowers the warnings of conflicts, as the directories see them now.
    pub(crate) fn warn_of_conflicts(&mut self, tick: Tick) {
        let found = self.networks.conflicts(tick.now);
        let called = self.called_all(found.iter().flat_map(Conflict::hosts));
        conflicts::warn(tick.now, &mut self.outside, &found, &called);
    }

    /// What people call these nodes.
    pub(crate) fn called_all(&self, nodes: impl Iterator<Item = PeerId>) -> Called {
        nodes.map(|node| (node, self.called(node))).collect()
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
