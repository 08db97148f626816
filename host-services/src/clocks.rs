//! The clocks. `Instant` is the standard library's; it does not count the time that a host sleeps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock, since 1970; 0 where it is set before that. Seconds of it are a certificate's time.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Since boot, sleep not counted: `CLOCK_MONOTONIC`, which `Instant` is made of.
#[must_use]
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// Since boot, sleep counted: `CLOCK_BOOTTIME`. Every process of the host reads the same.
#[must_use]
pub fn boot() -> Duration {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec to where the pointer shows. It fails only for a clock
    // that it does not have; Linux has these two.
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
        let first = (monotonic(), boot());
        std::thread::sleep(Duration::from_millis(2));
        let second = (monotonic(), boot());
        assert!(second.0 > first.0 && second.1 > first.1);
        assert!(first.1 >= first.0, "sleep counts");
        // After 2020.
        assert!(wall().as_secs() > 1_577_836_800);
    }
}
