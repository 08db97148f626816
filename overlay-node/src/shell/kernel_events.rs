//! What the kernel tells whoever listens, by netlink multicast; reading never waits.

use std::io;
use std::mem::size_of;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// The largest event that is looked at; of a longer one the front.
const MAX_EVENT: usize = 8 * 1024;
/// Events read at one look, more than the kernel keeps for us by default.
const EVENTS_A_LOOK: usize = 512;

/// A socket in some multicast groups of one netlink protocol.
#[derive(Debug)]
pub(crate) struct KernelEvents(Socket);

impl KernelEvents {
    /// Listens to `groups`, a bit mask, of `protocol`, a `NETLINK_` number.
    ///
    /// # Errors
    /// The kernel has no such protocol, or does not let us listen.
    pub(crate) fn listen(protocol: libc::c_int, groups: u32) -> io::Result<Self> {
        let protocol = Protocol::from(protocol);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))?;
        socket.set_nonblocking(true)?;
        let mut storage = SockAddrStorage::zeroed();
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0);
        // SAFETY: the storage is larger than any address, zeroed, and made to be seen as each of them.
        let address = unsafe {
            let netlink = storage.view_as::<libc::sockaddr_nl>();
            netlink.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or(0);
            netlink.nl_groups = groups;
            SockAddr::new(storage, len)
        };
        socket.bind(&address)?;
        Ok(Self(socket))
    }

    /// Gives `each` the events that came since the last look. Returns whether others were lost,
    /// because the kernel had no room left for them.
    pub(crate) fn look(&self, mut each: impl FnMut(&[u8])) -> bool {
        let mut lost = false;
        for _ in 0..EVENTS_A_LOOK {
            let mut event = Vec::with_capacity(MAX_EVENT);
            match self.0.recv(event.spare_capacity_mut()) {
                Ok(len) => {
                    // SAFETY: the kernel has written so many bytes to the front of the buffer.
                    unsafe { event.set_len(len.min(MAX_EVENT)) };
                    each(&event);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(_) => break,
            }
        }
        lost
    }
}
