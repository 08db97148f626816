//! What a simulation looks at in a running node: nothing here changes anything, and nothing of it is for users.

use std::time::Instant;

use overlay_proto::directory::claims::MAX_CLAIMS;
use overlay_proto::directory::roster::MAX_MEMBERS;
use overlay_proto::ids::{NetworkName, PeerId};
use overlay_proto::switching::MacKey;
use overlay_proto::tunnels::MAX_SESSIONS;
use overlay_proto::wire::ChannelConfig;

use super::introductions::cards::MAX_PEERS;
use super::networks::SESSION_ROOM;
use super::networks::network::{ARBITRATION_ROOM, LOOKUP_ROOM, SOURCE_ROOM};
use super::switchboard::run::Node;
use crate::floods::MAX_FLOODS;

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
        let all = self.peers.known.keys().copied();
        all.filter(|peer| self.peers.tunnels.current(*peer).is_some())
            .collect()
    }

    /// Who owns `key` in a network, as far as this node knows.
    #[must_use]
    pub fn owner_of(&self, now: Instant, network: &NetworkName, key: MacKey) -> Option<PeerId> {
        let mut networks = self.networks.all.iter();
        let network = networks.find(|one| one.secret.name == *network)?;
        network.directory.owner(now, &key)
    }

    /// What fills up when things go wrong, with its bound.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        let room = |name, holds, bound| Room { name, holds, bound };
        let peers = &self.peers;
        let channels = peers.known.values().map(|peer| peer.channel.pending());
        let most = channels.max().unwrap_or(0);
        let mut rooms = vec![
            room("peers", peers.known.len(), MAX_PEERS),
            room("sessions", peers.tunnels.sessions().count(), MAX_SESSIONS),
            room("a channel", most, ChannelConfig::default().max_pending),
            room(
                "frames for a session",
                self.networks.for_session.len(),
                SESSION_ROOM.in_all,
            ),
        ];
        for network in &self.networks.all {
            let waiting = &network.waiting;
            let (lookup, owner) = (waiting.for_lookup.len(), waiting.for_owner.len());
            let (claim, floods) = (waiting.for_claim.len(), network.floods.len());
            let members = network.directory.members().count();
            rooms.extend([
                room("frames for a look-up", lookup, LOOKUP_ROOM.in_all),
                room("frames for an owner", owner, ARBITRATION_ROOM.in_all),
                room("frames for a claim", claim, SOURCE_ROOM.in_all),
                room("broadcasts of the last moments", floods, MAX_FLOODS),
                room("members", members, MAX_MEMBERS),
                room("local MACs", network.local.len(), MAX_CLAIMS),
            ]);
        }
        rooms
    }
}
