//! Ports of this host's bridges that are shut because the own beacon came back by them
//! (`docs/adr/0032-a-port-that-loops-is-shut.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::store::{Write, WriteId};
use overlay_proto::ethernet::bridge::PortState;
use overlay_proto::ethernet::{ArpPacket, MacAddr, NeighborSolicitation, VlanId, multicast_mac};
use overlay_proto::segment::shut::{SHUT_FOR, ShutPorts};
use overlay_proto::segment::teaching_frame;
use overlay_proto::switching::NetIndex;
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::Networks;
use crate::node::effects::Effect;
use crate::node::host_orders::HostTask;
use crate::node::outside::Outside;
use crate::node::sight::HostSight;
use crate::node::tick::Tick;
use crate::node::views::Own;
use crate::node::warnings::Topic;

/// How often it is looked whether ports that were shut still are: the kernel opens one when its carrier
/// comes, which it may tell a bridge of a second after the fact.
const LOOK: Duration = Duration::from_millis(100);

/// A disk that says nothing for so long has refused: what goes round must end.
const DISK: Duration = Duration::from_secs(5);

/// MACs that switches are taught anew once a loop was cut, and stations that are asked for.
const MAX_TAUGHT: usize = 1024;

/// Which ports are shut, and their names.
#[derive(Debug, Default)]
pub struct LoopedPorts {
    machine: ShutPorts,
    /// As in the machine.
    shut: Vec<ShutPort>,
    look_at: Option<Instant>,
    /// The live ports of the bridges that have one of those, by bridge, at the last look.
    beside: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ShutPort {
    index: u32,
    name: String,
    until: UnixTime,
    /// The kernel refused: the bridge speaks STP, which decides itself.
    #[serde(skip)]
    refused: bool,
    /// It is not on disk yet: it is shut with the write that says so, or at that time.
    #[serde(skip)]
    awaits: Option<(WriteId, Instant)>,
}

impl ShutPort {
    /// Is it the disk's turn?
    fn is_awaiting(&self, now: Instant) -> bool {
        self.awaits.is_some_and(|(_, until)| now < until)
    }
}

/// What became of setting a port.
#[derive(Debug)]
pub struct PortSet {
    /// Its name.
    pub name: String,
    /// What was wanted.
    pub forwards: bool,
    /// The kernel did not do it.
    pub refused: bool,
}

impl LoopedPorts {
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let reopen = self.machine.poll_timeout();
        reopen.into_iter().chain(self.look_at).min()
    }

    /// Shuts `port` once it is on disk that it is: whoever is killed in between must find it to open it again.
    pub fn shut_port(&mut self, tick: Tick, out: &mut Outside, index: u32, port: String) {
        self.look_at = Some(tick.now + LOOK);
        self.shut.push(ShutPort {
            index,
            name: port,
            until: tick.wall.plus(SHUT_FOR),
            refused: false,
            awaits: None,
        });
        if let Some(id) = self.save(out)
            && let Some(port) = self.shut.last_mut()
        {
            port.awaits = Some((id, tick.now + DISK));
        }
    }

    /// The ports are on disk as of write `kept`, or the disk refused: those that waited for it are shut.
    pub(crate) fn handle_kept(&mut self, out: &mut Outside, kept: WriteId) {
        for port in &mut self.shut {
            if port.awaits.take_if(|(id, _)| *id <= kept).is_some() {
                set_forwarding(out, port.index, &port.name, false);
            }
        }
    }

    /// Shuts the ports again that were shut and forward all the same. `true` if one did, or if `returned` is
    /// one of them: then no other port is to be shut for what came back.
    fn shut_again(&self, now: Instant, out: &mut Outside, returned: &str) -> bool {
        let mut known = false;
        for port in &self.shut {
            known |= port.name == returned;
            if !port.refused && out.sight.port_state(&port.name) == Some(PortState::Other) {
                known = true;
                if !port.is_awaiting(now) {
                    set_forwarding(out, port.index, &port.name, false);
                }
            }
        }
        known
    }

