//! A machine moves, and with it its MAC in all VLANs.
//!
//! Claims are per VLAN, since a VRRP address may have its master on another host in each VLAN. A
//! machine on a trunk moves as a whole all the same, and its hypervisor announces it in one VLAN. So
//! the VLANs that *one* node holds are taken to be one machine:
//!
//! - RARP and `announce` speak of the machine: what the rival holds of the MAC is taken in all VLANs.
//!   Where several rivals hold it and none of them the VLAN of the frame, each of them is asked.
//! - A gratuitous ARP, an unsolicited NA, or an owner that is gone speaks of one VLAN: for the others
//!   the same rival is asked, and once more half a second later, when it no longer speaks of frames
//!   from before the move.

use std::collections::BTreeSet;
use std::time::Instant;

use super::evidence::BACKOFF_MIN;
use super::{Directory, LocalVerdict};
use crate::directory::claims::StoredClaim;
use crate::ethernet::{EvidenceClass, MacAddr};
use crate::ids::PeerId;
use crate::switching::MacKey;

impl Directory {
    /// A hypervisor or an operator says that the machine with this MAC is here: `key` is claimed, and
    /// so are the other VLANs that its last host holds.
    pub fn handle_machine_frame(
        &mut self,
        now: Instant,
        key: MacKey,
        class: EvidenceClass,
    ) -> LocalVerdict {
        let holder = self.owner(now, &key).filter(|owner| *owner != self.me);
        let rivals: BTreeSet<PeerId> = self.rivals_of(now, key.mac).map(|(_, peer)| peer).collect();
        let verdict = self.hear(now, key, class, &[]);
        if let LocalVerdict::Drop(_) = verdict {
            return verdict;
        }
        match (holder, rivals.len()) {
            (Some(holder), _) => self.take_other_vlans(now, key, holder, class),
            (None, 1) => {
                for holder in rivals {
                    self.take_other_vlans(now, key, holder, class);
                }
            }
            // Which of them it was is not said.
            (None, _) => {
                for rival in rivals {
                    self.ask_for_other_vlans(now, key, rival);
                }
            }
        }
        verdict
    }

    /// The VLANs in which this node holds `mac`.
    pub fn held_here(&self, now: Instant, mac: MacAddr) -> impl Iterator<Item = MacKey> {
        self.claims
            .live_of_mac(now, mac)
            .filter(|stored| stored.claim.signer() == self.me)
            .map(|stored| stored.claim.claim.key())
    }

    /// The port of these MACs may be gone: until a frame comes, no answer is given from memory.
    pub fn handle_port_doubt(&mut self, now: Instant, keys: &[MacKey]) {
        for key in keys {
            if let Some(local) = self.local.get_mut(key) {
                local.heard = None;
                local.doubted = Some(now);
            }
        }
    }

    /// `key` was taken from `rival` by a word that is about its own VLAN: are the others gone, too?
    pub(super) fn ask_for_other_vlans(&mut self, now: Instant, key: MacKey, rival: PeerId) {
        let again = now + BACKOFF_MIN + BACKOFF_MIN / 10;
        for stored in self.others_held_by(now, key, rival) {
            let other = stored.claim.claim.key();
            let Some(local) = self.local.entry(other) else {
                continue;
            };
            local.learn(&stored.claim.claim.ips);
            if local.ask.is_none() {
                local.follow_at = Some(again);
                self.wake(again);
            }
            self.judge_rival(now, other, EvidenceClass::Ordinary, &stored);
        }
    }

    /// The second question to owners that were alive at the first.
    pub(super) fn ask_followers_again(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (key, local) in self.local.iter_mut() {
            if local.follow_at.is_some_and(|at| at <= now) {
                local.follow_at = None;
                due.push(*key);
            }
        }
        for key in due {
            let stored = self.claims.live(now, &key).cloned();
            if let Some(stored) = stored.filter(|stored| stored.claim.signer() != self.me) {
                self.judge_rival(now, key, EvidenceClass::Ordinary, &stored);
            }
        }
    }

    fn take_other_vlans(&mut self, now: Instant, key: MacKey, rival: PeerId, class: EvidenceClass) {
        for stored in self.others_held_by(now, key, rival) {
            let other = stored.claim.claim.key();
            if let Some(local) = self.local.entry(other) {
                local.learn(&stored.claim.claim.ips);
                // Frozen or held down, it stays where it is until its owner has been asked.
                self.judge_rival(now, other, class, &stored);
            }
        }
    }

    fn others_held_by(&self, now: Instant, key: MacKey, rival: PeerId) -> Vec<StoredClaim> {
        self.claims
            .live_of_mac(now, key.mac)
            .filter(|stored| stored.claim.signer() == rival && stored.claim.claim.key() != key)
            .cloned()
            .collect()
    }

    fn rivals_of(&self, now: Instant, mac: MacAddr) -> impl Iterator<Item = (MacKey, PeerId)> {
        self.claims
            .live_of_mac(now, mac)
            .map(|stored| (stored.claim.claim.key(), stored.claim.signer()))
            .filter(|(_, owner)| *owner != self.me)
    }
}
