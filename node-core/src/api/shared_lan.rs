//! What is shown of a LAN that several nodes are plugged into.

use overlay_proto::ids::PeerId;
use serde::{Deserialize, Serialize};

/// `status.networks[].shared[]`: several nodes are plugged into one LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLanReport {
    /// The VLAN, 0 for untagged.
    pub vlan: u16,
    /// The interface of this host by which the others are heard.
    pub port: String,
    /// The node that carries the LAN's frames; `null` while nobody does.
    pub forwarder: Option<PeerId>,
    /// The other nodes.
    pub others: Vec<PeerId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shared_lans_are_the_contract() {
        let (me, other) = (PeerId([7; 32]), PeerId([8; 32]));
        let report = SharedLanReport {
            vlan: 0,
            port: "eth1".to_owned(),
            forwarder: Some(me),
            others: vec![other],
        };
        let expected = json!({"vlan": 0, "port": "eth1", "forwarder": me.to_string(),
            "others": [other.to_string()]});
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
