//! Datagrams on their way to the sockets: one batch for each family, sealed into their place, behind
//! a relay header where the path has one.

use nat_traversal::path::{Path, SocketId};
use nat_traversal::relay;
use overlay_proto::drop_reason::DropReason;
use tap_bridge::offload::Marks;

use super::punt::Context;
use super::trains::{MAX_SENT, SendBatch};
use super::udp::UdpSockets;

/// The batches of one worker, and the sockets they go to.
#[derive(Debug)]
pub(super) struct Outbox {
    sockets: UdpSockets,
    v4: SendBatch,
    v6: SendBatch,
    /// What is sent next has this TOS or traffic class.
    mark: u8,
    marks: Marks,
}

impl Outbox {
    /// The largest sealed datagram, in bytes: it leaves room for the relay header.
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

    /// What is pushed from now on carries `frame`, or a part of it.
    pub(super) fn carry(&mut self, frame: &[u8]) {
        self.mark = self.marks.outward(frame);
    }

    /// The sockets, to receive from.
    pub(super) const fn sockets(&self) -> &UdpSockets {
        &self.sockets
    }

    /// Lets `seal` write one sealed datagram into its place for `path`; `seal` returns its length.
    /// Sends first what waits when the batch is full.
    ///
    /// # Errors
    /// What `seal` says; `NoPath` when the relay's key is gone.
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

    /// Sends everything.
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
