//! Keeping the host off the LAN it carries.
//!
//! A bridge or tap made here gets no address, answers no ARP, runs no IPv6, takes no router's
//! word and forwards nothing at layer 3: a guest must not meet the host by accident. An address
//! there is the administrator's explicit act ([`open_for_address`]). Everything is set while the
//! interface is still down, so that nothing leaks in between.
//!
//! Nothing here touches an interface that it did not just make. Each gets a *mark* (its alias), by
//! which the caller knows its own again; names prove nothing.

use std::path::PathBuf;

use overlay_proto::ethernet::MacAddr;

use crate::error::Error;
use crate::link::{Link, Links};
use crate::tap::{self, TapKind};

/// Frames that wait on a tap for its reader: about 10 ms of full-size frames at 1 Gbit/s.
const TAP_QUEUE_FRAMES: u32 = 1_000;

/// How many numbered names are tried when the wanted one is taken.
const MAX_NUMBERED_NAMES: u32 = 999;

/// (file below `/proc/sys/net`, value), `IF` being the interface.
const ISOLATED: &[(&str, &str)] = &[
    (DISABLE_IPV6, "1"),
    ("ipv6/conf/IF/accept_ra", "0"),
    ("ipv6/conf/IF/autoconf", "0"),
    ("ipv6/conf/IF/accept_redirects", "0"),
    ("ipv6/conf/IF/forwarding", "0"),
    ("ipv4/conf/IF/forwarding", "0"),
    ("ipv4/conf/IF/proxy_arp", "0"),
    ("ipv4/conf/IF/accept_redirects", "0"),
    // Answer for no address at all (kernel's ip-sysctl: 8).
    (ARP_IGNORE, "8"),
];

const DISABLE_IPV6: &str = "ipv6/conf/IF/disable_ipv6";

const ARP_IGNORE: &str = "ipv4/conf/IF/arp_ignore";

/// Settings that could not be made, one sentence each; empty when all is well. In a container
/// `/proc/sys` is often read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// What could not be set, and why.
    pub not_applied: Vec<String>,
}

/// Makes the bridge `name` with a fixed address, isolated and up, marked with `mark`.
///
/// # Errors
/// [`Error::NameTaken`], [`Error::NotPermitted`]. What was made half is removed again.
pub async fn make_bridge(
    links: &Links,
    name: &str,
    mtu: u32,
    mark: &str,
) -> Result<(Link, Isolation), Error> {
    let bridge = links.create_bridge(name).await?;
    let finished = async {
        links.set_alias(&bridge, mark).await?;
        // The kernel has drawn a random, locally administered address. Setting it pins it.
        links.set_mac(&bridge, bridge.mac).await?;
        links.set_mtu(&bridge, mtu).await?;
        let isolation = isolate(links, &bridge).await;
        links.set_up(&bridge).await?;
        Ok(isolation)
    }
    .await;
    finish(links, bridge, finished).await
}

/// A tap to make.
#[derive(Debug, Clone, Copy)]
pub struct NewTap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who will open it.
    pub kind: TapKind,
    /// The user who may open it without `CAP_NET_ADMIN`; `None` is the user of this process.
    pub owner: Option<u32>,
    /// Bytes of payload.
    pub mtu: u32,
    /// By which the caller knows it again.
    pub mark: &'a str,
}

/// Makes a persistent tap on `bridge`, isolated and up.
///
/// # Errors
/// [`Error::NameTaken`], [`Error::NotPermitted`], [`Error::NoTunDevice`]. What was made half is
/// removed again.
pub async fn make_tap(
    links: &Links,
    tap: NewTap<'_>,
    bridge: &Link,
) -> Result<(Link, Isolation), Error> {
    tap::create(tap.name, tap.kind, tap.owner)?;
    let made = links.get(tap.name).await?;
    let finished = async {
        links.set_alias(&made, tap.mark).await?;
        links.set_mac(&made, above_all_others(made.mac)).await?;
        links.set_mtu(&made, tap.mtu).await?;
        links.set_queue_length(&made, TAP_QUEUE_FRAMES).await?;
        let isolation = isolate(links, &made).await;
        links.set_master(&made, Some(bridge.index)).await?;
        links.set_up(&made).await?;
        Ok(isolation)
    }
    .await;
    finish(links, made, finished).await
}

/// A bridge whose address was never set takes the lowest one of its ports: a tap with a low
/// address would change the address of a bridge that is not ours.
const fn above_all_others(mac: MacAddr) -> MacAddr {
    let [_, b, c, d, e, f] = mac.0;
    MacAddr([0xfe, b, c, d, e, f])
}

async fn finish(
    links: &Links,
    made: Link,
    finished: Result<Isolation, Error>,
) -> Result<(Link, Isolation), Error> {
    let result = match finished {
        Ok(isolation) => links.get(&made.name).await.map(|link| (link, isolation)),
        Err(error) => Err(error),
    };
    if result.is_err()
        && let Err(error) = links.delete(&made).await
    {
        tracing::warn!(%error, interface = made.name, "cannot remove what was made half");
    }
    result
}

