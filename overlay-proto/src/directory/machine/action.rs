//! What the machine says to its driver.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::directory::claim::ClaimKind;
use crate::directory::messages::DirectoryMessage;
use crate::drop_reason::DropReason;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// Messages that wait for the driver; more are dropped, which anti-entropy repairs.
const MAX_WAITING_MESSAGES: usize = 4096;
/// Room that an empty queue keeps.
const MOST_KEPT: usize = 64;

/// What to do with a frame from a local attachment, as far as its source is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalVerdict {
    /// The source is claimed by this node: let the frame go.
    Forward,
    /// The owner is being asked: keep the frame until [`DirectoryAction::Moved`] to here, or
    /// [`DirectoryAction::HeldRefused`], or for as long as frames are held.
    Hold,
    /// Drop the frame.
    Drop(DropReason),
}

/// Where a MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Attached here.
    Local,
    /// At that node, with the generation of its claim.
    Remote(PeerId, u64),
    /// A look-up is under way: wait for [`DirectoryAction::Resolved`] or
    /// [`DirectoryAction::Unresolved`].
    Pending,
    /// Nobody was found less than two seconds ago, or too many look-ups are under way.
    Negative,
}

/// A side of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This node.
    Local,
    /// Another.
    Remote(PeerId),
}

/// What the driver should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryAction {
    /// Send to one member, over its session; without one, drop it or start one.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        message: DirectoryMessage,
    },
    /// Send to every member with a session.
    Broadcast {
        /// What.
        message: DirectoryMessage,
    },
    /// Ask every member with a session for `key` (`who-has`), and send each the newest frame that waits
    /// for it here, as a frame, which then waits no more.
    AskAll {
        /// The MAC.
        key: MacKey,
    },
    /// Ask bootstrap and DHT for the records of `key`; each answer goes to
    /// [`super::Directory::handle_dht_result`], `None` once no more will come.
    DhtGet {
        /// The MAC.
        key: MacKey,
        /// Where in the DHT.
        dht_key: [u8; 32],
    },
    /// Put a record into the DHT.
    DhtPut {
        /// Where in the DHT.
        dht_key: [u8; 32],
        /// The record.
        record: Vec<u8>,
    },
    /// Look whether `key` is attached here: the FDB, and ARP or NS probes for `ips`, unicast, into
    /// the bridge. The answer goes to [`super::Directory::handle_local_probe_result`], within 300 ms.
    ProbeLocal {
        /// The MAC.
        key: MacKey,
        /// Its addresses, as far as known; empty: the FDB alone decides.
        ips: Vec<IpAddr>,
    },
    /// This node won or lost `key`. Lost: the FDB entry becomes `fl-N`, GARP or NA for `ips` go into
    /// the bridge. Won: that entry goes, frames held for it are let go.
    Moved {
        /// The MAC.
        key: MacKey,
        /// Where it is now.
        to: Place,
        /// Its addresses.
        ips: Vec<IpAddr>,
    },
    /// Another node has given `key` up, and no frame of it was heard here: it may be on the bridge all
    /// the same.
    Vacated {
        /// The MAC.
        key: MacKey,
    },
    /// A look-up found the owner.
    Resolved {
        /// The MAC.
        key: MacKey,
    },
    /// A look-up found nobody: drop what waits for it.
    Unresolved {
        /// The MAC.
        key: MacKey,
    },
    /// Frames held from `key` must be dropped.
    HeldRefused {
        /// The MAC.
        key: MacKey,
        /// Why.
        reason: DropReason,
    },
    /// Verify this chain; then tell [`super::Directory::handle_member`].
    VerifyChain {
        /// Whose it is said to be.
        node: PeerId,
        /// The chain, as `membership` encodes it.
        chain: Vec<u8>,
    },
    /// [`super::Directory::members`] changed.
    RosterChanged,
    /// [`super::Directory::entries`] changed: make a new `Fib`.
    ClaimsChanged,
}

/// A live claim, for views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// VLAN and MAC.
    pub key: MacKey,
    /// Who holds it.
    pub owner: PeerId,
    /// Is that this node?
    pub local: bool,
    /// The claim's generation.
    pub generation: u64,
    /// How the owner knows.
    pub kind: ClaimKind,
    /// Contested moves in a row.
    pub contested: u8,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Time since the owner's last refresh.
    pub age: Duration,
}

/// What waits for the driver. Bound: 4,096 messages, the newest are lost and counted; all other actions are
/// bounded by the maps that cause them. Removed by [`Actions::pop`].
#[derive(Debug, Default)]
pub(super) struct Actions {
    queue: VecDeque<DirectoryAction>,
    roster_changed: bool,
    claims_changed: bool,
    version: u64,
    /// Messages that found no room.
    lost: u64,
}

impl Actions {
    pub(super) fn push(&mut self, action: DirectoryAction) {
        self.queue.push_back(action);
    }

    pub(super) fn send(&mut self, to: PeerId, message: DirectoryMessage) {
        self.push_message(DirectoryAction::Send { to, message });
    }

    pub(super) fn broadcast(&mut self, message: DirectoryMessage) {
        self.push_message(DirectoryAction::Broadcast { message });
    }

    fn push_message(&mut self, message: DirectoryAction) {
        if self.queue.len() < MAX_WAITING_MESSAGES {
            self.queue.push_back(message);
        } else {
            self.lost += 1;
        }
    }

    /// How many messages found no room since the last call.
    pub(super) const fn take_lost(&mut self) -> u64 {
        std::mem::replace(&mut self.lost, 0)
    }

    pub(super) const fn claims_changed(&mut self) {
        self.claims_changed = true;
        self.version += 1;
    }

    pub(super) const fn roster_changed(&mut self) {
        self.roster_changed = true;
        self.version += 1;
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Changes first: the driver's `Fib` is right before frames are let go.
    pub(super) fn pop(&mut self) -> Option<DirectoryAction> {
        if std::mem::take(&mut self.roster_changed) {
            return Some(DirectoryAction::RosterChanged);
        }
        if std::mem::take(&mut self.claims_changed) {
            return Some(DirectoryAction::ClaimsChanged);
        }
        let action = self.queue.pop_front();
        if action.is_none() && self.queue.capacity() > MOST_KEPT {
            self.queue = VecDeque::new();
        }
        action
    }
}
