//! `--move-addresses`: the host's addresses and routes go from the NIC to the bridge, and come back
//! by themselves unless somebody confirms.
//!
//! The record with all that the NIC had, and with the deadline, is on disk before anything is
//! changed. Whoever comes first after the deadline brings them back: the watcher (see
//! [`super::watcher`]), the running node, the next start of one. Where that fails the record stays, with
//! a new deadline, until it does not. After a reboot there is nothing to
//! bring back: the kernel knows nothing of the move, and the record goes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use host_services::{OsEntropy, clocks};
use overlay_proto::Entropy;
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ids::NetworkName;
use tap_bridge::{HostNetwork, HostRoute, Link, Links, Mover, NicFacts, Place, host, moving};

use super::store::{AttachmentRecord, Book, Moved, NicPort, Pending};
use crate::state::StateDir;

/// How long a move waits for `farlan confirm` unless told otherwise: time to open a second SSH
/// session and look around.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(60);

/// What could not be brought back is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// What the NIC has, as a record of a move that begins now.
///
/// # Errors
/// The kernel refuses, or a route cannot be moved.
pub(super) async fn record(
    links: &Links,
    link: &Link,
    bridge: &str,
    confirm_within: Duration,
) -> anyhow::Result<NicPort> {
    let network = links.host_network(link).await?;
    let bridge_mac = match links.find(bridge).await? {
        Some(bridge) => bridge.mac,
        None => random_mac(),
    };
    let pending = Pending {
        boot: this_boot()?,
        deadline_ms: since_boot().saturating_add(millis(confirm_within)),
    };
    let moved = Moved {
        network,
        bridge_mac,
        pending: Some(pending),
    };
    Ok(NicPort {
        name: link.name.clone(),
        was_up: link.up,
        had_ipv6: host::speaks_ipv6(link),
        // A NIC without addresses is given away as one without this flag.
        moved: Some(moved).filter(|moved| !moved.network.is_bare()),
    })
}

/// Moves all to the bridge, in one step or not at all.
pub(super) async fn carry_over(
    links: &Links,
    nic: &NicPort,
    moved: &Moved,
    link: &Link,
    bridge: &Link,
) -> anyhow::Result<()> {
    let facts = NicFacts {
        bridge_mac: moved.bridge_mac,
        nic_mac: link.mac,
        nic_ipv6: nic.had_ipv6,
    };
    let mover = Mover {
        links,
        nic: link,
        bridge,
        keep_open: true,
    };
    let steps = moving::plan(Place::Bridge, &moved.network, facts);
    mover
        .all_or_nothing(&steps)
        .await
        .with_context(|| format!("the addresses of {} stay where they were", link.name))
}

/// Moves all back to the NIC: what is on the bridge now, but for the addresses of `--address`; and,
/// of a move that nobody has confirmed, what its middle may have left on neither.
///
/// # Errors
/// What could not be brought back. A confirmed move is undone whole or not at all; another as far
/// as possible.
pub(super) async fn bring_back(
    links: &Links,
    record: &AttachmentRecord,
    nic: &NicPort,
    moved: &Moved,
    (link, bridge): (&Link, &Link),
) -> anyhow::Result<()> {
    let mut what = links.host_network(bridge).await?;
    what.addresses
        .retain(|one| !record.addresses.iter().any(|ours| ours.addr() == one.ip));
    what.routes.retain(|route| !is_of_address(record, route));
    if moved.pending.is_some() {
        add_lost(&mut what, &moved.network, &links.host_network(link).await?);
    }
    let facts = NicFacts {
        bridge_mac: moved.bridge_mac,
        nic_mac: link.mac,
        nic_ipv6: nic.had_ipv6,
    };
    let mover = Mover {
        links,
        nic: link,
        bridge,
        keep_open: !record.addresses.is_empty(),
    };
    let steps = moving::plan(Place::Nic, &what, facts);
    if moved.pending.is_none() {
        return mover
            .all_or_nothing(&steps)
            .await
            .with_context(|| format!("the addresses stay on {}", bridge.name));
    }
    let failed = mover.as_far_as_possible(&steps).await;
    if let [first, ..] = failed.as_slice() {
        bail!("{first} ({} steps failed)", failed.len());
    }
    Ok(())
}

