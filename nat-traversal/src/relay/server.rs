//! The relay itself: allocations, who permits whom, where each is bound, and the forwarding.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::codec::{Ack, Bind, Challenge, KIND_BIND, KIND_RELAYED, allocation_of};
use super::shaper::{Shaper, bytes_for};
use super::{RelayError, RelayKey};
use crate::entropy::Entropy;
use crate::path::AllocationId;
use crate::wire_bytes::{canonical, put};

/// Peers that one allocation permits. The one permitted longest ago makes room.
pub const MAX_PERMITS: usize = 256;
/// How long a challenge may be answered.
const CHALLENGE_LIFETIME: Duration = Duration::from_secs(10);

/// The limits of a relay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelayServerConfig {
    /// Allocations at once, one an owner. 4,096 with all permits used take about 36 MiB.
    pub max_allocations: usize,
    /// An allocation ends so long after its last bind.
    pub lifetime: Duration,
    /// Bytes a second that an owner may send, relay headers not counted.
    pub bytes_per_second: f64,
    /// Bytes that an owner may send at once.
    pub burst_bytes: f64,
    /// Bytes of an owner that wait because they came too early.
    pub queue_bytes: usize,
    /// Bytes that wait of all owners together.
    pub queue_bytes_in_all: usize,
}

/// The least burst: the largest train.
const MIN_BURST: f64 = 65_536.0;
/// The least queue: four of them, what a guest's TCP sends before it hears of the first.
const MIN_QUEUE: f64 = 4.0 * MIN_BURST;
/// Bursts and queues in time. A queue takes a burst; one that stays long is not waited for.
const BURST_TIME: Duration = Duration::from_millis(5);
const QUEUE_TIME: Duration = Duration::from_millis(20);

impl RelayServerConfig {
    /// The defaults, with `bytes_per_second` for each owner: 5 ms of it at once, up to 20 ms of it wait.
    #[must_use]
    pub fn with_rate(bytes_per_second: f64) -> Self {
        let queue = bytes_for(bytes_per_second, QUEUE_TIME, MIN_QUEUE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and saturates"
        )]
        let queue_bytes = queue as usize;
        Self {
            bytes_per_second,
            burst_bytes: bytes_for(bytes_per_second, BURST_TIME, MIN_BURST),
            queue_bytes,
            ..Self::default()
        }
    }
}

impl Default for RelayServerConfig {
    /// 4,096 allocations, 10 min, 100 Mbit/s, 64 KiB at once, 256 KiB that wait, 32 MiB in all.
    fn default() -> Self {
        Self {
            max_allocations: 4_096,
            lifetime: Duration::from_secs(600),
            bytes_per_second: 12_500_000.0,
            burst_bytes: MIN_BURST,
            queue_bytes: 262_144,
            queue_bytes_in_all: 33_554_432,
        }
    }
}

/// What an owner gets from [`RelayServer::allocate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayGrant {
    /// The allocation.
    pub allocation: AllocationId,
    /// Its key; earlier ones are void.
    pub key: RelayKey,
    /// The owner had this allocation before; its permits still stand.
    pub renewed: bool,
}

/// A datagram to send. It lies in the buffer that was handed in.
#[derive(Debug, PartialEq, Eq)]
pub struct RelayOutput<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The datagram, never longer than the one that caused it.
    pub bytes: &'a [u8],
}

/// What the relay has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayStats {
    /// Datagrams forwarded.
    pub forwarded: u64,
    /// Bytes forwarded, with relay headers.
    pub forwarded_bytes: u64,
    /// Datagrams of trains that had to wait; they count as forwarded, too.
    pub delayed: u64,
    /// Datagrams of trains that were lost because they came too early.
    pub over_quota: u64,
    /// Datagrams of trains that were wrong or not allowed.
    pub refused: u64,
}

#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) owner: [u8; 32],
    pub(super) key: RelayKey,
    /// Whom the owner permits, the oldest first. At most [`MAX_PERMITS`].
    pub(super) permits: VecDeque<[u8; 32]>,
    pub(super) bound: Option<SocketAddr>,
    counter: u64,
    /// The open challenge: to whom, its number, its end. At most one.
    challenge: Option<(SocketAddr, u64, Instant)>,
    expires: Instant,
    pub(super) shaper: Shaper,
}

