//! What others say: messages, cards, certificates.

use std::time::Instant;

use super::standing::Waiting;
use super::{Directory, DirectoryAction};
use crate::directory::card::OpenedCard;
use crate::directory::claim::{SignedClaim, VerifiedClaim};
use crate::directory::claims::Outcome;
use crate::directory::messages::{DirectoryMessage, pack_claims, pack_roster};
use crate::directory::roster::{RosterEntry, RosterOutcome, SignedRosterEntry};
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass;
use crate::ids::PeerId;
use crate::membership::certificate_hash;
use crate::switching::MacKey;
use crate::time::UnixTime;

/// Neighbours asked for the chain of a node that only the DHT named.
const CHAIN_ASKED: usize = 2;

impl Directory {
    /// A message from a member, out of a session with it.
    ///
    /// # Errors
    /// Why something in it does not count; the rest of it does all the same.
    pub fn handle_message(
        &mut self,
        now: Instant,
        wall: UnixTime,
        from: PeerId,
        message: DirectoryMessage,
    ) -> Result<(), DropReason> {
        self.set_wall(now, wall);
        self.note_alive(&from);
        match message {
            DirectoryMessage::Claims(claims) => all(&claims, |claim| {
                self.take_signed_claim(now, from, claim, None)
            }),
            DirectoryMessage::Roster(entries) => {
                all(&entries, |entry| self.take_entry(now, Some(from), entry))
            }
            DirectoryMessage::Digest { claims, roster } => {
                self.digest_came(now, from, claims, roster);
                Ok(())
            }
            DirectoryMessage::Buckets { claims, roster } => {
                self.buckets_came(now, from, &claims, &roster);
                Ok(())
            }
            DirectoryMessage::Have {
                claim_buckets,
                claims,
                roster_buckets,
                roster,
            } => {
                self.claims_listed(now, from, claim_buckets, &claims);
                self.roster_listed(now, from, roster_buckets, &roster);
                Ok(())
            }
            DirectoryMessage::Pull { claims, roster } => {
                self.send_claims(now, from, &claims);
                self.send_roster(from, &roster);
                Ok(())
            }
            other => self.handle_question(now, from, other),
        }
    }

