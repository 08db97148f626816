//! The control messages of a datagram or train: the size of its datagrams, its mark, its own address.

use std::net::{IpAddr, SocketAddr};

use super::address::{ipv4, ipv6, raw_ipv4, raw_ipv6};
use super::{Outgoing, Received};

/// `SOL_UDP`, and its options `UDP_SEGMENT` and `UDP_GRO` (linux/udp.h).
pub(super) const SOL_UDP: libc::c_int = libc::IPPROTO_UDP;
const UDP_SEGMENT: libc::c_int = 103;
pub(super) const UDP_GRO: libc::c_int = 104;

/// Room, in bytes, for the size of a train's datagrams and the mark: two control messages with an `int`.
pub const MARKED: usize = 2 * space::<libc::c_int>();

/// Room for the own address as well; that of IPv6 is the larger one.
pub const ADDRESSED: usize = MARKED + space::<libc::in6_pktinfo>();

/// Room for control messages, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control<const ROOM: usize>([u8; ROOM]);

impl<const ROOM: usize> Control<ROOM> {
    pub(super) const EMPTY: Self = Self([0; ROOM]);

    pub(super) const fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }

    /// Writes the control messages that `one` needs behind each other; returns their length. An own address
    /// for which there is no room is left to the kernel.
    #[inline]
    pub(super) fn write(&mut self, one: &Outgoing<'_>) -> usize {
        let mut used = 0;
        if one.segment > 0 {
            used = self.append(used, (SOL_UDP, UDP_SEGMENT), one.segment);
        }
        if one.mark > 0 {
            let name = match one.to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            used = self.append(used, name, libc::c_int::from(one.mark));
        }
        // Known when it is compiled: who has no room does not even look.
        if ROOM < ADDRESSED {
            return used;
        }
        match (one.to, one.local) {
            (SocketAddr::V4(_), Some(IpAddr::V4(local))) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: raw_ipv4(local),
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.append(used, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
            }
            (SocketAddr::V6(_), Some(IpAddr::V6(local))) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: raw_ipv6(local),
                    ipi6_ifindex: 0,
                };
                self.append(used, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
            }
            _ => used,
        }
    }

    /// Writes one control message at `used`, if it fits; returns where the next one goes.
    #[inline]
    fn append<T: Copy>(
        &mut self,
        used: usize,
        (level, kind): (libc::c_int, libc::c_int),
        data: T,
    ) -> usize {
        let Some(place) = self.0.get_mut(used..used + space::<T>()) else {
            return used;
        };
        let header = place.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: `place` is as long as a header and the data with their padding. It is aligned as the
        // buffer is, since each message takes a multiple of that; the data need not be.
        unsafe {
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = len::<T>();
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
        }
        used + space::<T>()
    }
}

/// Takes what the control messages of a message that was received with `ROOM` for them say.
#[inline]
pub(super) fn read<const ROOM: usize>(message: &libc::msghdr, out: &mut Received) {
    // SAFETY: the kernel has filled the message and its control buffer, which both live; the first
    // control message, if there is one, lies whole within the buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: as above, for each that `CMSG_NXTHDR` finds.
    while let Some(control) = unsafe { next.as_ref() } {
        match (control.cmsg_level, control.cmsg_type) {
            (SOL_UDP, UDP_GRO) => {
                let size = data::<libc::c_int>(control).and_then(|size| usize::try_from(size).ok());
                out.segment = size.filter(|size| *size > 0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                out.mark = data::<u8>(control).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                let mark = data::<libc::c_int>(control).and_then(|mark| u8::try_from(mark).ok());
                out.mark = mark.unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if ROOM >= ADDRESSED => {
                let info = data::<libc::in_pktinfo>(control);
                out.local = info.map(|info| ipv4(info.ipi_addr).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if ROOM >= ADDRESSED => {
                let info = data::<libc::in6_pktinfo>(control);
                out.local = info.map(|info| ipv6(info.ipi6_addr).into());
            }
            _ => {}
        }
        // SAFETY: `message` is the one that `control` came from.
        next = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
}

/// The data of a control message, if it has so much.
#[inline]
fn data<T: Copy>(control: &libc::cmsghdr) -> Option<T> {
    if control.cmsg_len < len::<T>() {
        return None;
    }
    // SAFETY: the message says that it has as much data, and lies whole within its buffer. It need
    // not be aligned; `T` is a number, or one of the C library's plain structures of numbers.
    Some(unsafe { libc::CMSG_DATA(control).cast::<T>().read_unaligned() })
}

/// Bytes of a control message with a `T`.
const fn len<T>() -> usize {
    // SAFETY: the macro of the C library computes with the number alone.
    unsafe { libc::CMSG_LEN(size_of::<T>() as u32) as usize }
}

/// With the padding up to the next one.
const fn space<T>() -> usize {
    // SAFETY: as in `len`.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}
