//! The sockets of the data plane, and how trains leave by them.
//!
//! The kernel cuts a train as late as it can (`UDP_SEGMENT`). Where it refuses, because the device
//! has no checksum offload or the way is smaller than a datagram, the datagrams go out one by one,
//! and for that destination trains rest for a while: each refused one costs a call.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use host_services::socket::grow_buffers;
use host_services::udp::{self, Outgoing};
use nat_traversal::relay::RelayRun;
use socket2::{Domain, Socket, Type};

/// Socket buffers in each direction: 60 ms at 1 Gbit/s.
const SOCKET_BUFFER: usize = 7 * 1024 * 1024;

/// How long no train goes to a destination for which one was refused.
const PLAIN_FOR: Duration = Duration::from_secs(60);

/// Destinations for which trains rest. When there are more, the oldest are tried again.
const MAX_PLAIN: usize = 1_024;

/// By which socket and from which own address something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) socket: usize,
    pub(super) local: Option<IpAddr>,
}

/// All sockets.
pub(super) struct Sockets {
    all: Vec<BoundSocket>,
    /// Until when no trains go there. Bounded by [`MAX_PLAIN`], emptied by [`Sockets::sweep`].
    plain: HashMap<SocketAddr, Instant>,
    /// May a train's datagrams all be of one size?
    equal_trains: bool,
    /// Datagrams that the kernel did not take.
    pub(super) failed: u64,
}

struct BoundSocket {
    io: UdpSocket,
    is_ipv4: bool,
}

impl Sockets {
    pub(super) fn bind(addrs: &[SocketAddr]) -> Result<Self> {
        let all = addrs
            .iter()
            .map(|addr| {
                BoundSocket::bind(*addr).with_context(|| match addr.port() {
                    0..1024 => format!("cannot bind UDP {addr} (ports below 1024 need rights)"),
                    _ => format!("cannot bind UDP {addr}; choose another port with --listen"),
                })
            })
            .collect::<Result<_>>()?;
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let equal_trains = !mangles_equal_trains(&release);
        if !equal_trains {
            tracing::info!(
                "this kernel mangles some trains of equal datagrams: they go out singly"
            );
        }
        Ok(Self {
            all,
            plain: HashMap::new(),
            equal_trains,
            failed: 0,
        })
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.all.iter().map(|socket| socket.io.as_raw_fd())
    }

    pub(super) fn get(&self, index: usize) -> Option<&UdpSocket> {
        self.all.get(index).map(|socket| &socket.io)
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self, index: usize) -> Option<SocketAddr> {
        self.get(index)?.local_addr().ok()
    }

    /// The first socket that reaches the family of `to`.
    pub(super) fn any_for(&self, to: SocketAddr) -> Exit {
        let same_family = |socket: &BoundSocket| socket.is_ipv4 == to.is_ipv4();
        Exit {
            socket: self.all.iter().position(same_family).unwrap_or(0),
            local: None,
        }
    }

    /// Sends one datagram.
    pub(super) fn send(&mut self, exit: Exit, to: SocketAddr, mark: u8, bytes: &[u8]) {
        let Some(socket) = self.all.get(exit.socket) else {
            return;
        };
        let one = Outgoing {
            to,
            local: exit.local,
            mark,
            segment: 0,
            bytes,
        };
        if let Err(error) = retried(&socket.io, &one) {
            self.failed += 1;
            tracing::trace!(%to, %error, "cannot send");
        }
    }

    /// Sends a run, as one train where that is possible.
    pub(super) fn send_run(&mut self, now: Instant, exit: Exit, run: RelayRun<'_>) {
        if self.sent_whole(now, exit, run) {
            return;
        }
        for datagram in run.bytes.chunks(run.segment.max(1)) {
            self.send(exit, run.to, run.mark, datagram);
        }
    }

    /// Has the run, or what of it the kernel lost, left as one? If not, its datagrams have to.
    fn sent_whole(&mut self, now: Instant, exit: Exit, run: RelayRun<'_>) -> bool {
        let Ok(segment) = u16::try_from(run.segment) else {
            return false;
        };
        let single = run.bytes.len() <= run.segment;
        let equal = run.bytes.len().is_multiple_of(run.segment.max(1));
        if single || (equal && !self.equal_trains) || self.is_plain(now, run.to) {
            return false;
        }
        let Some(socket) = self.all.get(exit.socket) else {
            return true;
        };
        let train = Outgoing {
            to: run.to,
            local: exit.local,
            mark: run.mark,
            segment,
            bytes: run.bytes,
        };
        let Err(error) = retried(&socket.io, &train) else {
            return true;
        };
        if matches!(
            error.raw_os_error(),
            Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
        ) {
            tracing::debug!(to = %run.to, %error, "no trains to there for a while");
            self.note_plain(now, run.to);
            return false;
        }
        self.failed += run.bytes.len().div_ceil(run.segment) as u64;
        tracing::trace!(to = %run.to, %error, "cannot send");
        true
    }

    fn is_plain(&self, now: Instant, to: SocketAddr) -> bool {
        !self.plain.is_empty() && self.plain.get(&to).is_some_and(|until| *until > now)
    }

    fn note_plain(&mut self, now: Instant, to: SocketAddr) {
        if self.plain.len() >= MAX_PLAIN {
            self.plain.clear();
        }
        self.plain.insert(to, now + PLAIN_FOR);
    }

