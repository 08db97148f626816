//! The UDP sockets of reflector and relay.
//!
//! A wildcard socket answers from the address it was asked at, and a relayed datagram leaves from
//! the address at which its receiver has bound its allocation: a NAT lets nothing else in.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nat_traversal::reflector::{KIND_REQUEST, ReflectorLimiter};
use nat_traversal::relay::{KIND_ACK, KIND_BIND, KIND_RELAYED};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::relay::{OsEntropy, SharedRelay};

/// Datagrams, or trains of them, that one system call receives.
const BATCH: usize = 16;

/// The largest train that the kernel hands over.
const BUFFER: usize = 65_536;

/// Socket buffers: 20 ms at 1 Gbit/s, in both directions.
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;

/// After a failed receive, so that an error that lasts does not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// How long the way to a bound address is remembered: members bind again every half minute.
const WAY_LIFETIME: Duration = Duration::from_secs(120);

/// Ways: one for each allocation and some that have moved.
const MAX_WAYS: usize = 16_384;

/// All sockets, and what their tasks share.
pub(crate) struct DataPlane {
    sockets: Vec<BoundSocket>,
    relay: Arc<SharedRelay>,
    limiter: Mutex<ReflectorLimiter>,
    ways: Mutex<HashMap<SocketAddr, Way>>,
    pub(crate) counters: Counters,
}

struct BoundSocket {
    io: UdpSocket,
    state: UdpSocketState,
    is_ipv4: bool,
}

/// By which socket and own address a bound address was last heard.
#[derive(Debug, Clone, Copy)]
struct Way {
    socket: usize,
    local: Option<IpAddr>,
    heard: Instant,
}

/// What the data plane did, since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reflected: AtomicU64,
    relay_dropped: AtomicU64,
    unknown: AtomicU64,
    send_failed: AtomicU64,
}

/// [`Counters`] and the relay's statistics at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) reflected: u64,
    pub(crate) relayed: u64,
    pub(crate) relayed_bytes: u64,
    pub(crate) relay_dropped: u64,
    pub(crate) unknown: u64,
    pub(crate) send_failed: u64,
    pub(crate) allocations: usize,
}

