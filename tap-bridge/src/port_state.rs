//! One port of a bridge: which one a MAC is behind right now, and whether it forwards.
//!
//! The database is read from sysfs instead of netlink: a loop makes an entry move with each frame, and
//! the answer of now is wanted. The kernel writes for each entry (native byte order):
//!
//! ```text
//!  0      6         7        8       12           13
//! | mac 6 | port lo | local | age 4 | port number hi | 0 x 3 |
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use netlink_packet_route::link::BridgePortState;
use overlay_proto::ethernet::MacAddr;
use rtnetlink::LinkBridgePort;

use crate::error::Error;
use crate::link::{Links, netlink_error};

const ENTRY_LEN: usize = 16;
/// Entries that are looked at: twice what a bridge of 4,096 guests needs.
const MAX_ENTRIES: usize = 8192;

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

/// Does the bridge let nothing pass at its port `name`? `false` where that cannot be told.
#[must_use]
pub fn is_disabled(name: &str) -> bool {
    let state = sysfs(name).map(|place| place.join("brport/state"));
    // BR_STATE_DISABLED of the kernel's if_bridge.h.
    state
        .and_then(fs::read_to_string)
        .is_ok_and(|state| state.trim() == "0")
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
        let state = if forwards {
            BridgePortState::Forwarding
        } else {
            // A bridge without STP puts a port that blocks back to forwarding at once.
            BridgePortState::Disabled
        };
        let message = LinkBridgePort::new(port).state(state).build();
        let done = self.handle().link().set_port(message).execute().await;
        done.map_err(|error| netlink_error("cannot change the state of a bridge's port", error))
    }

    /// Makes the bridge forget what it learnt behind the port with number `port`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; it is no port.
    pub async fn flush_port(&self, port: u32) -> Result<(), Error> {
        let message = LinkBridgePort::new(port).fdb_flush().build();
        let done = self.handle().link().set_port(message).execute().await;
        done.map_err(|error| netlink_error("cannot empty a port's forwarding entries", error))
    }
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
    fn names_are_no_paths() {
        assert_eq!(index_of("../../etc"), None);
        assert!(port_behind("a/b", MacAddr::ZERO).is_err());
        assert!(index_of("lo").is_some());
    }
}
