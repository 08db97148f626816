//! The replay window of one lane (RFC 6479): a ring of 64-bit blocks over the newest counters.
//!
//! Moving forward clears whole blocks instead of shifting bits, so that a mark costs the same
//! whatever the gap; the price is that one block of the ring is never usable.

use crate::drop_reason::DropReason;

/// Blocks in the ring, a power of two, so that the place of a block is a mask.
const BLOCKS: usize = 64;
const BLOCK_BITS: u64 = 64;

/// How far behind the newest counter a packet may come: 63 blocks of 64, above the 2,048 that
/// TRUST.md 12 asks for. At a million packets per second on a lane it forgives 4 ms of reordering.
pub const REPLAY_WINDOW: u64 = (BLOCKS as u64 - 1) * BLOCK_BITS;

/// The counters of one lane that were seen.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// One above the highest marked counter; 0 when nothing was marked.
    next: u64,
    blocks: [u64; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            blocks: [0; BLOCKS],
        }
    }
}

impl ReplayWindow {
    /// May a packet with `counter` be new?
    ///
    /// # Errors
    /// `Replayed` when it was marked before, `ReplayTooOld` when it is behind the window.
    pub fn check(&self, counter: u64) -> Result<(), DropReason> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > REPLAY_WINDOW {
            return Err(DropReason::ReplayTooOld);
        }
        let (place, bit) = position(counter);
        match self.blocks.get(place) {
            Some(block) if block & bit == 0 => Ok(()),
            _ => Err(DropReason::Replayed),
        }
    }

    /// Marks `counter` as seen. To be called only after the packet's tag was found good.
    ///
    /// # Errors
    /// As [`Self::check`], whose answer may have changed since.
    pub fn mark(&mut self, counter: u64) -> Result<(), DropReason> {
        self.check(counter)?;
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / BLOCK_BITS;
            let target = counter / BLOCK_BITS;
            let steps = (target - newest).min(BLOCKS as u64);
            for step in 1..=steps {
                let (place, _) = position((newest + step) * BLOCK_BITS);
                if let Some(block) = self.blocks.get_mut(place) {
                    *block = 0;
                }
            }
            self.next = counter + 1;
        }
        let (place, bit) = position(counter);
        if let Some(block) = self.blocks.get_mut(place) {
            *block |= bit;
        }
        Ok(())
    }

    /// One above the highest counter marked: how many packets the sender has used at least.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }
}

/// The place of a counter: its block in the ring and its bit in the block. Counters stay below
/// 2^56, so the block number times 64 cannot overflow.
fn position(counter: u64) -> (usize, u64) {
    let place = (counter / BLOCK_BITS) % BLOCKS as u64;
    (place as usize, 1 << (counter % BLOCK_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trust_12_edges_of_the_replay_window() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.mark(0), Ok(()));
        assert_eq!(window.mark(0), Err(DropReason::Replayed));
        let far = 1 << 40;
        assert_eq!(window.mark(far), Ok(()));
        assert_eq!(window.mark(far - REPLAY_WINDOW + 1), Ok(()));
        assert_eq!(
            window.mark(far - REPLAY_WINDOW),
            Err(DropReason::ReplayTooOld)
        );
        assert_eq!(window.mark(far - 1), Ok(()));
        assert_eq!(window.mark(far - 1), Err(DropReason::Replayed));
        assert_eq!(window.next(), far + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The ring answers as a set that remembers everything would.
        #[test]
        fn trust_12_the_replay_window_equals_a_reference_set(
            moves in proptest::collection::vec((any::<bool>(), 0u64..9_000), 1..400),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut highest = 0u64;
            for (forward, distance) in moves {
                // Small steps are the usual case, large ones cross the whole ring.
                let distance = if distance % 3 == 0 { distance } else { distance % 100 };
                let counter = if forward {
                    highest + distance
                } else {
                    highest.saturating_sub(distance)
                };
                let expected = if seen.contains(&counter) && highest - counter < REPLAY_WINDOW {
                    Err(DropReason::Replayed)
                } else if !seen.is_empty() && counter + REPLAY_WINDOW <= highest {
                    Err(DropReason::ReplayTooOld)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(counter), expected);
                prop_assert_eq!(window.mark(counter), expected);
                if expected.is_ok() {
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