/// The relay. Owners are opaque 32-byte names that the control plane has authenticated.
///
/// `allocate`, `permit` and `revoke_owner` serve the control plane, `forward_train` the datagrams of
/// kind 0x07 as they come, `handle_datagram` those of kind 0x08. Call `poll_release` when
/// `release_at` is due and `handle_timeout` when `poll_timeout` is. Allocations are removed by time
/// and by `revoke_owner`.
#[derive(Debug)]
pub struct RelayServer {
    pub(super) config: RelayServerConfig,
    pub(super) allocations: BTreeMap<AllocationId, Allocation>,
    owners: BTreeMap<[u8; 32], AllocationId>,
    pub(super) stats: RelayStats,
    /// Allocations in which something waits, each once; `poll_release` removes them.
    pub(super) shaped: Vec<AllocationId>,
    /// Bytes that wait in all of them.
    pub(super) held: usize,
}

impl RelayServer {
    /// An empty relay.
    #[must_use]
    pub const fn new(config: RelayServerConfig) -> Self {
        Self {
            config,
            allocations: BTreeMap::new(),
            owners: BTreeMap::new(),
            stats: RelayStats {
                forwarded: 0,
                forwarded_bytes: 0,
                delayed: 0,
                over_quota: 0,
                refused: 0,
            },
            shaped: Vec::new(),
            held: 0,
        }
    }

    /// Gives `owner` its one allocation. A repeat keeps the id and the permits, so that peers need
    /// not be told again; the key is new and the allocation must be bound again.
    ///
    /// # Errors
    ///
    /// [`RelayError::Full`].
    pub fn allocate(
        &mut self,
        now: Instant,
        owner: [u8; 32],
        entropy: &mut dyn Entropy,
    ) -> Result<RelayGrant, RelayError> {
        self.handle_timeout(now);
        let mut key = RelayKey([0; 16]);
        entropy.fill(&mut key.0);
        let expires = now + self.config.lifetime;
        if let Some((id, own)) = self.of_owner(&owner) {
            own.key = key;
            own.bound = None;
            own.counter = 0;
            own.challenge = None;
            own.expires = expires;
            return Ok(RelayGrant {
                allocation: id,
                key,
                renewed: true,
            });
        }
        if self.allocations.len() >= self.config.max_allocations {
            return Err(RelayError::Full);
        }
        // 64 random bits among some thousands: a second try is already a sign of broken entropy.
        let id = (0..4)
            .map(|_| AllocationId(entropy.next_u64()))
            .find(|id| id.0 != 0 && !self.allocations.contains_key(id))
            .ok_or(RelayError::Full)?;
        let shaper = Shaper::new(now, self.config.bytes_per_second, self.config.burst_bytes);
        let fresh = Allocation {
            owner,
            key,
            permits: VecDeque::new(),
            bound: None,
            counter: 0,
            challenge: None,
            expires,
            shaper,
        };
        self.allocations.insert(id, fresh);
        self.owners.insert(owner, id);
        Ok(RelayGrant {
            allocation: id,
            key,
            renewed: false,
        })
    }

    /// `owner` accepts datagrams from `peers` too, and may send to those that accept it.
    ///
    /// # Errors
    ///
    /// [`RelayError::UnknownAllocation`] or [`RelayError::NotOwner`].
    pub fn permit(
        &mut self,
        now: Instant,
        owner: [u8; 32],
        allocation: AllocationId,
        peers: &[[u8; 32]],
    ) -> Result<(), RelayError> {
        let own = live(&mut self.allocations, allocation, now)?;
        if own.owner != owner {
            return Err(RelayError::NotOwner);
        }
        for peer in peers {
            own.permits.retain(|known| known != peer);
            if own.permits.len() >= MAX_PERMITS {
                own.permits.pop_front();
            }
            own.permits.push_back(*peer);
        }
        Ok(())
    }

