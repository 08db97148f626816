//! NATs as data: what stands between a site's LAN and the WAN, done by the router's kernel.
//!
//! All of them filter by address and port and *drop* what was not asked for at the WAN side. A
//! router that let an early probe in would give the tuple to that probe and so shift the port of
//! the host's own later flow; [`NatKind::PortPreservingOpen`] is that router, kept as one extra row.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::lab::Ns;

/// The behaviour of a site's router, in RFC 4787 terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Endpoint-independent mapping to another port: what most home routers of today look like to
    /// a program that believes its own port.
    PortRewriting,
    /// Address-and-port-dependent mapping with a random port for each destination.
    Symmetric,
    /// Endpoint-independent as long as the port is free outside; the port is kept.
    PortPreserving,
    /// As `PortPreserving`, but the router accepts unsolicited packets to itself.
    PortPreservingOpen,
    /// No translation: a stateful firewall in front of public addresses.
    Firewall,
}

/// Ports that [`NatKind::PortRewriting`] maps to. Below them are none of the ports in use inside:
/// the range excludes Farlan's default 22611 and the ephemeral ports, so every port is rewritten.
pub const REWRITE_PORTS: std::ops::RangeInclusive<u16> = 2000..=20_000;

impl NatKind {
    /// Whether hosts behind it have private IPv4 addresses.
    #[must_use]
    pub const fn translates(self) -> bool {
        !matches!(self, Self::Firewall)
    }

    /// The nftables rules for a router with LAN device `lan` and WAN device `wan0`.
    #[must_use]
    pub fn ruleset(self, public: Ipv4Addr) -> String {
        let (low, high) = (REWRITE_PORTS.start(), REWRITE_PORTS.end());
        let translate = match self {
            Self::PortRewriting => format!(
                "oifname \"wan0\" meta l4proto {{ tcp, udp }} snat to {public}:{low}-{high}\n\
                 oifname \"wan0\" snat to {public}"
            ),
            Self::Symmetric => "oifname \"wan0\" masquerade fully-random".to_owned(),
            Self::PortPreserving | Self::PortPreservingOpen => {
                "oifname \"wan0\" masquerade".to_owned()
            }
            Self::Firewall => String::new(),
        };
        let input = if self == Self::PortPreservingOpen {
            "accept"
        } else {
            "drop"
        };
        format!(
            "table ip nat {{
                chain post {{
                    type nat hook postrouting priority srcnat
                    {translate}
                }}
            }}
            table inet filter {{
                chain forward {{
                    type filter hook forward priority filter; policy drop
                    ct state established,related accept
                    iifname \"lan\" accept
                }}
                chain input {{
                    type filter hook input priority filter; policy {input}
                    iifname {{ \"lan\", \"lo\" }} accept
                    ct state established,related accept
                }}
            }}"
        )
    }

    /// Loads the rules into `router`.
    ///
    /// # Errors
    /// When `nft` refuses them.
    pub fn install(self, router: &Ns, public: Ipv4Addr) -> Result<()> {
        let file = router.lab().dir().join(format!("{}.nft", router.name()));
        std::fs::write(&file, self.ruleset(public))?;
        crate::proc::check(router.command("nft").arg("-f").arg(&file))?;
        Ok(())
    }
}
