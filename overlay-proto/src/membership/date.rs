//! Dates for people: an error about time must say which time.

use std::fmt;

use crate::time::UnixTime;

/// Shows a [`UnixTime`] as `2026-11-23 10:00 UTC`.
#[derive(Debug, Clone, Copy)]
pub struct Utc(pub UnixTime);

const SECONDS_PER_DAY: u64 = 86_400;
/// Days in 400 years of the Gregorian calendar.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_SHIFT: u64 = 719_468;
/// 9999-12-31 23:59:59; later times are shown as this one.
const LAST: u64 = 253_402_300_799;

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0.min(LAST);
        let days = seconds / SECONDS_PER_DAY + EPOCH_SHIFT;
        let (hour, minute) = (seconds % SECONDS_PER_DAY / 3600, seconds % 3600 / 60);
        // Years that begin in March put the leap day last, so that months have fixed starts.
        let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_428_000, "2026-11-23 10:00 UTC"),
            (u64::MAX, "9999-12-31 23:59 UTC"),
        ] {
            assert_eq!(Utc(UnixTime(seconds)).to_string(), text);
        }
    }
}
