//! What joins a network on this host: its tap, its bridge, the taps of its VMs.
//!
//! The record is written before the interfaces are made and removed after they are gone, so a
//! crash in between leaves something that `ensure` makes whole or `detach` clears away, never an
//! interface that nobody knows. An interface is ours if it carries our mark; one that does not is
//! never touched, whatever its name.

mod detaching;
mod making;
mod moving;
mod nic;
pub mod overlay_port;
mod passage;
mod plan;
mod ports;
mod reconcile;
mod store;
pub mod watcher;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use overlay_proto::ids::NetworkName;
use tap_bridge::{Links, host, tap};

use crate::state::{StateDir, StateError, StateLock};

pub use detaching::{detach, detach_nic, detach_vm, in_use};
use making::{clear, interfaces, make_whole};
pub use moving::{CONFIRM_WITHIN, confirm, roll_back, waits};
pub use node_core::attachment::{Attachment, Switches, TapPort};
pub use passage::keep_open;
pub use plan::Finding;
pub use reconcile::{Kept, Memory, reconcile};
use store::Book;
pub use store::{AttachmentRecord, Moved, NicPort, Pending, VmTap};
use watcher::Watcher;

/// The guests' IP MTU unless the network says otherwise, in bytes.
pub const DEFAULT_MTU: u32 = 1500;

/// What `farlan attach` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachSpec {
    /// The network.
    pub network: NetworkName,
    /// What joins it.
    pub target: AttachTarget,
    /// The network's MTU, in bytes of IP.
    pub mtu: u32,
    /// An address for the host on the own bridge (`--address`).
    pub address: Option<IpNet>,
    /// The user who may open the VM tap without `CAP_NET_ADMIN`; `None` is the caller.
    pub owner: Option<u32>,
    /// Throws [`Switches::offload`]; `None` leaves it as it is.
    pub offload: Option<bool>,
    /// Throws [`Switches::clamp`]; `None` leaves it as it is.
    pub clamp: Option<bool>,
    /// Throws [`Switches::bpdu`]; `None` leaves it as it is.
    pub bpdu: Option<bool>,
    /// Move the NIC's addresses and routes to the bridge, and back unless somebody confirms within
    /// this (`--move-addresses`, `--confirm-within`).
    pub move_addresses: Option<Duration>,
    /// The program that watches a move: this one.
    pub program: PathBuf,
}

