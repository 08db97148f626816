//! Multiaddrs as the operator writes them, and the socket addresses in them.
//!
//! The rest of the system knows three forms, each with or without `/p2p/PEER` at the end:
//! `/ip4/192.0.2.1/udp/22612/quic-v1`, `/ip4/192.0.2.1/tcp/22611` and the same with `ip6`.

use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use overlay_proto::ids::PeerId;

/// The name that libp2p uses for `peer`; `None` if the 32 bytes are no ed25519 key.
#[must_use]
pub fn to_libp2p(peer: PeerId) -> Option<libp2p::PeerId> {
    libp2p::PeerId::from_bytes(&peer.to_multihash()).ok()
}

/// Our name for a libp2p peer; `None` if its key is not ed25519.
#[must_use]
pub fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_multihash(&peer.to_bytes())
}

/// The IP address and port of a multiaddr; `None` for names and other transports.
#[must_use]
pub fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The peer that a multiaddr ends with.
#[must_use]
pub fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last()? {
        Protocol::P2p(peer) => from_libp2p(&peer),
        _ => None,
    }
}

/// `addr` with `/p2p/PEER` at its end; an older one there is replaced.
#[must_use]
pub fn with_peer(addr: &Multiaddr, peer: PeerId) -> Multiaddr {
    let mut full = without_peer(addr);
    if let Some(peer) = to_libp2p(peer) {
        full.push(Protocol::P2p(peer));
    }
    full
}

/// `addr` without `/p2p/PEER` at its end.
#[must_use]
pub fn without_peer(addr: &Multiaddr) -> Multiaddr {
    addr.iter()
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect()
}

/// The QUIC form of a UDP socket address.
#[must_use]
pub fn quic(addr: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(addr.ip().into())
        .with(Protocol::Udp(addr.port()))
        .with(Protocol::QuicV1)
}

/// The TCP form of a socket address.
#[must_use]
pub fn tcp(addr: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(addr.ip().into())
        .with(Protocol::Tcp(addr.port()))
}

/// Whether `addr` is one of the forms that this system dials and listens on.
#[must_use]
pub fn is_supported(addr: &Multiaddr) -> bool {
    let bare = without_peer(addr);
    socket_addr(&bare).is_some_and(|socket| bare == quic(socket) || bare == tcp(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let socket: SocketAddr = "192.0.2.1:22612".parse().unwrap();
        assert_eq!(quic(socket).to_string(), "/ip4/192.0.2.1/udp/22612/quic-v1");
        assert_eq!(tcp(socket).to_string(), "/ip4/192.0.2.1/tcp/22612");
        assert_eq!(socket_addr(&quic(socket)), Some(socket));
        assert!(is_supported(&quic(socket)));
        for wrong in ["/ip4/192.0.2.1/udp/1", "/dns4/host.example/tcp/1", "/tcp/1"] {
            assert!(!is_supported(&wrong.parse().unwrap()), "{wrong}");
        }
    }

    #[test]
    fn peers_come_and_go() {
        let keys = libp2p::identity::Keypair::generate_ed25519();
        let peer = from_libp2p(&keys.public().to_peer_id()).unwrap();
        let bare: Multiaddr = "/ip6/2001:db8::1/tcp/22611".parse().unwrap();
        let full = with_peer(&bare, peer);
        assert_eq!(full.to_string(), format!("{bare}/p2p/{peer}"));
        assert_eq!(peer_of(&full), Some(peer));
        assert_eq!(peer_of(&bare), None);
        assert_eq!(without_peer(&full), bare);
        assert_eq!(with_peer(&full, peer), full);
    }
}
