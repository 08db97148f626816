//! A local frame says "here": claim, ask the owner, or refuse (DIRECTORY.md, Moves).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::local::{Ask, LocalMac, Lost, Own};
use super::{Directory, DirectoryAction, LocalVerdict, Place};
use crate::directory::claim::{Claim, ClaimKind, DefenderTag, FREEZE_AT, VerifiedClaim};
use crate::directory::claims::{Outcome, StoredClaim};
use crate::directory::messages::DirectoryMessage;
use crate::directory::order::Rank;
use crate::directory::signed::Signed;
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass;
use crate::ids::PeerId;
use crate::switching::MacKey;

/// A host that lost a MAC to class 2 or 3 is held to class 3 so long: its frames may be stale.
const HOLD_DOWN: Duration = Duration::from_secs(3);
/// Frames that were in the local bridge when the MAC was lost are no contest.
const STALE_FRAMES: Duration = Duration::from_millis(100);
/// A contest is over, and a freeze ends, after so much quiet (RFC 7432 section 15.1).
pub(super) const QUIET: Duration = Duration::from_secs(180);
/// An owner with a session that is silent so long is gone.
pub(super) const OWNER_SILENT: Duration = Duration::from_millis(400);
/// Without a session one has to come up first.
const OWNER_SILENT_NO_SESSION: Duration = Duration::from_millis(1500);
/// An owner that is alive is asked again after this, then after twice that, up to the maximum.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// The owner of a frozen MAC is asked so often: a freeze ends with whoever does not answer, and that
/// must show within 5 s.
const BACKOFF_FROZEN: Duration = Duration::from_secs(1);

impl Directory {
    /// A frame from a local attachment whose source the `Fib` does not have as local, or that tells
    /// addresses.
    pub fn handle_local_frame(
        &mut self,
        now: Instant,
        key: MacKey,
        class: EvidenceClass,
        ips: &[IpAddr],
    ) -> LocalVerdict {
        let rival = self.owner(now, &key).filter(|owner| *owner != self.me);
        let verdict = self.hear(now, key, class, ips);
        if verdict == LocalVerdict::Forward
            && class >= EvidenceClass::Strong
            && let Some(rival) = rival
        {
            self.ask_for_other_vlans(now, key, rival);
        }
        verdict
    }

