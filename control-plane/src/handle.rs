//! The handle through which the node asks the control plane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use libp2p::Multiaddr;
use nat_traversal::path::AllocationId;
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{SignedPart, WitnessRefusal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use control_proto::messages::{Allocation, RefusedReason, Request, Response};
use control_proto::records::RecordRules;

/// A lookup, or a put that only Kademlia can take, lasts this long at most (DIRECTORY.md, "Storage
/// and lookup").
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// A failure within this time is a link that broke, not a peer that is silent.
const QUICK_FAILURE: Duration = Duration::from_secs(2);

/// Commands that wait for the control plane's task.
pub(crate) const COMMAND_QUEUE: usize = 256;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection to the peer, or to any bootstrap.
    #[error("not connected")]
    NotConnected,
    /// The peer did not answer in time, or the connection broke.
    #[error("no answer")]
    NoAnswer,
    /// The peer answered that it will not.
    #[error("refused: {0}")]
    Refused(#[from] RefusedReason),
    /// The peer's answer does not fit the question.
    #[error("the answer does not fit the question")]
    Misbehaved,
    /// The address is of no form that the control plane knows.
    #[error("`{0}` is no control address")]
    Address(Multiaddr),
    /// The control plane has stopped.
    #[error("the control plane has stopped")]
    Stopped,
}

/// Asks the control plane. Cheap to clone; calls wait when the queue of commands is full.
#[derive(Clone)]
pub struct ControlHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) records: Arc<dyn RecordRules>,
    pub(crate) local: PeerId,
}

/// A peer that is connected now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The peer.
    pub peer: PeerId,
    /// It has the role infra.
    pub infra: bool,
}

pub(crate) enum Command {
    Request {
        peer: PeerId,
        request: Request,
        reply: oneshot::Sender<Result<Response, RequestError>>,
    },
    KadGet {
        key: [u8; 32],
        reply: oneshot::Sender<Option<Vec<u8>>>,
    },
    KadPut {
        key: [u8; 32],
        value: Vec<u8>,
        reply: oneshot::Sender<bool>,
    },
    KadForget {
        key: [u8; 32],
    },
    Dial {
        addr: Multiaddr,
    },
    SetBootstraps {
        addrs: Vec<Multiaddr>,
    },
    SetIncarnation {
        incarnation: u32,
    },
    ListenAddrs {
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
    Connected {
        reply: oneshot::Sender<Vec<Connected>>,
    },
    FollowRevocations,
    Stop {
        done: oneshot::Sender<()>,
    },
}

impl ControlHandle {
    /// This node's name.
    #[must_use]
    pub const fn local_peer(&self) -> PeerId {
        self.local
    }

    /// Leaves `card` with every connected bootstrap and returns the other members' cards.
    ///
    /// # Errors
    /// When no bootstrap is connected or none answers; else the first error if all fail.
    pub async fn register(
        &self,
        rendezvous: [u8; 32],
        card: Vec<u8>,
    ) -> Result<Vec<(PeerId, Vec<u8>)>, RequestError> {
        let request = Request::Register { rendezvous, card };
        let mut all = Vec::new();
        let mut outcome = Err(RequestError::NotConnected);
        for answer in self.ask_every_infra(&request).await? {
            match answer {
                Ok(Response::Cards(cards)) => {
                    outcome = Ok(());
                    for (peer, card) in cards {
                        if peer != self.local && !all.contains(&(peer, card.clone())) {
                            all.push((peer, card));
                        }
                    }
                }
                Ok(other) if outcome.is_err() => outcome = Err(unexpected(&other)),
                Err(error) if outcome.is_err() => outcome = Err(error),
                _ => {}
            }
        }
        outcome.map(|()| all)
    }

    /// Asks the bootstrap `infra` for an allocation at its relay.
    ///
    /// # Errors
    /// As [`RequestError`] says.
    pub async fn allocate(&self, infra: PeerId) -> Result<Allocation, RequestError> {
        match self.request(infra, Request::Allocate).await? {
            Response::Allocation(allocation) => Ok(allocation),
            other => Err(unexpected(&other)),
        }
    }

