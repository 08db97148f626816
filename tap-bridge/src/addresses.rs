//! The addresses and routes that a host has by one interface, through rtnetlink: read, added and
//! removed one by one, with what the kernel keeps beside them (lifetimes, scope, flags, metrics).
//!
//! What cannot be put back as it was (a route of several next hops, a tunnel, a next-hop object) is
//! an error when it is read: whoever moves addresses finds out before anything is changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::StreamExt;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
    AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RoutePreference,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload, Nla,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::link::{Link, Links, errno, netlink_error};

/// A lifetime without end, as the kernel writes it.
pub const FOREVER: u32 = u32::MAX;

/// The kernel's own routes: it makes and removes them with the address (`RTPROT_KERNEL`).
const BY_KERNEL: u8 = 2;

/// The table of the host's own addresses, which the kernel keeps (`RT_TABLE_LOCAL`).
const TABLE_LOCAL: u32 = 255;

/// `RTA_NH_ID`, which the netlink crate does not know by name.
const RTA_NH_ID: u16 = 30;

/// Ticks of `RTA_CACHEINFO` in a second (`USER_HZ`, the same on all of Linux's machines).
const USER_HZ: u32 = 100;

/// An address of this host on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// Bits of the prefix.
    pub prefix: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// Those of `IFA_F_*` that may be set: [`HostAddress::SETTABLE`].
    pub flags: u32,
    /// What follows the interface's name in the label, as `:1`; IPv4 only.
    pub label: Option<String>,
    /// IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
    /// Seconds until it ends; [`FOREVER`].
    pub valid_s: u32,
    /// Seconds until it is no longer chosen; [`FOREVER`].
    pub preferred_s: u32,
    /// The metric of the route to its prefix, if set.
    pub metric: Option<u32>,
    /// `IFAPROT_*`, who made it; 0 where the kernel does not say.
    pub protocol: u8,
}

impl HostAddress {
    /// `nodad`, `home`, `mngtmpaddr`, `noprefixroute`, `autojoin`: the rest is the kernel's.
    pub const SETTABLE: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

    /// `nodad`: usable at once.
    const NO_DAD: u32 = 0x02;

    /// Two that the kernel takes for the same: it allows one of a kind on an interface.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.ip == other.ip && self.prefix == other.prefix
    }

    /// An address that each interface has by itself.
    #[must_use]
    pub const fn is_link_local(&self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }

    fn from_message(message: &AddressMessage, name: &str) -> Option<Self> {
        let header = &message.header;
        let (mut local, mut address) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
        let mut found = Self {
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            peer: None,
            prefix: header.prefix_len,
            scope: header.scope.into(),
            flags: 0,
            label: None,
            broadcast: None,
            valid_s: FOREVER,
            preferred_s: FOREVER,
            metric: None,
            protocol: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Broadcast(ip) => found.broadcast = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                AddressAttribute::RoutePriority(metric) => found.metric = Some(*metric),
                AddressAttribute::Protocol(protocol) => found.protocol = u8::from(*protocol),
                AddressAttribute::Label(label) => {
                    let suffix = label.strip_prefix(name).filter(|rest| !rest.is_empty());
                    found.label = suffix.map(str::to_owned);
                }
                AddressAttribute::CacheInfo(life) => {
                    found.valid_s = life.ifa_valid;
                    found.preferred_s = life.ifa_preferred;
                }
                _ => {}
            }
        }
        // One that another host has, too, is of no use here either.
        if flags.contains(AddressFlags::Dadfailed) {
            return None;
        }
        found.ip = local.or(address)?;
        found.peer = address.filter(|ip| *ip != found.ip);
        found.flags = flags.bits() & Self::SETTABLE;
        Some(found)
    }

    fn to_message(&self, link: &Link, flags: u32) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(&self.ip);
        message.header.prefix_len = self.prefix;
        message.header.scope = AddressScope::from(self.scope);
        message.header.index = link.index;
        let low = u8::try_from(flags & 0xff).unwrap_or(0);
        message.header.flags = AddressHeaderFlags::from_bits_retain(low);
        let attributes = &mut message.attributes;
        attributes.push(AddressAttribute::Local(self.ip));
        attributes.push(AddressAttribute::Address(self.peer.unwrap_or(self.ip)));
        attributes.extend(self.broadcast.map(AddressAttribute::Broadcast));
        attributes.push(AddressAttribute::Flags(AddressFlags::from_bits_retain(
            flags,
        )));
        attributes.extend(self.metric.map(AddressAttribute::RoutePriority));
        if self.ip.is_ipv4() {
            let label = format!("{}{}", link.name, self.label.as_deref().unwrap_or(""));
            // The kernel's limit; a longer one would be cut in the middle.
            let label = Some(label).filter(|label| label.len() < libc::IFNAMSIZ);
            attributes.extend(label.map(AddressAttribute::Label));
        }
        if self.protocol != 0 {
            let protocol = AddressProtocol::from(self.protocol);
            attributes.push(AddressAttribute::Protocol(protocol));
        }
        let mut life = CacheInfo::default();
        life.ifa_valid = self.valid_s;
        life.ifa_preferred = self.preferred_s.min(self.valid_s);
        attributes.push(AddressAttribute::CacheInfo(life));
        message
    }
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A route of this host by an interface, with one next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// To this prefix; unspecified with 0 bits is the default route.
    pub to: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
    /// The router; none: on the link.
    pub gateway: Option<IpAddr>,
    /// The own address that is used.
    pub source: Option<IpAddr>,
    /// The lower wins.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// `RTPROT_*`, who made it.
    pub protocol: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// IPv4's type of service.
    pub tos: u8,
    /// The router is on the link, whatever the addresses say.
    pub onlink: bool,
    /// IPv6's router preference.
    pub preference: Option<u8>,
    /// Seconds until it ends.
    pub expires_s: Option<u32>,
    /// `RTAX_*` (MTU, window, hop limit, ..) with their values.
    pub metrics: Vec<(u16, u32)>,
}

