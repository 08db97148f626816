//! Super-frames: what a guest with segmentation offload hands over at once, and what it takes.
//!
//! Functions on bytes, without I/O and without allocation:
//! - [`layout`]: where the headers of a frame are; nothing that somebody says about them is believed.
//! - [`cut`]: a super-frame becomes segments, each one frame with its own headers.
//! - [`merge`]: frames of one flow become a super-frame again.
//! - [`checksum`]: completing a partial checksum, and verifying a full one.
//! - [`mark`]: DSCP and ECN, from a frame to its datagram and back.
//! - [`clamp`]: the MSS of a SYN, so that one segment of a guest is one datagram.
//!
//! A checksum is *partial* when its field holds the folded, not complemented sum of the frame's own
//! pseudo header, as Linux and virtio leave it to hardware. Cutting and merging write partial sums
//! only, which cover headers: no payload is summed.

pub mod checksum;
pub mod clamp;
pub mod cut;
pub mod layout;
pub mod mark;
pub mod merge;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use checksum::{complete, verify};
pub use clamp::clamp_mss;
pub use cut::{CutError, Cutter, Plan, plan};
pub use layout::{Family, Layout, Protocol};
pub use mark::Marks;
pub use merge::{MergeError, Merged, Merger};

/// Bytes in front of a frame in the buffers of this module: a segment's start is never before it,
/// so a header of so many bytes fits in front of each segment.
pub const HEADROOM: usize = 16;

/// How far the TCP or UDP checksum of a frame is to be believed. It goes with the frame to the
/// other host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameChecksum {
    /// It is as the guest wrote it, or the frame has none. Right or wrong, it travels as it is.
    Complete,
    /// The field holds the sum of the pseudo header; who hands the frame out completes it. Only
    /// ever said of the frame's own TCP or UDP header.
    Partial,
    /// It is complete and was found right.
    Verified,
}

/// Writes a big-endian number. Does nothing outside of `bytes`: callers have checked offsets by a
/// [`Layout`].
fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(slot) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *slot = value.to_be_bytes();
    }
}

/// The same with four bytes.
fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(slot) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *slot = value.to_be_bytes();
    }
}

fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)
}

fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}