    /// Where another port of its bridge is gone since the last look, a port that is shut is tried again soon.
    fn hasten(&mut self, now: Instant, sight: &dyn HostSight) {
        let bridges: BTreeSet<String> = self
            .shut
            .iter()
            .filter_map(|port| sight.bridge_of(&port.name))
            .collect();
        let mut beside = BTreeMap::new();
        for bridge in bridges {
            let mut ports = sight.live_ports(&bridge);
            let before = self.beside.get(&bridge);
            if before.is_some_and(|before| !before.is_subset(&ports)) {
                for port in &self.shut {
                    if sight.bridge_of(&port.name).as_ref() == Some(&bridge) {
                        self.machine.hasten(now, port.index);
                    }
                }
            }
            // Those that are shut are no way out, whatever becomes of them.
            ports.retain(|name| self.shut.iter().all(|port| port.name != *name));
            beside.insert(bridge, ports);
        }
        self.beside = beside;
    }

    /// Keeps shut what is shut, and forgets what has left its bridge.
    fn look(&mut self, now: Instant, out: &mut Outside) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.shut_again(now, out, "");
        let sight = &out.sight;
        let is_gone = |port: &ShutPort| {
            sight.index_of(&port.name) != Some(port.index) || sight.port_state(&port.name).is_none()
        };
        let (gone, stays): (Vec<ShutPort>, _) = std::mem::take(&mut self.shut)
            .into_iter()
            .partition(is_gone);
        self.shut = stays;
        self.look_at = (!self.shut.is_empty()).then_some(now + LOOK);
        for port in &gone {
            tracing::info!(port = port.name, "a port that was shut has left its bridge");
            self.machine.forget(port.index);
            out.warnings.lower(Topic::Loop, &port.name);
        }
        if !gone.is_empty() {
            self.save(out);
        }
        self.hasten(now, &*out.sight);
    }

    /// Opens the ports whose time is over.
    pub(crate) fn open_ports(&mut self, tick: Tick, out: &mut Outside) {
        self.look(tick.now, out);
        while let Some(index) = self.machine.poll_reopen(tick.now) {
            let Some(at) = self.shut.iter().position(|port| port.index == index) else {
                continue;
            };
            let port = self.shut.remove(at);
            out.warnings.lower(Topic::Loop, &port.name);
            tracing::warn!(
                port = port.name,
                "a port that was part of a loop is tried again"
            );
            set_forwarding(out, index, &port.name, true);
            self.save(out);
        }
    }

    /// Ports that an earlier run shut, and did not live to open.
    pub(crate) fn recall(&mut self, tick: Tick, out: &mut Outside, saved: &[u8]) {
        let shut: Vec<ShutPort> = postcard::from_bytes(saved).unwrap_or_default();
        for port in shut {
            if out.sight.index_of(&port.name) == Some(port.index) {
                let left = Duration::from_secs(port.until.seconds_since(tick.wall));
                let name = &port.name;
                let text = format!(
                    "{name} is part of a loop and shut; it is tried again in {} s; unplug it, or take \
                     it out of the bridge: ip link set {name} nomaster",
                    left.as_secs()
                );
                out.warnings.raise(tick.now, Topic::Loop, name, text);
                self.machine.restore(tick.now, port.index, left);
                self.shut.push(port);
                self.look_at = Some(tick.now);
            }
        }
    }

    /// The kernel has shut or opened a port, or will not.
    fn note_set(&mut self, sight: &dyn HostSight, set: &PortSet) {
        let mut shut = self.shut.iter_mut();
        if let Some(port) = shut.find(|port| port.name == set.name) {
            // A port that is down is refused, too; the kernel opens it when it comes up.
            port.refused = set.refused && sight.port_state(&port.name) == Some(PortState::Other);
        }
    }

    fn save(&self, out: &mut Outside) -> Option<WriteId> {
        match postcard::to_stdvec(&self.shut) {
            Ok(bytes) => Some(out.store.put(Write::LoopedPorts(bytes))),
            Err(error) => {
                tracing::error!(%error, "which ports are shut was not saved");
                None
            }
        }
    }
}

