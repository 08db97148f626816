//! Frames that come too late: DIRECTORY.md, Moves and Frames on behalf of others.

use super::cluster::*;
use crate::directory::machine::{DirectoryAction, LateFrame, LateVerdict};
use crate::directory::messages::DirectoryMessage;
use crate::directory::tests::support::mac_key;
use crate::drop_reason::DropReason;
use crate::ethernet::EvidenceClass::Ordinary;
use crate::switching::MacKey;
use crate::wire::Forwarded;

/// Nodes 0 to 3. The sender is behind node 0; the destination went from node 1 to node 2.
fn moved() -> (Cluster, MacKey) {
    let mut cluster = Cluster::new(4, true);
    let dst = mac_key(1);
    cluster.frame(1, dst, Ordinary);
    cluster.run_ms(100);
    cluster.move_to(2, dst);
    cluster.run_ms(100);
    assert!(cluster.all_see(dst, Some(2)));
    (cluster, dst)
}

/// A frame of node 0's guest as it comes to the old host.
fn plain(dst: MacKey) -> LateFrame {
    LateFrame {
        dst,
        from: peer(0),
        origin: peer(0),
        hops: 0,
        mark: None,
    }
}

/// The frame as `from` passes it on.
fn passed_on(verdict: LateVerdict, from: usize, frame: LateFrame) -> (LateFrame, usize) {
    let LateVerdict::Forward { to, hops, mark } = verdict else {
        panic!("{verdict:?}");
    };
    let to = (0..4).find(|node| peer(*node) == to).unwrap();
    let frame = LateFrame {
        from: peer(from),
        hops,
        mark: Some(mark),
        ..frame
    };
    (frame, to)
}

impl Cluster {
    fn late(&mut self, node: usize, frame: LateFrame) -> LateVerdict {
        self.nodes[node].late_frame(self.now, &frame)
    }
}

#[test]
fn moves_the_old_host_passes_late_frames_on_for_ten_seconds() {
    let (mut cluster, dst) = moved();
    let verdict = cluster.late(1, plain(dst));
    let (frame, to) = passed_on(verdict, 1, plain(dst));
    assert_eq!((to, frame.hops), (2, 1));
    assert_eq!(cluster.late(2, frame), LateVerdict::Deliver);
    // Who never had the MAC passes nothing on.
    assert_eq!(
        cluster.late(3, plain(dst)),
        LateVerdict::Drop(DropReason::UnknownMac)
    );
    cluster.run_ms(10_000);
    assert_eq!(
        cluster.late(1, plain(dst)),
        LateVerdict::Drop(DropReason::UnknownMac)
    );
    assert_eq!(
        cluster.late(2, frame),
        LateVerdict::Drop(DropReason::SourceNotClaimed)
    );
}

#[test]
fn moves_the_sender_of_a_late_frame_gets_the_newest_claim() {
    let (mut cluster, dst) = moved();
    let told = |cluster: &mut Cluster| {
        let mut told = 0;
        while let Some(action) = cluster.nodes[1].poll_action() {
            if let DirectoryAction::Send { to, message } = action {
                assert_eq!(to, peer(0));
                assert!(matches!(message, DirectoryMessage::Claims(claims) if claims.len() == 1));
                told += 1;
            }
        }
        told
    };
    for _ in 0..20 {
        cluster.late(1, plain(dst));
    }
    assert_eq!(told(&mut cluster), 1, "not once for each frame");
    cluster.run_ms(100);
    cluster.late(1, plain(dst));
    assert_eq!(told(&mut cluster), 1);
}

#[test]
fn moves_a_frame_is_passed_on_twice_at_most_and_by_ever_newer_claims() {
    let (mut cluster, dst) = moved();
    let (first, _) = {
        let verdict = cluster.late(1, plain(dst));
        passed_on(verdict, 1, plain(dst))
    };
    cluster.move_to(3, dst);
    cluster.run_ms(100);
    let verdict = cluster.late(2, first);
    let (second, to) = passed_on(verdict, 2, first);
    assert_eq!((to, second.hops), (3, 2));
    let generation = |frame: LateFrame| frame.mark.unwrap().generation;
    assert!(generation(second) > generation(first));
    assert_eq!(cluster.late(3, second), LateVerdict::Deliver);

    let tired = LateFrame { hops: 2, ..first };
    let too_many = LateVerdict::Drop(DropReason::TooManyHops);
    assert_eq!(cluster.late(2, tired), too_many);
    assert_eq!(cluster.late(3, LateFrame { hops: 3, ..second }), too_many);
    assert_eq!(cluster.late(3, LateFrame { hops: 0, ..second }), too_many);
    // It knows the newest claim already: this one is not newer.
    let mark = first.mark.map(|mark| Forwarded {
        generation: generation(second),
        ..mark
    });
    assert_eq!(
        cluster.late(2, LateFrame { mark, ..first }),
        LateVerdict::Drop(DropReason::UnknownMac)
    );
}

#[test]
fn on_behalf_of_others_late_frames_are_taken_only_from_the_direct_predecessor() {
    let (mut cluster, dst) = moved();
    let verdict = cluster.late(1, plain(dst));
    let (frame, _) = passed_on(verdict, 1, plain(dst));
    let refused = LateVerdict::Drop(DropReason::SourceNotClaimed);
    for liar in [0, 3] {
        let from = peer(liar);
        assert_eq!(cluster.late(2, LateFrame { from, ..frame }), refused);
    }
    // The source must be what the predecessor saw it to be.
    let origin = peer(3);
    assert_eq!(cluster.late(2, LateFrame { origin, ..frame }), refused);
    // Nor where the MAC is not at all.
    assert_eq!(cluster.late(3, frame), refused);
    assert_eq!(cluster.late(1, frame), refused);
}

#[test]
fn moves_a_mac_that_is_back_is_passed_on_no_more() {
    let (mut cluster, dst) = moved();
    // Past the hold-down of a stale source.
    cluster.run_ms(3_100);
    cluster.move_to(1, dst);
    cluster.run_ms(100);
    assert!(cluster.all_see(dst, Some(1)));
    let verdict = cluster.late(1, plain(dst));
    assert_eq!(verdict, LateVerdict::Drop(DropReason::UnknownMac));
    let back = cluster.late(2, plain(dst));
    let (frame, to) = passed_on(back, 2, plain(dst));
    assert_eq!(to, 1);
    assert_eq!(cluster.late(1, frame), LateVerdict::Deliver);
}