impl HostRoute {
    /// The kernel makes it when the address is added, and removes it with it.
    #[must_use]
    pub const fn comes_with_address(&self) -> bool {
        self.protocol == BY_KERNEL && self.to.is_ipv4()
    }

    /// A route to everywhere.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.prefix == 0
    }

    /// Two that the kernel takes for the same on one interface.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |route: &Self| {
            let target = (route.to, route.prefix, route.table, route.tos);
            (target, route.metric, route.gateway)
        };
        key(self) == key(other)
    }

    /// `None`: not by `link`, or of a kind that is not the administrator's.
    fn from_message(message: &RouteMessage, link: &Link) -> Result<Option<Self>, Error> {
        let header = &message.header;
        let v4 = header.address_family == AddressFamily::Inet;
        let to = if v4 {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let mut route = Self {
            to,
            prefix: header.destination_prefix_length,
            gateway: None,
            source: None,
            metric: 0,
            table: header.table.into(),
            protocol: header.protocol.into(),
            scope: header.scope.into(),
            tos: header.tos,
            onlink: header.flags.contains(RouteFlags::Onlink),
            preference: None,
            expires_s: None,
            metrics: Vec::new(),
        };
        let (mut by, mut unusual) = (None, header.source_prefix_length != 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(at) => route.to = plain(at).unwrap_or(to),
                RouteAttribute::Gateway(at) => route.gateway = plain(at),
                RouteAttribute::PrefSource(at) => route.source = plain(at),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Oif(index) => by = Some(*index),
                RouteAttribute::Preference(one) => route.preference = Some(u8::from(*one)),
                RouteAttribute::Metrics(all) => {
                    route.metrics = all.iter().filter_map(raw_metric).collect();
                }
                RouteAttribute::CacheInfo(cache) if cache.expires > 0 => {
                    route.expires_s = Some((cache.expires / USER_HZ).max(1));
                }
                RouteAttribute::MultiPath(hops)
                    if hops.iter().any(|hop| hop.interface_index == link.index) =>
                {
                    by = Some(link.index);
                    unusual = true;
                }
                RouteAttribute::Via(_)
                | RouteAttribute::EncapType(_)
                | RouteAttribute::Encap(_)
                | RouteAttribute::NewDestination(_)
                | RouteAttribute::Realm(_) => unusual = true,
                RouteAttribute::Other(other) if other.kind() == RTA_NH_ID => unusual = true,
                _ => {}
            }
        }
        let ours = by == Some(link.index)
            && header.kind == RouteType::Unicast
            && route.table != TABLE_LOCAL
            && !header.flags.contains(RouteFlags::Cloned);
        if ours && unusual {
            return Err(Error::RouteNotMovable {
                route: route.to_string(),
                name: link.name.clone(),
            });
        }
        Ok(ours.then_some(route))
    }

    fn to_message(&self, link: &Link) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(&self.to);
        header.destination_prefix_length = self.prefix;
        // A table past 255 is told by the attribute alone.
        header.table = u8::try_from(self.table).unwrap_or(0);
        header.protocol = RouteProtocol::from(self.protocol);
        header.scope = RouteScope::from(self.scope);
        header.kind = RouteType::Unicast;
        header.tos = self.tos;
        if self.onlink {
            header.flags |= RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if self.prefix > 0 {
            attributes.push(RouteAttribute::Destination(self.to.into()));
        }
        attributes.extend(self.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.push(RouteAttribute::Oif(link.index));
        attributes.push(RouteAttribute::Priority(self.metric));
        attributes.push(RouteAttribute::Table(self.table));
        let preference = self.preference.map(RoutePreference::from);
        attributes.extend(preference.map(RouteAttribute::Preference));
        attributes.extend(self.expires_s.map(RouteAttribute::Expires));
        if !self.metrics.is_empty() {
            let all = self.metrics.iter();
            let all = all.map(|(kind, value)| {
                RouteMetric::Other(DefaultNla::new(*kind, value.to_ne_bytes().to_vec()))
            });
            attributes.push(RouteAttribute::Metrics(all.collect()));
        }
        message
    }
}