fn set_forwarding(out: &mut Outside, index: u32, name: &str, forwards: bool) {
    out.effects.push(Effect::Host(HostTask::SetForwarding {
        index,
        name: name.to_owned(),
        forwards,
    }));
}

impl Networks {
    /// The own beacon came from the bridge of `net`.
    pub(crate) fn handle_returned_beacon(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        net: NetIndex,
        vlan: VlanId,
    ) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        let Some(record) = &network.attached else {
            return;
        };
        let machine = &mut network.lan.machine;
        let found = out.sight.port_behind(&record.bridge, machine.id().mac());
        let Some(port) = found.filter(|port| *port != record.tap) else {
            // The beacon has just gone out again; the next one that comes back tells.
            return;
        };
        let (Some(index), first) = (out.sight.index_of(&port), machine.is_first(tick.now, vlan))
        else {
            return;
        };
        let text = format!(
            "network {}: {port} is part of a loop: what this host sends into {} comes back by it; \
             {port} is shut for {} minutes and then tried again; unplug it, or take it out of the \
             bridge: ip link set {port} nomaster",
            network.secret.name,
            record.bridge,
            SHUT_FOR.as_secs() / 60,
        );
        if self.looped.shut_again(tick.now, out, &port) {
            return;
        }
        if !self.looped.machine.handle_return(tick.now, index, first) {
            return;
        }
        out.warnings.raise(tick.now, Topic::Loop, &port, text);
        machine.handle_port_shut(tick.now);
        self.looped.shut_port(tick, out, index, port);
    }

    /// The kernel has shut or opened a port, or will not.
    pub(crate) fn handle_port_set(
        &mut self,
        tick: Tick,
        out: &mut Outside,
        own: Own,
        set: &PortSet,
    ) {
        let bridge = out.sight.bridge_of(&set.name);
        self.looped.note_set(&*out.sight, set);
        for index in 0..self.all.len() {
            let Some(network) = self.all.get_mut(index) else {
                return;
            };
            let record = network.attached.as_ref();
            if record.is_none_or(|record| bridge.as_ref() != Some(&record.bridge)) {
                continue;
            }
            network.lan.machine.handle_port_set(tick.now);
            if !set.forwards && !set.refused {
                let net = network.index;
                self.mend_tables(tick, out, own, net);
            }
        }
    }

    /// While frames went round every bridge learnt MACs at the wrong ports: they forget, and are taught.
    /// A station that is silent now would otherwise be unreachable for as long as switches remember.
    fn mend_tables(&mut self, tick: Tick, out: &mut Outside, own: Own, net: NetIndex) {
        let Some(network) = self.all.get_mut(usize::from(net.0)) else {
            return;
        };
        network.bridge.remote.write_at_once();
        let Some(record) = &network.attached else {
            return;
        };
        let mut ports = out.sight.live_ports(&record.bridge);
        ports.remove(&record.tap);
        let ports = ports.iter().filter_map(|name| out.sight.index_of(name));
        for port in ports.collect::<Vec<_>>() {
            self.flush_port(out, port);
        }
        let Some(network) = self.all.get(usize::from(net.0)) else {
            return;
        };
        let lan = &network.lan.machine;
        let entries = network.directory.entries(tick.now);
        let carried = entries.filter(|entry| !lan.is_shut(entry.key.vlan));
        for entry in carried.take(MAX_TAUGHT) {
            let (mac, vlan) = (entry.key.mac, entry.key.vlan);
            if !entry.local {
                self.write_tap(net, &teaching_frame(mac, vlan), out);
                continue;
            }
            for ip in &entry.ips {
                self.write_tap(net, &question(own.probe_mac, *ip, vlan), out);
            }
        }
    }
}

/// Asks a station for itself. By broadcast: a frame for its MAC would go where the switches think that it is.
fn question(asker: MacAddr, ip: IpAddr, vlan: VlanId) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ArpPacket::probe(asker, ip).to_frame(MacAddr::BROADCAST, vlan),
        IpAddr::V6(ip) => {
            let probe = NeighborSolicitation::probe(ip);
            let all = multicast_mac(probe.destination);
            probe.to_frame(asker, all, vlan)
        }
    }
}

#[cfg(test)]
mod tests;
