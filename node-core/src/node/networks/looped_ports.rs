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

use crate::node::effects::Effect;
use crate::node::host_orders::HostTask;
use crate::node::switchboard::run::Node;
use crate::node::tick::Tick;
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
}

impl Node {
    /// The own beacon came from the bridge of `net`.
    pub(crate) fn handle_returned_beacon(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let Some(record) = &network.attached else {
            return;
        };
        let machine = &network.lan.machine;
        let found = self
            .outside
            .sight
            .port_behind(&record.bridge, machine.id().mac());
        let Some(port) = found.filter(|port| *port != record.tap) else {
            // The beacon has just gone out again; the next one that comes back tells.
            return;
        };
        let (Some(index), first) = (
            self.outside.sight.index_of(&port),
            machine.is_first(tick.now, vlan),
        ) else {
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
        if self.shut_again(tick.now, &port) {
            return;
        }
        if !self
            .networks
            .looped
            .machine
            .handle_return(tick.now, index, first)
        {
            return;
        }
        self.outside
            .warnings
            .raise(tick.now, Topic::Loop, &port, text);
        if let Some(network) = self.networks.all.get_mut(usize::from(net.0)) {
            network.lan.machine.handle_port_shut(tick.now);
        }
        self.shut_port(tick, index, port);
    }

    /// Shuts `port` once it is on disk that it is: whoever is killed in between must find it to open it again.
    pub fn shut_port(&mut self, tick: Tick, index: u32, port: String) {
        self.networks.looped.look_at = Some(tick.now + LOOK);
        self.networks.looped.shut.push(ShutPort {
            index,
            name: port,
            until: tick.wall.plus(SHUT_FOR),
            refused: false,
            awaits: None,
        });
        if let Some(id) = self.save_looped_ports()
            && let Some(port) = self.networks.looped.shut.last_mut()
        {
            port.awaits = Some((id, tick.now + DISK));
        }
    }

    /// The ports are on disk as of write `kept`, or the disk refused: those that waited for it are shut.
    pub(crate) fn handle_ports_kept(&mut self, kept: WriteId) {
        let mut waited = Vec::new();
        for port in &mut self.networks.looped.shut {
            if port.awaits.take_if(|(id, _)| *id <= kept).is_some() {
                waited.push((port.index, port.name.clone()));
            }
        }
        for (index, name) in waited {
            self.set_forwarding(index, &name, false);
        }
    }

    /// Shuts the ports again that were shut and forward all the same. `true` if one did, or if `returned` is
    /// one of them: then no other port is to be shut for what came back.
    fn shut_again(&mut self, now: Instant, returned: &str) -> bool {
        let (mut known, mut open) = (false, Vec::new());
        for port in &self.networks.looped.shut {
            known |= port.name == returned;
            if !port.refused && self.outside.sight.port_state(&port.name) == Some(PortState::Other)
            {
                known = true;
                if !port.is_awaiting(now) {
                    open.push((port.index, port.name.clone()));
                }
            }
        }
        for (index, name) in open {
            self.set_forwarding(index, &name, false);
        }
        known
    }

    /// Where another port of its bridge is gone since the last look, a port that is shut is tried again soon.
    fn hasten_looped_ports(&mut self, now: Instant) {
        let looped = &mut self.networks.looped;
        let bridges: BTreeSet<String> = looped
            .shut
            .iter()
            .filter_map(|port| self.outside.sight.bridge_of(&port.name))
            .collect();
        let mut beside = BTreeMap::new();
        for bridge in bridges {
            let mut ports = self.outside.sight.live_ports(&bridge);
            let before = looped.beside.get(&bridge);
            if before.is_some_and(|before| !before.is_subset(&ports)) {
                for port in &looped.shut {
                    if self.outside.sight.bridge_of(&port.name).as_ref() == Some(&bridge) {
                        looped.machine.hasten(now, port.index);
                    }
                }
            }
            // Those that are shut are no way out, whatever becomes of them.
            ports.retain(|name| looped.shut.iter().all(|port| port.name != *name));
            beside.insert(bridge, ports);
        }
        looped.beside = beside;
    }

    /// Keeps shut what is shut, and forgets what has left its bridge.
    fn look_at_looped_ports(&mut self, now: Instant) {
        if self.networks.looped.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.shut_again(now, "");
        let sight = &self.outside.sight;
        let is_gone = |port: &ShutPort| {
            sight.index_of(&port.name) != Some(port.index) || sight.port_state(&port.name).is_none()
        };
        let (gone, stays) = std::mem::take(&mut self.networks.looped.shut)
            .into_iter()
            .partition(is_gone);
        self.networks.looped.shut = stays;
        self.networks.looped.look_at =
            (!self.networks.looped.shut.is_empty()).then_some(now + LOOK);
        let gone: Vec<ShutPort> = gone;
        for port in &gone {
            tracing::info!(port = port.name, "a port that was shut has left its bridge");
            self.networks.looped.machine.forget(port.index);
            self.outside.warnings.lower(Topic::Loop, &port.name);
        }
        if !gone.is_empty() {
            self.save_looped_ports();
        }
        self.hasten_looped_ports(now);
    }

    /// Opens the ports whose time is over.
    pub(crate) fn open_looped_ports(&mut self, tick: Tick) {
        self.look_at_looped_ports(tick.now);
        while let Some(index) = self.networks.looped.machine.poll_reopen(tick.now) {
            let shut = &mut self.networks.looped.shut;
            let Some(at) = shut.iter().position(|port| port.index == index) else {
                continue;
            };
            let port = shut.remove(at);
            self.outside.warnings.lower(Topic::Loop, &port.name);
            tracing::warn!(
                port = port.name,
                "a port that was part of a loop is tried again"
            );
            self.set_forwarding(index, &port.name, true);
            self.save_looped_ports();
        }
    }

    /// Ports that an earlier run shut, and did not live to open.
    pub fn recall_looped_ports(&mut self, tick: Tick, saved: &[u8]) {
        let shut: Vec<ShutPort> = postcard::from_bytes(saved).unwrap_or_default();
        for port in shut {
            if self.outside.sight.index_of(&port.name) == Some(port.index) {
                let left = Duration::from_secs(port.until.seconds_since(tick.wall));
                let name = &port.name;
                let text = format!(
                    "{name} is part of a loop and shut; it is tried again in {} s; unplug it, or take \
                     it out of the bridge: ip link set {name} nomaster",
                    left.as_secs()
                );
                self.outside
                    .warnings
                    .raise(tick.now, Topic::Loop, name, text);
                self.networks
                    .looped
                    .machine
                    .restore(tick.now, port.index, left);
                self.networks.looped.shut.push(port);
                self.networks.looped.look_at = Some(tick.now);
            }
        }
    }

    fn set_forwarding(&mut self, index: u32, name: &str, forwards: bool) {
        self.outside
            .effects
            .push(Effect::Host(HostTask::SetForwarding {
                index,
                name: name.to_owned(),
                forwards,
            }));
    }

    /// The kernel has shut or opened a port, or will not.
    pub(crate) fn handle_port_set(&mut self, tick: Tick, set: &PortSet) {
        let bridge = self.outside.sight.bridge_of(&set.name);
        let mut shut = self.networks.looped.shut.iter_mut();
        if let Some(port) = shut.find(|port| port.name == set.name) {
            // A port that is down is refused, too; the kernel opens it when it comes up.
            port.refused =
                set.refused && self.outside.sight.port_state(&port.name) == Some(PortState::Other);
        }
        for index in 0..self.networks.all.len() {
            let Some(network) = self.networks.all.get_mut(index) else {
                return;
            };
            let record = network.attached.as_ref();
            if record.is_none_or(|record| bridge.as_ref() != Some(&record.bridge)) {
                continue;
            }
            network.lan.machine.handle_port_set(tick.now);
            if !set.forwards && !set.refused {
                let net = network.index;
                self.mend_tables(tick, net);
            }
        }
    }

    /// While frames went round every bridge learnt MACs at the wrong ports: they forget, and are taught.
    /// A station that is silent now would otherwise be unreachable for as long as switches remember.
    fn mend_tables(&mut self, tick: Tick, net: NetIndex) {
        let Some(network) = self.networks.all.get_mut(usize::from(net.0)) else {
            return;
        };
        network.bridge.remote.write_at_once();
        let Some(record) = &network.attached else {
            return;
        };
        let mut ports = self.outside.sight.live_ports(&record.bridge);
        ports.remove(&record.tap);
        let ports = ports
            .iter()
            .filter_map(|name| self.outside.sight.index_of(name));
        for port in ports.collect::<Vec<_>>() {
            self.networks.flush_port(&mut self.outside, port);
        }
        let Some(network) = self.networks.all.get(usize::from(net.0)) else {
            return;
        };
        let lan = &network.lan.machine;
        let entries = network.directory.entries(tick.now);
        let carried = entries.filter(|entry| !lan.is_shut(entry.key.vlan));
        let carried: Vec<_> = carried.take(MAX_TAUGHT).collect();
        let asker = self.standing.identity.probe_mac();
        for entry in carried {
            let (mac, vlan) = (entry.key.mac, entry.key.vlan);
            if !entry.local {
                self.networks
                    .write_tap(&mut self.outside, net, &teaching_frame(mac, vlan));
                continue;
            }
            // By broadcast: a frame for its MAC would go where the switches think that it is.
            for ip in &entry.ips {
                let probe = match ip {
                    IpAddr::V4(ip) => {
                        ArpPacket::probe(asker, *ip).to_frame(MacAddr::BROADCAST, vlan)
                    }
                    IpAddr::V6(ip) => {
                        let probe = NeighborSolicitation::probe(*ip);
                        let all = multicast_mac(probe.destination);
                        probe.to_frame(asker, all, vlan)
                    }
                };
                self.networks.write_tap(&mut self.outside, net, &probe);
            }
        }
    }

    fn save_looped_ports(&mut self) -> Option<WriteId> {
        match postcard::to_stdvec(&self.networks.looped.shut) {
            Ok(bytes) => Some(self.outside.store.put(Write::LoopedPorts(bytes))),
            Err(error) => {
                tracing::error!(%error, "which ports are shut was not saved");
                None
            }
        }
    }
}
