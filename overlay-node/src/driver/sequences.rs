//! Numbers that only grow, over all runs of this node: of its lists of candidates and of its signals.
//!
//! Peers believe the highest number they have seen, and keep it on disk. The wall clock in its upper bits
//! makes the numbers of a node whose disk was lost high enough, if its clock is right. It may not be:
//! a run with a clock that was ahead must not make all later runs look old. So the numbers go on above
//! those of the runs before, whatever the clock says now.
//!
//! What is on disk is ahead of what is in use, so that a write is rare and a run that was killed has used
//! nothing above it.

use anyhow::{Context, Result};
use overlay_proto::time::UnixTime;

use crate::state::StateDir;

/// Bits below the seconds: a million numbers a second before they run ahead of the clock.
const BELOW_SECONDS: u32 = 20;

/// How far the number on disk is ahead: what the clock alone uses up in ten minutes.
const AHEAD: u64 = 600 << BELOW_SECONDS;

/// The numbers in use and the bound on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reserve {
    last: u64,
    /// No run has used a number above it.
    on_disk: u64,
}

impl Reserve {
    /// After a restart: above all that the runs before may have used.
    const fn restored(on_disk: u64) -> Self {
        Self {
            last: on_disk,
            on_disk,
        }
    }

    /// The next number, and whether the bound has to be on disk before it is used.
    fn next(&mut self, wall: UnixTime) -> (u64, bool) {
        let by_clock = wall.0.min(u64::MAX >> (BELOW_SECONDS + 1)) << BELOW_SECONDS;
        self.last = self.last.saturating_add(1).max(by_clock);
        let beyond = self.last > self.on_disk;
        if beyond {
            self.on_disk = self.last.saturating_add(AHEAD);
        }
        (self.last, beyond)
    }
}

/// The numbers of this node. See the [module](self).
#[derive(Debug)]
pub(crate) struct Sequences {
    reserve: Reserve,
    state: StateDir,
}

impl Sequences {
    /// Those of the state directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn load(state: StateDir) -> Result<Self> {
        let reserve = Reserve::restored(state.load_sequences()?);
        Ok(Self { reserve, state })
    }

    /// A number above all before.
    ///
    /// # Errors
    /// The disk refuses, and without it a later run might use the number again.
    pub(crate) fn next(&mut self, wall: UnixTime) -> Result<u64> {
        let mut reserve = self.reserve;
        let (next, beyond) = reserve.next(wall);
        if beyond {
            self.state
                .save_sequences(reserve.on_disk)
                .context("the numbers of this node's lists cannot be kept")?;
        }
        self.reserve = reserve;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const AHEAD_BY_TWO_HOURS: UnixTime = UnixTime(NOW.0 + 7200);

    #[test]
    fn a_run_begins_above_all_runs_before_whatever_the_clock_says() {
        let mut reserve = Reserve::restored(0);
        let mut highest = 0;
        for (wall, kept) in [(AHEAD_BY_TWO_HOURS, 2000), (NOW, 3), (UnixTime(5), 1)] {
            for _ in 0..kept {
                let (next, beyond) = reserve.next(wall);
                assert!(next > highest);
                assert!(next <= reserve.on_disk);
                highest = next;
                let _ = beyond;
            }
            // Killed: only the disk is left.
            reserve = Reserve::restored(reserve.on_disk);
        }
    }

    #[test]
    fn the_clock_carries_a_node_whose_disk_was_lost() {
        let (first, _) = Reserve::restored(0).next(NOW);
        let (second, _) = Reserve::restored(0).next(NOW.plus(std::time::Duration::from_secs(1)));
        assert!(second > first + 1000);
    }

    #[test]
    fn writes_are_rare() {
        let mut reserve = Reserve::restored(0);
        let mut writes = 0;
        for second in 0..3600 {
            let (_, beyond) = reserve.next(UnixTime(NOW.0 + second));
            writes += u32::from(beyond);
        }
        assert!(writes <= 6, "{writes} in an hour");
    }

    #[test]
    fn an_absurd_clock_leaves_numbers_to_come() {
        let mut reserve = Reserve::restored(0);
        let (first, _) = reserve.next(UnixTime(u64::MAX));
        assert!(reserve.next(NOW).0 > first);
    }
}
