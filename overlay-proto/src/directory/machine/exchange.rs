//! Neighbours: what is pushed to them, and anti-entropy with them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Directory;
use crate::Entropy;
use crate::directory::claim::VerifiedClaim;
use crate::directory::messages::{DirectoryMessage, pack_claims, pack_roster};
use crate::directory::roster::{MAX_MEMBERS, Presence, RENEWAL, RosterEntry, RosterOutcome};
use crate::directory::signed::Signed;
use crate::directory::sync::{
    CLAIM_BUCKETS, Differences, Listed, MAX_SENT, ROSTER_BUCKETS, ShortHash, Summary, have_messages,
};
use crate::drop_reason::DropReason;
use crate::ids::PeerId;
use crate::time::UnixTime;

/// Up to so many members a change is pushed to everybody with a session.
const SMALL_NETWORK: usize = 8;
/// Neighbours that a change is pushed to in a larger network, besides the talkers.
const PUSH_FANOUT: usize = 8;
/// Own claims shown to a new neighbour at once; the digest brings the rest.
const FIRST_CLAIMS: usize = 32;
/// Between two digests: 10 s and up to 20 more at random.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
const SYNC_JITTER: Duration = Duration::from_secs(20);
/// Neighbours that tell this node within [`TELLING`] what it lacks. Whoever joins a large network meets sixty
/// members in a moment, and each would send it all the rest.
const TELLERS: usize = 4;
/// After this long others may tell: those that were put off get a digest then, so many at a time.
const TELLING: Duration = Duration::from_secs(1);

/// Members with a session. Bound: [`MAX_MEMBERS`]; removed by [`Directory::handle_neighbour_down`].
#[derive(Debug)]
pub(super) struct Neighbours {
    peers: BTreeSet<PeerId>,
    next_sync: Instant,
    /// Who tells what this node lacks, and since when. Bound: [`TELLERS`].
    tellers: Vec<(PeerId, Instant)>,
    /// Who was not listened to, and when the next of them are asked. Bound: `peers`, of which they are.
    put_off: BTreeSet<PeerId>,
    ask_put_off: Option<Instant>,
}

impl Neighbours {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            peers: BTreeSet::new(),
            next_sync: now,
            tellers: Vec::new(),
            put_off: BTreeSet::new(),
            ask_put_off: None,
        }
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let next_sync = (!self.peers.is_empty()).then_some(self.next_sync);
        [next_sync, self.ask_put_off].into_iter().flatten().min()
    }
}

/// The short hashes of what this node knows.
struct Hashes {
    offered: Vec<ShortHash>,
    known: BTreeSet<ShortHash>,
}

impl Directory {
    /// A session with a member of the network is up.
    pub fn handle_neighbour_up(&mut self, now: Instant, peer: PeerId) {
        if peer == self.me || self.neighbours.peers.len() >= MAX_MEMBERS {
            return;
        }
        self.neighbours.peers.insert(peer);
        if let Some(own) = self.roster.get(&self.me) {
            for message in pack_roster([own.signed.clone()]) {
                self.actions.send(peer, message);
            }
        }
        if self.config.replication {
            let own: Vec<_> = self
                .claims
                .iter()
                .filter(|stored| stored.claim.signer() == self.me && stored.is_live(now))
                .take(FIRST_CLAIMS)
                .map(|stored| stored.claim.signed.clone())
                .collect();
            for message in pack_claims(own) {
                self.actions.send(peer, message);
            }
        }
        self.send_digest(now, peer);
        let next_sync = self.neighbours.next_sync;
        self.wake(next_sync);
    }

    /// The last session with `peer` is gone.
    pub fn handle_neighbour_down(&mut self, _now: Instant, peer: PeerId) {
        self.neighbours.peers.remove(&peer);
        self.neighbours.put_off.remove(&peer);
    }

