//! A super-frame becomes segments.
//!
//! The payload is not moved. The headers of a segment are written in front of its payload, over the
//! end of the payload before it:
//!
//! ```text
//! | HEADROOM | headers | payload 0 | payload 1 | payload 2 |
//!            |<---- segment 0 ---->|
//!                         |headers | payload 1 |              segment 1, when segment 0 is done with
//! ```

use std::ops::Range;

use super::checksum::{finish, fold, sum};
use super::layout::{MAX_HEADERS, is_signed};
use super::{Family, merge::MIN_SEGMENT};
use super::{FrameChecksum, HEADROOM, Layout, Protocol, get_u16, get_u32, put_u16, put_u32};
use crate::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr, VnetHdrError};

/// Segments of less than [`MIN_SEGMENT`] bytes at most, so that 64 KiB do not become as many frames:
/// Linux lets a socket ask for 128 datagrams at once (`UDP_MAX_SEGMENTS`). Of longer ones there are
/// at most 1,024.
const MAX_SMALL_SEGMENTS: usize = 128;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a frame is refused. It is dropped: its guest, or a QEMU socket, says of it what is not true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The header contradicts the frame's length or is not known.
    #[error("bad virtio header: {0}")]
    Header(#[from] VnetHdrError),
    /// The buffer is shorter than [`HEADROOM`].
    #[error("no headroom in front of the frame")]
    NoHeadroom,
    /// A super-frame that is no unfragmented TCP or UDP with consistent lengths.
    #[error("a super-frame without consistent TCP or UDP headers")]
    NoLayout,
    /// A super-frame of another kind than its header says, or of one that nobody asked for (UDP
    /// fragmentation).
    #[error("a super-frame of another kind than its header says")]
    Kind,
    /// A super-frame whose checksum is said to be elsewhere than in its TCP or UDP header, or is
    /// neither to be completed nor verified.
    #[error("a super-frame without a checksum to complete")]
    Checksum,
    /// More than 128 segments of less than 64 bytes.
    #[error("a super-frame of too many tiny segments")]
    TooMany,
}

/// What to do with a frame.
#[derive(Debug)]
// The other variant is for the frames that are many; boxing would allocate for each super-frame.
#[allow(clippy::large_enum_variant)]
pub enum Plan {
    /// It goes as it is.
    Whole(FrameChecksum),
    /// It is cut; each segment is a frame whose checksum is [`FrameChecksum::Partial`].
    Segments(Cutter),
}

/// Says what to do with a frame that was read behind `header`; `buffer` is [`HEADROOM`] bytes, then
/// the frame. `header.hdr_len` is not believed.
///
/// A TCP super-frame whose segments do not fit `max_frame` bytes of Ethernet frame is cut smaller,
/// unless TCP signs its segments (MD5, AO) or less than 64 bytes of payload would be left. UDP is
/// cut exactly as asked, because its boundaries mean something. So segments may be longer than
/// `max_frame`, and so may whole frames: the caller splits those in pieces.
///
/// A checksum that is to be completed elsewhere than in the frame's own TCP or UDP header is
/// completed here.
///
/// # Errors
/// [`CutError`]; `buffer` is unchanged then.
pub fn plan(header: VnetHdr, buffer: &mut [u8], max_frame: usize) -> Result<Plan, CutError> {
    let frame = buffer.get_mut(HEADROOM..).ok_or(CutError::NoHeadroom)?;
    header.validate(frame.len())?;
    if header.is_super_frame() {
        return super_frame(header, frame, max_frame);
    }
    if !header.needs_checksum() && !header.is_data_valid() {
        return Ok(Plan::Whole(FrameChecksum::Complete));
    }
    let layout = Layout::parse(frame).filter(|layout| layout.fills(frame));
    if header.needs_checksum() {
        return Ok(Plan::Whole(match layout {
            Some(layout) if header.is_checksum_of(&layout) => FrameChecksum::Partial,
            _ => {
                complete_elsewhere(header, frame);
                FrameChecksum::Complete
            }
        }));
    }
    // Valid says of a UDP packet without checksum only that nobody can complain.
    let has_checksum = layout.is_some_and(|layout| {
        layout.protocol == Protocol::Tcp || get_u16(frame, layout.checksum()) != Some(0)
    });
    Ok(Plan::Whole(if has_checksum {
        FrameChecksum::Verified
    } else {
        FrameChecksum::Complete
    }))
}

/// What hardware would do: sums from `csum_start` to the end, whatever it is.
fn complete_elsewhere(header: VnetHdr, frame: &mut [u8]) {
    let start = usize::from(header.csum_start);
    let value = finish(sum(frame.get(start..).unwrap_or_default()));
    put_u16(frame, start + usize::from(header.csum_offset), value);
}

fn super_frame(header: VnetHdr, frame: &mut [u8], max_frame: usize) -> Result<Plan, CutError> {
    let layout = Layout::parse(frame)
        .filter(|layout| layout.fills(frame))
        .ok_or(CutError::NoLayout)?;
    let fitting = match layout.protocol {
        Protocol::Udp => GSO_UDP_L4,
        Protocol::Tcp if layout.family == Family::V4 => GSO_TCPV4,
        Protocol::Tcp => GSO_TCPV6,
    };
    if header.gso_type & !GSO_ECN != fitting {
        return Err(CutError::Kind);
    }
    let own = if header.needs_checksum() {
        header.is_checksum_of(&layout)
    } else {
        header.is_data_valid()
    };
    if !own {
        return Err(CutError::Checksum);
    }
    let mut segment = usize::from(header.gso_size);
    if layout.protocol == Protocol::Tcp && layout.payload + segment > max_frame {
        let fits = max_frame.saturating_sub(layout.payload);
        let options = frame.get(layout.l4 + 20..layout.payload);
        if fits >= MIN_SEGMENT && !is_signed(options.unwrap_or_default()) {
            segment = fits;
        }
    }
    let payload = layout.end - layout.payload;
    if segment < MIN_SEGMENT && payload > segment * MAX_SMALL_SEGMENTS {
        return Err(CutError::TooMany);
    }
    if payload <= segment {
        layout.write_partial(frame);
        return Ok(Plan::Whole(FrameChecksum::Partial));
    }
    Cutter::new(frame, layout, segment)
        .map(Plan::Segments)
        .ok_or(CutError::NoLayout)
}

