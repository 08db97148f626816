//! The operating system's randomness and clock, for the pure crates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_proto::Entropy;
use overlay_proto::time::UnixTime;
use overlay_proto::tunnels::ClockReadings;

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

/// The clocks that tell a jump in time.
#[must_use]
pub fn clock_readings() -> ClockReadings {
    ClockReadings {
        monotonic: read_clock(libc::CLOCK_MONOTONIC),
        boot: read_clock(libc::CLOCK_BOOTTIME),
        wall: read_clock(libc::CLOCK_REALTIME),
    }
}

fn read_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to where the pointer shows. It fails only for a clock
    // that it does not have; Linux has these three.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_go_on() {
        let (first, second) = (clock_readings(), clock_readings());
        assert!(second.monotonic >= first.monotonic && second.boot >= first.boot);
        assert!(first.boot >= first.monotonic, "sleep counts");
        assert!(first.wall.as_secs().abs_diff(wall_clock().0) <= 1);
    }
}
