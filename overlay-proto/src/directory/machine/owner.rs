//! Is a MAC of this node still there? Asked by a host that just heard it, by the idle timer, and by a
//! `WhoHas` for a MAC that nobody claims.

use std::time::{Duration, Instant};

use super::local::MAX_ASKERS;
use super::lookup::WHO_HAS_PER_SECOND;
use super::{Directory, DirectoryAction};
use crate::directory::messages::{DirectoryMessage, pack_claims};
use crate::ethernet::EvidenceClass;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// Frames of so short ago prove that the MAC is here.
pub(super) const HEARD_LATELY: Duration = Duration::from_millis(500);
/// A local probe that is not answered so soon means gone: less than the asker's patience.
const PROBE_TIME: Duration = Duration::from_millis(300);
/// After so many without an answer the claim is withdrawn.
const PROBES: u8 = 3;
/// MACs that this node looks for on its bridge because others asked.
const MAX_WANTED: usize = 64;

impl Directory {
    /// The bridge was asked whether `key` is attached here ([`DirectoryAction::ProbeLocal`]).
    pub fn handle_local_probe_result(&mut self, now: Instant, key: MacKey, alive: bool) {
        let asker = self.take_search(&key);
        let Some(local) = self.local.get_mut(&key).filter(|local| local.own.is_some()) else {
            if let (Some(asker), true) = (asker, alive) {
                self.claim_found(now, key, asker);
            }
            return;
        };
        if alive {
            local.heard = local.heard.max(Some(now));
        }
        local.answer_by = None;
        for (asker, nonce) in std::mem::take(&mut local.askers) {
            if alive {
                local.note_conflict(now, asker);
            }
            self.actions
                .send(asker, DirectoryMessage::OwnerAnswer { nonce, alive });
        }
    }

    /// `from` heard `key` and asks whether this node still does.
    pub(super) fn owner_asked(&mut self, now: Instant, from: PeerId, key: MacKey, nonce: u64) {
        match self.claims.live(now, &key) {
            Some(stored) if stored.claim.signer() != self.me => {
                for message in pack_claims([stored.claim.signed.clone()]) {
                    self.actions.send(from, message);
                }
                return;
            }
            Some(_) => {}
            None => {
                self.answer(from, nonce, false);
                return;
            }
        }
        let Some(local) = self.local.get_mut(&key) else {
            self.answer(from, nonce, false);
            return;
        };
        let lately = local
            .heard
            .is_some_and(|heard| now.saturating_duration_since(heard) < HEARD_LATELY);
        if lately {
            local.note_conflict(now, from);
            self.answer(from, nonce, true);
            return;
        }
        if local.askers.len() < MAX_ASKERS {
            local.askers.push((from, nonce));
        }
        if local.answer_by.is_none() {
            let ips = local.ips.clone();
            local.answer_by = Some(now + PROBE_TIME);
            self.wake(now + PROBE_TIME);
            self.actions.push(DirectoryAction::ProbeLocal { key, ips });
        }
    }

    /// Probes that nobody answered in time.
    pub(super) fn answer_late_askers(&mut self, now: Instant) {
        for (_, local) in self.local.iter_mut() {
            if local.answer_by.is_none_or(|by| by > now) {
                continue;
            }
            local.answer_by = None;
            for (asker, nonce) in std::mem::take(&mut local.askers) {
                let alive = false;
                self.actions
                    .send(asker, DirectoryMessage::OwnerAnswer { nonce, alive });
            }
        }
    }

    /// `from` asks all who has `key`.
    pub(super) fn who_has_asked(&mut self, now: Instant, from: PeerId, key: MacKey) {
        if !key.mac.is_claimable() {
            return;
        }
        if let Some(stored) = self.claims.live(now, &key) {
            if stored.claim.signer() == self.me && self.config.replication {
                let claim = Some(stored.claim.signed.clone());
                self.actions
                    .send(from, DirectoryMessage::answer(key, claim));
            }
            return;
        }
        if !self.config.may_send || !self.asking.searches.rate.take(now, WHO_HAS_PER_SECOND) {
            return;
        }
        if self.asking.searches.wanted.len() >= MAX_WANTED {
            self.asking.searches.wanted.pop_front();
        }
        self.asking.searches.wanted.push_back((key, from));
        // A device that sleeps answers for its addresses; the bridge may have forgotten it long ago.
        let ips = self.local.get(&key).map(|local| local.ips.clone());
        self.actions.push(DirectoryAction::ProbeLocal {
            key,
            ips: ips.unwrap_or_default(),
        });
    }

    /// The idle timer of `key`: probes, or gives the MAC up.
    pub(super) fn probe_idle(&mut self, now: Instant, key: MacKey) {
        let Some(local) = self.local.get_mut(&key) else {
            return;
        };
        let Some(own) = &mut local.own else {
            return;
        };
        let idle = self.config.idle();
        let next = local.heard.map(|heard| heard + idle).filter(|at| *at > now);
        if let Some(at) = next {
            own.probe_at = at;
            own.probes = 0;
            return;
        }
        if local.pin.is_some() {
            own.probe_at = now + idle;
            own.probes = 0;
            return;
        }
        if own.probes >= PROBES {
            self.withdraw(now, key);
            return;
        }
        own.probes += 1;
        own.probe_at = now + self.config.probe_interval();
        let ips = local.ips.clone();
        self.actions.push(DirectoryAction::ProbeLocal { key, ips });
    }

    fn claim_found(&mut self, now: Instant, key: MacKey, asker: PeerId) {
        if self.claims.live(now, &key).is_some() {
            return;
        }
        if let Some(local) = self.local.entry(key) {
            local.heard = Some(now);
        }
        if self.claim_here(now, key, EvidenceClass::Ordinary).is_err() {
            return;
        }
        if self.config.replication
            && let Some(stored) = self.own_claim(&key)
        {
            let claim = Some(stored.claim.signed.clone());
            self.actions
                .send(asker, DirectoryMessage::answer(key, claim));
        }
    }

    fn take_search(&mut self, key: &MacKey) -> Option<PeerId> {
        let wanted = &mut self.asking.searches.wanted;
        let index = wanted.iter().position(|(other, _)| other == key)?;
        wanted.remove(index).map(|(_, asker)| asker)
    }

    fn answer(&mut self, to: PeerId, nonce: u64, alive: bool) {
        self.actions
            .send(to, DirectoryMessage::OwnerAnswer { nonce, alive });
    }
}
