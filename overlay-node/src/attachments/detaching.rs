//! Taking attachments away.

use std::path::Path;

use anyhow::{Context, bail};
use overlay_proto::ids::NetworkName;
use tap_bridge::Links;

use super::making::{interfaces, remove_if_ours};
use super::store::{AttachmentRecord, Book};
use super::{hold, nic, passage};

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

fn attached<'a>(book: &'a Book, network: &NetworkName) -> anyhow::Result<&'a AttachmentRecord> {
    book.find(network).with_context(|| {
        format!("network {network} is not attached here; `farlan networks` lists those that are")
    })
}