impl std::fmt::Display for HostRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_default() {
            f.write_str("default")?;
        } else {
            write!(f, "{}/{}", self.to, self.prefix)?;
        }
        match self.gateway {
            Some(gateway) => write!(f, " via {gateway}"),
            None => Ok(()),
        }
    }
}

/// What a host has by one interface, in the order the kernel tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// Addresses; a primary one before its secondary ones.
    pub addresses: Vec<HostAddress>,
    /// Routes.
    pub routes: Vec<HostRoute>,
}

impl HostNetwork {
    /// Nothing but what each interface has by itself: the link-local address and its route.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.addresses.iter().all(HostAddress::is_link_local)
            && self.routes.iter().all(|route| {
                let local =
                    matches!(route.to, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast());
                local && route.gateway.is_none()
            })
    }

    /// Does the host speak IPv6 by it, beyond the link?
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        let address = |one: &HostAddress| one.ip.is_ipv6() && !one.is_link_local();
        let route = |one: &HostRoute| one.to.is_ipv6() && one.is_default();
        self.addresses.iter().any(address) || self.routes.iter().any(route)
    }
}

impl Links {
    /// The addresses and routes of this host by `link`, IPv4 before IPv6.
    ///
    /// # Errors
    /// The kernel refuses; [`Error::RouteNotMovable`].
    pub async fn host_network(&self, link: &Link) -> Result<HostNetwork, Error> {
        let mut network = HostNetwork::default();
        let request = self.handle().address().get();
        let request = request.set_link_index_filter(link.index);
        let messages: Vec<AddressMessage> = self
            .list(|| request.execute())
            .await
            .map_err(|error| netlink_error("cannot list addresses", error))?;
        for wanted in [AddressFamily::Inet, AddressFamily::Inet6] {
            let of_family = messages.iter().filter(|m| m.header.family == wanted);
            let addresses = of_family.filter_map(|m| HostAddress::from_message(m, &link.name));
            network.addresses.extend(addresses);
            let mut question = RouteMessage::default();
            question.header.address_family = wanted;
            let routes: Vec<RouteMessage> = self
                .list(|| self.handle().route().get(question).execute())
                .await
                .map_err(|error| netlink_error("cannot list routes", error))?;
            for message in &routes {
                network
                    .routes
                    .extend(HostRoute::from_message(message, link)?);
            }
        }
        Ok(network)
    }