    /// Names more peers whose datagrams `allocation` accepts.
    ///
    /// # Errors
    /// As [`RequestError`] says; `Invalid` when the allocation is unknown or another's.
    pub async fn permit(
        &self,
        infra: PeerId,
        allocation: AllocationId,
        peers: Vec<PeerId>,
    ) -> Result<(), RequestError> {
        let request = Request::Permit { allocation, peers };
        match self.request(infra, request).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks `infra`, the witness of a further invite, for the receipt of the certificate in `chain`.
    ///
    /// # Errors
    /// As [`RequestError`] says; the inner one is the witness's own word.
    pub async fn receipt(
        &self,
        infra: PeerId,
        chain: Vec<u8>,
    ) -> Result<Result<SignedPart, WitnessRefusal>, RequestError> {
        match self.request(infra, Request::Receipt { chain }).await? {
            Response::Receipt(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// What time it is at `infra`, in milliseconds since 1970.
    ///
    /// # Errors
    /// As [`RequestError`] says; a bootstrap of an earlier version does not know the question.
    pub async fn clock(&self, infra: PeerId) -> Result<u64, RequestError> {
        match self.request_once(infra, Request::Clock).await? {
            Response::Clock(millis) => Ok(millis),
            other => Err(unexpected(&other)),
        }
    }

    /// Brings an envelope to `to`: over the direct connection if there is one, else through the
    /// connected bootstraps, one after the other. `Ok` means that `to` has it.
    ///
    /// # Errors
    /// `NotConnected` when nobody asked is connected to `to`.
    pub async fn forward(&self, to: PeerId, envelope: Vec<u8>) -> Result<(), RequestError> {
        let direct = Request::Deliver {
            from: self.local,
            envelope: envelope.clone(),
        };
        if let Ok(Response::Delivered) = self.request(to, direct).await {
            return Ok(());
        }
        let mut last = RequestError::NotConnected;
        for infra in self.infras().await? {
            let envelope = envelope.clone();
            match self.request(infra, Request::Forward { to, envelope }).await {
                Ok(Response::Delivered) => return Ok(()),
                Ok(Response::NotConnected) => {}
                Ok(other) => last = unexpected(&other),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Looks `key` up at the bootstraps and in Kademlia at once; the first record that verifies
    /// wins. `None` when nobody answers with one in [`LOOKUP_TIMEOUT`].
    pub async fn get_record(&self, key: [u8; 32]) -> Option<Vec<u8>> {
        let search = async {
            let infras = self.infras().await.ok()?;
            let mut answers: FuturesUnordered<_> = infras
                .into_iter()
                .map(|infra| futures::future::Either::Left(self.record_at(infra, key)))
                .collect();
            answers.push(futures::future::Either::Right(self.record_in_kad(key)));
            while let Some(answer) = answers.next().await {
                if let Some(value) = answer
                    && self.records.check(&key, &value)
                {
                    return Some(value);
                }
            }
            None
        };
        timeout(LOOKUP_TIMEOUT, search).await.ok().flatten()
    }

    /// Stores a record at the bootstraps and, quorum one, at the closest servers of the DHT.
    ///
    /// # Errors
    /// `Invalid` when the record does not verify here; else the last error when nobody took it.
    pub async fn put_record(&self, key: [u8; 32], value: Vec<u8>) -> Result<(), RequestError> {
        if !self.records.check(&key, &value) {
            return Err(RefusedReason::Invalid.into());
        }
        let request = Request::PutRecord {
            key,
            value: value.clone(),
        };
        let (reply, answer) = oneshot::channel();
        self.send(Command::KadPut { key, value, reply }).await?;
        let mut outcome = Err(RequestError::NotConnected);
        for result in self.ask_every_infra(&request).await? {
            match result {
                Ok(Response::Done) => outcome = Ok(()),
                Ok(other) if outcome.is_err() => outcome = Err(unexpected(&other)),
                Err(error) if outcome.is_err() => outcome = Err(error),
                _ => {}
            }
        }
        if matches!(outcome, Ok(()) | Err(RequestError::Refused(_))) {
            return outcome;
        }
        match timeout(LOOKUP_TIMEOUT, answer).await {
            Ok(Ok(true)) => Ok(()),
            _ => outcome,
        }
    }

    /// Drops the own copy of a record, so that nobody learns it from here again.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn forget_record(&self, key: [u8; 32]) -> Result<(), RequestError> {
        self.send(Command::KadForget { key }).await
    }

    /// Dials a member at an address that the data path has proven. The outcome is an event, or
    /// the peer among [`Self::connected`].
    ///
    /// # Errors
    /// `Address` when the control plane does not know the form.
    pub async fn dial(&self, addr: Multiaddr) -> Result<(), RequestError> {
        if !crate::addr::is_supported(&addr) {
            return Err(RequestError::Address(addr));
        }
        self.send(Command::Dial { addr }).await
    }

    /// Replaces the list of bootstraps. Connections to those no longer listed stay until they
    /// break; addresses without `/p2p/` are ignored.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn set_bootstraps(&self, addrs: Vec<Multiaddr>) -> Result<(), RequestError> {
        self.send(Command::SetBootstraps { addrs }).await
    }

    /// This run of the process is `incarnation`, a random number: bootstraps find out by it that two
    /// machines have one identity.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn set_incarnation(&self, incarnation: u32) -> Result<(), RequestError> {
        self.send(Command::SetIncarnation { incarnation }).await
    }

    /// Where the control plane listens now.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn listen_addrs(&self) -> Result<Vec<Multiaddr>, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ListenAddrs { reply }).await?;
        answer.await.map_err(|_| RequestError::Stopped)
    }

    /// Who is connected now.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn connected(&self) -> Result<Vec<Connected>, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connected { reply }).await?;
        answer.await.map_err(|_| RequestError::Stopped)
    }

    /// The gate has taken a revocation list by the node's own hand: whoever it names is cut off and
    /// all others who are connected are told, now rather than within a second.
    ///
    /// # Errors
    /// `Stopped` when the task is gone.
    pub async fn follow_revocations(&self) -> Result<(), RequestError> {
        self.send(Command::FollowRevocations).await
    }

    /// Closes all connections in order, so that the others know at once, and ends the task.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.send(Command::Stop { done }).await.is_ok() {
            // Either way it has stopped.
            let _ = stopped.await;
        }
    }

