//! The members of a network as each member knows them: the last signed word of every node.
//!
//! There are no heartbeats; whether a member can be reached is judged by its neighbours only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::signed::{Document, Signed};
use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::Label;

/// Control addresses in an entry.
pub const MAX_CONTROL_ADDRESSES: usize = 8;
/// Bytes of all control addresses of an entry together.
pub const MAX_ADDRESS_BYTES: usize = 640;
/// Members of a network that a node knows.
pub const MAX_MEMBERS: usize = 4096;
/// How long the word of a node that left is kept, so that an older "joined" does not come back.
pub const LEFT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Is the node in the network?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Yes.
    Joined,
    /// It left for good.
    Left,
}

/// What a node says about itself to one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterEntry {
    /// The network.
    pub network: NetworkId,
    /// The node.
    pub node: PeerId,
    /// Grows with each statement.
    pub incarnation: u64,
    /// Hash of the node's certificate chain.
    pub certificate: [u8; 32],
    /// The x25519 public key of its handshakes.
    pub static_key: [u8; 32],
    /// Multiaddrs of its control plane, at most [`MAX_CONTROL_ADDRESSES`] and
    /// [`MAX_ADDRESS_BYTES`] bytes.
    pub addresses: Vec<String>,
    /// Joined or left.
    pub presence: Presence,
}

/// An entry as it was signed.
pub type SignedRosterEntry = Signed<RosterEntry>;

impl Document for RosterEntry {
    const LABEL: Label = Label::new("farlan/roster/1");
    const MAX_BYTES: usize = 800;
    const REFUSED: DropReason = DropReason::RosterInvalid;

    fn check(&self, signer: &PeerId) -> Result<(), DropReason> {
        let bytes: usize = self.addresses.iter().map(String::len).sum();
        let sound = self.node == *signer
            && self.addresses.len() <= MAX_CONTROL_ADDRESSES
            && bytes <= MAX_ADDRESS_BYTES;
        if sound {
            Ok(())
        } else {
            Err(DropReason::RosterInvalid)
        }
    }
}

impl RosterEntry {
    /// Drops the addresses that do not fit, last first.
    pub fn trim(&mut self) {
        let mut left = MAX_ADDRESS_BYTES;
        self.addresses.truncate(MAX_CONTROL_ADDRESSES);
        self.addresses.retain(|address| {
            let fits = address.len() <= left;
            if fits {
                left -= address.len();
            }
            fits
        });
    }
}

/// An entry in the roster.
#[derive(Debug, Clone)]
pub struct Member {
    /// What the node says.
    pub entry: RosterEntry,
    /// What to pass on.
    pub signed: SignedRosterEntry,
    /// The name of this statement.
    pub hash: [u8; 32],
    /// When it was learnt here.
    pub since: Instant,
}

/// What became of an entry that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RosterOutcome {
    /// It is the node's last word now.
    Changed,
    /// This very entry is known already.
    Known,
    /// A later word of the node is known: the sender should learn it.
    Stale(SignedRosterEntry),
}

/// Last writer wins, per node. Bound: [`MAX_MEMBERS`]; removed by [`Roster::expire`] once left, by
/// [`Roster::remove`] when revoked.
#[derive(Debug)]
pub struct Roster {
    overlay: OverlayId,
    network: NetworkId,
    members: BTreeMap<PeerId, Member>,
}

impl Roster {
    /// An empty roster.
    #[must_use]
    pub const fn new(overlay: OverlayId, network: NetworkId) -> Self {
        Self {
            overlay,
            network,
            members: BTreeMap::new(),
        }
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`] if signature or content is wrong or the roster is full.
    pub fn insert(
        &mut self,
        now: Instant,
        signed: &SignedRosterEntry,
    ) -> Result<RosterOutcome, DropReason> {
        let hash = signed.hash();
        if let Some(known) = self.members.get(&signed.signer())
            && known.hash == hash
        {
            return Ok(RosterOutcome::Known);
        }
        let entry = signed.open(&self.overlay)?;
        if entry.network != self.network {
            return Err(DropReason::RosterInvalid);
        }
        match self.members.get(&entry.node) {
            // A node that says two things at once is taken at the one with the lower hash.
            Some(known) if (known.entry.incarnation, hash) > (entry.incarnation, known.hash) => {
                return Ok(RosterOutcome::Stale(known.signed.clone()));
            }
            Some(_) => {}
            None => self.make_room()?,
        }
        self.members.insert(
            entry.node,
            Member {
                entry,
                signed: signed.clone(),
                hash,
                since: now,
            },
        );
        Ok(RosterOutcome::Changed)
    }

    /// The last word of `node`.
    #[must_use]
    pub fn get(&self, node: &PeerId) -> Option<&Member> {
        self.members.get(node)
    }

    /// All entries, joined and left.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Those that are in the network.
    pub fn joined(&self) -> impl Iterator<Item = &Member> {
        self.iter()
            .filter(|member| member.entry.presence == Presence::Joined)
    }

    /// Forgets a revoked node; `true` if it was known.
    pub fn remove(&mut self, node: &PeerId) -> bool {
        self.members.remove(node).is_some()
    }

    /// Forgets nodes that left [`LEFT_TTL`] ago.
    pub fn expire(&mut self, now: Instant) {
        self.members.retain(|_, member| {
            member.entry.presence == Presence::Joined
                || now.saturating_duration_since(member.since) < LEFT_TTL
        });
    }

    fn make_room(&mut self) -> Result<(), DropReason> {
        if self.members.len() < MAX_MEMBERS {
            return Ok(());
        }
        let gone = self
            .members
            .values()
            .filter(|member| member.entry.presence == Presence::Left)
            .min_by_key(|member| member.since)
            .map(|member| member.entry.node)
            .ok_or(DropReason::RosterInvalid)?;
        self.members.remove(&gone);
        Ok(())
    }
}
