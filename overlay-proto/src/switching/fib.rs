//! The `Fib`: an immutable snapshot of who is where and how to reach them.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nat_traversal::path::Path;
use nat_traversal::relay::RelayKey;

use super::counters::PeerCounters;
use super::own_traffic::OwnTraffic;
use super::ports::{FibPort, FibPorts, PortId};
use super::vlans::VlanSet;
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, PeerId};
use crate::session::Session;
use crate::wire::{Selector, SessionIndex};

/// A network by its place in [`Fib::networks`]; stable while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetIndex(pub u16);

/// A peer by its place in [`Fib::peers`]; valid in one `Fib` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerSlot(pub u32);

/// A MAC within one VLAN of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacKey {
    /// The VLAN, 0 for untagged.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
}

/// Every frame looks up two of them, so they are hashed as one number.
impl Hash for MacKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [v0, v1] = self.vlan.get().to_be_bytes();
        let [m0, m1, m2, m3, m4, m5] = self.mac.0;
        state.write_u64(u64::from_be_bytes([v0, v1, m0, m1, m2, m3, m4, m5]));
    }
}

/// A map that workers look into for each frame. Its hash is short instead of cryptographic: it has a seed
/// of its own, nobody is shown the order of the entries, and their number is bounded: a member adds no
/// more than the claims that DIRECTORY.md grants it.
#[allow(
    clippy::disallowed_types,
    reason = "workers look up in it and never walk through it"
)]
pub type FibMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A MAC that this node claims. Shared by all snapshots, so that workers can mark it as heard.
#[derive(Debug, Default)]
pub struct LocalMac {
    /// Milliseconds since the process began when a frame from it was last seen.
    last_heard_ms: AtomicU64,
    /// By which port, as far as the slow path knows: here and not in the snapshot, so that a MAC which flaps between
    /// two ports makes no new one.
    port: AtomicU32,
}

