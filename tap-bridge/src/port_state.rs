//! One port of a bridge: which one a MAC is behind right now, and whether it forwards.
//!
//! The database is read from sysfs instead of netlink: a loop makes an entry move with each frame, and
//! the answer of now is wanted. The kernel writes for each entry (native byte order):
//!
//! ```text
//!  0      6         7        8       12           13
//! | mac 6 | port lo | local | age 4 | port number hi | 0 x 3 |
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use overlay_proto::ethernet::MacAddr;
use overlay_proto::ethernet::bridge::PortState;
use rtnetlink::packet_core::DefaultNla;

use crate::error::Error;
use crate::link::{Links, netlink_error};

const ENTRY_LEN: usize = 16;
/// Entries that are looked at: twice what a bridge of 4,096 guests needs.
const MAX_ENTRIES: usize = 8192;

// Of the kernel's if_link.h, if_bridge.h and netlink.h.
const IFLA_PROTINFO: u16 = 12;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_FLUSH: u16 = 24;
const NLA_F_NESTED: u16 = 1 << 15;
const BR_STATE_DISABLED: u8 = 0;
const BR_STATE_FORWARDING: u8 = 3;
/// The head of an attribute, and what attributes are padded to.
const ATTRIBUTE_LEN: usize = 4;

/// The port of `bridge` that has `mac` behind it, if there is one.
///
/// # Errors
/// There is no such bridge, or sysfs cannot be read.
pub fn port_behind(bridge: &str, mac: MacAddr) -> io::Result<Option<String>> {
    let place = sysfs(bridge)?;
    let limit = u64::try_from(ENTRY_LEN * MAX_ENTRIES).unwrap_or(u64::MAX);
    let mut table = Vec::new();
    File::open(place.join("brforward"))?
        .take(limit)
        .read_to_end(&mut table)?;
    let Some(number) = port_in(&table, mac) else {
        return Ok(None);
    };
    for port in fs::read_dir(place.join("brif"))? {
        let port = port?;
        let text = fs::read_to_string(port.path().join("port_no"))?;
        let hex = text.trim().trim_start_matches("0x");
        if u16::from_str_radix(hex, 16).ok() == Some(number) {
            return Ok(port.file_name().into_string().ok());
        }
    }
    Ok(None)
}

/// What the bridge lets pass at its port `name`; `None` if that is no port of a bridge.
#[must_use]
pub fn port_state(name: &str) -> Option<PortState> {
    let place = sysfs(name).ok()?.join("brport/state");
    let state: u8 = fs::read_to_string(place).ok()?.trim().parse().ok()?;
    Some(if state == BR_STATE_DISABLED {
        PortState::Disabled
    } else {
        PortState::Other
    })
}

/// The bridge that `name` is a port of.
#[must_use]
pub fn bridge_of(name: &str) -> Option<String> {
    let link = fs::read_link(sysfs(name).ok()?.join("brport/bridge")).ok()?;
    link.file_name()?.to_str().map(str::to_owned)
}

/// The ports of `bridge` that have carrier, by their names; none if there is no such bridge.
#[must_use]
pub fn live_ports(bridge: &str) -> BTreeSet<String> {
    let ports = sysfs(bridge).and_then(|place| fs::read_dir(place.join("brif")));
    let names = ports.into_iter().flatten().flatten();
    let names = names.filter_map(|port| port.file_name().into_string().ok());
    names.filter(|name| has_carrier(name)).collect()
}

/// Reading fails for an interface that is down.
fn has_carrier(name: &str) -> bool {
    let carrier = sysfs(name).and_then(|place| fs::read_to_string(place.join("carrier")));
    carrier.is_ok_and(|text| text.trim() == "1")
}

/// The kernel's number of the interface `name`.
#[must_use]
pub fn index_of(name: &str) -> Option<u32> {
    let text = fs::read_to_string(sysfs(name).ok()?.join("ifindex")).ok()?;
    text.trim().parse().ok()
}

