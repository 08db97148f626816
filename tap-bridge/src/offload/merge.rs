//! Frames of one flow become a super-frame again.
//!
//! A [`Merger`] holds one *run*: a frame, and the payloads of those that continue it, all where
//! they were received. Nothing is copied; the head's own headers are rewritten for the whole.
//!
//! A frame continues a run when it is the next segment of the same packet that a guest could have
//! cut: all headers equal but those that a cut changes, and these as a cut changes them.

use arrayvec::ArrayVec;

use super::checksum::{fold, sum};
use super::{Family, FrameChecksum, Layout, Protocol, get_u16, get_u32, put_u16};
use crate::batch::TxFrame;
use crate::vnet::VnetHdr;

/// Bytes of payload that a segment of a merge has at least (TRUST.md 16).
pub(super) const MIN_SEGMENT: usize = 64;

/// Segments of a merge at most (TRUST.md 16).
pub const MAX_SEGMENTS: usize = TxFrame::MAX_PARTS + 1;

/// Bytes of IP packet that a length field can say.
const MAX_IP: usize = 65_535;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// Why [`Merger::push`] did not take a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The peer says its checksum is partial, and it is no unfragmented TCP or UDP with consistent
    /// lengths (TRUST.md 16). Drop it.
    #[error("a partial checksum on what is no unfragmented TCP or UDP with consistent lengths")]
    BadPartial,
    /// It does not continue the run: [`Merger::take`] that one first.
    #[error("the frame does not continue the run")]
    Occupied,
}

/// How the IPv4 identification goes on from frame to frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdStep {
    /// Only one frame was seen, or there is none.
    Open,
    Constant,
    Growing,
}

/// The first frame of a run, and what the next one must look like.
#[derive(Debug)]
struct Run<'a> {
    head: &'a mut [u8],
    /// `None` if it is handed out exactly as it came.
    layout: Option<Layout>,
    /// Of the head.
    checksum: FrameChecksum,
    /// Nothing may follow.
    closed: bool,
    /// Payload bytes of each segment but the last.
    segment: usize,
    /// Payload bytes of all.
    total: usize,
    /// FIN and PSH of the last one.
    last_flags: u8,
    id_step: IdStep,
    /// The sum of the IPv4 header but for what a cut changes.
    ip_base: u64,
}

/// What a frame adds to a run.
struct Next {
    payload: usize,
    flags: u8,
    id_step: IdStep,
}

/// Holds at most one run. Order of calls for each frame: [`Merger::join`]; if that gives the frame
/// back, [`Merger::take`], write, and [`Merger::push`]. At the end of the batch `take` once more.
#[derive(Debug)]
pub struct Merger<'a> {
    run: Option<Run<'a>>,
    /// Of the run held or taken last.
    parts: ArrayVec<&'a [u8], { TxFrame::MAX_PARTS }>,
    merges_udp: bool,
}

/// A run that is complete: one write.
#[derive(Debug)]
pub struct Merged<'a> {
    header: VnetHdr,
    head: &'a [u8],
    rest: &'a [&'a [u8]],
}

impl Merged<'_> {
    /// What to write.
    #[must_use]
    pub const fn frame(&self) -> TxFrame<'_> {
        TxFrame {
            header: self.header,
            head: self.head,
            rest: self.rest,
        }
    }

    /// How many frames it was.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.rest.len() + 1
    }
}

