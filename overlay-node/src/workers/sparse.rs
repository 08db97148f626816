//! Flows that send so little that they need not wait behind others: pings, keystrokes, look-ups, the
//! first packets of a connection.
//!
//! This is the idea of sparse flows in `FQ-CoDel` (RFC 8290, 4.2). Their frames pass those that wait, at
//! the sender and, on a lane of their own, at the receiver. So that they never pass a frame of
//! their own flow, a flow that has sent more is not sparse again before it was silent for [`REST_MS`],
//! which is longer than anything waits.

use tap_bridge::VnetHdr;

use super::flow::flow_hash;

/// A flow that was not sparse is again after so long a silence, ms. What waits here, in the sockets
/// and at the receiver is about 18 MiB at most: a processor that has time for 36 MB/s clears it.
pub(super) const REST_MS: u64 = 500;

/// Frames of a flow in one [`WINDOW_MS`] that are still few.
const FEW: u8 = 8;

/// See [`FEW`], ms.
const WINDOW_MS: u64 = 10;

/// Flows told apart, a power of two. Two with one place count as one, which can cost both their
/// privilege, never their order.
const PLACES: usize = 1024;

/// What is known of the flows that left this worker. 24 KiB.
#[derive(Debug)]
pub(super) struct SparseFlows(Box<[Flow]>);

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    /// Not sparse until then.
    rests_until_ms: u64,
    /// The window of the last frame, and the frames in it.
    window: u64,
    frames: u8,
}

impl SparseFlows {
    pub(super) fn new() -> Self {
        Self(vec![Flow::default(); PLACES].into_boxed_slice())
    }

    /// May this frame, read at `now_ms`, pass others? To be asked once for each frame, in the order
    /// of the frames. With `none_passes` it may not, whatever it is.
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
        /// Whoever passes has not had to wait for as long as anything waits.
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
