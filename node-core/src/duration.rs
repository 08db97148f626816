//! Durations as people write them: `24h`, `90m`, `1d12h`.

use std::time::Duration;

/// Units, largest first, in seconds.
const UNITS: [(char, u64); 6] = [
    ('y', 365 * 86_400),
    ('w', 7 * 86_400),
    ('d', 86_400),
    ('h', 3_600),
    ('m', 60),
    ('s', 1),
];

/// Reads a duration of 1 s to 100 years.
///
/// # Errors
/// For the user: how it is written.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write for example 30m, 24h, 7d or 1y");
    let mut seconds = 0_u64;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let grown = number.unwrap_or(0).checked_mul(10);
            number = Some(
                grown
                    .and_then(|n| n.checked_add(u64::from(digit)))
                    .ok_or_else(wrong)?,
            );
        } else {
            let unit = UNITS
                .iter()
                .find(|(name, _)| *name == c)
                .ok_or_else(wrong)?
                .1;
            let part = number.take().ok_or_else(wrong)?.checked_mul(unit);
            seconds = part
                .and_then(|part| seconds.checked_add(part))
                .ok_or_else(wrong)?;
        }
    }
    let most = 100 * 365 * 86_400;
    if number.is_some() || !(1..=most).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// A duration for people, its two largest units: `1d 2h`.
#[must_use]
pub fn show(seconds: u64) -> String {
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, unit) in UNITS.iter().filter(|(name, _)| *name != 'w') {
        if rest >= *unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("90m", 5_400),
            ("1d12h", 129_600),
            ("1s", 1),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds));
        }
        let huge = "99999999999999999999h";
        for wrong in ["", "0h", "h", "24", "24 h", "-1h", "1x", "200y", huge] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3_661, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(show(seconds), text);
        }
    }
}
