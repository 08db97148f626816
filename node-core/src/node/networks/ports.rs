//! The ports of a network: what guests and LANs are plugged into on this host (docs/adr/0045-ports.md).
//!
//! The list follows the record of the attachment. Which MAC came by which port is looked up by way of the
//! bridge's database, never stored beside it: number of an interface, its name, the port of that name.

use std::collections::BTreeMap;
use std::sync::Arc;

use overlay_proto::ids::NetworkName;
use overlay_proto::switching::{FibPorts, MacKey, PortCounters, PortId};

use super::Networks;
use crate::api::{PortCountersReport, PortReport};
use crate::attachment::Attachment;
use crate::node::networks::network::Network;
use crate::node::outside::Outside;
use crate::node::sight::HostSight;
use crate::node::tick::Tick;

pub use crate::attachment::{PortKind, PortState};

/// What a guest or a LAN is plugged into.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    /// Its name in this run.
    pub(crate) id: PortId,
    /// What it is.
    pub(crate) kind: PortKind,
    /// The interface; of [`PortKind::Bridge`] the bridge itself.
    pub(crate) name: String,
    /// The VM, by the name given to `attach --vm`.
    pub(crate) vm: Option<String>,
    /// Does it carry frames?
    pub(crate) state: PortState,
    /// What it cost the slow path.
    pub(crate) counters: Arc<PortCounters>,
}

/// Gives ports their names: each once.
#[derive(Debug, Default)]
pub struct PortIds(u32);

impl PortIds {
    /// The next one. After four thousand million ports they are all newcomers.
    fn next(&mut self) -> PortId {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            u32::MAX => PortId::NEWCOMERS,
            id => PortId(id),
        }
    }
}

/// The ports of one network. Bound: the VM taps of an attachment, its NIC and its bridge; removed when the record
/// has them no more.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    all: Vec<Port>,
    /// As the `Fib` shows them.
    shown: Arc<FibPorts>,
}

/// What a new record changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// These were open, and are shut.
    pub(crate) shut: Vec<PortId>,
    /// These were shut, and are open or gone.
    pub(crate) freed: Vec<PortId>,
}

impl Ports {
    /// The ports are those of `record` from now on.
    pub(crate) fn follow(&mut self, ids: &mut PortIds, record: &Attachment) -> Changed {
        let before = std::mem::take(&mut self.all);
        let mut changed = Changed::default();
        for (kind, name, vm, state) in wanted(record) {
            let known = before
                .iter()
                .find(|port| port.kind == kind && port.name == name);
            let port = match known {
                Some(known) => Port {
                    state,
                    ..known.clone()
                },
                None => Port {
                    id: ids.next(),
                    kind,
                    name: name.to_owned(),
                    vm: vm.map(str::to_owned),
                    state,
                    counters: Arc::default(),
                },
            };
            if state == PortState::Shut && known.is_some_and(|known| known.state != state) {
                changed.shut.push(port.id);
            }
            self.all.push(port);
        }
        let was_shut = before.iter().filter(|port| port.state == PortState::Shut);
        let freed = was_shut.map(|port| port.id);
        changed.freed.extend(freed.filter(|id| {
            let now = self.get(*id);
            now.is_none_or(|port| port.state != PortState::Shut)
        }));
        self.show();
        changed
    }

    /// The port of a VM is shut before the host shuts it; `None` if it is already, or is not there.
    pub(crate) fn shut(&mut self, vm: &str) -> Option<PortId> {
        let mut all = self.all.iter_mut();
        let port = all.find(|port| port.vm.as_deref() == Some(vm))?;
        let before = std::mem::replace(&mut port.state, PortState::Shut);
        (before != PortState::Shut).then_some(port.id)
    }

    /// Nothing is attached any more.
    pub(crate) fn clear(&mut self) -> Vec<PortId> {
        let gone = std::mem::take(&mut self.all);
        self.show();
        gone.into_iter().map(|port| port.id).collect()
    }

    /// All of them: the bridge, the NIC, then the VMs' in the order they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.all.iter()
    }

    pub(crate) fn get(&self, id: PortId) -> Option<&Port> {
        self.all.iter().find(|port| port.id == id)
    }

    /// The port that the interface `name` of the bridge belongs to.
    pub(crate) fn of_interface(&self, name: &str) -> Option<&Port> {
        let own = |port: &&Port| port.kind != PortKind::Bridge && port.name == name;
        let mut bridges = self.all.iter().filter(|port| port.kind == PortKind::Bridge);
        self.all.iter().find(own).or_else(|| bridges.next())
    }

    /// As the `Fib` shows them.
    pub(crate) fn shown(&self) -> Arc<FibPorts> {
        Arc::clone(&self.shown)
    }

    fn show(&mut self) {
        let counters = |port: &Port| (port.id, Arc::clone(&port.counters));
        let known: BTreeMap<_, _> = self.all.iter().map(counters).collect();
        self.shown = Arc::new(FibPorts {
            newcomers: Arc::clone(&self.shown.newcomers),
            known,
        });
    }
}