    /// Gives `link` an address that is usable at once, without waiting for duplicate address
    /// detection: the host has had it until now. One that is there takes flags and lifetimes.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone, or speaks no IPv6.
    pub async fn add_host_address(&self, link: &Link, address: &HostAddress) -> Result<(), Error> {
        let flags = if address.ip.is_ipv6() {
            address.flags | HostAddress::NO_DAD
        } else {
            address.flags
        };
        self.put_address(link, address, flags).await?;
        if flags != address.flags {
            // What it was; detection does not begin again. Harmless where a kernel does not take it.
            let _ = self.put_address(link, address, address.flags).await;
        }
        Ok(())
    }

    async fn put_address(
        &self,
        link: &Link,
        address: &HostAddress,
        flags: u32,
    ) -> Result<(), Error> {
        let message = address.to_message(link, flags);
        let message = RouteNetlinkMessage::NewAddress(message);
        let done = self.ask(message, NLM_F_CREATE | NLM_F_REPLACE).await;
        let what = format!("cannot give {} the address {address}", link.name);
        done.map_err(|error| netlink_error(what, error))
    }

    /// Takes an address from `link`. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn remove_host_address(
        &self,
        link: &Link,
        address: &HostAddress,
    ) -> Result<(), Error> {
        let mut message = address.to_message(link, address.flags);
        message.attributes.retain(|one| {
            matches!(
                one,
                AddressAttribute::Local(_) | AddressAttribute::Address(_)
            )
        });
        match self.ask(RouteNetlinkMessage::DelAddress(message), 0).await {
            Err(error) if errno(&error) != Some(libc::EADDRNOTAVAIL) => {
                let what = format!("cannot take {address} from {}", link.name);
                Err(netlink_error(what, error))
            }
            _ => Ok(()),
        }
    }

    /// Adds a route by `link`. One that is there already is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone or down, the router is not on the link.
    pub async fn add_host_route(&self, link: &Link, route: &HostRoute) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.to_message(link));
        // IPv4 refuses a second route to a prefix by another interface unless it is appended; IPv6
        // would make one route of two next hops of it.
        let flags = if route.to.is_ipv4() {
            NLM_F_CREATE | NLM_F_APPEND
        } else {
            NLM_F_CREATE
        };
        match self.ask(message, flags).await {
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
            // The way to its router has changed since it was made: it works, and must go on to.
            Err(error)
                if !route.onlink
                    && route.gateway.is_some()
                    && matches!(errno(&error), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) =>
            {
                let onlink = HostRoute {
                    onlink: true,
                    ..route.clone()
                };
                Box::pin(self.add_host_route(link, &onlink)).await
            }
            Err(error) => {
                let what = format!("cannot add the route {route} by {}", link.name);
                Err(netlink_error(what, error))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Removes a route by `link`. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn remove_host_route(&self, link: &Link, route: &HostRoute) -> Result<(), Error> {
        let mut message = route.to_message(link);
        // Not what tells one route from another.
        message.attributes.retain(|one| {
            !matches!(
                one,
                RouteAttribute::Metrics(_)
                    | RouteAttribute::Expires(_)
                    | RouteAttribute::Preference(_)
            )
        });
        match self.ask(RouteNetlinkMessage::DelRoute(message), 0).await {
            Err(error) if !matches!(errno(&error), Some(libc::ESRCH | libc::ENOENT)) => {
                let what = format!("cannot remove the route {route} by {}", link.name);
                Err(netlink_error(what, error))
            }
            _ => Ok(()),
        }
    }

    /// One request and its acknowledgement.
    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), rtnetlink::Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle().clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }
}

pub(crate) const fn family(ip: &IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(crate) const fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// A metric's number and value; one that is no number (a congestion control's name) stays behind.
fn raw_metric(metric: &RouteMetric) -> Option<(u16, u32)> {
    let mut value = [0; 4];
    if metric.value_len() != value.len() {
        return None;
    }
    metric.emit_value(&mut value);
    Some((metric.kind(), u32::from_ne_bytes(value)))
}

#[cfg(test)]
mod tests;
