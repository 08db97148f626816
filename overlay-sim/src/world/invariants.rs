//! What must hold after every step of a world, whatever the network does.
//!
//! - A frame that a guest sent comes to no other guest more often than it was sent, and never back to the sender's own
//!   port by way of the overlay.
//! - A broadcast may come to a guest that moves at each of the two hosts: a host gets it once, and cannot know what a guest has
//!   had elsewhere.
//! - It comes to no guest of another network, and what comes from a peer was sent by a guest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use overlay_proto::ids::NetworkName;

use super::guests::GuestId;
use crate::net::topology::HostId;
use crate::net::trace::Digest;

/// Something that must not happen has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A guest got a frame more often than it was sent.
    Twice {
        /// The guest.
        guest: GuestId,
        /// How often it got it, and how often it was sent.
        counts: (u32, u32),
        /// Who sent it.
        by: GuestId,
        /// Was it for all?
        is_group: bool,
    },
    /// A guest got a frame of another network.
    OtherNetwork(GuestId),
    /// A guest got its own frame back.
    Back(GuestId),
    /// A guest got a frame from a peer that no guest sent.
    Unsent(GuestId),
    /// A node takes turns although nothing happens: this many within a second.
    Restless(u32),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice {
                guest,
                counts: (got, sent),
                by,
                is_group,
            } => {
                let kind = if *is_group { "broadcast" } else { "frame" };
                write!(
                    f,
                    "{guest:?} got a {kind} of {by:?} {got} times that was sent {sent} times"
                )
            }
            Self::OtherNetwork(guest) => write!(f, "{guest:?} got a frame of another network"),
            Self::Unsent(guest) => write!(f, "{guest:?} got a frame that nobody sent"),
            Self::Back(guest) => write!(f, "{guest:?} got its own frame back"),
            Self::Restless(turns) => write!(f, "a node took {turns} turns within a second"),
        }
    }
}

impl std::error::Error for Broken {}

/// Frames are kept in mind for so long, or twice that: nothing of a frame is under way any more then. One that comes later is one
/// that nobody sent.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Sent {
    network: NetworkName,
    by: GuestId,
    times: u32,
    /// How often each guest got it; if it was for all, at each host.
    got: BTreeMap<(GuestId, Option<HostId>), u32>,
}

/// What was sent and delivered, by the digest of the frame. Bound: the different frames that guests send within two minutes.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    sent: BTreeMap<u64, Sent>,
    /// Those that were sent longer ago, and since when there are others.
    before: BTreeMap<u64, Sent>,
    since: Duration,
    /// Everything delivered to guests.
    digest: Digest,
    /// Frames that no guest sent: of the nodes themselves.
    of_nodes: u64,
    broken: Option<Broken>,
}

impl Invariants {
    pub(super) fn note_sent(
        &mut self,
        at: Duration,
        by: GuestId,
        network: &NetworkName,
        frame: &[u8],
    ) {
        self.forget(at);
        let key = key_of(frame);
        let before = self.before.remove(&key);
        let sent = self.sent.entry(key).or_insert_with(|| {
            before.unwrap_or_else(|| Sent {
                network: network.clone(),
                by,
                times: 0,
                got: BTreeMap::new(),
            })
        });
        sent.times += 1;
    }

    /// Forgets what was sent long ago.
    fn forget(&mut self, at: Duration) {
        if at.saturating_sub(self.since) >= REMEMBERED {
            self.before = std::mem::take(&mut self.sent);
            self.since = at;
        }
    }

    pub(super) fn note_delivered(
        &mut self,
        at: Duration,
        (to, host): (GuestId, Option<HostId>),
        network: &NetworkName,
        frame: &[u8],
    ) {
        self.forget(at);
        self.note_in_digest(to, frame);
        let key = key_of(frame);
        let sent = match self.sent.get_mut(&key) {
            Some(sent) => Some(sent),
            None => self.before.get_mut(&key),
        };
        let Some(sent) = sent else {
            self.broken.get_or_insert(Broken::Unsent(to));
            return;
        };
        let is_group = frame.first().is_some_and(|first| first & 1 == 1);
        let place = (to, host.filter(|_| is_group));
        let got = sent.got.entry(place).or_default();
        *got += 1;
        let broken = if sent.network != *network {
            Broken::OtherNetwork(to)
        } else if sent.by == to {
            Broken::Back(to)
        } else if *got > sent.times {
            Broken::Twice {
                guest: to,
                counts: (*got, sent.times),
                by: sent.by,
                is_group,
            }
        } else {
            return;
        };
        self.broken.get_or_insert(broken);
    }

    /// A frame that a node made itself. Some are what a guest would say, byte for byte: a gratuitous ARP of a MAC that has
    /// moved.
    pub(super) fn note_of_node(&mut self, to: GuestId, frame: &[u8]) {
        self.note_in_digest(to, frame);
        self.of_nodes += 1;
    }

    fn note_in_digest(&mut self, to: GuestId, frame: &[u8]) {
        self.digest.word(u64::from(to.0));
        self.digest.bytes(frame);
    }

    /// The first thing that was broken.
    pub(super) fn note_broken(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    /// # Errors
    /// What is broken.
    pub(super) fn check(&self) -> Result<(), Broken> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest.value()
    }

    pub(super) const fn of_nodes(&self) -> u64 {
        self.of_nodes
    }
}

fn key_of(frame: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.bytes(frame);
    digest.value()
}
