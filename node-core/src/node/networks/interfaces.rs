//! Taps and bridges are kept as they are recorded, while the node runs.
//!
//! What a look (`shell/interface_looks.rs`) puts back is logged, what it may not put back is a
//! warning; a tap that was made again is opened again.

use std::collections::BTreeMap;
use std::time::Instant;

use overlay_proto::ids::NetworkName;

use super::Networks;
use crate::api::AttachRequest;
use crate::attachment::Attachment;
use crate::node::outside::Outside;
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

    /// Attachments of the configuration that wait for something.
    fn warn_of_waiting(&mut self, now: Instant, out: &mut Outside, kept: &Kept) {
        let untold = self.untold(kept);
        out.warnings.retain(Topic::Configured, |about| {
            untold.iter().any(|(network, _)| network == about)
        });
        for (network, text) in untold {
            out.warnings.raise(now, Topic::Configured, &network, text);
        }
    }

    /// Forgets those that are made by now. The networks of those that wait, and what for; but for what the look has
    /// told of itself.
    fn untold(&mut self, kept: &Kept) -> Vec<(String, String)> {
        let made = |request: &AttachRequest| {
            kept.ready.iter().any(|record| {
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
        self.waiting.retain(|request| !made(request));
        // A record may say the same.
        let told = |request: &&AttachRequest| {
            let bridge = request.bridge.as_deref().unwrap_or_default();
            kept.findings
                .contains_key(&format!("{} {bridge}", request.network))
        };
        let untold = self.waiting.iter().filter(|request| !told(request));
        untold
            .map(|request| (request.network.to_string(), why_it_waits(request)))
            .collect()
    }
}

fn why_it_waits(request: &AttachRequest) -> String {
    let network = &request.network;
    match &request.bridge {
        Some(bridge) => format!(
            "network {network} is not attached as the configuration says: it waits for bridge \
             {bridge}, and joins it within seconds once it is there"
        ),
        None => format!(
            "network {network} is not attached as the configuration says; \
             `farlan attach {network}` says why"
        ),
    }
}

impl Networks {
    /// What a look brought; `None`: nothing. What is there goes on to [`Networks::follow_kept`] once the members know
    /// the MTUs.
    pub(crate) fn handle_kept(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        outcome: Result<Kept, String>,
    ) -> Option<Kept> {
        let mut kept = match outcome {
            Ok(kept) => kept,
            Err(error) => {
                let text = format!("taps and bridges cannot be looked after: {error}");
                out.warnings.raise(tick.now, Topic::Interface, "", text);
                return None;
            }
        };
        self.interfaces.recorded = Some(std::mem::take(&mut kept.recorded));
        for line in &kept.done {
            tracing::info!("{line}");
        }
        let found = &kept.findings;
        out.warnings
            .retain(Topic::Interface, |about| found.contains_key(about));
        for (about, text) in found {
            out.warnings
                .raise(tick.now, Topic::Interface, about, text.clone());
        }
        Some(kept)
    }

    /// What follows from a look for attachments that wait, and for the bridges.
    pub(crate) fn follow_kept(&mut self, tick: Tick, out: &mut Outside, kept: &Kept) {
        self.interfaces.warn_of_waiting(tick.now, out, kept);
        if !kept.done.is_empty() {
            self.look_at_bridges(tick.now, out, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{AttachedVm, PortState};

    fn request(network: &str, bridge: Option<&str>) -> AttachRequest {
        AttachRequest {
            bridge: bridge.map(str::to_owned),
            ..AttachRequest::new(network.parse().unwrap())
        }
    }

    fn record(network: &str, bridge: &str) -> Attachment {
        Attachment {
            network: network.parse().unwrap(),
            tap: "tap0".to_owned(),
            bridge: bridge.to_owned(),
            bridge_is_ours: false,
            addresses: Vec::new(),
            nic: None,
            vms: vec![AttachedVm {
                name: "vm1".to_owned(),
                state: PortState::Open,
            }],
            switches: crate::attachment::Switches::default(),
        }
    }

    fn ready(ready: Vec<Attachment>) -> Kept {
        Kept {
            ready,
            ..Kept::default()
        }
    }

    fn networks(told: &[(String, String)]) -> Vec<&str> {
        told.iter().map(|(network, _)| network.as_str()).collect()
    }

    #[test]
    fn an_attachment_waits_until_all_of_it_is_made() {
        let mut interfaces = Interfaces::default();
        let vm = AttachRequest {
            vm: Some("vm2".to_owned()),
            ..request("den", None)
        };
        interfaces.wait_for(vec![request("lab", Some("br0")), vm]);
        let told = interfaces.untold(&ready(vec![record("lab", "br1"), record("den", "br2")]));
        assert_eq!(networks(&told), ["lab", "den"]);
        assert!(told[0].1.contains("waits for bridge br0"), "{told:?}");
        assert!(told[1].1.contains("`farlan attach den`"), "{told:?}");
        let told = interfaces.untold(&ready(vec![record("lab", "br0")]));
        assert_eq!(networks(&told), ["den"]);
        assert_eq!(interfaces.waiting().len(), 1);
        // What was made waits no more, whatever becomes of it.
        assert_eq!(networks(&interfaces.untold(&Kept::default())), ["den"]);
    }

    #[test]
    fn what_the_look_says_itself_is_not_said_twice() {
        let mut interfaces = Interfaces::default();
        interfaces.wait_for(vec![request("lab", Some("br0"))]);
        let mut kept = Kept::default();
        kept.findings
            .insert("lab br0".to_owned(), "bridge br0 is missing".to_owned());
        assert!(interfaces.untold(&kept).is_empty());
        assert_eq!(interfaces.waiting().len(), 1);
    }

    #[test]
    fn a_network_is_without_an_attachment_if_none_is_recorded_or_awaited() {
        let (lab, den): (NetworkName, NetworkName) =
            ("lab".parse().unwrap(), "den".parse().unwrap());
        let mut interfaces = Interfaces::default();
        assert!(!interfaces.is_without(&lab), "nobody has looked yet");
        interfaces.recorded = Some(vec![den.clone()]);
        assert!(interfaces.is_without(&lab) && !interfaces.is_without(&den));
        interfaces.wait_for(vec![request("lab", None)]);
        assert!(!interfaces.is_without(&lab));
    }
}
