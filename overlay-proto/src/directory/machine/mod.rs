//! The directory of one network on one node, as a state machine.
//!
//! - `evidence`: a local frame says "here": claim, ask the owner, or refuse.
//! - `trunk`: a machine moves, and with it its MAC in all VLANs.
//! - `owner`: the other side: is a MAC of this node still there?
//! - `conflicts`: which MACs two nodes hear at once.
//! - `deserted`: a node on the same LAN is silent, and this one carries the LAN in its place.
//! - `ingest`: messages, claims and cards of others, once their signers are known as members.
//! - `exchange`: neighbours, pushes, anti-entropy.
//! - `lookup`: finding the owner of a MAC; `unknown`: when nobody is.
//! - `pins`: what the operator says is here.
//! - `publish`: refreshing own claims, and the DHT; `epochs`: when its keys change.
//! - `persist`: what a restart must not lose.

mod action;
mod conflicts;
mod deserted;
mod epochs;
mod evidence;
mod exchange;
mod ingest;
mod late;
mod local;
mod lookup;
mod owner;
mod persist;
mod pins;
mod publish;
mod standing;
mod talkers;
mod trunk;
mod unknown;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use action::{DirectoryAction, Entry, LocalVerdict, Place, Resolution};
pub use conflicts::ConflictReport;
pub use late::{LateFrame, LateVerdict};
pub use persist::MAX_SNAPSHOT;
pub use unknown::UnknownReport;

use self::action::Actions;
use self::deserted::Deserted;
use self::exchange::Neighbours;
use self::late::LateFrames;
use self::local::{LocalMacs, Restored};
use self::lookup::{Lookups, PerSecond};
use self::standing::Standing;
use self::talkers::Talkers;
use self::unknown::Unknowns;
use crate::directory::claim::generation_limit;
use crate::directory::claims::{ClaimStore, StoredClaim};
use crate::directory::roster::{Member, Presence, Roster};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::NodeKey;
use crate::switching::MacKey;
use crate::time::UnixTime;
use crate::{Entropy, SeededEntropy};

/// How often old things are swept out.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What a [`Directory`] is made of.
#[derive(Clone)]
pub struct DirectoryConfig {
    /// The overlay.
    pub overlay: OverlayId,
    /// The network.
    pub network: NetworkId,
    /// The network's key of the current epoch.
    pub epoch_key: [u8; 32],
    /// The key of the epoch before, while records are still read under it.
    pub old_epoch_key: Option<[u8; 32]>,
    /// When the overlay was born: bounds the generations.
    pub birth: UnixTime,
    /// May this node send into the network, hence claim?
    pub may_send: bool,
    /// This node's certificate chain, for members that ask for it.
    pub chain: Vec<u8>,
    /// `false` only in tests: no claim is pushed, exchanged or told to those who look one up, so
    /// that the DHT alone must resolve.
    pub replication: bool,
    /// A claim without a higher refresh dies at this age; all nodes of a network should have the
    /// same. [`CLAIM_TTL`](crate::directory::claims::CLAIM_TTL) unless the operator sets another, at
    /// least a few seconds. The times of refreshes and probes follow it.
    pub claim_ttl: Duration,
}

impl DirectoryConfig {
    /// The owner refreshes its claims at this age: three times within their life.
    const fn refresh(&self) -> Duration {
        Duration::from_millis(self.ttl_ms() / 3)
    }

    /// A MAC that is silent so long is probed.
    const fn idle(&self) -> Duration {
        Duration::from_millis(self.ttl_ms() / 2)
    }

    /// Between the probes of an idle MAC: 10 s of the usual life, time for a sleeper to wake.
    const fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.ttl_ms() / 60)
    }

    /// The addresses of a MAC that is neither claimed nor heard are kept in mind for so long: a question
    /// for it is asked with them.
    const fn remember(&self) -> Duration {
        Duration::from_millis(self.ttl_ms() * 2)
    }

    const fn ttl_ms(&self) -> u64 {
        self.claim_ttl.as_secs() * 1000 + self.claim_ttl.subsec_millis() as u64
    }
}

/// Nothing secret.
impl std::fmt::Debug for DirectoryConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryConfig")
            .field("overlay", &self.overlay)
            .field("network", &self.network)
            .field("may_send", &self.may_send)
            .finish_non_exhaustive()
    }
}

