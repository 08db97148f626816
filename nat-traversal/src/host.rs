//! The host's own links, addresses and routes: what of it is underlay, and what peers are told first.
//!
//! The facts come from the kernel's routing socket; here is only what follows from them.
//!
//! - A link *leads into the overlay* when a frame sent by it reaches a bridge or tap of a network: the
//!   bridge itself, the far end of a veth pair that is plugged into it, a VLAN or macvlan above one of
//!   these, a bridge or bond with such a port.
//! - An address on such a link is no candidate, and what the host reaches by a route over it is no
//!   address to send to. The default route is left out: a firewall that runs in a guest of this host
//!   may be the host's own way out. What a route cannot tell, the tap sees.
//! - Of the other addresses those come first that the kernel itself picks towards the bootstraps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::candidate::host_rank;

/// A route for so few bits is a kind of default route: `::/3` holds all of the public IPv6 Internet,
/// and some VPN programs split the default route in two.
const DEFAULT_BITS: u8 = 3;

/// What kind of interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a veth pair; its `lower` is the other one.
    Pair,
    /// A tap or tun.
    Tun,
    /// A NIC, or anything else.
    Other,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: LinkKind,
    /// The host's interface to itself.
    pub is_loopback: bool,
    /// Up, with carrier.
    pub is_running: bool,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The interface of the same namespace that it stands on, or is paired with.
    pub lower: Option<u32>,
}

/// An address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// The address with its prefix.
    pub net: IpNet,
    /// On which link.
    pub link: u32,
    /// Valid, but no longer used for new connections (RFC 4862).
    pub is_deprecated: bool,
    /// Made up for privacy, and replaced every day (RFC 8981).
    pub is_temporary: bool,
    /// Not usable yet, or found to be another host's, too.
    pub is_unusable: bool,
}

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Where to.
    pub to: IpNet,
    /// Over which link.
    pub link: u32,
}

/// The kernel's answer to "how do I get there?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    /// Where.
    pub to: IpAddr,
    /// Over which link.
    pub link: u32,
    /// With which of the own addresses.
    pub source: Option<IpAddr>,
    /// By which router.
    pub gateway: Option<IpAddr>,
}

/// What the kernel knows about the host's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostView {
    /// All links.
    pub links: Vec<HostLink>,
    /// All addresses, loopback and link-local ones included.
    pub addresses: Vec<HostAddress>,
    /// The routes, default routes included.
    pub routes: Vec<HostRoute>,
    /// The ways to the bootstraps, or to anywhere while none is known.
    pub ways_out: Vec<WayOut>,
}

/// Whose the bridge of an attached network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeRole {
    /// Farlan's: all that is on it is the network's.
    Network,
    /// Farlan's, and the host's addresses moved to it with a NIC: the host's own way out, too.
    Uplink,
    /// It was there before. It is an uplink while a way out of the host goes by it and a NIC is a port
    /// of it.
    Users,
}

/// An attached network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedNetwork {
    /// The tap that the node reads.
    pub tap: String,
    /// The bridge that the tap is a port of.
    pub bridge: String,
    /// What the bridge is beside that.
    pub role: BridgeRole,
    /// The addresses that the host was given in the network.
    pub given: Vec<IpAddr>,
}

/// What follows from a [`HostView`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// The addresses for peers, the best first.
    pub told: Vec<IpAddr>,
    /// Every address of this host: nothing is sent there.
    pub own: Vec<IpAddr>,
    /// The subnets of the addresses in `told`.
    pub subnets: Vec<IpNet>,
    /// What is reached through the overlay.
    pub overlay: Vec<IpNet>,
    /// The exceptions from that: longer prefixes within it that are reached another way.
    pub beside: Vec<IpNet>,
    /// A way out that leads into the overlay itself.
    pub lost_way: Option<LostWay>,
}

/// A way out that leads into the overlay itself: nothing comes out at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostWay {
    /// The way.
    pub way: WayOut,
    /// The name of its link.
    pub link: String,
    /// The route that the kernel goes by, as far as the routes tell.
    pub route: Option<IpNet>,
}

impl HostView {
    /// Sorts the underlay from the overlay.
    #[must_use]
    pub fn underlay(&self, networks: &[AttachedNetwork]) -> LocalAddresses {
        let inside = self.overlay_links(networks);
        let is_given = |ip: &IpAddr| networks.iter().any(|one| one.given.contains(ip));
        let mut told: Vec<&HostAddress> = self
            .addresses
            .iter()
            .filter(|one| self.may_be_told(one))
            .filter(|one| !inside.contains(&one.link) && !is_given(&one.net.addr()))
            .collect();
        told.sort_by_key(|one| self.rank(one));
        let (overlay, beside) = self.split_routes(&inside);
        let lost = self.ways_out.iter().find(|way| inside.contains(&way.link));
        LocalAddresses {
            subnets: told.iter().map(|one| one.net.trunc()).collect(),
            told: told.iter().map(|one| one.net.addr()).collect(),
            own: self.addresses.iter().map(|one| one.net.addr()).collect(),
            overlay,
            beside,
            lost_way: lost.and_then(|way| self.lost(way)),
        }
    }

