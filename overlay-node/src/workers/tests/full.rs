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

#[test]
fn what_a_guest_floods_is_charged_and_other_classes_have_their_room() {
    let (mut a, b) = two_joined("127.0.0.1:0");
    for _ in 0..400 {
        a.says(&frame(STRANGER, MAC_A, 60));
    }
    a.counted(DropReason::PuntLimit);
    assert_eq!(a.drops.get(DropReason::PuntOverflow), 0);
    // A datagram comes by a class of its own, behind four frames at most.
    b.sender.send_to(a.addr, &[1, 2, 3]).unwrap();
    let mut frames = 0;
    eventually("the datagram", || {
        while let Some(punt) = a.punts.take_one() {
            match punt {
                Punt::Datagram { .. } => return Some(()),
                Punt::LocalFrame { .. } => frames += 1,
                other => panic!("{other:?}"),
            }
        }
        None
    });
    assert!(frames > 0);
}

/// Fills the channel of the slow path's own affairs.
fn fill(node: &mut Node) {
    for n in 0..100_u8 {
        let mut payload = [0; 46];
        payload[..4].copy_from_slice(b"FLsb");
        payload[4] = n;
        let beacon = MacAddr::BROADCAST;
        node.says(&build_frame(
            beacon,
            MAC_A,
            VlanId::UNTAGGED,
            0x88b6,
            &payload,
        ));
    }
    node.counted(DropReason::PuntOverflow);
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
    let mut beacons = 0;
    let lost = eventually("the word of the lost tap", || match a.punts.take_one() {
        Some(Punt::Beacon { .. }) => {
            beacons += 1;
            None
        }
        other => other,
    });
    assert!(matches!(lost, Punt::TapLost { net } if net == NET));
    assert!(beacons > 0, "the channel was full");
    std::thread::sleep(Duration::from_millis(30));
    while let Some(punt) = a.punts.take_one() {
        assert!(matches!(punt, Punt::Beacon { .. }), "told once");
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
