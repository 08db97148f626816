//! Interfaces, bridges and forwarding entries through rtnetlink.

use std::net::IpAddr;
use std::sync::Arc;

use futures::{TryStream, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use overlay_proto::ethernet::bridge::FDB_MAX_LEARNED;
use overlay_proto::ethernet::{MacAddr, VlanId};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::port::{self, BridgeSettings};
use crate::tap::check_name;

/// What kind of interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A Linux bridge.
    Bridge,
    /// A tap or tun.
    Tun,
    /// Anything else.
    Other,
}

/// What this crate needs to know of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: LinkKind,
    /// The bridge (or bond, VRF) it is a port of.
    pub master: Option<u32>,
    /// Its MTU in bytes of payload, Ethernet header excluded.
    pub mtu: u32,
    /// Its own address.
    pub mac: MacAddr,
    /// Administratively up.
    pub up: bool,
    /// The free text that an administrator, or [`Links::set_alias`], has put on it.
    pub alias: Option<String>,
    /// The host's interface to itself.
    pub is_loopback: bool,
    /// Has carrier; a tap has it while somebody holds it open.
    pub carrier: bool,
    /// How it is set, if it is a bridge.
    pub bridge: Option<BridgeSettings>,
    /// It is a port of a bridge that learns there.
    pub learns: bool,
}

/// A connection to the kernel's routing socket, in the network namespace of the thread that made
/// it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Links {
    handle: Handle,
    /// One list at a time: while the kernel gives one out it refuses another on the same socket (`EBUSY`).
    lists: Arc<Mutex<()>>,
}

