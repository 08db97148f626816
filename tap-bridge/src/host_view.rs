//! The host's links, addresses and routes at a glance, and news that something of it has changed.
//!
//! What follows from the facts is decided in [`nat_traversal::host`].

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use nat_traversal::host::{HostAddress, HostLink, HostRoute, HostView, LinkKind, WayOut};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use tokio::io::unix::AsyncFd;

use crate::addresses::{family, plain};
use crate::error::Error;
use crate::link::{Links, netlink_error};
use crate::sys;

/// Routes that are looked at, of each family. A router with more has the rest unjudged, and the taps
/// see what goes wrong.
const MAX_ROUTES: usize = 4096;

/// The tables that a host without rules of its own goes by (`RT_TABLE_MAIN`, `RT_TABLE_DEFAULT`).
const USUAL_TABLES: [u32; 2] = [254, 253];

impl Links {
    /// The host's links, addresses and routes, and the way to each of `toward`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn host_view(&self, toward: &[IpAddr]) -> Result<HostView, Error> {
        let links: Vec<LinkMessage> = self
            .list(|| self.handle().link().get().execute())
            .await
            .map_err(|error| netlink_error("cannot list interfaces", error))?;
        let addresses: Vec<AddressMessage> = self
            .list(|| self.handle().address().get().execute())
            .await
            .map_err(|error| netlink_error("cannot list addresses", error))?;
        let mut view = HostView {
            links: links.iter().map(link_of).collect(),
            addresses: addresses.iter().filter_map(address_of).collect(),
            ..HostView::default()
        };
        for wanted in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = wanted;
            let (mut kept, mut routes) = (0, Vec::new());
            // All of the answer is read: the rest would be taken for the answer to the next question.
            let read = |message: RouteMessage| {
                if kept < MAX_ROUTES {
                    let before = routes.len();
                    routes.extend(routes_of(&message));
                    kept += routes.len() - before;
                }
                std::future::ready(Ok(None::<()>))
            };
            self.list(|| {
                self.handle()
                    .route()
                    .get(question)
                    .execute()
                    .try_filter_map(read)
            })
            .await
            .map_err(|error| netlink_error("cannot list routes", error))?;
            view.routes.append(&mut routes);
        }
        for to in toward {
            view.ways_out.extend(self.way_to(*to).await);
        }
        Ok(view)
    }

    /// How the kernel would send to `to`; `None`: not at all.
    async fn way_to(&self, to: IpAddr) -> Option<WayOut> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(&to);
        question.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        let destination = RouteAttribute::Destination(to.into());
        question.attributes.push(destination);
        let mut answers = std::pin::pin!(self.handle().route().get(question).execute());
        let message = answers.next().await?.ok()?;
        let (mut link, mut source, mut gateway) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => link = Some(*index),
                RouteAttribute::PrefSource(at) => source = plain(at),
                RouteAttribute::Gateway(at) => gateway = plain(at),
                _ => {}
            }
        }
        Some(WayOut {
            to,
            link: link?,
            source,
            gateway,
        })
    }
}

fn link_of(message: &LinkMessage) -> HostLink {
    let flags = message.header.flags;
    let mut link = HostLink {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_running: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        master: None,
        lower: None,
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.lower = Some(*index),
            // The number is that of another namespace.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Pair,
                        LinkInfo::Kind(InfoKind::Tun) => link.kind = LinkKind::Tun,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if elsewhere {
        link.lower = None;
    }
    link
}

fn address_of(message: &AddressMessage) -> Option<HostAddress> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let ip = local.or(address)?;
    let v6 = ip.is_ipv6();
    Some(HostAddress {
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        link: message.header.index,
        is_deprecated: flags.contains(AddressFlags::Deprecated),
        // For IPv4 the same bit says "another address of this subnet".
        is_temporary: v6 && flags.contains(AddressFlags::Secondary),
        is_unusable: flags.contains(AddressFlags::Dadfailed)
            || flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic),
    })
}

/// A route of several next hops is one for each.
fn routes_of(message: &RouteMessage) -> Vec<HostRoute> {
    let header = &message.header;
    let v4 = header.address_family == AddressFamily::Inet;
    let mut to = if v4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let mut table = u32::from(header.table);
    let mut over = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(at) => to = plain(at).unwrap_or(to),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => over.push(*index),
            RouteAttribute::MultiPath(hops) => {
                over.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    if header.kind != RouteType::Unicast || !USUAL_TABLES.contains(&table) {
        return Vec::new();
    }
    let Ok(to) = IpNet::new(to, header.destination_prefix_length) else {
        return Vec::new();
    };
    over.into_iter()
        .map(|link| HostRoute { to, link })
        .collect()
}

/// Tells when links, addresses or routes of the network namespace change.
#[derive(Debug)]
pub struct HostWatch {
    socket: AsyncFd<File>,
    buffer: Box<[u8]>,
}

impl HostWatch {
    /// Starts. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn start() -> Result<Self, Error> {
        let socket = sys::host_socket()
            .map_err(|error| Error::from_io("cannot watch the host's addresses", error))?;
        Ok(Self {
            socket,
            buffer: vec![0; 16 * 1024].into_boxed_slice(),
        })
    }

    /// Completes when something has changed. What the news are does not matter: they say "look". Can be
    /// cancelled.
    ///
    /// # Errors
    /// The socket is broken; start again.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| socket.get_ref().read(buffer)) {
                Ok(Ok(_)) => return Ok(()),
                // There were more than the kernel could keep for us.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
