//! The slow path at its beginning: what it is given, and that nothing else is there yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nat_traversal::path::SocketId;
use overlay_proto::Entropy;
use overlay_proto::membership::Revocations;
use overlay_proto::tunnels::Tunnels;

use super::publish::Publication;
use super::run::{Node, Rounds};
use crate::node::candidates::Candidates;
use crate::node::effects::Effects;
use crate::node::introductions::Introductions;
use crate::node::networks::Networks;
use crate::node::outside::Outside;
use crate::node::peers::Peers;
use crate::node::sight::HostSight;
use crate::node::standing::Standing;
use crate::node::standing::identity::Identity;
use crate::node::storing::Storing;
use crate::node::tick::Tick;
use crate::node::users::Users;
use crate::node::warnings::Warnings;
use crate::questions::Questions;
use crate::sequences::Sequences;
use crate::underlay::Underlay;

/// What a slow path is given.
pub struct Begin {
    /// Identity and membership.
    pub identity: Identity,
    /// Handshakes and sessions of that identity; none yet.
    pub tunnels: Tunnels,
    /// Where all that is random comes from.
    pub entropy: Box<dyn Entropy + Send>,
    /// What can be seen of the host at once.
    pub sight: Box<dyn HostSight>,
    /// Are broadcasts sent to each member by this node (ADR 4)?
    pub replication: bool,
    /// When a claim dies that is not refreshed.
    pub claim_ttl: Duration,
    /// Where the data path's sockets are bound, one for each address family.
    pub listen: Vec<SocketAddr>,
    /// The numbers of lists and signals, with a reserve on disk, and the first of them.
    pub sequences: (Sequences, u64),
    /// The revocations that the gate had before the control plane began.
    pub held: Arc<Revocations>,
    /// Why nobody will admit this node, if that is known already.
    pub last_refusal: Option<String>,
    /// The state directory, for people.
    pub state_dir: String,
}

impl Node {
    /// Without networks, peers and workers yet.
    #[must_use]
    pub fn new(tick: Tick, begin: Begin) -> Self {
        let (sequences, first) = begin.sequences;
        let ports = begin.listen.iter();
        let ports = ports.map(|addr| (SocketId::for_addr(addr), addr.port()));
        Self {
            standing: Standing::new(tick.now, begin.identity, begin.held, begin.last_refusal),
            candidates: Candidates::new(Underlay::new(ports.collect(), first), begin.listen),
            peers: Peers::new(begin.tunnels),
            introductions: Introductions::default(),
            networks: Networks::new(begin.replication, begin.claim_ttl),
            users: Users::new(begin.state_dir),
            publication: Publication::default(),
            rounds: Rounds::new(tick.now),
            outside: Outside {
                asking: Questions::default(),
                store: Storing::new(sequences, tick.now),
                effects: Effects::default(),
                warnings: Warnings::default(),
                drops: Arc::default(),
                sight: begin.sight,
                entropy: begin.entropy,
                fib_stale: true,
            },
        }
    }
}
