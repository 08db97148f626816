//! The bytes of requests and responses.
//!
//! ```text
//! version = 1 (1) | postcard of `Request` or `Response`, then the end of the stream   <= 65,536
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::messages::MAX_MESSAGE;

const VERSION: u8 = 1;

/// The bytes of a request or a response; `None` when they are more than [`MAX_MESSAGE`].
pub fn encode<M: Serialize>(message: &M) -> Option<Vec<u8>> {
    let bytes = postcard::to_extend(message, vec![VERSION]).ok()?;
    (bytes.len() <= MAX_MESSAGE).then_some(bytes)
}

/// The reverse of [`encode`]; `None` for anything else, such as trailing bytes.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
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
    use crate::messages::{MAX_ENVELOPE, Request, Response};

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
