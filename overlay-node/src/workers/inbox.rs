//! Datagrams that were received from one socket and wait to be handled.
//!
//! The kernel coalesces datagrams of one sender into *GRO batches* (`UDP_GRO`); a slot of memory holds
//! one such batch, or a single datagram. A worker reads everything that waits in the socket, so that it
//! sees the datagrams of sparse flows among the rest; an idle worker reads one datagram first. Datagrams
//! on an express lane ([`Lane::express`](overlay_proto::wire::Lane::express)), the lane of sparse flows,
//! are handed out first. The rest follows in its order, a few batches at a time. All lanes of a sender
//! share a port, so the kernel may append a small express datagram to a batch of another lane. Therefore
//! each datagram of a batch is judged by itself.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use host_services::udp::{self, MARKED, Received};
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use overlay_proto::wire::DataHeader;

/// The largest UDP payload. A slot holds that much, be it one datagram or a GRO batch.
const SLOT: usize = 65_536;

/// The number of slots, 6 MiB in all; what does not fit stays in the socket. Where the kernel coalesces
/// nothing, this is twice the number of datagrams in a GSO frame, so that a whole GSO frame can be
/// rebuilt: fewer writes to a tap mean less work for the guest.
const SLOTS: usize = 96;

/// Batches that one system call reads, if the worker is not idle.
const READ: usize = 32;

/// After so many bytes no further batches are handed out in this turn. An express datagram waits at most
/// until so many bytes of each socket have been decrypted, a quarter of a millisecond.
const BATCH_BYTES: usize = 128 * 1024;

/// The highest bit of a mask stands for the 64th datagram of a batch and all after it. The kernel
/// coalesces at most 64.
const LAST_BIT: u64 = 1 << (u64::BITS - 1);

/// What waits for one socket.
#[derive(Debug)]
pub(super) struct Inbox {
    /// A stack: the slot that became free last is used first, because its memory is warm. Memory of a
    /// slot is touched only as far as it was ever needed.
    free: Vec<Slot>,
    /// In the order in which they came.
    waiting: VecDeque<Slot>,
    /// Number of slots at the front whose express datagrams have all been handed out.
    passed: usize,
    /// Number of slots behind them that contain express datagrams.
    express: usize,
    /// Number of slots that contain other datagrams. If this and `express` are 0, everything that waits
    /// has been handed out, and the next read frees all slots.
    rest: usize,
    /// May the socket hold anything that was not read yet?
    pub(super) is_readable: bool,
}

/// Memory for one GRO batch.
#[derive(Debug)]
struct Slot {
    bytes: Box<[u8]>,
    received: Received,
    /// A mask of the express datagrams in the batch; the lowest bit is the first datagram.
    passing: u64,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let slot = || Slot {
            bytes: vec![0; SLOT].into_boxed_slice(),
            received: Received::NOTHING,
            passing: 0,
        };
        Self {
            free: std::iter::repeat_with(slot).take(SLOTS).collect(),
            waiting: VecDeque::with_capacity(SLOTS),
            passed: 0,
            express: 0,
            rest: 0,
            is_readable: true,
        }
    }

    /// Reads what the socket holds, as far as there are free slots, without blocking. If the worker was
    /// idle (`rested`), it reads one datagram, which is mostly the only one; if not, the next `poll`
    /// says so.
    pub(super) fn read(&mut self, socket: &UdpSocket, rested: bool, drops: &DropCounters) {
        if self.is_empty() {
            self.passed = 0;
            while let Some(slot) = self.waiting.pop_front() {
                self.free.push(slot);
            }
        }
        if rested {
            self.read_some::<1>(socket, drops);
            self.is_readable = false;
        } else {
            while self.read_some::<READ>(socket, drops) {}
        }
    }

    /// One system call. Returns whether there may be more in the socket and a slot for it.
    fn read_some<const N: usize>(&mut self, socket: &UdpSocket, drops: &DropCounters) -> bool {
        let mut fresh = [Received::NOTHING; N];
        let places = self.free.iter_mut().rev().take(N);
        let asked = places.len();
        if asked == 0 {
            return false;
        }
        let slots = places.map(|slot| &mut *slot.bytes);
        let count =
            udp::recv_batch::<N, MARKED>(socket, slots, &mut fresh).unwrap_or_else(|error| {
                let quiet = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
                if !quiet {
                    // An asynchronous error of an earlier datagram. This call has cleared it.
                    drops.count(DropReason::SocketError);
                }
                0
            });
        for received in fresh.into_iter().take(count) {
            let Some(mut slot) = self.free.pop() else {
                return false;
            };
            slot.received = received;
            slot.passing = passing(slot.batch(), received.segment);
            self.express += usize::from(slot.passing != 0);
            self.rest += usize::from(slot.has_more());
            self.waiting.push_back(slot);
        }
        self.is_readable = count == asked;
        self.is_readable
    }

    /// Are there express datagrams that have not been handed out?
    pub(super) fn has_express(&self) -> bool {
        self.express > 0
    }

    /// Hands out the express datagrams, batch by batch.
    pub(super) fn express(&mut self, drops: &DropCounters) -> impl Iterator<Item = GroBatch<'_>> {
        let first = std::mem::replace(&mut self.passed, self.waiting.len());
        self.express = 0;
        let slots = self.waiting.range_mut(first..);
        let slots = slots.filter(|slot| slot.passing != 0);
        slots.filter_map(|slot| {
            let passing = slot.passing;
            slot.hand_out(passing, drops)
        })
    }

    /// Hands out the other datagrams of the next few batches. It hands out nothing while express
    /// datagrams wait. Datagrams that the kernel had to truncate are counted as drops.
    ///
    /// The slots count as free at once. That is safe: nothing is read into them as long as the caller
    /// holds a datagram.
    pub(super) fn next_batch(
        &mut self,
        drops: &DropCounters,
    ) -> impl Iterator<Item = GroBatch<'_>> {
        let first = self.free.len();
        let mut bytes = 0;
        // The loop frees slots, so their express datagrams must have been handed out before.
        while !self.has_express() && bytes < BATCH_BYTES {
            let Some(slot) = self.waiting.pop_front() else {
                break;
            };
            if slot.has_more() {
                bytes += slot.batch().len();
                self.rest -= 1;
            }
            self.passed = self.passed.saturating_sub(1);
            self.free.push(slot);
        }
        let slots = self.free.get_mut(first..).unwrap_or_default();
        slots.iter_mut().filter_map(|slot| {
            let others = !slot.passing;
            slot.hand_out(others, drops)
        })
    }

    /// Has everything been handed out?
    pub(super) fn is_empty(&self) -> bool {
        self.express == 0 && self.rest == 0
    }
}

