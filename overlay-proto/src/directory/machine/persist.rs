//! What a restart must not lose: own generations, the roster, the members' chains.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::local::{MAX_LOCAL_MACS, Restored};
use super::{Directory, DirectoryAction};
use crate::directory::roster::{MAX_MEMBERS, SignedRosterEntry};
use crate::directory::signed::{decode, encode};
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::{NetworkId, PeerId};
use crate::membership::MAX_CHAIN_BYTES;
use crate::switching::MacKey;

/// Bytes of a snapshot at most: the bounds of its lists.
pub const MAX_SNAPSHOT: usize = MAX_MEMBERS * (900 + MAX_CHAIN_BYTES + 40) + MAX_LOCAL_MACS * 32;

#[derive(Serialize, Deserialize)]
struct OwnClaim {
    vlan: VlanId,
    mac: MacAddr,
    generation: u64,
    refresh: u64,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    network: NetworkId,
    incarnation: u64,
    own: Vec<OwnClaim>,
    roster: Vec<SignedRosterEntry>,
    chains: Vec<(PeerId, Vec<u8>)>,
}

impl Directory {
    /// What to write to disk, atomically, at leisure: a generation that was not written is bumped
    /// when somebody shows it.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let own = self
            .local
            .iter()
            .filter_map(|(key, local)| {
                let (generation, refresh) = match self.own_claim(key) {
                    Some(stored) if local.own.is_some() => {
                        (stored.claim.rank.generation, stored.claim.rank.refresh)
                    }
                    _ => local
                        .restored
                        .map(|restored| (restored.generation, restored.refresh))?,
                };
                Some(OwnClaim {
                    vlan: key.vlan,
                    mac: key.mac,
                    generation,
                    refresh,
                })
            })
            .collect();
        let snapshot = Snapshot {
            network: self.config.network,
            incarnation: self.incarnation,
            own,
            roster: self
                .roster
                .iter()
                .map(|member| member.signed.clone())
                .collect(),
            chains: self
                .standing
                .chains()
                .map(|(node, chain)| (node, chain.to_vec()))
                .collect(),
        };
        // These types always encode.
        encode(&snapshot).unwrap_or_default()
    }

    /// Takes what [`Directory::snapshot`] gave; to be called before any other input. Chains come back
    /// as [`DirectoryAction::VerifyChain`].
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`] if it is no snapshot of this network; nothing is taken then.
    pub fn restore(&mut self, now: Instant, bytes: &[u8]) -> Result<(), DropReason> {
        if bytes.len() > MAX_SNAPSHOT {
            return Err(DropReason::RosterInvalid);
        }
        let snapshot: Snapshot = decode(bytes).ok_or(DropReason::RosterInvalid)?;
        if snapshot.network != self.config.network {
            return Err(DropReason::RosterInvalid);
        }
        self.incarnation = self.incarnation.max(snapshot.incarnation);
        for own in snapshot.own {
            let key = MacKey {
                vlan: own.vlan,
                mac: own.mac,
            };
            if let Some(local) = self.local.entry(key) {
                local.restored = Some(Restored {
                    generation: own.generation,
                    refresh: own.refresh,
                    at: now,
                    is_spare: false,
                });
            }
        }
        for entry in snapshot.roster {
            // An entry that does not count any more is missing, no more.
            if self.roster.insert(now, &entry).is_ok() {
                self.actions.roster_changed();
            }
        }
        for (node, chain) in snapshot.chains.into_iter().take(MAX_MEMBERS) {
            if node != self.me {
                self.actions
                    .push(DirectoryAction::VerifyChain { node, chain });
            }
        }
        Ok(())
    }
}
