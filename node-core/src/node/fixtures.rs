//! What tests of one owner alone are given.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use overlay_proto::SeededEntropy;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::PortState;

use super::effects::Effects;
use super::outside::Outside;
use super::sight::HostSight;
use super::storing::Storing;
use super::warnings::Warnings;
use crate::attachment::{Attachment, PortTraffic, TapPort};
use crate::questions::Questions;
use crate::sequences::Sequences;

/// A host without bridges.
#[derive(Debug)]
struct BareHost;

impl HostSight for BareHost {
    fn port_behind(&self, _: &str, _: MacAddr) -> Option<String> {
        None
    }

    fn index_of(&self, _: &str) -> Option<u32> {
        None
    }

    fn port_state(&self, _: &str) -> Option<PortState> {
        None
    }

    fn bridge_of(&self, _: &str) -> Option<String> {
        None
    }

    fn live_ports(&self, _: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn tap_port(&self, _: &str) -> Option<TapPort> {
        None
    }

    fn traffic(&self, _: &str) -> Option<PortTraffic> {
        None
    }

    fn host_name(&self) -> Option<String> {
        Some("host".to_owned())
    }

    fn nic_waits(&self, _: &Attachment) -> bool {
        false
    }
}

/// Empty queues, and a host without bridges.
pub(crate) fn outside(now: Instant) -> Outside {
    Outside {
        asking: Questions::default(),
        store: Storing::new(Sequences::restored(0), now),
        effects: Effects::default(),
        warnings: Warnings::default(),
        drops: Arc::default(),
        sight: Box::new(BareHost),
        entropy: Box::new(SeededEntropy::new(7)),
        fib_stale: false,
    }
}