impl AttachSpec {
    /// `network` by `target`, the rest as usual.
    #[must_use]
    pub fn new(network: NetworkName, target: AttachTarget) -> Self {
        Self {
            network,
            target,
            mtu: DEFAULT_MTU,
            address: None,
            owner: None,
            offload: None,
            clamp: None,
            bpdu: None,
            move_addresses: None,
            // Not its path: the file there may be a newer version by now.
            program: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// The right to change what is attached by `dir`.
fn hold(dir: &Path) -> Result<StateLock, StateError> {
    let state = StateDir::at(dir);
    state.create()?;
    state.attaching()
}

/// What joins a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachTarget {
    /// The bridge `br-NETWORK`, made here.
    DefaultBridge,
    /// A bridge that exists.
    Bridge(String),
    /// A new tap of this name for a hypervisor, on the network's bridge.
    Vm(String),
    /// A NIC that this host does not need, on the network's own bridge.
    Nic(String),
}

/// Attaches. What is attached so already is no error. Returns what to tell the user.
///
/// # Errors
/// One line: what, why, what to do. Nothing is left half made.
pub async fn attach(dir: &Path, spec: &AttachSpec) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut before = Book::load(dir)?;
    let mut told = moving::roll_back_in(&links, &mut before, false).await?;
    if !told.is_empty() {
        before.save(dir)?;
    }
    let mut book = before.clone();
    check_target(&links, &book, spec).await?;
    if book.find(&spec.network).is_none() {
        let record = new_record(&links, spec).await?;
        book.attachments.push(record);
    }
    add_extras(&links, &mut book, spec).await?;
    book.save(dir)?;
    let moves = moving::waiting(&before) != moving::waiting(&book);
    let watcher = moves
        .then(|| Watcher::start(&spec.program, dir))
        .transpose();
    let mark = book.mark.clone();
    let record = book.find_mut(&spec.network).context("just recorded")?;
    let made = match watcher {
        Ok(watcher) => make_whole(&links, record, &mark, &mut told)
            .await
            .map(|()| watcher),
        Err(error) => Err(error),
    };
    let watcher = match made {
        Ok(watcher) => watcher,
        Err(error) => {
            // The record goes back to what is there; what was made beyond it is removed. Where the NIC does not
            // come back the record stays, and with it the deadline.
            if clear(&links, record, before.find(&spec.network), &mark).await {
                before.save(dir)?;
            } else {
                book.save(dir)?;
            }
            return Err(error);
        }
    };
    let mut lines = vec![summary(record)];
    let record = record.clone();
    told.extend(ports::put_back(&links, &mut book, &spec.network).await?);
    book.save(dir)?;
    lines.append(&mut told);
    if let Some(watcher) = watcher {
        watcher.whole();
        moving::tell(&record, dir, &mut lines);
    }
    lines.extend(passage::open(&record).await);
    Ok(lines.join("\n"))
}

/// What is attached, as recorded.
///
/// # Errors
/// The record cannot be read.
pub fn load(dir: &Path) -> anyhow::Result<Vec<AttachmentRecord>> {
    Book::load(dir).map(|book| book.attachments)
}

/// Makes everything that is recorded and missing, as after a reboot. Returns what to tell the user,
/// one line each; what could not be made is told, too, and does not keep the rest from working.
///
/// # Errors
/// The record cannot be read or written, or the kernel gives no netlink socket.
pub async fn ensure(dir: &Path) -> anyhow::Result<Vec<String>> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let before = book.clone();
    let mut told = moving::roll_back_in(&links, &mut book, false).await?;
    moving::renew(&links, &mut book).await?;
    if book != before {
        book.save(dir)?;
    }
    for record in &mut book.attachments {
        if let Err(error) = make_whole(&links, record, &before.mark, &mut told).await {
            told.push(format!(
                "network {} is not attached: {error:#}",
                record.network
            ));
        }
    }
    if book != before {
        book.save(dir)?;
    }
    Ok(told)
}

/// Does the NIC of this record wait for its addresses, so that they can move to the bridge? After a
/// reboot the host's network may be configured later than this node starts: [`ensure`] again then.
#[must_use]
pub fn nic_waits(attached: &Attachment) -> bool {
    let Some(nic) = attached.nic.as_ref().filter(|nic| nic.is_moved) else {
        return false;
    };
    let link = Path::new("/sys/class/net").join(&nic.name);
    link.exists() && !link.join("master").exists()
}

/// Refuses what contradicts the record or the host, before anything is changed.
async fn check_target(links: &Links, book: &Book, spec: &AttachSpec) -> anyhow::Result<()> {
    let network = &spec.network;
    let record = book.find(network);
    match &spec.target {
        AttachTarget::DefaultBridge => {
            if let Some(record) = record.filter(|record| !record.bridge_is_ours) {
                let bridge = &record.bridge;
                bail!("{network} is on bridge {bridge}; `farlan detach {network}` first to change");
            }
        }
        AttachTarget::Bridge(name) => {
            if let Some(record) = record.filter(|record| record.bridge != *name) {
                let bridge = &record.bridge;
                bail!("{network} is on bridge {bridge}; `farlan detach {network}` first to change");
            }
            if links.find(name).await?.is_none() {
                bail!(
                    "there is no bridge {name}; make it (`ip link add {name} type bridge && ip link \
                     set {name} up`) or leave --bridge away: Farlan then makes br-{network}"
                );
            }
            links.bridge(name).await?;
            let other = book
                .attachments
                .iter()
                .find(|other| other.bridge == *name && other.network != *network);
            if let Some(other) = other {
                let other = &other.network;
                bail!("bridge {name} carries network {other}; two networks on one bridge are one");
            }
        }
        AttachTarget::Nic(name) => {
            nic::check(links, book, record, name, spec.move_addresses.is_some()).await?;
        }
        AttachTarget::Vm(name) => {
            tap::check_name(name)?;
            let taken = book.attachments.iter().find(|other| {
                other.network != *network && interfaces(other).any(|one| one == name)
            });
            if let Some(other) = taken {
                bail!(
                    "{name} belongs to network {}; choose another name",
                    other.network
                );
            }
        }
    }
    let joins = matches!(spec.target, AttachTarget::Bridge(_))
        || record.is_some_and(|record| !record.bridge_is_ours);
    if spec.address.is_some() && joins {
        bail!("--address is for bridges that Farlan makes; give yours one with `ip address add`");
    }
    Ok(())
}

