//! The words on the control socket. The reports serialize to the JSON that `--json` prints,
//! on which other programs depend: add fields, never change those there are.

mod names;
mod ports;
mod shared_lan;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use nat_traversal::nat_kind::{Filtering, Mapping};
use nat_traversal::path::PathKind;
use overlay_proto::directory::ClaimKind;
use overlay_proto::ethernet::{MacAddr, VlanId};
use overlay_proto::ids::{NetworkName, OverlayId, PeerId};
use overlay_proto::membership::NetworkSecret;
use overlay_proto::time::UnixTime;
use serde::{Deserialize, Serialize};

pub use self::names::{MemberReport, ShownName};
use crate::attachment::{Attachment, TapPort};
use crate::pin::Pin;

pub use self::ports::{PortCountersReport, PortReport};
pub use self::shared_lan::SharedLanReport;

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Response::Status`].
    Status,
    /// [`Response::Peers`].
    Peers,
    /// [`Response::Networks`].
    Networks,
    /// The members of one network or of all: [`Response::Members`].
    Members {
        /// The network; none: all.
        network: Option<NetworkName>,
    },
    /// All MACs known, of one network or of all: [`Response::Macs`].
    Macs {
        /// The network; none: all.
        network: Option<NetworkName>,
    },
    /// Who holds a MAC or an IP, looked up in the overlay if need be: [`Response::Macs`].
    Where {
        /// The address.
        what: MacOrIp,
        /// The network; none: all.
        network: Option<NetworkName>,
    },
    /// One challenge to a peer on its path: [`Response::Ping`], within two seconds.
    Ping {
        /// The name or id of a peer, or the MAC or IP of a guest.
        to: String,
        /// The guest's network; none: any.
        network: Option<NetworkName>,
    },
    /// This MAC is here now (evidence of class 3): [`Response::Done`].
    Announce {
        /// What is here.
        pin: Pin,
        /// It stays here: as [`Request::Pin`].
        keep: bool,
    },
    /// This MAC is here and stays, whether it answers or not: [`Response::Done`].
    Pin(Pin),
    /// Take that back: [`Response::Done`].
    Unpin(Pin),
    /// [`Response::Done`].
    Attach(AttachRequest),
    /// [`Response::Done`].
    Detach(AttachRequest),
    /// What `attach --move-addresses` moved stays: [`Response::Done`].
    Confirm,
    /// Leave the overlay and end: [`Response::Done`].
    Leave,
    /// The membership on disk has changed: [`Response::Done`].
    Reload,
    /// This node calls itself so: [`Response::Done`].
    Rename {
        /// The name; none: the host's.
        name: Option<String>,
    },
    /// The line that `farlan revoke` printed: [`Response::Done`].
    Apply {
        /// The whole line.
        line: SecretLine,
    },
}

/// A line with keys in it: `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretLine(pub String);

impl std::fmt::Debug for SecretLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretLine(..)")
    }
}

/// How long either side of the control socket waits for the other's line.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A report, or a word to the node.
const LOOK: Duration = TIMEOUT.saturating_mul(2);

/// What is to be on disk first: `apply` writes three times.
const WRITE: Duration = TIMEOUT.saturating_mul(3);

/// A change of the host starts programs, and may wait for another one: `iptables` waits 10 s for its lock.
const CHANGE: Duration = Duration::from_secs(120);

impl Request {
    /// How long the node may take for it.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self {
            Self::Attach(_) | Self::Detach(_) | Self::Leave => CHANGE,
            Self::Announce { .. }
            | Self::Pin(_)
            | Self::Unpin(_)
            | Self::Reload
            | Self::Rename { .. }
            | Self::Apply { .. } => WRITE,
            _ => LOOK,
        }
    }

    /// May it come from anyone who can open the socket?
    #[must_use]
    pub const fn only_reads(&self) -> bool {
        match self {
            Self::Status
            | Self::Peers
            | Self::Networks
            | Self::Members { .. }
            | Self::Macs { .. }
            | Self::Where { .. }
            | Self::Ping { .. } => true,
            Self::Announce { .. }
            | Self::Pin(_)
            | Self::Unpin(_)
            | Self::Attach(_)
            | Self::Detach(_)
            | Self::Confirm
            | Self::Leave
            | Self::Reload
            | Self::Rename { .. }
            | Self::Apply { .. } => false,
        }
    }
}

