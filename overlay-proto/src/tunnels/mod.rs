//! All handshakes and sessions of a node with its peers, as one state machine.
//!
//! For each peer there are at most one handshake of our own and four sessions:
//!
//! ```text
//!   connect ──> pending ── message 2 ──────────────────────────┐
//!                                                              v       replaced
//!   message 1 ──> next (receives only) ── first packet ──> current ──────────────> older
//!                   │ nothing within 12 s                  seals        (receive only, at most 2)
//!                   v                                        │ 180 s                │ 180 s
//!                 closed                                   closed                 closed
//! ```
//!
//! - A responder's session stays *next*, which only receives, until a packet opens under it
//!   (TRUST.md 11): a replayed message 1 can neither replace a running session nor make a node
//!   send. The initiator greets with keep-alives until it hears the peer under the new key, the
//!   responder answers the first; so both ends know within a round trip even when no frame flows.
//! - If both ends begin at once, both handshakes complete, and the session that the lower PeerId
//!   began sends. The other one receives.
//! - A message 1 goes out on all given paths at once, the same bytes; the answer comes back on the
//!   path it was first heard on. An identical repetition gets the identical response.
//! - The initiator of the current session rekeys at its limit; the responder steps in 20 s later.
//!   Neither does when the peer is not [wanted](Tunnels::set_wanted).
//! - Under load (many requests a second, or half of the half-open room taken) a message 1 is looked
//!   into only with mac2, which shows that its sender gets answers at its address; others are asked
//!   by a cookie reply, which costs two hashes and no memory. The initiator repeats with mac2.
//! - A peer that restarted is known by its *incarnation*: its old sessions go at once.
//!
//! Memory: [`MAX_SESSIONS`] sessions and handshakes in all, [`MAX_HALF_OPEN`] half open for either
//! role, 8 per source prefix, one for each peer.

mod clocks;
mod incoming;
mod limits;
mod load;
mod peer;
mod timing;
mod transmits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nat_traversal::entropy::Entropy;
use nat_traversal::path::Path;
use zeroize::Zeroizing;

use crate::drop_reason::DropReason;
use crate::handshake::{CookieSecret, ListNumbers, LocalIdentity, LocalParty, initiate};
use crate::ids::{NetworkId, OverlayId, PeerId};
use crate::membership::OverlaySecret;
use crate::session::{Session, Suite};
use crate::time::UnixTime;
use crate::wire::SessionIndex;

pub use clocks::{CLOCK_TOLERANCE, ClockJump, ClockReadings, ClockWatch};
use limits::{HalfOpen, Indices, Timestamps};
pub use limits::{MAX_HALF_OPEN, MAX_HALF_OPEN_PER_SOURCE, MAX_SESSIONS, Source};
use load::Load;
pub use load::{HALF_OPEN_UNDER_LOAD, MAX_REQUESTS_PER_SECOND};
use peer::{Backoff, Held, MAX_PATHS, Peer, Pending};
use transmits::Transmits;

/// First repetition of message 1.
const RESEND_FIRST: Duration = Duration::from_millis(100);
/// Longest interval between repetitions of message 1.
const RESEND_LONGEST: Duration = Duration::from_secs(3);
/// An unanswered handshake is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who we are.
pub struct TunnelsConfig {
    /// Our name.
    pub me: PeerId,
    /// The overlay.
    pub overlay: OverlayId,
    /// The overlay secret of the invite.
    pub overlay_secret: OverlaySecret,
    /// The newest root document version we know: our handshakes use its psk.
    pub psk_root_version: u32,
    /// The number of the newest revocation list we know.
    pub revocation_number: u64,
    /// Our x25519 static secret.
    pub static_secret: Zeroizing<[u8; 32]>,
    /// Our certificate chain, encoded.
    pub chain: Vec<u8>,
    /// Our signed static key, encoded.
    pub signed_static: Vec<u8>,
    /// Our networks; the first eight are offered.
    pub networks: Vec<NetworkId>,
    /// The suites, the faster one in front ([`Processor::suites`](crate::session::Processor)).
    pub suites: [Suite; 2],
    /// A random number of this run of the process.
    pub incarnation: u32,
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// On which path.
    pub path: Path,
    /// The whole UDP payload; a relayed path adds the relay header in front.
    pub bytes: Vec<u8>,
}

