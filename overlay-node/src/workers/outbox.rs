//! Sealed datagrams that wait to be sent: one batch for each address family. A datagram is encrypted
//! directly into its place in the batch; if its path leads over a relay, the relay header goes in front
//! of it.

use nat_traversal::path::{Path, SocketId};
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use tap_bridge::offload::Marks;

use super::gso::{MAX_SENT, SendBatch};
use super::punt::Context;
use super::udp::UdpSockets;

/// A worker's batches, and the sockets that they are sent by.
#[derive(Debug)]
pub(super) struct Outbox {
    sockets: UdpSockets,
    v4: SendBatch,
    v6: SendBatch,
    /// The TOS or traffic class of the datagrams that are pushed next.
    mark: u8,
    marks: Marks,
}

impl Outbox {
    /// The largest sealed datagram in bytes. It leaves room for the relay header.
    pub(super) const MAX_SEALED: usize = MAX_SENT - relay::HEADER_LEN;

    pub(super) fn new(sockets: UdpSockets, marks: Marks) -> Self {
        Self {
            sockets,
            v4: SendBatch::new(),
            v6: SendBatch::new(),
            mark: 0,
            marks,
        }
    }

    /// Sets the mark of the datagrams that are pushed from now on: they carry `frame` or a part of it.
    pub(super) fn carry(&mut self, frame: &[u8]) {
        self.mark = self.marks.outward(frame);
    }

    /// The sockets; the worker receives by them, too.
    pub(super) const fn sockets(&self) -> &UdpSockets {
        &self.sockets
    }

    /// Adds one datagram for `path`. `seal` writes it into its place in the batch and returns its
    /// length. A full batch is sent first.
    ///
    /// # Errors
    /// Whatever `seal` returns; `NoPath` if the key of the path's relay is gone.
    pub(super) fn push(
        &mut self,
        path: &Path,
        context: &Context<'_>,
        seal: impl FnOnce(&mut [u8]) -> Result<usize, DropReason>,
    ) -> Result<(), DropReason> {
        let batch = match path.socket {
            SocketId::V4 => &mut self.v4,
            SocketId::V6 => &mut self.v6,
        };
        if batch.is_full() {
            batch.flush(self.sockets.get(path.socket), context.drops, context.now);
        }
        let slot = batch.slot().ok_or(DropReason::SocketFull)?;
        let len = match path.relay {
            None => seal(slot)?,
            Some(route) => {
                let key = context.fib.relay_keys.get(&route.own);
                let key = key.ok_or(DropReason::NoPath)?;
                let place = slot.get_mut(relay::HEADER_LEN..);
                let sealed = seal(place.ok_or(DropReason::FrameTooLarge)?)?;
                let len = relay::HEADER_LEN + sealed;
                let datagram = slot.get_mut(..len).ok_or(DropReason::FrameTooLarge)?;
                relay::wrap_in_place(route, key, datagram).map_err(|_| DropReason::RelayInvalid)?;
                len
            }
        };
        batch.commit((path.remote, self.mark), len);
        Ok(())
    }

    /// Sends both batches.
    pub(super) fn flush(&mut self, context: &Context<'_>) {
        for (batch, socket) in [
            (&mut self.v4, self.sockets.v4.as_ref()),
            (&mut self.v6, self.sockets.v6.as_ref()),
        ] {
            if !batch.is_empty() {
                batch.flush(socket, context.drops, context.now);
            }
        }
    }
}
