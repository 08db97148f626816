//! A session: the keys of one completed handshake, shared by the slow path and the workers.
//!
//! A handshake leaves two secrets, one for each direction. From them each *lane* gets its own
//! pair of keys (TRUST.md 12). A lane belongs to one sending worker (lane 0 to the slow path), so
//! that workers share no counter: the nonce is lane and counter, and two workers that seal at the
//! same moment touch different cache lines. The receiver keeps a replay window for each lane.
//!
//! ```text
//!            lane 0   key, counter ──────────────> key, replay window
//!   sender   lane 1   key, counter ──────────────> key, replay window   receiver
//!            ...                                                        (and the same backwards)
//! ```
//!
//! The session does not know who may use it when; that is decided in [`crate::tunnels`], which
//! also closes it. A closed session refuses to seal and to open even where an older snapshot of
//! the forwarding table still holds it. Keys and counters never leave the process.
//!
//! A responder's session waits for its first good packet: until then the peer may be a replay.
//! A worker reports the first packet that it opens under a session.

mod cipher;
mod keys;
mod replay;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::drop_reason::DropReason;
use crate::ids::{NetworkId, PeerId};
use crate::wire::{DataHeader, Lane, Selector, SessionIndex, TAG_LEN};

use cipher::Key;
pub use cipher::{Cipher, Library, Processor, Suite};
use keys::{Direction, lane_key};
pub use keys::{RawSplit, Role};
pub use replay::{REPLAY_WINDOW, ReplayWindow};

/// Lanes of a session: the slow path and up to seven workers, and as many express lanes.
pub const LANES: usize = 2 * Lane::COUNT as usize;

/// A session this old wants new keys.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// A session this old seals and opens nothing any more.
pub const DEAD_AFTER: Duration = Duration::from_secs(180);
/// A session that sent or received this many packets on one lane wants new keys.
pub const REKEY_AFTER_PACKETS: u64 = 1 << 26;
/// Counters from here on are neither sealed nor opened. Far below the bound of AES-GCM.
pub const DEAD_AFTER_PACKETS: u64 = 1 << 32;
/// Failed opens after which a session is dead: the bound on forgery attempts.
pub const DEAD_AFTER_FAILED_OPENS: u64 = 1 << 36;

const _: () = assert!(REKEY_AFTER_PACKETS < DEAD_AFTER_PACKETS && DEAD_AFTER_PACKETS < 1 << 56);
const _: () = assert!(REKEY_AFTER.as_secs() < DEAD_AFTER.as_secs());
const _: () = assert!(REPLAY_WINDOW >= 2048);

/// A network that both ends of a session are members of, with the selector of each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedNetwork {
    /// Which network.
    pub network: NetworkId,
    /// What we write into frames to the peer (the peer chose it).
    pub send: Selector,
    /// What the peer writes into frames to us (we chose it).
    pub receive: Selector,
}

/// What one worker needs to seal. Aligned, so that two workers never write one cache line
/// (128 bytes: processors fetch lines in pairs).
#[repr(align(128))]
struct SealLane {
    key: Key,
    /// The next counter. Only the lane's owner adds to it; atomic, because the slow path reads it.
    next: AtomicU64,
}

/// What is needed to open the packets of one lane.
///
/// The window is behind a lock, not made of atomics: a peer's lane is one flow of datagrams, which
/// the kernel brings to one worker, so the lock is free whenever it is asked for, and a free lock
/// costs less than the several atomic updates that moving a window needs. It is not held while
/// the packet is decrypted; the mark checks again.
#[repr(align(128))]
struct OpenLane {
    key: Key,
    window: Mutex<ReplayWindow>,
}

impl OpenLane {
    fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        // A window is whole between any two of its statements, so a poisoned one is good.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places of a packet that is about to be sealed.
struct Packet<'a> {
    header: DataHeader,
    head: &'a [u8],
    text: &'a mut [u8],
    tag: &'a mut [u8; TAG_LEN],
    /// Bytes of the whole datagram.
    total: usize,
}

/// The keys and counters of one completed handshake. Shared as `Arc<Session>`; all methods take
/// `&self`.
///
/// Memory: about 31 KiB (16 lanes, each two expanded keys and a window of 512 bytes).
pub struct Session {
    /// Who is at the other end, proven by the handshake.
    pub peer: PeerId,
    /// Our index: what the peer writes into the header.
    pub local_index: SessionIndex,
    /// The peer's index: what we write into the header.
    pub remote_index: SessionIndex,
    /// The networks agreed in the handshake.
    pub networks: Vec<SharedNetwork>,
    role: Role,
    cipher: Cipher,
    established_at: Instant,
    seal: [SealLane; LANES],
    open: [OpenLane; LANES],
    failed_opens: AtomicU64,
    opened: AtomicBool,
    confirmed: AtomicBool,
    closed: AtomicBool,
}

