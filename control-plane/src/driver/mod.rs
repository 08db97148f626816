//! The one task that owns the swarm.
//!
//! [`spawn`] starts it; it ends when the last [`ControlHandle`] is gone or one says stop. Each turn
//! takes one thing in: an event of the swarm, a command, room for news, or a timeout.

mod listen;
mod presence;
mod revocations;
mod serve;
mod swarm_events;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_proto::admission::{AdmittedTable, Gatekeeper};
use control_proto::dialer::{Dialer, Way};
use control_proto::messages::{RefusedReason, Request, Response};
use control_proto::records::{RecordRules, Records};
use control_proto::serving::{Means, Relay, Server};
use futures::StreamExt;
use host_services::OsEntropy;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::{QueryId, Quorum, Record};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, Swarm, swarm};
use overlay_proto::ids::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::addr;
use crate::behaviour::Behaviour;
use crate::config::{ControlConfig, ControlError};
use crate::event::{ControlEvent, EVENT_QUEUE};
use crate::handle::{COMMAND_QUEUE, Command, Connected, ControlHandle, RequestError};
use crate::kad_store::VerifyingStore;
use crate::transport;

/// Requests that wait for an answer, own and forwarded. Each ends by an answer or after 10 s.
const MAX_PENDING_REQUESTS: usize = 4096;

/// Kademlia queries under way; each ends after 5 s.
const MAX_QUERIES: usize = 128;

/// Of these, records that are stored: a guest that makes MACs up has a thousand, and a query takes
/// six kilobytes of libp2p for as long as a minute. The bootstraps are given every record; the DHT of the
/// members is a second place for it.
const MAX_PUTS: usize = 24;

/// News that wait for room in the event channel; the oldest is dropped.
const MAX_NEWS: usize = 256;

/// Links that are not wanted for themselves close after this long without a request.
const IDLE_LINK: Duration = Duration::from_secs(60);

/// How long a stop waits for the others to be told.
const STOP_GRACE: Duration = Duration::from_millis(300);

/// Starts the control plane on the current tokio runtime.
///
/// # Errors
/// As [`ControlError`] says; a listen address in use is named.
pub fn spawn(
    config: ControlConfig,
) -> Result<(ControlHandle, mpsc::Receiver<ControlEvent>), ControlError> {
    let mut secret = *config.secret_key;
    // Wipes the copy.
    let keys = Keypair::ed25519_from_bytes(&mut secret)
        .map_err(|error| ControlError::Crypto(error.to_string()))?;
    let local = addr::from_libp2p(&keys.public().to_peer_id())
        .ok_or_else(|| ControlError::Crypto("no ed25519 key".to_owned()))?;
    for addr in &config.bootstraps {
        if addr::peer_of(addr).is_none() {
            return Err(ControlError::BootstrapWithoutPeer(addr.clone()));
        }
    }
    listen::check_all(&config.listen)?;
    let admitted = AdmittedTable::default();
    let transport = transport::build(&keys, config.gate.clone(), admitted.clone())?;
    let behaviour = Behaviour::new(
        &keys,
        admitted.clone(),
        Records::new(config.records.clone()),
        config.kad_server,
        config.relay.is_some(),
    );
    // Each behaviour has one protocol, and whoever opens a stream begins at once to write or to read: it need
    // not wait for the other's consent, which saves each question a round trip.
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_LINK)
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    let mut swarm = Swarm::new(
        transport,
        behaviour,
        keys.public().to_peer_id(),
        swarm_config,
    );
    listen::start(&mut swarm, &config.listen)?;
    for addr in &config.external {
        swarm.add_external_address(addr.clone());
    }
    let mut dialer = Dialer::default();
    dialer.set(ways(&config.bootstraps), Instant::now());

    let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let records = config.records.clone();
    let driver = Driver {
        swarm,
        local,
        commands,
        news: News {
            listener: events,
            waiting: VecDeque::new(),
        },
        dialer,
        inbound: HashMap::new(),
        incarnation: None,
        asked: HashMap::new(),
        queries: HashMap::new(),
        server: Server::new(
            local,
            config.kad_server,
            admitted.clone(),
            config.gate.revocations(),
            Instant::now(),
        ),
        admitted,
        relay: config.relay,
        records: records.clone(),
        gate: config.gate,
    };
    tokio::spawn(driver.run());
    let handle = ControlHandle {
        commands: command_sender,
        records,
        local,
    };
    Ok((handle, event_receiver))
}