/// Who is where in one network, as this node knows it.
///
/// Order of calls: [`Directory::restore`] first if there is a snapshot, then
/// [`Directory::set_own_entry`]. After each `handle_*` or [`Directory::resolve`], take all of
/// [`Directory::poll_action`], then arm a timer for [`Directory::poll_timeout`] and call
/// [`Directory::handle_timeout`] when it fires. Give the workers' last-heard stamps by
/// [`Directory::heard`] at least every 100 ms while they change: the owner's answer relies on them.
///
/// Memory: the claims and the roster are bounded at 4,096 each, the MACs of this host at 4,096 with
/// 64 talkers each, look-ups at 512, waiting claims at 256.
pub struct Directory {
    config: DirectoryConfig,
    key: NodeKey,
    me: PeerId,
    chance: SeededEntropy,
    claims: ClaimStore,
    roster: Roster,
    incarnation: u64,
    standing: Standing,
    local: LocalMacs,
    asking: Asking,
    moves: Moves,
    deserted: Deserted,
    neighbours: Neighbours,
    timing: Timing,
    actions: Actions,
}

/// Who has a MAC: what this node wants to know, and what others want of it.
#[derive(Debug, Default)]
struct Asking {
    searches: Searches,
    lookups: Lookups,
    unknowns: Unknowns,
}

/// What there is to do once a MAC has moved: whom to tell, and frames that came to the old place.
#[derive(Debug, Default)]
struct Moves {
    talkers: Talkers,
    late: LateFrames,
}

/// MACs that others asked all for and that this node looks for on its bridge. Bound: 64, the oldest
/// out; removed by the probe's result.
#[derive(Debug, Default)]
struct Searches {
    wanted: VecDeque<(MacKey, PeerId)>,
    rate: PerSecond,
}

/// Timers that belong to no MAC and no neighbour.
#[derive(Debug)]
struct Timing {
    /// Nothing is due before.
    due: Instant,
    /// When old things were last swept out.
    swept: Instant,
    /// The DHT takes records.
    dht_ready: bool,
    /// The last nonce of a question to an owner.
    nonce: u64,
    /// The wall clock, and when it was read.
    wall: (Instant, UnixTime),
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("network", &self.config.network)
            .field("claims", &self.claims.len())
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// A directory that knows nothing. `entropy` seeds the jitter and the choice of neighbours, no
    /// key.
    #[must_use]
    pub fn new(
        now: Instant,
        wall: UnixTime,
        config: DirectoryConfig,
        key: NodeKey,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let me = key.peer_id();
        let claim_ttl = config.claim_ttl;
        let mut standing = Standing::default();
        standing.set(me, config.may_send, &config.chain);
        let mut directory = Self {
            roster: Roster::new(config.overlay, config.network, me),
            config,
            key,
            me,
            chance: SeededEntropy::new(entropy.next_u64()),
            claims: ClaimStore::with_ttl(claim_ttl),
            incarnation: 0,
            standing,
            local: LocalMacs::default(),
            asking: Asking::default(),
            moves: Moves::default(),
            deserted: Deserted::default(),
            neighbours: Neighbours::new(now),
            timing: Timing {
                due: now,
                swept: now,
                dht_ready: false,
                nonce: 0,
                wall: (now, wall),
            },
            actions: Actions::default(),
        };
        directory.schedule_sync(now);
        directory
    }

    /// The wall clock, which bounds generations and dates roster entries. Also taken from other inputs.
    pub const fn set_wall(&mut self, now: Instant, wall: UnixTime) {
        self.timing.wall = (now, wall);
    }

    /// A frame for or from local `key` was exchanged with `peer`.
    pub fn note_talker(&mut self, now: Instant, key: MacKey, peer: PeerId) {
        if peer != self.me {
            self.moves.talkers.note(now, key, peer);
        }
    }

    /// The workers saw a frame from local `key` at `at`.
    pub fn heard(&mut self, at: Instant, key: MacKey) {
        if let Some(local) = self.local.get_mut(&key)
            && local.own.is_some()
            && local.doubted.is_none_or(|doubted| at > doubted)
        {
            local.heard = local.heard.max(Some(at));
        }
    }

    /// The next thing to do, `None` when there is nothing.
    pub fn poll_action(&mut self) -> Option<DirectoryAction> {
        self.actions.pop()
    }

    /// How many messages were lost since the last call, because too many waited to be polled.
    pub const fn take_lost(&mut self) -> u64 {
        self.actions.take_lost()
    }

