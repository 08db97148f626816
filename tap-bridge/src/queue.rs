//! [`FrameQueue`]: where the data path reads and writes frames.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use crate::batch::{FrameBatch, TxFrame, WriteReport};
use crate::error::Error;
use crate::sys;

/// A queue of Ethernet frames: one queue of a tap, or a pair in memory. Never blocks.
///
/// Order of calls: wait with `poll(2)` on [`FrameQueue::as_raw_fd`], then `read_batch` until it
/// returns 0. `write_batch` at any time.
pub trait FrameQueue: Send {
    /// Empties `batch`, then fills it with what is there. Returns the number of frames; 0 when
    /// nothing is waiting. The bytes belong to `batch` until its next use.
    ///
    /// # Errors
    /// As [`Self::read_more`].
    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<usize> {
        batch.clear();
        self.read_more(batch, usize::MAX)
    }

    /// Adds what is there to `batch`, at most `limit` frames. Returns how many it added: fewer than
    /// `limit` when nothing more is waiting, when `batch` is full, or after many frames that had to be
    /// refused ([`FrameBatch::refused`]).
    ///
    /// # Errors
    /// The device is gone or broken; a full or an empty queue is no error. Frames that this call read
    /// before the error are in `batch` and are returned first.
    fn read_more(&mut self, batch: &mut FrameBatch, limit: usize) -> io::Result<usize>;

    /// Writes `frames` in order. A frame that cannot be written is counted and skipped: it is never
    /// the end of the batch. Nothing is kept of the borrowed bytes.
    fn write_batch(&mut self, frames: &[TxFrame<'_>]) -> WriteReport;

    /// As `write_batch`, but a tap of many queues does not learn from it to give what the guest
    /// answers to this queue.
    fn write_unlearnt(&mut self, frames: &[TxFrame<'_>]) -> WriteReport {
        self.write_batch(frames)
    }

    /// The descriptor to wait on for frames to read.
    fn as_raw_fd(&self) -> RawFd;

    /// Which frames may be read from it and written to it.
    fn offload(&self) -> Offload;
}

/// One queue of a multi-queue tap, opened by this process.
///
/// The kernel gives a flow that it reads from the guest to one queue by a hash, until the flow's
/// other direction is written to some queue: from then on to that one, until three seconds have
/// passed without such a write.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
    /// A queue that gets no frames, where there are others: what is written to it teaches nothing.
    unlearnt: Option<File>,
    offload: Offload,
}

/// What a queue's two sides may leave to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: checksums are complete, frames as long as the MTU allows.
    Off,
    /// Checksums and TCP super-frames.
    Tcp,
    /// UDP super-frames, too. Kernels before 6.2 refuse them.
    TcpUdp,
}

impl TapQueue {
    /// Opens one more queue of the existing tap `name`. With `offload`, frames that are read may
    /// be super-frames or have partial checksums ([`plan`](crate::offload::plan) says which), as far
    /// as the kernel can. The last opening decides for all queues of a tap: open all alike.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`], [`Error::WrongKind`] if it is no multi-queue tap,
    /// [`Error::NotPermitted`], [`Error::NoTunDevice`].
    pub fn open(name: &str, offload: bool) -> Result<Self, Error> {
        let (file, offload) = sys::open_queue(name, offload)?;
        Ok(Self {
            file,
            unlearnt: None,
            offload,
        })
    }

    /// Opens `count` queues at once, in order, at least one; one more descriptor serves
    /// [`FrameQueue::write_unlearnt`] of them all.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::TapBusy`] beyond the 256 queues that a tap may have.
    pub fn open_all(name: &str, offload: bool, count: usize) -> Result<Vec<Self>, Error> {
        if count < 2 {
            return Ok(vec![Self::open(name, offload)?]);
        }
        // First, so that the numbers of the others begin with 0.
        let (unlearnt, _) = sys::open_queue(name, offload)?;
        let told = |error| Error::from_io(format!("cannot use the queues of tap {name}"), error);
        sys::detach_queue(&unlearnt).map_err(told)?;
        let open = |_| {
            let mut queue = Self::open(name, offload)?;
            queue.unlearnt = Some(unlearnt.try_clone().map_err(told)?);
            Ok(queue)
        };
        (0..count).map(open).collect()
    }

    /// Switches offload for the whole tap while it is in use, as [`TapQueue::open`] does. Other queues
    /// and clones still read all that comes; what they write is unaffected until they are replaced.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_offload(&mut self, offload: bool) -> Result<(), Error> {
        let set = sys::set_offload(&self.file, offload);
        self.offload = set.map_err(|error| Error::from_io("cannot switch offload", error))?;
        Ok(())
    }

