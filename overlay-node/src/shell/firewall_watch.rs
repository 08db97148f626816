//! When to look at the host's firewall: looking starts programs, which costs the guests milliseconds.
//!
//! The kernel tells when a rule of nftables changes, which are those of today's `iptables`. It does not
//! tell about the tables of the old `iptables`; a host that has them is looked at each time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host_services::netlink::KernelEvents;
use tokio::task::JoinHandle;

use crate::attachments;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h, number 7, as a bit.
const NFTABLES_GROUP: u32 = 1 << 6;

/// A look without any news, in case they were not for us.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// The old tables in use, a line each; the files are there when their modules are.
const OLD_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// The news of one node.
#[derive(Debug)]
pub(crate) struct FirewallWatch {
    /// `None` where the kernel has no nftables or does not let us listen.
    events: Option<KernelEvents>,
    looked: Option<Instant>,
    /// The look that is under way, and what the last one found it cannot do.
    check: Option<JoinHandle<()>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl FirewallWatch {
    /// From now on.
    pub(crate) fn start() -> Self {
        let events = KernelEvents::listen(libc::NETLINK_NETFILTER, NFTABLES_GROUP);
        if let Err(error) = &events {
            tracing::debug!(%error, "changes of the firewall are not heard");
        }
        Self {
            events: events.ok(),
            looked: None,
            check: None,
            failures: Arc::default(),
        }
    }

    /// If there is a reason, puts back what is missing for the attachments in `dir`, beside the slow
    /// path.
    pub(crate) fn check(&mut self, now: Instant, dir: &Path) {
        let under_way = self.check.as_ref().is_some_and(|one| !one.is_finished());
        if under_way || !self.is_due(now) {
            return;
        }
        let (dir, failures) = (dir.to_owned(), Arc::clone(&self.failures));
        self.check = Some(tokio::task::spawn_blocking(move || {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            for line in attachments::keep_open(&dir, &mut failures) {
                tracing::warn!("{line}");
            }
        }));
    }

    /// Is it time to look? The caller does then.
    fn is_due(&mut self, now: Instant) -> bool {
        let mut told = self.events.is_none();
        if let Some(events) = &self.events {
            let lost = events.look(|_| told = true);
            told |= lost;
        }
        let long_ago = |at| now.saturating_duration_since(at) >= AT_LEAST_EVERY;
        let due = told || self.looked.is_none_or(long_ago) || has_old_tables();
        if due {
            self.looked = Some(now);
        }
        due
    }
}

fn has_old_tables() -> bool {
    let is_used = |file: &&str| std::fs::read(Path::new(file)).is_ok_and(|text| !text.is_empty());
    OLD_TABLES.iter().any(is_used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_news_it_is_seldom_due() {
        let mut watch = FirewallWatch::start();
        let now = Instant::now();
        assert!(watch.is_due(now), "never looked");
        if watch.events.is_some() && !has_old_tables() {
            assert!(!watch.is_due(now + Duration::from_secs(5)));
            assert!(watch.is_due(now + AT_LEAST_EVERY));
        }
    }
}
