//! The transport that lets nobody through who was not admitted.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use control_proto::admission::{AdmittedTable, Gatekeeper};
use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent,
};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::pending::{HelloNote, Pending};
use super::{AdmissionError, exchange};
use crate::addr;

/// Crypto, muxer and admission together take no longer (TRUST.md 7): six round trips of 500 ms,
/// and room for one lost packet.
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

type Upgraded = (PeerId, StreamMuxerBox);

/// libp2p's transport with the gate around it.
pub(crate) struct Gated {
    inner: Boxed<Upgraded>,
    door: Door,
    /// Of TCP, and of QUIC.
    pending: [Pending; 2],
}

/// What each connection needs at the gate.
#[derive(Clone)]
struct Door {
    gate: Arc<dyn Gatekeeper>,
    admitted: AdmittedTable,
}

impl Gated {
    pub(crate) fn new(
        inner: Boxed<Upgraded>,
        gate: Arc<dyn Gatekeeper>,
        admitted: AdmittedTable,
    ) -> Self {
        Self {
            inner,
            door: Door { gate, admitted },
            pending: Default::default(),
        }
    }
}

impl Door {
    async fn pass(
        &self,
        upgrade: impl Future<Output = std::io::Result<Upgraded>>,
        hello: Option<HelloNote>,
    ) -> Result<Upgraded, AdmissionError> {
        let we_dialed = hello.is_none();
        let work = async {
            let (peer, mut muxer) = upgrade
                .await
                .map_err(|error| AdmissionError::Transport(error.to_string()))?;
            let name = addr::from_libp2p(&peer).ok_or(AdmissionError::ForeignKey)?;
            if we_dialed && self.admitted.has_just_dialed(&name, Instant::now()) {
                return Err(AdmissionError::LostRace);
            }
            let verdict = exchange::run(&mut muxer, &self.gate, name, hello.as_ref()).await;
            match verdict {
                Ok(admitted) => {
                    self.admitted
                        .insert(name, admitted, we_dialed, Instant::now());
                    Ok((peer, muxer))
                }
                Err(error) => {
                    tracing::debug!(peer = %name, we_dialed, %error, "not admitted");
                    Err(error)
                }
            }
        };
        tokio::time::timeout(SETUP_TIMEOUT, work)
            .await
            .unwrap_or(Err(AdmissionError::TimedOut))
    }
}

impl Transport for Gated {
    type Output = Upgraded;
    type Error = AdmissionError;
    type ListenerUpgrade = BoxFuture<'static, Result<Upgraded, AdmissionError>>;
    type Dial = BoxFuture<'static, Result<Upgraded, AdmissionError>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.inner
            .listen_on(id, addr)
            .map_err(|error| error.map(|io| AdmissionError::Transport(io.to_string())))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let upgrade = self
            .inner
            .dial(addr, opts)
            .map_err(|error| error.map(|io| AdmissionError::Transport(io.to_string())))?;
        let door = self.door.clone();
        Ok(async move { door.pass(upgrade, None).await }.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = &mut *self;
        let event = std::task::ready!(Pin::new(&mut this.inner).poll(cx));
        let (source, tcp) = source_of(&event);
        let [of_tcp, of_quic] = &this.pending;
        let (door, pending) = (&this.door, if tcp { of_tcp } else { of_quic });
        let event = event.map_upgrade(|upgrade| match pending.enter(source) {
            Some(mut slot) => {
                let door = door.clone();
                let hello = slot.note_hello();
                async move {
                    tokio::select! {
                        result = door.pass(upgrade, Some(hello)) => result,
                        () = slot.lost() => Err(AdmissionError::MadeRoom),
                    }
                }
                .boxed()
            }
            None => async { Err(AdmissionError::TooMany) }.boxed(),
        });
        Poll::Ready(event.map_err(|io| AdmissionError::Transport(io.to_string())))
    }
}

/// Where a new connection comes from, and whether by TCP.
fn source_of<U, E>(event: &TransportEvent<U, E>) -> (Option<IpAddr>, bool) {
    match event {
        TransportEvent::Incoming { send_back_addr, .. } => {
            let tcp = send_back_addr
                .iter()
                .any(|part| matches!(part, Protocol::Tcp(_)));
            let source = addr::socket_addr(send_back_addr).map(|socket| socket.ip());
            (source, tcp)
        }
        _ => (None, false),
    }
}
