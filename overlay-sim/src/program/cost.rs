//! What a run costs: the only place that looks at the real clock.

use std::time::{Duration, Instant};

use overlay_sim::history::Outcome;

/// The real time.
#[allow(
    clippy::disallowed_methods,
    reason = "what a run costs is real time; worlds only need some instant to count from"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A number that is another one in each run.
#[allow(
    clippy::disallowed_methods,
    reason = "a fresh seed; it is printed, so that the history can be run again"
)]
pub(crate) fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1))
}

/// What something cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Time that passed.
    pub(crate) real: Duration,
    /// Time of cores.
    pub(crate) cpu: Duration,
    /// The most memory that the process had, bytes.
    pub(crate) peak: u64,
}

/// Measures from its beginning to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    pub(crate) fn begin() -> Self {
        Self {
            began: now(),
            cpu: cpu(),
        }
    }

    /// What this thread cost.
    pub(crate) fn end_of_thread(self) -> Cost {
        Cost {
            real: now().duration_since(self.began),
            cpu: cpu().saturating_sub(self.cpu),
            peak: peak(),
        }
    }

    /// What several runs cost, on however many threads.
    pub(crate) fn end(self, done: &[(Outcome, Cost)]) -> Cost {
        let cpu = done.iter().map(|(_, cost)| cost.cpu).sum();
        Cost {
            cpu,
            ..self.end_of_thread()
        }
    }
}

/// The time that this thread has spent on a core.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn peak() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}
