//! One log line a second of each kind about each peer, and [`MOST`] of each kind about all.
//!
//! Whatever a peer, a stranger or a guest can make happen again and again would fill the log of both
//! programs, and the disk behind it. So lines that name a peer or an address are counted by the place in
//! the code that writes them and by whom they name. Names can be made up: a guest has as many MACs as it
//! likes, a stranger as many addresses. So all lines of one place are counted together, too, also those of
//! libraries. What was left out is said with the next one.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Between two lines of one kind about one peer.
const EVERY: Duration = Duration::from_secs(1);

/// Lines of one kind in a second, whomever they name.
const MOST: u32 = 32;

/// Kinds and peers that are told apart; above it what was silent longest is forgotten.
const MAX_KEYS: usize = 1024;

/// The fields that name somebody.
const WHOM: [&str; 4] = ["peer", "node", "remote", "addr"];

/// The longest name that is kept of a peer, in bytes.
const MAX_NAME: usize = 128;

#[derive(Debug)]
struct Kept {
    at: Instant,
    left_out: u64,
}

/// What was written when. At most [`MAX_KEYS`] entries.
#[derive(Debug)]
struct Lines<K> {
    kept: HashMap<K, Kept>,
}

impl<K> Default for Lines<K> {
    fn default() -> Self {
        Self {
            kept: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + std::hash::Hash> Lines<K> {
    /// May a line of `key` be written now? `Some` with the number of those left out before it.
    fn admit(&mut self, now: Instant, key: &K) -> Option<u64> {
        if let Some(kept) = self.kept.get_mut(key) {
            if now.duration_since(kept.at) < EVERY {
                kept.left_out += 1;
                return None;
            }
            kept.at = now;
            return Some(std::mem::take(&mut kept.left_out));
        }
        if self.kept.len() >= MAX_KEYS {
            self.kept
                .retain(|_, kept| now.duration_since(kept.at) < EVERY);
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone())
                && self.kept.len() >= MAX_KEYS
            {
                self.kept.remove(&oldest);
            }
        }
        let kept = Kept {
            at: now,
            left_out: 0,
        };
        self.kept.insert(key.clone(), kept);
        Some(0)
    }
}

/// The lines of one kind in the second that began at `since`.
#[derive(Debug)]
struct Kind {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What was written when, by kind and by whom it names.
#[derive(Debug, Default)]
struct Written {
    /// As many as there are places in the code that write to the log.
    kinds: HashMap<Identifier, Kind>,
    peers: Lines<(Identifier, String)>,
}

impl Written {
    /// As [`Lines::admit`], for the line of one place that names `whom`, or nobody.
    fn admit(&mut self, now: Instant, place: Identifier, whom: &str) -> Option<u64> {
        let kind = self.kinds.entry(place.clone()).or_insert(Kind {
            since: now,
            written: 0,
            left_out: 0,
        });
        if now.duration_since(kind.since) >= EVERY {
            (kind.since, kind.written) = (now, 0);
        }
        if kind.written >= MOST {
            kind.left_out += 1;
            return None;
        }
        let mut left_out = 0;
        if !whom.is_empty() {
            left_out = self.peers.admit(now, &(place, whom.to_owned()))?;
        }
        kind.written += 1;
        Some(left_out + std::mem::take(&mut kind.left_out))
    }
}

/// The layer that leaves lines out; put it over the one that writes them. What is not logged at `info` and
/// above is for those who look for something, and passes.
#[derive(Debug, Default)]
pub struct OneASecond(Mutex<Written>);

impl<S: Subscriber> Layer<S> for OneASecond {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut whom = Whom(String::new());
        event.record(&mut whom);
        // Its own line, below: it is as rare as those it speaks of, and the lock is not to be taken twice.
        if metadata.target() == module_path!() {
            return true;
        }
        let admitted = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit(
            Instant::now(),
            metadata.callsite(),
            &whom.0,
        );
        if let Some(left_out) = admitted.filter(|left_out| *left_out > 0) {
            let about = whom.0.as_str();
            tracing::info!(left_out, about, "lines like the next were left out");
        }
        admitted.is_some()
    }
}

/// Whom an event names.
struct Whom(String);

impl Visit for Whom {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if WHOM.contains(&field.name()) && self.0.len() < MAX_NAME {
            // Writing into a string does not fail.
            let _ = write!(self.0, "{value:?} ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_of_a_kind_and_a_peer_with_the_number_left_out() {
        let mut lines = Lines::default();
        let now = Instant::now();
        assert_eq!(lines.admit(now, &("refused", 1)), Some(0));
        assert_eq!(lines.admit(now, &("refused", 2)), Some(0));
        assert_eq!(lines.admit(now, &("failed", 1)), Some(0));
        for step in 0..100 {
            let soon = now + Duration::from_millis(step);
            assert_eq!(lines.admit(soon, &("refused", 1)), None);
        }
        assert_eq!(lines.admit(now + EVERY, &("refused", 1)), Some(100));
        assert_eq!(lines.admit(now + EVERY * 2, &("refused", 1)), Some(0));
    }

    #[test]
    fn made_up_peers_do_not_fill_the_memory() {
        let mut lines = Lines::default();
        let now = Instant::now();
        for n in 0..100_000_u32 {
            assert_eq!(lines.admit(now, &n), Some(0));
        }
        assert!(lines.kept.len() <= MAX_KEYS);
    }

    /// What the layer lets through of what `work` logs.
    fn logged(work: impl FnOnce()) -> String {
        use tracing_subscriber::layer::SubscriberExt;

        #[derive(Clone, Default)]
        struct Written(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let to = written.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || to.clone())
            .finish()
            .with(OneASecond::default());
        tracing::subscriber::with_default(log, work);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_that_name_a_peer_are_limited_and_others_are_not() {
        let text = logged(|| {
            for n in 0..20 {
                tracing::warn!(peer = n % 2, "card refused");
                tracing::warn!("a warning of its own");
            }
        });
        assert_eq!(text.matches("card refused").count(), 2, "{text}");
        assert_eq!(text.matches("a warning of its own").count(), 20);
    }

    #[test]
    fn names_that_a_guest_or_a_stranger_makes_up_fill_no_log() {
        let moved = |n: u32| tracing::info!(mac = n, "a MAC moved");
        let text = logged(|| {
            for n in 0..10_000 {
                moved(n);
                tracing::info!(addr = n, "a stranger came");
                tracing::warn!("a library is not well");
            }
            std::thread::sleep(EVERY);
            moved(1);
        });
        let count = |line: &str| u32::try_from(text.matches(line).count()).unwrap();
        assert_eq!(count("a MAC moved"), MOST + 1, "{text}");
        assert_eq!(count("a stranger came"), MOST);
        assert_eq!(count("a library is not well"), MOST);
    }
}