/// What to attach to or detach from a network; neither bridge nor VM: the bridge `br-NETWORK`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The network.
    pub network: NetworkName,
    /// An existing bridge.
    pub bridge: Option<String>,
    /// The tap of a VM.
    pub vm: Option<String>,
    /// A NIC for the own bridge.
    #[serde(default)]
    pub nic: Option<String>,
    /// An address for the host on the own bridge; `attach` only.
    pub address: Option<IpNet>,
    /// The NIC's addresses and routes move to the bridge, and back unless that is confirmed within
    /// so many seconds; `attach` only.
    #[serde(default)]
    pub move_addresses_s: Option<u64>,
    /// Offload on or off; `None` leaves it; `attach` only.
    #[serde(default)]
    pub offload: Option<bool>,
    /// Clamping of the MSS on or off; `None` leaves it; `attach` only.
    #[serde(default)]
    pub clamp: Option<bool>,
    /// Also under running guests; `detach` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// MACs to pin; `attach` only.
    #[serde(default)]
    pub macs: Vec<MacAddr>,
    /// BPDUs are carried, or dropped; `None` leaves it; `attach` only.
    #[serde(default)]
    pub bpdu: Option<bool>,
    /// The VM's port is shut, or open; `None` leaves it; `attach` with `vm` only.
    #[serde(default)]
    pub shut: Option<bool>,
}

impl NetworkReport {
    /// Of a network of this member, and what is attached to it here, with its tap as it is now.
    #[must_use]
    pub fn of(network: &NetworkSecret, attached: Option<(&Attachment, Option<TapPort>)>) -> Self {
        let (attached, port) = attached.map_or((None, None), |(record, port)| (Some(record), port));
        let vms = attached.map_or(&[][..], |record| &record.vms);
        let nic = attached.and_then(|record| record.nic.as_ref());
        Self {
            name: network.name.clone(),
            tap: attached.map(|record| record.tap.clone()),
            bridge: match &port {
                Some(port) => port.bridge.clone(),
                None => attached.map(|record| record.bridge.clone()),
            },
            nic: nic.map(|nic| nic.name.clone()),
            vms: vms.iter().map(|vm| vm.name.clone()).collect(),
            mtu: port.map_or(network.mtu, |port| port.mtu),
            epoch: network.epoch,
            offload: attached.map(|record| record.switches.offload),
            clamp: attached.map(|record| record.switches.clamp),
            bpdu: attached.map(|record| record.switches.bpdu),
            shared: Vec::new(),
            ports: Vec::new(),
        }
    }
}

impl AttachRequest {
    /// The network's own bridge, the rest as it is.
    #[must_use]
    pub const fn new(network: NetworkName) -> Self {
        Self {
            network,
            bridge: None,
            vm: None,
            nic: None,
            address: None,
            move_addresses_s: None,
            offload: None,
            clamp: None,
            force: false,
            macs: Vec::new(),
            bpdu: None,
            shut: None,
        }
    }

    /// The MACs to pin, untagged.
    pub fn pins(&self) -> impl Iterator<Item = Pin> {
        self.macs.iter().map(|mac| Pin {
            network: self.network.clone(),
            vlan: VlanId::UNTAGGED,
            mac: *mac,
        })
    }
}

/// A MAC or an IP address, as the user wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MacOrIp {
    /// A MAC address.
    Mac(MacAddr),
    /// An IP address.
    Ip(IpAddr),
}

impl std::str::FromStr for MacOrIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mac = text.parse().map(Self::Mac);
        mac.or_else(|_| text.parse().map(Self::Ip)).map_err(|_| {
            format!("`{text}` is no MAC and no IP address; write 52:54:00:00:00:01 or 10.0.0.5")
        })
    }
}