impl Default for Merger<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Merger<'a> {
    /// Holds nothing. Merges TCP and UDP.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            run: None,
            parts: ArrayVec::new_const(),
            merges_udp: true,
        }
    }

    /// Holds nothing. Merges UDP only if the tap takes it ([`Offload`](crate::Offload)).
    #[must_use]
    pub const fn for_tap(merges_udp: bool) -> Self {
        let mut merger = Self::new();
        merger.merges_udp = merges_udp;
        merger
    }

    /// Holds it no frame?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.run.is_none()
    }

    /// Does `frame` continue the run?
    #[must_use]
    pub fn continues(&self, frame: &[u8], checksum: FrameChecksum) -> bool {
        self.next(frame, checksum).is_some()
    }

    /// Is the frame that it holds handed out exactly as it came? It is a fragment, no TCP or UDP, padded, or
    /// its checksum is wrong or missing; which flow it belongs to is not known.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.layout.is_none())
    }

    /// Takes `frame`: it continues the run, or begins one if there is none.
    ///
    /// # Errors
    /// [`MergeError`]; the frame is not held then.
    pub fn push(&mut self, frame: &'a mut [u8], checksum: FrameChecksum) -> Result<(), MergeError> {
        if self.run.is_none() {
            self.run = Some(Run::begin(frame, checksum, self.merges_udp)?);
            self.parts.clear();
            return Ok(());
        }
        self.join(frame, checksum).map_err(|_| MergeError::Occupied)
    }

    /// [`Merger::continues`] and [`Merger::push`] in one look at the frame: takes it if it continues
    /// the run.
    ///
    /// # Errors
    /// The frame, if it does not or there is no run.
    pub fn join(
        &mut self,
        frame: &'a mut [u8],
        checksum: FrameChecksum,
    ) -> Result<(), &'a mut [u8]> {
        let Some(next) = self.next(frame, checksum) else {
            return Err(frame);
        };
        let Some(run) = self.run.as_mut().filter(|_| !self.parts.is_full()) else {
            return Err(frame);
        };
        let start = frame.len() - next.payload;
        self.parts.push(frame.get(start..).unwrap_or_default());
        run.total += next.payload;
        run.id_step = next.id_step;
        run.last_flags = next.flags & (FIN | PSH);
        run.closed = run.last_flags != 0 || next.payload < run.segment;
        Ok(())
    }

    /// Hands the run out; then it holds nothing. Of a super-frame the headers are written for the whole
    /// and the checksum is left to whoever cuts it. A frame alone gets its checksum here: a guest that
    /// copies frames from one interface to another, as a firewall does, copies them as they are.
    pub fn take(&mut self) -> Option<Merged<'_>> {
        let run = self.run.take()?;
        let rest = self.parts.as_slice();
        let header = match &run.layout {
            Some(layout) if !rest.is_empty() => {
                write_headers(run.head, layout, run.total, run.last_flags);
                VnetHdr::of_own_checksum(layout, run.segment)
            }
            Some(layout) if run.checksum == FrameChecksum::Partial => {
                layout.write_complete(run.head);
                VnetHdr::PLAIN
            }
            _ => VnetHdr::PLAIN,
        };
        Some(Merged {
            header,
            head: run.head,
            rest,
        })
    }

    fn next(&self, frame: &[u8], checksum: FrameChecksum) -> Option<Next> {
        let run = self.run.as_ref().filter(|run| !run.closed)?;
        if checksum == FrameChecksum::Complete || self.parts.is_full() {
            return None;
        }
        let layout = run.layout.as_ref()?;
        let payload = frame.len().checked_sub(layout.payload)?;
        let fits = layout.payload - layout.ip + run.total + payload <= MAX_IP;
        if payload == 0 || payload > run.segment || !fits {
            return None;
        }
        let id_step = run.same_ip(layout, frame)?;
        let flags = match layout.protocol {
            Protocol::Udp => run.same_udp(layout, frame, checksum).then_some(0)?,
            Protocol::Tcp => run.same_tcp(layout, frame)?,
        };
        Some(Next {
            payload,
            flags,
            id_step,
        })
    }
}

impl<'a> Run<'a> {
    fn begin(
        head: &'a mut [u8],
        checksum: FrameChecksum,
        merges_udp: bool,
    ) -> Result<Self, MergeError> {
        let layout = match checksum {
            FrameChecksum::Complete => None,
            _ => Layout::parse(head).filter(|layout| layout.fills(head)),
        };
        let layout = match (checksum, layout) {
            (FrameChecksum::Partial, None) => return Err(MergeError::BadPartial),
            (FrameChecksum::Verified, Some(layout)) if has_no_checksum(head, &layout) => None,
            (_, layout) => layout,
        };
        let mut run = Self {
            head,
            layout,
            checksum,
            closed: true,
            segment: 0,
            total: 0,
            last_flags: 0,
            id_step: IdStep::Open,
            ip_base: 0,
        };
        if let Some(layout) = layout {
            run.segment = layout.end - layout.payload;
            run.total = run.segment;
            let open = match layout.protocol {
                Protocol::Udp => merges_udp,
                Protocol::Tcp => {
                    let flags = run.head.get(layout.l4 + 13).copied().unwrap_or(0);
                    flags & (FIN | SYN | RST | PSH | URG | CWR) == 0
                }
            };
            run.closed = !(open && run.segment >= MIN_SEGMENT && run.has_right_ip(&layout));
        }
        Ok(run)
    }

    /// Is the head's IPv4 checksum right? One that is wrong is not to be mended by a merge.
    fn has_right_ip(&mut self, layout: &Layout) -> bool {
        if layout.family == Family::V6 {
            return true;
        }
        // Nothing is between IPv4 and what it carries.
        let total = sum(self.head.get(layout.ip..layout.l4).unwrap_or_default());
        let own = changing_ip_sum(self.head, layout).unwrap_or(0);
        self.ip_base = total + u64::from(!fold(own));
        fold(total) == 0xffff
    }

