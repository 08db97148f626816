//! How large the guests' packets may be at each site: members are told, and what they say is compared.

use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::{NetworkId, NetworkName, PeerId};
use overlay_proto::wire::peer_message::NetworkTag;

use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

impl Node {
    /// Our taps have these MTUs now; the members are told what has changed.
    pub(crate) fn note_own_mtus(&mut self, tick: Tick, mtus: &[(NetworkName, u32)]) {
        let changed = self.networks.set_own_mtus(mtus);
        let peers: Vec<PeerId> = self.peers.known.keys().copied().collect();
        for peer in peers.into_iter().filter(|_| !changed.is_empty()) {
            let shared = self.peers.tunnels.current(peer).map(|session| {
                let shared = session.networks.iter().map(|shared| shared.network);
                shared.filter(|id| changed.contains(id)).collect::<Vec<_>>()
            });
            self.tell_mtus(tick, peer, &shared.unwrap_or_default());
        }
        let peers = &self.peers.known;
        let is_known = |peer: &PeerId| peers.contains_key(peer);
        self.networks.site_mtus.retain(is_known);
        self.warn_of_mtus(tick);
    }

    /// A session with `peer` shares `networks`: says how large the packets of guests here may be.
    pub(crate) fn tell_mtus(&mut self, tick: Tick, peer: PeerId, networks: &[NetworkId]) {
        for id in networks {
            let message = self.networks.site_mtus.message(id);
            self.send_message(tick, peer, &message);
        }
    }

    /// `peer` says how large the packets of its guests may be.
    pub(crate) fn handle_guest_mtu(&mut self, tick: Tick, peer: PeerId, tag: NetworkTag, mtu: u32) {
        let Some(network) = self.shared_network(peer, tag) else {
            return self.outside.drops.count(DropReason::UnknownNetwork);
        };
        if self.networks.site_mtus.take(peer, network, mtu) {
            self.warn_of_mtus(tick);
        }
    }

    fn warn_of_mtus(&mut self, tick: Tick) {
        let found = self.networks.find_odd_mtus(|peer| self.host_name(peer));
        let warnings = &mut self.outside.warnings;
        for (name, text) in found {
            warnings.set(tick.now, Topic::SiteMtu, &name, text);
        }
    }

    fn host_name(&self, id: PeerId) -> String {
        let peer = self.peers.known.get(&id);
        let name = peer.and_then(|peer| self.name_of(peer));
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.to_string())
    }
}
