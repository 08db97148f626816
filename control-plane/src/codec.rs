//! Requests and responses on a substream of their own: one message, then the end of the stream.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use control_proto::encoding::{decode, encode};
use control_proto::messages::{MAX_MESSAGE, Request, Response};

#[derive(Debug, Clone, Default)]
pub(crate) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response).await
    }
}

async fn read<M: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
    io.take(limit + 1).read_to_end(&mut bytes).await?;
    decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

async fn write<M: Serialize>(io: &mut (impl AsyncWrite + Unpin), message: &M) -> io::Result<()> {
    let bytes = encode(message).ok_or(io::ErrorKind::InvalidInput)?;
    io.write_all(&bytes).await?;
    io.close().await
}
