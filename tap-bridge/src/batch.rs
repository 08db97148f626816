//! Frames on their way between a queue and the data path.
//!
//! A [`FrameBatch`] is one buffer, made once and filled again and again: no allocation per frame.
//! Who borrows a frame from it must be done before the next `read_batch`; the borrow checker sees
//! to that.

use crate::offload::HEADROOM;
use crate::vnet::{VNET_HDR_LEN, VnetHdr};

// The header in front of a frame is read into the frame's headroom.
const _: () = assert!(HEADROOM >= VNET_HDR_LEN);

/// The longest frame a queue can hand over: 64 KiB of IP (a super-frame), an Ethernet header and
/// two VLAN tags.
pub const MAX_FRAME_BYTES: usize = 65_535 + 14 + 8;

/// Frames of a batch, and the bytes they share, if the caller has no better idea: a full batch of
/// 1,500-byte frames, or three super-frames.
pub const DEFAULT_BATCH: (usize, usize) = (64, 256 * 1024);

/// A frame that was read.
#[derive(Debug, Clone, Copy)]
pub struct RxFrame<'a> {
    /// Its header; validated against the length.
    pub header: VnetHdr,
    /// Ethernet header and payload.
    pub bytes: &'a [u8],
}

/// Where a frame is in the buffer.
#[derive(Debug, Clone, Copy)]
struct Slot {
    header: VnetHdr,
    start: usize,
    end: usize,
}

/// Up to a fixed number of frames in one contiguous buffer of fixed size.
#[derive(Debug)]
pub struct FrameBatch {
    buffer: Box<[u8]>,
    /// Never longer than its first capacity.
    slots: Vec<Slot>,
    max_frames: usize,
    used: usize,
    refused: usize,
}

impl Default for FrameBatch {
    fn default() -> Self {
        let (frames, bytes) = DEFAULT_BATCH;
        Self::new(frames, bytes)
    }
}

impl FrameBatch {
    /// Room for `max_frames` frames in `bytes` bytes; at least for one frame of
    /// [`MAX_FRAME_BYTES`].
    #[must_use]
    pub fn new(max_frames: usize, bytes: usize) -> Self {
        let max_frames = max_frames.max(1);
        let bytes = bytes.max(HEADROOM + MAX_FRAME_BYTES);
        Self {
            buffer: vec![0; bytes].into_boxed_slice(),
            slots: Vec::with_capacity(max_frames),
            max_frames,
            used: 0,
            refused: 0,
        }
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.used = 0;
        self.refused = 0;
    }

    /// How many frames it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Holds it no frame?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Is there no room for one more frame of any length?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.max_frames
            || self.used + HEADROOM + MAX_FRAME_BYTES > self.buffer.len()
    }

    /// Frames left out since [`Self::clear`] because their header was not acceptable.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// The frames, in the order they were read.
    pub fn frames(&self) -> impl Iterator<Item = RxFrame<'_>> {
        self.slots.iter().filter_map(|slot| {
            self.buffer.get(slot.start..slot.end).map(|bytes| RxFrame {
                header: slot.header,
                bytes,
            })
        })
    }

    /// The frames, in the order they were read, each with its header and as what
    /// [`plan`](crate::offload::plan) takes: [`HEADROOM`] bytes that mean nothing, then the frame.
    pub fn frames_mut(&mut self) -> FramesMut<'_> {
        FramesMut {
            rest: &mut self.buffer,
            passed: 0,
            slots: self.slots.iter(),
        }
    }

    /// Space for one more header and frame of any length, or `None` when the batch is full.
    pub(crate) fn spare(&mut self) -> Option<&mut [u8]> {
        if self.is_full() {
            return None;
        }
        let start = self.used + HEADROOM - VNET_HDR_LEN;
        let end = self.used + HEADROOM + MAX_FRAME_BYTES;
        self.buffer.get_mut(start..end)
    }

    /// The first `read` bytes of [`Self::spare`] were filled with a header and a frame. Unless
    /// `offload` was negotiated, the kernel has completed checksums and cut segments, and a header
    /// that says otherwise is refused.
    pub(crate) fn commit(&mut self, read: usize, offload: bool) {
        let start = self.used + HEADROOM;
        let end = start - VNET_HDR_LEN + read;
        let header = self
            .buffer
            .get(start - VNET_HDR_LEN..end)
            .and_then(|bytes| VnetHdr::parse(bytes).ok())
            .filter(|header| offload || header.is_plain())
            .filter(|header| header.validate(end - start).is_ok());
        match header {
            Some(header) => {
                self.slots.push(Slot { header, start, end });
                self.used = end;
            }
            None => self.refused += 1,
        }
    }
}

/// See [`FrameBatch::frames_mut`].
#[derive(Debug)]
pub struct FramesMut<'a> {
    /// The buffer from `passed` on.
    rest: &'a mut [u8],
    passed: usize,
    slots: std::slice::Iter<'a, Slot>,
}

impl<'a> Iterator for FramesMut<'a> {
    type Item = (VnetHdr, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.slots.next()?;
        // Slots lie one behind the other, each with its own headroom.
        let before = (slot.start - HEADROOM).checked_sub(self.passed)?;
        let (_, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(before)?;
        let (frame, rest) = rest.split_at_mut_checked(HEADROOM + slot.end - slot.start)?;
        self.rest = rest;
        self.passed = slot.end;
        Some((slot.header, frame))
    }
}

/// A frame to write: one slice, or a first slice and the payloads that were merged behind it.
#[derive(Debug, Clone, Copy)]
pub struct TxFrame<'a> {
    /// The header the reader of the tap will see.
    pub header: VnetHdr,
    /// The frame, or its first part with all protocol headers.
    pub head: &'a [u8],
    /// What follows; empty for a frame that was not merged. At most [`TxFrame::MAX_PARTS`].
    pub rest: &'a [&'a [u8]],
}

impl<'a> TxFrame<'a> {
    /// Payload slices a merged frame may have: TRUST.md 16 bounds a merge at 64 segments.
    pub const MAX_PARTS: usize = 63;

    /// A frame as it is.
    #[must_use]
    pub const fn plain(frame: &'a [u8]) -> Self {
        Self {
            header: VnetHdr::PLAIN,
            head: frame,
            rest: &[],
        }
    }
}

/// What became of the frames of one `write_batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteReport {
    /// Frames that the queue took.
    pub written: usize,
    /// Frames lost because the queue was full.
    pub full: usize,
    /// Frames that the kernel refused.
    pub failed: usize,
    /// The last refusal, an `errno`; 0 if there was none.
    pub errno: i32,
}

impl WriteReport {
    /// Adds what became of more frames.
    pub fn add(&mut self, other: Self) {
        self.written += other.written;
        self.full += other.full;
        self.failed += other.failed;
        if other.errno != 0 {
            self.errno = other.errno;
        }
    }
}