/// Why a session is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Past a limit of time, packets or failed opens.
    Expired,
    /// Newer sessions took its place.
    Replaced,
    /// The peer's process is another one now.
    PeerRestarted,
    /// We answered a handshake and nothing followed.
    Unconfirmed,
    /// [`Tunnels::close`] or [`Tunnels::close_all`].
    Local,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum TunnelEvent {
    /// A new session can receive: publish it in the forwarding table. Exactly one `Closed` of the
    /// same local index follows some day.
    Established {
        /// Who.
        peer: PeerId,
        /// The keys.
        session: Arc<Session>,
        /// The path on which the handshake came.
        path: Path,
        /// Bytes of its datagram.
        received: usize,
        /// There was no session with this peer.
        first: bool,
        /// The peer's run of its process.
        incarnation: u32,
        /// The peer's certificate chain, verified.
        peer_chain: Vec<u8>,
        /// The peer's x25519 static key.
        static_key: [u8; 32],
        /// The newest lists that the peer knows.
        lists: ListNumbers,
    },
    /// The peer is there, and [`Tunnels::current`] is now `session`. Before, there was none, or
    /// one with an earlier run of the peer's process: what was agreed with that one is void.
    Usable {
        /// Who.
        peer: PeerId,
        /// What to send with.
        session: Arc<Session>,
        /// Where the datagram came from that shows it.
        path: Path,
        /// Its bytes.
        received: usize,
    },
    /// [`Tunnels::current`] is now `session`; the conversation goes on.
    Rekeyed {
        /// Who.
        peer: PeerId,
        /// What to send with.
        session: Arc<Session>,
    },
    /// A session is gone. If it was the current one, [`Tunnels::current`] is another one or none.
    Closed {
        /// Who.
        peer: PeerId,
        /// Our index of it.
        index: SessionIndex,
        /// Why.
        reason: CloseReason,
    },
    /// A handshake of our own failed. Sessions that exist stay.
    HandshakeFailed {
        /// With whom.
        peer: PeerId,
        /// `NoSession` when no answer came.
        reason: DropReason,
    },
}

/// All handshakes and sessions of a node.
///
/// Order of calls: after any call that takes `now`, call [`Self::poll_transmit`] and
/// [`Self::poll_event`] until both give `None`, then wait until [`Self::poll_timeout`] at the
/// latest and call [`Self::handle_timeout`]. Write [`Self::last_timestamp`] to disk after a call
/// that began a handshake.
pub struct Tunnels {
    local: LocalParty,
    peers: BTreeMap<PeerId, Peer>,
    /// Every session and every handshake of our own. At most [`MAX_SESSIONS`].
    by_index: BTreeMap<SessionIndex, PeerId>,
    /// One entry for each peer.
    timers: BTreeSet<(Instant, PeerId)>,
    pending: usize,
    half_open: HalfOpen,
    load: Load,
    cookies: CookieSecret,
    indices: Indices,
    timestamps: Timestamps,
    last_timestamp: u64,
    transmits: Transmits,
    events: VecDeque<TunnelEvent>,
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels")
            .field("local", &self.local)
            .field("peers", &self.peers.len())
            .field("indices", &self.by_index.len())
            .finish_non_exhaustive()
    }
}

impl Tunnels {
    /// No peers yet. `last_timestamp` is what [`Self::last_timestamp`] gave before the restart, 0
    /// the first time.
    #[must_use]
    pub fn new(config: TunnelsConfig, last_timestamp: u64) -> Self {
        let identity = LocalIdentity {
            me: config.me,
            overlay: config.overlay,
            overlay_secret: config.overlay_secret,
            static_secret: config.static_secret,
            chain: config.chain,
            signed_static: config.signed_static,
            networks: config.networks,
            suites: config.suites,
            lists: ListNumbers {
                root: config.psk_root_version,
                revocation: config.revocation_number,
            },
            incarnation: config.incarnation,
        };
        Self {
            local: LocalParty::new(identity),
            peers: BTreeMap::new(),
            by_index: BTreeMap::new(),
            timers: BTreeSet::new(),
            pending: 0,
            half_open: HalfOpen::default(),
            load: Load::default(),
            cookies: CookieSecret::default(),
            indices: Indices::default(),
            timestamps: Timestamps::default(),
            last_timestamp,
            transmits: Transmits::default(),
            events: VecDeque::new(),
        }
    }