struct Driver {
    swarm: Swarm<Behaviour>,
    local: PeerId,
    commands: mpsc::Receiver<Command>,
    news: News,
    admitted: AdmittedTable,
    dialer: Dialer<Multiaddr>,
    /// The newest connection that each connected peer has dialled.
    inbound: HashMap<libp2p::PeerId, Inbound>,
    /// Which run of the process this is, once the node has said so.
    incarnation: Option<u32>,
    /// At most [`MAX_PENDING_REQUESTS`].
    asked: HashMap<OutboundRequestId, Asked>,
    /// At most [`MAX_QUERIES`].
    queries: HashMap<QueryId, Query>,
    server: Server,
    /// Of a bootstrap.
    relay: Option<Arc<dyn Relay + Send + Sync>>,
    records: Arc<dyn RecordRules>,
    gate: Arc<dyn Gatekeeper>,
}

/// What the node is to hear.
struct News {
    listener: mpsc::Sender<ControlEvent>,
    /// What found no room. At most [`MAX_NEWS`].
    waiting: VecDeque<ControlEvent>,
}

/// A connection that a peer has dialled.
struct Inbound {
    id: libp2p::swarm::ConnectionId,
    remote: Option<SocketAddr>,
}

/// Whom the answer to a request goes to.
enum Asked {
    Own(oneshot::Sender<Result<Response, RequestError>>),
    Forwarded(serve::Forwarded),
    /// A revocation list, which must arrive.
    Pushed,
    /// This node's incarnation, to that bootstrap.
    Presence(PeerId),
    /// It was a forwarded envelope, and its sender was told that there is no answer.
    Nobody,
}

enum Query {
    Get([u8; 32], oneshot::Sender<Option<Vec<u8>>>),
    Put(oneshot::Sender<bool>),
}

impl Driver {
    async fn run(mut self) {
        let events = self.news.listener.clone();
        loop {
            self.follow_revocations();
            self.dial_bootstraps();
            self.handle_timeout();
            let sweep = self.server.poll_timeout();
            let timeout = self.dialer.poll_timeout();
            let timeout = timeout.map_or(sweep, |dial| dial.min(sweep));
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm_event(event),
                command = self.commands.recv() => match command {
                    None => return self.close().await,
                    Some(Command::Stop { done }) => {
                        self.close().await;
                        // Whoever asked may be gone.
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.handle_command(command),
                },
                room = events.reserve(), if !self.news.waiting.is_empty() => match (room, self.news.waiting.pop_front()) {
                    (Ok(room), Some(event)) => room.send(event),
                    // Nobody listens.
                    _ => self.news.waiting.clear(),
                },
                () = tokio::time::sleep_until(timeout.into()) => {}
            }
        }
    }

    async fn close(mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Gone already is what we want.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let all_closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // Who was not told in time finds out alone.
        let _ = tokio::time::timeout(STOP_GRACE, all_closed).await;
    }

