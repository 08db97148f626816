//! Starts listening, and names the address that is taken.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};
use socket2::{Domain, Socket, Type};

use crate::addr;
use crate::behaviour::Behaviour;
use crate::config::ControlError;

/// Whether all of `addrs` are free: asked before anything is started.
pub(super) fn check_all(addrs: &[Multiaddr]) -> Result<(), ControlError> {
    addrs.iter().try_for_each(check)
}

/// Listens on all of `addrs`.
pub(super) fn start(swarm: &mut Swarm<Behaviour>, addrs: &[Multiaddr]) -> Result<(), ControlError> {
    for addr in addrs {
        swarm
            .listen_on(addr.clone())
            .map_err(|error| ControlError::Listen {
                addr: addr.clone(),
                error: error.to_string(),
            })?;
    }
    Ok(())
}

/// Binds for a moment without the options that libp2p sets: two processes of one user could
/// otherwise share a TCP port, each with half of the connections.
fn check(addr: &Multiaddr) -> Result<(), ControlError> {
    let socket = addr::socket_addr(addr)
        .filter(|_| addr::is_supported(addr))
        .ok_or_else(|| ControlError::Address(addr.clone()))?;
    let is_udp = addr.iter().any(|part| matches!(part, Protocol::Udp(_)));
    bind(socket, is_udp).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => ControlError::PortBusy(addr.clone()),
        _ => ControlError::Listen {
            addr: addr.clone(),
            error: error.to_string(),
        },
    })
}

fn bind(addr: SocketAddr, is_udp: bool) -> io::Result<()> {
    let kind = if is_udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if !is_udp {
        // Connections of an earlier run that linger do not make the port busy.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&addr.into())?;
    if is_udp { Ok(()) } else { socket.listen(1) }
}
