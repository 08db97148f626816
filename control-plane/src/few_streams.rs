//! A multiplexer that opens few streams at once.
//!
//! Yamux gives every stream a window of 256 KiB, which the other side may fill without anybody reading it,
//! and it ends a connection on which there are more streams than it allows. So it allows few, and whoever
//! opens them waits here for its turn instead of running into the end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

/// Streams on one connection, of both sides together: 16 of 256 KiB are 4 MiB.
pub(crate) const MAX_STREAMS: usize = 16;

/// Streams that one side opens at once. Those of both leave room for some that one side has closed and
/// the other has not yet.
const MAX_OPENED: usize = 6;

const _: () = assert!(2 * MAX_OPENED < MAX_STREAMS);

/// How many streams of ours are open.
#[derive(Debug, Default)]
struct Slots {
    open: usize,
    /// Of these, dropped here; the multiplexer forgets them when it is polled next.
    dropped: usize,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Slots>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `M` with at most [`MAX_OPENED`] streams of our own.
#[derive(Debug)]
pub(crate) struct FewStreams<M> {
    inner: M,
    slots: Shared,
}

impl<M> FewStreams<M> {
    pub(crate) fn new(inner: M) -> Self {
        Self {
            inner,
            slots: Shared::default(),
        }
    }
}

impl<M> StreamMuxer for FewStreams<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Held<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let polled = Pin::new(&mut self.inner).poll_inbound(cx);
        polled.map_ok(|stream| Held { stream, slot: None })
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        {
            let mut slots = self.slots.lock();
            if slots.open >= MAX_OPENED {
                slots.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let stream = std::task::ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        self.slots.lock().open += 1;
        let slot = Some(Slot(self.slots.clone()));
        Poll::Ready(Ok(Held { stream, slot }))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let dropped = self.slots.lock().dropped;
        let polled = Pin::new(&mut self.inner).poll(cx);
        if dropped > 0 {
            let mut slots = self.slots.lock();
            slots.open = slots.open.saturating_sub(dropped);
            slots.dropped = slots.dropped.saturating_sub(dropped);
            if let Some(waker) = slots.waker.take() {
                waker.wake();
            }
        }
        polled
    }
}

/// The place of a stream of ours.
#[derive(Debug)]
struct Slot(Shared);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = self.0.lock();
        slots.dropped += 1;
        if let Some(waker) = &slots.waker {
            waker.wake_by_ref();
        }
    }
}

/// A stream, and its place if it is ours.
#[derive(Debug)]
pub(crate) struct Held<S> {
    stream: S,
    #[allow(dead_code)] // Given back when it is dropped.
    slot: Option<Slot>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
