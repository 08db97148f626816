//! Are we under load? Then message 1 needs a cookie.

use std::time::{Duration, Instant};

use super::MAX_HALF_OPEN;

/// Message 1s a second, with a good mac1, above which cookies are asked for. Each costs two
/// Diffie-Hellman operations and a chain, together under a millisecond: so a tenth of a core. An
/// overlay of 50 nodes that starts at once stays below it.
pub const MAX_REQUESTS_PER_SECOND: u32 = 100;
/// Half-open handshakes from which on cookies are asked for: whoever makes up addresses gets half
/// of the room, and the rest is for those that really are where they say.
pub const HALF_OPEN_UNDER_LOAD: usize = MAX_HALF_OPEN / 2;
/// Load is over when its causes have been absent for so long.
const CALM: Duration = Duration::from_secs(1);

/// Counts requests, second by second.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// The second that is counted.
    since: Option<Instant>,
    requests: u32,
    /// Under load until then.
    until: Option<Instant>,
}

impl Load {
    /// Counts a request that came `now`, while `half_open` wait. Are we under load?
    pub(super) fn request(&mut self, now: Instant, half_open: usize) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(over) {
            self.since = Some(now);
            self.requests = 0;
        }
        self.requests = self.requests.saturating_add(1);
        if self.requests > MAX_REQUESTS_PER_SECOND || half_open >= HALF_OPEN_UNDER_LOAD {
            self.until = Some(now + CALM);
        }
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn load_comes_with_the_rate_or_the_half_open_and_goes() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut load = Load::default();
        for n in 0..u64::from(MAX_REQUESTS_PER_SECOND) {
            assert!(!load.request(at(n), 0));
        }
        assert!(load.request(at(500), 0));
        assert!(load.request(at(1_400), 0));
        assert!(!load.request(at(1_500), 0));
        assert!(!load.request(at(1_600), HALF_OPEN_UNDER_LOAD - 1));
        assert!(load.request(at(1_700), HALF_OPEN_UNDER_LOAD));
        assert!(load.request(at(2_600), 0));
        assert!(!load.request(at(2_700), 0));
    }
}