impl Links {
    /// Connects. Must be called within a tokio runtime, which then carries the connection.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| Error::from_io("cannot open a netlink socket", error))?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            lists: Arc::default(),
        })
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All that `ask` is answered with, once nobody else is given a list. It must not ask before it is called.
    pub(crate) async fn list<T, S>(
        &self,
        ask: impl FnOnce() -> S,
    ) -> Result<Vec<T>, rtnetlink::Error>
    where
        S: TryStream<Ok = T, Error = rtnetlink::Error>,
    {
        let _turn = self.lists.lock().await;
        ask().try_collect().await
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn all(&self) -> Result<Vec<Link>, Error> {
        let messages: Vec<LinkMessage> = self
            .list(|| self.handle.link().get().execute())
            .await
            .map_err(|error| netlink_error("cannot list interfaces", error))?;
        Ok(messages.into_iter().map(Link::from_message).collect())
    }

    /// The interface `name`, if it exists.
    ///
    /// # Errors
    /// The kernel refuses, or `name` can be no name.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        check_name(name)?;
        let request = self.handle.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(message) => Ok(message.map(Link::from_message)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(netlink_error(format!("cannot look up {name}"), error)),
        }
    }

    /// The interface `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`] and what [`Self::find`] says.
    pub async fn get(&self, name: &str) -> Result<Link, Error> {
        self.find(name)
            .await?
            .ok_or_else(|| Error::NoSuchInterface {
                name: name.to_owned(),
            })
    }

    /// The bridge `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchInterface`], [`Error::NotABridge`].
    pub async fn bridge(&self, name: &str) -> Result<Link, Error> {
        let link = self.get(name).await?;
        if link.kind == LinkKind::Bridge {
            Ok(link)
        } else {
            Err(Error::NotABridge { name: link.name })
        }
    }

    /// The ports of the bridge with number `bridge`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn ports(&self, bridge: u32) -> Result<Vec<Link>, Error> {
        let mut links = self.all().await?;
        links.retain(|link| link.master == Some(bridge));
        Ok(links)
    }

    /// Makes the bridge `name`, down: no STP, no forwarding delay, no multicast snooping.
    ///
    /// Snooping is off because a snooping bridge forwards a group only to ports that were heard to
    /// join it since the last query: a VM that has just moved here, or the far side of the overlay,
    /// would lose multicast, and with it IPv6 neighbour discovery, until the next query.
    ///
    /// It learns [`FDB_MAX_LEARNED`] MACs: a guest that makes them up fills neither the kernel's memory
    /// nor ours. Kernels before 6.7 do not know that bound and pass over it.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::NotPermitted`], [`Error::BadName`].
    pub async fn create_bridge(&self, name: &str) -> Result<Link, Error> {
        check_name(name)?;
        let message = LinkBridge::new(name)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .mcast_snooping(false)
            .append_info_data(InfoBridge::FdbMaxLearned(FDB_MAX_LEARNED.into()))
            .build();
        let added = self.handle.link().add(message).execute().await;
        added.map_err(|error| match errno(&error) {
            Some(libc::EEXIST) => Error::NameTaken {
                name: name.to_owned(),
            },
            _ => netlink_error(format!("cannot make bridge {name}"), error),
        })?;
        self.get(name).await
    }

    /// Makes a port of the bridge `master`, or of none.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone, or cannot be a port.
    pub async fn set_master(&self, link: &Link, master: Option<u32>) -> Result<(), Error> {
        let message = change(link).controller(master.unwrap_or(0));
        self.apply(message, "cannot change the bridge of", link)
            .await
    }

    /// Up.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_up(&self, link: &Link) -> Result<(), Error> {
        self.apply(change(link).up(), "cannot bring up", link).await
    }

    /// Down.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_down(&self, link: &Link) -> Result<(), Error> {
        self.apply(change(link).down(), "cannot take down", link)
            .await
    }

    /// Gives the interface another name. Kernels before 6.2 rename only what is down: there it is
    /// down for a moment.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::BadName`]; the name is taken.
    pub async fn rename(&self, link: &Link, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let message = || change(link).name(name.to_owned());
        let renamed = self.apply(message(), "cannot rename", link).await;
        if renamed.is_ok() || !link.up {
            return renamed;
        }
        self.set_down(link).await?;
        let renamed = self.apply(message(), "cannot rename", link).await;
        self.set_up(link).await?;
        renamed
    }

    /// Sets the MTU, in bytes of payload.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; a value the kernel does not take.
    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<(), Error> {
        self.apply(change(link).mtu(mtu), "cannot set the MTU of", link)
            .await
    }

    /// Sets how many frames may wait for a slow reader.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_queue_length(&self, link: &Link, frames: u32) -> Result<(), Error> {
        let message = change(link).append_extra_attribute(LinkAttribute::TxQueueLen(frames));
        self.apply(message, "cannot set the queue length of", link)
            .await
    }

    /// Sets the interface's own address. A bridge with an address that was set keeps it; one that
    /// was not takes the lowest address of its ports, and changes it when ports come and go.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_mac(&self, link: &Link, mac: MacAddr) -> Result<(), Error> {
        let message = change(link).address(mac.0.to_vec());
        self.apply(message, "cannot set the address of", link).await
    }

    /// Puts a text of at most 255 bytes on the interface; `ip link` shows it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_alias(&self, link: &Link, text: &str) -> Result<(), Error> {
        let alias = LinkAttribute::IfAlias(text.to_owned());
        let message = change(link).append_extra_attribute(alias);
        self.apply(message, "cannot mark", link).await
    }

    /// Switches ARP on or off (`IFF_NOARP`).
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the interface is gone.
    pub async fn set_arp(&self, link: &Link, on: bool) -> Result<(), Error> {
        self.apply(change(link).arp(on), "cannot set ARP of", link)
            .await
    }

    /// No IPv6 link-local address will be made up for the interface.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; the kernel has no IPv6.
    pub async fn no_link_local(&self, link: &Link) -> Result<(), Error> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        let message = change(link).append_extra_attribute(spec);
        self.apply(message, "cannot switch off link-local addresses of", link)
            .await
    }

    /// Deletes the interface. One that is gone already is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`].
    pub async fn delete(&self, link: &Link) -> Result<(), Error> {
        match self.handle.link().del(link.index).execute().await {
            Err(error) if errno(&error) != Some(libc::ENODEV) => {
                Err(netlink_error(format!("cannot delete {}", link.name), error))
            }
            _ => Ok(()),
        }
    }

    /// Gives the interface an address. One that is there already is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; no legal address.
    pub async fn add_address(&self, link: &Link, ip: IpAddr, prefix: u8) -> Result<(), Error> {
        let request = self.handle.address().add(link.index, ip, prefix);
        match request.execute().await {
            Err(error) if errno(&error) != Some(libc::EEXIST) => {
                let what = format!("cannot give {} the address {ip}/{prefix}", link.name);
                Err(netlink_error(what, error))
            }
            _ => Ok(()),
        }
    }

    /// The addresses of `link` with their prefixes, without the link-local ones that the kernel gives
    /// to every interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn addresses(&self, link: &Link) -> Result<Vec<(IpAddr, u8)>, Error> {
        let request = self.handle.address().get();
        let request = request.set_link_index_filter(link.index);
        let messages: Vec<AddressMessage> = self
            .list(|| request.execute())
            .await
            .map_err(|error| netlink_error("cannot list addresses", error))?;
        let mut addresses = Vec::new();
        for message in messages {
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {}
                    AddressAttribute::Address(ip) => {
                        addresses.push((*ip, message.header.prefix_len));
                    }
                    _ => {}
                }
            }
        }
        Ok(addresses)
    }

    /// Tells the bridge that `mac` is behind the port with number `port`, until it is heard
    /// elsewhere or ages. `vlan` other than untagged needs a bridge that filters VLANs.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; `port` is no port, or lacks the VLAN.
    pub async fn fdb_replace(&self, port: u32, mac: MacAddr, vlan: VlanId) -> Result<(), Error> {
        self.fdb_put(port, mac, vlan, NeighbourFlags::Controller)
            .await
    }

    /// As [`Links::fdb_replace`], but the entry does not age (`extern_learn`).
    ///
    /// # Errors
    /// As [`Links::fdb_replace`].
    pub async fn fdb_keep(&self, port: u32, mac: MacAddr, vlan: VlanId) -> Result<(), Error> {
        let flags = NeighbourFlags::Controller | NeighbourFlags::ExtLearned;
        self.fdb_put(port, mac, vlan, flags).await
    }

    async fn fdb_put(
        &self,
        port: u32,
        mac: MacAddr,
        vlan: VlanId,
        flags: NeighbourFlags,
    ) -> Result<(), Error> {
        let mut request = self
            .handle
            .neighbours()
            .add_bridge(port, &mac.0)
            .state(NeighbourState::Reachable)
            .flags(flags)
            .replace();
        if vlan != VlanId::UNTAGGED {
            let attribute = NeighbourAttribute::Vlan(vlan.get());
            request.message_mut().attributes.push(attribute);
        }
        let what = format!("cannot set the forwarding entry of {mac}");
        let done = request.execute().await;
        done.map_err(|error| netlink_error(what, error))
    }

    /// Makes the bridge forget that `mac` is behind the port with number `port`. An entry that is
    /// gone already is no error.
    ///
    /// # Errors
    /// [`Error::NotPermitted`]; `port` is no port.
    pub async fn fdb_delete(&self, port: u32, mac: MacAddr, vlan: VlanId) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.flags = NeighbourFlags::Controller;
        let address = NeighbourAttribute::LinkLocalAddress(mac.0.to_vec());
        message.attributes.push(address);
        if vlan != VlanId::UNTAGGED {
            message
                .attributes
                .push(NeighbourAttribute::Vlan(vlan.get()));
        }
        match self.handle.neighbours().del(message).execute().await {
            Err(error) if errno(&error) != Some(libc::ENOENT) => {
                let what = format!("cannot delete the forwarding entry of {mac}");
                Err(netlink_error(what, error))
            }
            _ => Ok(()),
        }
    }

    async fn apply(
        &self,
        message: LinkMessageBuilder<LinkUnspec>,
        what: &str,
        link: &Link,
    ) -> Result<(), Error> {
        let done = self.handle.link().change(message.build()).execute().await;
        done.map_err(|error| netlink_error(format!("{what} {}", link.name), error))
    }
}

impl Link {
    fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: LinkKind::Other,
            master: None,
            mtu: 0,
            mac: MacAddr::ZERO,
            alias: None,
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            bridge: None,
            learns: false,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(bytes) => {
                    if let Ok(bytes) = bytes.try_into() {
                        link.mac = MacAddr(bytes);
                    }
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.bridge = BridgeSettings::of(&infos);
                    link.learns = port::learns(&infos);
                    for info in infos {
                        match info {
                            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
                            LinkInfo::Kind(InfoKind::Tun) => link.kind = LinkKind::Tun,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

fn change(link: &Link) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(link.index)
}

pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

pub(crate) fn netlink_error(what: impl Into<String>, error: rtnetlink::Error) -> Error {
    let error = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => std::io::Error::other(other),
    };
    Error::from_io(what, error)
}
