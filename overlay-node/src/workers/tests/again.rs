//! A datagram that was delivered once comes again, unchanged or mutated. The receiving half of a worker,
//! and the path agent behind it, must ignore it.

use nat_traversal::agent::{PathAgent, PathEvent, ProbeBudget};
use nat_traversal::candidate::CandidateFilter;
use nat_traversal::entropy::{Entropy, SeededEntropy};
use overlay_proto::wire::{L4Checksum, PieceBudget};

use node_core::punt::charges::Charges;

use super::*;
use crate::workers::PuntSender;
use crate::workers::delivery::{Delivery, Taps};
use crate::workers::incoming::Incoming;
use crate::workers::punt::Context;
use crate::workers::readahead::Tap;
use tap_bridge::offload::Marks;

/// Mutated datagrams of each kind.
const ROUNDS: usize = 10_000;

/// A node that receives, without threads and sockets.
struct Receiver {
    fib: Fib,
    drops: DropCounters,
    sender: PuntSender,
    charges: Charges,
    punts: Punted,
    incoming: Incoming,
    taps: Taps,
    guest: MemoryTap,
    agent: PathAgent,
    peer: Session,
    now: Instant,
}

/// What one datagram caused.
#[derive(Debug, PartialEq, Eq)]
struct Effect {
    delivered: usize,
    dropped: u64,
    /// It was handed on as something other than data. The slow path drops it and counts the drop.
    foreign: usize,
}

const NOTHING_BUT_A_COUNTER: Effect = Effect {
    delivered: 0,
    dropped: 1,
    foreign: 0,
};
const DELIVERED: Effect = Effect {
    delivered: 1,
    dropped: 0,
    foreign: 0,
};

fn home() -> Path {
    Path::direct("198.51.100.1:22611".parse().unwrap())
}

impl Receiver {
    /// There is a session, and its path is [`home`].
    fn new() -> Self {
        let now = Instant::now();
        let own = Arc::new(session(1, 20, 10, Role::Responder));
        let (guest, tap) = MemoryTap::pair().unwrap();
        let (mut senders, punts) = handoff(1, Arc::default());
        let mut agent = PathAgent::new(now, CandidateFilter::default(), false);
        agent.handle_established(now, home(), 0);
        while agent.poll_event().is_some() {}
        Self {
            fib: fib(MAC_B, MAC_A, &own),
            drops: DropCounters::default(),
            sender: senders.remove(0),
            charges: Charges::new(1),
            punts,
            incoming: Incoming::new(PieceBudget::default(), 1),
            taps: Taps(vec![Tap::new(NET, Box::new(tap))]),
            guest,
            agent,
            peer: session(2, 10, 20, Role::Initiator),
            now,
        }
    }

    /// A frame as the peer seals it.
    fn sealed(&self, len: usize) -> Vec<u8> {
        self.sealed_as(&InnerHeader::frame(Selector(20)), len)
    }

    fn sealed_as(&self, header: &InnerHeader, len: usize) -> Vec<u8> {
        let mut inner = [0; InnerHeader::MAX_LEN];
        let inner_len = header.write(&mut inner);
        let mut out = vec![0; 2_000];
        let frame = frame(MAC_B, MAC_A, len);
        let len = self
            .peer
            .seal_into(Lane(1), &inner[..inner_len], &frame, &mut out)
            .unwrap();
        out.truncate(len);
        out
    }