/// Cuts one super-frame. It owns no bytes; the buffer is handed in each time.
#[derive(Debug)]
pub struct Cutter {
    /// The headers of the segment given last; of the super-frame at first.
    template: [u8; MAX_HEADERS],
    layout: Layout,
    /// Bytes of payload of all segments but the last.
    segment: usize,
    /// Bytes of payload that were given.
    given: usize,
    /// TCP's next sequence number.
    seq: u32,
    /// The next IPv4 identification.
    id: u16,
    /// The flags of TCP that all segments have.
    flags: u8,
    /// FIN and PSH of the super-frame, for the last segment.
    last_flags: u8,
    /// CWR of the super-frame, for the first segment.
    first_flags: u8,
    /// The sum of the IPv4 header without length, identification and checksum.
    ip_base: u64,
    /// The sum of the pseudo header without length.
    pseudo_base: u64,
}

impl Cutter {
    fn new(frame: &[u8], layout: Layout, segment: usize) -> Option<Self> {
        let mut template = [0; MAX_HEADERS];
        template
            .get_mut(..layout.payload)?
            .copy_from_slice(frame.get(..layout.payload)?);
        let mut id = 0;
        let mut ip_base = 0;
        if layout.family == Family::V4 {
            id = get_u16(frame, layout.ip + 4)?;
            put_u32(&mut template, layout.ip + 2, 0);
            put_u16(&mut template, layout.ip + 10, 0);
            ip_base = sum(template.get(layout.ip..layout.l4)?);
        }
        let (mut seq, mut flags) = (0, 0);
        if layout.protocol == Protocol::Tcp {
            seq = get_u32(frame, layout.l4 + 4)?;
            flags = *frame.get(layout.l4 + 13)?;
        }
        Some(Self {
            template,
            layout,
            segment,
            given: 0,
            seq,
            id,
            flags: flags & !(FIN | PSH | CWR),
            last_flags: flags & (FIN | PSH),
            first_flags: flags & CWR,
            ip_base,
            pseudo_base: layout.pseudo_base(frame),
        })
    }

    /// How many segments it gives in all; at least two.
    #[must_use]
    pub const fn count(&self) -> usize {
        (self.layout.end - self.layout.payload).div_ceil(self.segment)
    }

    /// Bytes of each segment's Ethernet frame but the last one's, which is not longer.
    #[must_use]
    pub const fn segment_len(&self) -> usize {
        self.layout.payload + self.segment
    }

    /// Bytes of the last segment's Ethernet frame.
    #[must_use]
    pub const fn last_len(&self) -> usize {
        let payload = self.layout.end - self.layout.payload;
        self.layout.payload + payload - self.segment * (self.count() - 1)
    }

    /// Writes the headers of the next segment into `buffer`, the one that was planned, and says
    /// where the segment is. It overwrites up to its headers' length and [`HEADROOM`] bytes in
    /// front of its payload: the segments given before are gone. `None` when all were given.
    pub fn next(&mut self, buffer: &mut [u8]) -> Option<Range<usize>> {
        let layout = self.layout;
        let left = layout.end - layout.payload - self.given;
        if left == 0 {
            return None;
        }
        let len = left.min(self.segment);
        self.write_ip(layout.payload - layout.ip + len);
        self.write_l4(layout.payload - layout.l4 + len, len == left);
        let payload = HEADROOM + layout.payload + self.given;
        let start = HEADROOM + self.given;
        buffer
            .get_mut(start..payload)?
            .copy_from_slice(self.template.get(..layout.payload)?);
        self.given += len;
        // Sequence numbers wrap; a payload is far below 2^32.
        self.seq = self.seq.wrapping_add(u32::try_from(len).unwrap_or(0));
        self.id = self.id.wrapping_add(1);
        Some(start..payload + len)
    }

    fn write_ip(&mut self, len: usize) {
        let ip = self.layout.ip;
        match self.layout.family {
            Family::V4 => {
                let len = clamp_u16(len);
                let sum = self.ip_base + u64::from(len) + u64::from(self.id);
                put_u16(&mut self.template, ip + 2, len);
                put_u16(&mut self.template, ip + 4, self.id);
                put_u16(&mut self.template, ip + 10, !fold(sum));
            }
            Family::V6 => put_u16(&mut self.template, ip + 4, clamp_u16(len - 40)),
        }
    }

    fn write_l4(&mut self, len: usize, is_last: bool) {
        let l4 = self.layout.l4;
        let pseudo = fold(self.pseudo_base + len as u64);
        put_u16(&mut self.template, self.layout.checksum(), pseudo);
        match self.layout.protocol {
            Protocol::Udp => put_u16(&mut self.template, l4 + 4, clamp_u16(len)),
            Protocol::Tcp => {
                put_u32(&mut self.template, l4 + 4, self.seq);
                let mut flags = self.flags;
                if self.given == 0 {
                    flags |= self.first_flags;
                }
                if is_last {
                    flags |= self.last_flags;
                }
                if let Some(slot) = self.template.get_mut(l4 + 13) {
                    *slot = flags;
                }
            }
        }
    }
}

/// A length that a [`Layout`] bounds to 16 bits.
fn clamp_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
