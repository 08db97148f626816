//! How the slow path sends a datagram of its own, or writes a frame into a tap.

use std::net::SocketAddr;

use nat_traversal::path::Path;
use overlay_proto::drop_reason::DropReason;
use overlay_proto::switching::NetIndex;
use tap_bridge::TxFrame;

use super::pool::TapSet;
use super::udp::{UdpSockets, reason_of};

/// Sends single datagrams through the workers' sockets, without waiting. Clones of the descriptors:
/// the source port is the workers'.
#[derive(Debug)]
pub struct SlowSender(UdpSockets);

impl SlowSender {
    /// Through `sockets`, which come from [`UdpSockets::try_clone`].
    #[must_use]
    pub const fn new(sockets: UdpSockets) -> Self {
        Self(sockets)
    }

    /// Sends one datagram as it is.
    ///
    /// # Errors
    /// `NoPath` without a socket for it, `SocketFull`, `DatagramTooLarge`, `SocketError`. The caller counts it.
    pub fn send_to(&self, remote: SocketAddr, bytes: &[u8]) -> Result<(), DropReason> {
        let path = Path::direct(remote);
        let socket = self.0.get(path.socket).ok_or(DropReason::NoPath)?;
        match socket.send_to(bytes, remote) {
            Ok(_) => Ok(()),
            Err(error) => Err(reason_of(error.raw_os_error())),
        }
    }
}

/// Writes single frames into the taps: those that waited for a look-up, announcements.
pub struct TapWriter(TapSet);

impl TapWriter {
    /// Into `taps`, each a clone of a worker's queue. Never a queue of its own: the kernel would
    /// send it frames that nobody reads.
    #[must_use]
    pub const fn new(taps: TapSet) -> Self {
        Self(taps)
    }

    /// Writes one frame into the tap of `net`.
    ///
    /// # Errors
    /// `TapFull`; `TapError` when the network has no tap here or the kernel refuses. The caller
    /// counts it.
    pub fn write(&mut self, net: NetIndex, frame: &[u8]) -> Result<(), DropReason> {
        let queue = self.0.iter_mut().find(|(of, _)| *of == net);
        let (_, queue) = queue.ok_or(DropReason::TapError)?;
        // The worker that the flow belongs to is not the one whose queue this is.
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
