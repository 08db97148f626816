//! The two messages, on a muxer that nobody else drives yet.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use overlay_proto::ids::PeerId;

use super::{AdmissionError, Admitted, Gatekeeper, MAX_HELLO};

/// How long a refused node may take to read why: a lost packet and its retransmission.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Runs the exchange on a fresh connection whose other side holds the key of `peer`.
pub(super) async fn run(
    muxer: &mut StreamMuxerBox,
    gate: &Arc<dyn Gatekeeper>,
    peer: PeerId,
    we_dialed: bool,
) -> Result<Admitted, AdmissionError> {
    if we_dialed {
        let mut stream = open(muxer).await?;
        drive(muxer, write_hello(&mut stream, &gate.own_hello()))
            .await?
            .map_err(lost)?;
        // The listener answers a member, or one who could be; else an early end is its verdict.
        let hello = drive(muxer, read_hello(&mut stream))
            .await
            .map_err(|_| AdmissionError::NotAdmitted)?
            .map_err(|error| match error {
                AdmissionError::Transport(_) => AdmissionError::NotAdmitted,
                other => other,
            })?;
        Ok(gate.admit(peer, &hello, true)?)
    } else {
        let mut stream = accept(muxer).await?;
        let hello = drive(muxer, read_hello(&mut stream)).await??;
        let verdict = gate.admit(peer, &hello, false);
        if let Some(answer) = gate.answer(&verdict) {
            drive(muxer, write_hello(&mut stream, &answer))
                .await?
                .map_err(lost)?;
            if verdict.is_err() {
                // Dropped at once, the connection could end before its last word has arrived.
                let _ = tokio::time::timeout(LAST_WORD, ended(muxer)).await;
            }
        }
        Ok(verdict?)
    }
}

/// The other side has read all that there was, and hung up.
async fn ended(muxer: &mut StreamMuxerBox) {
    poll_fn(|cx| match muxer.poll_unpin(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(()),
        Poll::Ready(Ok(_)) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Pending,
    })
    .await;
}

async fn open(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, AdmissionError> {
    poll_fn(|cx| {
        if let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx) {
            return Poll::Ready(stream);
        }
        match muxer.poll_unpin(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    })
    .await
    .map_err(lost)
}

async fn accept(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, AdmissionError> {
    poll_fn(|cx| match muxer.poll_unpin(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // An event is an address change, which concerns nobody here; come back for the stream.
        Poll::Ready(Ok(_)) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => muxer.poll_inbound_unpin(cx),
    })
    .await
    .map_err(lost)
}

/// Lets `work` on a substream proceed while the muxer carries its bytes.
async fn drive<W: Future>(
    muxer: &mut StreamMuxerBox,
    work: W,
) -> Result<W::Output, AdmissionError> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match muxer.poll_unpin(cx) {
            // The bytes that came before the end may have finished the work.
            Poll::Ready(Err(error)) => match work.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending => Poll::Ready(Err(lost(error))),
            },
            Poll::Ready(Ok(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn write_hello(stream: &mut SubstreamBox, hello: &[u8]) -> io::Result<()> {
    let length = u16::try_from(hello.len())
        .ok()
        .filter(|_| hello.len() <= MAX_HELLO)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(hello);
    stream.write_all(&message).await?;
    // Half-closed: dropping it later is then no reset that could overtake the bytes.
    stream.close().await
}

async fn read_hello(stream: &mut SubstreamBox) -> Result<Vec<u8>, AdmissionError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.map_err(lost)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_HELLO {
        return Err(AdmissionError::TooLong);
    }
    let mut hello = vec![0; length];
    stream.read_exact(&mut hello).await.map_err(lost)?;
    Ok(hello)
}

#[allow(clippy::needless_pass_by_value)] // Stands in `map_err`.
fn lost(error: io::Error) -> AdmissionError {
    AdmissionError::Transport(error.to_string())
}
