//! A switch between ports of one network that no bridge of the kernel joins: sockets of QEMU
//! (docs/adr/0045-ports.md).
//!
//! Each port has a station or more behind it; *beyond* are the host's bridge and the overlay. The switch decides where
//! a frame goes, as an 802.1D bridge does, and carries nothing itself. Whether a frame beyond finds its way
//! is for the [`Fib`](super::Fib).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fib::MacKey;
use super::ports::PortId;
use crate::drop_reason::DropReason;
use crate::ethernet::MacAddr;

/// Ports of one switch: the sockets of one network on a host.
pub const MAX_PORTS: usize = 64;

/// Stations behind one port. More displace the port's own oldest one, never those of other ports.
pub const MAX_STATIONS: usize = 1_024;

/// A station that says nothing for so long is forgotten: the ageing time of IEEE 802.1D and of Linux.
pub const AGEING: Duration = Duration::from_secs(300);

/// Where a frame goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum LocalWay {
    /// To the one port that has its destination.
    Port(PortId),
    /// To all these ports, and beyond if it came from one of them.
    Flood(Vec<PortId>),
    /// Nowhere: its destination is behind the port that it came by.
    Filtered,
    /// Nowhere.
    Drop(DropReason),
}

#[derive(Debug, Clone, Copy)]
struct Station {
    port: PortId,
    heard: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct SwitchPort {
    is_shut: bool,
    stations: usize,
}

/// The switch of one network.
#[derive(Debug, Default)]
pub struct LocalSwitch {
    /// Bound: [`MAX_PORTS`]; removed by [`LocalSwitch::unplug`].
    ports: BTreeMap<PortId, SwitchPort>,
    /// Bound: [`MAX_STATIONS`] for each port; removed when it ages, or its port is shut or unplugged.
    stations: BTreeMap<MacKey, Station>,
    /// BPDUs are carried (ADR 32).
    pub bpdu: bool,
}

impl LocalSwitch {
    /// A port is there, shut or open. `false`: there are too many.
    pub fn plug(&mut self, id: PortId, is_shut: bool) -> bool {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&id) {
            return false;
        }
        self.ports.entry(id).or_default();
        self.set_shut(id, is_shut);
        true
    }

    /// Shuts a port or opens it. What was behind one that is shut is forgotten.
    pub fn set_shut(&mut self, id: PortId, is_shut: bool) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.is_shut = is_shut;
            if is_shut {
                self.forget(id);
            }
        }
    }

    /// A port is gone, and all behind it.
    pub fn unplug(&mut self, id: PortId) {
        self.forget(id);
        self.ports.remove(&id);
    }

    /// The port that has `key`, if one is known to.
    #[must_use]
    pub fn port_of(&self, now: Instant, key: &MacKey) -> Option<PortId> {
        let station = self.stations.get(key)?;
        let is_fresh = now.saturating_duration_since(station.heard) < AGEING;
        is_fresh.then_some(station.port)
    }

    /// Where a frame goes that came by the port `from`.
    pub fn ingress(&mut self, now: Instant, from: PortId, src: MacKey, dst: MacAddr) -> LocalWay {
        if self.ports.get(&from).is_none_or(|port| port.is_shut) {
            return LocalWay::Drop(DropReason::PortShut);
        }
        if !src.mac.is_claimable() {
            return LocalWay::Drop(DropReason::MacReserved);
        }
        if self.refuses(dst) {
            return LocalWay::Drop(DropReason::BridgeReserved);
        }
        self.learn(now, from, src);
        match self.find(now, src, dst) {
            Some(port) if port == from => LocalWay::Filtered,
            Some(port) => LocalWay::Port(port),
            None => LocalWay::Flood(self.open_ports(Some(from))),
        }
    }

    /// Where a frame goes that came from beyond. It teaches nothing: who is beyond, others know.
    pub fn egress(&mut self, now: Instant, src: MacKey, dst: MacAddr) -> LocalWay {
        if self.refuses(dst) {
            return LocalWay::Drop(DropReason::BridgeReserved);
        }
        if let Some(station) = self.stations.remove(&src) {
            // It has moved away: frames for it are not kept here.
            self.note_gone(station.port);
        }
        match self.find(now, src, dst) {
            Some(port) => LocalWay::Port(port),
            None => LocalWay::Flood(self.open_ports(None)),
        }
    }

    /// Forgets who has said nothing for [`AGEING`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let ports = &mut self.ports;
        self.stations.retain(|_, station| {
            let stays = now.saturating_duration_since(station.heard) < AGEING;
            if !stays && let Some(port) = ports.get_mut(&station.port) {
                port.stations = port.stations.saturating_sub(1);
            }
            stays
        });
    }

    fn find(&self, now: Instant, src: MacKey, dst: MacAddr) -> Option<PortId> {
        if dst.is_group() {
            return None;
        }
        let vlan = src.vlan;
        self.port_of(now, &MacKey { vlan, mac: dst })
    }

    /// Is `dst` an address that no bridge forwards?
    const fn refuses(&self, dst: MacAddr) -> bool {
        dst.is_bridge_reserved() && !(self.bpdu && dst.is_bpdu())
    }

    fn open_ports(&self, but: Option<PortId>) -> Vec<PortId> {
        let open = self.ports.iter().filter(|(_, port)| !port.is_shut);
        let open = open.map(|(id, _)| *id);
        open.filter(|id| Some(*id) != but).collect()
    }

    fn learn(&mut self, now: Instant, port: PortId, key: MacKey) {
        let station = Station { port, heard: now };
        match self.stations.get_mut(&key) {
            Some(known) if known.port == port => return *known = station,
            Some(known) => {
                let before = std::mem::replace(known, station);
                self.note_gone(before.port);
            }
            None => drop(self.stations.insert(key, station)),
        }
        let count = self.ports.get_mut(&port).map_or(0, |port| {
            port.stations += 1;
            port.stations
        });
        if count > MAX_STATIONS {
            self.displace(port, key);
        }
    }

    /// Forgets the station of `port` that was heard the longest time ago, other than `but`.
    fn displace(&mut self, port: PortId, but: MacKey) {
        let own = self.stations.iter();
        let own = own.filter(|(key, station)| station.port == port && **key != but);
        let oldest = own.min_by_key(|(_, station)| station.heard);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.stations.remove(&key);
            self.note_gone(port);
        }
    }

    fn note_gone(&mut self, port: PortId) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.stations = port.stations.saturating_sub(1);
        }
    }

    fn forget(&mut self, id: PortId) {
        self.stations.retain(|_, station| station.port != id);
        if let Some(port) = self.ports.get_mut(&id) {
            port.stations = 0;
        }
    }
}

#[cfg(test)]
mod tests;