impl DataPlane {
    /// Binds `addrs`, or none.
    pub(crate) fn bind(addrs: &[SocketAddr], relay: Arc<SharedRelay>) -> Result<Self> {
        let sockets = addrs
            .iter()
            .map(|addr| {
                BoundSocket::bind(*addr).with_context(|| match addr.port() {
                    0..1024 => format!("cannot bind UDP {addr} (ports below 1024 need rights)"),
                    _ => format!("cannot bind UDP {addr}; choose another port with --listen"),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            sockets,
            relay,
            limiter: Mutex::new(ReflectorLimiter::new(Instant::now())),
            ways: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// Starts one task for each socket.
    pub(crate) fn start(self: &Arc<Self>) {
        for index in 0..self.sockets.len() {
            let plane = self.clone();
            tokio::spawn(async move { plane.serve(index).await });
        }
    }

    /// Removes what lapsed; to be called every minute or so.
    pub(crate) fn sweep(&self, now: Instant) {
        self.relay.lock().handle_timeout(now);
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, way| now - way.heard < WAY_LIFETIME);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let relay = self.relay.lock();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            reflected: read(&self.counters.reflected),
            relayed: relay.stats().forwarded,
            relayed_bytes: relay.stats().forwarded_bytes,
            relay_dropped: read(&self.counters.relay_dropped),
            unknown: read(&self.counters.unknown),
            send_failed: read(&self.counters.send_failed),
            allocations: relay.len(),
        }
    }

    async fn serve(&self, index: usize) {
        let Some(socket) = self.sockets.get(index) else {
            return;
        };
        let mut buffers = vec![vec![0; BUFFER]; BATCH];
        let mut metas = [RecvMeta::default(); BATCH];
        loop {
            let received = socket.recv(&mut buffers, &mut metas).await;
            let count = match received {
                Ok(count) => count,
                Err(error) => {
                    // Such as an ICMP error of an earlier send, which concerns nobody.
                    tracing::debug!(%error, "cannot receive");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            for (buffer, meta) in buffers.iter_mut().zip(&metas).take(count) {
                let train = buffer.get_mut(..meta.len).unwrap_or_default();
                for datagram in train.chunks_mut(meta.stride.max(1)) {
                    self.handle(index, meta, datagram).await;
                }
            }
        }
    }

    async fn handle(&self, index: usize, meta: &RecvMeta, datagram: &mut [u8]) {
        let now = Instant::now();
        match datagram.first() {
            Some(&KIND_REQUEST) => {
                let answer = {
                    let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
                    limiter.answer(now, meta.addr, datagram)
                };
                if let Ok(answer) = answer {
                    self.counters.reflected.fetch_add(1, Ordering::Relaxed);
                    self.send(index, meta.dst_ip, meta.addr, &answer).await;
                }
            }
            Some(&kind @ (KIND_RELAYED | KIND_BIND)) => {
                let output = {
                    let mut relay = self.relay.lock();
                    relay
                        .handle_datagram(now, &mut OsEntropy, meta.addr, datagram)
                        .map(|output| (output.to, output.bytes))
                };
                match output {
                    Ok((to, bytes)) if kind == KIND_BIND => {
                        // Who is only challenged may be at any number of addresses.
                        if bytes.first() == Some(&KIND_ACK) {
                            self.remember(index, meta, now);
                        }
                        self.send(index, meta.dst_ip, to, bytes).await;
                    }
                    Ok((to, bytes)) => {
                        let (index, local) = self.way_to(to);
                        self.send(index, local, to, bytes).await;
                    }
                    Err(_) => {
                        self.counters.relay_dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            _ => {
                self.counters.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Only after a bind whose MAC was right, so that strangers cannot fill the map.
    fn remember(&self, socket: usize, meta: &RecvMeta, now: Instant) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if ways.len() < MAX_WAYS || ways.contains_key(&meta.addr) {
            let way = Way {
                socket,
                local: meta.dst_ip,
                heard: now,
            };
            ways.insert(meta.addr, way);
        }
    }

    fn way_to(&self, to: SocketAddr) -> (usize, Option<IpAddr>) {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        match ways.get(&to) {
            Some(way) => (way.socket, way.local),
            None => {
                let same_family = |socket: &BoundSocket| socket.is_ipv4 == to.is_ipv4();
                let index = self.sockets.iter().position(same_family);
                (index.unwrap_or(0), None)
            }
        }
    }

    async fn send(&self, index: usize, local: Option<IpAddr>, to: SocketAddr, bytes: &[u8]) {
        let Some(socket) = self.sockets.get(index) else {
            return;
        };
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: local,
        };
        if let Err(error) = socket.send(&transmit).await {
            self.counters.send_failed.fetch_add(1, Ordering::Relaxed);
            tracing::trace!(%to, %error, "cannot send");
        }
    }
}

impl BoundSocket {
    fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        // The kernel gives what it may; less only costs datagrams under load.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self {
            io,
            state,
            is_ipv4: addr.is_ipv4(),
        })
    }

    async fn recv(
        &self,
        buffers: &mut [Vec<u8>],
        metas: &mut [RecvMeta; BATCH],
    ) -> io::Result<usize> {
        self.io
            .async_io(Interest::READABLE, || {
                let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
                self.state.recv((&self.io).into(), &mut slices, metas)
            })
            .await
    }

    async fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let result = self.state.try_send((&self.io).into(), transmit);
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.io
                    .async_io(Interest::WRITABLE, || {
                        self.state.try_send((&self.io).into(), transmit)
                    })
                    .await
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use nat_traversal::reflector::{TransactionId, decode_response, encode_request};

    use super::*;

    #[tokio::test]
    async fn a_wildcard_socket_answers_from_where_it_was_asked() {
        let relay = Arc::new(SharedRelay::new(1));
        let plane = Arc::new(DataPlane::bind(&["0.0.0.0:0".parse().unwrap()], relay).unwrap());
        let port = plane.sockets[0].io.local_addr().unwrap().port();
        plane.start();
        // Two addresses of loopback; only the right one passes a connected socket.
        for asked in ["127.0.0.1", "127.0.0.2"] {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect((asked, port)).await.unwrap();
            let id = TransactionId([9; 12]);
            client.send(&encode_request(id)).await.unwrap();
            let mut answer = [0; 100];
            let received = client.recv(&mut answer);
            let length = tokio::time::timeout(Duration::from_secs(5), received)
                .await
                .unwrap()
                .unwrap();
            let observed = decode_response(&answer[..length]).unwrap();
            assert_eq!(observed, (id, client.local_addr().unwrap()));
        }
        assert_eq!(plane.snapshot().reflected, 2);
    }
}
