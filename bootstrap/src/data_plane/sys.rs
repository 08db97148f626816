//! The only `unsafe` of this program: batched socket calls with their control messages, `ppoll(2)`
//! and socket options.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// `SOL_UDP`, and its options `UDP_SEGMENT` and `UDP_GRO` (linux/udp.h).
const SOL_UDP: libc::c_int = libc::IPPROTO_UDP;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Bytes of control messages: the own address, the mark and the size of the datagrams take less
/// than 96.
const CONTROL_LEN: usize = 128;

/// Trains that one call receives.
pub(super) const BATCH: usize = 16;

/// A socket address as the kernel writes and reads it.
#[repr(C)]
#[derive(Clone, Copy)]
union RawAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for control messages, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

/// What is known of a received train, or of a single datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Bytes in the buffer; `None` when they did not fit.
    pub(super) len: Option<usize>,
    /// Bytes of each datagram of a train but the last; `None` for a single one.
    pub(super) segment: Option<usize>,
    pub(super) from: Option<SocketAddr>,
    /// The own address that it was sent to.
    pub(super) local: Option<IpAddr>,
    /// TOS or traffic class.
    pub(super) mark: u8,
}

impl Received {
    pub(super) const NOTHING: Self = Self {
        len: None,
        segment: None,
        from: None,
        local: None,
        mark: 0,
    };
}

/// What [`send`] sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) to: SocketAddr,
    /// The own address to send from; `None` leaves it to the kernel.
    pub(super) local: Option<IpAddr>,
    /// TOS or traffic class.
    pub(super) mark: u8,
    /// Bytes of each datagram of a train but the last; 0 for a single one.
    pub(super) segment: u16,
    pub(super) bytes: &'a [u8],
}

/// Lets the kernel merge datagrams into trains and say with each where it was sent to and its mark;
/// lets it neither fragment nor guess a path's MTU: members probe what passes.
pub(super) fn prepare(socket: &UdpSocket, is_ipv4: bool) -> io::Result<()> {
    set_option(socket, SOL_UDP, UDP_GRO, 1)?;
    let options = if is_ipv4 {
        let level = libc::IPPROTO_IP;
        [
            (level, libc::IP_PKTINFO, 1),
            (level, libc::IP_RECVTOS, 1),
            (level, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        ]
    } else {
        let level = libc::IPPROTO_IPV6;
        [
            (level, libc::IPV6_RECVPKTINFO, 1),
            (level, libc::IPV6_RECVTCLASS, 1),
            (level, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        ]
    };
    for (level, name, value) in options {
        set_option(socket, level, name, value)?;
    }
    Ok(())
}

/// Asks for `bytes` of buffer in both directions: as far as the system allows, with `CAP_NET_ADMIN`
/// beyond its limit for ordinary programs.
pub(super) fn grow_buffers(socket: &UdpSocket, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        let grown = set_option(socket, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| set_option(socket, libc::SOL_SOCKET, plain, bytes));
        if let Err(error) = grown {
            tracing::debug!(%error, "the socket's buffer stays small");
        }
    }
}

/// Receives as many trains or datagrams as there are, at most [`BATCH`], each into a buffer of its
/// own, without waiting. Returns how many of `out` are filled.
pub(super) fn recv_batch(
    socket: &UdpSocket,
    buffers: &mut [Box<[u8]>],
    out: &mut [Received; BATCH],
) -> io::Result<usize> {
    let mut addrs = [RawAddr { v6: no_addr() }; BATCH];
    let mut slices = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let mut controls = [Control([0; CONTROL_LEN]); BATCH];
    // SAFETY: a `mmsghdr` is numbers and pointers; all zero is a message without anything.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let parts = messages.iter_mut().zip(&mut slices).zip(&mut addrs);
    for ((((message, slice), addr), control), buffer) in parts.zip(&mut controls).zip(buffers) {
        slice.iov_base = buffer.as_mut_ptr().cast();
        slice.iov_len = buffer.len();
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = CONTROL_LEN;
        message.msg_hdr.msg_iov = slice;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_name = std::ptr::from_mut(addr).cast();
        message.msg_hdr.msg_namelen = len_of::<RawAddr>();
        count += 1;
    }
    // SAFETY: the first `count` messages point to slices, addresses and control buffers that live
    // until after the call, each slice to its own exclusively borrowed buffer with its true length;
    // no timeout.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let Ok(received) = usize::try_from(received) else {
        return Err(io::Error::last_os_error());
    };
    for ((message, addr), out) in messages.iter().zip(&addrs).take(received).zip(out) {
        let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        *out = Received {
            len: usize::try_from(message.msg_len).ok().filter(|_| whole),
            from: addr_from_raw(addr),
            ..Received::NOTHING
        };
        read_controls(&message.msg_hdr, out);
    }
    Ok(received)
}

