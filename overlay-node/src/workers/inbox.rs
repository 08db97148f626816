//! Datagrams that came, in *trains* as the kernel merged them.
//!
//! All that waits in the socket is read at once, into slots of memory that are used again. So what
//! came on an express lane ([`Lane::express`](overlay_proto::wire::Lane::express)) passes the rest,
//! which is handed out in its order, a few trains at a time. A sender's lanes share a port, so the
//! kernel may append a small express datagram to a train of another lane: the choice is made for
//! each datagram.

use std::array;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use overlay_proto::wire::DataHeader;

use super::sys::{self, Received};

/// The largest UDP payload that exists; a slot holds it, be it a datagram or a train.
const SLOT: usize = 65_536;

/// How many trains, or datagrams that the kernel did not merge, wait here at most, up to 3 MiB; more
/// stay in the socket.
const SLOTS: usize = 48;

/// Trains that one call reads.
const READ_AT_ONCE: usize = 16;

/// Trains that are handed out at once.
const BATCH: usize = 16;

/// Bytes after which no more of them are: what passes waits no longer than it takes to open so many of
/// each socket, a quarter of a millisecond.
const BATCH_BYTES: usize = 128 * 1024;

/// What waits for one socket.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Touched only as far as it was ever needed: the slot that became free last is taken first.
    buffer: Box<[u8]>,
    /// What is in each slot.
    received: [Received; SLOTS],
    /// Which datagrams of each slot pass the others, the first one's bit lowest.
    passing: [u64; SLOTS],
    free: Vec<usize>,
    /// Slots in use, in the order they came.
    waiting: VecDeque<usize>,
    /// Those of them whose passing datagrams were not handed out yet.
    express: VecDeque<usize>,
    /// What the last call read, in its order.
    fresh: [Received; sys::BATCH],
}

impl Inbox {
    pub(super) fn new() -> Self {
        let nothing = Received {
            len: None,
            segment: None,
            from: None,
        };
        Self {
            buffer: vec![0; SLOTS * SLOT].into_boxed_slice(),
            received: [nothing; SLOTS],
            passing: [0; SLOTS],
            free: (0..SLOTS).rev().collect(),
            waiting: VecDeque::with_capacity(SLOTS),
            express: VecDeque::with_capacity(SLOTS),
            fresh: [nothing; sys::BATCH],
        }
    }

    /// Reads what there is and room for, without waiting.
    pub(super) fn read(&mut self, socket: &UdpSocket, drops: &DropCounters) {
        loop {
            let mut slots = slots(&mut self.buffer);
            let free = self.free.iter().rev().take(READ_AT_ONCE);
            let asked = free.len();
            if asked == 0 {
                return;
            }
            let chosen = free.filter_map(|&slot| slots.get_mut(slot)?.take());
            let count = match sys::recv_batch(socket, chosen, &mut self.fresh) {
                Ok(count) => count,
                Err(error) => {
                    let quiet = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
                    if !quiet {
                        // An asynchronous error of an earlier datagram; reading has cleared it.
                        drops.count(DropReason::SocketError);
                    }
                    0
                }
            };
            for received in self.fresh.iter().take(count) {
                let Some(slot) = self.free.pop() else { return };
                let start = slot * SLOT;
                let train = received
                    .len
                    .and_then(|len| self.buffer.get(start..start + len));
                let passing = passing(train.unwrap_or_default(), received.segment);
                if let Some(place) = self.received.get_mut(slot) {
                    *place = *received;
                }
                if let Some(place) = self.passing.get_mut(slot) {
                    *place = passing;
                }
                if passing != 0 {
                    self.express.push_back(slot);
                }
                self.waiting.push_back(slot);
            }
            if count < asked {
                return;
            }
        }
    }

    /// Datagrams that pass all others, of a few trains, each with its sender.
    pub(super) fn express<'a>(
        &'a mut self,
        drops: &'a DropCounters,
    ) -> impl Iterator<Item = (SocketAddr, &'a mut [u8])> {
        let batch = array::from_fn(|_| self.express.pop_front());
        Self::hand_out(batch, &mut self.buffer, &self.received, self.passing, drops)
    }

    /// The other datagrams of the next few trains, each with its sender; none as long as some pass. What was cut off is counted.
    /// The slots count as free at once: nothing is read as long as somebody has a datagram of them.
    pub(super) fn next_batch<'a>(
        &'a mut self,
        drops: &'a DropCounters,
    ) -> impl Iterator<Item = (SocketAddr, &'a mut [u8])> {
        let mut bytes = 0;
        let batch = array::from_fn(|_| self.next_slot(&mut bytes));
        let others = self.passing.map(|passing| !passing);
        Self::hand_out(batch, &mut self.buffer, &self.received, others, drops)
    }

    /// Waits anything that passes?
    pub(super) fn has_express(&self) -> bool {
        !self.express.is_empty()
    }

    /// The next slot of which something was not handed out, if `bytes` are not many already.
    fn next_slot(&mut self, bytes: &mut usize) -> Option<usize> {
        // A slot becomes free here: what passes has to be out of it.
        if self.has_express() {
            return None;
        }
        loop {
            let slot = *self.waiting.front()?;
            let received = self.received.get(slot)?;
            let passed = self.passing.get(slot)?.count_ones() as usize;
            let has_more = received.datagrams() > passed;
            if has_more && *bytes >= BATCH_BYTES {
                return None;
            }
            self.waiting.pop_front();
            self.free.push(slot);
            if has_more {
                *bytes += received.len.unwrap_or_default();
                return Some(slot);
            }
        }
    }

    /// Waits nothing here?
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those datagrams of the slots in `batch` whose bit is in `chosen`.
    fn hand_out<'a>(
        batch: [Option<usize>; BATCH],
        buffer: &'a mut [u8],
        received: &[Received; SLOTS],
        chosen: [u64; SLOTS],
        drops: &'a DropCounters,
    ) -> impl Iterator<Item = (SocketAddr, &'a mut [u8])> {
        let mut slots = slots(buffer);
        let batch = batch.map(|slot| {
            let slot = slot?;
            let chosen = *chosen.get(slot)?;
            Some((chosen, *received.get(slot)?, slots.get_mut(slot)?.take()?))
        });
        let batch = batch.into_iter().flatten();
        batch.flat_map(|(chosen, received, slot)| {
            let all = (0..).zip(datagrams(received, slot, drops));
            all.filter_map(move |(index, datagram)| is_in(chosen, index).then_some(datagram))
        })
    }
}