    /// Ends the allocation of `owner` and what others permit it: it is revoked or has left.
    pub fn revoke_owner(&mut self, owner: &[u8; 32]) {
        if let Some(id) = self.owners.remove(owner) {
            self.allocations.remove(&id);
        }
        for other in self.allocations.values_mut() {
            other.permits.retain(|peer| peer != owner);
        }
    }

    /// A datagram of kind 0x07 or 0x08 from `from`. What is to be sent is made in place. A relayed
    /// one does not wait here when it is above the quota; [`Self::forward_train`] lets it.
    ///
    /// # Errors
    ///
    /// Any error means silence towards `from`: drop and count.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Result<RelayOutput<'a>, RelayError> {
        let from = canonical(from);
        match datagram.first() {
            Some(&KIND_RELAYED) => {
                let to = self.forward(now, from, datagram)?;
                Ok(RelayOutput {
                    to,
                    bytes: datagram,
                })
            }
            Some(&KIND_BIND) => {
                let len = self.bind(now, entropy, from, datagram)?;
                let bytes = datagram.get(..len).ok_or(RelayError::Malformed)?;
                Ok(RelayOutput { to: from, bytes })
            }
            _ => Err(RelayError::Malformed),
        }
    }

    /// Removes what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Self {
            allocations,
            owners,
            ..
        } = self;
        allocations.retain(|_, own| {
            let keep = own.expires > now;
            if !keep {
                owners.remove(&own.owner);
            }
            keep
        });
    }

    /// When the next allocation ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.values().map(|own| own.expires).min()
    }

    /// Allocations at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allocations.len()
    }

    /// No allocation at the moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    /// What was done so far.
    #[must_use]
    pub const fn stats(&self) -> RelayStats {
        self.stats
    }

    /// One relayed datagram by itself: it leaves at once or not at all.
    fn forward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<SocketAddr, RelayError> {
        let leg = self.admit(now, from, datagram)?;
        let sender = live(&mut self.allocations, leg.sender(), now)?;
        if !sender.shaper.take(now, datagram.len()) {
            return Err(RelayError::Quota);
        }
        self.stats.forwarded += 1;
        self.stats.forwarded_bytes += datagram.len() as u64;
        Ok(leg.to)
    }

    /// Answers a bind in place with an ack or a challenge; gives the answer's length.
    fn bind(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<usize, RelayError> {
        let id = allocation_of(datagram).ok_or(RelayError::Malformed)?;
        let own = live(&mut self.allocations, id, now)?;
        let bind = Bind::decode(datagram, &own.key)?;
        if bind.counter <= own.counter {
            return Err(RelayError::Replayed);
        }
        own.counter = bind.counter;
        let answered = own
            .challenge
            .is_some_and(|(to, number, end)| to == from && number == bind.echo && end > now);
        if answered {
            own.bound = Some(from);
            own.challenge = None;
        } else if bind.echo != 0 && own.bound != Some(from) {
            return Err(RelayError::BadEcho);
        }
        if own.bound == Some(from) {
            own.expires = now + self.config.lifetime;
            let ack = Ack {
                allocation: id,
                counter: bind.counter,
                observed: from,
            };
            let bytes = ack.encode(&own.key);
            put(datagram, 0, &bytes);
            return Ok(bytes.len());
        }
        let challenge = entropy.next_u64() | 1;
        own.challenge = Some((from, challenge, now + CHALLENGE_LIFETIME));
        let bytes = Challenge {
            allocation: id,
            challenge,
        }
        .encode(&own.key);
        put(datagram, 0, &bytes);
        Ok(bytes.len())
    }

    fn of_owner(&mut self, owner: &[u8; 32]) -> Option<(AllocationId, &mut Allocation)> {
        let id = *self.owners.get(owner)?;
        Some((id, self.allocations.get_mut(&id)?))
    }
}

pub(super) fn live(
    allocations: &mut BTreeMap<AllocationId, Allocation>,
    id: AllocationId,
    now: Instant,
) -> Result<&mut Allocation, RelayError> {
    allocations
        .get_mut(&id)
        .filter(|own| own.expires > now)
        .ok_or(RelayError::UnknownAllocation)
}
