//! Which sockets `--listen` and `--external` mean.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail, ensure};
use control_plane::{Multiaddr, addr};
use socket2::{Domain, Socket, Type};

/// The data plane's UDP port, and the control plane's TCP port.
const DATA_PORT: u16 = 22611;

/// What the control plane's QUIC port is above the data plane's: each owns its UDP socket.
const QUIC_OFFSET: u16 = 1;

/// The addresses of the data plane and of the first overlay's control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) data: Vec<SocketAddr>,
    pub(crate) control: Vec<Multiaddr>,
}

impl Addresses {
    /// Reads the operator's words. A name stands for all its addresses.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut all = Self::default();
        for word in words {
            if word.starts_with('/') {
                all.add_multiaddr(word)?;
            } else {
                let hosts = word
                    .to_socket_addrs()
                    .with_context(|| format!("`{word}` is no HOST:PORT and no multiaddr"))?;
                for host in hosts {
                    all.add_host(host)?;
                }
            }
        }
        Ok(all)
    }

    /// All addresses of the host, in the families that it has.
    pub(crate) fn everywhere() -> Result<Self> {
        let mut all = Self::default();
        all.add_host((Ipv4Addr::UNSPECIFIED, DATA_PORT).into())?;
        if Socket::new(Domain::IPV6, Type::DGRAM, None).is_ok() {
            all.add_host((Ipv6Addr::UNSPECIFIED, DATA_PORT).into())?;
        }
        Ok(all)
    }

    /// The control addresses of a further overlay, `step` ports up.
    pub(crate) fn control_above(&self, step: u16) -> Result<Vec<Multiaddr>> {
        self.control
            .iter()
            .map(|addr| {
                let socket = addr::socket_addr(addr).context("no IP address")?;
                // Port 0 is the kernel's choice for every overlay.
                let step = if socket.port() == 0 { 0 } else { step };
                let port = socket.port().checked_add(step).context("no free port")?;
                let moved = SocketAddr::new(socket.ip(), port);
                Ok(if *addr == addr::tcp(socket) {
                    addr::tcp(moved)
                } else {
                    addr::quic(moved)
                })
            })
            .collect()
    }

    fn add_host(&mut self, host: SocketAddr) -> Result<()> {
        let quic_port = host
            .port()
            .checked_add(QUIC_OFFSET)
            .filter(|_| host.port() != 0)
            .with_context(|| format!("{host}: use a port from 1 to 65534"))?;
        self.data.push(host);
        self.control
            .push(addr::quic(SocketAddr::new(host.ip(), quic_port)));
        self.control.push(addr::tcp(host));
        Ok(())
    }

    fn add_multiaddr(&mut self, word: &str) -> Result<()> {
        let parsed: Multiaddr = word
            .parse()
            .with_context(|| format!("`{word}` is no multiaddr"))?;
        let bare = addr::without_peer(&parsed);
        let Some(socket) = addr::socket_addr(&bare) else {
            bail!("`{word}` has no IP address and port");
        };
        if addr::is_supported(&bare) {
            self.control.push(bare);
        } else {
            // What is left of the known forms: `/ip4/../udp/PORT`, the data plane alone.
            let data = addr::quic(socket);
            let udp: Multiaddr = data.iter().take(2).collect();
            ensure!(
                bare == udp,
                "`{word}` is none of /ip4/../udp/PORT, /ip4/../udp/PORT/quic-v1, /ip4/../tcp/PORT"
            );
            self.data.push(socket);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Addresses> {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        Addresses::parse(&words)
    }

    #[test]
    fn a_host_is_three_sockets() {
        let all = parse(&["192.0.2.1:22611"]).unwrap();
        assert_eq!(all.data, ["192.0.2.1:22611".parse().unwrap()]);
        let control: Vec<_> = all.control.iter().map(Multiaddr::to_string).collect();
        assert_eq!(
            control,
            [
                "/ip4/192.0.2.1/udp/22612/quic-v1",
                "/ip4/192.0.2.1/tcp/22611"
            ]
        );
        let next: Vec<_> = all.control_above(2).unwrap();
        assert_eq!(next[0].to_string(), "/ip4/192.0.2.1/udp/22614/quic-v1");
        assert_eq!(next[1].to_string(), "/ip4/192.0.2.1/tcp/22613");
    }

    #[test]
    fn multiaddrs_name_single_sockets() {
        let all = parse(&["/ip6/2001:db8::1/udp/7", "/ip4/192.0.2.1/udp/8/quic-v1"]).unwrap();
        assert_eq!(all.data, ["[2001:db8::1]:7".parse().unwrap()]);
        assert_eq!(all.control.len(), 1);
        for wrong in [
            "/ip4/192.0.2.1/udp/8/quic",
            "/ip4/192.0.2.1",
            "192.0.2.1",
            "192.0.2.1:0",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
