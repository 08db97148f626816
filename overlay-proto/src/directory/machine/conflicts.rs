//! Which MACs two nodes hear at once: for people, who must end it.

use std::time::{Duration, Instant};

use super::Directory;
use super::local::LocalMac;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// A conflict that nothing was heard of for so long is over. An owner that is alive is asked every
/// 8 s as long as the MAC is heard by another.
const OVER_AFTER: Duration = Duration::from_secs(30);

/// So many signs make a conflict: one alone may be a move under way.
const SIGNS: u8 = 2;

/// Another node hears a MAC that is heard here, or claims it in turn with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The other node.
    pub(super) other: PeerId,
    /// The last sign of it.
    pub(super) at: Instant,
    /// Signs since it began, up to the number that counts.
    pub(super) signs: u8,
}

/// A MAC that is at two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConflictReport {
    /// VLAN and MAC.
    pub key: MacKey,
    /// Who holds it.
    pub owner: PeerId,
    /// Who else hears it.
    pub rival: PeerId,
    /// So many contested moves that the owner keeps it for as long as it answers.
    pub frozen: bool,
}

impl LocalMac {
    /// A sign that `other` hears this MAC, too.
    pub(super) fn note_conflict(&mut self, now: Instant, other: PeerId) {
        let before = self.conflict.filter(|known| {
            known.other == other && now.saturating_duration_since(known.at) < OVER_AFTER
        });
        let signs = before.map_or(1, |known| (known.signs + 1).min(SIGNS));
        self.conflict = Some(Conflict {
            other,
            at: now,
            signs,
        });
    }
}

impl Directory {
    /// The MACs that this node and another one hear at once.
    pub fn conflicts(&self, now: Instant) -> impl Iterator<Item = ConflictReport> {
        self.local.iter().filter_map(move |(key, local)| {
            let conflict = local.conflict?;
            let over = now.saturating_duration_since(conflict.at) >= OVER_AFTER;
            let claim = self.claims.live(now, key)?;
            let owner = claim.claim.signer();
            let rival = if owner == self.me {
                conflict.other
            } else {
                self.me
            };
            (!over && conflict.signs >= SIGNS).then_some(ConflictReport {
                key: *key,
                owner,
                rival,
                frozen: !claim.claim.lets_contest(&rival),
            })
        })
    }
}
