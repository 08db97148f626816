//! Does time go on as it should? (TRUST.md 12)
//!
//! What the clocks say is in [`overlay_proto::tunnels`]. Here are the news that this virtual machine
//! was restored from a snapshot or cloned, which no clock shows at once.
//!
//! The hypervisor changes the machine's generation id; the driver `vmgenid` of newer kernels tells it
//! by an event of the device. The id itself is in no file. Where the hypervisor has no such device
//! nothing comes here, and the clocks tell, later (docs/adr/0015).

use host_services::netlink::KernelEvents;
use overlay_proto::tunnels::ClockWatch;

use crate::state::clock_readings;

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

/// The kernel's events of devices. Those that a host with more of them loses are lost: the clocks tell
/// as well, and a false alarm would cost every session.
#[derive(Debug)]
struct GenerationWatch(Option<KernelEvents>);

impl GenerationWatch {
    /// Listens. Where that is not to be had nothing will ever be heard.
    fn start() -> Self {
        let events = KernelEvents::listen(libc::NETLINK_KOBJECT_UEVENT, KERNEL_GROUP);
        if let Err(error) = &events {
            tracing::debug!(%error, "changes of the machine's generation are not heard");
        }
        Self(events.ok())
    }

    /// Was the machine restored or cloned since the last look?
    fn look(&mut self) -> bool {
        let mut changed = false;
        if let Some(events) = &self.0 {
            events.look(|event| changed |= is_new_generation(event));
        }
        changed
    }
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
