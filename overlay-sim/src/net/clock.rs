//! Virtual time: how long ago the simulation started.

use std::time::{Duration, Instant};

/// The time of a simulation. It is a [`Duration`] since the start; machines that want an [`Instant`] get one
/// counted from a base. What the base is does not matter: only differences count.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Instant,
    now: Duration,
}

impl Clock {
    /// A clock at the start, which is `base` for the machines.
    #[must_use]
    pub const fn new(base: Instant) -> Self {
        Self {
            base,
            now: Duration::ZERO,
        }
    }

    /// Time since the start.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// The same for machines.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.instant_of(self.now)
    }

    /// The instant of the time `at`. Past what an [`Instant`] can hold it is the base.
    #[must_use]
    pub fn instant_of(&self, at: Duration) -> Instant {
        self.base.checked_add(at).unwrap_or(self.base)
    }

    /// The time of an instant, which a machine says it is due at; the start for earlier ones.
    #[must_use]
    pub fn time_of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// Lets time pass until `at`. Time never goes back: an earlier `at` changes nothing.
    pub fn advance_to(&mut self, at: Duration) {
        self.now = self.now.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs one instant to start from"
    )]
    fn time_goes_on_and_is_an_instant_for_machines() {
        let base = Instant::now();
        let mut clock = Clock::new(base);
        assert_eq!(clock.instant(), base);
        let later = Duration::from_millis(1_500);
        clock.advance_to(later);
        clock.advance_to(Duration::from_millis(700));
        assert_eq!(clock.now(), later);
        assert_eq!(clock.instant(), base + later);
        assert_eq!(clock.time_of(clock.instant()), later);
        let before = base.checked_sub(Duration::from_secs(1)).unwrap_or(base);
        assert_eq!(clock.time_of(before), Duration::ZERO);
    }
}
