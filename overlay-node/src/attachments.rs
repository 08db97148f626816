//! What joins a network on this host: its tap, its bridge, the taps of its VMs.
//!
//! The record is written before the interfaces are made and removed after they are gone, so a
//! crash in between leaves something that `ensure` makes whole or `detach` clears away, never an
//! interface that nobody knows. An interface is ours if it carries our mark; one that does not is
//! never touched, whatever its name.

mod moving;
mod nic;
mod passage;
mod store;
pub mod watcher;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use ipnet::IpNet;
use overlay_proto::ids::NetworkName;
use tap_bridge::host::{self, Isolation, NewTap};
use tap_bridge::tap::{self, TapKind};
use tap_bridge::{Link, LinkKind, Links};

use crate::state::{StateDir, StateError, StateLock};

pub use moving::{CONFIRM_WITHIN, confirm, roll_back, waits};
pub use passage::keep_open;
use store::Book;
pub use store::{AttachmentRecord, Moved, NicPort, Pending, Switches, VmTap};
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
            // The record goes back to what is there; what was made beyond it is removed.
            clear(&links, record, before.find(&spec.network), &mark).await;
            before.save(dir)?;
            return Err(error);
        }
    };
    let mut lines = vec![summary(record)];
    let record = record.clone();
    book.save(dir)?;
    lines.append(&mut told);
    if let Some(watcher) = watcher {
        watcher.whole();
        moving::tell(&record, dir, &mut lines);
    }
    lines.extend(passage::open(&record).await);
    Ok(lines.join("\n"))
}

/// Detaches a network: removes its tap, its VMs' taps and the bridge if it was made here.
///
/// # Errors
/// Not attached, or an interface cannot be removed.
pub async fn detach(dir: &Path, network: &NetworkName) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let record = attached(&book, network)?;
    if let Some(nic) = &record.nic {
        nic::unplug(&links, record, nic).await?;
    }
    for name in interfaces(record) {
        remove_if_ours(&links, name, &book.mark).await?;
    }
    let done = format!(
        "{network} is detached: {} and its taps are gone",
        record.tap
    );
    let bridge = record.bridge_is_ours.then(|| record.bridge.clone());
    book.attachments.retain(|one| one.network != *network);
    book.save(dir)?;
    if let Some(bridge) = bridge {
        passage::close(bridge).await;
    }
    Ok(done)
}

/// Removes the VM tap `vm` of a network; the network stays attached.
///
/// # Errors
/// No such VM tap, or it cannot be removed.
pub async fn detach_vm(dir: &Path, network: &NetworkName, vm: &str) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let vms = &attached(&book, network)?.vms;
    if !vms.iter().any(|one| one.name == vm) {
        let names: Vec<&str> = vms.iter().map(|one| one.name.as_str()).collect();
        bail!(
            "{vm} is no VM tap of {network}; its VM taps: [{}]",
            names.join(" ")
        );
    }
    remove_if_ours(&links, vm, &book.mark).await?;
    if let Some(record) = book.find_mut(network) {
        record.vms.retain(|one| one.name != vm);
    }
    book.save(dir)?;
    Ok(format!("tap {vm} is gone from {network}"))
}

/// Gives the NIC `name` of a network back; the network stays attached.
///
/// # Errors
/// No such NIC, or the kernel refuses.
pub async fn detach_nic(dir: &Path, network: &NetworkName, name: &str) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let record = attached(&book, network)?;
    let Some(nic) = record.nic.as_ref().filter(|nic| nic.name == name) else {
        let has = record.nic.as_ref().map_or("none", |nic| &nic.name);
        bail!("{name} is no NIC of {network}; its NIC: {has}");
    };
    nic::unplug(&links, record, nic).await?;
    if let Some(record) = book.find_mut(network) {
        record.nic = None;
    }
    book.save(dir)?;
    Ok(format!("the NIC {name} is no longer on {network}"))
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
pub fn nic_waits(record: &AttachmentRecord) -> bool {
    let Some(nic) = record.nic.as_ref().filter(|nic| nic.moved.is_some()) else {
        return false;
    };
    let link = Path::new("/sys/class/net").join(&nic.name);
    link.exists() && !link.join("master").exists()
}

fn attached<'a>(book: &'a Book, network: &NetworkName) -> anyhow::Result<&'a AttachmentRecord> {
    book.find(network).with_context(|| {
        format!("network {network} is not attached here; `farlan networks` lists those that are")
    })
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
    record.switches.throw(spec.offload, spec.clamp);
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

