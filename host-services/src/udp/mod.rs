//! Datagrams in batches, and in *trains*: datagrams of one size, but the last, which may be shorter, to or
//! from one address with one mark, behind each other in one buffer, which the kernel cuts (`UDP_SEGMENT`) or has
//! merged (`UDP_GRO`).
//!
//! The workers of a node send and receive many trains with a call and never ask for their own address; a
//! relay sends each as soon as it has looked it up, from the address that its receiver knows. So how many go
//! with a call (`N`) and how much room the kernel has for what it says of each (`ROOM`, [`MARKED`] or
//! [`ADDRESSED`]) are constants of a call: a call with few places and little room touches little memory,
//! which is cold after a sleep.
//!
//! What to do when the kernel refuses a train is not here: a worker has a batch of which some left, a
//! relay one train and many destinations.

mod address;
mod control;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use self::address::{RawAddr, len_of};
pub use self::control::{ADDRESSED, MARKED};
use self::control::{Control, SOL_UDP, UDP_GRO};
use crate::socket::set_option;

/// A received train, or a single datagram: its length in its slot, and what the kernel says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the slot; `None` when it did not fit.
    pub len: Option<usize>,
    /// Bytes of each datagram of the train, but the last, which may be shorter; `None` for a single
    /// one.
    pub segment: Option<usize>,
    /// The sender; `None` for a family that UDP sockets do not have.
    pub from: Option<SocketAddr>,
    /// The own address that it was sent to, from a socket that tells ([`tell_own_address`]) with room for it.
    pub local: Option<IpAddr>,
    /// The IP header's TOS or traffic class, from a socket that tells ([`tell_marks`]); the kernel merges no
    /// datagrams in which it differs.
    pub mark: u8,
}

impl Received {
    /// A place that was not filled yet.
    pub const NOTHING: Self = Self {
        len: None,
        segment: None,
        from: None,
        local: None,
        mark: 0,
    };

    /// How many datagrams it is; what did not fit counts as one.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        let segment = self.segment.unwrap_or(usize::MAX).max(1);
        self.len.map_or(1, |len| len.div_ceil(segment).max(1))
    }
}

/// A train or a datagram to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// To whom.
    pub to: SocketAddr,
    /// The own address to send from; `None` leaves it to the kernel, and so does a call without
    /// room for it.
    pub local: Option<IpAddr>,
    /// The IP header's TOS or traffic class.
    pub mark: u8,
    /// Bytes of each datagram of a train, but the last; 0 for a single one.
    pub segment: u16,
    /// One datagram, or the datagrams of a train behind each other.
    pub bytes: &'a [u8],
}

/// Lets the kernel hand over datagrams that it has merged.
///
/// # Errors
/// It cannot (before Linux 5.0): datagrams come one by one.
pub fn accept_trains(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, SOL_UDP, UDP_GRO, 1)
}

/// Lets the kernel say with each what its mark is.
///
/// # Errors
/// The socket is not of this family.
pub fn tell_marks(socket: &impl AsRawFd, is_ipv4: bool) -> io::Result<()> {
    let (level, name) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_RECVTOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
    };
    set_option(socket, level, name, 1)
}

/// Lets the kernel say with each to which address it was sent. It says so first: who then receives with
/// room for marks alone ([`MARKED`]) gets no mark.
///
/// # Errors
/// The socket is not of this family.
pub fn tell_own_address(socket: &impl AsRawFd, is_ipv4: bool) -> io::Result<()> {
    let (level, name) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    };
    set_option(socket, level, name, 1)
}

/// Lets the kernel neither fragment nor guess a path's MTU, which anyone can spoil with a forged ICMP
/// message (`IP_PMTUDISC_PROBE`): what passes is probed.
///
/// # Errors
/// The socket is not of this family.
pub fn never_fragment(socket: &impl AsRawFd, is_ipv4: bool) -> io::Result<()> {
    let (level, name, probe) = if is_ipv4 {
        let probe = libc::IP_PMTUDISC_PROBE;
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe)
    } else {
        let probe = libc::IPV6_PMTUDISC_PROBE;
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)
    };
    set_option(socket, level, name, probe)
}

