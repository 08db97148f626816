//! Taps and bridges are kept as they are recorded, while the node runs.
//!
//! What a look (`shell/interface_looks.rs`) puts back is logged, what it may not put back is a
//! warning; a tap that was made again is opened again.

use std::collections::BTreeMap;
use std::time::Instant;

use overlay_proto::ids::NetworkName;

use crate::api::AttachRequest;
use crate::attachment::Attachment;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
use crate::node::warnings::Topic;

/// How taps and bridges are after a look.
#[derive(Debug, Default)]
pub struct Kept {
    /// What was done, a line each.
    pub done: Vec<String>,
    /// What is wrong and stays so: by network and interface, a line each that says what, why, what to do.
    pub findings: BTreeMap<String, String>,
    /// All that is recorded.
    pub recorded: Vec<NetworkName>,
    /// The MTUs of the taps that are there.
    pub mtus: Vec<(NetworkName, u32)>,
    /// The attachments whose own tap is there and could be opened.
    pub ready: Vec<Attachment>,
}

/// What is known of taps and bridges, and what is missing.
#[derive(Debug, Default)]
pub struct Interfaces {
    /// The networks with an attachment, as of the last look.
    recorded: Option<Vec<NetworkName>>,
    /// Attachments of the configuration that could not be made yet. Bound: the configuration's.
    waiting: Vec<AttachRequest>,
}

impl Interfaces {
    /// These attachments of the configuration are tried again.
    pub fn wait_for(&mut self, requests: Vec<AttachRequest>) {
        self.waiting = requests;
    }

    /// Those that still wait.
    pub fn waiting(&self) -> &[AttachRequest] {
        &self.waiting
    }

    /// Has the network no attachment, so that only a command can make one?
    pub(crate) fn is_without(&self, network: &NetworkName) -> bool {
        let mut waiting = self.waiting.iter();
        let waits = waiting.any(|request| request.network == *network);
        let recorded = self.recorded.as_ref();
        recorded.is_some_and(|recorded| !waits && !recorded.contains(network))
    }
}

impl Node {
    /// What a look brought.
    pub fn handle_kept(&mut self, tick: Tick, outcome: Result<Kept, String>) {
        let kept = match outcome {
            Ok(kept) => kept,
            Err(error) => {
                let text = format!("taps and bridges cannot be looked after: {error}");
                return self
                    .outside
                    .warnings
                    .raise(tick.now, Topic::Interface, "", text);
            }
        };
        self.networks.interfaces.recorded = Some(kept.recorded);
        for line in &kept.done {
            tracing::info!("{line}");
        }
        let found = kept.findings;
        self.outside
            .warnings
            .retain(Topic::Interface, |about| found.contains_key(about));
        for (about, text) in &found {
            self.outside
                .warnings
                .raise(tick.now, Topic::Interface, about, text.clone());
        }
        self.note_own_mtus(tick, &kept.mtus);
        self.warn_of_waiting(tick.now, &kept.ready, |about| found.contains_key(about));
        if !kept.done.is_empty() {
            self.networks
                .look_at_bridges(tick.now, &mut self.outside, true);
        }
    }

    /// Attachments of the configuration that wait for something.
    fn warn_of_waiting(
        &mut self,
        now: Instant,
        ready: &[Attachment],
        is_told: impl Fn(&str) -> bool,
    ) {
        let made = |request: &AttachRequest| {
            ready.iter().any(|record| {
                record.network == request.network
                    && request
                        .bridge
                        .as_ref()
                        .is_none_or(|name| *name == record.bridge)
                    && request.vm.as_ref().is_none_or(|vm| record.vms.contains(vm))
            })
        };
        self.networks
            .interfaces
            .waiting
            .retain(|request| !made(request));
        let waiting = &self.networks.interfaces.waiting;
        // A record may say the same.
        let told = |request: &&AttachRequest| {
            let bridge = request.bridge.as_deref().unwrap_or_default();
            is_told(&format!("{} {bridge}", request.network))
        };
        let untold: Vec<&AttachRequest> = waiting.iter().filter(|one| !told(one)).collect();
        self.outside.warnings.retain(Topic::Configured, |about| {
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
            self.outside
                .warnings
                .raise(now, Topic::Configured, network.as_str(), text);
        }
    }
}
