//! What libp2p reports.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use control_proto::admission::{Admitted, Refusal};
use control_proto::messages::{Request, Response};
use host_services::OsEntropy;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::TransportError;
use libp2p::kad::{self, GetRecordOk, InboundRequest, QueryId, QueryResult};
use libp2p::request_response::{self, Message, OutboundFailure};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId as Libp2pPeer, identify};
use nat_traversal::candidate::admit_anywhere;

use super::{Asked, Driver, Inbound, Query};
use crate::addr;
use crate::admission::AdmissionError;
use crate::behaviour::{BehaviourEvent, KAD_PROTOCOL};
use crate::event::ControlEvent;
use crate::handle::RequestError;

impl Driver {
    pub(super) fn handle_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Control(event)) => self.handle_control(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.handle_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.handle_identified(&peer_id, info),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                if let Some(peer) = addr::from_libp2p(&peer_id) {
                    if self.server.is_revoked(peer) {
                        self.disconnect(peer);
                        return;
                    }
                    self.server.handle_connected(peer, Instant::now());
                }
                if endpoint.is_listener() {
                    let remote = addr::socket_addr(endpoint.get_remote_address());
                    let id = connection_id;
                    self.replace_inbound(peer_id, Inbound { id, remote });
                }
                if num_established.get() == 1 {
                    self.handle_connected(&peer_id, &endpoint);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => self.handle_disconnected(&peer_id),
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.handle_dial_failed(peer_id, error);
            }
            SwarmEvent::ListenerClosed {
                addresses,
                reason: Err(error),
                ..
            } => self.tell(ControlEvent::ListenFailed {
                addrs: addresses,
                reason: error.to_string(),
            }),
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener has trouble");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::debug!(%address, "listening");
            }
            _ => {}
        }
    }

    /// A node that dials again has lost the earlier connection, or will lose it: it restarted. The
    /// listener alone decides, so that the two ends never close one connection each.
    fn replace_inbound(&mut self, peer: Libp2pPeer, newest: Inbound) {
        if let Some(older) = self.inbound.insert(peer, newest) {
            self.swarm.close_connection(older.id);
        }
    }

    fn handle_connected(&mut self, libp2p_peer: &Libp2pPeer, endpoint: &ConnectedPoint) {
        let Some(peer) = addr::from_libp2p(libp2p_peer) else {
            return;
        };
        tracing::debug!(%peer, remote = %endpoint.get_remote_address(), "connected");
        self.dialer.handle_up(peer, Instant::now());
        let remote_addr = endpoint.get_remote_address();
        if let Some(Admitted::Infra { data_addrs }) = self.admitted.get(&peer)
            && let Some(remote) = addr::socket_addr(remote_addr)
        {
            if endpoint.is_dialer() {
                let bare = addr::without_peer(remote_addr);
                self.kad().add_address(libp2p_peer, bare);
            }
            let mut reached = vec![remote.ip()];
            reached.extend(self.dialer.ips_of(peer));
            let data_addrs = usable(&data_addrs, &reached);
            self.tell(ControlEvent::InfraUp {
                peer,
                remote,
                data_addrs,
            });
            self.present(libp2p_peer);
        }
    }

    fn handle_disconnected(&mut self, libp2p_peer: &Libp2pPeer) {
        let Some(peer) = addr::from_libp2p(libp2p_peer) else {
            return;
        };
        tracing::debug!(%peer, "disconnected");
        self.inbound.remove(libp2p_peer);
        self.server.handle_disconnected(peer);
        self.dialer
            .handle_down(peer, Instant::now(), &mut OsEntropy);
        if self.admitted.is_infra(&peer) {
            self.tell(ControlEvent::InfraDown { peer });
        }
    }

    fn handle_dial_failed(&mut self, libp2p_peer: Option<Libp2pPeer>, error: DialError) {
        let peer = libp2p_peer.as_ref().and_then(addr::from_libp2p);
        if let Some(libp2p_peer) = libp2p_peer
            && let Some(peer) = peer
            && !self.swarm.is_connected(&libp2p_peer)
        {
            self.dialer
                .handle_failed(peer, Instant::now(), &mut OsEntropy);
        }
        match error {
            DialError::Transport(errors) => {
                for (addr, error) in errors {
                    let Some(event) = dial_event(addr, &error) else {
                        continue;
                    };
                    tracing::debug!(?event, "dial failed");
                    self.tell(event);
                }
            }
            DialError::WrongPeerId { obtained, address } => self.tell(ControlEvent::Refused {
                addr: address,
                reason: wrong_peer(&obtained, libp2p_peer.as_ref()),
            }),
            other => tracing::debug!(error = %other, "dial failed"),
        }
    }

    /// Servers of the DHT enter the routing table by the addresses that they tell, which are the
    /// ones that a third party has reached.
    fn handle_identified(&mut self, peer: &Libp2pPeer, info: identify::Info) {
        if info.protocols.contains(&KAD_PROTOCOL) {
            for addr in info.listen_addrs.iter().take(MAX_SERVER_ADDRS) {
                let bare = addr::without_peer(addr);
                if is_reachable(&bare) {
                    self.kad().add_address(peer, bare);
                }
            }
        }
    }

    fn handle_control(&mut self, event: request_response::Event<Request, Response>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request, channel, ..
                } => {
                    if let Some(peer) = addr::from_libp2p(&peer) {
                        self.handle_request(peer, request, channel);
                    }
                }
                Message::Response {
                    request_id,
                    response,
                } => match self.asked.remove(&request_id) {
                    Some(Asked::Own(reply)) => {
                        // Whoever asked may have given up.
                        let _ = reply.send(Ok(response));
                    }
                    Some(Asked::Forwarded(one)) => self.finish_forwarded(one, Some(response)),
                    Some(Asked::Presence(infra)) => self.handle_presence(infra, &response),
                    Some(Asked::Pushed | Asked::Nobody) | None => {}
                },
            },
            request_response::Event::OutboundFailure {
                connection_id,
                request_id,
                error,
                ..
            } => {
                match self.asked.remove(&request_id) {
                    Some(Asked::Own(reply)) => {
                        let _ = reply.send(Err(RequestError::NoAnswer));
                    }
                    Some(Asked::Forwarded(one)) => self.finish_forwarded(one, None),
                    // The other side asks for the lists when it is back.
                    Some(Asked::Pushed) => {
                        self.swarm.close_connection(connection_id);
                    }
                    Some(Asked::Nobody | Asked::Presence(_)) | None => {}
                }
                self.judge_failure(connection_id, &error);
            }
            request_response::Event::InboundFailure { error, .. } => {
                tracing::debug!(%error, "a request was not answered");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    /// Ten seconds without an answer: the other side is dead, whatever TCP believes.
    fn judge_failure(&mut self, connection: ConnectionId, error: &OutboundFailure) {
        tracing::debug!(%error, "a request failed");
        if matches!(error, OutboundFailure::Timeout) {
            self.swarm.close_connection(connection);
        }
    }

    fn handle_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { source, .. },
            } => self.kad().store_mut().attribute_next(source),
            kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            } => {
                self.handle_query(id, result);
                if step.last {
                    // Dropping the sender tells the asker that there is nothing.
                    self.queries.remove(&id);
                }
            }
            _ => {}
        }
    }

    fn handle_query(&mut self, id: QueryId, result: QueryResult) {
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                let Some(Query::Get(key, _)) = self.queries.get(&id) else {
                    return;
                };
                // Kademlia does not check that what comes back belongs to the key.
                if !self.records.check(key, &found.record.value) {
                    return;
                }
                if let Some(Query::Get(_, reply)) = self.queries.remove(&id) {
                    let _ = reply.send(Some(found.record.value));
                }
                if let Some(mut query) = self.kad().query_mut(&id) {
                    query.finish();
                }
            }
            QueryResult::PutRecord(result) => {
                if let Some(Query::Put(reply)) = self.queries.remove(&id) {
                    let _ = reply.send(result.is_ok());
                }
            }
            _ => {}
        }
    }
}

