//! The only `unsafe` of the data path: batched socket calls, `poll(2)`, `eventfd(2)`, options, the
//! scheduler's slice.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `SOL_UDP`, and its options `UDP_SEGMENT` and `UDP_GRO` (linux/udp.h).
const SOL_UDP: libc::c_int = libc::IPPROTO_UDP;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// A socket address as the kernel writes and reads it.
#[repr(C)]
#[derive(Clone, Copy)]
union RawAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for two control messages with an `int`, the size of a train's datagrams and the mark, aligned
/// as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

// SAFETY: the macro of the C library computes with the number alone.
const CONTROL_ONE: usize = unsafe { libc::CMSG_SPACE(4) } as usize;
const CONTROL_LEN: usize = 2 * CONTROL_ONE;

/// One received train, or a single datagram: its length in its slot and where it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Bytes in the slot; `None` when it did not fit.
    pub(super) len: Option<usize>,
    /// Bytes of each datagram of the train, but the last, which may be shorter; `None` for a single
    /// one.
    pub(super) segment: Option<usize>,
    /// The sender; `None` for a family that UDP sockets do not have.
    pub(super) from: Option<SocketAddr>,
    /// The IP header's TOS or traffic class; the kernel merges no datagrams in which it differs.
    pub(super) mark: u8,
}

impl Received {
    /// A place that was not filled yet.
    pub(super) const NOTHING: Self = Self {
        len: None,
        segment: None,
        from: None,
        mark: 0,
    };

    /// How many datagrams it is; what did not fit counts as one.
    pub(super) fn datagrams(&self) -> usize {
        let segment = self.segment.unwrap_or(usize::MAX).max(1);
        self.len.map_or(1, |len| len.div_ceil(segment).max(1))
    }
}

/// What one message of [`send_batch`] sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// To whom.
    pub(super) to: SocketAddr,
    /// One datagram, or the datagrams of a train behind each other.
    pub(super) bytes: &'a [u8],
    /// Bytes of each datagram of a train, but the last; 0 for a single one.
    pub(super) segment: u16,
    /// The IP header's TOS or traffic class.
    pub(super) mark: u8,
}

/// Lets the kernel hand over datagrams that it has merged (`UDP_GRO`).
pub(super) fn accept_trains(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, SOL_UDP, UDP_GRO, 1)
}

/// Receives as many trains or datagrams as there are `slots`, at most `N`, each into a slot of its
/// own, in their order, without waiting. Returns how many of `out` are filled.
pub(super) fn recv_batch<'a, const N: usize>(
    socket: &UdpSocket,
    slots: impl Iterator<Item = &'a mut [u8]>,
    out: &mut [Received; N],
) -> io::Result<usize> {
    let mut addrs = [RawAddr { v6: no_addr() }; N];
    let mut slices = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; N];
    let mut controls = [Control([0; CONTROL_LEN]); N];
    // SAFETY: a `mmsghdr` is numbers and pointers; all zero is a message without anything.
    let mut messages: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let parts = messages.iter_mut().zip(&mut slices).zip(&mut addrs);
    for ((((message, slice), addr), control), chunk) in parts.zip(&mut controls).zip(slots) {
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = CONTROL_LEN;
        slice.iov_base = chunk.as_mut_ptr().cast();
        slice.iov_len = chunk.len();
        message.msg_hdr.msg_iov = slice;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_name = std::ptr::from_mut(addr).cast();
        message.msg_hdr.msg_namelen = size_of_addr::<RawAddr>();
        count += 1;
    }
    // SAFETY: the first `count` messages point to slices, addresses and control buffers that live
    // until after the call, each slice to its own exclusively borrowed slot with its true length;
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
    let filled = messages.iter().zip(&addrs).take(received);
    for ((message, addr), out) in filled.zip(out.iter_mut()) {
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
        // SAFETY: the data of these is an int, but for `IP_TOS`, which is a byte: the buffer has room
        // for an int behind each header, and was filled with zeros. It need not be aligned.
        let value = || unsafe {
            libc::CMSG_DATA(control)
                .cast::<libc::c_int>()
                .read_unaligned()
        };
        match (control.cmsg_level, control.cmsg_type) {
            (SOL_UDP, UDP_GRO) => {
                let size = usize::try_from(value());
                out.segment = size.ok().filter(|size| *size > 0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // The first byte of a byte, the lowest of an int.
                out.mark = if control.cmsg_level == libc::IPPROTO_IP {
                    value().to_ne_bytes()[0]
                } else {
                    u8::try_from(value()).unwrap_or(0)
                };
            }
            _ => {}
        }
        // SAFETY: `message` is the one that `control` came from.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
}

/// Sends up to `N` trains or datagrams without waiting. Returns how many the kernel took; an
/// error is that of the first one.
pub(super) fn send_batch<'a, const N: usize>(
    socket: &UdpSocket,
    all: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut addrs = [RawAddr { v6: no_addr() }; N];
    let mut slices = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; N];
    let mut controls = [Control([0; CONTROL_LEN]); N];
    // SAFETY: as in `recv_batch`.
    let mut messages: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let parts = messages.iter_mut().zip(&mut slices).zip(&mut addrs);
    for ((((message, slice), addr), control), one) in parts.zip(&mut controls).zip(all) {
        let addr_len;
        (*addr, addr_len) = addr_to_raw(one.to);
        slice.iov_base = one.bytes.as_ptr().cast_mut().cast();
        slice.iov_len = one.bytes.len();
        message.msg_hdr.msg_iov = slice;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_name = std::ptr::from_mut(addr).cast();
        message.msg_hdr.msg_namelen = addr_len;
        let used = write_controls(control, &one);
        if used > 0 {
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = used;
        }
        count += 1;
    }
    // SAFETY: the first `count` messages point to slices, addresses and control buffers that live
    // until after the call; the kernel only reads what the slices point to, which `all` borrows.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes the control messages that `one` needs behind each other; returns their length.
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
    used
}

