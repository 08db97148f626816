//! The node's UDP sockets, and batches of datagrams through them.
//!
//! IPv4 and IPv6 have a socket each. The kernel never fragments what goes out: the size of a
//! datagram is the path's proven limit, so `DF` is set and the kernel's own guess of the path MTU,
//! which anyone can spoil with a forged ICMP message, is ignored (`IP_PMTUDISC_PROBE`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nat_traversal::path::SocketId;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::DropCounters;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::sys::{self, BATCH, Received};

/// Bytes the kernel may hold for us in each direction: 20 ms at 1.6 Gbit/s.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// The largest UDP payload that exists; a slot of a receive batch holds it.
const MAX_DATAGRAM: usize = 65_536;

/// The largest datagram of a send batch, relay header included. Path MTUs above Ethernet's come
/// with larger slots.
pub const SEND_SLOT: usize = 2048;

/// How often another port is drawn when the IPv6 socket cannot have the IPv4 socket's.
const PORT_ATTEMPTS: usize = 16;

/// A socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "UDP port {} on {} is in use by another program; stop it (`ss -ulpn` shows it) or choose \
         another port with --listen", .0.port(), .0.ip()
    )]
    Busy(SocketAddr),
    /// The port needs a right.
    #[error("no permission for UDP port {}; choose one above 1023 with --listen", .0.port())]
    NotPermitted(SocketAddr),
    /// The address is not this host's.
    #[error("{} is not an address of this host; choose another with --listen", .0.ip())]
    NotLocal(SocketAddr),
    /// Anything else.
    #[error("cannot open a UDP socket on {0}: {1}")]
    System(SocketAddr, io::Error),
}

/// The node's sockets. A family the host does not have is `None`.
#[derive(Debug, Default)]
pub struct UdpSockets {
    /// The IPv4 socket.
    pub v4: Option<UdpSocket>,
    /// The IPv6 socket.
    pub v6: Option<UdpSocket>,
}

impl UdpSockets {
    /// Both families on all addresses, on the same `port`; 0 draws a free one.
    ///
    /// # Errors
    /// The port is busy in either family, or the host has neither.
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

    /// Exactly these addresses, at most one of each family (the later one wins).
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn bind_to(addrs: &[SocketAddr]) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        for &addr in addrs {
            let place = match addr {
                SocketAddr::V4(_) => &mut sockets.v4,
                SocketAddr::V6(_) => &mut sockets.v6,
            };
            *place = Some(bind(addr)?);
        }
        Ok(sockets)
    }

    /// The socket that `id` names.
    #[must_use]
    pub const fn get(&self, id: SocketId) -> Option<&UdpSocket> {
        match id {
            SocketId::V4 => self.v4.as_ref(),
            SocketId::V6 => self.v6.as_ref(),
        }
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

    /// The same sockets once more, for another thread.
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

/// A host without this family has no socket of it; that is no error.
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
        // IPv6 is compiled in but switched off.
        Err(BindError::NotLocal(SocketAddr::V6(addr))) if addr.ip().is_unspecified() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One socket, exclusive: without reuse, so that a busy port is an error.
fn bind(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let (level, name, probe) = match addr {
            SocketAddr::V4(_) => (
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_PROBE,
            ),
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                (
                    libc::IPPROTO_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_PROBE,
                )
            }
        };
        sys::set_option(&socket, level, name, probe)?;
        grow_buffers(&socket);
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

/// As far as the system allows; with `CAP_NET_ADMIN` beyond its limit for ordinary programs.
fn grow_buffers(socket: &Socket) {
    let bytes = libc::c_int::try_from(SOCKET_BUFFER).unwrap_or(libc::c_int::MAX);
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        let grown = sys::set_option(socket, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| sys::set_option(socket, libc::SOL_SOCKET, plain, bytes));
        if let Err(error) = grown {
            tracing::debug!(%error, fd = socket.as_raw_fd(), "the socket's buffer stays small");
        }
    }
}

/// Up to [`BATCH`] received datagrams in one reused buffer; a slot holds the largest datagram there
/// is, and later a train of merged ones (`UDP_GRO`).
#[derive(Debug)]
pub(super) struct RecvBatch {
    buffer: Box<[u8]>,
    received: [Received; BATCH],
}

