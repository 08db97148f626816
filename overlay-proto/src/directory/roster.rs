//! The members of a network as each member knows them: the last signed word of every node.
//!
//! There are no heartbeats; whether a member can be reached is judged by its neighbours only. But a member says
//! once a day that it is there still, so that those who went without a word can make room for newcomers: in a
//! full roster the one that spoke longest ago does, and that is the same one for everybody.

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

/// A member says so often that it is there still.
pub const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// A member that has said nothing for so long makes room: it missed two renewals.
pub const SILENCE: Duration = Duration::from_secs(2 * 24 * 3600 + 12 * 3600);

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
    /// Grows with each statement. Seconds since 1970 by the node's clock, where that grows.
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
/// [`Roster::remove`] when revoked, by a newcomer after [`SILENCE`].
#[derive(Debug)]
pub struct Roster {
    overlay: OverlayId,
    network: NetworkId,
    me: PeerId,
    members: BTreeMap<PeerId, Member>,
}

impl Roster {
    /// An empty roster, of the node `me`.
    #[must_use]
    pub const fn new(overlay: OverlayId, network: NetworkId, me: PeerId) -> Self {
        Self {
            overlay,
            network,
            me,
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
            None => self.make_room(&entry)?,
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

    fn make_room(&mut self, newcomer: &RosterEntry) -> Result<(), DropReason> {
        if self.members.len() < MAX_MEMBERS {
            return Ok(());
        }
        let left = |member: &&Member| member.entry.presence == Presence::Left;
        let left = self.members.values().filter(left);
        let gone = left.min_by_key(|member| member.since);
        let gone = gone.or_else(|| self.silent_before(newcomer.incarnation));
        let gone = gone.map(|member| member.entry.node);
        self.members.remove(&gone.ok_or(DropReason::RosterInvalid)?);
        Ok(())
    }

    /// Who spoke longest ago, if that is [`SILENCE`] before `spoken`.
    fn silent_before(&self, spoken: u64) -> Option<&Member> {
        let others = self.members.values();
        let others = others.filter(|member| member.entry.node != self.me);
        let silent = others.min_by_key(|member| (member.entry.incarnation, member.entry.node))?;
        let since = spoken.checked_sub(silent.entry.incarnation)?;
        (since >= SILENCE.as_secs()).then_some(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::support::{NETWORK, OVERLAY, test_node};

    const DAY: u64 = 24 * 3600;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    fn signed(node: u8, incarnation: u64) -> SignedRosterEntry {
        let key = test_node(node);
        let entry = RosterEntry {
            network: NETWORK,
            node: key.peer_id(),
            incarnation,
            certificate: [0; 32],
            static_key: [0; 32],
            addresses: Vec::new(),
            presence: Presence::Joined,
        };
        Signed::seal(&entry, &key, &OVERLAY).unwrap()
    }

    /// A full roster of nodes that spoke at `incarnation(n)`; the first of them is this node.
    fn full(incarnation: impl Fn(u64) -> u64) -> Roster {
        let name = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            PeerId(id)
        };
        let mut roster = Roster::new(OVERLAY, NETWORK, name(0));
        let sample = signed(1, 1);
        let entry = sample.open(&OVERLAY).unwrap();
        for n in 0..MAX_MEMBERS as u64 {
            let entry = RosterEntry {
                node: name(n),
                incarnation: incarnation(n),
                ..entry.clone()
            };
            let member = Member {
                entry,
                signed: sample.clone(),
                hash: [0; 32],
                since: now(),
            };
            roster.members.insert(name(n), member);
        }
        roster
    }

    #[test]
    fn who_was_silent_longest_makes_room_for_a_newcomer_in_a_full_roster() {
        // This node's own word is the oldest of all, and stays.
        let mut roster = full(|n| 1_800_000_000 + n);
        let silent = *roster.members.keys().nth(1).unwrap();
        let newcomer = signed(2, 1_800_000_000 + 30 * DAY);
        let outcome = roster.insert(now(), &newcomer).unwrap();
        assert_eq!(outcome, RosterOutcome::Changed);
        assert!(roster.get(&silent).is_none() && roster.get(&roster.me).is_some());
        assert_eq!(roster.members.len(), MAX_MEMBERS);
        // Shown again by somebody who has it still, it does not come back.
        let refused = roster.insert(now(), &signed(3, 1_800_000_001));
        assert_eq!(refused, Err(DropReason::RosterInvalid));
    }

    #[test]
    fn those_that_are_there_are_not_pushed_out() {
        let today = 1_800_000_000 + 30 * DAY;
        let mut roster = full(|n| today - n % (2 * DAY));
        let refused = roster.insert(now(), &signed(2, today));
        assert_eq!(refused, Err(DropReason::RosterInvalid));
    }
}
