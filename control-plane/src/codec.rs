//! Requests and responses on a substream of their own.
//!
//! ```text
//! version = 1 (1) | postcard of `Request` or `Response`, then the end of the stream   <= 65,536
//! ```

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::messages::{MAX_MESSAGE, Request, Response};

const VERSION: u8 = 1;

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

fn encode<M: Serialize>(message: &M) -> Option<Vec<u8>> {
    let bytes = postcard::to_extend(message, vec![VERSION]).ok()?;
    (bytes.len() <= MAX_MESSAGE).then_some(bytes)
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    if bytes.len() > MAX_MESSAGE {
        return None;
    }
    let (&VERSION, body) = bytes.split_first()? else {
        return None;
    };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use overlay_proto::ids::PeerId;
    use proptest::prelude::*;

    use super::*;
    use crate::messages::MAX_ENVELOPE;

    #[test]
    fn bounds() {
        let cards = |bytes| Response::Cards(vec![(PeerId([1; 32]), vec![7; bytes])]);
        let fits = encode(&cards(MAX_MESSAGE - 100)).unwrap();
        assert_eq!(decode(&fits), Some(cards(MAX_MESSAGE - 100)));
        assert_eq!(encode(&cards(MAX_MESSAGE)), None);
        assert_eq!(decode::<Response>(&vec![VERSION; MAX_MESSAGE + 1]), None);
        let mut trailing = encode(&Request::Allocate).unwrap();
        trailing.push(0);
        assert_eq!(decode::<Request>(&trailing), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn round_trip(to: [u8; 32], envelope in prop::collection::vec(any::<u8>(), 0..MAX_ENVELOPE)) {
            let request = Request::Forward { to: PeerId(to), envelope };
            prop_assert_eq!(decode(&encode(&request).unwrap()), Some(request));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            bytes[0] = VERSION;
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Response>(&bytes);
        }
    }
}
