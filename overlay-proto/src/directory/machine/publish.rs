//! The timers of own claims: refresh, record in the DHT, idle probe.

use std::time::{Duration, Instant};

use super::local::Own;
use super::{Directory, DirectoryAction};
use crate::directory::claim::VerifiedClaim;
use crate::directory::record::{RecordKey, seal_record};
use crate::switching::MacKey;

/// This part of the time to a refresh is taken off at random, so that the claims of a host do not all
/// refresh at once.
const REFRESH_JITTER: u32 = 10;
/// All claims go to a DHT that has just become ready, or under a new epoch key, within this, less
/// than the 5 s allowed.
const READY_JITTER: Duration = Duration::from_secs(4);
/// Between refreshes that only tell new addresses.
const ADDRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Records that go to the DHT at once, and the pause after them: a guest that makes MACs up has as many claims
/// as a node may make, and each record is a question to several nodes.
const PUBLISHED_AT_ONCE: usize = 24;
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

impl Directory {
    /// The control plane is connected (again): all own claims go to the DHT within 5 s.
    pub fn handle_dht_ready(&mut self, now: Instant) {
        self.timing.dht_ready = true;
        self.publish_all_soon(now);
    }

    /// All own claims go to the DHT within 5 s, or once it is ready.
    pub(super) fn publish_all_soon(&mut self, now: Instant) {
        let keys: Vec<MacKey> = self.own_keys(|_| true);
        for key in keys {
            let at = now + self.jitter(READY_JITTER);
            if let Some(own) = self.own_mut(&key) {
                own.publish_at = Some(at);
            }
            self.wake(at);
        }
    }

    /// The control plane is gone: records wait until it is back.
    pub const fn handle_dht_lost(&mut self) {
        self.timing.dht_ready = false;
    }

    /// The timers of a claim that is made or refreshed now.
    pub(super) fn own_timers(&mut self, now: Instant, generation: u64) -> Own {
        let (refresh, idle) = (self.config.refresh(), self.config.idle());
        Own {
            generation,
            refresh_at: now + refresh - self.jitter(refresh / REFRESH_JITTER),
            refreshed: now,
            // At once: who asks the DHT for a MAC has most likely just got a frame from it.
            publish_at: Some(now),
            probe_at: now + idle,
            probes: 0,
        }
    }

    /// The claim to `key` has something new to tell.
    pub(super) fn refresh_soon(&mut self, now: Instant, key: MacKey) {
        let Some(own) = self.own_mut(&key) else {
            return;
        };
        own.refresh_at = own
            .refresh_at
            .min(now.max(own.refreshed + ADDRESS_INTERVAL));
        let at = own.refresh_at;
        self.wake(at);
    }

    pub(super) fn run_own_claims(&mut self, now: Instant) {
        for key in self.own_keys(|own| own.probe_at <= now) {
            self.probe_idle(now, key);
        }
        for key in self.own_keys(|own| own.refresh_at <= now) {
            self.refresh(now, key);
        }
        if !self.timing.dht_ready {
            return;
        }
        let due = self.own_keys(|own| own.publish_at.is_some_and(|at| at <= now));
        let later = now + PUBLISH_PAUSE;
        for (index, key) in due.into_iter().enumerate() {
            let waits = index >= PUBLISHED_AT_ONCE;
            if let Some(own) = self.own_mut(&key) {
                own.publish_at = waits.then_some(later);
            }
            if waits {
                self.wake(later);
                continue;
            }
            if let Some(stored) = self.own_claim(&key) {
                let claim = stored.claim.clone();
                self.publish(&claim);
            }
        }
    }

    /// Puts the record of a claim of this node into the DHT.
    pub(super) fn publish(&mut self, claim: &VerifiedClaim) {
        if !self.timing.dht_ready {
            return;
        }
        let keys = RecordKey::derive(&self.config.epoch_key, &claim.claim.key());
        // Every claim that was made fits a record.
        if let Ok(record) = seal_record(&keys, &self.config.overlay, claim) {
            let dht_key = keys.dht_key();
            self.actions
                .push(DirectoryAction::DhtPut { dht_key, record });
        }
    }

    fn refresh(&mut self, now: Instant, key: MacKey) {
        let ips = self.local.get(&key).map(|local| local.ips.clone());
        let refreshed = self.own_claim(&key).map(|stored| {
            let mut claim = stored.claim.claim.clone();
            claim.refresh = claim.refresh.saturating_add(1);
            claim.ips = ips.unwrap_or_default();
            claim
        });
        let next = now + self.config.refresh();
        let taken = refreshed.is_some_and(|claim| self.sign_and_insert(now, &claim).is_ok());
        if !taken && let Some(own) = self.own_mut(&key) {
            own.refresh_at = next;
        }
    }

    fn own_keys(&self, which: impl Fn(&Own) -> bool) -> Vec<MacKey> {
        self.local
            .iter()
            .filter(|(_, local)| local.own.as_ref().is_some_and(&which))
            .map(|(key, _)| *key)
            .collect()
    }

    pub(super) fn own_mut(&mut self, key: &MacKey) -> Option<&mut Own> {
        self.local.get_mut(key)?.own.as_mut()
    }
}