    /// When to call [`Directory::handle_timeout`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        Some(self.timing.due)
    }

    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.timing.due {
            return;
        }
        self.run_questions(now);
        self.take_from_the_dead(now);
        self.run_own_claims(now);
        self.run_lookups(now);
        self.run_sync(now);
        if now.saturating_duration_since(self.timing.swept) >= SWEEP_INTERVAL {
            self.sweep(now);
        }
        self.timing.due = self.next_timer();
    }

    /// The live owner of each MAC. Of MACs of this host all addresses that are known here, also
    /// those that the claim does not say yet.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = Entry> {
        let me = self.me;
        self.claims
            .iter()
            .filter(move |stored| stored.is_live(now))
            .map(move |stored| Entry {
                key: stored.claim.claim.key(),
                owner: stored.claim.signer(),
                local: stored.claim.signer() == me,
                generation: stored.claim.claim.generation,
                kind: stored.claim.claim.kind,
                contested: stored.claim.claim.contested,
                ips: self.ips_of(me, stored),
                age: stored.age(now),
            })
    }

    fn ips_of(&self, me: PeerId, stored: &StoredClaim) -> Vec<IpAddr> {
        let claim = &stored.claim.claim;
        let local = self.local.get(&claim.key());
        let mut ips = claim.ips.clone();
        if let Some(local) = local.filter(|_| stored.claim.signer() == me) {
            ips.extend(local.ips.iter().filter(|ip| !claim.ips.contains(ip)));
        }
        ips
    }

    /// The members that are in the network, this node included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.roster.joined()
    }

    /// `node`, if it is in the network.
    #[must_use]
    pub fn member(&self, node: &PeerId) -> Option<&Member> {
        let joined = |member: &&Member| member.entry.presence == Presence::Joined;
        self.roster.get(node).filter(joined)
    }

    /// Has `node` said that it left the network?
    #[must_use]
    pub fn has_left(&self, node: &PeerId) -> bool {
        let known = self.roster.get(node);
        known.is_some_and(|member| member.entry.presence == Presence::Left)
    }

    /// Who holds `key`?
    #[must_use]
    pub fn owner(&self, now: Instant, key: &MacKey) -> Option<PeerId> {
        self.claims
            .live(now, key)
            .map(|stored| stored.claim.signer())
    }

    /// Grows with each change of [`Directory::entries`] or [`Directory::members`] that a `Fib` must
    /// see.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.actions.version()
    }

    /// The claim to `key`, if it is live or withdrawn and of this node.
    fn own_claim(&self, key: &MacKey) -> Option<&StoredClaim> {
        self.claims
            .get(key)
            .filter(|stored| stored.claim.signer() == self.me)
    }

    fn generation_limit(&self, now: Instant) -> u64 {
        generation_limit(self.config.birth, self.wall_at(now))
    }

    fn wall_at(&self, now: Instant) -> UnixTime {
        let (then, wall) = self.timing.wall;
        wall.plus(now.saturating_duration_since(then))
    }

    /// A random time below `bound`.
    fn jitter(&mut self, bound: Duration) -> Duration {
        let millis = u32::try_from(bound.as_millis()).unwrap_or(u32::MAX).max(1);
        Duration::from_millis(u64::from(self.chance.next_u32() % millis))
    }

    fn wake(&mut self, at: Instant) {
        self.timing.due = self.timing.due.min(at);
    }

    fn next_timer(&self) -> Instant {
        let local = self
            .local
            .iter()
            .filter_map(|(_, local)| local.next_timer(self.timing.dht_ready))
            .min();
        [
            local,
            self.asking.lookups.next_timer(),
            self.deserted.next_timer(),
            self.neighbours.next_timer(),
        ]
        .into_iter()
        .flatten()
        .fold(self.timing.swept + SWEEP_INTERVAL, Instant::min)
    }

    /// A withdrawn claim of this node is forgotten sooner than a peer that never heard of the withdrawal forgets
    /// the claim before it: what comes next goes on above.
    fn remember_expired(&mut self, now: Instant) {
        let own = self.claims.expired(now);
        let own = own.filter(|(_, stored)| stored.claim.signer() == self.me);
        for (key, stored) in own {
            if let Some(local) = self.local.entry(*key) {
                local.restored = Some(Restored {
                    generation: stored.claim.claim.generation,
                    refresh: stored.claim.claim.refresh,
                    at: now,
                    is_spare: true,
                });
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.timing.swept, now);
        let died = |stored: &StoredClaim| {
            let death = stored.death();
            stored.claim.claim.is_live() && before < death && death <= now
        };
        if self.claims.iter().any(died) {
            self.actions.claims_changed();
        }
        self.remember_expired(now);
        self.claims.expire(now);
        self.roster.expire(now);
        self.renew_own_entry(now);
        self.moves.talkers.expire(now);
        self.moves.late.expire(now);
        self.deserted.expire(now);
        self.asking.unknowns.expire(now);
        self.claim_pins(now);
        self.local.expire(now, self.config.remember());
    }
}