impl Slot {
    /// The bytes that came. Empty if the datagram was truncated or has no usable source address.
    fn batch(&self) -> &[u8] {
        let len = self.received.from.and(self.received.len);
        let batch = len.and_then(|len| self.bytes.get(..len));
        batch.unwrap_or_default()
    }

    /// Does it contain any datagram that is not express?
    fn has_more(&self) -> bool {
        self.received.datagrams() > self.passing.count_ones() as usize
    }

    /// The datagrams whose bit is set in `chosen`. For a truncated datagram `None`, and it is counted.
    fn hand_out(&mut self, chosen: u64, drops: &DropCounters) -> Option<GroBatch<'_>> {
        let received = self.received;
        let batch = received.len.and_then(|len| self.bytes.get_mut(..len));
        let Some((from, rest)) = received.from.zip(batch) else {
            drops.count(DropReason::MalformedDatagram);
            return None;
        };
        Some(GroBatch {
            from,
            mark: received.mark,
            rest: Some(rest),
            segment: received.segment.unwrap_or(SLOT),
            chosen,
        })
    }
}

/// Iterates over some datagrams of one GRO batch.
#[derive(Debug)]
pub(super) struct GroBatch<'a> {
    /// The sender.
    pub(super) from: SocketAddr,
    /// The TOS or traffic class of all datagrams.
    pub(super) mark: u8,
    /// The part of the batch that has not been looked at.
    rest: Option<&'a mut [u8]>,
    segment: usize,
    /// A mask of the datagrams to return, the lowest bit first. The highest bit stands for all further
    /// datagrams.
    chosen: u64,
}

impl<'a> Iterator for GroBatch<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        // A datagram may be empty; then it is the only one of its batch.
        while let Some(rest) = self.rest.take() {
            let (datagram, rest) = rest.split_at_mut(rest.len().min(self.segment));
            if !rest.is_empty() {
                self.rest = Some(rest);
            }
            let is_chosen = self.chosen & 1 != 0;
            self.chosen = self.chosen >> 1 | self.chosen & LAST_BIT;
            if is_chosen {
                return Some(datagram);
            }
        }
        None
    }
}

/// A mask of the express datagrams in a batch.
fn passing(batch: &[u8], segment: Option<usize>) -> u64 {
    let datagrams = batch.chunks(segment.unwrap_or(SLOT));
    let express = (0..u64::BITS)
        .zip(datagrams)
        .filter(|(_, datagram)| is_express(datagram));
    express.fold(0, |passing, (index, _)| passing | 1 << index)
}