impl Links {
    /// Makes the port with number `port` forward or not. The bridge keeps it, and everything else of it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; it is no port, or its bridge speaks STP, which decides itself.
    pub async fn set_forwarding(&self, port: u32, forwards: bool) -> Result<(), Error> {
        // A bridge without STP puts a port that blocks back to forwarding at once.
        let state = if forwards {
            BR_STATE_FORWARDING
        } else {
            BR_STATE_DISABLED
        };
        let set = self.set_of_port(port, IFLA_BRPORT_STATE, &[state]).await;
        set.map_err(|error| netlink_error("cannot change the state of a bridge's port", error))
    }

    /// Makes the bridge forget what it learnt behind the port with number `port`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; it is no port.
    pub async fn flush_port(&self, port: u32) -> Result<(), Error> {
        let done = self.set_of_port(port, IFLA_BRPORT_FLUSH, &[]).await;
        done.map_err(|error| netlink_error("cannot empty a port's forwarding entries", error))
    }

    /// Sets one thing of a port as `bridge link set` does: `RTM_SETLINK` of `AF_BRIDGE`. The way of `ip link
    /// set type bridge_slave` will not do: after whatever it sets the kernel looks at the carrier of the
    /// port, and opens one that is shut.
    async fn set_of_port(
        &self,
        port: u32,
        what: u16,
        value: &[u8],
    ) -> Result<(), rtnetlink::Error> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = port;
        let nested = DefaultNla::new(IFLA_PROTINFO | NLA_F_NESTED, attribute(what, value));
        message.attributes.push(LinkAttribute::Other(nested));
        self.handle().link().set(message).execute().await
    }
}

/// ```text
/// | length u16 | type u16 | value, padded to 4 bytes |
/// ```
fn attribute(what: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_LEN + value.len()).unwrap_or(0);
    let mut bytes = [length.to_ne_bytes(), what.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(ATTRIBUTE_LEN), 0);
    bytes
}

fn sysfs(name: &str) -> io::Result<PathBuf> {
    crate::tap::check_name(name).map_err(io::Error::other)?;
    Ok(Path::new("/sys/class/net").join(name))
}

/// The number of the port that `table` has `mac` behind.
fn port_in(table: &[u8], mac: MacAddr) -> Option<u16> {
    let entries = table.chunks_exact(ENTRY_LEN);
    entries
        .filter_map(|entry| entry.first_chunk::<ENTRY_LEN>())
        .find_map(|entry| {
            let [a, b, c, d, e, f, low, local, _, _, _, _, high, ..] = *entry;
            let is_it = [a, b, c, d, e, f] == mac.0 && local == 0;
            is_it.then(|| u16::from_le_bytes([low, high]))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_mac() {
        let entry =
            |mac: u8, low, local, high| [2, 0, 0, 0, 0, mac, low, local, 9, 9, 9, 9, high, 0, 0, 0];
        let table = [entry(1, 1, 1, 0), entry(2, 3, 0, 0), entry(3, 2, 0, 1)].concat();
        let find = |mac| port_in(&table, MacAddr([2, 0, 0, 0, 0, mac]));
        assert_eq!(find(1), None, "the bridge's own");
        assert_eq!(find(2), Some(3));
        assert_eq!(find(3), Some(0x102));
        assert_eq!(find(4), None);
        assert_eq!(port_in(&table[..20], MacAddr([2, 0, 0, 0, 0, 2])), None);
    }

    #[test]
    fn attributes_are_padded() {
        let length = |length: u16, what: u16| [length.to_ne_bytes(), what.to_ne_bytes()].concat();
        assert_eq!(attribute(24, &[]), length(4, 24));
        assert_eq!(
            attribute(1, &[3]),
            [length(5, 1), vec![3, 0, 0, 0]].concat()
        );
    }

    #[test]
    fn names_are_no_paths() {
        assert_eq!(index_of("../../etc"), None);
        assert!(port_behind("a/b", MacAddr::ZERO).is_err());
        assert!(index_of("lo").is_some());
        assert_eq!(port_state("lo"), None);
        assert_eq!(bridge_of("lo"), None);
        assert!(live_ports("lo").is_empty());
    }
}
