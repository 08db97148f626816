//! Which connections stay, and how many there may be.
//!
//! A control link between a member and a bootstrap stays as long as both live; all others close
//! when nobody has used them for a while.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::handler::{ConnectionEvent, ConnectionHandlerEvent};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::addr;
use control_proto::admission::AdmittedTable;

/// Connections with one peer: both transports, in both directions.
const MAX_PER_PEER: usize = 4;

#[derive(Debug, thiserror::Error)]
#[error("too many connections")]
struct TooMany;

/// Counts the established connections of each peer; an entry goes with its last connection.
pub(crate) struct Links {
    admitted: AdmittedTable,
    /// We are a bootstrap: every admitted link is one of a member to its bootstrap.
    keep_all: bool,
    max_peers: usize,
    peers: HashMap<PeerId, usize>,
}

impl Links {
    pub(crate) fn new(admitted: AdmittedTable, keep_all: bool, max_peers: usize) -> Self {
        Self {
            admitted,
            keep_all,
            max_peers,
            peers: HashMap::new(),
        }
    }

    fn established(&self, peer: &PeerId) -> Result<KeepAlive, ConnectionDenied> {
        let full = match self.peers.get(peer) {
            Some(&connections) => connections >= MAX_PER_PEER,
            None => self.peers.len() >= self.max_peers,
        };
        if full {
            return Err(ConnectionDenied::new(TooMany));
        }
        let infra = addr::from_libp2p(peer).is_some_and(|peer| self.admitted.is_infra(&peer));
        Ok(KeepAlive(self.keep_all || infra))
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = KeepAlive;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<KeepAlive, ConnectionDenied> {
        self.established(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<KeepAlive, ConnectionDenied> {
        self.established(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(up) => {
                *self.peers.entry(up.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(down) if down.remaining_established == 0 => {
                self.peers.remove(&down.peer_id);
            }
            FromSwarm::ConnectionClosed(down) => {
                self.peers.insert(down.peer_id, down.remaining_established);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

/// Speaks no protocol; says whether the connection is wanted while idle.
pub(crate) struct KeepAlive(bool);

impl ConnectionHandler for KeepAlive {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.0
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
}