    /// Our networks changed. Sessions keep what they agreed: [`Self::connect`] again to share a
    /// new network with a peer.
    pub fn set_networks(&mut self, networks: Vec<NetworkId>) {
        self.local.set_networks(networks);
    }

    /// Our chain or signed static key was renewed.
    pub fn set_identity(&mut self, chain: Vec<u8>, signed_static: Vec<u8>) {
        self.local.set_chain(chain, signed_static);
    }

    /// From now on this run counts as another one: the machine was cloned, or restored from a snapshot,
    /// and the other copy may go on under the number that both have.
    pub const fn set_incarnation(&mut self, incarnation: u32) {
        self.local.set_incarnation(incarnation);
    }

    /// We hold newer lists. The psk of our handshakes follows the root version.
    pub const fn set_lists(&mut self, lists: ListNumbers) {
        self.local.set_lists(lists);
    }

    /// Begins a handshake with `peer`, or lets the one under way use `paths`, too. Marks the peer
    /// as wanted. A running session goes on until the new one is there.
    ///
    /// `static_key` is the peer's x25519 static, verified to its PeerId. The same message 1 goes
    /// out on all paths (the first eight count) and again after 100, 200, 400 ms and so on, until
    /// it is answered or [`HANDSHAKE_TIMEOUT`] is over; then there is an event
    /// [`TunnelEvent::HandshakeFailed`].
    pub fn connect(
        &mut self,
        now: Instant,
        wall: UnixTime,
        entropy: &mut dyn Entropy,
        peer: PeerId,
        static_key: [u8; 32],
        paths: &[Path],
    ) {
        let mut state = self.take(peer).unwrap_or_else(|| Peer::new(static_key));
        state.wanted = true;
        if state.static_key != static_key {
            // What is under way was sealed to a key that the peer has given up.
            self.drop_pending(now, &mut state);
            state.static_key = static_key;
        }
        if let Some(pending) = &mut state.pending {
            for &path in paths {
                if pending.paths.len() < MAX_PATHS && !pending.paths.contains(&path) {
                    pending.paths.push(path);
                    self.transmits.push(path, pending.message_for(&path));
                }
            }
        } else {
            self.begin(now, wall, entropy, peer, &mut state, paths);
        }
        self.put(now, peer, state);
    }

