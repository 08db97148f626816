//! What a simulation looks at in a running node: nothing here changes anything, and nothing of it is for users.

use std::time::Instant;

use overlay_proto::directory::claims::MAX_CLAIMS;
use overlay_proto::directory::roster::MAX_MEMBERS;
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::switching::MacKey;
use overlay_proto::tunnels::MAX_SESSIONS;
use overlay_proto::wire::ChannelConfig;

use crate::floods::MAX_FLOODS;
use crate::node::networks::bridges::MAX_LEARNED;
use crate::node::peers::MAX_PEERS;
use crate::node::switchboard::run::Node;
use crate::waiting_room::WaitingRoom;

/// A bounded queue or table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is in it.
    pub name: &'static str,
    /// How many are in it.
    pub holds: usize,
    /// How many may be.
    pub bound: usize,
}

impl Node {
    /// Those with whom there is a session.
    #[must_use]
    pub fn sessions(&self) -> Vec<PeerId> {
        self.peers.in_session()
    }

    /// Who owns `key` in a network, as far as this node knows.
    #[must_use]
    pub fn owner_of(&self, now: Instant, network: &NetworkName, key: MacKey) -> Option<PeerId> {
        let mut networks = self.networks.all.iter();
        let network = networks.find(|one| one.secret.name == *network)?;
        network.directory.owner(now, &key)
    }

    /// The number of the revocation list that this node goes by.
    #[must_use]
    pub fn list_number(&self) -> u64 {
        self.standing.revocations.held.number().0
    }

    /// The epoch of a network's keys, if this node is in it.
    #[must_use]
    pub fn epoch_of(&self, network: &NetworkName) -> Option<u64> {
        let mut networks = self.standing.identity.membership.networks().iter();
        Some(networks.find(|one| one.name == *network)?.epoch)
    }

    /// Who is a member of a network, as far as this node knows.
    #[must_use]
    pub fn members_named(&self, network: &NetworkName) -> Vec<PeerId> {
        let mut networks = self.networks.all.iter();
        let network = networks.find(|one| one.secret.name == *network);
        let members = network.map(|network| network.directory.members());
        members
            .into_iter()
            .flatten()
            .map(|member| member.entry.node)
            .collect()
    }

    /// What fills up when things go wrong, with its bound.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        let room = |name, holds, bound| Room { name, holds, bound };
        let channels = self.peers.known.values().map(|peer| peer.channel.pending());
        let most = channels.max().unwrap_or(0);
        let sessions = self.peers.tunnels.sessions().count();
        let mut rooms = vec![
            room("peers", self.peers.known.len(), MAX_PEERS),
            room("sessions", sessions, MAX_SESSIONS),
            room("a channel", most, ChannelConfig::default().max_pending),
            waiting("frames for a session", &self.networks.for_session),
        ];
        for network in &self.networks.all {
            let members = network.directory.members().count();
            rooms.extend([
                waiting("frames for a look-up", &network.waiting.for_lookup),
                waiting("frames for an owner", &network.waiting.for_owner),
                waiting("frames for a claim", &network.waiting.for_claim),
                room("broadcasts", network.floods.len(), MAX_FLOODS),
                room("members", members, MAX_MEMBERS),
                room("local MACs", network.local.len(), MAX_CLAIMS),
                room("MACs behind shut ports", network.bridge.held(), MAX_LEARNED),
            ]);
        }
        rooms
    }
}

fn waiting<K: Ord + Copy>(name: &'static str, room: &WaitingRoom<K>) -> Room {
    Room {
        name,
        holds: room.len(),
        bound: room.bound(),
    }
}