/// Somebody else answers at a bootstrap's address.
fn wrong_peer<Id: ToString>(obtained: &Id, wanted: Option<&Id>) -> String {
    let obtained = obtained.to_string();
    let wanted = wanted.map_or_else(|| "another".to_owned(), Id::to_string);
    format!(
        "it answers as {obtained}, the invite names {wanted}: did it lose its state? Restore the \
         bootstrap's state directory; or at the authority type `farlan bootstrap remove {wanted}`, then \
         `farlan bootstrap add ADDR` with its new addresses, and invite the hosts again (`farlan invite \
         --again --network NETWORK --name NAME`)"
    )
}

/// Addresses of one DHT server that are kept.
const MAX_SERVER_ADDRS: usize = 8;

/// The addresses that mean something here: an unspecified one stands for the bootstrap's address of
/// that family, the first in `reached`.
fn usable(data_addrs: &[SocketAddr], reached: &[IpAddr]) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for addr in data_addrs {
        let meant = if addr.ip().is_unspecified() {
            reached
                .iter()
                .copied()
                .find(|ip| ip.is_ipv4() == addr.is_ipv4())
        } else {
            Some(addr.ip())
        }
        .map(|ip| SocketAddr::new(ip, addr.port()));
        if let Some(meant) = meant.filter(|meant| !all.contains(meant)) {
            all.push(meant);
        }
    }
    all
}

fn is_reachable(addr: &Multiaddr) -> bool {
    addr::is_supported(addr)
        && addr::socket_addr(addr).is_some_and(|socket| admit_anywhere(socket).is_ok())
}

/// What the driver is told; nothing when another dial to the same peer was faster.
fn dial_event(addr: Multiaddr, error: &TransportError<std::io::Error>) -> Option<ControlEvent> {
    let gate = match error {
        TransportError::Other(io) => io
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<AdmissionError>()),
        TransportError::MultiaddrNotSupported(_) => None,
    };
    Some(match gate {
        Some(AdmissionError::LostRace) => return None,
        Some(AdmissionError::Refused(Refusal::NotPinned(obtained))) => {
            let wanted = addr::peer_of(&addr);
            let reason = wrong_peer(obtained, wanted.as_ref());
            ControlEvent::Refused { addr, reason }
        }
        Some(gate @ (AdmissionError::Refused(_) | AdmissionError::NotAdmitted)) => {
            let reason = gate.to_string();
            ControlEvent::Refused { addr, reason }
        }
        Some(other) => ControlEvent::Unreachable {
            addr,
            reason: other.to_string(),
        },
        None => ControlEvent::Unreachable {
            addr,
            reason: error.to_string(),
        },
    })
}
