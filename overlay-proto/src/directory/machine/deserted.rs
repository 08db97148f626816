//! A node fell silent on a LAN that it and this node are both plugged into, and this node carries the
//! LAN's frames now (docs/adr/0031). The stations are still there, whether the bridge here has ever seen
//! them or not, so their claims are taken over as a whole.
//!
//! The other may live and only its cable be cut: then it answers, and what it claims is its own. One
//! question tells, however many MACs it has. What is taken over and does not prove to be here was a guest
//! of the dead host: it is asked for at once and withdrawn after the usual number of questions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::evidence::OWNER_SILENT;
use super::owner::HEARD_LATELY;
use super::{Directory, DirectoryAction};
use crate::directory::claim::ClaimKind;
use crate::directory::claims::StoredClaim;
use crate::directory::messages::DirectoryMessage;
use crate::ethernet::VlanId;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// A node whose link died withdraws what was behind it, a little before or after it is missed on the LAN:
/// a second of silence there, and the time to see the link.
const WITHDRAWS_WITHIN: Duration = Duration::from_secs(4);

/// Nodes on the LANs of one network that may be silent at once; as many as a LAN's machine hears.
const MAX_SILENT: usize = 64;

#[derive(Debug)]
struct Silent {
    /// Without a word until then it is dead; `None`: it has said one.
    dead_at: Option<Instant>,
    /// What it gives up before is here.
    until: Instant,
    /// What it claimed of the LAN. Bound: the claims of one signer.
    keys: BTreeSet<MacKey>,
}

/// Bound: [`MAX_SILENT`]; removed when the node is dead, or after [`WITHDRAWS_WITHIN`].
#[derive(Debug, Default)]
pub(super) struct Deserted(BTreeMap<PeerId, Silent>);

impl Deserted {
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.0.values().filter_map(|one| one.dead_at).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.0
            .retain(|_, one| one.dead_at.is_some() || now < one.until);
    }

    /// Is `key` what `owner` claimed of a LAN that this node carries now?
    fn has(&self, now: Instant, owner: &PeerId, key: &MacKey) -> bool {
        let silent = self.0.get(owner);
        silent.is_some_and(|one| now < one.until && one.keys.contains(key))
    }
}

impl Directory {
    /// `owner` is no longer heard on the LAN whose frames this node carries in the VLANs that `concerns`
    /// names. Unless it says a word within 400 ms its claims there are this node's.
    pub fn handle_owner_silent(
        &mut self,
        now: Instant,
        owner: PeerId,
        concerns: impl Fn(VlanId) -> bool,
    ) {
        if owner == self.me {
            return;
        }
        let theirs = |stored: &&StoredClaim| {
            stored.claim.signer() == owner && concerns(stored.claim.claim.vlan)
        };
        let (mut live, mut withdrawn) = (BTreeSet::new(), Vec::new());
        for stored in self.claims.iter().filter(theirs) {
            let key = stored.claim.claim.key();
            if stored.is_live(now) {
                live.insert(key);
            } else if stored.claim.claim.kind == ClaimKind::Withdrawn
                && stored.age(now) < WITHDRAWS_WITHIN
            {
                withdrawn.push(key);
            }
        }
        for key in withdrawn {
            self.claim_unheard(now, key);
        }
        let Some(first) = live.first().copied() else {
            return;
        };
        let silent = &mut self.deserted.0;
        if let Some(known) = silent.get_mut(&owner).filter(|one| one.dead_at.is_some()) {
            known.keys.append(&mut live);
            return;
        }
        if silent.len() >= MAX_SILENT && !silent.contains_key(&owner) {
            return;
        }
        let dead_at = now + OWNER_SILENT;
        let one = Silent {
            dead_at: Some(dead_at),
            until: now + WITHDRAWS_WITHIN,
            keys: live,
        };
        silent.insert(owner, one);
        self.wake(dead_at);
        // Answered without a look at the guests, in one round trip.
        self.actions.send(owner, DirectoryMessage::query(first));
        // The owner is in doubt.
        self.actions.claims_changed();
    }

    /// This node carries nothing any more in the VLANs that `concerns` names.
    pub fn handle_standby(&mut self, concerns: impl Fn(VlanId) -> bool) {
        for one in self.deserted.0.values_mut() {
            one.keys.retain(|key| !concerns(key.vlan));
        }
    }

    /// May the owner of `key` be dead, and `key` behind the bridge here?
    #[must_use]
    pub fn is_deserted(&self, owner: &PeerId, key: &MacKey) -> bool {
        let silent = self.deserted.0.get(owner);
        silent.is_some_and(|one| one.dead_at.is_some() && one.keys.contains(key))
    }

    /// A message of `from` came.
    pub(super) fn note_alive(&mut self, from: &PeerId) {
        let silent = self.deserted.0.get_mut(from);
        if silent.is_some_and(|one| one.dead_at.take().is_some()) {
            self.actions.claims_changed();
        }
    }

    /// Claims what nodes had that did not say a word in time.
    pub(super) fn take_from_the_dead(&mut self, now: Instant) {
        let silent = self.deserted.0.iter();
        let dead = silent.filter(|(_, one)| one.dead_at.is_some_and(|at| at <= now));
        let dead: Vec<PeerId> = dead.map(|(owner, _)| *owner).collect();
        for owner in dead {
            let Some(one) = self.deserted.0.remove(&owner) else {
                continue;
            };
            for key in one.keys {
                if self.owner(now, &key) == Some(owner) {
                    self.claim_unheard(now, key);
                }
            }
            self.actions.claims_changed();
        }
    }

    /// `owner` has given `key` up: `true` if this node took it because it carries the LAN now.
    pub(super) fn take_given_up(&mut self, now: Instant, owner: &PeerId, key: MacKey) -> bool {
        let ours = self.deserted.has(now, owner, &key);
        if ours {
            self.claim_unheard(now, key);
        }
        ours
    }

    /// Claims a MAC of the LAN that was not heard here, and asks for it soon: one that does not answer is
    /// given up again.
    fn claim_unheard(&mut self, now: Instant, key: MacKey) {
        let stored = self.claims.live(now, &key);
        let ips = stored.map_or_else(Vec::new, |stored| stored.claim.claim.ips.clone());
        let Some(local) = self.local.entry(key) else {
            return;
        };
        local.learn(&ips);
        local.ask = None;
        let lately = |at: Instant| now.saturating_duration_since(at) < HEARD_LATELY;
        local.heard = local.heard.filter(|at| lately(*at));
        if let Err(reason) = self.claim_deserted(now, key) {
            let refused = DirectoryAction::HeldRefused { key, reason };
            return self.actions.push(refused);
        }
        // Not all at once: the driver asks for a bounded number at a time.
        let probe_at = now + self.jitter(self.config.probe_interval());
        if let Some(own) = self.own_mut(&key) {
            own.probe_at = probe_at;
            own.probes = 0;
        }
        self.wake(probe_at);
    }
}
