//! What a turn has moved, and whether others on the core go first before the next.
//!
//! A train of small frames costs as much as a train of large ones, and a worker that drains its tap
//! as fast as a guest fills it makes short ones: with both nodes on one core, each train wakes the
//! receiver, which takes the core for it, and meanwhile the next few frames come. A worker that has
//! just moved many small frames therefore lets others run first. Frames that come meanwhile share a train,
//! and a guest has the time that it needs to read. Nobody waits on a core that has nothing else to do.

/// Frames of a turn from which on it is a flood. Requests and answers, and the acknowledgements of a stream, are
/// fewer.
const FLOOD_FRAMES: usize = 8;

/// A flood's frames are no longer than this in the mean, bytes. With longer ones what a train costs matters less
/// than what its bytes cost, and a turn fills its batches.
const SMALL: usize = 512;

/// The frames of one turn, in both directions, without those that pass.
#[derive(Debug, Default)]
pub(super) struct Load {
    frames: usize,
    bytes: usize,
}

impl Load {
    /// One more, of so many bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    /// Was it many small frames?
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