    /// Are these bytes of `frame` equal to the head's?
    #[inline]
    fn same(&self, frame: &[u8], from: usize, to: usize) -> bool {
        matches!((self.head.get(from..to), frame.get(from..to)), (Some(a), Some(b)) if a == b)
    }

    /// Link and IP headers and the ports: equal but for what a cut changes. The head's layout
    /// is the frame's layout then.
    fn same_ip(&self, layout: &Layout, frame: &[u8]) -> Option<IdStep> {
        let ip = layout.ip;
        let len = usize::from(get_u16(
            frame,
            ip + if layout.family == Family::V4 { 2 } else { 4 },
        )?);
        match layout.family {
            Family::V6 => {
                let same = len == frame.len() - ip - 40
                    && self.same(frame, 0, ip + 4)
                    && self.same(frame, ip + 6, layout.l4 + 4);
                same.then_some(IdStep::Open)
            }
            Family::V4 => {
                let same = len == frame.len() - ip
                    && self.same(frame, 0, ip + 2)
                    && self.same(frame, ip + 6, ip + 10)
                    && self.same(frame, ip + 12, layout.l4 + 4)
                    && fold(self.ip_base + changing_ip_sum(frame, layout)?) == 0xffff;
                same.then(|| self.id_step(layout, frame)).flatten()
            }
        }
    }

    /// How the identification goes on; `None` if it goes on as no cut would make it.
    fn id_step(&self, layout: &Layout, frame: &[u8]) -> Option<IdStep> {
        let head = get_u16(self.head, layout.ip + 4)?;
        let segments = u16::try_from(self.total / self.segment.max(1)).ok()?;
        let id = get_u16(frame, layout.ip + 4)?;
        let dont_fragment = self.head.get(layout.ip + 6)? & 0x40 != 0;
        let step = if id == head.wrapping_add(segments) {
            IdStep::Growing
        } else if id == head && dont_fragment {
            IdStep::Constant
        } else {
            return None;
        };
        (self.id_step == IdStep::Open || self.id_step == step).then_some(step)
    }

    fn same_udp(&self, layout: &Layout, frame: &[u8], checksum: FrameChecksum) -> bool {
        let len = get_u16(frame, layout.l4 + 4).map(usize::from);
        let verified = checksum == FrameChecksum::Verified;
        len == Some(frame.len() - layout.l4) && !(verified && has_no_checksum(frame, layout))
    }

    /// The flags of the frame, if TCP's header is the next one.
    fn same_tcp(&self, layout: &Layout, frame: &[u8]) -> Option<u8> {
        let l4 = layout.l4;
        let total = u32::try_from(self.total).ok()?;
        let seq = get_u32(self.head, l4 + 4)?.wrapping_add(total);
        let flags = *frame.get(l4 + 13)?;
        let same = get_u32(frame, l4 + 4)? == seq
            && self.same(frame, l4 + 8, l4 + 13)
            && flags & !(FIN | PSH) == *self.head.get(l4 + 13)?
            && self.same(frame, l4 + 14, l4 + 16)
            && self.same(frame, l4 + 18, layout.payload);
        same.then_some(flags)
    }
}

/// Writes lengths, flags and sums of a super-frame of `total` payload bytes into its `head`.
fn write_headers(head: &mut [u8], layout: &Layout, total: usize, last_flags: u8) {
    let len = layout.payload - layout.ip + total;
    let l4_len = layout.payload - layout.l4 + total;
    let pseudo = layout.pseudo_sum(head, l4_len);
    put_u16(head, layout.checksum(), pseudo);
    // `next` bounds the length.
    let short = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
    match layout.family {
        Family::V6 => put_u16(head, layout.ip + 4, short(len - 40)),
        Family::V4 => {
            put_u16(head, layout.ip + 2, short(len));
            put_u16(head, layout.ip + 10, 0);
            let sum = sum(head.get(layout.ip..layout.l4).unwrap_or_default());
            put_u16(head, layout.ip + 10, !fold(sum));
        }
    }
    match layout.protocol {
        Protocol::Udp => put_u16(head, layout.l4 + 4, short(l4_len)),
        Protocol::Tcp => {
            if let Some(flags) = head.get_mut(layout.l4 + 13) {
                *flags |= last_flags;
            }
        }
    }
}

/// The sum of an IPv4 header's length, identification and checksum.
fn changing_ip_sum(frame: &[u8], layout: &Layout) -> Option<u64> {
    let words = [2, 4, 10].map(|at| get_u16(frame, layout.ip + at).map(u64::from));
    let [len, id, checksum] = words;
    Some(len? + id? + checksum?)
}

fn has_no_checksum(frame: &[u8], layout: &Layout) -> bool {
    layout.protocol == Protocol::Udp && get_u16(frame, layout.checksum()) == Some(0)
}