    /// The interface it is a queue of, by its name now; `None` once that was deleted.
    #[must_use]
    pub fn interface(&self) -> Option<String> {
        sys::interface_of(&self.file).ok()
    }

    /// The same queue once more: for a slow path that writes a frame now and then.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let unlearnt = self.unlearnt.as_ref();
        Ok(Self {
            file: self.file.try_clone()?,
            unlearnt: unlearnt.map(File::try_clone).transpose()?,
            offload: self.offload,
        })
    }
}

impl FrameQueue for TapQueue {
    fn read_more(&mut self, batch: &mut FrameBatch, limit: usize) -> io::Result<usize> {
        // Whatever was agreed when this clone was made: offload may have been switched meanwhile, and
        // what waits in the queue is as it was then.
        read_more(&self.file, batch, limit, true)
    }

    fn write_batch(&mut self, frames: &[TxFrame<'_>]) -> WriteReport {
        write_batch(&self.file, frames)
    }

    fn write_unlearnt(&mut self, frames: &[TxFrame<'_>]) -> WriteReport {
        write_batch(self.unlearnt.as_ref().unwrap_or(&self.file), frames)
    }

    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

/// One end of a tap in memory, for tests: what one end writes, the other reads.
///
/// It is a socket pair, so that it can be waited on like a tap and fills up like one.
/// With offload, like a [`TapQueue`] opened with it: what one end writes need not be plain.
#[derive(Debug)]
pub struct MemoryTap {
    file: File,
    offload: bool,
}

impl MemoryTap {
    /// Both ends, offload off.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        Self::pair_with(false)
    }

    /// Both ends, with `offload` or without.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair_with(offload: bool) -> io::Result<(Self, Self)> {
        let (a, b) = UnixDatagram::pair()?;
        a.set_nonblocking(true)?;
        b.set_nonblocking(true)?;
        let end = |socket| Self {
            file: File::from(OwnedFd::from(socket)),
            offload,
        };
        Ok((end(a), end(b)))
    }

    /// The same end once more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            offload: self.offload,
        })
    }
}

impl FrameQueue for MemoryTap {
    fn offload(&self) -> Offload {
        if self.offload {
            Offload::TcpUdp
        } else {
            Offload::Off
        }
    }

    fn read_more(&mut self, batch: &mut FrameBatch, limit: usize) -> io::Result<usize> {
        read_more(&self.file, batch, limit, self.offload)
    }

