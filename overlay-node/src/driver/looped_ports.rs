//! Ports of this host's bridges that are shut because the own beacon came back by them
//! (`docs/adr/0032-a-port-that-loops-is-shut.md`).

use std::time::{Duration, Instant};

use overlay_proto::ethernet::VlanId;
use overlay_proto::segment::shut::{SHUT_FOR, ShutPorts};
use overlay_proto::switching::NetIndex;
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};
use tap_bridge::port_state::{index_of, is_disabled, port_behind};

use super::node::Tick;
use super::run::Driver;
use super::warnings::Topic;

/// The name of the blob with the ports that are shut.
const BLOB: &str = "looped-ports";

/// Which ports are shut, and their names.
#[derive(Debug, Default)]
pub(crate) struct LoopedPorts {
    machine: ShutPorts,
    /// As in the machine.
    shut: Vec<ShutPort>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ShutPort {
    index: u32,
    name: String,
    until: UnixTime,
}

impl LoopedPorts {
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

impl Driver {
    /// The own beacon came from the bridge of `net`.
    pub(crate) fn handle_returned_beacon(&mut self, tick: Tick, net: NetIndex, vlan: VlanId) {
        let Some(network) = self.networks.get(usize::from(net.0)) else {
            return;
        };
        let Some(record) = &network.attached else {
            return;
        };
        let machine = &network.lan.machine;
        let found = port_behind(&record.bridge, machine.id().mac());
        let Some(port) = found.ok().flatten().filter(|port| *port != record.tap) else {
            // The beacon has just gone out again; the next one that comes back tells.
            return;
        };
        let (Some(index), first) = (index_of(&port), machine.is_first(tick.now, vlan)) else {
            return;
        };
        if self.shut_again(&port) {
            return;
        }
        if !self.looped.machine.handle_return(tick.now, index, first) {
            return;
        }
        let text = format!(
            "network {}: {port} is part of a loop: what this host sends into {} comes back by it; \
             {port} is shut for {} minutes and then tried again; unplug it, or take it out of the \
             bridge: ip link set {port} nomaster",
            network.secret.name,
            record.bridge,
            SHUT_FOR.as_secs() / 60,
        );
        self.warnings.raise(tick.now, Topic::Loop, &port, text);
        if let Some(network) = self.networks.get_mut(usize::from(net.0)) {
            network.lan.machine.handle_port_shut(tick.now);
        }
        self.set_forwarding(index, &port, false);
        let until = tick.wall.plus(SHUT_FOR);
        self.looped.shut.push(ShutPort {
            index,
            name: port,
            until,
        });
        self.save_looped_ports();
    }

    /// Shuts the ports again that were shut and forward all the same: their carrier went and came, and the
    /// kernel opened them. `true` if one did, or if `returned` is one of them: then no other port is to be shut
    /// for what came back.
    fn shut_again(&self, returned: &str) -> bool {
        let mut known = false;
        for port in &self.looped.shut {
            known |= port.name == returned;
            if !is_disabled(&port.name) {
                self.set_forwarding(port.index, &port.name, false);
                known = true;
            }
        }
        known
    }

    /// Opens the ports whose time is over.
    pub(crate) fn open_looped_ports(&mut self, tick: Tick) {
        while let Some(index) = self.looped.machine.poll_reopen(tick.now) {
            let shut = &mut self.looped.shut;
            let Some(at) = shut.iter().position(|port| port.index == index) else {
                continue;
            };
            let port = shut.remove(at);
            self.warnings.lower(Topic::Loop, &port.name);
            tracing::warn!(
                port = port.name,
                "a port that was part of a loop is tried again"
            );
            self.set_forwarding(index, &port.name, true);
            for network in &mut self.networks {
                network.lan.machine.handle_ports_changed(tick.now, false);
            }
            self.save_looped_ports();
        }
    }

    /// Ports that an earlier run shut, and did not live to open.
    pub(crate) fn recall_looped_ports(&mut self, tick: Tick) {
        let Ok(Some(bytes)) = self.state.load_blob(BLOB) else {
            return;
        };
        let shut: Vec<ShutPort> = postcard::from_bytes(&bytes).unwrap_or_default();
        for port in shut {
            if index_of(&port.name) == Some(port.index) {
                let left = Duration::from_secs(port.until.seconds_since(tick.wall));
                let name = &port.name;
                let text = format!(
                    "{name} is part of a loop and shut; it is tried again in {} s; unplug it, or take \
                     it out of the bridge: ip link set {name} nomaster",
                    left.as_secs()
                );
                self.warnings.raise(tick.now, Topic::Loop, name, text);
                self.looped.machine.restore(tick.now, port.index, left);
                self.looped.shut.push(port);
            }
        }
    }

    fn set_forwarding(&self, index: u32, name: &str, forwards: bool) {
        let (Some(links), name) = (self.looks.links(), name.to_owned()) else {
            return;
        };
        tokio::spawn(async move {
            if let Err(error) = links.set_forwarding(index, forwards).await {
                tracing::error!(%error, port = name, forwards, "the port stays as it is");
            }
        });
    }

    fn save_looped_ports(&self) {
        let saved = postcard::to_stdvec(&self.looped.shut).map_err(anyhow::Error::from);
        let saved = saved.and_then(|bytes| {
            let saved = self.state.save_blob(BLOB, &bytes);
            saved.map_err(anyhow::Error::from)
        });
        if let Err(error) = saved {
            tracing::error!("which ports are shut was not saved: {error:#}");
        }
    }
}