impl LocalMac {
    /// A frame from this MAC was seen at `now_ms` (milliseconds since the process began).
    pub fn heard(&self, now_ms: u64) {
        // Most frames come within the same millisecond: read first, the line stays shared.
        if self.last_heard_ms.load(Ordering::Relaxed) != now_ms {
            self.last_heard_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// When it was last heard, in milliseconds since the process began; 0 for never.
    #[must_use]
    pub fn last_heard_ms(&self) -> u64 {
        self.last_heard_ms.load(Ordering::Relaxed)
    }

    /// It comes by `port`, the slow path says.
    pub fn set_port(&self, port: PortId) {
        self.port.store(port.0, Ordering::Relaxed);
    }

    /// By which port it comes.
    #[must_use]
    pub fn port(&self) -> PortId {
        PortId(self.port.load(Ordering::Relaxed))
    }
}

/// Where a MAC is.
#[derive(Debug, Clone)]
pub enum MacEntry {
    /// Attached here.
    Local(Arc<LocalMac>),
    /// Claimed by a peer, with the generation of the claim.
    Remote(PeerSlot, u64),
}

/// One network as the fast path sees it.
#[derive(Debug, Clone)]
pub struct FibNetwork {
    /// The network.
    pub id: NetworkId,
    /// Who is where.
    pub macs: FibMap<MacKey, MacEntry>,
    /// The members that a broadcast goes to directly.
    pub flood: Vec<PeerSlot>,
    /// Set when some member cannot be sent to yet, so that the slow path must see each broadcast
    /// as well ([`PuntReason::MemberNotReady`]): those of [`Self::flood`] that can be sent to, in order, who need
    /// no second copy.
    pub punt_broadcast: Option<Arc<[PeerId]>>,
    /// The MSS that guests announce is lowered to what one datagram carries.
    pub clamp: bool,
    /// Peers' MACs that a guest here has in another VLAN, while the bridge does not filter VLANs: a
    /// switch behind it that learns by MAC alone would look for the guest at the wrong port.
    pub twins: FibMap<MacKey, ()>,
    /// The VLANs in which another node on the same LAN carries its frames, so that this one stands by
    /// (ADR 31).
    pub standby: Option<Arc<VlanSet>>,
    /// BPDUs are carried, as any multicast (ADR 32).
    pub bpdu: bool,
    /// What guests and LANs are plugged into here (ADR 45).
    pub ports: Arc<FibPorts>,
}

impl FibNetwork {
    /// The port that a frame of `src` is charged to; the newcomers for a MAC that is not known to be here.
    #[must_use]
    pub fn port_of(&self, src: &MacKey) -> FibPort<'_> {
        match self.macs.get(src) {
            Some(MacEntry::Local(local)) => self.ports.get(local.port()),
            Some(MacEntry::Remote(..)) | None => self.ports.get(PortId::NEWCOMERS),
        }
    }

    /// Does this node carry nothing of `vlan`, neither way?
    #[must_use]
    pub fn stands_by(&self, vlan: VlanId) -> bool {
        let standby = self.standby.as_ref();
        standby.is_some_and(|standby| standby.contains(vlan))
    }

    /// Is `dst` an address that no bridge forwards, and this network does not either?
    #[must_use]
    pub const fn refuses(&self, dst: MacAddr) -> bool {
        dst.is_bridge_reserved() && !(self.bpdu && dst.is_bpdu())
    }
}

/// One peer as the fast path sees it.
#[derive(Debug, Clone)]
pub struct FibPeer {
    /// The peer.
    pub peer: PeerId,
    /// The session to seal with, if there is one.
    pub session: Option<Arc<Session>>,
    /// The chosen path, if there is one.
    pub path: Option<Path>,
    /// The largest UDP payload proven on that path, in bytes, relay header excluded.
    pub datagram_limit: usize,
    /// Traffic counters; the same for the life of the process.
    pub counters: Arc<PeerCounters>,
}

impl FibPeer {
    /// What to send to this peer with, if a frame of `network` can go out now.
    #[must_use]
    pub fn ready(&self, network: NetworkId) -> Option<(&Arc<Session>, &Path, Selector)> {
        let session = self.session.as_ref()?;
        let path = self.path.as_ref()?;
        let shared = session
            .networks
            .iter()
            .find(|shared| shared.network == network)?;
        Some((session, path, shared.send))
    }
}

/// A session by its local index.
#[derive(Debug, Clone)]
pub struct FibSession {
    /// The keys.
    pub session: Arc<Session>,
    /// Whose it is.
    pub peer: PeerSlot,
}

/// The immutable snapshot.
#[derive(Debug, Clone, Default)]
pub struct Fib {
    /// Networks by [`NetIndex`].
    pub networks: Vec<FibNetwork>,
    /// Peers by [`PeerSlot`].
    pub peers: Vec<FibPeer>,
    /// Every live session (previous, current, next) by local index.
    pub sessions: FibMap<SessionIndex, FibSession>,
    /// The keys of our own relay allocations.
    pub relay_keys: BTreeMap<nat_traversal::path::AllocationId, RelayKey>,
    /// What the node's own datagrams are known by when one comes to its own tap.
    pub own: OwnTraffic,
}

/// Why the slow path must see a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PuntReason {
    /// From the tap: the source is not claimed by this node.
    SourceUnknown,
    /// From the tap: the destination is in no claim known here.
    DestinationUnknown,
    /// From the tap: the destination's host is known, but no session or path is ready.
    PeerNotReady(PeerSlot),
    /// From the tap: a broadcast that some member could not be sent yet.
    MemberNotReady,
    /// From a peer: the source is not claimed by that peer (yet).
    SourceNotClaimed,
    /// From a peer: the destination is not claimed by this node (a late frame after a move).
    DestinationNotHere,
}

/// Where a frame from a local tap goes.
#[derive(Debug)]
pub enum Forward<'a> {
    /// To one peer.
    Unicast {
        /// The peer, for its counters and limits.
        peer: &'a FibPeer,
        /// What to seal with.
        session: &'a Arc<Session>,
        /// Where to send.
        path: &'a Path,
        /// What to write into the sealed header.
        selector: Selector,
    },
    /// To every member: each slot of [`FibNetwork::flood`] by [`Fib::sendable`].
    Flood {
        /// The network.
        network: &'a FibNetwork,
        /// Set when the slow path must see it, too: punt it as [`PuntReason::MemberNotReady`], with those that get
        /// it by this.
        punt: Option<&'a Arc<[PeerId]>>,
    },
    /// The destination is attached here; the local bridge delivers it.
    Local,
    /// The slow path must see it.
    Punt(PuntReason),
    /// Drop it.
    Drop(DropReason),
}

/// What happens to a frame from a peer.
#[derive(Debug)]
pub enum Accept<'a> {
    /// Write it to the tap of this network.
    Deliver(NetIndex, &'a FibPeer),
    /// The slow path must see it.
    Punt(NetIndex, PuntReason),
    /// Drop it.
    Drop(DropReason),
}