    /// Removes what lapsed.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.plain.retain(|_, until| *until > now);
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
        let io = UdpSocket::from(socket);
        prepare(&io, addr.is_ipv4())?;
        grow_buffers(&io, SOCKET_BUFFER);
        Ok(Self {
            io,
            is_ipv4: addr.is_ipv4(),
        })
    }
}

/// Lets the kernel merge datagrams into trains and say with each where it was sent to and its mark;
/// members probe what passes.
pub(super) fn prepare(socket: &UdpSocket, is_ipv4: bool) -> io::Result<()> {
    udp::accept_trains(socket)?;
    udp::tell_own_address(socket, is_ipv4)?;
    udp::tell_marks(socket, is_ipv4)?;
    udp::never_fragment(socket, is_ipv4)
}

/// Once more after a signal, and after the error of an earlier datagram, which the first call took
/// away. A full socket drops: what waits here would come too late.
fn retried(socket: &UdpSocket, one: &Outgoing<'_>) -> io::Result<()> {
    match udp::send(socket, one) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNREFUSED)) => {
            udp::send(socket, one)
        }
        result => result,
    }
}

/// Linux 7.0 corrupts trains whose datagrams are all of one size on some network cards; 7.1 does
/// not. It cannot be seen from here, so the version decides.
fn mangles_equal_trains(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    (numbers.next(), numbers.next()) == (Some("7"), Some("0"))
}

#[cfg(test)]
mod tests {
    use host_services::poll::{Wait, poll};

    use super::*;

    fn receive(socket: &UdpSocket, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut buffer = [0; 2_000];
        let mut one = || {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            (buffer[..len].to_vec(), from)
        };
        (0..count).map(|_| one()).collect()
    }

    fn run(to: SocketAddr, bytes: &[u8]) -> RelayRun<'_> {
        RelayRun {
            to,
            segment: 100,
            mark: 0,
            bytes,
        }
    }

    #[test]
    fn a_run_arrives_as_its_datagrams_with_or_without_trains() {
        let mut sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        let exit = sockets.any_for(to);
        let bytes: Vec<u8> = (0..250_u8).collect();
        let now = Instant::now();
        for equal_trains in [true, false] {
            sockets.equal_trains = equal_trains;
            for bytes in [&bytes[..], &bytes[..200], &bytes[..60]] {
                sockets.send_run(now, exit, run(to, bytes));
                let expected: Vec<_> = bytes.chunks(100).map(<[u8]>::to_vec).collect();
                let got = receive(&receiver, expected.len());
                let got: Vec<_> = got.into_iter().map(|(bytes, _)| bytes).collect();
                assert_eq!(got, expected);
            }
        }
        sockets.note_plain(now, to);
        assert!(!sockets.sent_whole(now, exit, run(to, &bytes)));
        assert!(sockets.sent_whole(now + PLAIN_FOR, exit, run(to, &bytes)));
        sockets.sweep(now + PLAIN_FOR);
        assert_eq!((sockets.plain.len(), sockets.failed), (0, 0));
    }

    /// A train of datagrams that are larger than the way is refused as a whole.
    #[test]
    fn a_refused_train_is_remembered_for_its_destination_only() {
        let mut sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let [here, there] = ["127.0.0.1:9", "127.0.0.2:9"].map(|to| to.parse().unwrap());
        let exit = sockets.any_for(here);
        let now = Instant::now();
        // More datagrams than one train may have.
        let many = vec![7; 6_000];
        let too_many = RelayRun {
            segment: 1,
            ..run(here, &many)
        };
        assert!(!sockets.sent_whole(now, exit, too_many));
        assert!(sockets.is_plain(now, here));
        assert!(!sockets.is_plain(now, there));
        for n in 0..2 * MAX_PLAIN {
            let port = u16::try_from(n).unwrap();
            sockets.note_plain(now, ([192, 0, 2, 1], port).into());
        }
        assert!(sockets.plain.len() <= MAX_PLAIN);
    }

    #[test]
    fn marks_and_own_addresses_go_out_and_are_seen() {
        for addr in ["127.0.0.3:0", "[::1]:0"] {
            let mut sender = Sockets::bind(&[addr.parse().unwrap()]).unwrap();
            let receiver = Sockets::bind(&[addr.parse().unwrap()]).unwrap();
            let to = receiver.local_addr(0).unwrap();
            let exit = Exit {
                socket: 0,
                local: Some(to.ip()),
            };
            sender.send(exit, to, 0xb9, b"marked");
            let mut metas = [udp::Received::NOTHING];
            poll(
                &mut [Wait::readable(receiver.fds().next().unwrap())],
                Some(Duration::from_secs(5)),
            );
            let socket = receiver.get(0).unwrap();
            let mut buffer = [0; 100];
            let slots = std::iter::once(buffer.as_mut_slice());
            let count = udp::recv_batch::<1, { udp::ADDRESSED }>(socket, slots, &mut metas);
            assert_eq!(count.unwrap(), 1);
            assert_eq!((metas[0].mark, metas[0].local), (0xb9, Some(to.ip())));
            assert_eq!(metas[0].from, sender.local_addr(0));
            assert_eq!((metas[0].len, metas[0].segment), (Some(6), None));
        }
    }

    #[test]
    fn only_linux_7_0_mangles_equal_trains() {
        for (release, mangles) in [
            ("7.0.4-generic", true),
            ("7.0", true),
            ("7.0-rc3", true),
            ("7.1.0", false),
            ("6.18.3", false),
            ("17.0", false),
            ("", false),
        ] {
            assert_eq!(mangles_equal_trains(release), mangles, "{release}");
        }
    }
}
