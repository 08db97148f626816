//! What workers do when the slow path does not keep up, and what they never hand to it.

use std::io;
use std::os::fd::RawFd;

use overlay_proto::wire::sizes;
use tap_bridge::{Offload, WriteReport};

use super::*;

/// A tap whose device is gone: `poll` says that it can be read, and the read fails.
struct Gone(MemoryTap);

impl FrameQueue for Gone {
    fn read_more(&mut self, _: &mut FrameBatch, _: usize) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn write_batch(&mut self, frames: &[TxFrame<'_>]) -> WriteReport {
        self.0.write_batch(frames)
    }

    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn offload(&self) -> Offload {
        self.0.offload()
    }
}

/// Fills the queue to the slow path.
fn fill(node: &mut Node) {
    for _ in 0..100 {
        node.says(&frame(STRANGER, MAC_A, 60));
    }
    node.counted(DropReason::PuntOverflow);
}

#[test]
fn a_full_queue_to_the_slow_path_is_counted() {
    let (mut a, _b) = two_joined("127.0.0.1:0");
    fill(&mut a);
    assert!(matches!(a.punted(), Punt::LocalFrame { .. }));
}

#[test]
fn a_lost_tap_is_told_once_there_is_room() {
    let (mut a, _b) = two_joined("127.0.0.1:0");
    fill(&mut a);
    let (mut guest, tap) = MemoryTap::pair().unwrap();
    guest.write_batch(&[TxFrame::plain(&frame(STRANGER, MAC_A, 60))]);
    let refused = a.drops.get(DropReason::PuntOverflow);
    a.pool.set_taps(0, vec![(NET, Box::new(Gone(tap)))]);
    eventually("some tries", || {
        (a.drops.get(DropReason::PuntOverflow) > refused + 3).then_some(())
    });
    let mut frames = 0;
    let lost = eventually("the word of the lost tap", || match a.punts.try_recv() {
        Ok(Punt::LocalFrame { .. }) => {
            frames += 1;
            None
        }
        other => other.ok(),
    });
    assert!(matches!(lost, Punt::TapLost { net } if net == NET));
    assert!(frames > 0, "the queue was full");
    std::thread::sleep(Duration::from_millis(30));
    while let Ok(punt) = a.punts.try_recv() {
        assert!(matches!(punt, Punt::LocalFrame { .. }), "told once");
    }
}

#[test]
fn nothing_longer_than_what_is_sent_goes_to_the_slow_path() {
    let (a, mut b) = two("127.0.0.1:0");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let longest = sizes::MAX_UDP_PAYLOAD;
    sender.send_to(&vec![1; longest + 1], b.addr).unwrap();
    b.counted(DropReason::MalformedDatagram);
    sender.send_to(&vec![1; longest], b.addr).unwrap();
    assert!(matches!(b.punted(), Punt::Datagram { bytes, .. } if bytes.len() == longest));
    // Sealed control messages from a member, with bytes that no honest node sends.
    let mut inner = [0; InnerHeader::MAX_LEN];
    let len = InnerHeader::plain(InnerKind::Control).write(&mut inner);
    let refused = b.drops.get(DropReason::MalformedDatagram);
    let mut is_known = false;
    for (body, fits) in [(longest + 1, false), (1_000, true)] {
        let mut sealed = vec![0; body + 200];
        let body = vec![0; body];
        let len = a
            .session
            .seal_into(Lane(0), &inner[..len], &body, &mut sealed)
            .unwrap();
        sender.send_to(&sealed[..len], b.addr).unwrap();
        if !std::mem::replace(&mut is_known, true) {
            assert!(matches!(b.punted(), Punt::Opened { .. }));
        }
        if fits {
            assert!(matches!(b.punted(), Punt::Inner { body: got, .. } if *got == *body));
        } else {
            eventually("the refusal", || {
                (b.drops.get(DropReason::MalformedDatagram) > refused).then_some(())
            });
        }
    }
    a.sender.send_to(b.addr, &[1, 2, 3]).unwrap();
    assert!(matches!(b.punted(), Punt::Datagram { .. }));
}