impl Fib {
    /// Where does a frame go that a local tap of `net` sent? `now_ms` is milliseconds since the
    /// process began. What is punted or dropped is charged to its port.
    #[must_use]
    pub fn forward(&self, net: NetIndex, src: MacKey, dst: MacAddr, now_ms: u64) -> Forward<'_> {
        let Some(network) = self.networks.get(usize::from(net.0)) else {
            return Forward::Drop(DropReason::UnknownNetwork);
        };
        let forward = self.find_way(network, src, dst, now_ms);
        match forward {
            Forward::Punt(_) | Forward::Flood { punt: Some(_), .. } => {
                network.port_of(&src).counters.count_punted();
            }
            Forward::Drop(_) => network.port_of(&src).counters.count_refused(),
            Forward::Unicast { .. } | Forward::Flood { punt: None, .. } | Forward::Local => {}
        }
        forward
    }

    fn find_way<'a>(
        &'a self,
        network: &'a FibNetwork,
        src: MacKey,
        dst: MacAddr,
        now_ms: u64,
    ) -> Forward<'a> {
        if !src.mac.is_claimable() {
            return Forward::Drop(DropReason::MacReserved);
        }
        if network.refuses(dst) {
            return Forward::Drop(DropReason::BridgeReserved);
        }
        if network.stands_by(src.vlan) {
            return Forward::Drop(DropReason::StandingBy);
        }
        match network.macs.get(&src) {
            Some(MacEntry::Local(local)) => local.heard(now_ms),
            Some(MacEntry::Remote(..)) | None => return Forward::Punt(PuntReason::SourceUnknown),
        }
        if dst.is_group() {
            return Forward::Flood {
                network,
                punt: network.punt_broadcast.as_ref(),
            };
        }
        match network.macs.get(&MacKey {
            vlan: src.vlan,
            mac: dst,
        }) {
            Some(MacEntry::Local(_)) => Forward::Local,
            Some(&MacEntry::Remote(slot, _)) => match self.sendable(slot, network.id) {
                Some((peer, session, path, selector)) => Forward::Unicast {
                    peer,
                    session,
                    path,
                    selector,
                },
                None => Forward::Punt(PuntReason::PeerNotReady(slot)),
            },
            None => Forward::Punt(PuntReason::DestinationUnknown),
        }
    }

    /// The peer in `slot` and what to send to it with, if a frame of `network` can go out now.
    #[must_use]
    pub fn sendable(
        &self,
        slot: PeerSlot,
        network: NetworkId,
    ) -> Option<(&FibPeer, &Arc<Session>, &Path, Selector)> {
        let peer = self.peers.get(usize::try_from(slot.0).ok()?)?;
        let (session, path, selector) = peer.ready(network)?;
        Some((peer, session, path, selector))
    }

    /// May a frame be delivered that came out of `from` with `selector`?
    #[must_use]
    pub fn accept(
        &self,
        from: &FibSession,
        selector: Selector,
        src: MacKey,
        dst: MacAddr,
    ) -> Accept<'_> {
        let Some(net) = self.network_of(&from.session, selector) else {
            return Accept::Drop(DropReason::UnknownNetwork);
        };
        let (Some(network), Some(peer)) = (
            self.networks.get(usize::from(net.0)),
            usize::try_from(from.peer.0)
                .ok()
                .and_then(|slot| self.peers.get(slot)),
        ) else {
            return Accept::Drop(DropReason::UnknownNetwork);
        };
        if !src.mac.is_claimable() {
            return Accept::Drop(DropReason::MacReserved);
        }
        if network.refuses(dst) {
            return Accept::Drop(DropReason::BridgeReserved);
        }
        // A claim that has not moved yet still gets its frames: they go to one station, not round.
        if dst.is_group() && network.stands_by(src.vlan) {
            return Accept::Drop(DropReason::StandingBy);
        }
        match network.macs.get(&src) {
            Some(MacEntry::Remote(slot, _)) if *slot == from.peer => {}
            _ => return Accept::Punt(net, PuntReason::SourceNotClaimed),
        }
        if network.twins.contains_key(&src) {
            return Accept::Drop(DropReason::MacTwin);
        }
        if dst.is_group() {
            return Accept::Deliver(net, peer);
        }
        match network.macs.get(&MacKey {
            vlan: src.vlan,
            mac: dst,
        }) {
            Some(MacEntry::Local(_)) => Accept::Deliver(net, peer),
            _ => Accept::Punt(net, PuntReason::DestinationNotHere),
        }
    }

    /// Is the MSS of what goes to and from a tap of `net` lowered to what one datagram carries?
    #[must_use]
    pub fn clamps(&self, net: NetIndex) -> bool {
        let network = self.networks.get(usize::from(net.0));
        network.is_some_and(|network| network.clamp)
    }

    /// The network that a peer means by `selector`.
    #[must_use]
    pub fn network_of(&self, session: &Session, selector: Selector) -> Option<NetIndex> {
        let shared = session
            .networks
            .iter()
            .find(|shared| shared.receive == selector)?;
        let index = self
            .networks
            .iter()
            .position(|network| network.id == shared.network)?;
        u16::try_from(index).ok().map(NetIndex)
    }
}
