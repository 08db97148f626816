//! Recognizes sparse flows: flows that send so little that their frames may overtake others. Examples
//! are pings, keystrokes, DNS queries, and the first packets of a connection.
//!
//! The idea is from the sparse-flow queue of `FQ-CoDel` (RFC 8290, 4.2). Frames of sparse flows overtake
//! the waiting frames at the sender and, on an express lane of their own, at the receiver. A frame must
//! never overtake an earlier frame of its own flow. Therefore a flow that has sent more becomes sparse
//! again only after [`REST_MS`] of silence, which is longer than any frame waits.

use tap_bridge::VnetHdr;

use super::flow::flow_hash;

/// The silence after which a busy flow counts as sparse again, ms. What waits here, in the sockets and
/// at the receiver is at most about 18 MiB; a processor that handles 36 MB/s clears that in this time.
pub(super) const REST_MS: u64 = 500;

/// Frames of a flow within [`WINDOW_MS`] that are still few.
const FEW: u8 = 8;

/// The length of the window for [`FEW`], ms.
const WINDOW_MS: u64 = 10;

/// Slots of the table, a power of two. Two flows with the same slot count as one. That can make both
/// lose their priority, but never their order.
const PLACES: usize = 1024;

/// The flows that this worker has sent frames of. 24 KiB.
#[derive(Debug)]
pub(super) struct SparseFlows(Box<[Flow]>);

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// The flow is not sparse before this time.
    rests_until_ms: u64,
    /// The window of the latest frame, and the number of frames in it.
    window: u64,
    frames: u8,
}

impl SparseFlows {
    pub(super) fn new() -> Self {
        Self(vec![Flow::default(); PLACES].into_boxed_slice())
    }

    /// May this frame, read at `now_ms`, overtake others? Must be called once for each frame, in the
    /// order in which the frames came. With `none_passes` no frame may, and its flow counts as busy.
    pub(super) fn admit(
        &mut self,
        now_ms: u64,
        none_passes: bool,
        header: VnetHdr,
        frame: &[u8],
    ) -> bool {
        let place = flow_hash(frame) as usize % PLACES;
        let Some(flow) = self.0.get_mut(place) else {
            return false;
        };
        let window = now_ms / WINDOW_MS + 1;
        if flow.window != window {
            (flow.window, flow.frames) = (window, 0);
        }
        flow.frames = flow.frames.saturating_add(1);
        let is_sparse = !none_passes
            && now_ms >= flow.rests_until_ms
            && flow.frames <= FEW
            && !header.is_super_frame();
        if !is_sparse {
            flow.rests_until_ms = now_ms + REST_MS;
        }
        is_sparse
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// UDP over IPv4 from this port.
    fn frame(port: u16, payload: usize) -> Vec<u8> {
        let mut out = vec![2; 12];
        out.extend([0x08, 0x00, 0x45, 0]);
        out.extend(u16::try_from(28 + payload).unwrap().to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        out.extend(port.to_be_bytes());
        out.extend([0, 53]);
        out.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
        out.extend([0, 0]);
        out.resize(out.len() + payload, 0);
        out
    }

    #[test]
    fn few_frames_pass_and_many_do_not() {
        let mut flows = SparseFlows::new();
        let mut admit = |ms, port| flows.admit(ms, false, VnetHdr::PLAIN, &frame(port, 50));
        assert!((0..100).all(|i| admit(i * 5, 1)), "a ping each 5 ms");
        assert!((0..8).all(|_| admit(1_000, 2)));
        assert!(!admit(1_000, 2), "a ninth in one window");
        assert!(admit(1_000, 3), "another flow");
        assert!(!admit(1_499, 2), "it has not rested");
        assert!(!admit(1_998, 2), "nor since");
        assert!(admit(2_498, 2));
    }

    #[test]
    fn what_has_no_ports_is_a_flow_too() {
        let mut flows = SparseFlows::new();
        for frame in [&[1; 60][..], &[1; 10], &[]] {
            assert!(flows.admit(500, false, VnetHdr::PLAIN, frame));
        }
    }

    #[test]
    fn where_nothing_may_pass_the_flow_rests() {
        let mut flows = SparseFlows::new();
        assert!(!flows.admit(1_000, true, VnetHdr::PLAIN, &frame(1, 10)));
        assert!(!flows.admit(1_001, false, VnetHdr::PLAIN, &frame(1, 10)));
    }

    #[test]
    fn a_super_frame_is_not_few() {
        let mut flows = SparseFlows::new();
        let header = VnetHdr {
            gso_type: 1,
            gso_size: 1_000,
            ..VnetHdr::PLAIN
        };
        assert!(!flows.admit(500, false, header, &frame(1, 3_000)));
        assert!(!flows.admit(999, false, VnetHdr::PLAIN, &frame(1, 10)));
    }

    proptest! {
        /// A frame overtakes others only if the previous waiting frame of its flow came so long ago that
        /// it cannot wait any more.
        #[test]
        fn nobody_passes_a_frame_of_its_own(gaps in prop::collection::vec(prop_oneof![9 => 0_u64..30, 1 => 400_u64..600], 1..500)) {
            let (mut flows, mut now, mut waits_since) = (SparseFlows::new(), 0, None);
            for gap in gaps {
                now += gap;
                if flows.admit(now, false, VnetHdr::PLAIN, &frame(9, 100)) {
                    prop_assert!(waits_since.is_none_or(|since| now - since >= REST_MS));
                } else {
                    waits_since = Some(now);
                }
            }
        }
    }
}
