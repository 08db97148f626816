//! Datagrams that wait to be sent, in *GSO batches*.
//!
//! Datagrams that have the same size, mark and destination lie next to each other in the buffer and go
//! to the kernel in one piece (`UDP_SEGMENT`). The kernel splits the batch into datagrams as late as it
//! can, at best in the network card. The last datagram of a batch may be shorter than the others; it
//! ends the batch.
//!
//! A device without support fails with an error for the whole batch: EIO without checksum offload,
//! EINVAL or EMSGSIZE if the path is smaller than a datagram. Then the datagrams are sent one by one, so
//! that none is lost, and batches are tried again after [`PLAIN_FOR`].

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use host_services::udp::{MARKED, Outgoing, send_batch};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use overlay_proto::wire::sizes;

use super::udp::reason_of;

/// The largest datagram that is sent, in bytes, relay header included.
pub(super) const MAX_SENT: usize = sizes::MAX_UDP_PAYLOAD;

/// Datagrams in one GSO batch (the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const MAX_SEGMENTS: usize = 64;

/// Bytes in one GSO batch: the largest UDP payload over IPv4.
const MAX_GSO_BYTES: usize = 65_507;

/// Bytes that wait for one system call: four full GSO batches, and room for one more datagram.
const SEND_BUFFER: usize = 4 * MAX_GSO_BYTES + MAX_SENT;

/// GSO batches and single datagrams in one system call.
const BATCH: usize = 32;

/// How long datagrams are sent one by one after a batch was refused.
const PLAIN_FOR: Duration = Duration::from_secs(10);

/// A GSO batch, or a single datagram.
#[derive(Debug, Clone, Copy)]
struct GsoBatch {
    to: SocketAddr,
    /// The TOS or traffic class of all datagrams.
    mark: u8,
    /// Its first byte in the buffer.
    start: usize,
    len: usize,
    /// The size of each datagram but the last.
    segment: usize,
    count: usize,
}

impl GsoBatch {
    /// May a datagram of `len` bytes for `to` be appended?
    fn takes(&self, (to, mark): (SocketAddr, u8), len: usize) -> bool {
        self.to == to
            && self.mark == mark
            && len <= self.segment
            && self.len == self.segment * self.count
            && self.count < MAX_SEGMENTS
            && self.len + len <= MAX_GSO_BYTES
    }
}

/// Everything that one flush sends, in one buffer.
#[derive(Debug)]
pub(super) struct SendBatch {
    buffer: Box<[u8]>,
    /// At most [`BATCH`], next to each other in the buffer.
    batches: Vec<GsoBatch>,
    used: usize,
    /// Until then datagrams are sent one by one, because a batch was refused.
    plain_until: Option<Instant>,
}

