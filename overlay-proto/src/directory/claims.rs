//! The claims of one network that this node knows: one winner for each MAC.
//!
//! Losers are forgotten: whoever signed one is told the winner and bumps or withdraws. The store
//! does not know time beyond ages: an entry is *live* until its age passes the store's TTL, then
//! only *remembered* for one more, so that a copy still travelling cannot raise it from the dead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::claim::{SignedClaim, VerifiedClaim};
use crate::drop_reason::DropReason;
use crate::ethernet::{MacAddr, VlanId};
use crate::ids::PeerId;
use crate::switching::MacKey;

/// A claim without a higher refresh dies at this age, unless the operator sets another. The owner
/// refreshes three times within.
pub const CLAIM_TTL: Duration = Duration::from_secs(600);

/// Claims of a network that a node keeps (DIRECTORY.md, Storage and lookup).
pub const MAX_CLAIMS: usize = 4096;

/// Claims of one signer among them.
pub const MAX_CLAIMS_PER_SIGNER: usize = 1024;

/// What became of a claim that arrived.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is the winner now; the live owner before is named, also if it is the same node.
    Accepted {
        /// The live owner before.
        previous: Option<PeerId>,
    },
    /// The same claim with a higher refresh: its age starts anew.
    Refreshed,
    /// This very claim is known already.
    Known,
    /// It lost to a claim that the sender should learn.
    Stale {
        /// The winner.
        winner: SignedClaim,
    },
    /// It is not taken.
    Refused(DropReason),
}

/// A winner.
#[derive(Debug, Clone)]
pub struct StoredClaim {
    /// The claim.
    pub claim: VerifiedClaim,
    /// When its refresh last grew, as seen here.
    pub since: Instant,
    /// When its contest count last grew, as seen here.
    pub contested_since: Instant,
    /// It dies at this age: the store's TTL.
    ttl: Duration,
}

impl StoredClaim {
    /// Time since its refresh last grew.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Neither withdrawn nor too old.
    #[must_use]
    pub fn is_live(&self, now: Instant) -> bool {
        self.claim.claim.is_live() && self.age(now) < self.ttl
    }

    /// When it dies unless it is refreshed.
    #[must_use]
    pub fn death(&self) -> Instant {
        self.since + self.ttl
    }

    /// Worth passing on, withdrawn or not: a claim older than two missed refreshes is not, so that it
    /// does not outlive its owner by wandering.
    #[must_use]
    pub fn is_offered(&self, now: Instant) -> bool {
        self.age(now) < self.ttl * 2 / 3
    }
}

/// The winners. Bounds: [`MAX_CLAIMS`] and [`MAX_CLAIMS_PER_SIGNER`]; removed by
/// [`ClaimStore::expire`] after two TTLs, and by [`ClaimStore::void_signer`].
#[derive(Debug)]
pub struct ClaimStore {
    /// Boxed: a tree that was filled in order is half empty, and its places are as large as what is in them.
    winners: BTreeMap<MacKey, Box<StoredClaim>>,
    /// The VLANs in which there is a winner for a MAC.
    vlans: BTreeMap<MacAddr, Vec<VlanId>>,
    per_signer: BTreeMap<PeerId, usize>,
    ttl: Duration,
}

impl Default for ClaimStore {
    fn default() -> Self {
        Self::with_ttl(CLAIM_TTL)
    }
}