/// The first free name: `prefix` + `wanted`, then `prefix` + `1`, `2`, ...
///
/// # Errors
/// [`Error::NameTaken`] if a thousand are taken.
pub async fn free_name(links: &Links, prefix: &str, wanted: &str) -> Result<String, Error> {
    let taken: Vec<String> = links
        .all()
        .await?
        .into_iter()
        .map(|link| link.name)
        .collect();
    first_free(prefix, wanted, |name| {
        taken.iter().any(|other| other == name)
    })
}

/// Lets the host use an address that the administrator gives to the own bridge `link`: ARP for
/// that address only, and IPv6 without router advertisements.
pub async fn open_for_address(links: &Links, link: &Link, ipv6: bool) -> Isolation {
    let mut isolation = Isolation::default();
    if let Err(error) = links.set_arp(link, true).await {
        isolation.not_applied.push(error.to_string());
    }
    // Answer for addresses of this interface only, and ask with them only.
    let mut settings = vec![(ARP_IGNORE, "1"), ("ipv4/conf/IF/arp_announce", "2")];
    if ipv6 {
        settings.push(("ipv6/conf/IF/accept_ra", "0"));
        settings.push(("ipv6/conf/IF/autoconf", "0"));
        settings.push(("ipv6/conf/IF/disable_ipv6", "0"));
    }
    for (file, value) in settings {
        write_sysctl(link, file, value, &mut isolation);
    }
    isolation
}

/// Undoes [`open_for_address`]: the bridge answers for nothing.
pub async fn close(links: &Links, link: &Link) {
    for reason in isolate(links, link).await.not_applied {
        tracing::warn!(interface = link.name, "not closed: {reason}");
    }
}

/// Does the host speak IPv6 by `link`?
#[must_use]
pub fn speaks_ipv6(link: &Link) -> bool {
    is_set(link, DISABLE_IPV6, "0")
}

/// Does the host pass on packets that come in by `link`, as a router for containers or guests does?
#[must_use]
pub fn forwards(link: &Link) -> bool {
    is_set(link, "ipv4/conf/IF/forwarding", "1") || is_set(link, "ipv6/conf/IF/forwarding", "1")
}

fn is_set(link: &Link, file: &str, wanted: &str) -> bool {
    let path = format!("/proc/sys/net/{}", file.replace("IF", &link.name));
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == wanted)
}

/// Keeps the host from speaking IPv6 by a NIC that becomes a port of a bridge; `true` if it did
/// until now.
#[must_use]
pub fn silence_port(link: &Link) -> bool {
    let had = speaks_ipv6(link);
    had && write_sysctl(link, DISABLE_IPV6, "1", &mut Isolation::default())
}

/// Undoes [`silence_port`] for a NIC that it silenced.
pub fn unsilence_port(link: &Link) {
    write_sysctl(link, DISABLE_IPV6, "0", &mut Isolation::default());
}

async fn isolate(links: &Links, link: &Link) -> Isolation {
    let mut isolation = Isolation::default();
    // Works where /proc/sys is read-only, too. A kernel without IPv6 has nothing to switch off.
    if let Err(error) = links.no_link_local(link).await {
        tracing::debug!(%error, "no link-local mode to set");
    }
    let mut arp_silent = true;
    for &(file, value) in ISOLATED {
        let written = write_sysctl(link, file, value, &mut isolation);
        arp_silent &= written || file != ARP_IGNORE;
    }
    if !arp_silent && let Err(error) = links.set_arp(link, false).await {
        isolation.not_applied.push(error.to_string());
    }
    isolation
}

/// Writes one file below `/proc/sys/net` of this thread's network namespace. A missing file is a
/// kernel without that feature: nothing to set.
fn write_sysctl(link: &Link, file: &str, value: &str, isolation: &mut Isolation) -> bool {
    let file = file.replace("IF", &link.name);
    let path = PathBuf::from("/proc/sys/net").join(&file);
    match std::fs::write(&path, value) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        // It may hold the value already.
        Err(_) if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) => true,
        Err(error) => {
            isolation
                .not_applied
                .push(format!("{} = {value}: {error}", path.display()));
            false
        }
    }
}

fn first_free(prefix: &str, wanted: &str, taken: impl Fn(&str) -> bool) -> Result<String, Error> {
    let first = format!("{prefix}{wanted}");
    let numbered = (1..=MAX_NUMBERED_NAMES).map(|n| format!("{prefix}{n}"));
    std::iter::once(first.clone())
        .chain(numbered)
        .find(|name| !taken(name))
        .ok_or(Error::NameTaken { name: first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        let taken = |name: &str| matches!(name, "fl-lab" | "fl-1");
        assert_eq!(first_free("fl-", "lab", taken).unwrap(), "fl-2");
        assert_eq!(first_free("br-", "lab", taken).unwrap(), "br-lab");
        assert!(first_free("fl-", "lab", |_| true).is_err());
    }
}
