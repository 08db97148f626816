//! Wall-clock time as a value. Monotonic time is `std::time::Instant`, passed as an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 UTC.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This time plus `duration`, whole seconds, saturating.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// Seconds from `earlier` to this time, 0 when `earlier` is later.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
