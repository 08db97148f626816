//! The operating system's randomness and clock, for the pure crates.

use std::time::{SystemTime, UNIX_EPOCH};

use overlay_proto::Entropy;
use overlay_proto::time::UnixTime;

/// The kernel's generator.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            // Linux since 3.17 cannot fail here. Keys without randomness would be worse than an end.
            std::process::abort();
        }
    }
}

/// The wall clock; a clock before 1970 reads as 1970.
#[must_use]
pub fn wall_clock() -> UnixTime {
    UnixTime(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}