impl std::fmt::Display for MacOrIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// What the node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Peers`].
    Peers(Vec<PeerReport>),
    /// To [`Request::Networks`].
    Networks(Vec<NetworkReport>),
    /// To [`Request::Members`].
    Members(Vec<MemberReport>),
    /// To [`Request::Macs`] and [`Request::Where`].
    Macs(Vec<MacReport>),
    /// To [`Request::Ping`].
    Ping(Box<PingReport>),
    /// A change was made; one line for the user, perhaps empty.
    Done(String),
    /// It failed; one line: what, why, what to do.
    Error(String),
}

/// `farlan status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// This node.
    pub node: PeerId,
    /// Its name; empty if it has none.
    pub name: String,
    /// Did the authority sign that name?
    #[serde(default)]
    pub name_signed: bool,
    /// The overlay.
    pub overlay: OverlayId,
    /// The program's version.
    pub version: String,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// Threads of the data path.
    #[serde(default)]
    pub workers: usize,
    /// Tasks of the process's runtime that are not done.
    #[serde(default)]
    pub tasks: usize,
    /// The last second of the membership, in seconds since 1970; `null` if it does not count.
    pub member_until: Option<UnixTime>,
    /// What the user should do something about, such as a membership that ends soon; a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why a bootstrap last refused this node; `null` once one has let it in.
    pub refused: Option<String>,
    /// The bootstraps of the membership, and how each is.
    #[serde(default)]
    pub bootstraps: Vec<BootstrapReport>,
    /// Where the data path takes UDP: a firewall that lets this in makes paths direct.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// The NAT in front of this node.
    pub nat: NatReport,
    /// The networks of this node.
    pub networks: Vec<NetworkReport>,
    /// The peers with a session or a path, or with traffic since the start.
    pub peers: Vec<PeerReport>,
    /// Drops by reason; only those that occurred.
    pub drops: BTreeMap<String, u64>,
    /// The MACs that `unknown_mac` counts frames for.
    #[serde(default)]
    pub unknown: Vec<UnknownMacReport>,
}

/// `status.bootstraps[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapReport {
    /// The bootstrap.
    pub node: PeerId,
    /// Its addresses, as the invites name them.
    pub addresses: Vec<String>,
    /// Is there a control connection?
    pub state: BootstrapState,
    /// Why it was not reached, when last tried.
    pub why: Option<String>,
    /// Where its reflector and relay take UDP, once it was up.
    pub data: Vec<SocketAddr>,
    /// Does one of these answer by UDP? `null`: not known yet.
    pub udp: Option<bool>,
    /// By how many seconds its clock is ahead of this host's; `null`: it has not said.
    #[serde(default)]
    pub clock_ahead_s: Option<i64>,
}

/// `status.bootstraps[].state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootstrapState {
    /// Connected, and it has admitted this node.
    Up,
    /// Not connected.
    Down,
}

/// `status.nat`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatReport {
    /// How it maps.
    pub mapping: Mapping,
    /// How it filters.
    pub filtering: Filtering,
    /// This node's addresses as others see them.
    pub reflexive: Vec<SocketAddr>,
    /// How many addresses of others the mapping is judged by; one alone cannot show it.
    #[serde(default)]
    pub observers: usize,
}

/// `status.networks[]`, and `farlan networks --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// The network.
    pub name: NetworkName,
    /// The tap on this host, if something is attached.
    pub tap: Option<String>,
    /// The bridge on this host that the tap is a port of, if something is attached.
    pub bridge: Option<String>,
    /// The NIC that is a port of the bridge (`attach --nic`).
    #[serde(default)]
    pub nic: Option<String>,
    /// The taps for hypervisors (`attach --vm`), in the order they were made.
    #[serde(default)]
    pub vms: Vec<String>,
    /// The guests' IP MTU, in bytes: that of the tap on this host, if something is attached.
    pub mtu: u16,
    /// The network's epoch; it grows with each revocation.
    #[serde(default)]
    pub epoch: u64,
    /// May the kernel give and get super-frames and partial checksums here? If something is attached.
    #[serde(default)]
    pub offload: Option<bool>,
    /// Is the MSS of TCP lowered to what one datagram carries? If something is attached.
    #[serde(default)]
    pub clamp: Option<bool>,
    /// Are BPDUs carried? If something is attached.
    #[serde(default)]
    pub bpdu: Option<bool>,
    /// The LAN behind the bridge, where other nodes are plugged into it, too; one for each VLAN.
    #[serde(default)]
    pub shared: Vec<SharedLanReport>,
    /// What guests and LANs are plugged into here; of a node that runs.
    #[serde(default)]
    pub ports: Vec<PortReport>,
}

