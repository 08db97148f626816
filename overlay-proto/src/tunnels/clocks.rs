//! When the clocks say that this machine is not where it was (TRUST.md 12).
//!
//! A machine that went back in time would seal with counters that it has used already. A restored
//! snapshot of a virtual machine does that; so does a hibernation image that is started twice. No
//! clock of the machine shows it at that moment: all go on from where they were. The wall clock
//! shows it as soon as something sets it right, and that is a jump against the time since boot.
//!
//! | what happens | monotonic | boot | wall |
//! |---|---|---|---|
//! | time passes | + | + | + |
//! | suspend or hibernation | stands | + | + |
//! | the wall clock is set; a restored snapshot is set right | + | + | jumps |
//!
//! Sessions count their age by the monotonic clock: a machine that slept would keep keys beyond
//! their life, and its counters may have been on a disk. So sleep ends them, too.

use std::time::Duration;

/// A jump of less than this is a correction of the clock.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// Three clocks, read one right after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReadings {
    /// Since boot, sleep not counted: Linux's `CLOCK_MONOTONIC`.
    pub monotonic: Duration,
    /// Since boot, sleep counted: `CLOCK_BOOTTIME`.
    pub boot: Duration,
    /// Since 1970: `CLOCK_REALTIME`.
    pub wall: Duration,
}

/// What a [`ClockWatch`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockJump {
    /// The wall clock moved against the time since boot.
    Wall,
    /// The machine slept.
    Sleep,
}

impl ClockJump {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Wall => "the wall clock has jumped",
            Self::Sleep => "the machine has slept",
        }
    }
}

/// Compares the clocks with what they said when the watch began, or at the last jump. Small steps
/// add up, so a clock that is set in pieces is seen, too.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch(ClockReadings);

impl ClockWatch {
    /// Begins with the clocks as they are.
    #[must_use]
    pub const fn new(now: ClockReadings) -> Self {
        Self(now)
    }

    /// Is it another time than it should be? Then [`super::Tunnels::close_all`] is due.
    pub fn look(&mut self, now: ClockReadings) -> Option<ClockJump> {
        let from = self.0;
        let passed = |now: Duration, from: Duration| now.saturating_sub(from);
        let booted = passed(now.boot, from.boot);
        // The wall clock may have gone back.
        let jumped = now.wall.abs_diff(from.wall.saturating_add(booted)) > CLOCK_TOLERANCE;
        let slept = booted.abs_diff(passed(now.monotonic, from.monotonic)) > CLOCK_TOLERANCE;
        let jump = match (jumped, slept) {
            (true, _) => ClockJump::Wall,
            (false, true) => ClockJump::Sleep,
            (false, false) => return None,
        };
        self.0 = now;
        Some(jump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(monotonic: u64, boot: u64, wall: u64) -> ClockReadings {
        ClockReadings {
            monotonic: Duration::from_secs(monotonic),
            boot: Duration::from_secs(boot),
            wall: Duration::from_secs(1_700_000_000 + wall),
        }
    }

    #[test]
    fn trust_12_a_jump_of_the_wall_clock_is_seen_forwards_and_backwards() {
        for (wall, seen) in [
            (HOUR, None),
            (HOUR + 10, None),
            (HOUR - 10, None),
            (HOUR + 11, Some(ClockJump::Wall)),
            (HOUR - 11, Some(ClockJump::Wall)),
            (0, Some(ClockJump::Wall)),
        ] {
            let mut watch = ClockWatch::new(at(100, 100, 500));
            let later = at(100 + HOUR, 100 + HOUR, 500 + wall);
            assert_eq!(watch.look(later), seen, "{wall}");
            assert_eq!(watch.look(later), None, "once");
        }
    }

    #[test]
    fn trust_12_sleep_ends_what_it_has_outlived() {
        let mut watch = ClockWatch::new(at(100, 100, 0));
        // Asleep for ten seconds, then for eleven more.
        assert_eq!(watch.look(at(110, 120, 20)), None);
        assert_eq!(watch.look(at(120, 141, 41)), Some(ClockJump::Sleep));
        assert_eq!(watch.look(at(130, 151, 51)), None);
    }

    #[test]
    fn a_clock_set_in_pieces_has_jumped() {
        let mut watch = ClockWatch::new(at(0, 0, 0));
        assert_eq!(watch.look(at(1, 1, 7)), None);
        assert_eq!(watch.look(at(2, 2, 14)), Some(ClockJump::Wall));
    }

    #[test]
    fn a_wall_clock_before_1970_is_no_trap() {
        let early = ClockReadings {
            wall: Duration::ZERO,
            ..at(5, 5, 0)
        };
        let mut watch = ClockWatch::new(early);
        assert_eq!(watch.look(at(6, 6, 0)), Some(ClockJump::Wall));
        assert_eq!(watch.look(early), Some(ClockJump::Wall));
    }
}