/// Takes what the control messages of a received message say.
fn read_controls(message: &libc::msghdr, out: &mut Received) {
    // SAFETY: the kernel has filled the message and its control buffer, which both live; the first
    // control message, if there is one, lies whole within the buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: as above, for each that `CMSG_NXTHDR` finds.
    while let Some(control) = unsafe { next.as_ref() } {
        let int = || read_data::<libc::c_int>(control);
        match (control.cmsg_level, control.cmsg_type) {
            (SOL_UDP, UDP_GRO) => {
                let size = int().and_then(|size| usize::try_from(size).ok());
                out.segment = size.filter(|size| *size > 0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                out.mark = read_data::<u8>(control).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                out.mark = int().and_then(|mark| u8::try_from(mark).ok()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = read_data::<libc::in_pktinfo>(control);
                out.local = info.map(|info| ipv4(info.ipi_addr).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = read_data::<libc::in6_pktinfo>(control);
                out.local = info.map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
        // SAFETY: `message` is the one that `control` came from.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
}

/// The data of a control message, if it has so much.
fn read_data<T: Copy>(control: &libc::cmsghdr) -> Option<T> {
    let size = u32::try_from(size_of::<T>()).ok()?;
    // SAFETY: the macro of the C library computes with the number alone.
    let needed = unsafe { libc::CMSG_LEN(size) } as usize;
    if control.cmsg_len < needed {
        return None;
    }
    // SAFETY: the message says that it has as much data, and lies whole within its buffer. It need
    // not be aligned; `T` is one of the C library's plain structures of numbers.
    Some(unsafe { libc::CMSG_DATA(control).cast::<T>().read_unaligned() })
}

/// Sends one train or datagram without waiting.
pub(super) fn send(socket: &UdpSocket, one: &Outgoing<'_>) -> io::Result<()> {
    let (mut addr, addr_len) = addr_to_raw(one.to);
    let mut control = Control([0; CONTROL_LEN]);
    let used = write_controls(&mut control, one);
    let mut slice = libc::iovec {
        iov_base: one.bytes.as_ptr().cast_mut().cast(),
        iov_len: one.bytes.len(),
    };
    // SAFETY: as in `recv_batch`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = std::ptr::from_mut(&mut addr).cast();
    message.msg_namelen = addr_len;
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    if used > 0 {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = used;
    }
    // SAFETY: the message points to an address, a slice and control messages that live until after
    // the call; the kernel only reads what the slice points to, which `one` borrows.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes the control messages for `one` behind each other; returns their length.
fn write_controls(control: &mut Control, one: &Outgoing<'_>) -> usize {
    let mut used = 0;
    if one.segment > 0 {
        used = append(control, used, (SOL_UDP, UDP_SEGMENT), one.segment);
    }
    if one.mark > 0 {
        let name = match one.to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = append(control, used, name, libc::c_int::from(one.mark));
    }
    match (one.to, one.local) {
        (SocketAddr::V4(_), Some(IpAddr::V4(local))) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(local.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            append(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
        }
        (SocketAddr::V6(_), Some(IpAddr::V6(local))) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: local.octets(),
                },
                ipi6_ifindex: 0,
            };
            append(
                control,
                used,
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
                info,
            )
        }
        _ => used,
    }
}

/// Writes one control message at `used`, if it fits; returns where the next one goes.
fn append<T: Copy>(
    control: &mut Control,
    used: usize,
    (level, kind): (libc::c_int, libc::c_int),
    data: T,
) -> usize {
    let size = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    // SAFETY: the macros of the C library compute with the number alone.
    let (len, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size) as usize) };
    let Some(place) = control.0.get_mut(used..used + space) else {
        return used;
    };
    let header = place.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: `place` is as long as a header and the data with their padding. It is aligned as the
    // buffer is, since each message takes a multiple of that; the data need not be.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = len as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    used + space
}

/// What to wait for on `fd`: something to read.
pub(super) const fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// Waits until one of `waits` is readable (or broken), at most `timeout`. A signal counts as a
/// wake-up.
pub(super) fn poll(waits: &mut [libc::pollfd], timeout: Option<Duration>) {
    let count = libc::nfds_t::try_from(waits.len()).unwrap_or(0);
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the pointer and the count describe one exclusively borrowed slice; the timeout, if
    // there is one, lives until after the call; the signal mask stays.
    unsafe { libc::ppoll(waits.as_mut_ptr(), count, timeout, std::ptr::null()) };
}

fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a live int and the length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            len_of::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const fn no_addr() -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: 0,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    }
}

/// A size as `socklen_t`; the types used here are far below its range.
fn len_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

const fn ipv4(addr: libc::in_addr) -> Ipv4Addr {
    let [a, b, c, d] = addr.s_addr.to_ne_bytes();
    Ipv4Addr::new(a, b, c, d)
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}

fn addr_to_raw(addr: SocketAddr) -> (RawAddr, libc::socklen_t) {
    match addr {
        SocketAddr::V4(addr) => {
            let v4 = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(addr.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            (RawAddr { v4 }, len_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(addr) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            };
            (RawAddr { v6 }, len_of::<libc::sockaddr_in6>())
        }
    }
}

fn addr_from_raw(raw: &RawAddr) -> Option<SocketAddr> {
    // SAFETY: both variants begin with the family, which the kernel has set, or is 0; all are numbers.
    let given = unsafe { raw.v4.sin_family };
    if given == family(libc::AF_INET) {
        // SAFETY: the family says which variant it is.
        let v4 = unsafe { raw.v4 };
        let port = u16::from_be(v4.sin_port);
        Some(SocketAddr::new(ipv4(v4.sin_addr).into(), port))
    } else if given == family(libc::AF_INET6) {
        // SAFETY: the family says which variant it is.
        let v6 = unsafe { raw.v6 };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        let port = u16::from_be(v6.sin6_port);
        Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
    } else {
        None
    }
}
