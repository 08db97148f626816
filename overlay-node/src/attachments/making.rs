//! Making the interfaces that are recorded, and knowing them again by their mark.

use std::net::IpAddr;

use anyhow::bail;
use ipnet::IpNet;
use tap_bridge::host::{self, Isolation, NewTap};
use tap_bridge::tap::TapKind;
use tap_bridge::{Link, LinkKind, Links};

use super::nic;
use super::overlay_port;
use super::store::AttachmentRecord;

/// Makes what is recorded and missing. A name that somebody else has taken meanwhile is replaced by
/// the next free one, in the record, too.
pub(super) async fn make_whole(
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
    let all = links.all().await?;
    if let Some(port) = all.iter().find(|link| link.name == tap.name) {
        told.extend(overlay_port::set(links, &all, &bridge, port).await);
    }
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

pub(super) async fn make_bridge(
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

pub(super) async fn make_port(
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
pub(super) enum Found {
    Nothing,
    Ours(Link),
    Foreign,
}

pub(super) async fn find_ours(links: &Links, name: &str, mark: &str) -> anyhow::Result<Found> {
    Ok(match links.find(name).await? {
        None => Found::Nothing,
        Some(link) if link.alias.as_deref() == Some(mark) => Found::Ours(link),
        Some(_) => Found::Foreign,
    })
}

/// Removes the interface `name` of `record` if it was made here.
///
/// # Errors
/// The kernel refuses; or the host has addresses by it that Farlan did not give it.
pub(super) async fn remove_if_ours(
    links: &Links,
    record: &AttachmentRecord,
    name: &str,
    mark: &str,
) -> anyhow::Result<()> {
    if let Found::Ours(link) = find_ours(links, name, mark).await? {
        keep_addresses(links, record, &link).await?;
        links.delete(&link).await?;
    }
    Ok(())
}

/// Refuses where the host has addresses by `link` that would go with it and are not of `--address`.
///
/// # Errors
/// There are such; or the kernel does not tell.
pub(super) async fn keep_addresses(
    links: &Links,
    record: &AttachmentRecord,
    link: &Link,
) -> anyhow::Result<()> {
    let all = links.addresses(link).await?;
    let ours = |ip: &IpAddr| record.addresses.iter().any(|one| one.addr() == *ip);
    let theirs: Vec<String> = all
        .iter()
        .filter(|(ip, _)| !ours(ip))
        .map(|(ip, prefix)| format!("{ip}/{prefix}"))
        .collect();
    let (Some(first), name) = (theirs.first(), &link.name) else {
        return Ok(());
    };
    bail!(
        "{name} has the address {}, which Farlan did not give it, so it stays: the host would lose the \
         address with it; move it, or `ip address delete {first} dev {name}`, and try again",
        theirs.join(" ")
    )
}

/// Removes the interfaces of `now` that `before` did not have. `false`: a NIC that was given cannot be given
/// back, and all stays.
pub(super) async fn clear(
    links: &Links,
    now: &AttachmentRecord,
    before: Option<&AttachmentRecord>,
    mark: &str,
) -> bool {
    if let Some(nic) = &now.nic
        && before.is_none_or(|record| record.nic.is_none())
        && let Err(error) = nic::unplug(links, now, nic).await
    {
        tracing::warn!(%error, interface = nic.name, "cannot give the NIC back");
        return false;
    }
    let had = |name: &str| before.is_some_and(|record| interfaces(record).any(|one| one == name));
    for name in interfaces(now).filter(|name| !had(name)) {
        if let Err(error) = remove_if_ours(links, now, name, mark).await {
            tracing::warn!(%error, interface = name, "cannot remove what was made half");
        }
    }
    true
}

/// The interfaces made for a network, ports first.
pub(super) fn interfaces(record: &AttachmentRecord) -> impl Iterator<Item = &str> {
    let vms = record.vms.iter().map(|vm| vm.name.as_str());
    let bridge = record.bridge_is_ours.then_some(record.bridge.as_str());
    vms.chain([record.tap.as_str()]).chain(bridge)
}

pub(super) fn tell(told: &mut Vec<String>, name: &str, isolation: Isolation) {
    for reason in isolation.not_applied {
        told.push(format!("warning: the host may be seen on {name}: {reason}"));
    }
}