/// A relayed datagram has its lane behind the relay header. Nothing is authenticated yet: a sender that
/// sets the bit wrongly gains no more than an earlier turn for its own datagram.
fn is_express(datagram: &[u8]) -> bool {
    let sealed = if relay::is_relayed(datagram) {
        datagram.get(relay::HEADER_LEN..).unwrap_or_default()
    } else {
        datagram
    };
    DataHeader::parse(sealed).is_ok_and(|header| header.lane.is_express())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay_proto::wire::{Lane, SessionIndex};

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        a.connect(b.local_addr().unwrap()).unwrap();
        b.set_nonblocking(true).unwrap();
        (a, b)
    }

    fn data(lane: u8, number: usize) -> Vec<u8> {
        let header = DataHeader {
            receiver: SessionIndex(1),
            lane: Lane(lane),
            counter: number as u64,
        };
        let mut out = header.to_bytes().to_vec();
        out.resize(DataHeader::LEN + 16 + number % 100, 0);
        out
    }

    fn numbers<'a>(batches: impl Iterator<Item = GroBatch<'a>>) -> Vec<u64> {
        let parsed = batches.flatten();
        parsed
            .map(|bytes| DataHeader::parse(bytes).unwrap().counter)
            .collect()
    }

    #[test]
    fn express_passes_and_the_rest_keeps_its_order() {
        let (from, to) = pair();
        let drops = DropCounters::default();
        let mut inbox = Inbox::new();
        let express = Lane(1).express().0;
        for number in 0..40 {
            let lane = if number % 10 == 9 { express } else { 1 };
            from.send(&data(lane, number)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        inbox.read(&to, false, &drops);
        let mut passed = Vec::new();
        passed.extend(numbers(inbox.express(&drops)));
        assert!(!inbox.has_express());
        assert_eq!(passed, [9, 19, 29, 39]);
        let mut rest = Vec::new();
        while !inbox.is_empty() {
            let batch = numbers(inbox.next_batch(&drops));
            assert!(!batch.is_empty());
            rest.extend(batch);
        }
        assert!(rest.is_sorted());
        assert_eq!(rest.len(), 36);
        inbox.read(&to, false, &drops);
        assert_eq!(inbox.free.len(), SLOTS);
    }

    #[test]
    fn a_worker_that_has_rested_reads_one_datagram_first() {
        let (from, to) = pair();
        let drops = DropCounters::default();
        let mut inbox = Inbox::new();
        for (rested, waiting) in [(true, 1), (false, 6), (true, 7)] {
            for number in 0..3 {
                from.send(&data(1, number)).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            inbox.read(&to, rested, &drops);
            assert_eq!(inbox.waiting.len(), waiting);
            assert!(!inbox.is_readable);
        }
    }

    #[test]
    fn what_has_no_room_stays_in_the_socket_in_order() {
        let (from, to) = pair();
        let drops = DropCounters::default();
        let mut inbox = Inbox::new();
        let mut seen = Vec::new();
        for number in 0..2 * SLOTS {
            from.send(&data(1, number)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        loop {
            inbox.read(&to, false, &drops);
            if inbox.is_empty() {
                break;
            }
            seen.extend(numbers(inbox.next_batch(&drops)));
        }
        let all: Vec<u64> = (0..2 * SLOTS as u64).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn in_a_gro_batch_of_several_lanes_each_datagram_goes_its_way() {
        let express = Lane(3).express().0;
        let mut batch = Vec::new();
        for lane in [3, 3, express, 3, express] {
            batch.extend(data(lane, 100));
        }
        let segment = Some(data(3, 100).len());
        assert_eq!(passing(&batch, segment), 0b10100);
        batch.extend([4; 5]);
        assert_eq!(passing(&batch, segment), 0b10100);
        assert_eq!(passing(&data(express, 100), None), 1);
        assert_eq!(passing(&[], None), 0);
        assert_eq!(passing(&[1; 200], None), 0);
        // What a relay carries passes, too.
        let relayed = |lane| {
            [
                vec![relay::KIND_RELAYED; relay::HEADER_LEN],
                data(lane, 100),
            ]
            .concat()
        };
        let batch = [relayed(3), relayed(express), relayed(3)].concat();
        assert_eq!(passing(&batch, Some(relayed(3).len())), 0b010);
        assert_eq!(passing(&[relay::KIND_RELAYED; 10], None), 0);
        // A batch longer than there are bits, which the kernel does not make: each comes out once.
        let long = data(express, 100).repeat(100);
        let passing = passing(&long, segment);
        for (chosen, expected) in [(passing, 100), (!passing, 0)] {
            let mut bytes = long.clone();
            let batch = GroBatch {
                from: "192.0.2.1:1".parse().unwrap(),
                mark: 0,
                rest: Some(&mut bytes),
                segment: data(express, 100).len(),
                chosen,
            };
            assert_eq!(batch.count(), expected);
        }
    }
}
