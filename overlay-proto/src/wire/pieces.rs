//! Frames too large for one datagram: cut into at most eight pieces, rejoined at the other end
//! (TRUST.md 17).
//!
//! The size of all pieces but the last is `ceil(frame length / count)`, so a piece's number says
//! which bytes it holds: pieces cannot overlap, and one of any other size is a contradiction. A
//! contradiction discards the whole frame, as RFC 5722 does with overlapping fragments: two
//! parties that piece together different frames from the same datagrams are a way past filters.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::inner::{Forwarded, InnerHeader, InnerKind, L4Checksum, MAX_PIECES, PieceHeader};
use super::{Selector, SessionIndex, max_piece};
use crate::drop_reason::DropReason;

/// How a frame is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    frame_len: u16,
    count: u8,
}

/// How to cut a frame of `frame_len` bytes for datagrams of `datagram_limit` bytes; for a
/// forwarded frame take [`Forwarded::LEN`] off the limit. `None` when eight pieces do not hold it,
/// or it has fewer than two bytes. A frame that fits one datagram is cut in two all the same: ask
/// [`max_frame`](super::max_frame) first.
#[must_use]
pub fn split(frame_len: usize, datagram_limit: usize) -> Option<Plan> {
    let room = max_piece(datagram_limit);
    if room == 0 || frame_len < 2 {
        return None;
    }
    let count = u8::try_from(frame_len.div_ceil(room).max(2)).ok()?;
    let frame_len = u16::try_from(frame_len).ok()?;
    (count <= MAX_PIECES).then_some(Plan { frame_len, count })
}

impl Plan {
    /// Into how many pieces, 2 to [`MAX_PIECES`].
    #[must_use]
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// The pieces in order: the header of each and the bytes of the frame that follow it.
    pub fn pieces(self, frame_id: u32) -> impl Iterator<Item = (PieceHeader, Range<usize>)> {
        (0..self.count).filter_map(move |index| {
            let header = PieceHeader {
                frame_id,
                index,
                count: self.count,
                frame_len: self.frame_len,
            };
            byte_range(&header).map(|range| (header, range))
        })
    }
}

/// The bytes of the frame that a piece holds; `None` when the last piece would hold none.
fn byte_range(piece: &PieceHeader) -> Option<Range<usize>> {
    let length = usize::from(piece.frame_len);
    let size = length.div_ceil(usize::from(piece.count).max(1));
    let last_starts = size * (usize::from(piece.count).saturating_sub(1));
    let start = size * usize::from(piece.index);
    (last_starts < length && start <= last_starts).then(|| start..length.min(start + size))
}

