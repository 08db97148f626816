//! How the slow path sends a datagram of its own, or writes a frame into a tap.

use std::collections::HashMap;
use std::net::SocketAddr;

use nat_traversal::path::{AllocationId, Path};
use nat_traversal::relay::{self, RelayKey};
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

    /// Where the workers' sockets are bound.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.local_addrs()
    }

    /// Sends one datagram along `path`; a relayed one is wrapped with the key of our own
    /// allocation.
    ///
    /// # Errors
    /// `NoPath` without a socket or key for it, `RelayInvalid` for what must not be relayed,
    /// `SocketFull`, `DatagramTooLarge`, `SocketError`. The caller counts it.
    pub fn send(
        &self,
        path: &Path,
        bytes: &[u8],
        relay_keys: &HashMap<AllocationId, RelayKey>,
    ) -> Result<(), DropReason> {
        let Some(route) = path.relay else {
            return self.send_to(path.remote, bytes);
        };
        let key = relay_keys.get(&route.own).ok_or(DropReason::NoPath)?;
        let mut wrapped = vec![0; relay::HEADER_LEN + bytes.len()];
        relay::wrap(route, key, bytes, &mut wrapped).map_err(|_| DropReason::RelayInvalid)?;
        self.send_to(path.remote, &wrapped)
    }

    /// Sends one datagram as it is: reflector requests, relay control.
    ///
    /// # Errors
    /// As [`Self::send`].
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
