//! The two messages, and the revocation lists that one side lacks, on a muxer that nobody else drives
//! yet.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use control_proto::admission::hello::{Hello, MAX_HELLO};
use control_proto::admission::meeting::{lists_follow, lists_of, take_lists};
use control_proto::admission::{Admitted, Gatekeeper};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use overlay_proto::ids::PeerId;
use overlay_proto::membership::{MAX_LISTS, SignedRevocations};

use super::pending::HelloNote;
use super::{AdmissionError, wall};

/// How long a refused node may take to read why: a lost packet and its retransmission.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Runs the exchange on a fresh connection whose other side holds the key of `peer`. `hello` of a
/// listener notes that the other side has said its hello; without it we have dialled.
pub(super) async fn run(
    muxer: &mut StreamMuxerBox,
    gate: &Arc<dyn Gatekeeper>,
    peer: PeerId,
    hello: Option<&HelloNote>,
) -> Result<Admitted, AdmissionError> {
    match hello {
        None => dial(muxer, gate, peer).await,
        Some(hello) => listen(muxer, gate, peer, hello).await,
    }
}

async fn dial(
    muxer: &mut StreamMuxerBox,
    gate: &Arc<dyn Gatekeeper>,
    peer: PeerId,
) -> Result<Admitted, AdmissionError> {
    let own = gate.own_hello();
    let mut stream = open(muxer).await?;
    drive(muxer, write_hello(&mut stream, &own))
        .await?
        .map_err(lost)?;
    let mut answer = read_answer(muxer, &mut stream).await?;
    if let Ok(Hello::Pull) = Hello::decode(&answer) {
        drive(muxer, write_lists(&mut stream, &lists_of(&**gate)))
            .await?
            .map_err(lost)?;
        answer = read_answer(muxer, &mut stream).await?;
    }
    if lists_follow(&answer, &own) {
        let lists = drive(muxer, read_lists(&mut stream)).await??;
        take_lists(&**gate, &lists);
    }
    // The other side has all of ours; it may have hung up.
    let _ = drive(muxer, stream.close()).await;
    Ok(gate.admit(peer, &answer, true, wall())?)
}

async fn listen(
    muxer: &mut StreamMuxerBox,
    gate: &Arc<dyn Gatekeeper>,
    peer: PeerId,
    note: &HelloNote,
) -> Result<Admitted, AdmissionError> {
    let mut stream = accept(muxer).await?;
    let hello = drive(muxer, read_hello(&mut stream)).await??;
    note.said();
    if gate.wants_lists(peer, &hello, wall()) {
        drive(muxer, write_hello(&mut stream, &Hello::Pull.encode()))
            .await?
            .map_err(lost)?;
        let lists = drive(muxer, read_lists(&mut stream)).await??;
        take_lists(&**gate, &lists);
    }
    let verdict = gate.admit(peer, &hello, false, wall());
    if let Some(answer) = gate.answer(&verdict) {
        let lists = lists_follow(&answer, &hello).then(|| lists_of(&**gate));
        let write = async {
            write_hello(&mut stream, &answer).await?;
            if let Some(lists) = &lists {
                write_lists(&mut stream, lists).await?;
            }
            // Half-closed: dropping it later is then no reset that could overtake the bytes.
            stream.close().await
        };
        drive(muxer, write).await?.map_err(lost)?;
        if verdict.is_err() {
            // Dropped at once, the connection could end before its last word has arrived.
            let _ = tokio::time::timeout(LAST_WORD, ended(muxer)).await;
        }
    }
    Ok(verdict?)
}

/// The listener answers a member, or one who could be; else an early end is its verdict.
async fn read_answer(
    muxer: &mut StreamMuxerBox,
    stream: &mut SubstreamBox,
) -> Result<Vec<u8>, AdmissionError> {
    drive(muxer, read_hello(stream))
        .await
        .map_err(|_| AdmissionError::NotAdmitted)?
        .map_err(|error| match error {
            AdmissionError::Transport(_) => AdmissionError::NotAdmitted,
            other => other,
        })
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
    stream.flush().await
}

async fn write_lists(stream: &mut SubstreamBox, all: &[Vec<u8>]) -> io::Result<()> {
    let mut message = vec![u8::try_from(all.len()).unwrap_or(u8::MAX)];
    for list in all {
        message.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes());
        message.extend(list);
    }
    stream.write_all(&message).await?;
    stream.flush().await
}

/// At most [`MAX_LISTS`] of [`SignedRevocations::MAX_BYTES`], not verified yet.
async fn read_lists(stream: &mut SubstreamBox) -> Result<Vec<Vec<u8>>, AdmissionError> {
    let mut count = [0; 1];
    stream.read_exact(&mut count).await.map_err(lost)?;
    let [count] = count.map(usize::from);
    if count > MAX_LISTS {
        return Err(AdmissionError::Lists);
    }
    let mut lists = Vec::with_capacity(count);
    for _ in 0..count {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.map_err(lost)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > SignedRevocations::MAX_BYTES {
            return Err(AdmissionError::Lists);
        }
        let mut list = vec![0; length];
        stream.read_exact(&mut list).await.map_err(lost)?;
        lists.push(list);
    }
    Ok(lists)
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
