//! How the slow path itself sends a datagram, or writes a frame to a tap.

use std::net::SocketAddr;

use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::NetIndex;
use tap_bridge::TxFrame;

use super::pool::TapSet;
use super::udp::{UdpSockets, reason_of};

/// Sends single datagrams by the workers' sockets, without blocking. It holds clones of their
/// descriptors, so the source port is the same.
#[derive(Debug)]
pub struct SlowSender(UdpSockets);

impl SlowSender {
    /// Through `sockets`, which come from [`UdpSockets::try_clone`].
    #[must_use]
    pub const fn new(sockets: UdpSockets) -> Self {
        Self(sockets)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `NoPath` if there is no socket for this address family, or `SocketFull`, `DatagramTooLarge`,
    /// `SocketError`. The caller counts it.
    pub fn send_to(&self, remote: SocketAddr, bytes: &[u8]) -> Result<(), DropReason> {
        let path = Path::direct(remote);
        let socket = self.0.get(path.socket).ok_or(DropReason::NoPath)?;
        match socket.send_to(bytes, remote) {
            Ok(_) => Ok(()),
            Err(error) => Err(reason_of(error.raw_os_error())),
        }
    }
}

/// Writes single frames to the taps: frames that waited for a MAC look-up, and announcements.
pub struct TapWriter(TapSet);

impl TapWriter {
    /// Writes to `taps`, each a clone of a worker's queue. It must not be an additional queue: the
    /// kernel would put frames into it that nobody reads.
    #[must_use]
    pub const fn new(taps: TapSet) -> Self {
        Self(taps)
    }

    /// Writes one frame to the tap of `net`.
    ///
    /// # Errors
    /// `TapFull`; `TapError` if the network has no tap on this host or the kernel refuses the frame. The
    /// caller counts it.
    pub fn write(&mut self, net: NetIndex, frame: &[u8]) -> Result<(), DropReason> {
        let queue = self.0.iter_mut().find(|(of, _)| *of == net);
        let (_, queue) = queue.ok_or(DropReason::TapError)?;
        // The kernel must not learn the flow's queue from this write: the flow may belong to another
        // worker.
        let report = queue.write_unlearnt(&[TxFrame::plain(frame)]);
        if report.written == 1 {
            Ok(())
        } else if report.full == 1 {
            Err(DropReason::TapFull)
        } else {
            Err(DropReason::TapError)
        }
    }
}