/// Bytes of partial frames of all peers together. Clones share one count.
#[derive(Debug, Clone)]
pub struct PieceBudget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl PieceBudget {
    /// 16 MiB (TRUST.md 17): 64 peers at their own limit at once.
    pub const DEFAULT_LIMIT: usize = 64 * Reassembler::MAX_BYTES;

    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            used: Arc::default(),
            limit,
        }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` until the returned value is dropped; `None` when they are not there.
    fn take(&self, bytes: usize) -> Option<Reserved> {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()?;
        Some(Reserved {
            used: Arc::clone(&self.used),
            bytes,
        })
    }
}

impl Default for PieceBudget {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT)
    }
}

/// Bytes taken from a [`PieceBudget`], given back on drop.
#[derive(Debug)]
struct Reserved {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A frame whose pieces are all here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeFrame {
    /// The network; judge source and policy on the whole frame now.
    pub selector: Selector,
    /// The frame's checksum.
    pub checksum: L4Checksum,
    /// How often it was forwarded.
    pub hops: u8,
    /// Whose it is, when not the sender's.
    pub forwarded: Option<Forwarded>,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// What is the same in all pieces of a frame. The session stands for peer and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Common {
    count: u8,
    frame_len: u16,
    selector: Selector,
    checksum: L4Checksum,
    hops: u8,
    forwarded: Option<Forwarded>,
}

/// A frame some of whose pieces are here.
#[derive(Debug)]
struct Partial {
    session: SessionIndex,
    frame_id: u32,
    since: Instant,
    common: Common,
    /// Bit per piece.
    seen: u8,
    frame: Vec<u8>,
    reserved: Reserved,
}

/// Rejoins the frames of one peer.
///
/// Several receivers may share the pieces of one peer, each frame's going to one of them: then each
/// has its share of the bounds.
///
/// Call [`handle_piece`](Self::handle_piece) for each piece whose tag was good, and
/// [`expire`](Self::expire) when [`poll_timeout`](Self::poll_timeout) has passed or now and then.
/// Memory: at most [`Self::MAX_PARTIAL`] frames and [`Self::MAX_BYTES`] bytes, or its share of them;
/// the oldest goes first, and each after [`Self::LIFETIME`].
#[derive(Debug)]
pub struct Reassembler {
    budget: PieceBudget,
    /// By how many the bounds are divided.
    sharers: usize,
    /// In order of their first piece.
    partial: VecDeque<Partial>,
    bytes: usize,
    timed_out: usize,
    evicted: usize,
}

impl Reassembler {
    /// Partial frames of one peer.
    pub const MAX_PARTIAL: usize = 64;
    /// Bytes of partial frames of one peer.
    pub const MAX_BYTES: usize = 256 * 1024;
    /// How long pieces are waited for.
    pub const LIFETIME: Duration = Duration::from_secs(1);

    /// Without any frame; `budget` is shared among all peers.
    #[must_use]
    pub const fn new(budget: PieceBudget) -> Self {
        Self::one_of(1, budget)
    }

    /// One of `sharers` for the same peer. Up to 28 of them each have room for a frame of 9,216 bytes.
    #[must_use]
    pub const fn one_of(sharers: usize, budget: PieceBudget) -> Self {
        Self {
            budget,
            sharers: if sharers == 0 { 1 } else { sharers },
            partial: VecDeque::new(),
            bytes: 0,
            timed_out: 0,
            evicted: 0,
        }
    }

    /// One piece that opened under the keys of `session` (any of this peer's); `Some` when it
    /// completes its frame.
    ///
    /// # Errors
    /// [`DropReason::BadPiece`] when `inner` is no piece, `body` has not the length that the header
    /// implies, or it contradicts an earlier piece (then the frame is discarded);
    /// [`DropReason::PieceOverflow`] when the shared budget is used up by other peers.
    pub fn handle_piece(
        &mut self,
        now: Instant,
        session: SessionIndex,
        inner: &InnerHeader,
        body: &[u8],
    ) -> Result<Option<WholeFrame>, DropReason> {
        let InnerKind::Piece(piece) = inner.kind else {
            return Err(DropReason::BadPiece);
        };
        let range = byte_range(&piece)
            .filter(|range| range.len() == body.len())
            .ok_or(DropReason::BadPiece)?;
        let common = Common {
            count: piece.count,
            frame_len: piece.frame_len,
            selector: inner.selector,
            checksum: inner.checksum,
            hops: inner.hops,
            forwarded: inner.forwarded,
        };
        self.drop_old(now);
        let known = self
            .partial
            .iter()
            .position(|partial| partial.session == session && partial.frame_id == piece.frame_id);
        let at = match known {
            Some(at) => at,
            None => self.begin(now, session, piece.frame_id, common)?,
        };
        let complete = self
            .partial
            .get_mut(at)
            .ok_or(DropReason::PieceOverflow)
            .and_then(|partial| partial.add(piece.index, &common, range, body));
        match complete {
            Ok(false) => Ok(None),
            Ok(true) => Ok(self.remove(at).map(Partial::into_whole)),
            Err(reason) => {
                self.remove(at);
                Err(reason)
            }
        }
    }

    /// Discards frames whose pieces did not come in time and returns how many were discarded so
    /// since the last call: count them as [`DropReason::PieceTimeout`].
    pub fn expire(&mut self, now: Instant) -> usize {
        self.drop_old(now);
        std::mem::take(&mut self.timed_out)
    }

    /// How many frames made room for newer ones since the last call: count them as
    /// [`DropReason::PieceOverflow`].
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.partial
            .front()
            .map(|partial| partial.since + Self::LIFETIME)
    }

    /// Bytes that partial frames of this peer take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for a frame and returns its place.
    fn begin(
        &mut self,
        now: Instant,
        session: SessionIndex,
        frame_id: u32,
        common: Common,
    ) -> Result<usize, DropReason> {
        let length = usize::from(common.frame_len);
        let most = (
            Self::MAX_PARTIAL / self.sharers,
            Self::MAX_BYTES / self.sharers,
        );
        while self.partial.len() >= most.0 || self.bytes + length > most.1 {
            self.evict()?;
        }
        let reserved = loop {
            match self.budget.take(length) {
                Some(reserved) => break reserved,
                None => self.evict()?,
            }
        };
        self.bytes += length;
        self.partial.push_back(Partial {
            session,
            frame_id,
            since: now,
            common,
            seen: 0,
            frame: vec![0; length],
            reserved,
        });
        Ok(self.partial.len() - 1)
    }

    fn evict(&mut self) -> Result<(), DropReason> {
        self.remove(0).ok_or(DropReason::PieceOverflow)?;
        self.evicted += 1;
        Ok(())
    }

    fn drop_old(&mut self, now: Instant) {
        let old =
            |partial: &Partial| now.saturating_duration_since(partial.since) >= Self::LIFETIME;
        while self.partial.front().is_some_and(old) {
            self.remove(0);
            self.timed_out += 1;
        }
    }

    fn remove(&mut self, at: usize) -> Option<Partial> {
        let partial = self.partial.remove(at)?;
        self.bytes -= partial.reserved.bytes;
        Some(partial)
    }
}

impl Partial {
    /// Adds a piece; true when it was the last one missing.
    fn add(
        &mut self,
        index: u8,
        common: &Common,
        range: Range<usize>,
        body: &[u8],
    ) -> Result<bool, DropReason> {
        let bit = 1u8.checked_shl(index.into()).unwrap_or(0);
        if *common != self.common || bit == 0 || self.seen & bit != 0 {
            return Err(DropReason::BadPiece);
        }
        let place = self.frame.get_mut(range).ok_or(DropReason::BadPiece)?;
        if place.len() != body.len() {
            return Err(DropReason::BadPiece);
        }
        place.copy_from_slice(body);
        self.seen |= bit;
        Ok(self.seen.count_ones() == u32::from(self.common.count))
    }

    fn into_whole(self) -> WholeFrame {
        WholeFrame {
            selector: self.common.selector,
            checksum: self.common.checksum,
            hops: self.common.hops,
            forwarded: self.common.forwarded,
            frame: self.frame,
        }
    }
}

#[cfg(test)]
mod tests;
