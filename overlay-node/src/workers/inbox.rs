//! Datagrams that came, in *trains* as the kernel merged them.
//!
//! All that waits in the socket is read at once, into slots of memory that are used again; a worker
//! that has rested reads a first datagram before the rest. So what came on an express lane
//! ([`Lane::express`](overlay_proto::wire::Lane::express)) passes the rest, which is handed out in its
//! order, a few trains at a time. A sender's lanes share a port, so the kernel may append a small
//! express datagram to a train of another lane: the choice is made for each datagram.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use host_services::udp::{self, MARKED, Received};
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use overlay_proto::wire::DataHeader;

/// The largest UDP payload that exists; a slot holds it, be it a datagram or a train.
const SLOT: usize = 65_536;

/// How many trains, or datagrams that the kernel did not merge, wait here at most, up to 6 MiB; more
/// stay in the socket. Where it merges none, twice what a super-frame is made of, so that whole ones
/// can be: the fewer writes to a tap, the less the guest has to do.
const SLOTS: usize = 96;

/// Trains that one call reads, of a worker that has not rested.
const READ: usize = 32;

/// Bytes after which no more trains are handed out at once: what passes waits no longer than it takes to
/// open so many of each socket, a quarter of a millisecond.
const BATCH_BYTES: usize = 128 * 1024;

/// The bit for the datagrams of a train from the 64th on; the kernel merges no more than 64.
const LAST_BIT: u64 = 1 << (u64::BITS - 1);

/// What waits for one socket.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The one that became free last on top: its memory is taken first. Touched only as far as it was
    /// ever needed.
    free: Vec<Slot>,
    /// In the order they came.
    waiting: VecDeque<Slot>,
    /// Of so many slots at the front, all that passes was handed out.
    passed: usize,
    /// Slots behind them that hold anything that passes.
    express: usize,
    /// Slots that hold anything that does not pass. Without any of either kind all slots that wait were
    /// handed out, and the next reading makes them free.
    rest: usize,
    /// May there be anything in the socket that was not read?
    pub(super) is_readable: bool,
}

/// Place for a train.
#[derive(Debug)]
struct Slot {
    bytes: Box<[u8]>,
    received: Received,
    /// Which of its datagrams pass the others, the first one's bit lowest.
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

    /// Reads what there is and room for, without waiting. A worker that has `rested` reads one datagram,
    /// which mostly is the only one: the next `poll` says if not.
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

    /// One call. Is there room for more, and more may be there?
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
                    // An asynchronous error of an earlier datagram; reading has cleared it.
                    drops.count(DropReason::SocketError);
                }
                0
            });
        for received in fresh.into_iter().take(count) {
            let Some(mut slot) = self.free.pop() else {
                return false;
            };
            slot.received = received;
            slot.passing = passing(slot.train(), received.segment);
            self.express += usize::from(slot.passing != 0);
            self.rest += usize::from(slot.has_more());
            self.waiting.push_back(slot);
        }
        self.is_readable = count == asked;
        self.is_readable
    }

    /// Waits anything that passes?
    pub(super) fn has_express(&self) -> bool {
        self.express > 0
    }

    /// The trains of which some datagrams pass all others, with these datagrams.
    pub(super) fn express(&mut self, drops: &DropCounters) -> impl Iterator<Item = Train<'_>> {
        let first = std::mem::replace(&mut self.passed, self.waiting.len());
        self.express = 0;
        let slots = self.waiting.range_mut(first..);
        let slots = slots.filter(|slot| slot.passing != 0);
        slots.filter_map(|slot| {
            let passing = slot.passing;
            slot.hand_out(passing, drops)
        })
    }

    /// The next few trains, with those datagrams of them that have not passed; none as long as some
    /// may pass. What was cut off is counted.
    /// The slots count as free at once: nothing is read as long as somebody has a datagram of them.
    pub(super) fn next_batch(&mut self, drops: &DropCounters) -> impl Iterator<Item = Train<'_>> {
        let first = self.free.len();
        let mut bytes = 0;
        // A slot becomes free here: what passes has to be out of it.
        while !self.has_express() && bytes < BATCH_BYTES {
            let Some(slot) = self.waiting.pop_front() else {
                break;
            };
            if slot.has_more() {
                bytes += slot.train().len();
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

    /// Waits nothing here?
    pub(super) fn is_empty(&self) -> bool {
        self.express == 0 && self.rest == 0
    }
}

impl Slot {
    /// What came; empty when it did not fit, or came from nobody.
    fn train(&self) -> &[u8] {
        let len = self.received.from.and(self.received.len);
        let train = len.and_then(|len| self.bytes.get(..len));
        train.unwrap_or_default()
    }

    /// Is there any datagram in it that does not pass?
    fn has_more(&self) -> bool {
        self.received.datagrams() > self.passing.count_ones() as usize
    }

    /// Those of its datagrams whose bit is in `chosen`; `None`, and counted, for what did not fit.
    fn hand_out(&mut self, chosen: u64, drops: &DropCounters) -> Option<Train<'_>> {
        let received = self.received;
        let train = received.len.and_then(|len| self.bytes.get_mut(..len));
        let Some((from, rest)) = received.from.zip(train) else {
            drops.count(DropReason::MalformedDatagram);
            return None;
        };
        Some(Train {
            from,
            mark: received.mark,
            rest: Some(rest),
            segment: received.segment.unwrap_or(SLOT),
            chosen,
        })
    }
}

/// Some of the datagrams of a train, one after the other.
#[derive(Debug)]
pub(super) struct Train<'a> {
    /// The sender.
    pub(super) from: SocketAddr,
    /// TOS or traffic class of all.
    pub(super) mark: u8,
    /// The datagrams that were not looked at yet.
    rest: Option<&'a mut [u8]>,
    segment: usize,
    /// Which of them are given, the first one's bit lowest; those beyond the last bit are as the last.
    chosen: u64,
}

impl<'a> Iterator for Train<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        // An empty datagram is one, too; it is no train.
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

/// Which datagrams of a train came on express lanes.
fn passing(train: &[u8], segment: Option<usize>) -> u64 {
    let datagrams = train.chunks(segment.unwrap_or(SLOT));
    let express = (0..u64::BITS)
        .zip(datagrams)
        .filter(|(_, datagram)| is_express(datagram));
    express.fold(0, |passing, (index, _)| passing | 1 << index)
}

/// A datagram that a relay carries has its lane behind the relay's header. Nothing is authenticated
/// yet: who lies gets nothing but a turn of its own.
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

    fn numbers<'a>(trains: impl Iterator<Item = Train<'a>>) -> Vec<u64> {
        let parsed = trains.flatten();
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
        // What a relay carries passes, too.
        let relayed = |lane| {
            [
                vec![relay::KIND_RELAYED; relay::HEADER_LEN],
                data(lane, 100),
            ]
            .concat()
        };
        let train = [relayed(3), relayed(express), relayed(3)].concat();
        assert_eq!(passing(&train, Some(relayed(3).len())), 0b010);
        assert_eq!(passing(&[relay::KIND_RELAYED; 10], None), 0);
        // A train longer than there are bits, which the kernel does not make: each comes out once.
        let long = data(express, 100).repeat(100);
        let passing = passing(&long, segment);
        for (chosen, expected) in [(passing, 100), (!passing, 0)] {
            let mut bytes = long.clone();
            let train = Train {
                from: "192.0.2.1:1".parse().unwrap(),
                mark: 0,
                rest: Some(&mut bytes),
                segment: data(express, 100).len(),
                chosen,
            };
            assert_eq!(train.count(), expected);
        }
    }
}
