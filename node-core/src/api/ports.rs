//! What is shown of the ports of a network.

use overlay_proto::switching::PortCounters;
use serde::{Deserialize, Serialize};

use crate::attachment::{PortKind, PortState, PortTraffic};

/// `status.networks[].ports[]`: what a guest or a LAN is plugged into on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Its number in this run of the node.
    pub id: u32,
    /// What it is.
    pub kind: PortKind,
    /// The interface; of `bridge` the bridge itself.
    pub name: String,
    /// The VM, by the name given to `attach --vm`.
    pub vm: Option<String>,
    /// Does it carry frames?
    pub state: PortState,
    /// MACs behind it that this node claims.
    pub macs: usize,
    /// What passed it, and what it cost.
    pub counters: PortCountersReport,
}

/// `status.networks[].ports[].counters`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCountersReport {
    /// Frames from the guest or LAN; `null` where the kernel does not count them.
    pub rx_frames: Option<u64>,
    /// Bytes from it.
    pub rx_bytes: Option<u64>,
    /// Frames to it.
    pub tx_frames: Option<u64>,
    /// Bytes to it.
    pub tx_bytes: Option<u64>,
    /// Frames that the slow path had to decide.
    pub punted: u64,
    /// Frames that were dropped because of what they are.
    pub refused: u64,
}

impl PortCountersReport {
    /// What the kernel and the node have counted.
    #[must_use]
    pub fn of(traffic: Option<PortTraffic>, charged: &PortCounters) -> Self {
        Self {
            rx_frames: traffic.map(|traffic| traffic.rx_frames),
            rx_bytes: traffic.map(|traffic| traffic.rx_bytes),
            tx_frames: traffic.map(|traffic| traffic.tx_frames),
            tx_bytes: traffic.map(|traffic| traffic.tx_bytes),
            punted: charged.punted(),
            refused: charged.refused(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_the_contract() {
        let charged = PortCounters::default();
        charged.count_punted();
        let traffic = PortTraffic {
            rx_frames: 1,
            rx_bytes: 60,
            tx_frames: 2,
            tx_bytes: 120,
        };
        let report = PortReport {
            id: 2,
            kind: PortKind::Tap,
            name: "web1".to_owned(),
            vm: Some("web1".to_owned()),
            state: PortState::Shut,
            macs: 0,
            counters: PortCountersReport::of(Some(traffic), &charged),
        };
        let expected = json!({"id": 2, "kind": "tap", "name": "web1", "vm": "web1", "state": "shut",
            "macs": 0, "counters": {"rx_frames": 1, "rx_bytes": 60, "tx_frames": 2, "tx_bytes": 120,
            "punted": 1, "refused": 0}});
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
        let unknown = PortCountersReport::of(None, &charged);
        assert_eq!(
            serde_json::to_value(&unknown).unwrap()["rx_bytes"],
            json!(null)
        );
    }
}
