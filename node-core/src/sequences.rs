//! Numbers that only grow, over all runs of this node: of its lists of candidates and of its signals.
//!
//! Peers believe the highest number they have seen, and keep it on disk. The wall clock in its upper bits
//! makes the numbers of a node whose disk was lost high enough, if its clock is right. It may not be:
//! a run with a clock that was ahead must not make all later runs look old. So the numbers go on above
//! those of the runs before, whatever the clock says now.
//!
//! What is on disk is ahead of what is in use, so that a write is rare, nobody waits for it, and a run that was
//! killed has used nothing above it. Calls: [`Sequences::next`] as numbers are needed; [`Sequences::poll_refill`]
//! every few seconds; [`Sequences::handle_written`] with what became of it.

use overlay_proto::time::UnixTime;

/// Bits below the seconds: a million numbers a second before they run ahead of the clock.
const BELOW_SECONDS: u32 = 20;

/// How far the number on disk is ahead: what the clock alone uses up in ten minutes.
const AHEAD: u64 = 600 << BELOW_SECONDS;

/// The numbers in use, and the bound on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    last: u64,
    /// No run has used a number above it.
    on_disk: u64,
    /// The bound that is on its way to the disk.
    asked: Option<u64>,
}

impl Sequences {
    /// After a restart: above all that the runs before may have used. Nothing is left of the reserve before the
    /// first refill is written.
    #[must_use]
    pub const fn restored(on_disk: u64) -> Self {
        Self {
            last: on_disk,
            on_disk,
            asked: None,
        }
    }

    /// A number above all before. It is that of the clock where the reserve reaches as far; `None`: the reserve is
    /// used up, and a later run might use the number again.
    pub fn next(&mut self, wall: UnixTime) -> Option<u64> {
        let next = self.last.checked_add(1)?;
        let by_clock = Some(by_clock(wall)).filter(|at| (next..=self.on_disk).contains(at));
        let next = by_clock.or(Some(next).filter(|next| *next <= self.on_disk))?;
        self.last = next;
        Some(next)
    }

    /// The bound to be written now: half of the reserve is used up, by numbers or by the clock.
    pub fn poll_refill(&mut self, wall: UnixTime) -> Option<u64> {
        let reached = self.last.max(by_clock(wall));
        if self.asked.is_some() || reached.saturating_add(AHEAD / 2) < self.on_disk {
            return None;
        }
        let bound = reached.saturating_add(AHEAD);
        self.asked = Some(bound).filter(|bound| *bound > self.on_disk);
        self.asked
    }

    /// The bound that was to be written is on disk, or the disk refused.
    pub fn handle_written(&mut self, is_on_disk: bool) {
        if let Some(bound) = self.asked.take().filter(|_| is_on_disk) {
            self.on_disk = self.on_disk.max(bound);
        }
    }
}

/// An absurd clock leaves numbers to come.
const fn by_clock(wall: UnixTime) -> u64 {
    let most = u64::MAX >> (BELOW_SECONDS + 1);
    (if wall.0 < most { wall.0 } else { most }) << BELOW_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const AHEAD_BY_TWO_HOURS: UnixTime = UnixTime(NOW.0 + 7200);

    fn refilled(on_disk: u64, wall: UnixTime) -> Sequences {
        let mut sequences = Sequences::restored(on_disk);
        sequences.poll_refill(wall).unwrap();
        sequences.handle_written(true);
        sequences
    }

    #[test]
    fn a_run_begins_above_all_runs_before_whatever_the_clock_says() {
        let (mut on_disk, mut highest) = (0, 0);
        for (wall, count) in [(AHEAD_BY_TWO_HOURS, 2000), (NOW, 3), (UnixTime(5), 1)] {
            let mut sequences = refilled(on_disk, wall);
            for _ in 0..count {
                let next = sequences.next(wall).unwrap();
                assert!(next > highest && next <= sequences.on_disk);
                highest = next;
            }
            // Killed: only the disk is left.
            on_disk = sequences.on_disk;
        }
    }

    #[test]
    fn the_clock_carries_a_node_whose_disk_was_lost() {
        let first = refilled(0, NOW).next(NOW).unwrap();
        let later = NOW.plus(std::time::Duration::from_secs(1));
        assert!(refilled(0, later).next(later).unwrap() > first + 1000);
    }

    #[test]
    fn writes_are_rare_and_nobody_waits_for_them() {
        let mut sequences = refilled(0, NOW);
        let (mut writes, mut until) = (0, None);
        for second in 0..3600 {
            let wall = UnixTime(NOW.0 + second);
            assert!(sequences.next(wall).is_some(), "in second {second}");
            if sequences.poll_refill(wall).is_some() {
                // The disk takes four minutes for each.
                (writes, until) = (writes + 1, Some(second + 240));
            }
            if until.take_if(|until| *until <= second).is_some() {
                sequences.handle_written(true);
            }
        }
        assert!((1..=12).contains(&writes), "{writes} in an hour");
    }

    #[test]
    fn what_is_not_on_disk_is_not_used() {
        let mut sequences = Sequences::restored(7);
        assert_eq!(sequences.next(NOW), None, "nothing is written yet");
        let bound = sequences.poll_refill(NOW).unwrap();
        assert_eq!(sequences.poll_refill(NOW), None, "it is on its way");
        assert_eq!(sequences.next(NOW), None);
        sequences.handle_written(false);
        assert_eq!(sequences.next(NOW), None, "the disk refused");
        assert_eq!(sequences.poll_refill(NOW), Some(bound));
        sequences.handle_written(true);
        assert!(sequences.next(NOW).unwrap() <= bound);
        // Half used: the other half is there while the disk is asked.
        sequences.last = bound - 1;
        assert!(sequences.poll_refill(NOW).unwrap() > bound);
        assert_eq!(sequences.next(NOW), Some(bound));
        assert_eq!(sequences.next(NOW), None);
    }

    #[test]
    fn a_clock_that_runs_away_finds_numbers_below_it() {
        let mut sequences = refilled(0, NOW);
        let first = sequences.next(NOW).unwrap();
        // An hour of sleep.
        let later = UnixTime(NOW.0 + 3600);
        assert_eq!(sequences.next(later), Some(first + 1));
        sequences.poll_refill(later).unwrap();
        sequences.handle_written(true);
        assert_eq!(sequences.next(later), Some(later.0 << BELOW_SECONDS));
    }

    #[test]
    fn an_absurd_clock_leaves_numbers_to_come() {
        let absurd = UnixTime(u64::MAX);
        let mut sequences = refilled(0, absurd);
        let first = sequences.next(absurd).unwrap();
        assert!(sequences.next(NOW).unwrap() > first);
    }
}
