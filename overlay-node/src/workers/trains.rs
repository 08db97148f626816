//! Batches of datagrams on their way out, in *trains*.
//!
//! Datagrams of one size and one mark to one destination lie behind each other in the buffer and go to the kernel
//! as one (`UDP_SEGMENT`); it cuts them as late as it can, at best in the network card. The last datagram of a train may be shorter
//! than the others, which ends it.
//!
//! A device that cannot do it says so with an error for the whole train (EIO without checksum
//! offload, EINVAL or EMSGSIZE on a path that is smaller than a datagram): then its datagrams go out
//! one by one, none is lost, and trains are tried again after [`PLAIN_FOR`].

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use host_services::udp::{MARKED, Outgoing, send_batch};
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use overlay_proto::wire::sizes;

use super::udp::reason_of;

/// The largest datagram that is sent, relay header included, in bytes.
pub(super) const MAX_SENT: usize = sizes::MAX_UDP_PAYLOAD;

/// Datagrams of one train (the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const MAX_TRAIN: usize = 64;

/// Bytes of one train: the largest UDP payload over IPv4.
const MAX_TRAIN_BYTES: usize = 65_507;

/// Bytes that wait for one call: four full trains, and room for one more datagram.
const SEND_BUFFER: usize = 4 * MAX_TRAIN_BYTES + MAX_SENT;

/// Trains and single datagrams of one call.
const BATCH: usize = 32;

/// How long no train is tried after one was refused.
const PLAIN_FOR: Duration = Duration::from_secs(10);

/// A train on its way, or a single datagram.
#[derive(Debug, Clone, Copy)]
struct Train {
    to: SocketAddr,
    /// TOS or traffic class of all.
    mark: u8,
    /// Where it begins in the buffer.
    start: usize,
    len: usize,
    /// Bytes of each datagram but the last.
    segment: usize,
    count: usize,
}

impl Train {
    /// May a datagram of `len` bytes for `to` be the next one?
    fn takes(&self, (to, mark): (SocketAddr, u8), len: usize) -> bool {
        self.to == to
            && self.mark == mark
            && len <= self.segment
            && self.len == self.segment * self.count
            && self.count < MAX_TRAIN
            && self.len + len <= MAX_TRAIN_BYTES
    }
}

/// Datagrams that wait for one call, in one buffer.
#[derive(Debug)]
pub(super) struct SendBatch {
    buffer: Box<[u8]>,
    /// Never longer than [`BATCH`]; they lie behind each other in the buffer.
    trains: Vec<Train>,
    used: usize,
    /// No trains until then: one was refused.
    plain_until: Option<Instant>,
}

