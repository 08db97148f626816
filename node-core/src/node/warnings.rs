//! What the user should do something about, as `farlan status` shows it and the log says it.
//!
//! Whoever finds something wrong *raises* a warning and *lowers* it when the cause has ended. A
//! warning is known by its topic and by what it is about (a network, an address, a peer), so that
//! the same cause raises one warning however often it is looked at. The log has a line when a
//! warning appears, once a day while it stays, and a line when it goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Warnings at once. What is beyond it is only logged: nobody reads a longer list.
const MAX_WARNINGS: usize = 64;

/// A warning that stays is logged again after this.
const TELL_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// A warning whose text changes (a count in it, an address) is logged again no sooner than this.
const TELL_CHANGE: Duration = Duration::from_secs(60);

/// What kind of thing is wrong. The order is that of `farlan status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Nobody lets this node in.
    Admission,
    /// The membership in a network ends or has ended.
    Membership,
    /// A network has no tap here.
    Attachment,
    /// An interface is not as recorded, and stays so.
    Interface,
    /// The sites of a network have different MTUs.
    SiteMtu,
    /// The tap of a network cannot be opened.
    Tap,
    /// An attachment of the configuration is not made yet.
    Configured,
    /// The tap of a network is no port as it should be.
    OverlayPort,
    /// A port is part of a loop and shut.
    Loop,
    /// The LAN behind a bridge is plugged in at several nodes.
    SharedLan,
    /// This host has no address.
    Underlay,
    /// A bootstrap is not connected.
    Bootstrap,
    /// A bootstrap does not answer by UDP.
    Udp,
    /// The clock is not that of a bootstrap.
    Clock,
    /// A MAC is at two hosts.
    Conflict,
    /// Another machine has this node's identity.
    Twin,
    /// A bridge has learnt more MACs than are looked at.
    Learned,
    /// The host's way out leads into the overlay.
    WayOut,
    /// The state directory does not take what is to be kept.
    Disk,
}

#[derive(Debug)]
struct Warning {
    text: String,
    logged_at: Instant,
}

/// The warnings of now. See the [module](self).
#[derive(Debug, Default)]
pub struct Warnings {
    /// Bound: [`MAX_WARNINGS`]; removed by [`Warnings::lower`].
    now: BTreeMap<(Topic, String), Warning>,
}

impl Warnings {
    /// `text` holds, or nothing is wrong with `about`.
    pub(crate) fn set(&mut self, now: Instant, topic: Topic, about: &str, text: Option<String>) {
        match text {
            Some(text) => self.raise(now, topic, about, text),
            None => self.lower(topic, about),
        }
    }

    /// Something is wrong: one line that says what, why and what to do.
    pub(crate) fn raise(&mut self, now: Instant, topic: Topic, about: &str, text: String) {
        let key = (topic, about.to_owned());
        if let Some(known) = self.now.get_mut(&key) {
            let since = now.duration_since(known.logged_at);
            let changed = known.text != text;
            if since >= TELL_AGAIN || changed && since >= TELL_CHANGE {
                tracing::warn!("{text}");
                known.logged_at = now;
            }
            known.text = text;
            return;
        }
        tracing::warn!("{text}");
        if self.now.len() < MAX_WARNINGS {
            let logged_at = now;
            self.now.insert(key, Warning { text, logged_at });
        }
    }

    /// What was wrong with `about` is right again.
    pub(crate) fn lower(&mut self, topic: Topic, about: &str) {
        if let Some(gone) = self.now.remove(&(topic, about.to_owned())) {
            tracing::info!("no longer: {}", gone.text);
        }
    }

    /// Lowers the warnings of `topic` about anything that `stays` does not name.
    pub(crate) fn retain(&mut self, topic: Topic, stays: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .now
            .keys()
            .filter(|(of, about)| *of == topic && !stays(about))
            .map(|(_, about)| about.clone())
            .collect();
        for about in gone {
            self.lower(topic, &about);
        }
    }

    /// All of now, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.now.values().map(|warning| warning.text.clone())
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "any moment will do to count from"
)]
mod tests {
    use super::*;

    fn lines(warnings: &Warnings) -> Vec<String> {
        warnings.lines().collect()
    }

    #[test]
    fn one_cause_is_one_warning_and_ends_with_it() {
        let now = Instant::now();
        let mut warnings = Warnings::default();
        warnings.raise(now, Topic::Membership, "lab", "ends in 3 days".to_owned());
        warnings.raise(now, Topic::Membership, "lab", "ends in 2 days".to_owned());
        warnings.raise(now, Topic::Membership, "den", "has ended".to_owned());
        assert_eq!(lines(&warnings), ["has ended", "ends in 2 days"]);
        warnings.set(now, Topic::Membership, "lab", None);
        assert_eq!(lines(&warnings), ["has ended"]);
        warnings.retain(Topic::Membership, |about| about == "lab");
        assert!(lines(&warnings).is_empty());
    }

    #[test]
    fn the_list_has_a_bound() {
        let now = Instant::now();
        let mut warnings = Warnings::default();
        for n in 0..1000 {
            warnings.raise(now, Topic::Membership, &n.to_string(), n.to_string());
        }
        assert_eq!(warnings.lines().count(), MAX_WARNINGS);
    }
}
