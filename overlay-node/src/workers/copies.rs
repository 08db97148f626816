//! Recognizes broadcasts that go round in a loop of the host's own bridges. In a loop the same frame
//! comes to the tap thousands of times a second, until the slow path shuts a port
//! (`docs/adr/0032-a-port-that-loops-is-shut.md`). The overlay carries a few of these copies. If it
//! carried all, they would fill every queue on the way and delay other traffic by seconds.
//!
//! A frame is recognized by a keyed hash over its length and its first bytes. The key is random, so no
//! guest can make a frame that counts as a copy of another one.

use std::hash::{BuildHasher, RandomState};

/// Frames that are remembered. A new frame replaces the one in the same slot.
const SLOTS: usize = 256;
/// Copies of one frame allowed within [`WINDOW_MS`]. No protocol that repeats a frame on purpose comes
/// near: the fastest VRRP sends 10. The shortest loop through a switch makes 100.
const MOST: u32 = 32;
const WINDOW_MS: u64 = 100;
/// From this number on it may be a loop, and the slow path is asked to look. A sender that repeats
/// itself on purpose causes such a question only once in a while.
const DOUBTFUL: u32 = 8;
/// Bytes of a frame that are hashed: the headers, and enough of the payload.
const FRONT: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    hash: u64,
    window: u64,
    count: u32,
}

/// The verdict on a frame, from the copies that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    /// There were few copies; forward it.
    Passes,
    /// There were so many that a loop is likely; forward it, and ask.
    Doubtful,
    /// It is in a loop; drop it.
    TooMany,
}

/// How often recent frames came. Bound: [`SLOTS`].
#[derive(Debug)]
pub(super) struct Copies {
    key: RandomState,
    seen: Vec<Seen>,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self {
            key: RandomState::new(),
            seen: vec![Seen::default(); SLOTS],
        }
    }

    /// Judges a broadcast. Once a frame was dropped, it is forwarded again only after a whole window
    /// without it.
    pub(super) fn judge(&mut self, now_ms: u64, frame: &[u8]) -> Copy {
        let front = frame.get(..FRONT).unwrap_or(frame);
        let hash = self.key.hash_one((frame.len(), front));
        let window = now_ms / WINDOW_MS;
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        let Some(seen) = self.seen.get_mut(slot) else {
            return Copy::Passes;
        };
        if seen.hash != hash || seen.window + 1 < window {
            *seen = Seen {
                hash,
                window,
                count: 0,
            };
        } else if seen.window < window {
            let went_round = seen.count > MOST;
            *seen = Seen {
                hash,
                window,
                count: if went_round { MOST } else { 0 },
            };
        }
        seen.count = seen.count.saturating_add(1);
        match seen.count {
            ..DOUBTFUL => Copy::Passes,
            DOUBTFUL..=MOST => Copy::Doubtful,
            _ => Copy::TooMany,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_round_passes_a_few_times_and_again_once_it_was_quiet() {
        let mut copies = Copies::new();
        let mut passed = 0;
        for n in 0..50_000 {
            let judged = copies.judge(5_000 + n / 100, b"who has 10.9.0.1");
            assert_eq!(judged == Copy::Passes, n + 1 < u64::from(DOUBTFUL), "{n}");
            passed += u32::from(judged != Copy::TooMany);
        }
        assert_eq!(passed, MOST, "in half a second");
        assert_eq!(copies.judge(5_800, b"who has 10.9.0.1"), Copy::Passes);
    }

    #[test]
    fn frames_that_differ_and_those_that_repeat_themselves_slowly_pass() {
        let mut copies = Copies::new();
        for n in 0..10_000_u64 {
            let mut frame = [7; 1_500];
            frame[40..48].copy_from_slice(&n.to_be_bytes());
            assert_eq!(copies.judge(9_000, &frame), Copy::Passes, "{n}");
        }
        for n in 0..1_000 {
            assert_ne!(copies.judge(n * 5, b"the same"), Copy::TooMany, "{n}");
            assert_eq!(copies.judge(n * 20, b"fifty a second"), Copy::Passes, "{n}");
        }
    }
}
