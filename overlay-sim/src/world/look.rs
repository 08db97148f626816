//! What a simulated host looks like to its node: one NIC, and for each network a bridge with a tap and guests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use nat_traversal::host::{HostAddress, HostLink, HostRoute, HostView, LinkKind, WayOut};
use node_core::attachment::{Attachment, Switches, TapPort};
use node_core::node::host_orders::BridgeLook;
use node_core::node::sight::HostSight;
use overlay_proto::ethernet::bridge::{FdbEntry, PortState};
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::NetworkName;
use overlay_proto::switching::NetIndex;

/// The kernel's numbers of interfaces: the NIC, the bridges, the taps, the guests' ports.
const NIC: u32 = 2;
const BRIDGES: u32 = 1_000;
const TAPS: u32 = 2_000;
const GUESTS: u32 = 10_000;

/// Payload of the taps, bytes.
const MTU: u16 = 1_500;

/// One network on a host: a bridge, the overlay's tap, and guests. Bound: the guests of the world.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    pub(super) network: NetworkName,
    pub(super) number: u32,
    /// Is the overlay's tap there?
    pub(super) is_attached: bool,
    /// The guests plugged in, by their number in the world.
    pub(super) guests: BTreeMap<u32, Port>,
}

/// A guest's port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub(super) mac: MacAddr,
    /// When the bridge heard the guest, unless it has forgotten it since.
    pub(super) heard: Option<Duration>,
}

impl Bridge {
    pub(super) fn name(&self) -> String {
        format!("br-{}", self.network)
    }

    pub(super) fn tap(&self) -> String {
        format!("tap-{}", self.network)
    }

    /// The record of the attachment.
    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            network: self.network.clone(),
            tap: self.tap(),
            bridge: self.name(),
            bridge_is_ours: true,
            addresses: Vec::new(),
            nic: None,
            vms: Vec::new(),
            switches: Switches::default(),
        }
    }

    /// The entry of the forwarding database for a guest.
    pub(super) const fn entry(&self, guest: u32, mac: MacAddr) -> FdbEntry {
        FdbEntry {
            bridge: BRIDGES + self.number,
            port: GUESTS + guest,
            mac,
            vlan: VlanId::UNTAGGED,
        }
    }

    /// The guests that the bridge knows.
    fn heard(&self) -> impl Iterator<Item = (u32, MacAddr)> {
        let heard = self.guests.iter().filter(|(_, port)| port.heard.is_some());
        heard.map(|(guest, port)| (*guest, port.mac))
    }

    /// What a look at it sees.
    pub(super) fn look(&self, net: NetIndex, whole: bool) -> BridgeLook {
        let fdb = whole.then(|| {
            let entries = self.heard().map(|(guest, mac)| self.entry(guest, mac));
            entries.collect()
        });
        BridgeLook {
            net,
            bridge: BRIDGES + self.number,
            tap: TAPS + self.number,
            untagged: None,
            ports: self.guests.keys().map(|guest| GUESTS + guest).collect(),
            fdb,
            more: false,
            own: BTreeSet::new(),
            snoops: false,
            wrong: Vec::new(),
        }
    }
}

fn port_name(guest: u32) -> String {
    format!("guest{guest}")
}

/// The bridges of a host, shared with what its node sees of them at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Bridges(Arc<Mutex<Vec<Bridge>>>);

impl Bridges {
    /// A bridge for a network, unless there is one.
    pub(super) fn add(&self, network: NetworkName, is_attached: bool) {
        self.with(|bridges| {
            if bridges.iter().all(|one| one.network != network) {
                bridges.push(Bridge {
                    network,
                    number: u32::try_from(bridges.len()).unwrap_or(u32::MAX),
                    is_attached,
                    guests: BTreeMap::new(),
                });
            }
        });
    }

    /// Others like them, with no guest plugged in.
    pub(super) fn without_guests(&self) -> Self {
        let empty = |one: &Bridge| Bridge {
            guests: BTreeMap::new(),
            ..one.clone()
        };
        let all = self.with(|bridges| bridges.iter().map(empty).collect());
        Self(Arc::new(Mutex::new(all)))
    }

    /// The records of what is attached.
    pub(super) fn records(&self) -> Vec<Attachment> {
        self.with(|bridges| {
            let attached = bridges.iter().filter(|one| one.is_attached);
            attached.map(Bridge::attachment).collect()
        })
    }

    /// Is the overlay's tap on the bridge of `network`?
    pub(super) fn is_attached(&self, network: &NetworkName) -> bool {
        self.with(|bridges| {
            let mut attached = bridges.iter().filter(|one| one.is_attached);
            attached.any(|one| one.network == *network)
        })
    }

