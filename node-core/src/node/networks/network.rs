//! One network on this node: its directory, its tap, the frames that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::floods::Floods;
use crate::waiting_room::{Bounds, WaitingRoom};
use overlay_proto::directory::Directory;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{NetworkSecret, OldEpoch};
use overlay_proto::switching::{LocalMac, MacKey, NetIndex};

use crate::attachment::{Attachment, Switches};
use crate::node::networks::bridges::Bridge;
use crate::node::networks::ports::Ports;
use crate::node::networks::probes::LocalProbe;
use crate::node::networks::segments::SharedLan;

/// Frames for a MAC that is being looked up (DIRECTORY.md, Storage and lookup).
const LOOKUP_ROOM: Bounds = Bounds {
    per_key: 16,
    in_all: 256,
    max_wait: Duration::from_secs(2),
};

/// Frames from a peer whose source MAC it has not claimed yet (DIRECTORY.md, Moves).
const SOURCE_ROOM: Bounds = Bounds {
    per_key: 64,
    in_all: 64,
    max_wait: Duration::from_millis(200),
};

/// Local frames whose source another host still owns: the owner is being asked, which takes 1.5 s
/// where there is no session yet.
const ARBITRATION_ROOM: Bounds = Bounds {
    per_key: 16,
    in_all: 64,
    max_wait: Duration::from_secs(2),
};

/// No version of a directory.
pub(crate) const NEVER_SAVED: u64 = u64::MAX;

/// Frames of a network that wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Local frames that wait for a look-up of their destination.
    pub(crate) for_lookup: WaitingRoom<MacKey>,
    /// Local frames that wait for the owner of their source to answer.
    pub(crate) for_owner: WaitingRoom<MacKey>,
    /// Peers' frames that wait for the claim of their source.
    pub(crate) for_claim: WaitingRoom<(PeerId, MacKey)>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            for_lookup: WaitingRoom::new(LOOKUP_ROOM),
            for_owner: WaitingRoom::new(ARBITRATION_ROOM),
            for_claim: WaitingRoom::new(SOURCE_ROOM),
        }
    }

    /// When the next waiting frame will have waited too long.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        [
            self.for_lookup.next_expiry(),
            self.for_owner.next_expiry(),
            self.for_claim.next_expiry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// One network on this node.
#[derive(Debug)]
pub struct Network {
    /// Its place in the `Fib`.
    pub index: NetIndex,
    /// Name, id, keys, MTU.
    pub secret: NetworkSecret,
    /// The epoch before, while its key is kept.
    pub(crate) old_epoch: Option<OldEpoch>,
    /// Roster and claims.
    pub(crate) directory: Directory,
    /// Tap and bridge, when the network is attached.
    pub(crate) attached: Option<Attachment>,
    /// What is plugged in here.
    pub(crate) ports: Ports,
    /// The bridge, as last seen.
    pub(crate) bridge: Bridge,
    /// Other nodes on the LAN behind it.
    pub(crate) lan: SharedLan,
    /// When each MAC that we own was last heard; shared with the workers through the `Fib`.
    pub(crate) local: BTreeMap<MacKey, Arc<LocalMac>>,
    /// Frames that wait.
    pub(crate) waiting: Waiting,
    /// Broadcasts of the last moments, for members that have not had them.
    pub(crate) floods: Floods,
    /// Guests that are being asked whether they are still here.
    pub(crate) probes: Vec<LocalProbe>,
    /// The directory's version that the current `Fib` shows.
    pub(crate) published_version: u64,
    /// The directory's version that is on disk.
    pub(crate) saved_version: u64,
}

impl Network {
    /// A network without an attachment.
    pub(crate) fn new(
        index: NetIndex,
        secret: NetworkSecret,
        directory: Directory,
        lan: SharedLan,
    ) -> Self {
        Self {
            index,
            secret,
            old_epoch: None,
            directory,
            attached: None,
            ports: Ports::default(),
            bridge: Bridge::default(),
            lan,
            local: BTreeMap::new(),
            waiting: Waiting::new(),
            floods: Floods::default(),
            probes: Vec::new(),
            published_version: u64::MAX,
            saved_version: NEVER_SAVED,
        }
    }

    /// The switches of its attachment; of none, the usual ones.
    pub(crate) fn switches(&self) -> Switches {
        let attached = self.attached.as_ref();
        attached.map_or_else(Switches::default, |record| record.switches)
    }
}