/// Makes what is recorded and missing. A name that somebody else has taken meanwhile is replaced by
/// the next free one, in the record, too.
async fn make_whole(
    links: &Links,
    record: &mut AttachmentRecord,
    mark: &str,
    told: &mut Vec<String>,
) -> anyhow::Result<()> {
    let bridge = make_bridge(links, record, mark, told).await?;
    let network = record.network.to_string();
    let mtu = if record.bridge_is_ours {
        record.mtu
    } else {
        bridge.mtu
    };
    if find_ours(links, &record.tap, mark).await? == Found::Foreign {
        record.tap = host::free_name(links, "fl-", &network).await?;
        told.push(format!("network {network} now uses the tap {}", record.tap));
    }
    let tap = NewTap {
        name: &record.tap,
        kind: TapKind::Overlay,
        owner: None,
        mtu,
        mark,
    };
    make_port(links, tap, &bridge, told).await?;
    for vm in &record.vms {
        let tap = NewTap {
            name: &vm.name,
            kind: TapKind::Vm,
            owner: Some(vm.owner),
            ..tap
        };
        make_port(links, tap, &bridge, told).await?;
    }
    if let Some(nic) = &mut record.nic {
        nic::plug(links, nic, &bridge, told).await?;
    }
    Ok(())
}

async fn make_bridge(
    links: &Links,
    record: &mut AttachmentRecord,
    mark: &str,
    told: &mut Vec<String>,
) -> anyhow::Result<Link> {
    if !record.bridge_is_ours {
        return Ok(links.bridge(&record.bridge).await?);
    }
    let bridge = match find_ours(links, &record.bridge, mark).await? {
        Found::Ours(link) if link.kind == LinkKind::Bridge => link,
        found => {
            if found != Found::Nothing {
                let network = record.network.to_string();
                record.bridge = host::free_name(links, "br-", &network).await?;
                told.push(format!(
                    "network {network} now uses the bridge {}",
                    record.bridge
                ));
            }
            let (link, isolation) =
                host::make_bridge(links, &record.bridge, record.mtu, mark).await?;
            tell(told, &record.bridge, isolation);
            link
        }
    };
    if !bridge.up {
        links.set_up(&bridge).await?;
    }
    for address in &record.addresses {
        let ipv6 = matches!(address, IpNet::V6(_));
        tell(
            told,
            &bridge.name,
            host::open_for_address(links, &bridge, ipv6).await,
        );
        links
            .add_address(&bridge, address.addr(), address.prefix_len())
            .await?;
    }
    Ok(bridge)
}

async fn make_port(
    links: &Links,
    tap: NewTap<'_>,
    bridge: &Link,
    told: &mut Vec<String>,
) -> anyhow::Result<()> {
    match find_ours(links, tap.name, tap.mark).await? {
        Found::Nothing => {
            let (_, isolation) = host::make_tap(links, tap, bridge).await?;
            tell(told, tap.name, isolation);
        }
        Found::Foreign => {
            let name = tap.name;
            bail!("interface {name} is not ours; remove it, or detach and choose another name");
        }
        Found::Ours(link) => {
            if link.master != Some(bridge.index) {
                links.set_master(&link, Some(bridge.index)).await?;
            }
            if !link.up {
                links.set_up(&link).await?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours(Link),
    Foreign,
}

async fn find_ours(links: &Links, name: &str, mark: &str) -> anyhow::Result<Found> {
    Ok(match links.find(name).await? {
        None => Found::Nothing,
        Some(link) if link.alias.as_deref() == Some(mark) => Found::Ours(link),
        Some(_) => Found::Foreign,
    })
}

async fn remove_if_ours(links: &Links, name: &str, mark: &str) -> anyhow::Result<()> {
    if let Found::Ours(link) = find_ours(links, name, mark).await? {
        links.delete(&link).await?;
    }
    Ok(())
}

/// Removes the interfaces of `now` that `before` did not have.
async fn clear(
    links: &Links,
    now: &AttachmentRecord,
    before: Option<&AttachmentRecord>,
    mark: &str,
) {
    if let Some(nic) = &now.nic
        && before.is_none_or(|record| record.nic.is_none())
        && let Err(error) = nic::unplug(links, now, nic).await
    {
        tracing::warn!(%error, interface = nic.name, "cannot give the NIC back");
    }
    let had = |name: &str| before.is_some_and(|record| interfaces(record).any(|one| one == name));
    for name in interfaces(now).filter(|name| !had(name)) {
        if let Err(error) = remove_if_ours(links, name, mark).await {
            tracing::warn!(%error, interface = name, "cannot remove what was made half");
        }
    }
}

/// The interfaces made for a network, ports first.
fn interfaces(record: &AttachmentRecord) -> impl Iterator<Item = &str> {
    let vms = record.vms.iter().map(|vm| vm.name.as_str());
    let bridge = record.bridge_is_ours.then_some(record.bridge.as_str());
    vms.chain([record.tap.as_str()]).chain(bridge)
}

fn tell(told: &mut Vec<String>, name: &str, isolation: Isolation) {
    for reason in isolation.not_applied {
        told.push(format!("warning: the host may be seen on {name}: {reason}"));
    }
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
    if !record.switches.clamp {
        text.push_str(", MSS not clamped");
    }
    text
}
