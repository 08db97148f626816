//! What the kernel tells whoever listens, by netlink multicast.

use std::io::{self, Read};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// The largest event that is looked at; of a longer one the front.
const MAX_EVENT: usize = 8 * 1024;
/// Events read at one look, more than the kernel keeps for us by default.
const EVENTS_A_LOOK: usize = 512;

/// A socket, non-blocking, in the multicast groups `groups`, a bit mask, of `protocol`, a `NETLINK_` number.
/// Without groups it is for questions.
///
/// # Errors
/// The kernel has no such protocol, or does not let us listen.
pub fn socket(protocol: libc::c_int, groups: u32) -> io::Result<Socket> {
    let protocol = Protocol::from(protocol);
    // Netlink has one kind of socket, whatever it is called.
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
    Ok(socket)
}

/// The news of some multicast groups; reading never waits.
#[derive(Debug)]
pub struct KernelEvents(Socket);

impl KernelEvents {
    /// Listens, as [`socket`] says.
    ///
    /// # Errors
    /// The kernel has no such protocol, or does not let us listen.
    pub fn listen(protocol: libc::c_int, groups: u32) -> io::Result<Self> {
        socket(protocol, groups).map(Self)
    }

    /// Gives `each` the events that came since the last look. Returns whether others were lost,
    /// because the kernel had no room left for them.
    pub fn look(&self, mut each: impl FnMut(&[u8])) -> bool {
        let mut lost = false;
        let mut event = [0; MAX_EVENT];
        for _ in 0..EVENTS_A_LOOK {
            match (&self.0).read(&mut event) {
                Ok(len) => each(event.get(..len).unwrap_or_default()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(_) => break,
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::poll::{Wait, poll};

    #[test]
    fn a_look_never_waits() {
        let events = KernelEvents::listen(libc::NETLINK_ROUTE, 1).unwrap();
        let lost = events.look(|_| {});
        assert!(!lost);
    }

    /// `RTM_GETLINK` for all links: the loopback interface at least is told, and the end of the list.
    #[test]
    fn a_question_is_answered() {
        let events = KernelEvents::listen(libc::NETLINK_ROUTE, 0).unwrap();
        let mut question = Vec::new();
        question.extend(32_u32.to_ne_bytes());
        question.extend(libc::RTM_GETLINK.to_ne_bytes());
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap();
        question.extend(flags.to_ne_bytes());
        question.resize(32, 0);
        (&events.0).write_all(&question).unwrap();
        let (mut kinds, done) = (Vec::new(), u16::try_from(libc::NLMSG_DONE).unwrap());
        while !kinds.contains(&done) {
            poll(
                &mut [Wait::readable(events.0.as_raw_fd())],
                Some(Duration::from_secs(5)),
            );
            let known = kinds.len();
            events.look(|mut event| {
                // Several messages in one, each of a multiple of four bytes.
                while let [a, b, c, d, e, f, ..] = *event {
                    kinds.push(u16::from_ne_bytes([e, f]));
                    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
                    let next = length.next_multiple_of(4).min(event.len());
                    event = &event[next..];
                }
            });
            assert!(kinds.len() > known, "no answer, after {kinds:?}");
        }
        assert_eq!(kinds[0], libc::RTM_NEWLINK);
    }
}
