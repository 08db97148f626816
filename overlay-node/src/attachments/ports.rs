//! The ports of an own bridge that are not ours: guests that libvirt, Docker or the administrator
//! plugged in. A bridge that vanishes takes them down with it, and only we know who they were.
//!
//! They are put back on the bridge that is made in its place, in the same boot: by name *and* number,
//! so that an interface which only has the name of an old one is left alone.

use overlay_proto::ids::NetworkName;
use serde::{Deserialize, Serialize};
use tap_bridge::{Link, Links};

use super::making::interfaces;
use super::moving::this_boot;
use super::store::{AttachmentRecord, Book};

/// Ports remembered of one bridge: a Linux bridge takes no more than 1,023.
const MAX_PORTS: usize = 1023;

/// An interface, as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) index: u32,
}

/// The ports of one network's own bridge, at the last look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BridgePorts {
    pub(super) network: NetworkName,
    /// Numbers of interfaces mean something in one boot only.
    pub(super) boot: String,
    /// The number of the bridge they were on; of none once it was detached.
    pub(super) bridge: u32,
    /// Bound: [`MAX_PORTS`]; replaced by the next look.
    pub(super) ports: Vec<Port>,
}

impl BridgePorts {
    /// What is on `bridge` now, without the network's own interfaces.
    pub(super) fn seen(
        record: &AttachmentRecord,
        bridge: &Link,
        links: &[Link],
        boot: &str,
    ) -> Self {
        let ports = foreign(record, bridge, links).take(MAX_PORTS);
        Self {
            network: record.network.clone(),
            boot: boot.to_owned(),
            bridge: bridge.index,
            ports: ports
                .map(|link| Port {
                    name: link.name.clone(),
                    index: link.index,
                })
                .collect(),
        }
    }

    /// Those that still exist and are no port of anything.
    pub(super) fn missing<'a>(&self, links: &'a [Link]) -> Vec<&'a Link> {
        let known = |link: &&Link| {
            let mut ports = self.ports.iter();
            ports.any(|port| port.name == link.name && port.index == link.index)
        };
        let mut missing: Vec<&Link> = links.iter().filter(known).collect();
        missing.retain(|link| link.master.is_none());
        missing
    }
}

/// The ports of `bridge` that are not of `record`.
pub(super) fn foreign<'a>(
    record: &AttachmentRecord,
    bridge: &Link,
    links: &'a [Link],
) -> impl Iterator<Item = &'a Link> {
    let ports = links
        .iter()
        .filter(move |link| link.master == Some(bridge.index));
    ports.filter(|link| {
        let nic = record.nic.as_ref();
        interfaces(record).all(|name| name != link.name)
            && nic.is_none_or(|nic| nic.name != link.name)
    })
}

/// Puts back on the bridge of `network`, made just now, what was on the one before. Lines for the
/// user; what will not be put back is told, too.
///
/// # Errors
/// The kernel does not list its links.
pub(super) async fn put_back(
    links: &Links,
    book: &mut Book,
    network: &NetworkName,
) -> anyhow::Result<Vec<String>> {
    let all = links.all().await?;
    let record = book.find(network).filter(|record| record.bridge_is_ours);
    let bridge = record.and_then(|record| all.iter().find(|link| link.name == record.bridge));
    let (Some(bridge), Some(remembered)) = (bridge, book.ports_of(network)) else {
        return Ok(Vec::new());
    };
    let boot = this_boot()?;
    if remembered.bridge == bridge.index || remembered.boot != boot {
        return Ok(Vec::new());
    }
    let missing = remembered.missing(&all);
    let (mut back, mut told) = (Vec::new(), Vec::new());
    for port in missing {
        match links.set_master(port, Some(bridge.index)).await {
            Ok(()) => back.push(port.name.as_str()),
            Err(error) => told.push(format!("warning: {} is not put back: {error}", port.name)),
        }
    }
    if !back.is_empty() {
        let back = back.join(" ");
        told.insert(0, format!("back on {}, as before: {back}", bridge.name));
    }
    book.settle_ports(network, bridge.index);
    Ok(told)
}