    fn dial_bootstraps(&mut self) {
        let now = Instant::now();
        while let Some((peer, addr)) = self.dialer.poll_dial(now) {
            let Some(target) = addr::to_libp2p(peer) else {
                continue;
            };
            let options = DialOpts::peer_id(target)
                .addresses(vec![addr])
                .condition(PeerCondition::Disconnected)
                .build();
            match self.swarm.dial(options) {
                Ok(()) => {}
                Err(_) if self.swarm.is_connected(&target) => self.dialer.handle_up(peer, now),
                Err(error) => {
                    tracing::debug!(%peer, %error, "cannot dial");
                    self.dialer.handle_failed(peer, now, &mut OsEntropy);
                }
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Request {
                peer,
                request,
                reply,
            } => self.ask(peer, request, reply),
            Command::KadGet { key, reply } => {
                if self.queries.len() < MAX_QUERIES {
                    let id = self.kad().get_record(key.to_vec().into());
                    self.queries.insert(id, Query::Get(key, reply));
                }
            }
            Command::KadPut { key, value, reply } => {
                let record = Record::new(key.to_vec(), value);
                let puts = self.queries.values();
                let puts = puts.filter(|query| matches!(query, Query::Put(_))).count();
                if puts < MAX_PUTS
                    && self.queries.len() < MAX_QUERIES
                    && let Ok(id) = self.kad().put_record(record, Quorum::One)
                {
                    self.queries.insert(id, Query::Put(reply));
                }
            }
            Command::KadForget { key } => self.kad().remove_record(&key.to_vec().into()),
            Command::Dial { addr } => self.dial(addr),
            Command::SetBootstraps { addrs } => self.dialer.set(ways(&addrs), Instant::now()),
            Command::SetIncarnation { incarnation } => self.set_incarnation(incarnation),
            Command::ListenAddrs { reply } => {
                let addrs = self.swarm.listeners().cloned().collect();
                let _ = reply.send(addrs);
            }
            Command::Connected { reply } => {
                let _ = reply.send(self.connected());
            }
            // The loop does it before anything else.
            Command::FollowRevocations => {}
            // Taken before.
            Command::Stop { .. } => {}
        }
    }

    fn ask(
        &mut self,
        peer: PeerId,
        request: Request,
        reply: oneshot::Sender<Result<Response, RequestError>>,
    ) {
        let target = addr::to_libp2p(peer).filter(|target| self.swarm.is_connected(target));
        // Whoever asked may have given up: a failed send is of no interest.
        let Some(target) = target else {
            let _ = reply.send(Err(RequestError::NotConnected));
            return;
        };
        if !request.within_bounds() {
            let _ = reply.send(Ok(Response::Refused(RefusedReason::TooLarge)));
        } else if self.asked.len() >= MAX_PENDING_REQUESTS {
            let _ = reply.send(Err(RequestError::NoAnswer));
        } else {
            let control = &mut self.swarm.behaviour_mut().control;
            let id = control.send_request(&target, request);
            self.asked.insert(id, Asked::Own(reply));
        }
    }

    fn dial(&mut self, addr: Multiaddr) {
        let options = match addr::peer_of(&addr).and_then(addr::to_libp2p) {
            Some(peer) => DialOpts::peer_id(peer)
                .addresses(vec![addr.clone()])
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build(),
            None => DialOpts::unknown_peer_id().address(addr.clone()).build(),
        };
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%addr, %error, "not dialled");
        }
    }

    fn connected(&self) -> Vec<Connected> {
        self.swarm
            .connected_peers()
            .filter_map(addr::from_libp2p)
            .map(|peer| Connected {
                peer,
                infra: self.admitted.is_infra(&peer),
            })
            .collect()
    }

    fn connected_names(&self) -> Vec<PeerId> {
        let connected = self.swarm.connected_peers();
        connected.filter_map(addr::from_libp2p).collect()
    }

    fn handle_timeout(&mut self) {
        let times = serve::times();
        if times.now < self.server.poll_timeout() {
            return;
        }
        let connected = self.connected_names();
        let (server, mut means) = self.serving();
        for peer in server.handle_timeout(times, &connected, &mut means) {
            self.disconnect(peer);
        }
        self.expire_forwarded(times.now);
    }

    /// The server, and what it needs of others.
    fn serving(&mut self) -> (&mut Server, Means<'_>) {
        let records = &mut self.swarm.behaviour_mut().kad.store_mut().records;
        let relay = self.relay.as_deref();
        let means = Means {
            gate: &*self.gate,
            relay: relay.map(|relay| relay as &dyn Relay),
            records,
        };
        (&mut self.server, means)
    }

    fn tell(&mut self, event: ControlEvent) {
        if self.news.waiting.len() >= MAX_NEWS {
            self.news.waiting.pop_front();
        }
        self.news.waiting.push_back(event);
    }

    fn kad(&mut self) -> &mut libp2p::kad::Behaviour<VerifyingStore> {
        &mut self.swarm.behaviour_mut().kad
    }
}

/// The addresses of bootstraps as the dialer knows them; those without a name are left out.
fn ways(addrs: &[Multiaddr]) -> impl Iterator<Item = Way<Multiaddr>> {
    addrs.iter().filter_map(|addr| {
        Some(Way {
            peer: addr::peer_of(addr)?,
            is_quic: addr.iter().any(|part| part == Protocol::QuicV1),
            socket: addr::socket_addr(addr),
            addr: addr.clone(),
        })
    })
}
