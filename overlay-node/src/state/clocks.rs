//! The host's clocks in the words of the pure crates.

use host_services::clocks;
use overlay_proto::time::UnixTime;
use overlay_proto::tunnels::ClockReadings;

/// The wall clock; a clock before 1970 reads as 1970.
#[must_use]
pub fn wall_clock() -> UnixTime {
    UnixTime(clocks::wall().as_secs())
}

/// The clocks that tell a jump in time.
#[must_use]
pub fn clock_readings() -> ClockReadings {
    ClockReadings {
        monotonic: clocks::monotonic(),
        boot: clocks::boot(),
        wall: clocks::wall(),
    }
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