const NO_SLICE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Receives as many trains or datagrams as there are `slots`, at most `N`, each into a slot of its
/// own, in their order, without waiting. Returns how many of `out` are filled.
///
/// # Errors
/// `WouldBlock` if there is none; or an error of an earlier datagram that was sent, which is cleared by it.
pub fn recv_batch<'a, const N: usize, const ROOM: usize>(
    socket: &UdpSocket,
    slots: impl Iterator<Item = &'a mut [u8]>,
    out: &mut [Received; N],
) -> io::Result<usize> {
    let mut addrs = [RawAddr::NONE; N];
    let mut slices = [NO_SLICE; N];
    let mut controls = [Control::<ROOM>::EMPTY; N];
    // SAFETY: a `mmsghdr` is numbers and pointers; all zero is a message without anything.
    let mut messages: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let parts = messages.iter_mut().zip(&mut slices).zip(&mut addrs);
    for ((((message, slice), addr), control), slot) in parts.zip(&mut controls).zip(slots) {
        message.msg_hdr.msg_control = control.as_mut_ptr();
        message.msg_hdr.msg_controllen = ROOM;
        slice.iov_base = slot.as_mut_ptr().cast();
        slice.iov_len = slot.len();
        message.msg_hdr.msg_iov = slice;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_name = std::ptr::from_mut(addr).cast();
        message.msg_hdr.msg_namelen = len_of::<RawAddr>();
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
            from: addr.get(),
            ..Received::NOTHING
        };
        control::read::<ROOM>(&message.msg_hdr, out);
    }
    Ok(received)
}

/// Sends up to `N` trains or datagrams without waiting. Returns how many the kernel took; an
/// error is that of the first one.
///
/// # Errors
/// `WouldBlock` if the socket is full; `EIO`, `EINVAL` or `EMSGSIZE` where the kernel does not take
/// this as a train; whatever stands in the way of the first one.
pub fn send_batch<'a, const N: usize, const ROOM: usize>(
    socket: &UdpSocket,
    all: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    let mut addrs = [RawAddr::NONE; N];
    let mut slices = [NO_SLICE; N];
    let mut controls = [Control::<ROOM>::EMPTY; N];
    // SAFETY: as in `recv_batch`.
    let mut messages: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    let parts = messages.iter_mut().zip(&mut slices).zip(&mut addrs);
    for ((((message, slice), addr), control), one) in parts.zip(&mut controls).zip(all) {
        fill(&mut message.msg_hdr, (slice, addr, control), &one);
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

/// Sends one train or datagram without waiting, from its own address if it has one: `sendmsg(2)`, which
/// for a single one does less than a batch.
///
/// # Errors
/// As [`send_batch`].
pub fn send(socket: &UdpSocket, one: &Outgoing<'_>) -> io::Result<()> {
    let (mut slice, mut addr, mut control) = (NO_SLICE, RawAddr::NONE, Control::<ADDRESSED>::EMPTY);
    // SAFETY: a `msghdr` is numbers and pointers; all zero is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    fill(&mut message, (&mut slice, &mut addr, &mut control), one);
    // SAFETY: the message points to an address, a slice and control messages that live until after
    // the call; the kernel only reads what the slice points to, which `one` borrows.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes `message` one that sends `one`, by way of places that have to live as long.
#[inline]
fn fill<const ROOM: usize>(
    message: &mut libc::msghdr,
    (slice, addr, control): (&mut libc::iovec, &mut RawAddr, &mut Control<ROOM>),
    one: &Outgoing<'_>,
) {
    let addr_len;
    (*addr, addr_len) = RawAddr::new(one.to);
    slice.iov_base = one.bytes.as_ptr().cast_mut().cast();
    slice.iov_len = one.bytes.len();
    message.msg_iov = slice;
    message.msg_iovlen = 1;
    message.msg_name = std::ptr::from_mut(addr).cast();
    message.msg_namelen = addr_len;
    let used = control.write(one);
    if used > 0 {
        message.msg_control = control.as_mut_ptr();
        message.msg_controllen = used;
    }
}

#[cfg(test)]
mod tests;
