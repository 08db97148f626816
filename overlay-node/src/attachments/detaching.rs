//! Taking attachments away.
//!
//! A bridge that is removed cuts off every guest that is plugged into it, and a tap that is removed
//! leaves the hypervisor that has it open without a NIC until it is started again. So both are only
//! done to running guests when that is asked for; the ports are remembered for the next `attach`.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use overlay_proto::ids::NetworkName;
use tap_bridge::{Link, Links};

use super::making::{interfaces, keep_addresses, remove_if_ours};
use super::moving::this_boot;
use super::ports::{BridgePorts, foreign};
use super::store::{AttachmentRecord, Book};
use super::{hold, nic, passage};

/// Whom taking away the bridge or the taps of a network would cut off.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct InUse {
    /// The own bridge, if others are plugged into it.
    bridge: Option<String>,
    /// Ports of the own bridge that Farlan did not make.
    ports: Vec<String>,
    /// Taps that a hypervisor has open.
    open: Vec<String>,
}

impl InUse {
    fn of(record: &AttachmentRecord, links: &[Link]) -> Self {
        let bridge = links
            .iter()
            .find(|link| record.bridge_is_ours && link.name == record.bridge);
        let ports = bridge
            .into_iter()
            .flat_map(|bridge| foreign(record, bridge, links));
        let ports: Vec<String> = ports.map(|link| link.name.clone()).collect();
        Self {
            bridge: bridge
                .filter(|_| !ports.is_empty())
                .map(|link| link.name.clone()),
            ports,
            open: record
                .vms
                .iter()
                .filter_map(|vm| open_tap(&vm.name, links))
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.open.is_empty()
    }
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(bridge) = &self.bridge {
            parts.push(format!("the ports {} of {bridge}", self.ports.join(" ")));
        }
        if !self.open.is_empty() {
            parts.push(format!(
                "the VM taps {}, which are open",
                self.open.join(" ")
            ));
        }
        f.write_str(&parts.join(", and "))
    }
}

/// The tap `name`, if somebody has it open.
fn open_tap(name: &str, links: &[Link]) -> Option<String> {
    let link = links.iter().find(|link| link.name == name)?;
    link.carrier.then(|| link.name.clone())
}

/// Whom [`detach`] of `network` would cut off; one line, `None` if nobody.
///
/// # Errors
/// The record or the links cannot be read.
pub async fn in_use(dir: &Path, network: &NetworkName) -> anyhow::Result<Option<String>> {
    let book = Book::load(dir)?;
    let Some(record) = book.find(network) else {
        return Ok(None);
    };
    let used = InUse::of(record, &Links::connect()?.all().await?);
    Ok(Some(used)
        .filter(|used| !used.is_empty())
        .map(|used| used.to_string()))
}

/// Detaches a network: removes its tap, its VMs' taps and the bridge if it was made here; with
/// running guests on them only by `force`.
///
/// # Errors
/// Not attached, in use, or an interface cannot be removed.
pub async fn detach(dir: &Path, network: &NetworkName, force: bool) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let record = &attached(&book, network)?.clone();
    let (all, boot) = (links.all().await?, this_boot()?);
    let used = InUse::of(record, &all);
    if !force && !used.is_empty() {
        bail!(
            "{used} would be cut off; unplug them first, or type `farlan detach {network} --force`"
        );
    }
    let ports = all
        .iter()
        .find(|link| record.bridge_is_ours && link.name == record.bridge)
        .map(|bridge| BridgePorts::seen(record, bridge, &all, &boot));
    if let Some(nic) = &record.nic {
        nic::unplug(&links, record, nic).await?;
        if let Some(record) = book.find_mut(network) {
            record.nic = None;
        }
        book.save(dir)?;
    }
    // Before the first of them goes.
    for link in all
        .iter()
        .filter(|link| link.alias.as_ref() == Some(&book.mark))
    {
        if interfaces(record).any(|name| name == link.name) {
            keep_addresses(&links, record, link).await?;
        }
    }
    for name in interfaces(record) {
        remove_if_ours(&links, record, name, &book.mark).await?;
    }
    let mut done = format!(
        "{network} is detached: {} and its taps are gone",
        record.tap
    );
    if !used.is_empty() {
        done.push_str(&format!("\ncut off: {used}"));
    }
    if !used.ports.is_empty() {
        done.push_str(&format!("\n`farlan attach {network}` puts its ports back"));
    }
    let bridge = record.bridge_is_ours.then(|| record.bridge.clone());
    book.attachments.retain(|one| one.network != *network);
    if let Some(ports) = ports {
        book.remember(ports);
    }
    book.save(dir)?;
    if let Some(bridge) = bridge {
        passage::close(bridge).await;
    }
    Ok(done)
}

/// Removes the VM tap `vm` of a network; the network stays attached. Of a running VM only by
/// `force`.
///
/// # Errors
/// No such VM tap, or it is open, or it cannot be removed.
pub async fn detach_vm(
    dir: &Path,
    network: &NetworkName,
    vm: &str,
    force: bool,
) -> anyhow::Result<String> {
    let _lock = hold(dir)?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let record = &attached(&book, network)?.clone();
    let vms = &record.vms;
    if !vms.iter().any(|one| one.name == vm) {
        let names: Vec<&str> = vms.iter().map(|one| one.name.as_str()).collect();
        bail!(
            "{vm} is no VM tap of {network}; its VM taps: [{}]",
            names.join(" ")
        );
    }
    if !force && open_tap(vm, &links.all().await?).is_some() {
        bail!(
            "{vm} is open: its VM would be cut off; shut the VM down first, or type `farlan detach \
             {network} --vm {vm} --force`"
        );
    }
    remove_if_ours(&links, record, vm, &book.mark).await?;
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
    let bridge = record.bridge.clone();
    if let Some(record) = book.find_mut(network) {
        record.nic = None;
    }
    book.save(dir)?;
    passage::without_nic(bridge).await;
    Ok(format!("the NIC {name} is no longer on {network}"))
}

fn attached<'a>(book: &'a Book, network: &NetworkName) -> anyhow::Result<&'a AttachmentRecord> {
    book.find(network).with_context(|| {
        format!("network {network} is not attached here; `farlan networks` lists those that are")
    })
}