    /// As [`Directory::handle_local_frame`], for this VLAN alone.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        key: MacKey,
        class: EvidenceClass,
        ips: &[IpAddr],
    ) -> LocalVerdict {
        if !key.mac.is_claimable() {
            return LocalVerdict::Drop(DropReason::MacReserved);
        }
        if !self.config.may_send {
            return LocalVerdict::Drop(DropReason::ClaimRights);
        }
        // One that could not be claimed anyway is not remembered either.
        if self.local.get(&key).is_none()
            && self.claims.live(now, &key).is_none()
            && let Err(reason) = self.claims.check_room(now, &key, &self.me)
        {
            return LocalVerdict::Drop(reason);
        }
        let Some(local) = self.local.entry(key) else {
            return LocalVerdict::Drop(DropReason::ClaimOverflow);
        };
        local.heard = Some(now);
        let new_ips = local.learn(ips);
        let outcome = match self.claims.live(now, &key) {
            None => self.claim_here(now, key, class),
            Some(stored) if stored.claim.signer() == self.me => {
                // Generation 0 was only for want of better evidence.
                if stored.claim.claim.generation == 0 && class > EvidenceClass::Leaked {
                    self.claim_here(now, key, class)
                } else {
                    if new_ips {
                        self.refresh_soon(now, key);
                    }
                    Ok(())
                }
            }
            Some(stored) => {
                let rival = stored.clone();
                return self.judge_rival(now, key, class, &rival);
            }
        };
        verdict(outcome)
    }

    /// The operator, a hypervisor's hook or a hand-over says that `key` is here: class 3.
    ///
    /// # Errors
    /// [`DropReason::MacReserved`], [`DropReason::ClaimRights`], [`DropReason::GenerationTooFar`] or
    /// [`DropReason::ClaimOverflow`].
    pub fn handle_announce(&mut self, now: Instant, key: MacKey) -> Result<(), DropReason> {
        let owned = self.owner(now, &key) == Some(self.me);
        match self.handle_machine_frame(now, key, EvidenceClass::Announced) {
            LocalVerdict::Drop(reason) => return Err(reason),
            LocalVerdict::Forward | LocalVerdict::Hold => {}
        }
        if owned && let Some(stored) = self.own_claim(&key) {
            // Nothing changed here; tell the others once more.
            let claim = stored.claim.clone();
            self.push_claim(now, &claim, None);
        }
        Ok(())
    }

    /// The port behind these MACs lost its carrier or was detached: withdraws the claims.
    pub fn handle_port_lost(&mut self, now: Instant, keys: &[MacKey]) {
        for key in keys {
            if let Some(local) = self.local.get_mut(key) {
                local.suspend_pin();
            }
            self.withdraw(now, *key);
        }
    }

    /// The answer of an owner that this node asked.
    pub(super) fn owner_answered(&mut self, now: Instant, from: PeerId, nonce: u64, alive: bool) {
        let asked = |local: &LocalMac| {
            matches!(local.ask, Some(Ask::Waiting { nonce: own, owner, .. })
                if own == nonce && owner == from)
        };
        let Some(key) = self
            .local
            .iter()
            .find(|(_, local)| asked(local))
            .map(|(key, _)| *key)
        else {
            return;
        };
        if !alive {
            self.owner_is_gone(now, key);
            return;
        }
        if let Some(local) = self.local.get_mut(&key)
            && let Some(Ask::Waiting { backoff, .. }) = local.ask
        {
            // The first time the owner may speak of frames from before a move; asked again it
            // knows: both of us hear the MAC.
            if backoff > BACKOFF_MIN
                && let Some(lost) = &mut local.lost
            {
                lost.contested = Some(now);
            }
            local.ask = Some(Ask::Alive {
                until: now + backoff,
                backoff,
            });
            local.note_conflict(now, from);
        }
        let reason = DropReason::MacHeldElsewhere;
        self.actions
            .push(DirectoryAction::HeldRefused { key, reason });
    }

    /// Questions whose owner stayed silent.
    pub(super) fn run_questions(&mut self, now: Instant) {
        let silent: Vec<MacKey> = self
            .local
            .iter()
            .filter(|(_, local)| {
                matches!(local.ask, Some(Ask::Waiting { deadline, .. }) if deadline <= now)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in silent {
            self.owner_is_gone(now, key);
        }
        self.answer_late_askers(now);
        self.ask_followers_again(now);
    }

    /// Bumps or makes the claim to `key`.
    pub(super) fn claim_here(
        &mut self,
        now: Instant,
        key: MacKey,
        class: EvidenceClass,
    ) -> Result<(), DropReason> {
        let claim = self.next_claim(now, key, class);
        self.claim(now, &claim)
    }

    /// As [`Directory::claim_here`] over an owner that is gone: there is nobody to contest with.
    pub(super) fn claim_deserted(&mut self, now: Instant, key: MacKey) -> Result<(), DropReason> {
        let mut claim = self.next_claim(now, key, EvidenceClass::Ordinary);
        claim.contested = 0;
        claim.defender = DefenderTag::default();
        self.claim(now, &claim)
    }

    fn claim(&mut self, now: Instant, claim: &Claim) -> Result<(), DropReason> {
        if claim.generation > self.generation_limit(now) {
            return Err(DropReason::GenerationTooFar);
        }
        self.claims.check_room(now, &claim.key(), &self.me)?;
        self.sign_and_insert(now, claim)
    }

    /// Withdraws the claim to `key`, if this node holds it.
    pub(super) fn withdraw(&mut self, now: Instant, key: MacKey) {
        let Some(stored) = self.own_claim(&key).filter(|stored| stored.is_live(now)) else {
            return;
        };
        let mut claim = stored.claim.claim.clone();
        claim.kind = ClaimKind::Withdrawn;
        claim.refresh = claim.refresh.saturating_add(1);
        claim.ips = Vec::new();
        // A claim of one's own cannot be refused: it replaces one that was not.
        let _ = self.sign_and_insert(now, &claim);
    }

    /// Signs a claim of this node and lets it take effect here and elsewhere.
    pub(super) fn sign_and_insert(
        &mut self,
        now: Instant,
        claim: &Claim,
    ) -> Result<(), DropReason> {
        let signed = Signed::seal(claim, &self.key, &self.config.overlay)?;
        let verified = VerifiedClaim {
            rank: Rank::of(claim, &signed),
            claim: claim.clone(),
            signed,
        };
        match self.claims.insert(now, verified.clone()) {
            Outcome::Refused(reason) => return Err(reason),
            Outcome::Stale { .. } => return Err(DropReason::MacHeldElsewhere),
            Outcome::Known => return Ok(()),
            Outcome::Refreshed => {}
            Outcome::Accepted { previous } => self.owner_changed(now, claim.key(), previous, None),
        }
        self.schedule_own(now, &verified);
        self.push_claim(now, &verified, None);
        Ok(())
    }

    /// The winner for `key` is another than before. `from`: who told.
    pub(super) fn owner_changed(
        &mut self,
        now: Instant,
        key: MacKey,
        previous: Option<PeerId>,
        from: Option<PeerId>,
    ) {
        self.actions.claims_changed();
        let Some(stored) = self.claims.get(&key) else {
            return;
        };
        let claim = stored.claim.clone();
        let owner = claim.signer();
        if claim.claim.is_live() {
            self.asking.unknowns.found(&key);
            if self.asking.lookups.found(&key) {
                self.actions.push(DirectoryAction::Resolved { key });
            }
        }
        let ips = self
            .local
            .get(&key)
            .map_or_else(Vec::new, |local| local.ips.clone());
        let mut asked = false;
        if let Some(local) = self.local.get_mut(&key) {
            asked = local.ask.take().is_some();
            local.askers.clear();
            local.answer_by = None;
            if owner == self.me {
                local.lost = None;
                if claim.claim.is_live() {
                    local.resume_pin();
                }
            }
            let other = if owner == self.me {
                previous
            } else {
                Some(owner)
            };
            if let Some(other) = other.filter(|other| *other != self.me)
                && claim.claim.contested > 0
            {
                local.note_conflict(now, other);
            }
        }
        if owner == self.me {
            if claim.claim.is_live() && previous != Some(self.me) {
                let to = Place::Local;
                self.actions.push(DirectoryAction::Moved { key, to, ips });
                if let Some(from) = previous {
                    self.moves.late.gained(now, key, from);
                }
            }
        } else if previous == Some(self.me) && self.outlives(&claim) {
            // What cannot be claimed is told when its next frame comes.
            let _ = self.claim_deserted(now, key);
        } else if previous == Some(self.me) {
            self.lose(now, &claim);
            let to = Place::Remote(owner);
            self.actions.push(DirectoryAction::Moved { key, to, ips });
            self.tell_talkers(now, &claim, from);
        } else if !claim.claim.is_live()
            && let Some(previous) = previous
            && !self.take_given_up(now, &previous, key)
        {
            self.vacated(now, key, asked);
        }
    }

    /// Does the own claim that `winner` takes the place of say more than it? A tombstone of the same generation is that
    /// of a node which had the MAC and did not know ours, as on the other side of a cut: gone there, it is still here.
    /// One of a higher generation knew ours, and the MAC had moved.
    fn outlives(&self, winner: &VerifiedClaim) -> bool {
        let local = self.local.get(&winner.claim.key());
        let own = local.and_then(|local| local.own.as_ref());
        winner.claim.kind == ClaimKind::Withdrawn
            && own.is_some_and(|own| own.generation == winner.claim.generation)
    }

    /// Its owner has given `key` up. Whoever heard it meanwhile need not ask any more.
    fn vacated(&mut self, now: Instant, key: MacKey, asked: bool) {
        if asked {
            // What cannot be claimed is told when its next frame comes.
            let _ = self.claim_deserted(now, key);
        } else {
            self.actions.push(DirectoryAction::Vacated { key });
        }
    }

    /// Another node holds `key`, and it was heard here.
    ///
    /// A freeze does not say no by itself: the owner does, for as long as it answers.
    pub(super) fn judge_rival(
        &mut self,
        now: Instant,
        key: MacKey,
        class: EvidenceClass,
        rival: &StoredClaim,
    ) -> LocalVerdict {
        let held_elsewhere = LocalVerdict::Drop(DropReason::MacHeldElsewhere);
        if class == EvidenceClass::Leaked {
            return held_elsewhere;
        }
        if class < EvidenceClass::Announced {
            if self.is_held_down(now, key) {
                return held_elsewhere;
            }
            let owner = rival.claim.signer();
            if self.is_frozen(now, key, rival) {
                return self.ask_owner(now, key, owner, BACKOFF_FROZEN);
            }
            if class == EvidenceClass::Ordinary {
                return self.ask_owner(now, key, owner, BACKOFF_MAX);
            }
        }
        verdict(self.claim_here(now, key, class))
    }

    /// Lost to an announcement a moment ago? Hearing the MAC all the same makes it contested.
    fn is_held_down(&mut self, now: Instant, key: MacKey) -> bool {
        let Some(lost) = self
            .local
            .get_mut(&key)
            .and_then(|local| local.lost.as_mut())
        else {
            return false;
        };
        let held = now < lost.held_until;
        if held && now >= lost.at + STALE_FRAMES {
            lost.contested = Some(now);
        }
        held
    }

    /// Did the contest for `key` end in a freeze that binds this node? As long as the MAC is heard
    /// here there is no quiet.
    fn is_frozen(&mut self, now: Instant, key: MacKey, rival: &StoredClaim) -> bool {
        if rival.claim.lets_contest(&self.me) {
            return false;
        }
        let Some(lost) = self
            .local
            .get_mut(&key)
            .and_then(|local| local.lost.as_mut())
        else {
            return now.saturating_duration_since(rival.contested_since) < QUIET;
        };
        let quiet_since = rival.contested_since.max(lost.contested.unwrap_or(lost.at));
        let frozen = now.saturating_duration_since(quiet_since) < QUIET;
        if frozen {
            lost.contested = Some(now);
        }
        frozen
    }

    /// `most`: how long an owner that is alive is not asked again.
    fn ask_owner(
        &mut self,
        now: Instant,
        key: MacKey,
        owner: PeerId,
        most: Duration,
    ) -> LocalVerdict {
        let silent = if self.neighbours.contains(&owner) {
            OWNER_SILENT
        } else {
            OWNER_SILENT_NO_SESSION
        };
        let nonce = self.timing.nonce + 1;
        let Some(local) = self.local.get_mut(&key) else {
            return LocalVerdict::Drop(DropReason::ClaimOverflow);
        };
        let backoff = match local.ask {
            Some(Ask::Waiting { .. }) => return LocalVerdict::Hold,
            Some(Ask::Alive { until, backoff }) if now + backoff < until + backoff.min(most) => {
                return LocalVerdict::Drop(DropReason::MacHeldElsewhere);
            }
            Some(Ask::Alive { backoff, .. }) => (backoff * 2).min(most),
            None => BACKOFF_MIN,
        };
        local.ask = Some(Ask::Waiting {
            nonce,
            owner,
            deadline: now + silent,
            backoff,
        });
        self.timing.nonce = nonce;
        self.wake(now + silent);
        self.actions
            .send(owner, DirectoryMessage::ask_owner(key, nonce));
        LocalVerdict::Hold
    }

    fn owner_is_gone(&mut self, now: Instant, key: MacKey) {
        if let Some(local) = self.local.get_mut(&key) {
            local.ask = None;
        }
        let rival = self.owner(now, &key).filter(|owner| *owner != self.me);
        match self.claim_deserted(now, key) {
            Ok(()) => {
                if let Some(rival) = rival {
                    self.ask_for_other_vlans(now, key, rival);
                }
            }
            Err(reason) => self
                .actions
                .push(DirectoryAction::HeldRefused { key, reason }),
        }
    }

    fn next_claim(&self, now: Instant, key: MacKey, class: EvidenceClass) -> Claim {
        let local = self.local.get(&key);
        let mut claim = Claim {
            network: self.config.network,
            vlan: key.vlan,
            mac: key.mac,
            generation: u64::from(class > EvidenceClass::Leaked),
            kind: if local.is_some_and(|local| local.pin.is_some()) {
                ClaimKind::Pinned
            } else if class >= EvidenceClass::Strong {
                ClaimKind::Announced
            } else {
                ClaimKind::Learned
            },
            predecessor: [0; 32],
            contested: 0,
            defender: DefenderTag::default(),
            ips: local.map_or_else(Vec::new, |local| local.ips.clone()),
            refresh: 1,
        };
        let Some(old) = self.claims.get(&key) else {
            if let Some(restored) = local.and_then(|local| local.restored) {
                // Not a move: the same claim as before the restart, unless somebody knows better.
                claim.generation = restored.generation;
                claim.refresh = restored.refresh.saturating_add(1);
            }
            return claim;
        };
        claim.generation = old.claim.claim.generation.saturating_add(1);
        claim.predecessor = old.claim.hash();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < QUIET;
        let contested = old.is_live(now)
            && local
                .and_then(|local| local.lost)
                .and_then(|lost| lost.contested)
                .is_some_and(is_recent);
        let before = if is_recent(old.contested_since) {
            old.claim.claim.contested
        } else {
            0
        };
        let defender = if before == 0 {
            // At the first contested move, the one who takes the MAC back had it before.
            DefenderTag::of(&self.config.network, &self.me)
        } else {
            old.claim.claim.defender
        };
        let count = before.saturating_add(u8::from(contested));
        // The operator's word ends a contest; a clean move leaves the count.
        if count > 0 && class < EvidenceClass::Announced {
            self.mark_contest(&mut claim, count, defender);
        }
        claim
    }

    /// Writes the count into the claim. Only the defender may write the last.
    fn mark_contest(&self, claim: &mut Claim, count: u8, defender: DefenderTag) {
        let own = DefenderTag::of(&self.config.network, &self.me);
        let most = if defender == own {
            FREEZE_AT
        } else {
            FREEZE_AT - 1
        };
        claim.contested = count.min(most);
        claim.defender = defender;
    }

    fn lose(&mut self, now: Instant, winner: &VerifiedClaim) {
        let held = match winner.claim.kind {
            ClaimKind::Announced | ClaimKind::Pinned => HOLD_DOWN,
            ClaimKind::Learned | ClaimKind::Withdrawn => Duration::ZERO,
        };
        if let Some(local) = self.local.get_mut(&winner.claim.key()) {
            if let Some(own) = local.own.take() {
                self.moves
                    .late
                    .lost(now, winner.claim.key(), own.generation);
            }
            local.restored = None;
            // A real move counts more than what was pinned before it.
            local.suspend_pin();
            local.lost = Some(Lost {
                at: now,
                held_until: now + held,
                contested: None,
            });
        }
    }

    /// Timers of a claim just made or refreshed.
    fn schedule_own(&mut self, now: Instant, claim: &VerifiedClaim) {
        let key = claim.claim.key();
        if !claim.claim.is_live() {
            if let Some(local) = self.local.get_mut(&key) {
                local.own = None;
            }
            self.publish(claim);
            return;
        }
        let own = self.own_timers(now, claim.claim.generation);
        if let Some(local) = self.local.entry(key) {
            let probes = local.own.map(|old| (old.probe_at, old.probes));
            let (probe_at, probes) = probes.unwrap_or((own.probe_at, 0));
            local.own = Some(Own {
                probe_at,
                probes,
                ..own
            });
        }
        self.wake(own.refresh_at);
        if let Some(at) = own.publish_at {
            self.wake(at);
        }
    }
}

fn verdict(outcome: Result<(), DropReason>) -> LocalVerdict {
    match outcome {
        Ok(()) => LocalVerdict::Forward,
        Err(reason) => LocalVerdict::Drop(reason),
    }
}
