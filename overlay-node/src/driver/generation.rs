//! Does time go on as it should? (trust.md 12)
//!
//! What the clocks say is in [`overlay_proto::tunnels`]. Here are the news that this virtual machine
//! was restored from a snapshot or cloned, which no clock shows at once.
//!
//! The hypervisor changes the machine's generation id; the driver `vmgenid` of newer kernels tells it
//! by an event of the device. The id itself is in no file. Where the hypervisor has no such device
//! nothing comes here, and the clocks tell, later (docs/adr/0015).

use std::io;
use std::mem::size_of;

use overlay_proto::tunnels::ClockWatch;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::state::clock_readings;

/// The largest event that the kernel makes.
const MAX_EVENT: usize = 8 * 1024;
/// Events read at one look, more than the kernel keeps for us by default. Those that a host with more
/// of them loses are lost: the clocks tell as well, and a false alarm would cost every session.
const EVENTS_A_LOOK: usize = 512;
/// The multicast group in which the kernel itself speaks; udev's is another.
const KERNEL_GROUP: u32 = 1;

/// The clocks, and the machine's generation.
#[derive(Debug)]
pub(crate) struct TimeWatch {
    clocks: ClockWatch,
    generation: GenerationWatch,
}

impl TimeWatch {
    /// From now on.
    pub(crate) fn start() -> Self {
        Self {
            clocks: ClockWatch::new(clock_readings()),
            generation: GenerationWatch::start(),
        }
    }

    /// Why no session may go on, if so.
    pub(crate) fn look(&mut self) -> Option<&'static str> {
        if self.generation.look() {
            return Some("this virtual machine was restored or cloned");
        }
        self.clocks.look(clock_readings()).map(|jump| jump.text())
    }
}

/// The kernel's events of devices; reading never waits.
#[derive(Debug)]
struct GenerationWatch(Option<Socket>);

impl GenerationWatch {
    /// Listens. Where that is not to be had nothing will ever be heard.
    fn start() -> Self {
        let socket = open();
        if let Err(error) = &socket {
            tracing::debug!(%error, "changes of the machine's generation are not heard");
        }
        Self(socket.ok())
    }

    /// Was the machine restored or cloned since the last look?
    fn look(&mut self) -> bool {
        let Some(socket) = &self.0 else { return false };
        let mut changed = false;
        for _ in 0..EVENTS_A_LOOK {
            let mut event = Vec::with_capacity(MAX_EVENT);
            match socket.recv(event.spare_capacity_mut()) {
                Ok(len) => {
                    // SAFETY: the kernel has written so many bytes to the front of the buffer.
                    unsafe { event.set_len(len.min(MAX_EVENT)) };
                    changed |= is_new_generation(&event);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => break,
            }
        }
        changed
    }
}

fn open() -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_KOBJECT_UEVENT);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let mut storage = SockAddrStorage::zeroed();
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0);
    // SAFETY: the storage is larger than any address, zeroed, and made to be seen as each of them.
    let address = unsafe {
        let netlink = storage.view_as::<libc::sockaddr_nl>();
        netlink.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or(0);
        netlink.nl_groups = KERNEL_GROUP;
        SockAddr::new(storage, len)
    };
    socket.bind(&address)?;
    Ok(socket)
}

/// An event is a line that says what happened to which device, then `KEY=VALUE`, each ended by a
/// zero.
fn is_new_generation(event: &[u8]) -> bool {
    let mut fields = event.split(|byte| *byte == 0);
    let change = fields
        .next()
        .is_some_and(|line| line.starts_with(b"change@"));
    change && fields.any(|field| field == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_12_a_new_generation_of_the_machine_is_known_by_its_event() {
        let event = b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0\
            DEVPATH=/devices/platform/VMGENCTR:00\0SUBSYSTEM=platform\0NEW_VMGENID=1\0SEQNUM=9\0";
        assert!(is_new_generation(event));
        for other in [
            &b""[..],
            b"change@/devices/x\0ACTION=change\0SEQNUM=9\0",
            b"add@/devices/x\0NEW_VMGENID=1\0",
            b"change@/devices/x\0SYNTH_ARG_NEW_VMGENID=1\0",
            b"change@/devices/x\0NEW_VMGENID=10\0",
            b"NEW_VMGENID=1\0",
        ] {
            assert!(!is_new_generation(other));
        }
    }

    #[test]
    fn a_look_never_waits() {
        let mut watch = GenerationWatch::start();
        let start = std::time::Instant::now();
        watch.look();
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
        assert!(!GenerationWatch(None).look());
    }
}
