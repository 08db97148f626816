//! Looks at taps and bridges: are they as they are recorded?
//!
//! The kernel tells of every change of a link. A look each second takes what it told, and if that
//! was anything, or nothing was looked at for a while, [`attachments::reconcile`] compares the record
//! with what is there, beside the slow path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host_services::netlink::KernelEvents;
use overlay_proto::membership::Membership;
use tap_bridge::Links;
use tokio::sync::{Mutex, mpsc};

use crate::attachments::{self, Attachment, Kept, Memory};
use crate::cli::attach_now;
use crate::state::StateDir;
use node_core::api::AttachRequest;
use node_core::node::networks::interfaces;

/// A look without any news, in case they were not for us: what hinders a step is not always a link.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// The time a look without a result may take before another one is begun.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// `RTMGRP_LINK` (rtnetlink(7)).
const LINK_GROUP: u32 = libc::RTMGRP_LINK.cast_unsigned();

/// What one look brought: `Err` is why it could not look.
pub(crate) type Outcome = Result<Kept, String>;

/// The looks of one node.
#[derive(Debug)]
pub(crate) struct InterfaceLooks {
    /// `None` where the kernel does not let us listen: then only the time tells.
    events: Option<KernelEvents>,
    links: Option<Links>,
    memory: Arc<Mutex<Memory>>,
    outcomes: mpsc::Sender<Outcome>,
    /// Since when a look is under way.
    under_way: Option<Instant>,
    /// When the last one began.
    looked: Option<Instant>,
    /// Something has changed since the last look began.
    changed: bool,
}

impl InterfaceLooks {
    /// From now on. Must be called within a tokio runtime.
    pub(crate) fn start() -> (Self, mpsc::Receiver<Outcome>) {
        let events = KernelEvents::listen(libc::NETLINK_ROUTE, LINK_GROUP);
        if let Err(error) = &events {
            tracing::debug!(%error, "changes of interfaces are not heard");
        }
        let (outcomes, receiver) = mpsc::channel(1);
        let looks = Self {
            events: events.ok(),
            links: Links::connect().ok(),
            ..Self::without_news(outcomes)
        };
        (looks, receiver)
    }

    fn without_news(outcomes: mpsc::Sender<Outcome>) -> Self {
        Self {
            events: None,
            links: None,
            memory: Arc::default(),
            outcomes,
            under_way: None,
            looked: None,
            changed: true,
        }
    }

    /// The next look is due at once.
    pub(crate) const fn look_soon(&mut self) {
        self.changed = true;
    }

    /// The look under way is over.
    pub(crate) const fn end(&mut self) {
        self.under_way = None;
    }

    /// Is it time to look? The caller does then.
    fn is_due(&mut self, now: Instant) -> bool {
        if let Some(events) = &self.events {
            let mut told = false;
            let lost = events.look(|_| told = true);
            self.changed |= told || lost;
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.under_way.is_some_and(|at| since(at) < GIVEN_UP_AFTER) {
            return false;
        }
        let due = self.changed || self.looked.is_none_or(|at| since(at) >= AT_LEAST_EVERY);
        if due {
            self.changed = false;
            self.looked = Some(now);
        }
        due
    }

    /// Looks if there is a reason to, and tries to make the attachments of `waiting`.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        (state, membership): (&StateDir, &Membership),
        waiting: &[AttachRequest],
    ) {
        if !self.is_due(now) {
            return;
        }
        let Some(links) = self.links.clone() else {
            return;
        };
        self.under_way = Some(now);
        let (memory, outcomes) = (Arc::clone(&self.memory), self.outcomes.clone());
        let (state, membership) = (state.clone(), membership.clone());
        let waiting = waiting.to_vec();
        tokio::spawn(async move {
            // Else the look before it hangs in the kernel.
            let Ok(mut memory) = memory.try_lock() else {
                return;
            };
            let mut done = Vec::new();
            for request in &waiting {
                // What hinders it is a warning already.
                if let Ok(lines) = attach_now(&state, &membership, request).await {
                    done.extend(lines.lines().map(str::to_owned));
                }
            }
            let kept = attachments::reconcile(&links, state.path(), &mut memory).await;
            let outcome = kept.map_err(|error| format!("{error:#}"));
            let outcome = outcome.map(|mut kept| {
                done.append(&mut kept.done);
                Kept { done, ..kept }
            });
            // The slow path may have ended.
            let _ = outcomes.send(outcome).await;
        });
    }
}

/// What of a look matters to the slow path.
pub(crate) fn of_record(kept: Kept) -> interfaces::Kept {
    let findings = kept.findings.into_iter();
    let findings = findings.map(|(network, finding)| {
        let about = format!("{network} {}", finding.interface);
        (about, finding.text)
    });
    interfaces::Kept {
        done: kept.done,
        findings: findings.collect(),
        recorded: kept.recorded,
        mtus: kept.mtus,
        ready: kept.ready.iter().map(Attachment::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_news_it_is_seldom_due() {
        let mut looks = InterfaceLooks::without_news(mpsc::channel(1).0);
        let now = Instant::now();
        assert!(looks.is_due(now), "never looked");
        assert!(!looks.is_due(now + Duration::from_secs(1)));
        looks.look_soon();
        assert!(looks.is_due(now + Duration::from_secs(2)));
        assert!(!looks.is_due(now + Duration::from_secs(6)));
        assert!(looks.is_due(now + Duration::from_secs(7)));
    }

    #[test]
    fn one_look_at_a_time_and_news_are_not_lost() {
        let mut looks = InterfaceLooks::without_news(mpsc::channel(1).0);
        let now = Instant::now();
        assert!(looks.is_due(now));
        looks.under_way = Some(now);
        looks.look_soon();
        assert!(!looks.is_due(now + Duration::from_secs(9)));
        assert!(looks.is_due(now + GIVEN_UP_AFTER));
        looks.look_soon();
        looks.under_way = None;
        assert!(looks.is_due(now + GIVEN_UP_AFTER));
    }
}
