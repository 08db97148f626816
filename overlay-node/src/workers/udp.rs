//! The node's UDP sockets, one for IPv4 and one for IPv6.
//!
//! A worker sends a datagram only as large as the path is proven to carry, so the kernel must never
//! fragment it: the `DF` bit is set. The kernel's own idea of the path MTU is ignored
//! (`IP_PMTUDISC_PROBE`), because anyone can spoil it with a forged ICMP message.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use host_services::socket::grow_buffers;
use host_services::udp;
use nat_traversal::path::SocketId;
use overlay_proto::drop_reason::DropReason;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Bytes the kernel may buffer in each direction: 20 ms at 1.6 Gbit/s.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// With port 0: how often another port is drawn if the IPv6 socket cannot have the same port as the IPv4
/// socket.
const PORT_ATTEMPTS: usize = 16;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program uses the port.
    #[error(
        "UDP port {} on {} is in use by another program; stop it (`ss -ulpn` shows it) or choose \
         another port with --listen", .0.port(), .0.ip()
    )]
    Busy(SocketAddr),
    /// The port needs a privilege.
    #[error("no permission for UDP port {}; choose one above 1023 with --listen", .0.port())]
    NotPermitted(SocketAddr),
    /// The address is not one of this host's.
    #[error("{} is not an address of this host; choose another with --listen", .0.ip())]
    NotLocal(SocketAddr),
    /// Anything else.
    #[error("cannot open a UDP socket on {0}: {1}")]
    System(SocketAddr, io::Error),
}

/// The sockets of the node, or of one of its workers. `None` for an address family that the host does
/// not have.
#[derive(Debug, Default)]
pub struct UdpSockets {
    /// The IPv4 socket.
    pub v4: Option<UdpSocket>,
    /// The IPv6 socket.
    pub v6: Option<UdpSocket>,
}

impl UdpSockets {
    /// Binds both families to all addresses, on the same `port`; port 0 draws a free one.
    ///
    /// # Errors
    /// The port is busy in one of the families, or the host has neither family.
    pub fn bind(port: u16) -> Result<Self, BindError> {
        for attempt in 1.. {
            let v4 = available(bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)))?;
            let same = v4.as_ref().and_then(|socket| socket.local_addr().ok());
            let same = same.map_or(port, |addr| addr.port());
            let v6 = bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), same));
            let retry = port == 0 && attempt < PORT_ATTEMPTS;
            if retry && matches!(v6, Err(BindError::Busy(_))) {
                continue;
            }
            let v6 = available(v6)?;
            if v4.is_some() || v6.is_some() {
                return Ok(Self { v4, v6 });
            }
            break;
        }
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let none = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        Err(BindError::System(any, none))
    }

    /// Binds exactly these addresses, at most one of each family (the later one wins).
    ///
    /// # Errors
    /// One of them cannot be bound.
    pub fn bind_to(addrs: &[SocketAddr]) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        for &addr in addrs {
            *sockets.place(addr) = Some(bind(addr)?);
        }
        Ok(sockets)
    }

    /// The field for a socket with `addr`'s family.
    pub(super) const fn place(&mut self, addr: SocketAddr) -> &mut Option<UdpSocket> {
        match addr {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        }
    }

    /// The socket that `id` names.
    #[must_use]
    pub const fn get(&self, id: SocketId) -> Option<&UdpSocket> {
        match id {
            SocketId::V4 => self.v4.as_ref(),
            SocketId::V6 => self.v6.as_ref(),
        }
    }

    /// The IPv4 socket and the IPv6 socket.
    pub(super) const fn both(&self) -> [Option<&UdpSocket>; 2] {
        [self.v4.as_ref(), self.v6.as_ref()]
    }

    /// The bound addresses.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let sockets = [&self.v4, &self.v6];
        let sockets = sockets.into_iter().flatten();
        sockets
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Clones the descriptors, for another thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            v4: self.v4.as_ref().map(UdpSocket::try_clone).transpose()?,
            v6: self.v6.as_ref().map(UdpSocket::try_clone).transpose()?,
        })
    }
}

/// A host that lacks this address family has no socket for it. That is no error.
fn available(bound: Result<UdpSocket, BindError>) -> Result<Option<UdpSocket>, BindError> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(BindError::System(_, error))
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
            ) =>
        {
            Ok(None)
        }
        // The kernel supports IPv6, but it is switched off.
        Err(BindError::NotLocal(SocketAddr::V6(addr))) if addr.ip().is_unspecified() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Binds one socket without address reuse, so that a busy port is an error.
fn bind(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || -> io::Result<Socket> {
        let socket = unbound(addr)?;
        socket.bind(&SockAddr::from(addr))?;
        Ok(socket)
    };
    match open() {
        Ok(socket) => Ok(socket.into()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::Busy(addr),
            Some(libc::EACCES | libc::EPERM) => BindError::NotPermitted(addr),
            Some(libc::EADDRNOTAVAIL) => BindError::NotLocal(addr),
            _ => BindError::System(addr, error),
        }),
    }
}

/// An unbound socket for `addr`, with the options that the data path needs.
pub(super) fn unbound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    udp::never_fragment(&socket, addr.is_ipv4())?;
    udp::tell_marks(&socket, addr.is_ipv4())?;
    if let Err(error) = udp::accept_trains(&socket) {
        tracing::debug!(%error, "datagrams come one by one");
    }
    grow_buffers(&socket, SOCKET_BUFFER);
    Ok(socket)
}

/// The drop reason for a failed send.
pub(super) const fn reason_of(errno: Option<i32>) -> DropReason {
    match errno {
        Some(libc::EAGAIN | libc::ENOBUFS) => DropReason::SocketFull,
        Some(libc::EMSGSIZE) => DropReason::DatagramTooLarge,
        _ => DropReason::SocketError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_an_error_that_says_so() {
        let sockets = UdpSockets::bind(0).unwrap();
        let addrs = sockets.local_addrs();
        let port = addrs[0].port();
        assert!(addrs.iter().all(|addr| addr.port() == port), "{addrs:?}");
        let again = UdpSockets::bind(port).unwrap_err();
        assert!(matches!(again, BindError::Busy(_)), "{again:?}");
        assert!(again.to_string().contains("--listen"), "{again}");
        let foreign = UdpSockets::bind_to(&["192.0.2.77:0".parse().unwrap()]).unwrap_err();
        assert!(matches!(foreign, BindError::NotLocal(_)), "{foreign:?}");
    }
}
