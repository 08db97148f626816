//! The time, as an argument.

use std::time::Instant;

use overlay_proto::time::UnixTime;

/// Monotonic and wall-clock time, read once per tick.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// Monotonic.
    pub now: Instant,
    /// Wall clock.
    pub wall: UnixTime,
}
