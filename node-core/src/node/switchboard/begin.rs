//! The slow path at its beginning: what it is given, and that nothing else is there yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nat_traversal::path::SocketId;
use overlay_proto::Entropy;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{Membership, Revocations};
use overlay_proto::tunnels::Tunnels;

use super::publish::Publication;
use super::run::{HOUSEKEEPING, Node, Rounds};
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
use crate::shown::is_out;
use crate::underlay::Underlay;

/// A handshake timestamp is on disk this long after it was to be saved, however slow the disk is and whatever is
/// written before it.
const SLOWEST_DISK: Duration = Duration::from_secs(55);

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

/// A handshake timestamp, in nanoseconds, that no run before has reached, when `saved` is on disk and the clock
/// says `clock`. A run that was killed has not saved its last handshakes; where the clock was ahead in it and is
/// right now, only the time between two savings, and that which the disk took for one, tell how far they went.
/// Where the clock is beyond what is saved nothing is added: a copy of this state directory that runs elsewhere
/// would make peers take the handshakes of the original for old ones.
#[must_use]
pub fn above_all_before(saved: u64, clock: u64) -> u64 {
    if clock >= saved {
        return clock;
    }
    let unsaved = u64::try_from((HOUSEKEEPING + SLOWEST_DISK).as_nanos()).unwrap_or(0);
    saved.saturating_add(unsaved)
}

/// What `status` says from the start if `me` was revoked in a run before.
#[must_use]
pub fn revoked_already(
    membership: &Membership,
    revocations: &Revocations,
    me: PeerId,
) -> Option<String> {
    is_out(membership, revocations, me).then(|| {
        "the authority has revoked this node or its invite; ask for a new invite".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn timestamps_go_on_above_a_run_that_was_killed_with_its_clock_ahead() {
        let now = 1_800_000_000 * SECOND;
        assert_eq!(above_all_before(0, now), now, "the first run of all");
        assert_eq!(
            above_all_before(now - SECOND, now),
            now,
            "or a copy's first"
        );
        // Saved 5 s before its last handshake, two hours ahead; or begun then, on a slow disk.
        let ahead = now + 7_200 * SECOND;
        for before in [5, 50] {
            assert!(above_all_before(ahead - before * SECOND, now) > ahead);
        }
        assert_eq!(above_all_before(u64::MAX, now), u64::MAX);
    }
}