    /// What this node says about itself. A new statement is made only if it differs from the last.
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`] if the entry is of another network or node.
    pub fn set_own_entry(
        &mut self,
        now: Instant,
        certificate: [u8; 32],
        static_key: [u8; 32],
        addresses: Vec<String>,
    ) -> Result<(), DropReason> {
        let mut entry = RosterEntry {
            network: self.config.network,
            node: self.me,
            incarnation: 0,
            certificate,
            static_key,
            addresses,
            presence: Presence::Joined,
        };
        entry.trim();
        if let Some(last) = self.roster.get(&self.me) {
            entry.incarnation = last.entry.incarnation;
            if entry == last.entry {
                return Ok(());
            }
        }
        self.state_entry(now, entry)
    }

    /// Says once in [`RENEWAL`] that this node is there still.
    pub(super) fn renew_own_entry(&mut self, now: Instant) {
        let Some(own) = self.roster.get(&self.me) else {
            return;
        };
        let said = UnixTime(own.entry.incarnation).plus(RENEWAL);
        if own.entry.presence == Presence::Joined && self.wall_at(now) >= said {
            let entry = own.entry.clone();
            // It was accepted before, and nothing else in it has changed.
            let _ = self.state_entry(now, entry);
        }
    }

    /// This node leaves the network: withdraws its claims and says so in the roster.
    ///
    /// # Errors
    /// [`DropReason::RosterInvalid`], which no entry that was stated before gets.
    pub fn handle_leave(&mut self, now: Instant) -> Result<(), DropReason> {
        let keys: Vec<_> = self.local.iter().map(|(key, _)| *key).collect();
        self.handle_port_lost(now, &keys);
        let Some(own) = self.roster.get(&self.me) else {
            return Ok(());
        };
        let mut entry = own.entry.clone();
        entry.presence = Presence::Left;
        self.state_entry(now, entry)
    }

    /// Signs `entry` with the next incarnation and tells everybody.
    pub(super) fn state_entry(
        &mut self,
        now: Instant,
        mut entry: RosterEntry,
    ) -> Result<(), DropReason> {
        let next = self.incarnation.max(entry.incarnation).saturating_add(1);
        self.incarnation = next.max(self.wall_at(now).0);
        entry.incarnation = self.incarnation;
        let signed = Signed::seal(&entry, &self.key, &self.config.overlay)?;
        if self.roster.insert(now, &signed)? == RosterOutcome::Changed {
            self.actions.roster_changed();
        }
        for message in pack_roster([signed]) {
            self.actions.broadcast(message);
        }
        Ok(())
    }

    /// A claim of this node is new: everybody in a small network, else the talkers and some
    /// neighbours, from whom anti-entropy spreads it.
    pub(super) fn push_claim(
        &mut self,
        now: Instant,
        claim: &VerifiedClaim,
        except: Option<PeerId>,
    ) {
        if !self.config.replication {
            return;
        }
        let messages = pack_claims([claim.signed.clone()]);
        let members = self.roster.joined().count();
        if members.max(self.neighbours.peers.len() + 1) <= SMALL_NETWORK {
            for message in messages {
                self.actions.broadcast(message);
            }
            return;
        }
        let mut targets: BTreeSet<PeerId> =
            self.random_neighbours(PUSH_FANOUT).into_iter().collect();
        targets.extend(self.moves.talkers.of(now, &claim.claim.key()));
        targets.retain(|peer| Some(*peer) != except);
        for peer in targets {
            for message in &messages {
                self.actions.send(peer, message.clone());
            }
        }
    }

    /// This node lost a MAC: those who talk to it learn from it where it is now.
    pub(super) fn tell_talkers(
        &mut self,
        now: Instant,
        claim: &VerifiedClaim,
        from: Option<PeerId>,
    ) {
        if !self.config.replication {
            return;
        }
        for peer in self.moves.talkers.of(now, &claim.claim.key()) {
            if Some(peer) == from || peer == claim.signer() {
                continue;
            }
            for message in pack_claims([claim.signed.clone()]) {
                self.actions.send(peer, message);
            }
        }
    }

    /// Up to `count` neighbours, at random.
    pub(super) fn random_neighbours(&mut self, count: usize) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> = self.neighbours.peers.iter().copied().collect();
        let mut chosen = Vec::new();
        while chosen.len() < count && !peers.is_empty() {
            // Modulo bias does not matter here.
            let index = self.chance.next_u32() as usize % peers.len();
            chosen.push(peers.swap_remove(index));
        }
        chosen
    }

    pub(super) fn schedule_sync(&mut self, now: Instant) {
        self.neighbours.next_sync = now + SYNC_INTERVAL + self.jitter(SYNC_JITTER);
    }

    pub(super) fn run_sync(&mut self, now: Instant) {
        self.ask_those_put_off(now);
        if self.neighbours.next_sync > now {
            return;
        }
        self.schedule_sync(now);
        for peer in self.random_neighbours(1) {
            self.send_digest(now, peer);
        }
    }

    /// Compares with the next of those that were put off: most of them have nothing new by then.
    fn ask_those_put_off(&mut self, now: Instant) {
        if self.neighbours.ask_put_off.is_none_or(|at| at > now) {
            return;
        }
        for _ in 0..TELLERS {
            if let Some(peer) = self.neighbours.put_off.pop_first() {
                self.send_digest(now, peer);
            }
        }
        let more = !self.neighbours.put_off.is_empty();
        self.neighbours.ask_put_off = more.then(|| now + TELLING);
    }

    /// Step 1 came: answers with the buckets if something differs.
    pub(super) fn digest_came(
        &mut self,
        now: Instant,
        from: PeerId,
        claims: ShortHash,
        roster: ShortHash,
    ) {
        let own_claims = Summary::of(&self.claim_hashes(now).offered, CLAIM_BUCKETS);
        let own_roster = Summary::of(&self.roster_hashes().offered, ROSTER_BUCKETS);
        if own_claims.root() != claims || own_roster.root() != roster {
            let message = DirectoryMessage::Buckets {
                claims: own_claims.buckets(),
                roster: own_roster.buckets(),
            };
            self.actions.send(from, message);
        }
    }

    /// Does this node listen now to `from`, who tells what it lacks? If not, it asks somebody later.
    fn listens_to(&mut self, now: Instant, from: PeerId) -> bool {
        let tellers = &mut self.neighbours.tellers;
        tellers.retain(|(_, since)| now.saturating_duration_since(*since) < TELLING);
        if tellers.iter().any(|(teller, _)| *teller == from) {
            return true;
        }
        if tellers.len() < TELLERS {
            tellers.push((from, now));
            return true;
        }
        if self.neighbours.peers.contains(&from) {
            self.neighbours.put_off.insert(from);
            let at = *self.neighbours.ask_put_off.get_or_insert(now + TELLING);
            self.wake(at);
        }
        false
    }

    /// Step 2 came: lists what this node has where the buckets differ.
    pub(super) fn buckets_came(
        &mut self,
        now: Instant,
        from: PeerId,
        claims: &[ShortHash],
        roster: &[ShortHash],
    ) {
        if !self.listens_to(now, from) {
            return;
        }
        let (own_claims, own_roster) = (self.claim_hashes(now), self.roster_hashes());
        let claims = Listed {
            hashes: &own_claims.offered,
            buckets: Summary::of(&own_claims.offered, CLAIM_BUCKETS).differing(claims),
        };
        let roster = Listed {
            hashes: &own_roster.offered,
            buckets: Summary::of(&own_roster.offered, ROSTER_BUCKETS).differing(roster),
        };
        for message in have_messages(claims, roster) {
            self.actions.send(from, message);
        }
    }

    /// Step 3 came, for claims: sends what the other lacks, asks for what it has.
    pub(super) fn claims_listed(
        &mut self,
        now: Instant,
        from: PeerId,
        buckets: u64,
        theirs: &[ShortHash],
    ) {
        let own = self.claim_hashes(now);
        let mut differences =
            Differences::of(theirs, buckets, CLAIM_BUCKETS, &own.offered, &own.known);
        if !self.config.replication {
            differences.pull.clear();
        }
        self.send_claims(now, from, &differences.send);
        if !differences.pull.is_empty() && self.listens_to(now, from) {
            let message = DirectoryMessage::Pull {
                claims: differences.pull,
                roster: Vec::new(),
            };
            self.actions.send(from, message);
        }
    }

    /// Step 3 came, for the roster.
    pub(super) fn roster_listed(
        &mut self,
        now: Instant,
        from: PeerId,
        buckets: u16,
        theirs: &[ShortHash],
    ) {
        let own = self.roster_hashes();
        let differences = Differences::of(
            theirs,
            u64::from(buckets),
            ROSTER_BUCKETS,
            &own.offered,
            &own.known,
        );
        self.send_roster(from, &differences.send);
        if !differences.pull.is_empty() && self.listens_to(now, from) {
            let message = DirectoryMessage::Pull {
                claims: Vec::new(),
                roster: differences.pull,
            };
            self.actions.send(from, message);
        }
    }

    /// Step 4 came, or the own half of step 3: sends these claims.
    pub(super) fn send_claims(&mut self, now: Instant, to: PeerId, wanted: &[ShortHash]) {
        if wanted.is_empty() || !self.config.replication {
            return;
        }
        let wanted: BTreeSet<&ShortHash> = wanted.iter().collect();
        let claims: Vec<_> = self
            .claims
            .iter()
            .filter(|stored| stored.is_offered(now))
            .filter(|stored| wanted.contains(&ShortHash::of(&stored.claim.hash())))
            .take(MAX_SENT)
            .map(|stored| stored.claim.signed.clone())
            .collect();
        for message in pack_claims(claims) {
            self.actions.send(to, message);
        }
    }

    /// Sends these roster entries.
    pub(super) fn send_roster(&mut self, to: PeerId, wanted: &[ShortHash]) {
        let wanted: BTreeSet<&ShortHash> = wanted.iter().collect();
        let entries: Vec<_> = self
            .roster
            .iter()
            .filter(|member| wanted.contains(&ShortHash::of(&member.hash)))
            .take(MAX_SENT)
            .map(|member| member.signed.clone())
            .collect();
        for message in pack_roster(entries) {
            self.actions.send(to, message);
        }
    }

    fn send_digest(&mut self, now: Instant, to: PeerId) {
        let message = DirectoryMessage::Digest {
            claims: Summary::of(&self.claim_hashes(now).offered, CLAIM_BUCKETS).root(),
            roster: Summary::of(&self.roster_hashes().offered, ROSTER_BUCKETS).root(),
        };
        self.actions.send(to, message);
    }

    fn claim_hashes(&self, now: Instant) -> Hashes {
        let hash = |stored: &crate::directory::StoredClaim| ShortHash::of(&stored.claim.hash());
        let replication = self.config.replication;
        Hashes {
            offered: self
                .claims
                .iter()
                .filter(|stored| replication && stored.is_offered(now))
                .map(hash)
                .collect(),
            known: self.claims.iter().map(hash).collect(),
        }
    }

    fn roster_hashes(&self) -> Hashes {
        let offered: Vec<ShortHash> = self
            .roster
            .iter()
            .map(|member| ShortHash::of(&member.hash))
            .collect();
        Hashes {
            known: offered.iter().copied().collect(),
            offered,
        }
    }
}