/// `status.peers[]`, and `farlan peers --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer.
    pub node: PeerId,
    /// Its name.
    #[serde(flatten)]
    pub name: ShownName,
    /// The chosen path.
    pub path: PathReport,
    /// How its session seals: `aes-256-gcm` or `chacha20-poly1305`; `null` without a session.
    #[serde(default)]
    pub suite: Option<String>,
    /// Seconds since something sealed came from it; `null`: nothing since this node started.
    #[serde(default)]
    pub heard_s: Option<u64>,
    /// Bytes of guest frames sent to it.
    pub tx_bytes: u64,
    /// Bytes of guest frames received from it.
    pub rx_bytes: u64,
}

/// `status.peers[].path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// `direct`, `relayed`, `stream` or `none`.
    pub kind: PathKind,
    /// Where datagrams go: the peer, or the relay.
    pub remote: Option<SocketAddr>,
    /// The node that relays.
    pub via: Option<PeerId>,
    /// Why no better path is in use: a reason code.
    pub why: Option<String>,
    /// The same as a sentence: what is wrong, what helps.
    #[serde(default)]
    pub why_text: Option<String>,
    /// Round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The largest UDP payload proven, in bytes; on a relayed path without the relay header.
    pub mtu: Option<u16>,
}

/// `farlan ping --json`, one of `pings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingReport {
    /// The peer.
    pub node: PeerId,
    /// What it is called.
    #[serde(flatten)]
    pub name: ShownName,
    /// The path the challenge took.
    pub path: PathReport,
    /// Until its answer came, in milliseconds; `null`: none came, or there is no path.
    pub rtt_ms: Option<f64>,
}

/// `farlan macs --json`, one element.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MacReport {
    /// The network.
    pub network: NetworkName,
    /// The VLAN, 0 for untagged.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
    /// Who holds it.
    pub node: PeerId,
    /// What that node is called.
    #[serde(flatten)]
    pub name: ShownName,
    /// Is that this node?
    pub local: bool,
    /// The port of this host that it is behind, by the name of its interface; `null` if it is not here, or that is
    /// not known (yet).
    #[serde(default)]
    pub port: Option<String>,
    /// The VM at that port, by the name given to `attach --vm`.
    #[serde(default)]
    pub vm: Option<String>,
    /// The claim's generation.
    pub generation: u64,
    /// How often in a row two hosts took it from each other.
    #[serde(default)]
    pub contested: u8,
    /// How its host knows: `pinned`, `announced` or `learned`.
    #[serde(default = "learned")]
    pub kind: ClaimKind,
    /// The IP addresses known of it.
    pub ips: Vec<IpAddr>,
    /// Seconds since the claim was last refreshed.
    pub age_s: f64,
}

const fn learned() -> ClaimKind {
    ClaimKind::Learned
}

/// `status.unknown[]`: an address that frames are for and that no node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownMacReport {
    /// The network.
    pub network: NetworkName,
    /// The VLAN, 0 for untagged.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
    /// How often all members were asked for it.
    pub asked: u32,
    /// Frames for it that were dropped as `unknown_mac`.
    pub dropped: u64,
    /// For how many seconds nobody has held it.
    pub since_s: u64,
    /// Seconds since the last frame for it.
    pub last_s: u64,
}

#[cfg(test)]
mod tests;