/// The slots, to take any of them in any order.
fn slots(buffer: &mut [u8]) -> [Option<&mut [u8]>; SLOTS] {
    let mut chunks = buffer.chunks_exact_mut(SLOT);
    array::from_fn(|_| chunks.next())
}

/// The datagrams of a train, each with the sender.
fn datagrams<'a>(
    received: Received,
    slot: &'a mut [u8],
    drops: &DropCounters,
) -> impl Iterator<Item = (SocketAddr, &'a mut [u8])> + use<'a> {
    let train = received.len.and_then(|len| slot.get_mut(..len));
    let found = received.from.zip(train);
    if found.is_none() {
        drops.count(DropReason::MalformedDatagram);
    }
    let segment = received.segment.unwrap_or(SLOT);
    found.into_iter().flat_map(move |(from, train)| {
        // An empty datagram is one, too; it is no train.
        let empty = train.is_empty();
        let none: Option<&mut [u8]> = empty.then_some(&mut []);
        none.into_iter()
            .chain(train.chunks_mut(segment))
            .map(move |datagram| (from, datagram))
    })
}

/// Is number `index` among `chosen`? Those beyond the last bit are as the last one; the kernel merges
/// no more than 64.
fn is_in(chosen: u64, index: u32) -> bool {
    chosen >> index.min(u64::BITS - 1) & 1 != 0
}

/// Which datagrams of a train came on express lanes.
fn passing(train: &[u8], segment: Option<usize>) -> u64 {
    let datagrams = train.chunks(segment.unwrap_or(SLOT));
    let express = (0..u64::BITS).zip(datagrams).filter(|(_, datagram)| {
        DataHeader::parse(datagram).is_ok_and(|header| header.lane.is_express())
    });
    express.fold(0, |passing, (index, _)| passing | 1 << index)
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

    fn numbers<'a>(datagrams: impl Iterator<Item = (SocketAddr, &'a mut [u8])>) -> Vec<u64> {
        let parsed = datagrams.map(|(_, bytes)| DataHeader::parse(bytes).unwrap().counter);
        parsed.collect()
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
        inbox.read(&to, &drops);
        let mut passed = Vec::new();
        while inbox.has_express() {
            passed.extend(numbers(inbox.express(&drops)));
        }
        assert_eq!(passed, [9, 19, 29, 39]);
        let mut rest = Vec::new();
        while !inbox.is_empty() {
            let batch = numbers(inbox.next_batch(&drops));
            assert!(batch.len() <= BATCH && !batch.is_empty());
            rest.extend(batch);
        }
        assert!(rest.is_sorted());
        assert_eq!(rest.len(), 36);
        assert_eq!(inbox.free.len(), SLOTS);
    }

    #[test]
    fn what_has_no_room_stays_in_the_socket_in_order() {
        let (from, to) = pair();
        let drops = DropCounters::default();
        let mut inbox = Inbox::new();
        let mut seen = Vec::new();
        for number in 0..3 * SLOTS {
            from.send(&data(1, number)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        loop {
            inbox.read(&to, &drops);
            if inbox.is_empty() {
                break;
            }
            seen.extend(numbers(inbox.next_batch(&drops)));
        }
        let all: Vec<u64> = (0..3 * SLOTS as u64).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn in_a_train_of_several_lanes_each_datagram_goes_its_way() {
        let express = Lane(3).express().0;
        let mut train = Vec::new();
        for lane in [3, 3, express, 3, express] {
            train.extend(data(lane, 100));
        }
        let segment = Some(data(3, 100).len());
        assert_eq!(passing(&train, segment), 0b10100);
        train.extend([4; 5]);
        assert_eq!(passing(&train, segment), 0b10100);
        assert_eq!(passing(&data(express, 100), None), 1);
        assert_eq!(passing(&[], None), 0);
        assert_eq!(passing(&[1; 200], None), 0);
        // A train longer than there are bits, which the kernel does not make: each comes out once.
        let long = data(express, 100).repeat(100);
        let among = |chosen| (0..100).filter(|&index| is_in(chosen, index)).count();
        let passing = passing(&long, segment);
        assert_eq!((among(passing), among(!passing)), (100, 0));
    }
}
