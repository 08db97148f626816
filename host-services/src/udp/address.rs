//! Socket addresses as the kernel writes and reads them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An address of either family.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union RawAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddr {
    /// What the kernel has not filled yet; it is of no family. All its bytes are set.
    pub(super) const NONE: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// The address, and how many bytes of it count.
    #[inline]
    pub(super) fn new(addr: SocketAddr) -> (Self, libc::socklen_t) {
        match addr {
            SocketAddr::V4(addr) => {
                let v4 = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: addr.port().to_be(),
                    sin_addr: raw_ipv4(*addr.ip()),
                    sin_zero: [0; 8],
                };
                (Self { v4 }, len_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(addr) => {
                let v6 = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: raw_ipv6(*addr.ip()),
                    sin6_scope_id: addr.scope_id(),
                };
                (Self { v6 }, len_of::<libc::sockaddr_in6>())
            }
        }
    }

    /// `None` for a family that UDP sockets do not have. The flow label is left out: one peer is one
    /// address, whatever label its kernel picks.
    #[inline]
    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: both variants begin with the family, which the kernel has set, or is 0; all are numbers.
        let given = unsafe { self.v4.sin_family };
        if given == family(libc::AF_INET) {
            // SAFETY: the family says which variant it is.
            let v4 = unsafe { self.v4 };
            let port = u16::from_be(v4.sin_port);
            Some(SocketAddr::new(ipv4(v4.sin_addr).into(), port))
        } else if given == family(libc::AF_INET6) {
            // SAFETY: the family says which variant it is.
            let v6 = unsafe { self.v6 };
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ipv6(v6.sin6_addr), port, 0, v6.sin6_scope_id).into())
        } else {
            None
        }
    }
}

pub(super) const fn ipv4(addr: libc::in_addr) -> Ipv4Addr {
    let [a, b, c, d] = addr.s_addr.to_ne_bytes();
    Ipv4Addr::new(a, b, c, d)
}

pub(super) fn ipv6(addr: libc::in6_addr) -> Ipv6Addr {
    addr.s6_addr.into()
}

pub(super) const fn raw_ipv4(addr: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(addr.octets()),
    }
}

pub(super) const fn raw_ipv6(addr: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr {
        s6_addr: addr.octets(),
    }
}

/// A size as `socklen_t`; the types used here are far below its range.
#[inline]
pub(super) fn len_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

#[inline]
fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_out_and_come_back() {
        for text in [
            "192.0.2.1:22611",
            "0.0.0.0:0",
            "[2001:db8::7]:65535",
            "[fe80::1%3]:9",
        ] {
            let addr: SocketAddr = text.parse().unwrap();
            let (raw, len) = RawAddr::new(addr);
            assert_eq!(raw.get(), Some(addr));
            assert_eq!(len, if addr.is_ipv4() { 16 } else { 28 });
        }
        let labelled = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 0xabcde, 0);
        let plain = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7, 0, 0);
        assert_eq!(RawAddr::new(labelled.into()).0.get(), Some(plain.into()));
        assert_eq!(RawAddr::NONE.get(), None);
    }
}