/// Adds to `what` those of `recorded` that are neither in it nor on the NIC, in the old order.
fn add_lost(what: &mut HostNetwork, recorded: &HostNetwork, on_nic: &HostNetwork) {
    for address in &recorded.addresses {
        let mut known = what.addresses.iter().chain(&on_nic.addresses);
        if !known.any(|one| one.is_same(address)) {
            what.addresses.push(address.clone());
        }
    }
    for route in &recorded.routes {
        let mut known = what.routes.iter().chain(&on_nic.routes);
        if !known.any(|one| one.is_same(route)) {
            what.routes.push(route.clone());
        }
    }
    what.addresses.sort_by_key(|one| {
        let place = recorded.addresses.iter().position(|old| old.is_same(one));
        place.unwrap_or(usize::MAX)
    });
    what.routes.sort_by_key(|one| {
        let place = recorded.routes.iter().position(|old| old.is_same(one));
        place.unwrap_or(usize::MAX)
    });
}

/// The route to the prefix of an address that the administrator gave the bridge.
fn is_of_address(record: &AttachmentRecord, route: &HostRoute) -> bool {
    let prefix = |net: &ipnet::IpNet| (net.trunc().addr(), net.prefix_len());
    let mut ours = record.addresses.iter().map(prefix);
    route.gateway.is_none() && ours.any(|one| one == (route.to, route.prefix))
}

/// What to tell of a move that was made: what moved, what will not last, and the line to type.
pub(super) fn tell(record: &AttachmentRecord, dir: &Path, told: &mut Vec<String>) {
    let Some(nic) = &record.nic else { return };
    let Some(moved) = &nic.moved else { return };
    let Some(pending) = &moved.pending else {
        return;
    };
    let (name, bridge) = (&nic.name, &record.bridge);
    let addresses = moved.network.addresses.iter();
    let addresses = addresses.filter(|one| !one.is_link_local());
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    let routes = moved.network.routes.iter();
    let routes: Vec<String> = routes
        .filter(|route| route.gateway.is_some() || route.is_default())
        .map(ToString::to_string)
        .collect();
    let list = |items: &[String]| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(", ")
        }
    };
    told.push(format!(
        "moved from {name} to {bridge}: {}",
        list(&addresses)
    ));
    told.push(format!("with the routes: {}", list(&routes)));
    let ends = |seconds: u32| seconds != tap_bridge::addresses::FOREVER;
    if moved.network.addresses.iter().any(|one| ends(one.valid_s))
        || moved.network.routes.iter().any(|r| r.expires_s.is_some())
    {
        told.push(format!(
            "warning: some of it came by DHCP or from a router and ends; what renews it must run on \
             {bridge}, not on {name}"
        ));
    }
    let left = pending.deadline_ms.saturating_sub(since_boot());
    told.push(format!(
        "they go back to {name} in {} s unless you type: {}",
        left.div_ceil(1000),
        confirm_line(dir)
    ));
}

fn confirm_line(dir: &Path) -> String {
    if dir == Path::new(crate::state::DEFAULT_STATE) {
        "farlan confirm".to_owned()
    } else {
        format!("farlan --state {} confirm", dir.display())
    }
}

/// `farlan confirm`: what was moved stays. One line for the user.
///
/// # Errors
/// Nothing waits for a confirmation, or the record cannot be written.
pub fn confirm(dir: &Path) -> anyhow::Result<String> {
    let _lock = StateDir::at(dir).attaching()?;
    let mut book = Book::load(dir)?;
    let mut done = Vec::new();
    for record in &mut book.attachments {
        let bridge = record.bridge.clone();
        let Some(nic) = &mut record.nic else { continue };
        if let Some(moved) = &mut nic.moved
            && moved.pending.take().is_some()
        {
            done.push(format!("the addresses of {} stay on {bridge}", nic.name));
        }
    }
    if done.is_empty() {
        bail!(
            "no move waits for a confirmation; if its time was over, the addresses are back on their \
             NIC, and `farlan attach NETWORK --nic IF --move-addresses` moves them again"
        );
    }
    book.save(dir)?;
    Ok(done.join("\n"))
}