    fn write_batch(&mut self, frames: &[TxFrame<'_>]) -> WriteReport {
        write_batch(&self.file, frames)
    }

    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn read_more(
    mut file: &File,
    batch: &mut FrameBatch,
    limit: usize,
    offload: bool,
) -> io::Result<usize> {
    let first = batch.len();
    // A refused frame fills no slot: without a limit of reads, bad frames could hold the caller.
    let mut refused_left = 64_usize;
    while batch.len() - first < limit {
        let Some(spare) = batch.spare() else {
            break;
        };
        match file.read(spare) {
            Ok(read) => {
                let before = batch.refused();
                batch.commit(read, offload);
                if batch.refused() > before {
                    refused_left -= 1;
                    if refused_left == 0 {
                        break;
                    }
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => break,
                _ if batch.len() > first => break,
                _ => return Err(error),
            },
        }
    }
    Ok(batch.len() - first)
}

fn write_batch(mut file: &File, frames: &[TxFrame<'_>]) -> WriteReport {
    let mut report = WriteReport::default();
    for frame in frames {
        let header = frame.header.to_bytes();
        let written = if frame.rest.is_empty() {
            file.write_vectored(&[IoSlice::new(&header), IoSlice::new(frame.head)])
        } else {
            write_merged(file, &header, frame)
        };
        match written {
            Ok(_) => report.written += 1,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => report.full += 1,
                errno => {
                    report.failed += 1;
                    report.errno = errno.unwrap_or(libc::EIO);
                }
            },
        }
    }
    report
}

fn write_merged(mut file: &File, header: &[u8], frame: &TxFrame<'_>) -> io::Result<usize> {
    let mut parts = [IoSlice::new(&[]); TxFrame::MAX_PARTS + 2];
    if frame.rest.len() > TxFrame::MAX_PARTS {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let all = [header, frame.head];
    let all = all.into_iter().chain(frame.rest.iter().copied());
    let mut used = 0;
    for (slot, part) in parts.iter_mut().zip(all) {
        *slot = IoSlice::new(part);
        used += 1;
    }
    file.write_vectored(parts.get(..used).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::MAX_FRAME_BYTES;

    #[test]
    fn frames_cross_unchanged_and_in_order() {
        let (mut a, mut b) = MemoryTap::pair().unwrap();
        let frames: Vec<Vec<u8>> = (0..100_u8).map(|i| vec![i; 60 + usize::from(i)]).collect();
        let out: Vec<_> = frames.iter().map(|frame| TxFrame::plain(frame)).collect();
        assert_eq!(a.write_batch(&out).written, 100);
        let mut batch = FrameBatch::default();
        let mut seen = Vec::new();
        while b.read_batch(&mut batch).unwrap() > 0 {
            seen.extend(batch.frames().map(|frame| frame.bytes.to_vec()));
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn a_limit_leaves_the_rest_in_the_queue() {
        let (mut a, mut b) = MemoryTap::pair().unwrap();
        let frames: Vec<Vec<u8>> = (0..5_u8).map(|i| vec![i; 60]).collect();
        let out: Vec<_> = frames.iter().map(|frame| TxFrame::plain(frame)).collect();
        assert_eq!(a.write_batch(&out).written, 5);
        let mut batch = FrameBatch::new(4, 256 * 1024);
        let read = [1, 2, 9, 9].map(|limit| b.read_more(&mut batch, limit).unwrap());
        assert_eq!(read, [1, 2, 1, 0], "a full batch takes no more");
        let first: Vec<_> = batch.frames().map(|frame| frame.bytes.to_vec()).collect();
        assert_eq!(first, frames[..4]);
        assert_eq!(b.read_batch(&mut batch).unwrap(), 1);
        assert_eq!(batch.frames().next().unwrap().bytes, frames[4]);
    }

    #[test]
    fn merged_parts_arrive_as_one_frame_of_the_largest_size() {
        let (mut a, mut b) = MemoryTap::pair().unwrap();
        let part = vec![7; 1_000];
        let rest: Vec<&[u8]> = vec![&part; TxFrame::MAX_PARTS];
        let head = vec![1; MAX_FRAME_BYTES - 1_000 * TxFrame::MAX_PARTS];
        let frame = TxFrame {
            rest: &rest,
            ..TxFrame::plain(&head)
        };
        assert_eq!(a.write_batch(&[frame]).written, 1);
        let mut batch = FrameBatch::new(1, 0);
        assert_eq!(b.read_batch(&mut batch).unwrap(), 1);
        assert_eq!(batch.frames().next().unwrap().bytes.len(), MAX_FRAME_BYTES);
    }

    #[test]
    fn with_offload_headers_are_kept_and_frames_have_headroom() {
        for offload in [false, true] {
            let (mut a, mut b) = MemoryTap::pair_with(offload).unwrap();
            let header = crate::VnetHdr {
                flags: 1,
                csum_start: 34,
                csum_offset: 16,
                ..crate::VnetHdr::PLAIN
            };
            let partial = TxFrame {
                header,
                ..TxFrame::plain(&[2; 70])
            };
            let out = [
                TxFrame::plain(&[1; 60]),
                partial,
                TxFrame::plain(&[3; 1_500]),
            ];
            assert_eq!(a.write_batch(&out).written, 3);
            let mut batch = FrameBatch::default();
            assert_eq!(b.read_batch(&mut batch).unwrap(), 2 + usize::from(offload));
            let mut seen = Vec::new();
            // All at once: their headrooms do not overlap.
            for (header, bytes) in batch.frames_mut().collect::<Vec<_>>() {
                let (headroom, frame) = bytes.split_at_mut(crate::offload::HEADROOM);
                headroom.fill(0xff);
                seen.push((header, frame.to_vec()));
            }
            let expected = out
                .iter()
                .filter(|frame| offload || frame.header.is_plain());
            let expected: Vec<_> = expected
                .map(|frame| (frame.header, frame.head.to_vec()))
                .collect();
            assert_eq!(seen, expected);
            let frames = batch
                .frames()
                .map(|frame| (frame.header, frame.bytes.to_vec()));
            assert_eq!(frames.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_full_queue_and_a_bad_header_are_counted() {
        let (mut a, mut b) = MemoryTap::pair().unwrap();
        let frame = vec![0; 60_000];
        let report = a.write_batch(&[TxFrame::plain(&frame); 100]);
        assert!(report.full > 0 && report.failed == 0, "{report:?}");
        let mut batch = FrameBatch::default();
        while b.read_batch(&mut batch).unwrap() > 0 {}
        let header = crate::VnetHdr {
            flags: 0x40,
            ..crate::VnetHdr::PLAIN
        };
        let bad = TxFrame {
            header,
            ..TxFrame::plain(&[0; 60])
        };
        a.write_batch(&[bad, TxFrame::plain(&[1; 60])]);
        assert_eq!(b.read_batch(&mut batch).unwrap(), 1);
        assert_eq!(batch.refused(), 1);
    }
}