/// Whom a session is with and under which names.
#[derive(Debug, Clone)]
pub struct SessionNames {
    /// Who is at the other end.
    pub peer: PeerId,
    /// Our index.
    pub local_index: SessionIndex,
    /// The peer's index.
    pub remote_index: SessionIndex,
    /// The networks agreed in the handshake.
    pub networks: Vec<SharedNetwork>,
}

impl Session {
    /// A session from the raw split of a handshake that was completed `now`, sealed by the library
    /// that is the faster one for `suite` on this processor ([`Processor::cipher`]).
    ///
    /// # Errors
    /// `HandshakeInvalid` when the library refuses a key.
    pub fn new(
        names: SessionNames,
        split: &RawSplit,
        suite: Suite,
        role: Role,
        now: Instant,
    ) -> Result<Self, DropReason> {
        let cipher = Processor::detect().cipher(suite);
        Self::with_cipher(names, split, cipher, role, now)
    }

    /// As [`Self::new`], by a library of the caller's choice: tests and benchmarks compare them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_cipher(
        names: SessionNames,
        split: &RawSplit,
        cipher: Cipher,
        role: Role,
        now: Instant,
    ) -> Result<Self, DropReason> {
        let out = Direction::sent_by(role);
        let seal = try_lanes(|lane| {
            Ok(SealLane {
                key: lane_key(split, cipher, out, lane)?,
                next: AtomicU64::new(0),
            })
        })?;
        let open = try_lanes(|lane| {
            Ok(OpenLane {
                key: lane_key(split, cipher, out.reverse(), lane)?,
                window: Mutex::default(),
            })
        })?;
        Ok(Self {
            peer: names.peer,
            local_index: names.local_index,
            remote_index: names.remote_index,
            networks: names.networks,
            role,
            cipher,
            established_at: now,
            seal,
            open,
            failed_opens: AtomicU64::new(0),
            opened: AtomicBool::new(false),
            confirmed: AtomicBool::new(role == Role::Initiator),
            closed: AtomicBool::new(false),
        })
    }

    /// Seals one packet on `lane` into `out`: data header, ciphertext of `inner` followed by
    /// `body`, tag. Returns the length of the datagram in bytes. Allocates nothing.
    ///
    /// Only the owner of a lane may seal on it; two callers at once would stay secure, but slow.
    ///
    /// # Errors
    /// `UnknownLane`; `FrameTooLarge` when `out` is too small; `SessionExpired` past the limits.
    pub fn seal_into(
        &self,
        lane: Lane,
        inner: &[u8],
        body: &[u8],
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let (sender, packet) = self.next_packet(lane, inner.len() + body.len(), out)?;
        let (text_inner, text_body) = packet.text.split_at_mut(inner.len());
        text_inner.copy_from_slice(inner);
        text_body.copy_from_slice(body);
        sender
            .key
            .seal_in_place(nonce(&packet.header), packet.head, packet.text, packet.tag)
            .map_err(|_| DropReason::FrameTooLarge)?;
        Ok(packet.total)
    }

    /// As [`Self::seal_into`] for a plaintext that lies in one piece, inner header first, which
    /// some ciphers read where it is, instead of a copy. `text` stays as it is.
    ///
    /// # Errors
    /// As [`Self::seal_into`].
    pub fn seal_text(&self, lane: Lane, text: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let (sender, packet) = self.next_packet(lane, text.len(), out)?;
        sender
            .key
            .seal_from(
                nonce(&packet.header),
                packet.head,
                text,
                packet.text,
                packet.tag,
            )
            .map_err(|_| DropReason::FrameTooLarge)?;
        Ok(packet.total)
    }

    /// The next counter of `lane`, and the places of a packet with `text_len` bytes of text in
    /// `out`, its header written.
    fn next_packet<'a>(
        &self,
        lane: Lane,
        text_len: usize,
        out: &'a mut [u8],
    ) -> Result<(&SealLane, Packet<'a>), DropReason> {
        let sender = self
            .seal
            .get(usize::from(lane.0))
            .ok_or(DropReason::UnknownLane)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(DropReason::SessionExpired);
        }
        let total = DataHeader::LEN + text_len + TAG_LEN;
        let out = out.get_mut(..total).ok_or(DropReason::FrameTooLarge)?;
        let (head, rest) = out.split_at_mut(DataHeader::LEN);
        let (text, tag) = rest.split_at_mut(text_len);
        let tag = tag.first_chunk_mut().ok_or(DropReason::FrameTooLarge)?;
        let counter = sender.next.fetch_add(1, Ordering::Relaxed);
        if counter >= DEAD_AFTER_PACKETS {
            return Err(DropReason::SessionExpired);
        }
        let header = DataHeader {
            receiver: self.remote_index,
            lane,
            counter,
        };
        head.copy_from_slice(&header.to_bytes());
        let packet = Packet {
            header,
            head,
            text,
            tag,
            total,
        };
        Ok((sender, packet))
    }

    /// Opens a whole datagram in place; `header` is its parsed header. Returns the inner header
    /// and body, which stay in the caller's buffer.
    ///
    /// The replay window is asked first, because that is cheap, and marked only after the tag is
    /// good, so that a forger cannot move it.
    ///
    /// # Errors
    /// `UnknownLane`, `MalformedDatagram`, `Replayed`, `ReplayTooOld`, `BadTag`,
    /// `SessionExpired`.
    pub fn open_in_place<'a>(
        &self,
        header: &DataHeader,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let receiver = self
            .open
            .get(usize::from(header.lane.0))
            .ok_or(DropReason::UnknownLane)?;
        if self.closed.load(Ordering::Relaxed) || header.counter >= DEAD_AFTER_PACKETS {
            return Err(DropReason::SessionExpired);
        }
        if datagram.len() < DataHeader::LEN + TAG_LEN {
            return Err(DropReason::MalformedDatagram);
        }
        receiver.window().check(header.counter)?;
        let (head, sealed) = datagram.split_at_mut(DataHeader::LEN);
        let opened = receiver.key.open_in_place(nonce(header), head, sealed);
        let Ok(text) = opened else {
            let failed = self.failed_opens.fetch_add(1, Ordering::Relaxed) + 1;
            if failed >= DEAD_AFTER_FAILED_OPENS {
                self.close();
            }
            return Err(DropReason::BadTag);
        };
        receiver.window().mark(header.counter)?;
        // Read before writing: the line stays shared among the workers.
        if !self.opened.load(Ordering::Relaxed) {
            self.opened.store(true, Ordering::Relaxed);
        }
        Ok(text)
    }

    /// Is this a responder's session whose first good packet was not reported yet, by
    /// `Tunnels::handle_opened`?
    #[must_use]
    pub fn awaits_confirmation(&self) -> bool {
        !self.confirmed.load(Ordering::Relaxed)
    }

    /// Has any packet of the peer been opened?
    #[must_use]
    pub fn has_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// Should a new handshake replace this session?
    #[must_use]
    pub fn needs_rekey(&self, now: Instant) -> bool {
        now >= self.established_at + REKEY_AFTER || self.packets() >= REKEY_AFTER_PACKETS
    }

    /// Is this session past a limit, or closed?
    #[must_use]
    pub fn is_dead(&self, now: Instant) -> bool {
        self.closed.load(Ordering::Relaxed)
            || now >= self.established_at + DEAD_AFTER
            || self.packets() >= DEAD_AFTER_PACKETS
    }

    /// The highest number of packets on any lane, in either direction.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let sent = self
            .seal
            .iter()
            .map(|lane| lane.next.load(Ordering::Relaxed));
        let received = self.open.iter().map(|lane| lane.window().next());
        sent.chain(received).max().unwrap_or(0)
    }

    /// When the handshake was completed at this end.
    #[must_use]
    pub const fn established_at(&self) -> Instant {
        self.established_at
    }

    /// Did we send message 1?
    #[must_use]
    pub const fn was_initiator(&self) -> bool {
        matches!(self.role, Role::Initiator)
    }

    /// How packets are sealed.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.cipher.suite
    }

    /// Packets whose tag was wrong.
    #[must_use]
    pub fn failed_opens(&self) -> u64 {
        self.failed_opens.load(Ordering::Relaxed)
    }

    /// From now on nothing is sealed or opened, whoever still holds the session.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }
}

/// Without keys.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("role", &self.role)
            .field("cipher", &self.cipher)
            .field("networks", &self.networks)
            .finish_non_exhaustive()
    }
}

/// The 96-bit nonce of a packet: four zero bytes, then lane (8 bits) and counter (56 bits).
fn nonce(header: &DataHeader) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (_, low) = bytes.split_at_mut(4);
    low.copy_from_slice(&header.nonce().to_be_bytes());
    bytes
}

/// One value for each lane.
fn try_lanes<T>(
    mut make: impl FnMut(u8) -> Result<T, DropReason>,
) -> Result<[T; LANES], DropReason> {
    let made: Result<Vec<T>, DropReason> = (0..LANES as u8).map(&mut make).collect();
    made?
        .try_into()
        .map_err(|_: Vec<T>| DropReason::HandshakeInvalid)
}

#[cfg(test)]
mod tests;
