//! What the directories want of peers and of those who know who is a member, and what comes to them from there.

use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;
use overlay_proto::wire::peer_message::{NetworkTag, PeerMessage};

use crate::node::networks::directory::{DirectoryOutput, Told};
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;

impl Node {
    /// Drains the directory of `net`.
    pub(crate) fn settle_network(&mut self, tick: Tick, net: NetIndex) {
        let own = self.own();
        while let Some(output) = self
            .networks
            .poll_directory(tick, &mut self.outside, own, net)
        {
            match output {
                DirectoryOutput::Tell(told) => self.tell_members(tick, net, &told),
                DirectoryOutput::Verify { node, chain } => {
                    self.verify_member(tick, net, node, &chain);
                }
                DirectoryOutput::RosterChanged => {
                    self.meet_members(tick, net);
                    self.part_from_leavers(tick, net);
                }
            }
        }
    }

    fn tell_members(&mut self, tick: Tick, net: NetIndex, told: &Told) {
        let message = PeerMessage::Directory {
            network: told.network,
            body: &told.body,
        };
        for &peer in &told.to {
            if self.peers.tunnels.current(peer).is_some() {
                self.send_message(tick, peer, &message);
            }
        }
        let Some(frame) = &told.frame else {
            return;
        };
        for &peer in &told.to {
            self.send_frame(net, peer, frame);
        }
    }

    /// A directory message came from `peer`.
    pub(crate) fn handle_directory_message(
        &mut self,
        tick: Tick,
        peer: PeerId,
        tag: NetworkTag,
        body: &[u8],
    ) {
        let (own, shared) = (self.own(), self.shared_network(peer, tag));
        self.networks
            .handle_directory_message(tick, &self.outside, own, (peer, shared), body);
    }

    /// Somebody's chain came along with the roster or in a handshake: is the node a member of this network?
    pub(crate) fn verify_member(&mut self, tick: Tick, net: NetIndex, node: PeerId, chain: &[u8]) {
        let verdict = self.standing.identity.verify_chain(chain, tick.wall);
        self.networks
            .take_verdict(tick, &self.outside, net, (node, chain), verdict);
    }

    /// The roster changed: whoever is new in it is greeted.
    fn meet_members(&mut self, tick: Tick, net: NetIndex) {
        let (me, known) = (self.standing.identity.me, &self.peers.known);
        let is_known = |id: &PeerId| known.contains_key(id);
        for (id, static_key) in self.networks.strangers_in(net, me, is_known) {
            if let Some(peer) = self.new_peer(tick, id) {
                peer.static_key = Some(static_key);
                self.peers.changed = true;
                self.permit(id);
                self.reach(tick, id);
            }
        }
    }
}