impl SendBatch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; SEND_BUFFER].into_boxed_slice(),
            batches: Vec::with_capacity(BATCH),
            used: 0,
            plain_until: None,
        }
    }

    /// Must it be flushed before the next datagram?
    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= BATCH || self.used + MAX_SENT > self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Room for the next datagram, [`MAX_SENT`] bytes; `None` if the buffer is full.
    pub(super) fn slot(&mut self) -> Option<&mut [u8]> {
        if self.is_full() {
            return None;
        }
        self.buffer.get_mut(self.used..self.used + MAX_SENT)
    }

    /// Adds the first `len` bytes of [`Self::slot`], to be sent to `to` with this mark.
    pub(super) fn commit(&mut self, (to, mark): (SocketAddr, u8), len: usize) {
        if self.is_full() {
            return;
        }
        let len = len.min(MAX_SENT);
        match self.batches.last_mut() {
            Some(gso) if self.plain_until.is_none() && gso.takes((to, mark), len) => {
                gso.len += len;
                gso.count += 1;
            }
            _ => self.batches.push(GsoBatch {
                to,
                mark,
                start: self.used,
                len,
                segment: len.max(1),
                count: 1,
            }),
        }
        self.used += len;
    }

    /// Sends everything, and is empty afterwards. What the kernel does not take is counted, datagram by
    /// datagram. One bad destination does not hold up the others.
    pub(super) fn flush(&mut self, socket: Option<&UdpSocket>, drops: &DropCounters, now: Instant) {
        if self.plain_until.is_some_and(|until| now >= until) {
            self.plain_until = None;
        }
        if let Some(socket) = socket {
            let mut done = 0;
            while done < self.batches.len() {
                let waiting = self.batches.iter().skip(done);
                let waiting = waiting.filter_map(|one| self.message(one));
                // A call for a single message touches little memory, which matters after a sleep, when
                // caches are cold.
                let sent = if self.batches.len() == 1 {
                    send_batch::<1, MARKED>(socket, waiting)
                } else {
                    send_batch::<BATCH, MARKED>(socket, waiting)
                };
                done += self.judge(socket, drops, now, done, sent);
            }
        } else {
            let datagrams: usize = self.batches.iter().map(|gso| gso.count).sum();
            drops.add(DropReason::NoPath, datagrams as u64);
        }
        self.batches.clear();
        self.used = 0;
    }

    /// Handles the result of a send that began with message number `done`. Returns how many messages are
    /// dealt with.
    fn judge(
        &mut self,
        socket: &UdpSocket,
        drops: &DropCounters,
        now: Instant,
        done: usize,
        sent: std::io::Result<usize>,
    ) -> usize {
        let left = self.batches.get(done..).unwrap_or_default();
        let error = match sent {
            Ok(0) => return left.len(),
            Ok(sent) => return sent,
            Err(error) => error.raw_os_error(),
        };
        match (error, left.first()) {
            (Some(libc::EINTR), _) => 0,
            (Some(libc::EAGAIN), _) => {
                let datagrams: usize = left.iter().map(|gso| gso.count).sum();
                drops.add(DropReason::SocketFull, datagrams as u64);
                left.len()
            }
            (Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE), Some(&gso)) if gso.count > 1 => {
                self.plain_until = Some(now + PLAIN_FOR);
                self.send_one_by_one(socket, drops, gso);
                1
            }
            (errno, first) => {
                let datagrams = first.map_or(1, |gso| gso.count);
                drops.add(reason_of(errno), datagrams as u64);
                1
            }
        }
    }

    /// Sends the datagrams of a refused GSO batch one by one.
    fn send_one_by_one(&self, socket: &UdpSocket, drops: &DropCounters, gso: GsoBatch) {
        let bytes = self.buffer.get(gso.start..gso.start + gso.len);
        for datagram in bytes.unwrap_or_default().chunks(gso.segment) {
            let one = Outgoing {
                to: gso.to,
                local: None,
                mark: gso.mark,
                segment: 0,
                bytes: datagram,
            };
            let send = || send_batch::<1, MARKED>(socket, std::iter::once(one));
            let mut sent = send();
            if matches!(&sent, Err(error) if error.raw_os_error() == Some(libc::EINTR)) {
                sent = send();
            }
            if let Err(error) = sent {
                drops.count(reason_of(error.raw_os_error()));
            }
        }
    }

    fn message(&self, gso: &GsoBatch) -> Option<Outgoing<'_>> {
        let segment = if gso.count > 1 { gso.segment } else { 0 };
        Some(Outgoing {
            to: gso.to,
            local: None,
            mark: gso.mark,
            segment: u16::try_from(segment).ok()?,
            bytes: self.buffer.get(gso.start..gso.start + gso.len)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::inbox::Inbox;
    use super::super::udp::UdpSockets;
    use super::*;

    fn local() -> UdpSocket {
        let mut sockets = UdpSockets::bind_to(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        sockets.v4.take().unwrap()
    }

    fn receive_all(socket: &UdpSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut inbox, drops) = (Inbox::new(), DropCounters::default());
        let mut got = Vec::new();
        for _ in 0..1_000 {
            inbox.read(socket, false, &drops);
            while !inbox.is_empty() {
                for gso in inbox.next_batch(&drops) {
                    let from = gso.from;
                    got.extend(gso.map(|bytes| (from, bytes.to_vec())));
                }
            }
            if got.len() >= wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        got
    }

    fn put(batch: &mut SendBatch, to: SocketAddr, number: usize, len: usize) {
        let slot = batch.slot().unwrap();
        slot[..len].fill(0);
        slot[..4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        batch.commit((to, 0), len);
    }

    /// The sizes extend a batch, end it, or stand alone; there are two destinations.
    #[test]
    fn gso_batches_and_single_datagrams_arrive_whole_and_in_order() {
        let (a, b, c) = (local(), local(), local());
        let drops = DropCounters::default();
        let mut batch = SendBatch::new();
        let sizes = [
            1200, 1200, 1200, 40, 1200, 1200, 500, 600, 4, 4, MAX_SENT, MAX_SENT, 100,
        ];
        let (to_b, to_c) = (b.local_addr().unwrap(), c.local_addr().unwrap());
        for (number, len) in sizes.into_iter().enumerate() {
            put(&mut batch, to_b, number, len);
        }
        put(&mut batch, to_c, 77, 50);
        assert_eq!(batch.batches.len(), 6, "{:?}", batch.batches);
        batch.flush(Some(&a), &drops, Instant::now());
        assert!(batch.is_empty());
        let got = receive_all(&b, sizes.len());
        assert_eq!(got.len(), sizes.len());
        for ((number, len), (from, bytes)) in sizes.into_iter().enumerate().zip(&got) {
            assert_eq!(*from, a.local_addr().unwrap());
            assert_eq!(bytes.len(), len);
            assert_eq!(usize::from(bytes[3]), number);
        }
        assert_eq!(receive_all(&c, 1)[0].1[3], 77);
        assert_eq!(drops.occurred().count(), 0);
    }

    #[test]
    fn no_gso_batch_mixes_marks() {
        let (a, b) = (local(), local());
        let to = b.local_addr().unwrap();
        let (mut batch, drops) = (SendBatch::new(), DropCounters::default());
        for mark in [0, 0, 2, 2, 3, 2, 0xb8, 0xb8, 0] {
            batch.slot().unwrap()[..100].fill(mark);
            batch.commit((to, mark), 100);
        }
        let counts: Vec<_> = batch.batches.iter().map(|gso| gso.count).collect();
        assert_eq!(counts, [2, 2, 1, 1, 2, 1]);
        batch.flush(Some(&a), &drops, Instant::now());
        let mut inbox = Inbox::new();
        let mut got = Vec::new();
        while got.len() < 9 {
            inbox.read(&b, false, &drops);
            for gso in inbox.next_batch(&drops) {
                let mark = gso.mark;
                got.extend(gso.map(|bytes| (mark, bytes[0])));
            }
        }
        assert!(got.iter().all(|(mark, byte)| mark == byte), "{got:?}");
    }

    #[test]
    fn a_gso_batch_is_bounded_in_datagrams_and_bytes() {
        let to = "192.0.2.1:1".parse().unwrap();
        let mut batch = SendBatch::new();
        for number in 0..65 {
            put(&mut batch, to, number, 100);
        }
        let counts = |batch: &SendBatch| batch.batches.iter().map(|t| t.count).collect::<Vec<_>>();
        assert_eq!(counts(&batch), [64, 1]);
        let mut batch = SendBatch::new();
        while !batch.is_full() {
            put(&mut batch, to, 0, 1472);
        }
        assert_eq!(counts(&batch)[..2], [44, 44]);
        assert!(batch.slot().is_none());
        batch.commit((to, 0), 10);
        assert!(batch.used <= SEND_BUFFER);
    }

    /// Two datagrams for a destination that always fails, between two for one that works.
    #[test]
    fn one_bad_destination_does_not_hold_up_the_others() {
        let (a, b) = (local(), local());
        let mut batch = SendBatch::new();
        let good = b.local_addr().unwrap();
        // A socket that is bound to loopback cannot send to port 0.
        let bad = "127.0.0.1:0".parse().unwrap();
        for (number, to) in [good, bad, bad, good].into_iter().enumerate() {
            put(&mut batch, to, number, 10);
        }
        let drops = DropCounters::default();
        let now = Instant::now();
        batch.flush(Some(&a), &drops, now);
        assert_eq!(receive_all(&b, 2).len(), 2);
        // Both datagrams of the batch, each tried alone.
        assert_eq!(drops.get(DropReason::SocketError), 2);
        batch.commit((good, 0), 10);
        batch.flush(None, &drops, now);
        assert_eq!(drops.get(DropReason::NoPath), 1);
    }

    #[test]
    fn a_refused_gso_batch_goes_out_one_by_one_and_none_is_tried_for_a_while() {
        let (a, b) = (local(), local());
        let to = b.local_addr().unwrap();
        let drops = DropCounters::default();
        let mut batch = SendBatch::new();
        for number in 0..3 {
            put(&mut batch, to, number, 100);
        }
        let now = Instant::now();
        let refused = Err(std::io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(batch.judge(&a, &drops, now, 0, refused), 1);
        let got = receive_all(&b, 3);
        assert_eq!(
            got.iter().map(|(_, bytes)| bytes[3]).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        batch.batches.clear();
        put(&mut batch, to, 0, 100);
        put(&mut batch, to, 1, 100);
        assert_eq!(batch.batches.len(), 2, "no GSO for a while");
        batch.flush(Some(&a), &drops, now + PLAIN_FOR);
        put(&mut batch, to, 0, 100);
        put(&mut batch, to, 1, 100);
        assert_eq!(batch.batches.len(), 1, "GSO is tried again");
        assert_eq!(drops.occurred().count(), 0);
    }

    #[test]
    fn a_gso_batch_that_is_refused_for_good_counts_each_of_its_datagrams() {
        let (socket, drops) = (local(), DropCounters::default());
        let mut batch = SendBatch::new();
        for number in 0..3 {
            put(&mut batch, "192.0.2.1:1".parse().unwrap(), number, 100);
        }
        let refused = Err(std::io::Error::from_raw_os_error(libc::ENETUNREACH));
        assert_eq!(batch.judge(&socket, &drops, Instant::now(), 0, refused), 1);
        let counted: u64 = drops.occurred().map(|(_, count)| count).sum();
        assert_eq!(counted, 3);
    }
}