    /// Attaches, or detaches. An error if it is so already.
    pub(super) fn attach(&self, network: &NetworkName, attached: bool) -> Result<(), String> {
        self.with(|bridges| {
            let bridge = bridges.iter_mut().find(|one| one.network == *network);
            let is = if attached { "is" } else { "is not" };
            match bridge {
                Some(bridge) if bridge.is_attached != attached => bridge.is_attached = attached,
                Some(_) => return Err(format!("{network} {is} attached")),
                None => return Err(format!("there is no network {network}")),
            }
            Ok(())
        })
    }

    /// Detaches all.
    pub(super) fn detach_all(&self) {
        self.with(|bridges| {
            for bridge in bridges {
                bridge.is_attached = false;
            }
        });
    }

    /// Looks at them, or changes them.
    pub(super) fn with<T>(&self, how: impl FnOnce(&mut Vec<Bridge>) -> T) -> T {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find<T>(&self, how: impl Fn(&Bridge) -> Option<T>) -> Option<T> {
        self.with(|bridges| bridges.iter().find_map(how))
    }
}

impl HostSight for Bridges {
    fn port_behind(&self, bridge: &str, mac: MacAddr) -> Option<String> {
        self.find(|one| {
            let here = one
                .heard()
                .find(|(_, known)| *known == mac && one.name() == bridge);
            here.map(|(guest, _)| port_name(guest))
        })
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        self.find(|one| {
            let mut guests = one.guests.keys();
            match name {
                _ if name == one.name() => Some(BRIDGES + one.number),
                _ if name == one.tap() => Some(TAPS + one.number),
                _ => Some(GUESTS + guests.find(|guest| port_name(**guest) == name)?),
            }
        })
    }

    fn port_state(&self, name: &str) -> Option<PortState> {
        self.bridge_of(name).map(|_| PortState::Other)
    }

    fn bridge_of(&self, name: &str) -> Option<String> {
        self.find(|one| {
            let mut guests = one.guests.keys();
            let is_port = name == one.tap() || guests.any(|guest| port_name(*guest) == name);
            is_port.then(|| one.name())
        })
    }

    fn live_ports(&self, bridge: &str) -> BTreeSet<String> {
        let ports = |one: &Bridge| {
            let names = one.guests.keys().map(|guest| port_name(*guest));
            (one.name() == bridge).then(|| names.collect())
        };
        self.find(ports).unwrap_or_default()
    }

    fn tap_port(&self, name: &str) -> Option<TapPort> {
        self.find(|one| {
            (name == one.tap()).then(|| TapPort {
                bridge: Some(one.name()),
                mtu: MTU,
            })
        })
    }

    fn host_name(&self) -> Option<String> {
        None
    }

    fn nic_waits(&self, _attached: &Attachment) -> bool {
        false
    }
}

/// What the kernel of a host with these addresses and bridges tells.
pub(super) fn host_view(
    addresses: &[IpAddr],
    toward: &[(IpAddr, Option<IpAddr>)],
    bridges: &[Bridge],
) -> HostView {
    let link = |index, name: &str, kind, master| HostLink {
        index,
        name: name.to_owned(),
        kind,
        is_loopback: false,
        is_running: true,
        master,
        lower: None,
    };
    let mut links = vec![link(NIC, "eth0", LinkKind::Other, None)];
    for bridge in bridges {
        let index = BRIDGES + bridge.number;
        links.push(link(index, &bridge.name(), LinkKind::Other, None));
        let tap = TAPS + bridge.number;
        links.push(link(tap, &bridge.tap(), LinkKind::Tun, Some(index)));
    }
    let prefix = |ip: &IpAddr| if ip.is_ipv4() { 24 } else { 64 };
    let subnets = addresses
        .iter()
        .filter_map(|ip| IpNet::new(*ip, prefix(ip)).ok());
    let address = |net| HostAddress {
        net,
        link: NIC,
        is_deprecated: false,
        is_temporary: false,
        is_unusable: false,
    };
    let default = |to: &str| to.parse().ok().map(|to| HostRoute { to, link: NIC });
    let on_link = subnets.clone().map(|net| HostRoute {
        to: net.trunc(),
        link: NIC,
    });
    let families = ["0.0.0.0/0", "::/0"].into_iter().zip([true, false]);
    let defaults = families
        .filter(|(_, v4)| addresses.iter().any(|ip| ip.is_ipv4() == *v4))
        .filter_map(|(to, _)| default(to));
    let routes = on_link.chain(defaults).collect();
    let ways_out = toward.iter().filter_map(|(to, source)| {
        Some(WayOut {
            to: *to,
            link: NIC,
            source: Some((*source)?),
            gateway: None,
        })
    });
    HostView {
        links,
        addresses: subnets.map(address).collect(),
        routes,
        ways_out: ways_out.collect(),
    }
}
