//! The peers: sessions, paths, channels.
//!
//! - [`handling`]: what comes from them, and what their machines have to say. [`sealing`]: what is sealed to them. [`frames`]: as frames.
//! - [`peer`]: one peer's path agent and channel; `attempts`: when it is sought again; [`whereabouts`]: where it can be reached.
//! - [`meeting`]: who becomes known. [`seeking`]: who is not reached is sought.
//! - [`undelivered`]: messages that did not get there. [`memory`]: what is kept on disk of peers.

mod attempts;
pub mod frames;
pub mod handling;
pub mod meeting;
pub mod memory;
pub mod peer;
pub mod sealing;
pub mod seeking;
pub mod undelivered;
pub mod whereabouts;

use std::collections::BTreeMap;

use nat_traversal::agent::ProbeBudget;
use overlay_proto::ids::{NetworkId, PeerId};
use overlay_proto::tunnels::Tunnels;
use overlay_proto::wire::peer_message::NetworkTag;

use crate::peer_turns::PeerTurns;
use peer::Peer;

/// Peers that are kept in mind (8 KiB each: 32 MiB). Above it a new one takes the place of one that is away, or is
/// refused.
pub(crate) const MAX_PEERS: usize = 4096;

/// The peers, their sessions and paths. Bound: [`MAX_PEERS`].
pub struct Peers {
    pub(crate) tunnels: Tunnels,
    pub(crate) known: BTreeMap<PeerId, Peer>,
    pub(crate) turns: PeerTurns,
    pub(crate) probe_budget: ProbeBudget,
    next_frame_id: u32,
    /// How many datagrams the kernel had refused as too large at the last look.
    pub(crate) refused: u64,
    /// Something about the peers is not on disk yet.
    pub changed: bool,
}

impl Peers {
    /// Nobody is known.
    pub(crate) fn new(tunnels: Tunnels) -> Self {
        Self {
            tunnels,
            known: BTreeMap::new(),
            turns: PeerTurns::default(),
            probe_budget: ProbeBudget::new(),
            next_frame_id: 0,
            refused: 0,
            changed: false,
        }
    }

    /// Those with whom there is a session.
    pub(crate) fn in_session(&self) -> Vec<PeerId> {
        let all = self.known.keys().copied();
        all.filter(|peer| self.tunnels.current(*peer).is_some())
            .collect()
    }

    /// Each peer in session, with each network that its sessions have begun to share.
    pub(crate) fn shared(&self) -> Vec<(PeerId, NetworkId)> {
        let all = self.known.values();
        all.filter(|peer| self.tunnels.current(peer.id).is_some())
            .flat_map(|peer| peer.shared.iter().map(|network| (peer.id, *network)))
            .collect()
    }

    /// The network of that tag, if the session with `peer` shares it.
    pub(crate) fn shared_network(&self, peer: PeerId, tag: NetworkTag) -> Option<NetworkId> {
        let session = self.tunnels.current(peer)?;
        let mut shared = session.networks.iter().map(|shared| shared.network);
        shared.find(|network| NetworkTag::from(network) == tag)
    }

    /// `id` is known no more; `false`: nor was it before.
    pub(crate) fn forget(&mut self, id: PeerId) -> bool {
        let was_known = self.known.remove(&id).is_some();
        self.changed |= was_known;
        was_known
    }
}
