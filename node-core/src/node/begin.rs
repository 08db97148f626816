//! The slow path at its beginning: what it is given, and that nothing else is there yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nat_traversal::agent::ProbeBudget;
use nat_traversal::path::SocketId;
use overlay_proto::Entropy;
use overlay_proto::directory::SignalInbox;
use overlay_proto::membership::Revocations;
use overlay_proto::tunnels::Tunnels;

use super::bridges::Looks;
use super::effects::Effects;
use super::expiry::Expiry;
use super::host::HostLooks;
use super::identity::{Identity, Tick};
use super::interfaces::Interfaces;
use super::looped_ports::LoopedPorts;
use super::operations::Operations;
use super::permits::Permits;
use super::pings::Pings;
use super::questions::OpenQuestions;
use super::revocations::Followed;
use super::run::{Node, SESSION_ROOM};
use super::sight::HostSight;
use super::site_mtus::SiteMtus;
use super::twin::Twin;
use super::warnings::Warnings;
use super::written::Storing;
use crate::peer_turns::PeerTurns;
use crate::questions::Questions;
use crate::sequences::Sequences;
use crate::underlay::Underlay;
use crate::waiting_room::WaitingRoom;

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
        let roots = begin.identity.membership.roots().clone();
        Self {
            tunnels: begin.tunnels,
            identity: begin.identity,
            entropy: begin.entropy,
            replication: begin.replication,
            claim_ttl: begin.claim_ttl,
            asking: Questions::default(),
            permits: Permits::default(),
            underlay: Underlay::new(ports.collect(), first),
            effects: Effects::default(),
            listen: begin.listen,
            workers: 0,
            published: Arc::default(),
            fib_stale: true,
            drops: Arc::default(),
            refused: 0,
            peers: BTreeMap::new(),
            infra: BTreeSet::new(),
            last_refusal: begin.last_refusal,
            unreachable: BTreeMap::new(),
            networks: Vec::new(),
            for_session: WaitingRoom::new(SESSION_ROOM),
            next_frame_id: 0,
            store: Storing::new(sequences, tick.now),
            signal_inbox: SignalInbox::default(),
            probe_budget: ProbeBudget::new(),
            open_questions: OpenQuestions::default(),
            pings: Pings::default(),
            peer_turns: PeerTurns::default(),
            touched_networks: BTreeSet::new(),
            next_look: tick.now,
            next_housekeeping: tick.now,
            expiry: Expiry::new(tick.now),
            peers_changed: false,
            revocations: Followed::new(begin.held, roots),
            looks: Looks::default(),
            host: HostLooks::default(),
            sight: begin.sight,
            interfaces: Interfaces::default(),
            site_mtus: SiteMtus::default(),
            looped: LoopedPorts::default(),
            warnings: Warnings::default(),
            twin: Twin::default(),
            move_due: None,
            operations: Operations::default(),
            leaving: None,
            state_dir: begin.state_dir,
        }
    }
}
