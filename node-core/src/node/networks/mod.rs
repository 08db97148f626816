//! The networks of this node: directories, taps, bridges, and the frames that wait.
//!
//! - [`network`], [`frames`], [`directory`]: one network's directory; punted frames; its actions. [`probes`]: questions to guests.
//! - [`attaching`]: networks and their taps. [`pins`]: what the operator says is here.
//! - [`conflicts`]: warnings of MACs that two hosts hear. [`mac_twins`]: MACs that are here and elsewhere.
//! - [`interfaces`]: taps and bridges are kept as they are recorded. [`overlay_ports`]: the overlay's own port on each bridge.
//! - [`bridges`]: what the bridges have learnt, and which of their ports live. [`looped_ports`]: loops in this host.
//! - [`ports`]: what guests and LANs are plugged into; ports that are shut.
//! - [`segments`]: LANs that other nodes are plugged into, too; [`shared_lans`]: what users are told of them.
//! - [`site_mtus`]: how large the guests' packets may be at each site.
//! - [`remote_macs`]: what the bridges are told of other hosts' MACs. [`group_queries`]: guests that came here join their
//!   multicast groups again.

pub mod attaching;
pub mod bridges;
pub mod conflicts;
pub mod directory;
pub mod frames;
pub mod group_queries;
pub mod interfaces;
pub mod looped_ports;
pub mod mac_twins;
pub mod network;
pub mod overlay_ports;
pub mod pins;
pub mod ports;
pub mod probes;
pub mod remote_macs;
pub mod segments;
pub mod shared_lans;
pub mod site_mtus;

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::switching::NetIndex;

use crate::node::effects::{Effect, TapFrame};
use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::waiting_room::{Bounds, WaitingRoom};
use bridges::Looks;
use interfaces::Interfaces;
use looped_ports::LoopedPorts;
use network::Network;
use ports::PortIds;
use site_mtus::SiteMtus;

/// Local frames for a peer without a session. 64 frames for 3 s: a handshake over a relay with two
/// lost datagrams.
pub const SESSION_ROOM: Bounds = Bounds {
    per_key: 64,
    in_all: 1024,
    max_wait: Duration::from_secs(3),
};

/// The networks of this node, and what is between them and the host.
#[derive(Debug)]
pub struct Networks {
    /// By their place in the `Fib`. Bound: those of the membership.
    pub all: Vec<Network>,
    /// Those whose directory may have outputs.
    pub(crate) touched: BTreeSet<NetIndex>,
    pub(crate) for_session: WaitingRoom<(NetIndex, PeerId)>,
    pub(crate) looks: Looks,
    /// What is known of taps and bridges.
    pub interfaces: Interfaces,
    pub(crate) site_mtus: SiteMtus,
    /// Ports of this host that are shut because they loop.
    pub looped: LoopedPorts,
    /// Who of the ports of all networks is who.
    pub port_ids: PortIds,
    /// Are broadcasts sent to each member by this node (ADR 4)?
    pub(crate) replication: bool,
    /// When a claim dies that is not refreshed.
    pub(crate) claim_ttl: Duration,
}

impl Networks {
    /// None yet.
    pub(crate) fn new(replication: bool, claim_ttl: Duration) -> Self {
        Self {
            all: Vec::new(),
            touched: BTreeSet::new(),
            for_session: WaitingRoom::new(SESSION_ROOM),
            looks: Looks::default(),
            interfaces: Interfaces::default(),
            site_mtus: SiteMtus::default(),
            looped: LoopedPorts::default(),
            port_ids: PortIds::default(),
            replication,
            claim_ttl,
        }
    }

    /// A session with `peer` shares `networks`, which the one before did not: their directories compare what they know.
    pub(crate) fn handle_neighbour_up(&mut self, tick: Tick, peer: PeerId, networks: &[NetworkId]) {
        for network in &mut self.all {
            if networks.contains(&network.secret.id) {
                network.directory.handle_neighbour_up(tick.now, peer);
                self.touched.insert(network.index);
            }
        }
    }

    /// There is no session with `peer` any more.
    pub(crate) fn handle_neighbour_down(&mut self, tick: Tick, peer: PeerId) {
        for network in &mut self.all {
            network.directory.handle_neighbour_down(tick.now, peer);
            self.touched.insert(network.index);
        }
    }

    /// Writes a frame of our own into the tap of `net`; a network without one hears nothing.
    pub(crate) fn write_tap(&self, net: NetIndex, frame: &[u8], out: &mut Outside) {
        let network = self.all.get(usize::from(net.0));
        if network.is_some_and(|network| network.attached.is_some()) {
            out.effects.push(Effect::Write(TapFrame {
                net,
                bytes: frame.to_vec(),
                from: None,
            }));
        }
    }

    /// All of them, by their place in the `Fib`.
    pub(crate) fn indices(&self) -> impl Iterator<Item = NetIndex> + use<> {
        (0..=u16::MAX).map(NetIndex).take(self.all.len())
    }

    /// The id of `net`.
    pub(crate) fn id_of(&self, net: NetIndex) -> Option<NetworkId> {
        let network = self.all.get(usize::from(net.0))?;
        Some(network.secret.id)
    }

    /// The directory of `net` may have outputs.
    pub(crate) fn touch(&mut self, net: NetIndex) {
        self.touched.insert(net);
    }
}
