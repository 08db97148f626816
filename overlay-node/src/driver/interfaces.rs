//! Taps and bridges are kept as they are recorded, while the node runs.
//!
//! The kernel tells of every change of a link. A look each second takes what it told, and if that
//! was anything, or nothing was looked at for a while, [`attachments::reconcile`] compares the record
//! with what is there, beside the slow path. What it puts back is logged, what it may not put back is
//! a warning; a tap that was made again is opened again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_proto::ids::NetworkName;
use tap_bridge::Links;
use tokio::sync::{Mutex, mpsc};

use super::effects::Effect;
use super::kernel_events::KernelEvents;
use super::node::Tick;
use super::run::Driver;
use super::warnings::Topic;
use crate::attachments::{self, AttachmentRecord, Kept, Memory};
use crate::cli::attach_now;
use crate::control_socket::api::AttachRequest;

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
pub(crate) struct Interfaces {
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
    /// The networks with an attachment, as of the last look.
    recorded: Option<Vec<NetworkName>>,
    /// Attachments of the configuration that could not be made yet. Bound: the configuration's.
    waiting: Vec<AttachRequest>,
}

impl Interfaces {
    /// From now on. Must be called within a tokio runtime.
    pub(crate) fn start() -> (Self, mpsc::Receiver<Outcome>) {
        let events = KernelEvents::listen(libc::NETLINK_ROUTE, LINK_GROUP);
        if let Err(error) = &events {
            tracing::debug!(%error, "changes of interfaces are not heard");
        }
        let (outcomes, receiver) = mpsc::channel(1);
        let interfaces = Self {
            events: events.ok(),
            links: Links::connect().ok(),
            memory: Arc::default(),
            outcomes,
            under_way: None,
            looked: None,
            changed: true,
            recorded: None,
            waiting: Vec::new(),
        };
        (interfaces, receiver)
    }

    /// These attachments of the configuration are tried again.
    pub(crate) fn wait_for(&mut self, requests: Vec<AttachRequest>) {
        self.waiting = requests;
    }

    /// Has the network no attachment, so that only a command can make one?
    pub(crate) fn is_without(&self, network: &NetworkName) -> bool {
        let mut waiting = self.waiting.iter();
        let waits = waiting.any(|request| request.network == *network);
        let recorded = self.recorded.as_ref();
        recorded.is_some_and(|recorded| !waits && !recorded.contains(network))
    }

    /// The next look is due at once.
    pub(crate) const fn look_soon(&mut self) {
        self.changed = true;
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
}

impl Driver {
    /// Looks at the interfaces if there is a reason to.
    pub(crate) fn keep_interfaces(&mut self, now: Instant) {
        if !self.interfaces.is_due(now) {
            return;
        }
        let Some(links) = self.interfaces.links.clone() else {
            return;
        };
        self.interfaces.under_way = Some(now);
        let (memory, outcomes) = (
            Arc::clone(&self.interfaces.memory),
            self.interfaces.outcomes.clone(),
        );
        let (state, membership) = (self.state.clone(), self.node.membership.clone());
        let waiting = self.interfaces.waiting.clone();
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
            // The driver may have ended.
            let _ = outcomes.send(outcome).await;
        });
    }

    /// What a look brought.
    pub(crate) fn handle_kept(&mut self, tick: Tick, outcome: Outcome) {
        self.interfaces.under_way = None;
        let kept = match outcome {
            Ok(kept) => kept,
            Err(error) => {
                let text = format!("taps and bridges cannot be looked after: {error}");
                return self.warnings.raise(tick.now, Topic::Interface, "", text);
            }
        };
        self.interfaces.recorded = Some(kept.recorded);
        for line in &kept.done {
            tracing::info!("{line}");
        }
        let mut found = BTreeMap::new();
        for (network, finding) in kept.findings {
            found.insert(format!("{network} {}", finding.interface), finding.text);
        }
        self.warnings
            .retain(Topic::Interface, |about| found.contains_key(about));
        for (about, text) in &found {
            self.warnings
                .raise(tick.now, Topic::Interface, about, text.clone());
        }
        self.note_own_mtus(tick, &kept.mtus);
        self.warn_of_waiting(tick.now, &kept.ready, |about| found.contains_key(about));
        self.effects.push(Effect::KeepTaps(kept.ready));
        if !kept.done.is_empty() {
            self.look_at_bridges(true);
        }
    }

    /// Attachments of the configuration that wait for something.
    fn warn_of_waiting(
        &mut self,
        now: Instant,
        ready: &[AttachmentRecord],
        is_told: impl Fn(&str) -> bool,
    ) {
        let made = |request: &AttachRequest| {
            ready.iter().any(|record| {
                record.network == request.network
                    && request
                        .bridge
                        .as_ref()
                        .is_none_or(|name| *name == record.bridge)
                    && request
                        .vm
                        .as_ref()
                        .is_none_or(|vm| record.vms.iter().any(|one| one.name == *vm))
            })
        };
        self.interfaces.waiting.retain(|request| !made(request));
        let waiting = &self.interfaces.waiting;
        // A record may say the same.
        let told = |request: &&AttachRequest| {
            let bridge = request.bridge.as_deref().unwrap_or_default();
            is_told(&format!("{} {bridge}", request.network))
        };
        let untold: Vec<&AttachRequest> = waiting.iter().filter(|one| !told(one)).collect();
        self.warnings.retain(Topic::Configured, |about| {
            untold
                .iter()
                .any(|request| request.network.as_str() == about)
        });
        for request in untold {
            let network = &request.network;
            let text = match &request.bridge {
                Some(bridge) => format!(
                    "network {network} is not attached as the configuration says: it waits for bridge \
                     {bridge}, and joins it within seconds once it is there"
                ),
                None => format!(
                    "network {network} is not attached as the configuration says; \
                     `farlan attach {network}` says why"
                ),
            };
            self.warnings
                .raise(now, Topic::Configured, network.as_str(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_news_it_is_seldom_due() {
        let (mut interfaces, _outcomes) = Interfaces::start();
        // Other tests may change interfaces of this host.
        interfaces.events = None;
        let now = Instant::now();
        assert!(interfaces.is_due(now), "never looked");
        assert!(!interfaces.is_due(now + Duration::from_secs(1)));
        interfaces.look_soon();
        assert!(interfaces.is_due(now + Duration::from_secs(2)));
        assert!(!interfaces.is_due(now + Duration::from_secs(6)));
        assert!(interfaces.is_due(now + Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn one_look_at_a_time_and_news_are_not_lost() {
        let (mut interfaces, _outcomes) = Interfaces::start();
        interfaces.events = None;
        let now = Instant::now();
        assert!(interfaces.is_due(now));
        interfaces.under_way = Some(now);
        interfaces.look_soon();
        assert!(!interfaces.is_due(now + Duration::from_secs(9)));
        assert!(interfaces.is_due(now + GIVEN_UP_AFTER));
        interfaces.look_soon();
        interfaces.under_way = None;
        assert!(interfaces.is_due(now + GIVEN_UP_AFTER));
    }
}