/// Writes one control message of at most an int at `used`; returns where the next one goes.
fn append<T: Copy>(
    control: &mut Control,
    used: usize,
    (level, kind): (libc::c_int, libc::c_int),
    data: T,
) -> usize {
    const { assert!(size_of::<T>() <= 4) };
    let Some(place) = control.0.get_mut(used..used + CONTROL_ONE) else {
        return used;
    };
    let header = place.as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: `place` has room for a header and an int, so for `T`; it is aligned as the buffer is,
    // since each place is a multiple of that; the data need not be.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    used + CONTROL_ONE
}

/// Waits until one of `waits` is readable (or broken), at most `timeout_ms`, -1 for ever. A signal
/// counts as a wake-up.
pub(super) fn poll(waits: &mut [libc::pollfd], timeout_ms: libc::c_int) {
    let count = libc::nfds_t::try_from(waits.len()).unwrap_or(0);
    // SAFETY: the pointer and the count describe one exclusively borrowed slice.
    unsafe { libc::poll(waits.as_mut_ptr(), count, timeout_ms) };
}

/// Has [`poll`] found anything to read, or an error, which reading tells?
pub(super) const fn is_readable(wait: &libc::pollfd) -> bool {
    wait.revents != 0
}

/// What to wait for on `fd`: something to read.
pub(super) const fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// A counter that `poll(2)` can wait on: 8 bytes written add, 8 bytes read take.
pub(super) fn eventfd() -> io::Result<File> {
    // SAFETY: takes two numbers; the result is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and is owned by nobody else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The calling thread's attributes as `sched_setattr(2)` has them, version 0.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks the scheduler for turns of `slice_ns` for the calling thread: in exchange for shorter ones
/// it gets the core earlier after it has woken up. Its share, policy and nice value stay. No
/// privilege is needed; from Linux 6.12 on it has effect, before that it is taken and means nothing.
/// A thread with a real-time policy has no slice and stays as it is.
///
/// # Errors
/// The system call is refused, as a sandbox may do.
pub(super) fn ask_for_slice(slice_ns: u64) -> io::Result<()> {
    const SIZE: u32 = 48;
    const _: () = assert!(size_of::<SchedAttr>() == SIZE as usize);
    let mut attr = SchedAttr::default();
    // SAFETY: thread 0 is the calling one; the kernel writes at most SIZE bytes, which is the size
    // of the structure it gets.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, SIZE, 0) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    let policy = libc::c_int::try_from(attr.policy).unwrap_or(-1);
    if !matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return Ok(());
    }
    attr.size = SIZE;
    attr.runtime = slice_ns;
    // SAFETY: thread 0 is the calling one; the kernel reads the bytes that `size` says, all of them
    // of the structure.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One instruction of a classic BPF program.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Instruction(libc::sock_filter);

impl Instruction {
    /// `code` is made of the `BPF_` numbers, which all are below 256.
    pub(super) fn new(code: u32, k: u32) -> Self {
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        let (jt, jf) = (0, 0);
        Self(libc::sock_filter { code, jt, jf, k })
    }

    /// How many instructions are skipped if the comparison holds, and if it does not.
    pub(super) const fn jumps(mut self, holds: u8, else_: u8) -> Self {
        (self.0.jt, self.0.jf) = (holds, else_);
        self
    }

    #[cfg(test)]
    pub(super) const fn parts(self) -> libc::sock_filter {
        self.0
    }
}

/// Lets `program` choose among the sockets of one port, to which `socket` belongs
/// (`SO_ATTACH_REUSEPORT_CBPF`). It sees UDP payloads.
pub(super) fn steer(socket: &impl AsRawFd, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the pointer is to a live `sock_fprog` of that length, which points to as many
    // instructions as it says; `Instruction` is a `sock_filter`. The kernel copies and only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_addr::<libc::sock_fprog>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an option whose value is an `int`.
pub(super) fn set_option(
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
            size_of_addr::<libc::c_int>(),
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
fn size_of_addr<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
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
            (RawAddr { v4 }, size_of_addr::<libc::sockaddr_in>())
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
            (RawAddr { v6 }, size_of_addr::<libc::sockaddr_in6>())
        }
    }
}

/// The flow label is left out: one peer is one address, whatever label its kernel picks.
fn addr_from_raw(addr: &RawAddr) -> Option<SocketAddr> {
    // SAFETY: every union here began as a whole `sockaddr_in6`, so all its bytes are initialized,
    // and both members consist of numbers for which any bytes are valid; the family comes first in
    // both.
    let (v4, v6) = unsafe { (addr.v4, addr.v6) };
    if v4.sin_family == family(libc::AF_INET) {
        let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
        Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
    } else if v6.sin6_family == family(libc::AF_INET6) {
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        let port = u16::from_be(v6.sin6_port);
        Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
    } else {
        None
    }
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}
