//! The peers: sessions, paths, channels.
//!
//! - [`handling`]: what comes from peers: handshakes, probes, messages; what became of their paths. [`peer`]: one peer's path agent and channel; `attempts`: when it is sought again; [`whereabouts`]:
//!   where it can be reached.
//! - [`sending`]: messages and challenges of our own. [`undelivered`]: messages that did not get there.
//! - [`memory`]: what is kept on disk of peers.

mod attempts;
pub mod handling;
pub mod memory;
pub mod peer;
pub mod sending;
pub mod undelivered;
pub mod whereabouts;

use std::collections::BTreeMap;

use nat_traversal::agent::{PathAgent, ProbeBudget};
use overlay_proto::Entropy;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::ids::PeerId;
use overlay_proto::tunnels::Tunnels;

use crate::node::outside::Outside;
use crate::node::tick::Tick;
use crate::peer_turns::PeerTurns;
use crate::underlay::Underlay;
use peer::Peer;

/// Peers that are kept in mind (8 KiB each: 32 MiB). Above it a new one takes the place of one that is away, or is
/// refused.
const MAX_PEERS: usize = 4096;

/// The peers, their sessions and paths.
pub struct Peers {
    pub(crate) tunnels: Tunnels,
    pub(crate) known: BTreeMap<PeerId, Peer>,
    pub(crate) turns: PeerTurns,
    pub(crate) probe_budget: ProbeBudget,
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
            refused: 0,
            changed: false,
        }
    }

    /// `id` gave a sign: where too many peers are known, one that is away makes room for it.
    pub(crate) fn make_room_for(&mut self, tick: Tick, id: PeerId) {
        if self.known.len() < MAX_PEERS || self.known.contains_key(&id) {
            return;
        }
        let away = self.known.values().filter(|peer| {
            let in_session = self.tunnels.current(peer.id).is_some();
            !in_session && peer.is_away(tick.now)
        });
        let longest = away.min_by_key(|peer| (peer.heard.at, peer.since, peer.id));
        if let Some(gone) = longest.map(|peer| peer.id) {
            self.known.remove(&gone);
            self.changed = true;
        }
    }

    /// Makes the peer `id` of the node `me`; `None` if there is one already or there are too many.
    pub(crate) fn add(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        underlay: &Underlay,
        (me, id): (PeerId, PeerId),
    ) -> Option<&mut Peer> {
        if self.known.contains_key(&id) {
            return None;
        }
        if self.known.len() >= MAX_PEERS {
            out.drops.count(DropReason::RosterInvalid);
            return None;
        }
        let (_, candidates) = underlay.candidates();
        let mut agent = PathAgent::new(tick.now, underlay.filter().clone(), me < id);
        agent.set_local_candidates(tick.now, candidates);
        out.fib_stale = true;
        let channel = out.entropy.next_u32();
        let new = Peer::new(tick.now, id, agent, channel);
        Some(self.known.entry(id).or_insert(new))
    }
}
