//! When a flood of events for the slow path is over, what it took goes back to the system.
//!
//! A guest that makes addresses up has the slow path hold the largest tables it may for a few seconds. The
//! allocator keeps what was freed since, in pieces all over its heap: more than the tables that stay.

use std::time::{Duration, Instant};

/// Events are counted for so long.
const WINDOW: Duration = Duration::from_secs(1);

/// Events of one window that are a flood, and those that are none.
const MANY: usize = 2000;
const FEW: usize = 200;

/// Frames that wait and look-ups that a flood has caused are kept so much longer, in windows.
const AFTERMATH: u32 = 3;

/// How many events came of late.
#[derive(Debug, Default)]
pub(super) struct Flood {
    since: Option<Instant>,
    events: usize,
    /// There was one since memory was given back.
    was_there: bool,
    /// Windows until memory is given back once more.
    again_in: u32,
}

impl Flood {
    /// So many more events.
    pub(super) const fn note(&mut self, events: usize) {
        self.events = self.events.saturating_add(events);
    }

    /// `true` after each flood: once when it ends, and once when what it caused is over, too.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < WINDOW {
            return false;
        }
        let quiet = self.events < FEW;
        let over = self.was_there && quiet;
        self.was_there = !over && (self.was_there || self.events >= MANY);
        (self.since, self.events) = (Some(now), 0);
        let again = quiet && self.again_in == 1;
        self.again_in = if over {
            AFTERMATH
        } else {
            self.again_in.saturating_sub(1)
        };
        over || again
    }
}

/// Gives free memory back to the system. Takes a millisecond or two.
pub(super) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and only locks and reads what the allocator has.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_when_the_flood_has_ended_and_once_more_after_its_aftermath() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        let mut over = Vec::new();
        for ms in (0..20_000).step_by(100) {
            flood.note(if (5000..9000).contains(&ms) { 1000 } else { 5 });
            if flood.is_over(start + Duration::from_millis(ms)) {
                over.push(ms);
            }
        }
        assert_eq!(over, [10_000, 13_000]);
    }

    #[test]
    fn a_busy_node_is_no_flood() {
        let (mut flood, start) = (Flood::default(), Instant::now());
        for second in 0..100 {
            flood.note(MANY - 1);
            assert!(!flood.is_over(start + WINDOW * second));
        }
        release_free_memory();
    }
}