impl SendBatch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; SEND_BUFFER].into_boxed_slice(),
            trains: Vec::with_capacity(BATCH),
            used: 0,
            plain_until: None,
        }
    }

    /// Must it be flushed before the next datagram?
    pub(super) fn is_full(&self) -> bool {
        self.trains.len() >= BATCH || self.used + MAX_SENT > self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Room for the next datagram, [`MAX_SENT`] bytes; `None` when the batch is full.
    pub(super) fn slot(&mut self) -> Option<&mut [u8]> {
        if self.is_full() {
            return None;
        }
        self.buffer.get_mut(self.used..self.used + MAX_SENT)
    }

    /// The first `len` bytes of [`Self::slot`] go to `to` with this mark.
    pub(super) fn commit(&mut self, (to, mark): (SocketAddr, u8), len: usize) {
        if self.is_full() {
            return;
        }
        let len = len.min(MAX_SENT);
        match self.trains.last_mut() {
            Some(train) if self.plain_until.is_none() && train.takes((to, mark), len) => {
                train.len += len;
                train.count += 1;
            }
            _ => self.trains.push(Train {
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

    /// Sends all and is empty again. What the kernel does not take is counted, datagram by
    /// datagram: one bad destination never holds up the others.
    pub(super) fn flush(&mut self, socket: Option<&UdpSocket>, drops: &DropCounters, now: Instant) {
        if self.plain_until.is_some_and(|until| now >= until) {
            self.plain_until = None;
        }
        if let Some(socket) = socket {
            let mut done = 0;
            while done < self.trains.len() {
                let waiting = self.trains.iter().skip(done);
                let waiting = waiting.filter_map(|one| self.message(one));
                // A call with few places touches little memory, which is cold after a sleep.
                let sent = if self.trains.len() == 1 {
                    send_batch::<1, MARKED>(socket, waiting)
                } else {
                    send_batch::<BATCH, MARKED>(socket, waiting)
                };
                done += self.judge(socket, drops, now, done, sent);
            }
        } else {
            let datagrams: usize = self.trains.iter().map(|train| train.count).sum();
            drops.add(DropReason::NoPath, datagrams as u64);
        }
        self.trains.clear();
        self.used = 0;
    }

    /// What became of the trains from number `done` on; returns how many are dealt with.
    fn judge(
        &mut self,
        socket: &UdpSocket,
        drops: &DropCounters,
        now: Instant,
        done: usize,
        sent: std::io::Result<usize>,
    ) -> usize {
        let left = self.trains.get(done..).unwrap_or_default();
        let error = match sent {
            Ok(0) => return left.len(),
            Ok(sent) => return sent,
            Err(error) => error.raw_os_error(),
        };
        match (error, left.first()) {
            (Some(libc::EINTR), _) => 0,
            (Some(libc::EAGAIN), _) => {
                let datagrams: usize = left.iter().map(|train| train.count).sum();
                drops.add(DropReason::SocketFull, datagrams as u64);
                left.len()
            }
            (Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE), Some(&train)) if train.count > 1 => {
                self.plain_until = Some(now + PLAIN_FOR);
                self.send_one_by_one(socket, drops, train);
                1
            }
            (errno, first) => {
                let datagrams = first.map_or(1, |train| train.count);
                drops.add(reason_of(errno), datagrams as u64);
                1
            }
        }
    }

    /// The datagrams of a train that the kernel does not take as one.
    fn send_one_by_one(&self, socket: &UdpSocket, drops: &DropCounters, train: Train) {
        let bytes = self.buffer.get(train.start..train.start + train.len);
        for datagram in bytes.unwrap_or_default().chunks(train.segment) {
            let one = Outgoing {
                to: train.to,
                local: None,
                mark: train.mark,
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

    fn message(&self, train: &Train) -> Option<Outgoing<'_>> {
        let segment = if train.count > 1 { train.segment } else { 0 };
        Some(Outgoing {
            to: train.to,
            local: None,
            mark: train.mark,
            segment: u16::try_from(segment).ok()?,
            bytes: self.buffer.get(train.start..train.start + train.len)?,
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
                for train in inbox.next_batch(&drops) {
                    let from = train.from;
                    got.extend(train.map(|bytes| (from, bytes.to_vec())));
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

    /// Sizes that make trains, end them, and stand alone; two destinations.
    #[test]
    fn trains_and_single_datagrams_arrive_whole_and_in_order() {
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
        assert_eq!(batch.trains.len(), 6, "{:?}", batch.trains);
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
    fn no_train_mixes_marks() {
        let (a, b) = (local(), local());
        let to = b.local_addr().unwrap();
        let (mut batch, drops) = (SendBatch::new(), DropCounters::default());
        for mark in [0, 0, 2, 2, 3, 2, 0xb8, 0xb8, 0] {
            batch.slot().unwrap()[..100].fill(mark);
            batch.commit((to, mark), 100);
        }
        let counts: Vec<_> = batch.trains.iter().map(|train| train.count).collect();
        assert_eq!(counts, [2, 2, 1, 1, 2, 1]);
        batch.flush(Some(&a), &drops, Instant::now());
        let mut inbox = Inbox::new();
        let mut got = Vec::new();
        while got.len() < 9 {
            inbox.read(&b, false, &drops);
            for train in inbox.next_batch(&drops) {
                let mark = train.mark;
                got.extend(train.map(|bytes| (mark, bytes[0])));
            }
        }
        assert!(got.iter().all(|(mark, byte)| mark == byte), "{got:?}");
    }

    #[test]
    fn a_train_is_bounded_in_datagrams_and_bytes() {
        let to = "192.0.2.1:1".parse().unwrap();
        let mut batch = SendBatch::new();
        for number in 0..65 {
            put(&mut batch, to, number, 100);
        }
        let counts = |batch: &SendBatch| batch.trains.iter().map(|t| t.count).collect::<Vec<_>>();
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

    /// Loopback takes nothing above 65,536 bytes less the headers, so a train of large datagrams for
    /// port 0 is refused like any other bad destination.
    #[test]
    fn one_bad_destination_does_not_hold_up_the_others() {
        let (a, b) = (local(), local());
        let mut batch = SendBatch::new();
        let good = b.local_addr().unwrap();
        // A socket bound to loopback cannot send to port 0.
        let bad = "127.0.0.1:0".parse().unwrap();
        for (number, to) in [good, bad, bad, good].into_iter().enumerate() {
            put(&mut batch, to, number, 10);
        }
        let drops = DropCounters::default();
        let now = Instant::now();
        batch.flush(Some(&a), &drops, now);
        assert_eq!(receive_all(&b, 2).len(), 2);
        // Both of the train, when each was tried alone.
        assert_eq!(drops.get(DropReason::SocketError), 2);
        batch.commit((good, 0), 10);
        batch.flush(None, &drops, now);
        assert_eq!(drops.get(DropReason::NoPath), 1);
    }

    #[test]
    fn a_refused_train_goes_out_one_by_one_and_trains_rest_for_a_while() {
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
        batch.trains.clear();
        put(&mut batch, to, 0, 100);
        put(&mut batch, to, 1, 100);
        assert_eq!(batch.trains.len(), 2, "trains rest");
        batch.flush(Some(&a), &drops, now + PLAIN_FOR);
        put(&mut batch, to, 0, 100);
        put(&mut batch, to, 1, 100);
        assert_eq!(batch.trains.len(), 1, "trains are tried again");
        assert_eq!(drops.occurred().count(), 0);
    }

    #[test]
    fn a_train_that_is_refused_for_good_counts_each_of_its_datagrams() {
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