impl RecvBatch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * MAX_DATAGRAM].into_boxed_slice(),
            received: [Received {
                len: None,
                from: None,
            }; BATCH],
        }
    }

    /// Receives what is there, without waiting, and hands each datagram to `each` with its sender.
    /// Returns how many there were; what was cut off is counted.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        drops: &DropCounters,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> usize {
        let count =
            match sys::recv_batch(socket, &mut self.buffer, MAX_DATAGRAM, &mut self.received) {
                Ok(count) => count,
                Err(error) => {
                    let quiet = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
                    if !quiet {
                        // An asynchronous error of an earlier datagram; reading has cleared it.
                        drops.count(DropReason::SocketError);
                    }
                    return 0;
                }
            };
        let slots = self.buffer.chunks_exact_mut(MAX_DATAGRAM);
        for (received, slot) in self.received.iter().zip(slots).take(count) {
            let datagram = received.len.and_then(|len| slot.get_mut(..len));
            match (received.from, datagram) {
                (Some(from), Some(datagram)) => each(from, datagram),
                _ => drops.count(DropReason::MalformedDatagram),
            }
        }
        count
    }
}

/// Up to [`BATCH`] datagrams to send in one call, each in its own slot of [`SEND_SLOT`] bytes.
/// Later one slot may hold a train that the kernel cuts (`UDP_SEGMENT`).
#[derive(Debug)]
pub(super) struct SendBatch {
    buffer: Box<[u8]>,
    /// Never longer than [`BATCH`].
    waiting: Vec<(SocketAddr, usize)>,
}

impl SendBatch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * SEND_SLOT].into_boxed_slice(),
            waiting: Vec::with_capacity(BATCH),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH
    }

    /// The next slot; `None` when the batch is full.
    pub(super) fn slot(&mut self) -> Option<&mut [u8]> {
        self.buffer
            .chunks_exact_mut(SEND_SLOT)
            .nth(self.waiting.len())
    }

    /// The first `len` bytes of [`Self::slot`] go to `to`.
    pub(super) fn commit(&mut self, to: SocketAddr, len: usize) {
        if !self.is_full() {
            self.waiting.push((to, len.min(SEND_SLOT)));
        }
    }

    /// Sends all and is empty again. What the kernel does not take is counted, datagram by
    /// datagram: one bad destination never holds up the others.
    pub(super) fn flush(&mut self, socket: Option<&UdpSocket>, drops: &DropCounters) {
        let total = self.waiting.len();
        let Some(socket) = socket else {
            drops.add(DropReason::NoPath, total as u64);
            self.waiting.clear();
            return;
        };
        let mut done = 0;
        while done < total {
            let slots = self.buffer.chunks_exact(SEND_SLOT);
            let datagrams = self.waiting.iter().zip(slots).skip(done);
            let datagrams =
                datagrams.filter_map(|(&(to, len), slot)| slot.get(..len).map(|bytes| (to, bytes)));
            match sys::send_batch(socket, datagrams) {
                Ok(0) => break,
                Ok(sent) => done += sent,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => {
                        drops.add(DropReason::SocketFull, (total - done) as u64);
                        break;
                    }
                    errno => {
                        drops.count(reason_of(errno));
                        done += 1;
                    }
                },
            }
        }
        self.waiting.clear();
    }
}

/// Why a datagram was not sent.
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

    fn local() -> UdpSocket {
        bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn receive_all(socket: &UdpSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut batch = RecvBatch::new();
        let mut got = Vec::new();
        for _ in 0..1_000 {
            let drops = DropCounters::default();
            batch.receive(socket, &drops, |from, bytes| {
                got.push((from, bytes.to_vec()))
            });
            if got.len() >= wanted {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        got
    }

    #[test]
    fn a_full_batch_arrives_with_its_sender_and_in_order() {
        let (a, b) = (local(), local());
        let mut batch = SendBatch::new();
        let to = b.local_addr().unwrap();
        for number in 0..BATCH {
            let slot = batch.slot().unwrap();
            slot[..4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
            batch.commit(to, 4 + number);
        }
        assert!(batch.is_full() && batch.slot().is_none());
        let drops = DropCounters::default();
        batch.flush(Some(&a), &drops);
        let got = receive_all(&b, BATCH);
        assert_eq!(got.len(), BATCH);
        for (number, (from, bytes)) in got.iter().enumerate() {
            assert_eq!(*from, a.local_addr().unwrap());
            assert_eq!(bytes.len(), 4 + number);
            assert_eq!(usize::from(bytes[3]), number);
        }
        assert_eq!(drops.occurred().count(), 0);
    }

    #[test]
    fn one_bad_destination_does_not_hold_up_the_others() {
        let (a, b) = (local(), local());
        let mut batch = SendBatch::new();
        let good = b.local_addr().unwrap();
        // A socket bound to loopback cannot send to port 0.
        for to in [good, "127.0.0.1:0".parse().unwrap(), good] {
            batch.commit(to, 10);
        }
        let drops = DropCounters::default();
        batch.flush(Some(&a), &drops);
        assert_eq!(receive_all(&b, 2).len(), 2);
        assert_eq!(drops.get(DropReason::SocketError), 1);
        batch.commit(good, 10);
        batch.flush(None, &drops);
        assert_eq!(drops.get(DropReason::NoPath), 1);
    }

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