async fn new_record(links: &Links, spec: &AttachSpec) -> anyhow::Result<AttachmentRecord> {
    let network = spec.network.to_string();
    let (bridge, bridge_is_ours, mtu) = match &spec.target {
        AttachTarget::DefaultBridge | AttachTarget::Vm(_) | AttachTarget::Nic(_) => {
            let name = host::free_name(links, "br-", &network).await?;
            (name, true, spec.mtu)
        }
        AttachTarget::Bridge(name) => {
            // A smaller port would shrink a bridge that is not ours.
            let bridge = links.bridge(name).await?;
            (name.clone(), false, bridge.mtu)
        }
    };
    Ok(AttachmentRecord {
        tap: host::free_name(links, "fl-", &network).await?,
        network: spec.network.clone(),
        bridge,
        bridge_is_ours,
        mtu,
        addresses: Vec::new(),
        nic: None,
        vms: Vec::new(),
        switches: Switches::default(),
    })
}

/// Records the switches, the VM tap and the address that are asked for on top of the network's own
/// interfaces.
async fn add_extras(links: &Links, book: &mut Book, spec: &AttachSpec) -> anyhow::Result<()> {
    let Some(record) = book.find_mut(&spec.network) else {
        return Ok(());
    };
    record.switches.throw(spec.offload, spec.clamp, spec.bpdu);
    if let Some(address) = spec.address
        && !record.addresses.contains(&address)
    {
        record.addresses.push(address);
    }
    if let AttachTarget::Nic(name) = &spec.target
        && record.nic.is_none()
    {
        record.nic = Some(match spec.move_addresses {
            Some(within) => {
                let link = links.get(name).await?;
                moving::record(links, &link, &record.bridge, within).await?
            }
            None => NicPort {
                name: name.clone(),
                was_up: true,
                had_ipv6: false,
                moved: None,
            },
        });
    }
    if let AttachTarget::Vm(name) = &spec.target
        && !record.vms.iter().any(|vm| vm.name == *name)
    {
        if links.find(name).await?.is_some() || record.tap == *name || record.bridge == *name {
            bail!("interface {name} exists already; choose another name for the VM's tap");
        }
        if record.vms.len() >= store::MAX_VMS {
            bail!(
                "{} VM taps are attached; detach one first",
                record.vms.len()
            );
        }
        record.vms.push(VmTap {
            name: name.clone(),
            owner: spec.owner.unwrap_or_else(tap::current_user),
        });
    }
    Ok(())
}

/// How the tap `name` is now; `None` if it is not there.
#[must_use]
pub fn port(name: &str) -> Option<TapPort> {
    let link = Path::new("/sys/class/net").join(name);
    let mtu: u32 = std::fs::read_to_string(link.join("mtu"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let master = std::fs::read_link(link.join("master")).ok();
    let name = master.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Some(TapPort {
        bridge: name,
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    })
}

fn summary(record: &AttachmentRecord) -> String {
    let AttachmentRecord {
        network,
        tap,
        bridge,
        ..
    } = record;
    let mut text = format!("{network} is attached: tap {tap} on bridge {bridge}");
    if let Some(nic) = &record.nic {
        text.push_str(&format!(", NIC {}", nic.name));
    }
    if !record.vms.is_empty() {
        let names: Vec<&str> = record.vms.iter().map(|vm| vm.name.as_str()).collect();
        text.push_str(&format!(", for VMs: {}", names.join(" ")));
    }
    if !record.switches.offload {
        text.push_str(", offload off");
    }
    if record.switches.bpdu {
        text.push_str(", BPDUs pass");
    }
    if !record.switches.clamp {
        text.push_str(", MSS not clamped");
    }
    text
}
