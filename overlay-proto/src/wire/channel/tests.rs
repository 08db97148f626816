use super::*;
use crate::{Entropy, SeededEntropy};
use proptest::prelude::*;

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn drain(channel: &mut ReliableChannel, now: Instant) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| channel.poll_transmit(now)).collect()
}

/// Two channels and a network between them that loses, doubles, delays and reorders.
struct Pair {
    now: Instant,
    ends: [ReliableChannel; 2],
    received: [Vec<Vec<u8>>; 2],
    /// (arrival, to which end, packet)
    wire: Vec<(Instant, usize, Vec<u8>)>,
    chance: SeededEntropy,
    loss_percent: u32,
}

impl Pair {
    fn new(seed: u64, loss_percent: u32) -> Self {
        Self {
            now: start(),
            ends: [ReliableChannel::new(11), ReliableChannel::new(22)],
            received: [Vec::new(), Vec::new()],
            wire: Vec::new(),
            chance: SeededEntropy::new(seed),
            loss_percent,
        }
    }

    fn percent(&mut self) -> u32 {
        self.chance.next_u32() % 100
    }

    fn transmit(&mut self) {
        for from in 0..2 {
            for packet in drain(&mut self.ends[from], self.now) {
                assert!(packet.len() <= PACKET_LIMIT);
                let copies = if self.percent() < 20 { 2 } else { 1 };
                for _ in 0..copies {
                    if self.percent() >= self.loss_percent {
                        let delay = Duration::from_millis(u64::from(self.percent()) * 3);
                        self.wire.push((self.now + delay, 1 - from, packet.clone()));
                    }
                }
            }
        }
    }