    fn link(&self, index: u32) -> Option<&HostLink> {
        self.links.iter().find(|link| link.index == index)
    }

    fn named(&self, name: &str) -> Option<u32> {
        let link = self.links.iter().find(|link| link.name == name);
        link.map(|link| link.index)
    }

    fn lost(&self, way: &WayOut) -> Option<LostWay> {
        let holds = |route: &&HostRoute| route.link == way.link && route.to.contains(&way.to);
        let longest = self.routes.iter().filter(holds);
        let longest = longest.max_by_key(|route| route.to.prefix_len());
        Some(LostWay {
            way: way.clone(),
            link: self.link(way.link)?.name.clone(),
            route: longest.map(|route| route.to),
        })
    }

    /// The name of the link of `way`.
    #[must_use]
    pub fn link_of(&self, way: &WayOut) -> Option<&str> {
        self.link(way.link).map(|link| link.name.as_str())
    }

    fn leads_out(&self, link: u32) -> bool {
        self.ways_out.iter().any(|way| way.link == link)
    }

    fn has_nic(&self, bridge: u32) -> bool {
        let mut ports = self.links.iter().filter(|p| p.master == Some(bridge));
        ports.any(|port| port.kind == LinkKind::Other)
    }

    /// The links that lead into the overlay.
    fn overlay_links(&self, networks: &[AttachedNetwork]) -> BTreeSet<u32> {
        let (mut inside, mut uplinks) = (BTreeSet::new(), BTreeSet::new());
        for network in networks {
            inside.extend(self.named(&network.tap));
            let Some(bridge) = self.named(&network.bridge) else {
                continue;
            };
            let is_uplink = match network.role {
                BridgeRole::Network => false,
                BridgeRole::Uplink => true,
                BridgeRole::Users => self.leads_out(bridge) && self.has_nic(bridge),
            };
            (if is_uplink { &mut uplinks } else { &mut inside }).insert(bridge);
        }
        // Each turn but the last adds a link.
        loop {
            let more = self.links.iter().filter(|link| {
                !inside.contains(&link.index)
                    && !uplinks.contains(&link.index)
                    && self.leads_into(link, &inside)
            });
            let more: Vec<u32> = more.map(|link| link.index).collect();
            if more.is_empty() {
                return inside;
            }
            inside.extend(more);
        }
    }

    fn leads_into(&self, link: &HostLink, inside: &BTreeSet<u32>) -> bool {
        let is_inside = |index: Option<u32>| index.is_some_and(|index| inside.contains(&index));
        let port_inside = || {
            let mut ports = self.links.iter().filter(|p| p.master == Some(link.index));
            ports.any(|port| inside.contains(&port.index))
        };
        if link.kind == LinkKind::Pair {
            // What goes in at this end comes out at the other one, and from there to its bridge.
            let other = link.lower.and_then(|other| self.link(other));
            return is_inside(other.and_then(|other| other.master));
        }
        is_inside(link.lower) || port_inside()
    }

    fn may_be_told(&self, one: &HostAddress) -> bool {
        // A link-local address means nothing without its interface, which a peer cannot know.
        let link_local = matches!(one.net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        let runs = |link: &HostLink| link.is_running && !link.is_loopback;
        !link_local && !one.is_unusable && self.link(one.link).is_some_and(runs)
    }

    /// The order in which addresses are told: smaller is better.
    fn rank(&self, one: &HostAddress) -> (bool, bool, bool, bool, u8, IpAddr) {
        let ip = one.net.addr();
        let is_source = self.ways_out.iter().any(|way| way.source == Some(ip));
        (
            one.is_deprecated,
            !is_source,
            !self.leads_out(one.link),
            one.is_temporary,
            host_rank(ip),
            ip,
        )
    }

    /// The prefixes that are reached over `inside`, and those within them that are not.
    fn split_routes(&self, inside: &BTreeSet<u32>) -> (Vec<IpNet>, Vec<IpNet>) {
        let routes = self.routes.iter();
        let special = routes.filter(|route| route.to.prefix_len() > DEFAULT_BITS);
        let (into, others): (Vec<&HostRoute>, Vec<&HostRoute>) =
            special.partition(|route| inside.contains(&route.link));
        let mut overlay: Vec<IpNet> = into.iter().map(|route| route.to).collect();
        overlay.sort_unstable();
        overlay.dedup();
        let within = |route: &&&HostRoute| {
            let mut wider = overlay.iter();
            wider.any(|net| net.contains(&route.to) && *net != route.to)
        };
        let beside = others.iter().filter(within).map(|route| route.to);
        let mut beside: Vec<IpNet> = beside.collect();
        beside.sort_unstable();
        beside.dedup();
        (overlay, beside)
    }
}

#[cfg(test)]
mod tests;