/// How long the move that waits for a confirmation still has; `None` if none waits.
///
/// # Errors
/// The record or the name of this boot cannot be read.
pub fn waits(dir: &Path) -> anyhow::Result<Option<Duration>> {
    let book = Book::load(dir)?;
    let mut waiting = book.attachments.iter().filter_map(pending_of);
    let Some((_, pending)) = waiting.next() else {
        return Ok(None);
    };
    let left = if pending.boot == this_boot()? {
        pending.deadline_ms.saturating_sub(since_boot())
    } else {
        0
    };
    Ok(Some(Duration::from_millis(left)))
}

/// Brings back what was moved and not confirmed: `all` of it, or what is past its deadline. Lines for
/// the user or the log.
///
/// # Errors
/// The record cannot be read or written, or the kernel gives no netlink socket.
pub async fn roll_back(dir: &Path, all: bool) -> anyhow::Result<Vec<String>> {
    let _lock = StateDir::at(dir).attaching()?;
    let links = Links::connect()?;
    let mut book = Book::load(dir)?;
    let told = roll_back_in(&links, &mut book, all).await?;
    if !told.is_empty() {
        book.save(dir)?;
    }
    Ok(told)
}

/// As [`roll_back`], in a book that the caller holds the lock of and saves.
pub(super) async fn roll_back_in(
    links: &Links,
    book: &mut Book,
    all: bool,
) -> anyhow::Result<Vec<String>> {
    let (boot, now) = (this_boot()?, since_boot());
    let mut told = Vec::new();
    for record in &mut book.attachments {
        let Some((nic, pending)) = pending_of(record) else {
            continue;
        };
        let name = nic.name.clone();
        if pending.boot != boot {
            told.push(format!(
                "the move of {name}'s addresses was not confirmed before the restart of this host; \
                 {name} is not on {}",
                record.network
            ));
        } else if all || pending.deadline_ms <= now {
            if let Err(error) = super::nic::unplug(links, record, nic).await {
                told.push(format!(
                    "nobody confirmed, and not all is back on {name}, which is tried again in {} s: \
                     {error:#}",
                    AGAIN.as_secs()
                ));
                put_off(record, now.saturating_add(millis(AGAIN)));
                continue;
            }
            told.push(format!(
                "nobody confirmed: the addresses are back on {name}, which is not on {} now",
                record.network
            ));
        } else {
            continue;
        }
        record.nic = None;
    }
    Ok(told)
}

/// Before a confirmed move is made again, as after a reboot: what the NIC has now is what moves.
pub(super) async fn renew(links: &Links, book: &mut Book) -> anyhow::Result<()> {
    for record in &mut book.attachments {
        let Some(nic) = &mut record.nic else { continue };
        let Some(moved) = nic.moved.as_mut().filter(|one| one.pending.is_none()) else {
            continue;
        };
        let bridge = links.find(&record.bridge).await?.map(|link| link.index);
        let Some(link) = links.find(&nic.name).await? else {
            continue;
        };
        if bridge.is_none() || link.master != bridge {
            moved.network = links.host_network(&link).await?;
            nic.had_ipv6 = host::speaks_ipv6(&link);
            nic.was_up = link.up;
        }
    }
    Ok(())
}

/// The move of `record` has another deadline. What it moved is known by nothing but the record.
fn put_off(record: &mut AttachmentRecord, deadline_ms: u64) {
    let moved = record.nic.as_mut().and_then(|nic| nic.moved.as_mut());
    if let Some(pending) = moved.and_then(|moved| moved.pending.as_mut()) {
        pending.deadline_ms = deadline_ms;
    }
}

fn pending_of(record: &AttachmentRecord) -> Option<(&NicPort, &Pending)> {
    let nic = record.nic.as_ref()?;
    Some((nic, nic.moved.as_ref()?.pending.as_ref()?))
}

/// The network whose move waits for a confirmation.
pub(super) fn waiting(book: &Book) -> Option<&NetworkName> {
    let mut records = book.attachments.iter();
    let record = records.find(|record| pending_of(record).is_some())?;
    Some(&record.network)
}

pub(super) fn this_boot() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

/// Milliseconds since this host has booted, suspended time included.
fn since_boot() -> u64 {
    millis(clocks::boot())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A locally administered address, for a bridge that has none to go back to.
fn random_mac() -> MacAddr {
    let mut mac = [0; 6];
    OsEntropy.fill(&mut mac);
    let [a, b, c, d, e, f] = mac;
    MacAddr([a & 0xfc | 0x02, b, c, d, e, f])
}
