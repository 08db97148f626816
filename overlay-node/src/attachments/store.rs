//! `attachments.json`: what this state directory has attached. A crash leaves the old or the new text.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use host_services::{OsEntropy, files};
use node_core::attachment::{AttachedNic, Attachment, Switches};
use overlay_proto::Entropy;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::NetworkName;
use serde::{Deserialize, Serialize};
use tap_bridge::HostNetwork;

use super::ports::BridgePorts;

const FILE: &str = "attachments.json";
const VERSION: u32 = 1;

/// Networks a host can attach: as many as invites can name many times over.
const MAX_ATTACHMENTS: usize = 256;

/// VM taps of one network.
pub(super) const MAX_VMS: usize = 256;

/// One attached network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// The network.
    pub network: NetworkName,
    /// The tap that the node reads: `fl-` and the network's name, or a number where that was taken.
    pub tap: String,
    /// The bridge the tap is a port of.
    pub bridge: String,
    /// Made here, so that `detach` removes it; else it was there before and stays.
    pub bridge_is_ours: bool,
    /// The guests' IP MTU, in bytes.
    pub mtu: u32,
    /// The addresses that the administrator gave the host on the own bridge, as `IP/PREFIX`.
    #[serde(default)]
    pub addresses: Vec<ipnet::IpNet>,
    /// The NIC of `attach --nic`.
    #[serde(default)]
    pub nic: Option<NicPort>,
    /// The taps of `attach --vm`, in the order they were made.
    pub vms: Vec<VmTap>,
    /// What may be switched off; a record without them has both on.
    #[serde(default)]
    pub switches: Switches,
}

impl From<&AttachmentRecord> for Attachment {
    fn from(record: &AttachmentRecord) -> Self {
        let nic = record.nic.as_ref().map(|nic| AttachedNic {
            name: nic.name.clone(),
            is_moved: nic.moved.is_some(),
        });
        Self {
            network: record.network.clone(),
            tap: record.tap.clone(),
            bridge: record.bridge.clone(),
            bridge_is_ours: record.bridge_is_ours,
            addresses: record.addresses.clone(),
            nic,
            vms: record.vms.iter().map(|vm| vm.name.clone()).collect(),
            switches: record.switches,
        }
    }
}

/// A NIC on the own bridge, and how it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicPort {
    /// Its name.
    pub name: String,
    /// It was up.
    pub was_up: bool,
    /// The host spoke IPv6 by it.
    pub had_ipv6: bool,
    /// The host's addresses were moved from it to the bridge (`--move-addresses`).
    #[serde(default)]
    pub moved: Option<Moved>,
}

/// What was moved from a NIC to the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// What the host had by the NIC.
    pub network: HostNetwork,
    /// The bridge's own Ethernet address, which it has again once all is back.
    pub bridge_mac: MacAddr,
    /// Nobody has confirmed it yet.
    pub pending: Option<Pending>,
}

/// Until when a move waits for `farlan confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The boot it was made in (`/proc/sys/kernel/random/boot_id`): no other knows its addresses.
    pub boot: String,
    /// On the clock that counts from boot, suspended time included, in milliseconds.
    pub deadline_ms: u64,
}

/// A tap for a hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmTap {
    /// Its name.
    pub name: String,
    /// The user who may open it.
    pub owner: u32,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Book {
    version: u32,
    /// Set as the alias of every interface made from this directory: names can be taken by others
    /// after a reboot, this cannot.
    pub(super) mark: String,
    pub(super) attachments: Vec<AttachmentRecord>,
    /// What is or was on the own bridges besides. Bound: [`MAX_ATTACHMENTS`]; the oldest goes.
    #[serde(default)]
    ports: Vec<BridgePorts>,
}

impl Book {
    /// Reads the file; an empty book with a new mark if there is none.
    pub(super) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::new());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let book: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; restore or remove it", path.display()))?;
        if book.version != VERSION {
            bail!(
                "{} has version {}, this program knows {VERSION}; use the program that wrote it",
                path.display(),
                book.version
            );
        }
        Ok(book)
    }

    /// Writes the file.
    pub(super) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        if self.attachments.len() > MAX_ATTACHMENTS {
            bail!("more than {MAX_ATTACHMENTS} networks attached; detach one first");
        }
        let path = dir.join(FILE);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(dir)?;
            files::replace(&path, &[&serde_json::to_vec_pretty(self)?])
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn find(&self, network: &NetworkName) -> Option<&AttachmentRecord> {
        self.attachments.iter().find(|one| one.network == *network)
    }

    pub(super) fn find_mut(&mut self, network: &NetworkName) -> Option<&mut AttachmentRecord> {
        self.attachments
            .iter_mut()
            .find(|one| one.network == *network)
    }

    /// What was last seen on the own bridge of `network`.
    pub(super) fn ports_of(&self, network: &NetworkName) -> Option<&BridgePorts> {
        self.ports.iter().find(|one| one.network == *network)
    }

    /// Remembers `ports`; `true` if that is news.
    pub(super) fn remember(&mut self, ports: BridgePorts) -> bool {
        let known = self
            .ports
            .iter_mut()
            .find(|one| one.network == ports.network);
        if let Some(known) = known {
            let news = *known != ports;
            *known = ports;
            return news;
        }
        if ports.ports.is_empty() {
            return false;
        }
        if self.ports.len() >= MAX_ATTACHMENTS {
            self.ports.remove(0);
        }
        self.ports.push(ports);
        true
    }

    /// What was on the bridge of `network` before the one with number `bridge` is back on it, or will
    /// not come back.
    pub(super) fn settle_ports(&mut self, network: &NetworkName, bridge: u32) {
        let mut all = self.ports.iter_mut();
        if let Some(known) = all.find(|one| one.network == *network) {
            known.bridge = bridge;
        }
    }

    pub(super) fn new() -> Self {
        Self {
            version: VERSION,
            mark: format!("farlan:{:016x}", OsEntropy.next_u64()),
            attachments: Vec::new(),
            ports: Vec::new(),
        }
    }
}
