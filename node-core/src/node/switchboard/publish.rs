//! The `Fib`: built from the machines when something it shows has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use overlay_proto::ethernet::EthernetFrame;
use overlay_proto::ids::PeerId;
use overlay_proto::switching::{
    Fib, FibMap, FibNetwork, FibPeer, FibSession, MacEntry, MacKey, NetIndex, OwnTraffic, PeerSlot,
};

use crate::node::effects::Effect;
use crate::node::networks::network::Network;
use crate::node::switchboard::run::Node;

/// What the workers go by.
#[derive(Debug, Default)]
pub struct Publication {
    pub(crate) published: Arc<Fib>,
    /// How many workers the fast path has.
    pub workers: usize,
}

impl Publication {
    /// Is `frame` from another host not to be let in, as the workers go by now?
    pub(crate) fn is_twin(&self, net: NetIndex, frame: &EthernetFrame<'_>) -> bool {
        let key = MacKey {
            vlan: frame.vlan(),
            mac: frame.src(),
        };
        let network = self.published.networks.get(usize::from(net.0));
        network.is_some_and(|network| network.twins.contains_key(&key))
    }
}

impl Node {
    /// Publishes a new `Fib` if one is due. Workers load it with their next batch.
    pub(crate) fn publish(&mut self, now: Instant) {
        if !self.fib_is_stale() {
            return;
        }
        self.outside.fib_stale = false;
        let (peers, slots) = self.fib_peers();
        let me = self.standing.identity.me;
        let away = self.peers.known.values().filter(|peer| peer.is_away(now));
        let away: BTreeSet<PeerId> = away.map(|peer| peer.id).collect();
        let networks = self
            .networks
            .all
            .iter_mut()
            .map(|network| fib_network(network, now, me, (&peers, &slots, &away)))
            .collect();
        let mut sessions = with_room(2 * peers.len());
        let mut remote_indices = with_room(2 * peers.len());
        for session in self.peers.tunnels.sessions() {
            remote_indices.insert(session.remote_index, ());
            let Some(peer) = slots.get(&session.peer).copied() else {
                continue;
            };
            let session = Arc::clone(session);
            sessions.insert(session.local_index, FibSession { session, peer });
        }
        let relay_keys = self.candidates.underlay.relay_keys().clone();
        let own = OwnTraffic {
            remote_indices,
            dialling: self
                .peers
                .tunnels
                .dialling()
                .map(|index| (index, ()))
                .collect(),
            last_handshake: self.peers.tunnels.last_timestamp(),
            sockets: self.candidates.own_sockets(),
        };
        let fib = Fib {
            networks,
            peers,
            sessions,
            relay_keys,
            own,
        };
        self.publication.published = Arc::new(fib);
        let published = Arc::clone(&self.publication.published);
        self.outside.effects.push(Effect::Publish(published));
    }

    /// A handshake that was begun must be known before its first datagram can come to a tap.
    pub(crate) fn fib_is_stale(&self) -> bool {
        self.outside.fib_stale
            || self.publication.published.own.last_handshake != self.peers.tunnels.last_timestamp()
            || self
                .networks
                .all
                .iter()
                .any(|n| n.published_version != n.directory.version())
    }

    fn fib_peers(&self) -> (Vec<FibPeer>, BTreeMap<PeerId, PeerSlot>) {
        let mut peers = Vec::with_capacity(self.peers.known.len());
        let mut slots = BTreeMap::new();
        for peer in self.peers.known.values() {
            let Ok(slot) = u32::try_from(peers.len()) else {
                break;
            };
            slots.insert(peer.id, PeerSlot(slot));
            peers.push(FibPeer {
                peer: peer.id,
                session: self.peers.tunnels.current(peer.id).cloned(),
                path: peer.agent.chosen().filter(|_| peer.agent.is_open()),
                datagram_limit: peer.agent.path_mtu_payload(),
                counters: Arc::clone(&peer.counters),
            });
        }
        (peers, slots)
    }
}

/// An empty map that does not have to grow soon: growing costs more than filling.
fn with_room<K, V>(count: usize) -> FibMap<K, V> {
    FibMap::with_capacity_and_hasher(count, Default::default())
}

fn fib_network(
    network: &mut Network,
    now: Instant,
    me: PeerId,
    (peers, slots, away): (&[FibPeer], &BTreeMap<PeerId, PeerSlot>, &BTreeSet<PeerId>),
) -> FibNetwork {
    let mut macs = with_room(network.local.len() + peers.len());
    let mut local = BTreeMap::new();
    let mut remote = Vec::new();
    for entry in network.directory.entries(now) {
        if entry.local {
            let heard = network.local.remove(&entry.key).unwrap_or_default();
            heard.set_port(network.port_of(&entry.key));
            local.insert(entry.key, Arc::clone(&heard));
            macs.insert(entry.key, MacEntry::Local(heard));
        } else if let Some(&slot) = slots.get(&entry.owner) {
            macs.insert(entry.key, MacEntry::Remote(slot, entry.generation));
            remote.push(entry.key);
        }
    }
    network.local = local;
    let remote = remote.into_iter();
    let twins = network.bridge.find_twins(network.local.keys(), remote);
    network.published_version = network.directory.version();
    let ready = |slot: &PeerSlot| {
        let peer = usize::try_from(slot.0)
            .ok()
            .and_then(|slot| peers.get(slot));
        peer.is_some_and(|peer| peer.ready(network.secret.id).is_some())
    };
    let members = network.directory.members();
    let others = members
        .map(|member| member.entry.node)
        .filter(|id| *id != me);
    let others: Vec<(PeerId, PeerSlot)> = others
        .filter_map(|peer| Some((peer, *slots.get(&peer)?)))
        .collect();
    let sought = others.iter();
    let sought = sought.filter(|(id, slot)| ready(slot) || !away.contains(id));
    let flood: Vec<PeerSlot> = sought.map(|(_, slot)| *slot).collect();
    // A broadcast that somebody misses, or that nobody gets yet, is the slow path's business.
    let all_ready = !others.is_empty() && flood.iter().all(ready);
    let punt_broadcast = (!all_ready).then(|| {
        let had = others.iter().filter(|(_, slot)| ready(slot));
        let mut had: Vec<PeerId> = had.map(|(id, _)| *id).collect();
        had.sort_unstable();
        had.into()
    });
    FibNetwork {
        id: network.secret.id,
        macs,
        flood,
        punt_broadcast,
        clamp: network.switches().clamp,
        twins,
        standby: network.lan.standby(),
        bpdu: network.switches().bpdu,
        ports: network.ports.shown(),
    }
}