    async fn infras(&self) -> Result<Vec<PeerId>, RequestError> {
        let connected = self.connected().await?;
        Ok(connected
            .into_iter()
            .filter(|one| one.infra)
            .map(|one| one.peer)
            .collect())
    }

    async fn ask_every_infra(
        &self,
        request: &Request,
    ) -> Result<Vec<Result<Response, RequestError>>, RequestError> {
        let infras = self.infras().await?;
        Ok(join_all(
            infras
                .into_iter()
                .map(|infra| self.request(infra, request.clone())),
        )
        .await)
    }

    async fn record_at(&self, infra: PeerId, key: [u8; 32]) -> Option<Vec<u8>> {
        match self.request(infra, Request::GetRecord { key }).await {
            Ok(Response::Record(value)) => value,
            _ => None,
        }
    }

    pub(crate) async fn record_in_kad(&self, key: [u8; 32]) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::KadGet { key, reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Asks once more when the answer failed quickly: a link that a newer one replaces takes the
    /// requests on it along, and the newer one is there by then. All requests may be repeated.
    async fn request(&self, peer: PeerId, request: Request) -> Result<Response, RequestError> {
        let began = Instant::now();
        match self.request_once(peer, request.clone()).await {
            Err(RequestError::NoAnswer) if began.elapsed() < QUICK_FAILURE => {
                self.request_once(peer, request).await
            }
            outcome => outcome,
        }
    }

    async fn request_once(&self, peer: PeerId, request: Request) -> Result<Response, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request {
            peer,
            request,
            reply,
        })
        .await?;
        match answer.await {
            Ok(Ok(Response::Refused(reason))) => Err(reason.into()),
            Ok(result) => result,
            Err(_) => Err(RequestError::Stopped),
        }
    }

    async fn send(&self, command: Command) -> Result<(), RequestError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| RequestError::Stopped)
    }
}

fn unexpected(response: &Response) -> RequestError {
    match response {
        Response::Refused(reason) => RequestError::Refused(*reason),
        Response::NotConnected => RequestError::NotConnected,
        _ => RequestError::Misbehaved,
    }
}
