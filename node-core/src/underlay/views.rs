//! What others see of the node's own addresses.

use std::net::SocketAddr;
use std::time::Instant;

use nat_traversal::candidate::{Candidate, CandidateFilter};
use nat_traversal::nat_kind::{Mapping, NatKind};
use nat_traversal::path::{AllocationId, Path, RelayName, SocketId};
use overlay_proto::ids::PeerId;

use super::{Relay, RelayKeys, RelaySpot, UdpAnswer, Underlay};

/// Where this node can be reached, and by what it judges where others say they can be.
#[derive(Debug)]
pub struct Addresses<'a> {
    /// The number of the list.
    pub sequence: u64,
    /// Our candidates.
    pub candidates: &'a [Candidate],
    /// How our NAT maps.
    pub mapping: Mapping,
    /// For the candidates of peers.
    pub filter: &'a CandidateFilter,
    /// The relays that we have an allocation at.
    pub routes: Vec<RelaySpot>,
}

impl Underlay {
    /// All that peers have to do with.
    pub fn addresses(&self) -> Addresses<'_> {
        Addresses {
            sequence: self.sequence,
            candidates: &self.candidates,
            mapping: self.nat().mapping(),
            filter: &self.filter,
            routes: self.routes(),
        }
    }

    /// Our candidates and the sequence of the list.
    pub fn candidates(&self) -> (u64, &[Candidate]) {
        (self.sequence, &self.candidates)
    }

    /// The filter for the candidates of peers.
    pub const fn filter(&self) -> &CandidateFilter {
        &self.filter
    }

    /// The relays that we have an allocation at.
    pub fn routes(&self) -> Vec<RelaySpot> {
        let spot = |(name, relay): (RelayName, &Relay)| RelaySpot {
            relay: name,
            ours: relay.client.relay(),
            own: relay.client.allocation(),
        };
        self.relays().map(spot).collect()
    }

    pub(super) fn relays(&self) -> impl Iterator<Item = (RelayName, &Relay)> {
        let all = self.infra.iter();
        all.filter_map(|(peer, infra)| Some((RelayName(peer.0), infra.relay.as_ref()?)))
    }

    /// Bootstraps with our allocation there.
    pub fn allocations(&self) -> Vec<(PeerId, AllocationId)> {
        let relays = self
            .infra
            .iter()
            .filter_map(|(peer, infra)| Some((peer, infra.relay.as_ref()?)));
        relays
            .map(|(peer, relay)| (*peer, relay.client.allocation()))
            .collect()
    }

    /// The keys of our allocations, for the `Fib`.
    pub const fn relay_keys(&self) -> &RelayKeys {
        &self.relay_keys
    }

    /// The bootstrap whose relay `path` uses.
    pub fn relay_at(&self, path: &Path) -> Option<PeerId> {
        let own = path.relay?.own;
        let found = self.infra.iter().find(|(_, infra)| {
            infra
                .relay
                .as_ref()
                .is_some_and(|relay| relay.client.allocation() == own)
        });
        found.map(|(peer, _)| *peer)
    }

    /// Does the relay of `path` answer our keep-alives?
    pub fn relay_answers(&self, path: &Path) -> bool {
        let Some(peer) = self.relay_at(path) else {
            return false;
        };
        self.infra
            .get(&peer)
            .and_then(|infra| infra.relay.as_ref())
            .is_some_and(|r| r.bound)
    }

    /// What is known of the NAT in front of the IPv4 socket, or of the IPv6 one on a host without.
    pub fn nat(&self) -> &NatKind {
        let v4 = self.nats.of(SocketId::V4);
        if v4.observers() == 0 {
            self.nats.of(SocketId::V6)
        } else {
            v4
        }
    }

    /// Our addresses as others see them now.
    pub fn current_reflexive(&self, now: Instant) -> Vec<SocketAddr> {
        let both = [SocketId::V4, SocketId::V6].into_iter();
        both.flat_map(|socket| self.nats.of(socket).current(now))
            .collect()
    }

    /// Reflectors were asked, and none answers by UDP.
    pub fn is_udp_blocked(&self) -> bool {
        self.udp.is_blocked()
    }

    /// The data addresses of a bootstrap that is or was up, and whether one of them answers by UDP.
    pub fn udp_of(&self, peer: &PeerId) -> Option<(&[SocketAddr], UdpAnswer)> {
        let infra = self.infra.get(peer)?;
        Some((&infra.data_addrs, self.udp.of(&infra.data_addrs)))
    }

    /// What [`Self::note_clock`] was told.
    pub fn clock_of(&self, peer: &PeerId) -> Option<i64> {
        self.infra.get(peer)?.clock_ahead_s
    }

    /// Has this host an address that others could send to?
    pub const fn has_address(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Our addresses as others see them.
    pub fn reflexive(&self) -> Vec<SocketAddr> {
        let both = [SocketId::V4, SocketId::V6].into_iter();
        both.flat_map(|socket| self.nats.of(socket).reflexive())
            .collect()
    }
}