    /// A card of a member, opened. Its chain comes back as [`DirectoryAction::VerifyChain`] unless it
    /// is known.
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`] or [`DropReason::CertificateRefused`].
    pub fn handle_card(
        &mut self,
        now: Instant,
        wall: UnixTime,
        card: &OpenedCard,
    ) -> Result<(), DropReason> {
        self.set_wall(now, wall);
        let node = card.entry.node;
        let taken = self.take_entry(now, None, &card.card.entry);
        if self.standing.is_member(&node).is_none() {
            let chain = card.card.chain.clone();
            self.actions
                .push(DirectoryAction::VerifyChain { node, chain });
        }
        taken
    }

    /// The driver verified the chain of `node`: it is a member of the network, and may send there or
    /// not. What waited for it takes effect. Also to be told for the peer of each new session.
    pub fn handle_member(&mut self, now: Instant, node: PeerId, may_send: bool, chain: &[u8]) {
        if node == self.me {
            return;
        }
        if !may_send {
            self.void_claims(&node);
        }
        for waiting in self.standing.set(node, may_send, chain) {
            // What does not count was the fault of whoever sent it, long gone.
            let _ = match waiting {
                Waiting::Claim(claim) => self.take_claim(now, None, *claim),
                Waiting::Entry(entry) => self.take_entry(now, None, &entry),
            };
        }
    }

    /// The own certificate is another one: a receipt came, or a second invite.
    pub fn set_own_chain(&mut self, may_send: bool, chain: &[u8]) {
        self.config.may_send = may_send;
        self.config.chain = chain.to_vec();
        self.standing.set(self.me, may_send, chain);
    }

    /// `node` is no member any more: it was revoked. Its claims are void.
    pub fn handle_member_gone(&mut self, now: Instant, node: PeerId) {
        self.standing.revoke(node);
        self.forget_member(now, node);
    }

    /// The certificate of `node` has ended. Its claims are void until it shows another one: who
    /// tells of it again is asked for that.
    pub fn handle_member_expired(&mut self, now: Instant, node: PeerId) {
        self.standing.forget(&node);
        self.forget_member(now, node);
    }

    /// The certificates that the members are known by, this node's included, to be judged again as
    /// time passes.
    pub fn certificates(&self) -> impl Iterator<Item = (PeerId, &[u8])> {
        self.standing.chains()
    }

    /// The certificate of `node`, if it is a member whose chain is known.
    #[must_use]
    pub fn certificate(&self, node: &PeerId) -> Option<&[u8]> {
        self.standing.chain(node)
    }

    fn forget_member(&mut self, now: Instant, node: PeerId) {
        self.void_claims(&node);
        self.handle_neighbour_down(now, node);
        if self.roster.remove(&node) {
            self.actions.roster_changed();
        }
    }

    /// A claim whose signature is good; `from` gets the winner if it loses.
    pub(super) fn take_claim(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        claim: VerifiedClaim,
    ) -> Result<(), DropReason> {
        let signer = claim.signer();
        match self.standing.may_send(&signer) {
            Some(true) => {}
            Some(false) => return Err(DropReason::ClaimRights),
            None => {
                self.wait_for_chain(now, from, signer, Waiting::Claim(Box::new(claim)));
                return Ok(());
            }
        }
        let key = claim.claim.key();
        match self.claims.insert(now, claim) {
            Outcome::Accepted { previous } => {
                self.owner_changed(now, key, previous, from);
                self.meet_own(now, key)
            }
            Outcome::Refreshed => self.meet_own(now, key),
            Outcome::Known => Ok(()),
            Outcome::Stale { winner } => {
                self.tell_all(from, pack_claims([winner]));
                Ok(())
            }
            Outcome::Refused(reason) => Err(reason),
        }
    }

    fn take_signed_claim(
        &mut self,
        now: Instant,
        from: PeerId,
        signed: &SignedClaim,
        expected: Option<MacKey>,
    ) -> Result<(), DropReason> {
        let claim = VerifiedClaim::open(
            signed,
            &self.config.overlay,
            &self.config.network,
            self.generation_limit(now),
        )?;
        if expected.is_some_and(|key| key != claim.claim.key()) {
            return Err(DropReason::ClaimInvalid);
        }
        self.take_claim(now, Some(from), claim)
    }

    fn handle_question(
        &mut self,
        now: Instant,
        from: PeerId,
        message: DirectoryMessage,
    ) -> Result<(), DropReason> {
        match message {
            DirectoryMessage::Query { vlan, mac } => {
                let key = MacKey { vlan, mac };
                let claim = self
                    .claims
                    .live(now, &key)
                    .filter(|_| self.config.replication)
                    .map(|stored| stored.claim.signed.clone());
                self.actions
                    .send(from, DirectoryMessage::answer(key, claim));
            }
            DirectoryMessage::Answer { vlan, mac, claim } => {
                let key = MacKey { vlan, mac };
                match claim {
                    Some(claim) => self.take_signed_claim(now, from, &claim, Some(key))?,
                    None => self.question_answered(now, key),
                }
            }
            DirectoryMessage::AskOwner { vlan, mac, nonce } => {
                self.owner_asked(now, from, MacKey { vlan, mac }, nonce);
            }
            DirectoryMessage::OwnerAnswer { nonce, alive } => {
                self.owner_answered(now, from, nonce, alive);
            }
            DirectoryMessage::WhoHas { vlan, mac } => {
                self.who_has_asked(now, from, MacKey { vlan, mac });
            }
            DirectoryMessage::AskChain { node } => {
                let chain = self.standing.chain(&node).map(<[u8]>::to_vec);
                let message = chain.map(|chain| DirectoryMessage::Chain { node, chain });
                self.tell_all(Some(from), message.into_iter().collect());
            }
            DirectoryMessage::Chain { node, chain } if self.standing.is_wanted(&node) => {
                self.actions
                    .push(DirectoryAction::VerifyChain { node, chain });
            }
            // A chain that nobody waits for; the others are taken by the caller.
            _ => {}
        }
        Ok(())
    }

    fn take_entry(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        signed: &SignedRosterEntry,
    ) -> Result<(), DropReason> {
        let node = signed.signer();
        match self.standing.is_member(&node) {
            Some(true) => {}
            Some(false) => return Err(DropReason::CertificateRefused),
            None => {
                signed.open(&self.config.overlay)?;
                self.wait_for_chain(now, from, node, Waiting::Entry(signed.clone()));
                return Ok(());
            }
        }
        let own = self.roster.get(&self.me).filter(|_| node == self.me);
        let own = own.map(|member| member.entry.clone());
        match self.roster.insert(now, signed)? {
            RosterOutcome::Changed => {
                self.actions.roster_changed();
                self.ask_for_renewal(now, from, node);
            }
            RosterOutcome::Known => return Ok(()),
            RosterOutcome::Stale(newer) => {
                self.tell_all(from, pack_roster([newer]));
                return Ok(());
            }
        }
        own.map_or(Ok(()), |own| self.meet_own_entry(now, own))
    }

    /// The entry of `node` names another certificate than the one known here: it was renewed, and the
    /// one here ends some day. The node itself has it for sure.
    fn ask_for_renewal(&mut self, now: Instant, from: Option<PeerId>, node: PeerId) {
        let named = self
            .roster
            .get(&node)
            .map(|member| member.entry.certificate);
        let known = self.standing.chain(&node).map(certificate_hash);
        let whom = if self.neighbours.contains(&node) {
            Some(node)
        } else {
            from
        };
        if let Some(whom) = whom.filter(|_| node != self.me && known != named)
            && self.standing.ask(now, node)
        {
            self.actions.send(whom, DirectoryMessage::AskChain { node });
        }
    }

    /// An entry of this node that it does not remember came from outside: what holds now, `own`, is stated anew, above
    /// it. It may say that this node left, and it has joined again since.
    fn meet_own_entry(&mut self, now: Instant, mut own: RosterEntry) -> Result<(), DropReason> {
        match self.roster.get(&self.me) {
            Some(came) if came.entry.incarnation > self.incarnation => {
                own.incarnation = came.entry.incarnation;
                self.state_entry(now, own)
            }
            _ => Ok(()),
        }
    }

    /// A claim of this node came from outside: it is one that this node does not remember.
    ///
    /// If it holds the MAC, it bumps. If it does not (it was restarted), it takes the claim over with
    /// a higher refresh only, so that a move made meanwhile still wins, and probes at once.
    fn meet_own(&mut self, now: Instant, key: MacKey) -> Result<(), DropReason> {
        let Some(stored) = self.own_claim(&key) else {
            return Ok(());
        };
        let mut claim = stored.claim.claim.clone();
        let holds = self
            .local
            .get(&key)
            .is_some_and(|local| local.own.is_some());
        if holds {
            return self.claim_here(now, key, EvidenceClass::Ordinary);
        }
        if !claim.is_live() {
            return Ok(());
        }
        if let Some(local) = self.local.entry(key) {
            local.learn(&claim.ips);
        }
        claim.refresh = claim.refresh.saturating_add(1);
        self.sign_and_insert(now, &claim)?;
        if let Some(own) = self.own_mut(&key) {
            own.probe_at = now;
        }
        self.wake(now);
        Ok(())
    }

    fn wait_for_chain(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        node: PeerId,
        waiting: Waiting,
    ) {
        if !self.standing.wait(now, waiting) {
            return;
        }
        let asked = from.map_or_else(|| self.random_neighbours(CHAIN_ASKED), |from| vec![from]);
        for peer in asked {
            self.actions.send(peer, DirectoryMessage::AskChain { node });
        }
    }

    fn tell_all(&mut self, to: Option<PeerId>, messages: Vec<DirectoryMessage>) {
        for message in messages {
            if let Some(to) = to {
                self.actions.send(to, message);
            }
        }
    }

    fn void_claims(&mut self, node: &PeerId) {
        if !self.claims.void_signer(node).is_empty() {
            self.actions.claims_changed();
        }
    }
}

/// Does all; the last error counts.
fn all<T>(
    items: &[T],
    mut each: impl FnMut(&T) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let mut outcome = Ok(());
    for item in items {
        if let Err(reason) = each(item) {
            outcome = Err(reason);
        }
    }
    outcome
}