impl ClaimStore {
    /// An empty store whose claims die at the age `ttl`.
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        Self {
            winners: BTreeMap::new(),
            vlans: BTreeMap::new(),
            per_signer: BTreeMap::new(),
            ttl,
        }
    }

    /// Takes a verified claim of a node that may claim.
    pub fn insert(&mut self, now: Instant, new: VerifiedClaim) -> Outcome {
        let key = new.claim.key();
        let Some(old) = self.winners.get(&key) else {
            if let Err(reason) = self.has_room(now, &new.signer(), None) {
                return Outcome::Refused(reason);
            }
            self.put(now, key, new, now);
            return Outcome::Accepted { previous: None };
        };
        if new.rank == old.claim.rank {
            return Outcome::Known;
        }
        if new.rank < old.claim.rank {
            return Outcome::Stale {
                winner: old.claim.signed.clone(),
            };
        }
        let old_signer = old.claim.signer();
        let same = old_signer == new.signer()
            && old.claim.claim.generation == new.claim.generation
            && old.claim.claim.is_live() == new.claim.is_live()
            && old.is_live(now) == new.claim.is_live();
        let previous = old.is_live(now).then_some(old_signer);
        let contested_since = if new.claim.contested > old.claim.claim.contested {
            now
        } else {
            old.contested_since
        };
        if let Err(reason) = self.has_room(now, &new.signer(), Some(old_signer)) {
            return Outcome::Refused(reason);
        }
        self.remove(&key);
        self.put(now, key, new, contested_since);
        if same {
            Outcome::Refreshed
        } else {
            Outcome::Accepted { previous }
        }
    }

    /// The winner for `key`, live or not.
    #[must_use]
    pub fn get(&self, key: &MacKey) -> Option<&StoredClaim> {
        self.winners.get(key).map(Box::as_ref)
    }

    /// The winner for `key` if it is live.
    #[must_use]
    pub fn live(&self, now: Instant, key: &MacKey) -> Option<&StoredClaim> {
        self.get(key).filter(|stored| stored.is_live(now))
    }

    /// The live winners for `mac`, in whatever VLAN.
    pub fn live_of_mac(
        &self,
        now: Instant,
        mac: MacAddr,
    ) -> impl Iterator<Item = &StoredClaim> + use<'_> {
        let vlans = self.vlans.get(&mac).into_iter().flatten();
        vlans.filter_map(move |vlan| self.live(now, &MacKey { vlan: *vlan, mac }))
    }

    /// All winners, live or not, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &StoredClaim> {
        self.winners.values().map(Box::as_ref)
    }

    /// Claims kept, live or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.winners.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.winners.is_empty()
    }

    /// Forgets the claims of a revoked or expired node. The keys that had them are returned.
    pub fn void_signer(&mut self, signer: &PeerId) -> Vec<MacKey> {
        let keys: Vec<MacKey> = self
            .winners
            .iter()
            .filter(|(_, stored)| stored.claim.signer() == *signer)
            .map(|(key, _)| *key)
            .collect();
        for key in &keys {
            self.remove(key);
        }
        keys
    }

    /// Forgets tombstones after one TTL and dead claims after two.
    pub fn expire(&mut self, now: Instant) {
        let dead: Vec<MacKey> = self.expired(now).map(|(key, _)| *key).collect();
        for key in &dead {
            self.remove(key);
        }
    }

    /// Those that [`ClaimStore::expire`] removes now.
    pub fn expired(&self, now: Instant) -> impl Iterator<Item = (&MacKey, &StoredClaim)> {
        let winners = self.winners.iter();
        let winners = winners.map(|(key, stored)| (key, stored.as_ref()));
        winners.filter(move |(_, stored)| {
            let keep = if stored.claim.claim.is_live() { 2 } else { 1 };
            stored.age(now) >= self.ttl * keep
        })
    }

    /// When the next live claim dies.
    #[must_use]
    pub fn next_death(&self, now: Instant) -> Option<Instant> {
        self.winners
            .values()
            .filter(|stored| stored.is_live(now))
            .map(|stored| stored.death())
            .min()
    }

    /// Could `signer` claim `key` now? Asked before a claim is made: a guest that makes MACs up would else cost
    /// a signature for each.
    ///
    /// # Errors
    /// [`DropReason::ClaimOverflow`]: it has as many claims as one node may have, or the store is full.
    pub fn check_room(
        &mut self,
        now: Instant,
        key: &MacKey,
        signer: &PeerId,
    ) -> Result<(), DropReason> {
        let replaces = self.winners.get(key).map(|old| old.claim.signer());
        self.has_room(now, signer, replaces)
    }

    /// A full store makes room by what is dead already.
    fn has_room(
        &mut self,
        now: Instant,
        signer: &PeerId,
        replaces: Option<PeerId>,
    ) -> Result<(), DropReason> {
        if replaces.is_none() && self.winners.len() >= MAX_CLAIMS {
            let dead = self
                .winners
                .iter()
                .find(|(_, stored)| !stored.is_live(now))
                .map(|(key, _)| *key)
                .ok_or(DropReason::ClaimOverflow)?;
            self.remove(&dead);
        }
        let of_signer = self.per_signer.get(signer).copied().unwrap_or(0);
        if replaces != Some(*signer) && of_signer >= MAX_CLAIMS_PER_SIGNER {
            return Err(DropReason::ClaimOverflow);
        }
        Ok(())
    }

    fn put(&mut self, now: Instant, key: MacKey, claim: VerifiedClaim, contested_since: Instant) {
        *self.per_signer.entry(claim.signer()).or_insert(0) += 1;
        self.vlans.entry(key.mac).or_default().push(key.vlan);
        let stored = StoredClaim {
            claim,
            since: now,
            contested_since,
            ttl: self.ttl,
        };
        self.winners.insert(key, Box::new(stored));
    }

    fn remove(&mut self, key: &MacKey) {
        let Some(old) = self.winners.remove(key) else {
            return;
        };
        if let Some(vlans) = self.vlans.get_mut(&key.mac) {
            vlans.retain(|vlan| *vlan != key.vlan);
            if vlans.is_empty() {
                self.vlans.remove(&key.mac);
            }
        }
        let signer = old.claim.signer();
        if let Some(count) = self.per_signer.get_mut(&signer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_signer.remove(&signer);
            }
        }
    }
}