    /// Runs until nothing is left to do.
    fn run(&mut self) {
        loop {
            self.transmit();
            let arrival = self.wire.iter().map(|(at, ..)| *at).min();
            let timeouts = self.ends.iter().filter_map(ReliableChannel::poll_timeout);
            let Some(next) = timeouts.chain(arrival).min() else {
                return;
            };
            self.now = self.now.max(next);
            let (here, later) = std::mem::take(&mut self.wire)
                .into_iter()
                .partition(|(at, ..)| *at <= self.now);
            self.wire = later;
            for (_, to, packet) in here {
                let message = self.ends[to].handle_packet(self.now, &packet).unwrap();
                self.received[to].extend(message);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// At 15 % a message is lost ten times in a row once in 2 * 10^8.
    #[test]
    fn every_message_arrives_once(seed in any::<u64>(), loss in 0u32..=15, count in 1u16..150) {
        let mut pair = Pair::new(seed, loss);
        let messages: Vec<_> = (0..count).map(|n| n.to_be_bytes().to_vec()).collect();
        for message in &messages {
            for end in &mut pair.ends {
                end.send(pair.now, message.clone()).unwrap();
            }
        }
        pair.run();
        for received in &mut pair.received {
            received.sort();
            prop_assert_eq!(&*received, &messages);
        }
        prop_assert!(pair.ends.iter().all(|end| end.pending() == 0));
    }

    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..30),
    ) {
        let now = start();
        let mut channel = ReliableChannel::new(1);
        channel.send(now, vec![1]).unwrap();
        for packet in packets {
            let _ = channel.handle_packet(now, &packet);
            let _ = channel.poll_transmit(now);
        }
    }
}

#[test]
fn a_clean_network_repeats_nothing() {
    let mut pair = Pair::new(1, 0);
    pair.ends[0].send(pair.now, b"claim".to_vec()).unwrap();
    let (now, mut packets) = (pair.now, drain(&mut pair.ends[0], pair.now));
    let message = pair.ends[1].handle_packet(now, &packets[0]).unwrap();
    assert_eq!(message.as_deref(), Some(&b"claim"[..]));
    packets = drain(&mut pair.ends[1], now);
    assert_eq!(packets.len(), 1);
    assert_eq!(pair.ends[0].handle_packet(now, &packets[0]), Ok(None));
    for end in &mut pair.ends {
        assert_eq!((end.pending(), end.poll_timeout()), (0, None));
        assert!(
            drain(end, now).is_empty(),
            "acknowledgements are not acknowledged"
        );
    }
}

#[test]
fn gives_up_after_ten_tries() {
    let (begin, mut channel) = (start(), ReliableChannel::new(1));
    channel.send(begin, b"lost".to_vec()).unwrap();
    let (mut now, mut sent) = (begin, 0);
    loop {
        sent += drain(&mut channel, now).len();
        match channel.poll_timeout() {
            Some(due) => now = due,
            None => break,
        }
    }
    assert_eq!(sent, 10);
    assert_eq!(now - begin, Duration::from_secs(21));
    assert_eq!(channel.poll_failed().as_deref(), Some(&b"lost"[..]));
    assert_eq!((channel.poll_failed(), channel.failed_total()), (None, 1));
}

#[test]
fn limits() {
    let (now, mut channel) = (start(), ReliableChannel::new(1));
    for wrong in [vec![], vec![0; MAX_MESSAGE + 1]] {
        assert_eq!(channel.send(now, wrong), Err(DropReason::ControlMalformed));
    }
    for _ in 0..256 {
        channel.send(now, vec![0; MAX_MESSAGE]).unwrap();
    }
    assert_eq!(channel.send(now, vec![0]), Err(DropReason::ControlOverflow));
    assert_eq!(drain(&mut channel, now).len(), INITIAL_WINDOW);
    assert!(channel.in_flight.len() <= channel.config.max_in_flight);
}

#[test]
fn the_window_opens_with_acknowledgements_and_closes_with_loss() {
    let (now, mut a, mut b) = (start(), ReliableChannel::new(1), ReliableChannel::new(2));
    for n in 0..100 {
        a.send(now, vec![n]).unwrap();
    }
    while a.pending() > 0 {
        for packet in drain(&mut a, now) {
            assert!(b.handle_packet(now, &packet).unwrap().is_some());
        }
        for packet in drain(&mut b, now) {
            assert_eq!(a.handle_packet(now, &packet), Ok(None));
        }
    }
    assert_eq!(a.window, 32);
    for n in 0..200 {
        a.send(now, vec![n]).unwrap();
    }
    assert_eq!(drain(&mut a, now).len(), 32);
    let later = a.poll_timeout().unwrap();
    assert_eq!(drain(&mut a, later).len(), 32, "only repeats");
    assert_eq!(a.window, MIN_WINDOW);
}

#[test]
fn a_slow_path_is_measured_and_not_flooded() {
    let (mut now, mut a, mut b) = (start(), ReliableChannel::new(1), ReliableChannel::new(2));
    let rtt = Duration::from_millis(700);
    let mut copies = 0;
    for n in 0..20 {
        a.send(now, vec![n]).unwrap();
        let acked = now + rtt;
        copies = 0;
        while now < acked {
            for packet in drain(&mut a, now) {
                copies += 1;
                b.handle_packet(now, &packet).unwrap();
            }
            now = a.poll_timeout().unwrap().min(acked);
        }
        for packet in drain(&mut b, now) {
            a.handle_packet(now, &packet).unwrap();
        }
    }
    assert_eq!(copies, 1, "once the path is known, nothing is repeated");
}

#[test]
fn an_unlucky_message_stays_within_the_peers_window() {
    let (now, mut a, mut b) = (start(), ReliableChannel::new(1), ReliableChannel::new(2));
    let mut unlucky = None;
    for _ in 0..3000 {
        let _ = a.send(now, vec![7]);
        for packet in drain(&mut a, now) {
            if unlucky.is_none() {
                unlucky = Some(packet);
                continue;
            }
            assert!(b.handle_packet(now, &packet).unwrap().is_some());
        }
        for packet in drain(&mut b, now) {
            assert_eq!(a.handle_packet(now, &packet), Ok(None));
        }
    }
    assert_eq!(a.next_sequence, 1 + WINDOW);
    let late = b.handle_packet(now, &unlucky.unwrap()).unwrap();
    assert!(late.is_some(), "the oldest in flight is still told apart");
}

#[test]
fn a_restarted_peer_is_heard_and_late_packets_of_the_old_one_are_not() {
    let (now, mut a) = (start(), ReliableChannel::new(1));
    let packet_of = |id: u32, message: &[u8]| {
        let mut peer = ReliableChannel::new(id);
        peer.send(now, message.to_vec()).unwrap();
        peer.poll_transmit(now).unwrap()
    };
    let (before, after) = (packet_of(2, b"before"), packet_of(3, b"after"));
    assert!(a.handle_packet(now, &before).unwrap().is_some());
    assert_eq!(a.peer_channel(), Some(2));
    assert!(a.handle_packet(now, &after).unwrap().is_some());
    assert_eq!(a.peer_channel(), Some(3));
    assert_eq!(a.handle_packet(now, &before), Ok(None));
    assert_eq!(a.handle_packet(now, &after), Ok(None));
}

#[test]
fn acknowledgements_of_another_channel_do_not_count() {
    let (now, mut a) = (start(), ReliableChannel::new(1));
    a.send(now, b"x".to_vec()).unwrap();
    a.poll_transmit(now).unwrap();
    let foreign = packet::write(2, 99, [1].into_iter(), None);
    assert_eq!(a.handle_packet(now, &foreign), Ok(None));
    assert_eq!(a.pending(), 1);
    let own = packet::write(2, 1, [1].into_iter(), None);
    assert_eq!(a.handle_packet(now, &own), Ok(None));
    assert_eq!(a.pending(), 0);
}

/// Two machines with one identity take turns at a peer: to it, each is the other's next run.
#[test]
fn a_channel_that_a_peer_has_retired_begins_anew_with_a_session() {
    let now = start();
    let (mut original, mut copy) = (ReliableChannel::new(1), ReliableChannel::new(2));
    let mut peer = ReliableChannel::new(3);
    let pass = |from: &mut ReliableChannel, peer: &mut ReliableChannel| -> Vec<Vec<u8>> {
        let packets = drain(from, now);
        let taken = packets
            .iter()
            .map(|packet| peer.handle_packet(now, packet).unwrap());
        let taken: Vec<_> = taken.flatten().collect();
        for packet in drain(peer, now) {
            from.handle_packet(now, &packet).unwrap();
        }
        taken
    };
    original.send(now, b"here".to_vec()).unwrap();
    assert_eq!(pass(&mut original, &mut peer).len(), 1);
    for turn in 0..20_u32 {
        copy.renew(100 + turn);
        copy.send(now, b"copy".to_vec()).unwrap();
        assert_eq!(pass(&mut copy, &mut peer), [b"copy".to_vec()]);
        // Sent while the peer listens to the copy, it is ignored; the next session brings it.
        original.send(now, b"here".to_vec()).unwrap();
        assert!(pass(&mut original, &mut peer).is_empty());
        original.renew(200 + turn);
        assert_eq!(pass(&mut original, &mut peer), [b"here".to_vec()]);
        assert_eq!((original.pending(), copy.pending()), (0, 0));
    }
}

#[test]
fn what_waited_for_an_acknowledgement_comes_first_and_in_order_after_a_renewal() {
    let now = start();
    let (mut channel, mut peer) = (ReliableChannel::new(1), ReliableChannel::new(2));
    let messages: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n]).collect();
    for message in &messages {
        channel.send(now, message.clone()).unwrap();
    }
    let lost = drain(&mut channel, now);
    assert!(!lost.is_empty());
    channel.renew(7);
    assert_eq!(channel.pending(), messages.len());
    let mut taken = Vec::new();
    while channel.pending() > 0 {
        for packet in drain(&mut channel, now) {
            taken.extend(peer.handle_packet(now, &packet).unwrap());
        }
        for packet in drain(&mut peer, now) {
            channel.handle_packet(now, &packet).unwrap();
        }
    }
    assert_eq!(taken, messages);
}