    fn receive(&mut self, from: Path, datagram: &[u8]) -> Effect {
        let before: u64 = self.drops.occurred().map(|(_, count)| count).sum();
        let context = Context {
            fib: &self.fib,
            drops: &self.drops,
            punts: &self.sender,
            charges: &self.charges,
            me: PeerId([2; 32]),
            now: self.now,
            now_ms: 0,
        };
        let mut bytes = datagram.to_vec();
        let mut delivery = Delivery::new(context, &mut self.taps, Marks::default());
        self.incoming
            .handle_datagram(&mut delivery, from, &mut bytes);
        delivery.flush();
        let mut foreign = 0;
        while let Some(punt) = self.punts.take_one() {
            match punt {
                // The driver does the same.
                Punt::Opened { path, .. } => self.agent.handle_traffic(self.now, path),
                Punt::Datagram { .. } => foreign += 1,
                // The stray has another session index. The driver acts on it only for peers without a
                // session.
                Punt::Stray { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let after: u64 = self.drops.occurred().map(|(_, count)| count).sum();
        Effect {
            delivered: self.guest.read_batch(&mut FrameBatch::default()).unwrap(),
            dropped: after - before,
            foreign,
        }
    }

    /// Nothing was said about another path.
    fn assert_unmoved(&mut self) {
        assert_eq!(self.agent.chosen(), Some(home()));
        let event = self.agent.poll_event();
        assert!(
            !matches!(event, Some(PathEvent::Chosen { .. })),
            "{event:?}"
        );
    }
}

/// A receiver, and datagrams that were delivered to it.
fn after_traffic() -> (Receiver, Vec<Vec<u8>>) {
    let mut receiver = Receiver::new();
    let delivered: Vec<_> = (0..500).map(|n| receiver.sealed(60 + n)).collect();
    for datagram in &delivered {
        assert_eq!(receiver.receive(home(), datagram), DELIVERED);
    }
    (receiver, delivered)
}

/// Sends [`ROUNDS`] copies. `change` changes each copy, and returns the address it comes from.
fn again(change: impl Fn(&mut Vec<u8>, &mut SeededEntropy) -> Path) {
    let (mut receiver, delivered) = after_traffic();
    let mut chance = SeededEntropy::new(4);
    for round in 0..ROUNDS {
        let mut datagram = delivered[chance.next_u32() as usize % delivered.len()].clone();
        let from = change(&mut datagram, &mut chance);
        let effect = receiver.receive(from, &datagram);
        let silent = effect.delivered == 0 && effect.dropped + effect.foreign as u64 == 1;
        assert!(silent, "round {round}: {effect:?}");
        receiver.assert_unmoved();
    }
    // A new datagram still arrives.
    let fresh = receiver.sealed(100);
    assert_eq!(receiver.receive(home(), &fresh), DELIVERED);
}

#[test]
fn trust_12_sent_again_as_it_was_and_out_of_order() {
    again(|_, _| home());
}

#[test]
fn trust_12_sent_again_truncated() {
    again(|datagram, chance| {
        datagram.truncate(chance.next_u32() as usize % datagram.len());
        home()
    });
}

#[test]
fn trust_12_sent_again_with_a_flipped_bit() {
    again(|datagram, chance| {
        let bit = chance.next_u32() as usize % (datagram.len() * 8);
        datagram[bit / 8] ^= 1 << (bit % 8);
        home()
    });
}

#[test]
fn trust_12_sent_again_from_another_address() {
    again(|_, chance| {
        let [a, b, c, d] = chance.next_u32().to_be_bytes();
        Path::direct(SocketAddr::from((
            [203, 0, 113, a],
            u16::from_be_bytes([b, c]) | u16::from(d) | 1,
        )))
    });
}

#[test]
fn a_fresh_datagram_from_elsewhere_is_delivered_once_and_moves_no_path() {
    let (mut receiver, _) = after_traffic();
    let (mut budget, mut entropy) = (ProbeBudget::default(), SeededEntropy::new(6));
    while receiver
        .agent
        .poll_transmit(receiver.now, &mut budget, &mut entropy)
        .is_some()
    {}
    let elsewhere = Path::direct("203.0.113.66:9".parse().unwrap());
    for _ in 0..100 {
        let fresh = receiver.sealed(100);
        assert_eq!(receiver.receive(elsewhere, &fresh), DELIVERED);
        receiver.assert_unmoved();
        for from in [elsewhere, home()] {
            assert_eq!(receiver.receive(from, &fresh), NOTHING_BUT_A_COUNTER);
        }
    }
    // The new address is challenged with a sealed probe. The path does not move until it answers.
    let asked = receiver
        .agent
        .poll_transmit(receiver.now, &mut budget, &mut entropy);
    assert!(asked.is_some_and(|probe| probe.path == elsewhere));
    receiver.assert_unmoved();
}

#[test]
fn trust_13_an_index_proves_nothing() {
    let (mut receiver, _) = after_traffic();
    // Another session, even one with the same keys.
    let other = FibSession {
        session: Arc::new(session(1, 21, 10, Role::Responder)),
        peer: PeerSlot(0),
    };
    receiver.fib.sessions.insert(SessionIndex(21), other);
    let mut datagram = receiver.sealed(100);
    datagram[7] = 21;
    let effect = receiver.receive(home(), &datagram);
    assert_eq!(effect, NOTHING_BUT_A_COUNTER);
    assert_eq!(receiver.drops.get(DropReason::BadTag), 1);
    receiver.assert_unmoved();
}

#[test]
fn trust_16_a_partial_checksum_is_refused_where_there_is_none() {
    let mut receiver = Receiver::new();
    let mut header = InnerHeader::frame(Selector(20));
    header.checksum = L4Checksum::Partial;
    let datagram = receiver.sealed_as(&header, 100);
    let effect = receiver.receive(home(), &datagram);
    assert_eq!(effect, NOTHING_BUT_A_COUNTER);
    assert_eq!(receiver.drops.get(DropReason::MalformedFrame), 1);
}
