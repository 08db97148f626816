//! A physical NIC as a port of the network's own bridge (`attach --nic`).
//!
//! Everything that comes in by the NIC then belongs to the network, not to this host. So an
//! interface by which the host itself is reached is refused, before anything is changed, unless the
//! host's addresses are to move to the bridge with it ([`super::moving`]).

use anyhow::{Context, bail};
use tap_bridge::{Link, LinkKind, Links, host};

use super::making::keep_addresses;
use super::moving;
use super::store::{AttachmentRecord, Book, NicPort};

/// Refuses an interface that cannot be given away, and says why.
pub(super) async fn check(
    links: &Links,
    book: &Book,
    record: Option<&AttachmentRecord>,
    name: &str,
    moves: bool,
) -> anyhow::Result<()> {
    if let Some(waiting) = moving::waiting(book).filter(|_| moves) {
        bail!("the move to {waiting} waits for a word; type `farlan confirm`, or detach it, first");
    }
    if let Some(record) = record {
        if !record.bridge_is_ours {
            bail!(
                "{} is on bridge {}, which Farlan did not make; put {name} on it yourself: `ip link \
                 set {name} master {}`",
                record.network,
                record.bridge,
                record.bridge
            );
        }
        match &record.nic {
            Some(nic) if nic.name == name => return Ok(()),
            Some(nic) => bail!(
                "{} has the NIC {} already; `farlan detach {} --nic {}` first",
                record.network,
                nic.name,
                record.network,
                nic.name
            ),
            None => {}
        }
    }
    let other = book.attachments.iter().find(|other| {
        super::making::interfaces(other).any(|one| one == name)
            || other.nic.as_ref().is_some_and(|nic| nic.name == name)
    });
    if let Some(other) = other {
        bail!(
            "{name} belongs to network {}; name another interface",
            other.network
        );
    }
    let link = links.get(name).await?;
    can_be_given_away(links, &link, moves).await
}

/// Does this host not need `link` itself, or do its addresses move with it?
async fn can_be_given_away(links: &Links, link: &Link, moves: bool) -> anyhow::Result<()> {
    let name = &link.name;
    if link.kind != LinkKind::Other || link.is_loopback {
        bail!("{name} is no NIC; `ip link` lists the interfaces, --bridge takes a bridge");
    }
    if let Some(master) = link.master {
        let all = links.all().await?;
        let of = all.iter().find(|other| other.index == master);
        let of = of.map_or("another interface", |of| of.name.as_str());
        bail!("{name} is a port of {of}; take it out first: `ip link set {name} nomaster`");
    }
    if std::path::Path::new("/sys/class/net")
        .join(name)
        .join("phy80211")
        .exists()
    {
        bail!("{name} is Wi-Fi: a station may send with its own address only; use a wired NIC");
    }
    if moves {
        return Ok(());
    }
    let advice = "this host may be reached by it; --move-addresses moves what it has to the \
                  network's bridge";
    if let Some((ip, prefix)) = links.addresses(link).await?.first() {
        bail!("{name} has the address {ip}/{prefix}, and {advice}");
    }
    if has_default_route(name) {
        bail!("{name} has a default route, and {advice}");
    }
    Ok(())
}

/// Makes the recorded NIC a port of `bridge`. What hinders it is told: the rest of the network
/// works without it.
pub(super) async fn plug(
    links: &Links,
    nic: &mut NicPort,
    bridge: &Link,
    told: &mut Vec<String>,
) -> anyhow::Result<()> {
    let Some(link) = links.find(&nic.name).await? else {
        told.push(format!(
            "warning: the NIC {} is not there; plug it in, then attach it again",
            nic.name
        ));
        return Ok(());
    };
    if link.master != Some(bridge.index) {
        if let Err(error) = can_be_given_away(links, &link, nic.moved.is_some()).await {
            told.push(format!("warning: the NIC is not on the network: {error:#}"));
            return Ok(());
        }
        if let Some(moved) = &nic.moved {
            if moved.network.is_bare() {
                // The host is not configured yet after a reboot. A NIC that gets its addresses as a
                // port would leave the host unreachable, so it waits: the node looks again.
                return Ok(());
            }
            if host::forwards(&link) {
                told.push(format!(
                    "warning: this host is a router by {}, for containers or guests perhaps; {} \
                     forwards nothing: set net.ipv4.conf.{}.forwarding=1 if you mean it to",
                    link.name, bridge.name, bridge.name
                ));
            }
            moving::carry_over(links, nic, moved, &link, bridge).await?;
        } else {
            nic.was_up = link.up;
            nic.had_ipv6 = host::silence_port(&link);
            links.set_master(&link, Some(bridge.index)).await?;
        }
    }
    if !link.up {
        links.set_up(&link).await?;
    }
    if link.mtu < bridge.mtu {
        told.push(format!(
            "warning: the NIC {} carries {} bytes, the network {}; larger packets are lost there",
            link.name, link.mtu, bridge.mtu
        ));
    }
    Ok(())
}

/// Gives the NIC back as it was, if it is still a port of the record's bridge; with the addresses that
/// were moved from it.
pub(super) async fn unplug(
    links: &Links,
    record: &AttachmentRecord,
    nic: &NicPort,
) -> anyhow::Result<()> {
    let link = links.find(&nic.name).await?;
    let bridge = links.find(&record.bridge).await?;
    let (Some(link), Some(bridge)) = (link, &bridge) else {
        // Without it there is no place for what was moved from it.
        if let Some(bridge) = bridge.filter(|_| nic.moved.is_some()) {
            let name = &nic.name;
            keep_addresses(links, record, &bridge)
                .await
                .with_context(|| format!("the NIC {name} is not there"))?;
        }
        return Ok(());
    };
    if let Some(moved) = &nic.moved {
        return moving::bring_back(links, record, nic, moved, (&link, bridge)).await;
    }
    if link.master != Some(bridge.index) {
        return Ok(());
    }
    links.set_master(&link, None).await?;
    if !nic.was_up {
        links.set_down(&link).await?;
    }
    if nic.had_ipv6 {
        host::unsilence_port(&link);
    }
    Ok(())
}

/// The kernel's tables of this thread's network namespace (proc(5)).
fn has_default_route(name: &str) -> bool {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    };
    let v4 = read("route").lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // Interface, destination, gateway, flags, counters, metric, mask.
        matches!(words.as_slice(), [dev, "00000000", _, _, _, _, _, "00000000", ..] if *dev == name)
    });
    v4 || read("ipv6_route").lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let to_all = words.next().is_some_and(|to| to.bytes().all(|c| c == b'0'))
            && words.next() == Some("00");
        to_all && words.next_back() == Some(name)
    })
}