    /// The chosen path of `peer` is `path`: rekeys and keep-alives use it.
    pub fn set_path(&mut self, peer: PeerId, path: Path) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.path = Some(path);
        }
    }

    /// Shall sessions with `peer` be rekeyed? Forgotten with the last session of the peer.
    pub fn set_wanted(&mut self, now: Instant, peer: PeerId, wanted: bool) {
        if let Some(mut state) = self.take(peer) {
            state.wanted = wanted;
            self.put(now, peer, state);
        }
    }

    /// Ends all sessions and handshakes with `peer`. Nothing is sent.
    pub fn close(&mut self, now: Instant, peer: PeerId) {
        let Some(mut state) = self.take(peer) else {
            return;
        };
        self.drop_pending(now, &mut state);
        let next = state.next.take();
        if let Some(next) = &next {
            self.half_open.remove(&next.request);
        }
        let sessions = next.map(|next| next.held).into_iter();
        for held in sessions.chain(state.current.take()).chain(state.older) {
            self.retire(now, peer, &held, CloseReason::Local);
        }
    }

    /// Ends everything: after a fork, a change of the VM's generation, or a jump of the clock
    /// that a [`ClockWatch`] sees (TRUST.md 12).
    pub fn close_all(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.close(now, peer);
        }
    }

    /// What to send to `peer` with.
    #[must_use]
    pub fn current(&self, peer: PeerId) -> Option<&Arc<Session>> {
        let held = self.peers.get(&peer)?.current.as_ref()?;
        Some(&held.session)
    }

    /// Is a handshake of our own with `peer` under way?
    #[must_use]
    pub fn is_connecting(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|state| state.pending.is_some())
    }

    /// Every session that can receive, whatever its place.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.peers.values().flat_map(Peer::sessions)
    }

    /// Our indices of the handshakes of our own that are under way.
    pub fn dialling(&self) -> impl Iterator<Item = SessionIndex> {
        let pending = self
            .peers
            .values()
            .filter_map(|state| state.pending.as_ref());
        pending.map(|pending| pending.index)
    }

    /// The timestamp of the last message 1 we made. To be kept on disk: the next run must begin
    /// above it, or peers refuse us.
    #[must_use]
    pub const fn last_timestamp(&self) -> u64 {
        self.last_timestamp
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop()
    }

    /// How many datagrams were lost since the last call, because too many waited to be polled.
    pub const fn take_lost(&mut self) -> u64 {
        self.transmits.take_lost()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Begins a handshake of our own, or says that it failed.
    fn begin(
        &mut self,
        now: Instant,
        wall: UnixTime,
        entropy: &mut dyn Entropy,
        peer: PeerId,
        state: &mut Peer,
        paths: &[Path],
    ) {
        match self.make_pending(now, wall, entropy, peer, state.static_key, paths) {
            Ok(pending) => {
                self.pending += 1;
                self.by_index.insert(pending.index, peer);
                self.resend(&pending);
                state.pending = Some(pending);
            }
            Err(reason) => {
                state.retry_at = Some(now + timing::RETRY_AFTER);
                self.events
                    .push_back(TunnelEvent::HandshakeFailed { peer, reason });
            }
        }
    }

    fn make_pending(
        &mut self,
        now: Instant,
        wall: UnixTime,
        entropy: &mut dyn Entropy,
        peer: PeerId,
        static_key: [u8; 32],
        paths: &[Path],
    ) -> Result<Pending, DropReason> {
        if peer == self.local.me {
            return Err(DropReason::HandshakeInvalid);
        }
        if paths.is_empty() {
            return Err(DropReason::NoPath);
        }
        if self.pending >= MAX_HALF_OPEN {
            return Err(DropReason::HandshakeLimit);
        }
        let index = self.draw_index(entropy)?;
        let by_clock = wall.0.saturating_mul(1_000_000_000);
        self.last_timestamp = self.last_timestamp.saturating_add(1).max(by_clock);
        let (initiation, message) = initiate(
            &self.local,
            peer,
            static_key,
            index,
            self.last_timestamp,
            entropy,
        )?;
        let mut distinct: Vec<Path> = Vec::with_capacity(MAX_PATHS);
        for &path in paths {
            if distinct.len() < MAX_PATHS && !distinct.contains(&path) {
                distinct.push(path);
            }
        }
        Ok(Pending {
            initiation,
            message,
            index,
            paths: distinct,
            cookies: Vec::new(),
            resend: Backoff::new(now, RESEND_FIRST, RESEND_LONGEST, HANDSHAKE_TIMEOUT),
        })
    }

    fn resend(&mut self, pending: &Pending) {
        for &path in &pending.paths {
            self.transmits.push(path, pending.message_for(&path));
        }
    }

    fn draw_index(&self, entropy: &mut dyn Entropy) -> Result<SessionIndex, DropReason> {
        if self.by_index.len() >= MAX_SESSIONS {
            return Err(DropReason::HandshakeLimit);
        }
        self.indices
            .draw(entropy, |index| self.by_index.contains_key(&index))
            .ok_or(DropReason::HandshakeLimit)
    }

    fn drop_pending(&mut self, now: Instant, state: &mut Peer) {
        if let Some(pending) = state.pending.take() {
            self.pending = self.pending.saturating_sub(1);
            self.by_index.remove(&pending.index);
            self.indices.retire(now, pending.index);
        }
    }

    /// A session has lost its place.
    fn retire(&mut self, now: Instant, peer: PeerId, held: &Held, reason: CloseReason) {
        let index = held.session.local_index;
        held.session.close();
        self.by_index.remove(&index);
        self.indices.retire(now, index);
        self.events.push_back(TunnelEvent::Closed {
            peer,
            index,
            reason,
        });
    }

    /// Takes a peer out, so that it can be changed together with the rest; [`Self::put`] it back.
    fn take(&mut self, peer: PeerId) -> Option<Peer> {
        let mut state = self.peers.remove(&peer)?;
        if let Some(deadline) = state.deadline.take() {
            self.timers.remove(&(deadline, peer));
        }
        Some(state)
    }

    fn put(&mut self, now: Instant, peer: PeerId, mut state: Peer) {
        if state.is_empty() {
            return;
        }
        state.deadline = state.next_deadline(now);
        if let Some(deadline) = state.deadline {
            self.timers.insert((deadline, peer));
        }
        self.peers.insert(peer, state);
    }
}

#[cfg(test)]
mod tests;
