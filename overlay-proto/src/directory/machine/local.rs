//! What is known of the MACs that were heard on this host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::conflicts::Conflict;
use super::pins::Pin;
use crate::directory::claim::MAX_IPS;
use crate::directory::claims::MAX_CLAIMS_PER_SIGNER;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// MACs of this host: those that it may claim, and some that it has lost or that cannot be claimed.
pub(super) const MAX_LOCAL_MACS: usize = MAX_CLAIMS_PER_SIGNER + 512;
/// Nodes that wait for the same answer.
pub(super) const MAX_ASKERS: usize = 8;

/// The timers of a claim of this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// The claim's generation.
    pub(super) generation: u64,
    /// When the claim is refreshed.
    pub(super) refresh_at: Instant,
    /// When it was, or was made.
    pub(super) refreshed: Instant,
    /// When its record goes to the DHT, if it should.
    pub(super) publish_at: Option<Instant>,
    /// When the MAC is probed unless it is heard.
    pub(super) probe_at: Instant,
    /// Probes since it was heard.
    pub(super) probes: u8,
}

/// This node lost the MAC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    /// When.
    pub(super) at: Instant,
    /// Until then only class 3 takes it back.
    pub(super) held_until: Instant,
    /// When it was last heard here after that, while the other had it: the move is contested.
    pub(super) contested: Option<Instant>,
}

/// The question to the owner.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    /// Under way.
    Waiting {
        /// Comes back in the answer.
        nonce: u64,
        /// Who was asked.
        owner: PeerId,
        /// Silent until then: gone.
        deadline: Instant,
        /// How long not to ask again if it is alive.
        backoff: Duration,
    },
    /// The owner has it still: not asked again until then.
    Alive {
        /// Until then.
        until: Instant,
        /// How long it was.
        backoff: Duration,
    },
}

/// The last claim of a MAC that this node has forgotten: the next one must not be the same, since peers may remember
/// that as one that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restored {
    /// Its generation.
    pub(super) generation: u64,
    /// Its refresh.
    pub(super) refresh: u64,
    /// When it was read from the disk, or forgotten.
    pub(super) at: Instant,
    /// It may make room for others: a flood of MACs leaves as many.
    pub(super) is_spare: bool,
}

/// One MAC of this host.
#[derive(Debug, Clone, Default)]
pub(super) struct LocalMac {
    /// When a frame from it was last seen.
    pub(super) heard: Option<Instant>,
    /// Its addresses, oldest first.
    pub(super) ips: Vec<IpAddr>,
    /// Set while this node claims it.
    pub(super) own: Option<Own>,
    /// Set while another has it that took it from here.
    pub(super) lost: Option<Lost>,
    /// The question to the owner, if any.
    pub(super) ask: Option<Ask>,
    /// Who asked this node whether it is alive; answered by a probe or at the deadline.
    pub(super) askers: Vec<(PeerId, u64)>,
    /// When they are told that it is gone.
    pub(super) answer_by: Option<Instant>,
    /// The last claim before a restart, or before it was forgotten.
    pub(super) restored: Option<Restored>,
    /// Another VLAN of this MAC moved here; the owner of this one is asked once more at that time.
    pub(super) follow_at: Option<Instant>,
    /// Its port may be gone since: frames from before prove nothing.
    pub(super) doubted: Option<Instant>,
    /// Another node hears it, too.
    pub(super) conflict: Option<Conflict>,
    /// The operator says that it is here.
    pub(super) pin: Option<Pin>,
}

impl LocalMac {
    /// Takes addresses; `true` if one is new. The oldest goes first.
    pub(super) fn learn(&mut self, ips: &[IpAddr]) -> bool {
        let mut new = false;
        for ip in ips {
            if self.ips.contains(ip) {
                continue;
            }
            if self.ips.len() >= MAX_IPS {
                self.ips.remove(0);
            }
            self.ips.push(*ip);
            new = true;
        }
        new
    }

    /// The earliest timer.
    pub(super) fn next_timer(&self, dht_ready: bool) -> Option<Instant> {
        let ask = match self.ask {
            Some(Ask::Waiting { deadline, .. }) => Some(deadline),
            _ => None,
        };
        let own = self.own.map(|own| own.refresh_at.min(own.probe_at));
        let publish = self
            .own
            .and_then(|own| own.publish_at)
            .filter(|_| dht_ready);
        [ask, own, publish, self.answer_by, self.follow_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_idle(&self, now: Instant, forget: Duration) -> bool {
        let old = |at: Instant| now.saturating_duration_since(at) >= forget;
        self.own.is_none()
            && self.pin.is_none()
            && self.restored.is_none_or(|restored| old(restored.at))
            && self.askers.is_empty()
            && self.heard.is_none_or(old)
            && self.lost.is_none_or(|lost| old(lost.at))
    }
}

/// The MACs of this host. Bound: [`MAX_LOCAL_MACS`]; removed by [`LocalMacs::expire`] some time
/// after they are neither claimed nor heard. Boxed as the claims are.
#[derive(Debug, Default)]
pub(super) struct LocalMacs(BTreeMap<MacKey, Box<LocalMac>>);

impl LocalMacs {
    /// The state of `key`, new if need be; `None` if there are too many.
    pub(super) fn entry(&mut self, key: MacKey) -> Option<&mut LocalMac> {
        if self.0.len() >= MAX_LOCAL_MACS && !self.0.contains_key(&key) {
            self.make_room()?;
        }
        Some(self.0.entry(key).or_default())
    }

    /// Forgets the MAC that was heard the longest time ago, of those that nothing is under way for.
    fn make_room(&mut self) -> Option<()> {
        let mut spare = self.0.iter().filter(|(_, local)| {
            let busy = local.own.is_some() || local.lost.is_some() || local.ask.is_some();
            let is_restored = local.restored.is_some_and(|restored| !restored.is_spare);
            let bound = is_restored || local.pin.is_some();
            !busy && !bound && local.askers.is_empty()
        });
        let first = spare.next()?;
        let oldest = spare.fold(
            first,
            |old, one| {
                if one.1.heard < old.1.heard { one } else { old }
            },
        );
        let key = *oldest.0;
        self.0.remove(&key).map(|_| ())
    }

    pub(super) fn get(&self, key: &MacKey) -> Option<&LocalMac> {
        self.0.get(key).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: &MacKey) -> Option<&mut LocalMac> {
        self.0.get_mut(key).map(Box::as_mut)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&MacKey, &LocalMac)> {
        self.0.iter().map(|(key, local)| (key, local.as_ref()))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&MacKey, &mut LocalMac)> {
        self.0.iter_mut().map(|(key, local)| (key, local.as_mut()))
    }

    pub(super) fn expire(&mut self, now: Instant, forget: Duration) {
        self.0.retain(|_, local| !local.is_idle(now, forget));
    }
}
