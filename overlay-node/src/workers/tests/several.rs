//! Several workers at each end: the worker of its lane decrypts a datagram, and each lane keeps its
//! order.

use super::*;

/// Two nodes with a direct path, one with `a` workers and one with `b`.
fn joined(a: usize, b: usize) -> (Node, Node) {
    let local = "127.0.0.1:0";
    let initiator = session(2, 10, 20, Role::Initiator);
    let responder = session(1, 20, 10, Role::Responder);
    let a = Node::start_with(local, MAC_A, MAC_B, initiator, a);
    let b = Node::start_with(local, MAC_B, MAC_A, responder, b);
    a.change(|fib| fib.peers[0].path = Some(Path::direct(b.addr)));
    b.change(|fib| fib.peers[0].path = Some(Path::direct(a.addr)));
    (a, b)
}

impl Node {
    fn queues(&mut self) -> Vec<&mut MemoryTap> {
        let others = self.other_queues.iter_mut();
        std::iter::once(&mut self.guest).chain(others).collect()
    }
}

/// Frame number `number` of queue `queue`, in one datagram or in several fragments.
fn numbered(dst: MacAddr, src: MacAddr, queue: usize, number: u16) -> Vec<u8> {
    let len = [60, 700, 1514, 4000][usize::from(number) % 4];
    let mut bytes = frame(dst, src, len);
    bytes[20] = u8::try_from(queue).unwrap();
    bytes[21..23].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends from all queues of one node at the same time. Each queue of the other node must get the frames
/// of its lanes, unchanged and in order.
fn cross(from: &mut Node, to: &mut Node, (dst, src): (MacAddr, MacAddr)) {
    const FRAMES: u16 = 400;
    // As many as fit into the receiver's buffers while nobody reads.
    const AT_ONCE: u16 = 8;
    let workers = to.queues().len();
    let senders = from.queues().len();
    let mut next = vec![0_u16; senders];
    let mut batch = FrameBatch::default();
    for start in (0..FRAMES).step_by(usize::from(AT_ONCE)) {
        let mut waiting = 0;
        for number in start..start + AT_ONCE {
            for (queue, tap) in from.queues().into_iter().enumerate() {
                let bytes = numbered(dst, src, queue, number);
                assert_eq!(tap.write_batch(&[TxFrame::plain(&bytes)]).written, 1);
                waiting += 1;
            }
        }
        eventually("all frames", || {
            for (worker, tap) in to.queues().into_iter().enumerate() {
                while tap.read_batch(&mut batch).unwrap() > 0 {
                    for got in batch.frames() {
                        let queue = usize::from(got.bytes[20]);
                        assert_eq!(queue % workers, worker, "not the worker of its lane");
                        let whole = got.bytes == numbered(dst, src, queue, next[queue]);
                        assert!(whole, "not frame {} of queue {queue}", next[queue]);
                        next[queue] += 1;
                        waiting -= 1;
                    }
                }
            }
            (waiting == 0).then_some(())
        });
    }
    assert!(next.iter().all(|count| *count == FRAMES), "{next:?}");
}

#[test]
fn any_number_of_workers_understands_any_other() {
    for (a, b) in [(1, 2), (2, 2), (4, 1), (3, 7), (7, 2)] {
        let (mut a, mut b) = joined(a, b);
        cross(&mut a, &mut b, (MAC_B, MAC_A));
        cross(&mut b, &mut a, (MAC_A, MAC_B));
        a.no_drops();
        b.no_drops();
    }
}

/// A datagram comes to a worker other than that of its lane: at the start, over a relay, or because the
/// kernel does not steer. Two workers then decrypt packets of one lane, and each packet must still count
/// only once.
#[test]
fn two_workers_may_open_packets_of_one_lane() {
    let (a, b) = (
        session(2, 10, 20, Role::Initiator),
        session(1, 20, 10, Role::Responder),
    );
    let packets: Vec<Vec<u8>> = (0..2_000)
        .map(|_| {
            let mut out = vec![0; 100];
            let len = a.seal_into(Lane(3), b"inner", b"body", &mut out).unwrap();
            out.truncate(len);
            out
        })
        .collect();
    let opened = |first: usize| {
        let open = |packet: &Vec<u8>| {
            let mut packet = packet.clone();
            let header = DataHeader::parse(&packet).unwrap();
            b.open_in_place(&header, &mut packet).is_ok()
        };
        // From both ends, so that the two directions meet.
        let (head, tail) = packets.split_at(first);
        tail.iter()
            .chain(head)
            .filter(|packet| open(packet))
            .count()
    };
    let counts = std::thread::scope(|scope| {
        let threads = [0, 1, 700].map(|first| scope.spawn(move || opened(first)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(counts.iter().sum::<usize>(), packets.len(), "{counts:?}");
}
