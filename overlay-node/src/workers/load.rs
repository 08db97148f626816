//! How much a turn has moved, and whether the worker yields its core before the next turn.
//!
//! A GSO batch of small frames costs as much as one of large frames, so small frames should share a
//! batch. A worker that reads its tap as fast as the guest fills it makes short batches instead: with
//! both nodes on one core, each batch wakes the receiver, which takes the core, and meanwhile only a few
//! more frames come. So a worker that has just moved many small frames yields the core. The frames that
//! come meanwhile share a batch, and the guest gets time to read. On a core that has nothing else to
//! run, yielding costs nothing.

/// A turn with at least this many small frames counts as a flood. Requests with their answers, and the
/// acknowledgements of a TCP stream, are fewer.
const FLOOD_FRAMES: usize = 8;

/// The largest mean length of a flood's frames, in bytes. With longer frames the cost per byte outweighs
/// the cost per batch, and the batches of a turn fill up anyway.
const SMALL: usize = 512;

/// The frames of one turn in both directions, without those of sparse flows.
#[derive(Debug, Default)]
pub(super) struct Load {
    frames: usize,
    bytes: usize,
}

impl Load {
    /// Adds one frame of `bytes` bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Were there many small frames?
    pub(super) fn is_flood(&self) -> bool {
        self.frames >= FLOOD_FRAMES && self.bytes <= self.frames * SMALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_flood(frames: impl IntoIterator<Item = usize>) -> bool {
        let mut load = Load::default();
        frames.into_iter().for_each(|bytes| load.add(bytes));
        load.is_flood()
    }

    #[test]
    fn many_small_frames_are_a_flood() {
        assert!(is_flood([106; 64]));
        assert!(is_flood([512; 8]));
        assert!(is_flood((0..18).map(|n| if n == 0 { 1_514 } else { 106 })));
    }

    #[test]
    fn few_or_large_frames_are_none() {
        assert!(!is_flood([]));
        assert!(!is_flood([106; 7]));
        assert!(!is_flood([1_448; 90]), "the segments of a stream");
        assert!(!is_flood([65_226, 66, 66, 66, 66, 66, 66, 66, 66]));
    }
}
