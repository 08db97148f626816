//! Pins: the operator says that a MAC is on this host, whether it answers or not.
//!
//! A pinned MAC is claimed as soon as nobody else claims it, and is not given up for silence. It
//! gives way to a real move, by the rules for any other: a RARP or gratuitous ARP elsewhere takes it,
//! another frame there does once the MAC does not answer here. Then, or when its port is gone, the
//! pin is *suspended* until the operator repeats it, the MAC is heard here, a port comes up, or the
//! node starts again; each of these claims it only if nobody else does.

use std::time::Instant;

use super::Directory;
use super::local::LocalMac;
use crate::directory::claim::ClaimKind;
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass;
use crate::switching::MacKey;

/// A pin, on the MAC that it is of. Bound: by whoever pins; removed by [`Directory::unpin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pin {
    /// It claims nothing for now.
    pub(super) suspended: bool,
}

impl LocalMac {
    pub(super) const fn suspend_pin(&mut self) {
        if let Some(pin) = &mut self.pin {
            pin.suspended = true;
        }
    }

    pub(super) const fn resume_pin(&mut self) {
        if let Some(pin) = &mut self.pin {
            pin.suspended = false;
        }
    }
}

impl Directory {
    /// The operator pins `key` to this host: taken at once, like an announcement.
    ///
    /// # Errors
    /// As [`Directory::handle_announce`]; [`DropReason::ClaimOverflow`] also for too many MACs.
    pub fn pin(&mut self, now: Instant, key: MacKey) -> Result<(), DropReason> {
        self.set_pin(key)?;
        self.handle_announce(now, key)?;
        self.restate(now, key, ClaimKind::Pinned)
    }

    /// `key` was pinned before the start, or is while nothing is attached: claimed with the next
    /// [`Directory::handle_port_up`] unless somebody else does.
    ///
    /// # Errors
    /// [`DropReason::ClaimOverflow`] for too many MACs.
    pub fn restore_pin(&mut self, key: MacKey) -> Result<(), DropReason> {
        self.set_pin(key)?;
        if let Some(local) = self.local.get_mut(&key) {
            local.suspend_pin();
        }
        Ok(())
    }

    /// The operator takes the pin back: `key` is probed like any other MAC. `false` if it was not
    /// pinned.
    pub fn unpin(&mut self, now: Instant, key: MacKey) -> bool {
        let Some(local) = self.local.get_mut(&key) else {
            return false;
        };
        if local.pin.take().is_none() {
            return false;
        }
        // The claim stands until the probes say something else.
        let _ = self.restate(now, key, ClaimKind::Learned);
        if let Some(own) = self.own_mut(&key) {
            own.probe_at = now;
            own.probes = 0;
            self.wake(now);
        }
        true
    }

    /// The network was attached, or a port of its bridge came up: what is pinned may be behind it.
    pub fn handle_port_up(&mut self, now: Instant) {
        self.handle_port_up_but(now, |_| false);
    }

    /// As [`Directory::handle_port_up`], but pins of MACs that `rests` holds for rest on: their port is shut.
    pub fn handle_port_up_but(&mut self, now: Instant, rests: impl Fn(&MacKey) -> bool) {
        let resumed = self.local.iter_mut().filter(|(key, _)| !rests(key));
        for (_, local) in resumed {
            local.resume_pin();
        }
        self.claim_pins(now);
    }

    /// Claims what is pinned and claimed by nobody.
    pub(super) fn claim_pins(&mut self, now: Instant) {
        let active = |local: &LocalMac| local.pin.is_some_and(|pin| !pin.suspended);
        let pinned = self.local.iter().filter(|(_, local)| active(local));
        let keys: Vec<MacKey> = pinned.map(|(key, _)| *key).collect();
        for key in keys {
            self.claim_pin(now, key);
        }
    }

    fn set_pin(&mut self, key: MacKey) -> Result<(), DropReason> {
        if !key.mac.is_claimable() {
            return Err(DropReason::MacReserved);
        }
        let local = self.local.entry(key).ok_or(DropReason::ClaimOverflow)?;
        local.pin = Some(Pin { suspended: false });
        Ok(())
    }

    fn claim_pin(&mut self, now: Instant, key: MacKey) {
        if self.config.may_send && self.owner(now, &key).is_none() {
            // What cannot be claimed now is tried again with the next sweep.
            let _ = self.claim_here(now, key, EvidenceClass::Announced);
        }
    }

    /// States the own claim to `key` anew, as of `kind`.
    fn restate(&mut self, now: Instant, key: MacKey, kind: ClaimKind) -> Result<(), DropReason> {
        let stored = self.own_claim(&key).filter(|stored| stored.is_live(now));
        let Some(stored) = stored.filter(|stored| stored.claim.claim.kind != kind) else {
            return Ok(());
        };
        let mut claim = stored.claim.claim.clone();
        claim.kind = kind;
        claim.refresh = claim.refresh.saturating_add(1);
        self.sign_and_insert(now, &claim)
    }
}
