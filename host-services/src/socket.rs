//! Socket options that `socket2` lacks.

use std::io;
use std::os::fd::AsRawFd;

/// Sets an option whose value is an `int`. An option of another kind is refused by the kernel, or read as the
/// number that it begins with.
///
/// # Errors
/// The kernel does not know the option, or refuses.
pub fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let value = (&raw const value).cast();
    // SAFETY: the pointer is to a live int and the length is that of an int.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for `bytes` of buffer in both directions: as far as the system allows, with `CAP_NET_ADMIN` beyond
/// its limit for ordinary programs. A small buffer is no error, it drops sooner.
pub fn grow_buffers(socket: &impl AsRawFd, bytes: usize) {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        let grown = set_option(socket, libc::SOL_SOCKET, force, bytes)
            .or_else(|_| set_option(socket, libc::SOL_SOCKET, plain, bytes));
        if let Err(error) = grown {
            tracing::debug!(%error, fd = socket.as_raw_fd(), "the socket's buffer stays small");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn options_are_set_and_unknown_ones_refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_option(&socket, libc::IPPROTO_IP, libc::IP_TTL, 7).unwrap();
        assert_eq!(socket.ttl().unwrap(), 7);
        let unknown = set_option(&socket, libc::IPPROTO_IP, 9_999, 1).unwrap_err();
        assert_eq!(unknown.raw_os_error(), Some(libc::ENOPROTOOPT));
    }

    #[test]
    fn buffers_grow_as_far_as_they_may() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = SockRef::from(&socket).recv_buffer_size().unwrap();
        // The kernel doubles what it is asked for.
        grow_buffers(&socket, before);
        assert!(SockRef::from(&socket).recv_buffer_size().unwrap() > before);
    }
}
