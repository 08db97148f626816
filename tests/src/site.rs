//! The topology: hosts on the open WAN, and sites, LANs behind a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::lab::{Lab, Ns};
use crate::nat::NatKind;
use crate::wan::LinkId;
use crate::wan::model::LinkModel;

/// Which IP families a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Family {
    const fn v4(self) -> bool {
        !matches!(self, Self::V6)
    }

    const fn v6(self) -> bool {
        !matches!(self, Self::V4)
    }
}

/// A machine that can run a node.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its namespace.
    pub ns: Ns,
    /// Its own addresses, private ones behind a NAT.
    pub addrs: Vec<IpAddr>,
    /// The access link it is behind.
    pub link: LinkId,
}

/// A LAN behind a router.
#[derive(Debug, Clone)]
pub struct Site {
    /// The router, with `lan` (a bridge) and `wan0`.
    pub router: Ns,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The router's public IPv4 address, also of an IPv6-only site (unused there).
    pub public: Ipv4Addr,
    /// The access link.
    pub link: LinkId,
}

impl Lab {
    /// A host directly on the WAN with the given addresses on `wan0`.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub fn public_host(
        self: &Arc<Self>,
        name: &str,
        addrs: &[IpAddr],
        model: LinkModel,
    ) -> Result<Host> {
        let ns = self.namespace(name)?;
        let link = self.wan().add_link(&ns, model)?;
        for addr in addrs {
            let prefix = if addr.is_ipv4() { 32 } else { 128 };
            ns.ip(&format!("addr add {addr}/{prefix} dev wan0"))?;
            self.wan().add_route(*addr, prefix, link);
        }
        default_routes(&ns, addrs, "dev wan0")?;
        Ok(Host {
            ns,
            addrs: addrs.to_vec(),
            link,
        })
    }

    /// The usual place of a bootstrap: two IPv4 and two IPv6 addresses on the open WAN.
    ///
    /// # Errors
    /// As [`Lab::public_host`].
    pub fn bootstrap_host(
        self: &Arc<Self>,
        name: &str,
        index: u8,
        family: Family,
        model: LinkModel,
    ) -> Result<Host> {
        let mut addrs: Vec<IpAddr> = Vec::new();
        for n in [1, 2] {
            if family.v4() {
                addrs.push(Ipv4Addr::new(192, 0, 2, index * 10 + n).into());
            }
            if family.v6() {
                let host = u16::from(n);
                addrs.push(Ipv6Addr::new(0x2001, 0xdb8, 0xb, index.into(), 0, 0, 0, host).into());
            }
        }
        self.public_host(name, &addrs, model)
    }

    /// A site with `hosts` hosts. `index` (1 to 20) chooses its addresses: 192.168.`index`.0/24 and
    /// 2001:db8:`index`::/64 inside, one address of 198.51.100.0/24 or 203.0.113.0/24 outside.
    /// Without a translation (`hosts` up to 5) eight addresses of 192.0.2.0/24 are inside.
    ///
    /// # Errors
    /// When a device cannot be made or `nft` refuses the rules.
    pub fn site(
        self: &Arc<Self>,
        name: &str,
        index: u8,
        nat: NatKind,
        family: Family,
        hosts: u8,
        model: LinkModel,
    ) -> Result<Site> {
        let router = self.namespace(&format!("{name}-r"))?;
        let link = self.wan().add_link(&router, model)?;
        router.ip("link add lan type bridge")?;
        router.ip("link set lan up")?;
        let public = match index % 2 {
            0 => Ipv4Addr::new(198, 51, 100, index * 10),
            _ => Ipv4Addr::new(203, 0, 113, index * 10),
        };
        let (lan4, prefix) = if nat.translates() {
            (Ipv4Addr::new(192, 168, index, 0), 24)
        } else {
            (Ipv4Addr::new(192, 0, 2, 64 + 8 * index), 29)
        };
        let inside = |host: u8| Ipv4Addr::from(u32::from(lan4) + u32::from(host));
        let lan6 = |host: u16| Ipv6Addr::new(0x2001, 0xdb8, index.into(), 0, 0, 0, 0, host);
        if family.v4() {
            router.sysctl("net/ipv4/ip_forward", "1")?;
            router.ip(&format!("addr add {public}/32 dev wan0"))?;
            router.ip(&format!("addr add {}/{prefix} dev lan", inside(1)))?;
            router.ip("route add default dev wan0")?;
            self.wan().add_route(public.into(), 32, link);
            if !nat.translates() {
                // Public addresses inside: the whole LAN prefix is routed.
                self.wan().add_route(lan4.into(), prefix, link);
            }
        }
        if family.v6() {
            router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            router.ip(&format!("addr add {}/64 dev lan nodad", lan6(1)))?;
            router.ip("-6 route add default dev wan0")?;
            self.wan().add_route(lan6(0).into(), 64, link);
        }
        nat.install(&router, public)?;
        let mut made = Vec::new();
        for n in 0..hosts {
            let ns = self.namespace(&match n {
                0 => name.to_owned(),
                _ => format!("{name}{}", n + 1),
            })?;
            let full = ns.full_name();
            router.ip(&format!(
                "link add lan{n} type veth peer name eth0 netns {full}"
            ))?;
            router.ip(&format!("link set lan{n} master lan up"))?;
            ns.ip("link set eth0 up")?;
            let mut addrs: Vec<IpAddr> = Vec::new();
            if family.v4() {
                let first = if nat.translates() { 10 } else { 2 };
                addrs.push(inside(first + n).into());
                ns.ip(&format!("addr add {}/{prefix} dev eth0", addrs[0]))?;
                ns.ip(&format!("route add default via {}", inside(1)))?;
            }
            if family.v6() {
                let addr = lan6(0x10 + u16::from(n));
                ns.ip(&format!("addr add {addr}/64 dev eth0 nodad"))?;
                ns.ip(&format!("-6 route add default via {}", lan6(1)))?;
                addrs.push(addr.into());
            }
            made.push(Host { ns, addrs, link });
        }
        Ok(Site {
            router,
            hosts: made,
            public,
            link,
        })
    }
}

fn default_routes(ns: &Ns, addrs: &[IpAddr], via: &str) -> Result<()> {
    if addrs.iter().any(IpAddr::is_ipv4) {
        ns.ip(&format!("route add default {via}"))?;
    }
    if addrs.iter().any(IpAddr::is_ipv6) {
        ns.ip(&format!("-6 route add default {via}"))?;
    }
    Ok(())
}