/// The ports of a record: kind, interface, VM, state.
fn wanted(
    record: &Attachment,
) -> impl Iterator<Item = (PortKind, &str, Option<&str>, PortState)> {
    let bridge = (PortKind::Bridge, record.bridge.as_str(), None, PortState::Open);
    let nic = record.nic.iter();
    let nic = nic.map(|nic| (PortKind::Nic, nic.name.as_str(), None, PortState::Open));
    let taps = record.vms.iter().map(|vm| {
        let name = vm.name.as_str();
        (PortKind::Tap, name, Some(name), vm.state)
    });
    [bridge].into_iter().chain(nic).chain(taps)
}

impl Network {
    /// The port that `key` is behind; the newcomers while the bridge has not told, or no look has named the interface.
    pub(crate) fn port_of(&self, key: &MacKey) -> PortId {
        let interface = self.bridge.interface_of(key);
        let port = interface.and_then(|name| self.ports.of_interface(name));
        port.map_or(PortId::NEWCOMERS, |port| port.id)
    }

    /// Is the interface with this number a port that is shut?
    pub(crate) fn shut_port(&self, interface: u32) -> Option<PortId> {
        let name = self.bridge.name_of(interface)?;
        let port = self.ports.of_interface(name)?;
        (port.state == PortState::Shut).then_some(port.id)
    }

    /// What `farlan status` shows of the ports.
    pub(crate) fn port_reports(&self, sight: &dyn HostSight) -> Vec<PortReport> {
        if self.attached.is_none() {
            return Vec::new();
        }
        let mut macs: BTreeMap<PortId, usize> = BTreeMap::new();
        for key in self.local.keys() {
            *macs.entry(self.port_of(key)).or_default() += 1;
        }
        let report = |port: &Port| {
            // The kernel's counters of a bridge are those of the host at it.
            let has_traffic = matches!(port.kind, PortKind::Tap | PortKind::Nic);
            let traffic = has_traffic.then(|| sight.traffic(&port.name)).flatten();
            PortReport {
                id: port.id.0,
                kind: port.kind,
                name: port.name.clone(),
                vm: port.vm.clone(),
                state: port.state,
                macs: macs.get(&port.id).copied().unwrap_or_default(),
                counters: PortCountersReport::of(traffic, &port.counters),
            }
        };
        self.ports.iter().map(report).collect()
    }

    /// The interface of a MAC's port, and the VM there. What others have plugged into the bridge goes by its own name.
    pub(crate) fn port_shown(&self, key: &MacKey) -> Option<(String, Option<String>)> {
        let name = self.bridge.interface_of(key)?;
        let port = self.ports.of_interface(name)?;
        Some((name.to_owned(), port.vm.clone()))
    }

    /// The workers are told the ports of those of our MACs that `is_it` holds for.
    pub(crate) fn tell_ports(&self, is_it: impl Fn(&MacKey) -> bool) {
        for (key, local) in self.local.iter().filter(|(key, _)| is_it(key)) {
            local.set_port(self.port_of(key));
        }
    }
}

impl Networks {
    /// The ports are as the attachments say.
    pub(crate) fn follow_ports(&mut self, tick: Tick, out: &mut Outside) {
        for network in &mut self.all {
            let Some(record) = &network.attached else {
                continue;
            };
            let changed = network.ports.follow(&mut self.port_ids, record);
            for id in changed.freed {
                network.bridge.release(id);
            }
            for id in changed.shut {
                withdraw_port(tick, network, id);
                self.touched.insert(network.index);
            }
        }
        out.fib_stale = true;
    }

    /// A port is to be shut: from now on nothing from it counts, whatever the host still lets pass.
    pub(crate) fn shut_before(&mut self, tick: Tick, out: &mut Outside, network: &NetworkName, vm: &str) {
        let mut networks = self.all.iter_mut();
        let Some(network) = networks.find(|one| one.secret.name == *network) else {
            return;
        };
        if let Some(id) = network.ports.shut(vm) {
            withdraw_port(tick, network, id);
            self.touched.insert(network.index);
            out.fib_stale = true;
        }
    }
}

/// What came by a port is given up, and held to it.
fn withdraw_port(tick: Tick, network: &mut Network, id: PortId) {
    let is_its = |key: &&MacKey| network.port_of(key) == id;
    let lost: Vec<MacKey> = network.local.keys().filter(is_its).copied().collect();
    let slots: Vec<MacKey> = network.bridge.keys().collect();
    let slots = slots.into_iter().filter(|slot| network.port_of(slot) == id);
    for key in slots.chain(lost.iter().copied()).collect::<Vec<_>>() {
        network.bridge.hold(&key, id);
    }
    network.directory.handle_port_lost(tick.now, &lost);
}

#[cfg(test)]
mod tests;
