//! The two reflector messages.
//!
//! ```text
//! 0      1          4                      16                             36
//! | 0x05 | 0  0  0  | transaction id (12)  | zeros                        |   request
//! | 0x06 | 0  0  0  | transaction id (12)  | address (20), see below      |   response
//! ```
//! The address is encoded as `4 or 6 | 0 | port u16 | 16 bytes`; port and bytes are XORed with the
//! transaction id, over and over, because some NATs rewrite addresses they recognise in payloads
//! (RFC 8489 section 14.2).

use std::net::SocketAddr;

use super::ReflectorError;
use crate::wire_bytes::{ADDR_LEN, array, decode_addr, encode_addr, put};

/// First byte of a request.
pub const KIND_REQUEST: u8 = 0x05;
/// First byte of a response.
pub const KIND_RESPONSE: u8 = 0x06;
/// Bytes of a request and of a response.
pub const MESSAGE_LEN: usize = 36;

/// Ties an answer to its question: 96 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

/// The request with `id`.
#[must_use]
pub fn encode_request(id: TransactionId) -> [u8; MESSAGE_LEN] {
    let mut bytes = [0; MESSAGE_LEN];
    put(&mut bytes, 0, &[KIND_REQUEST]);
    put(&mut bytes, 4, &id.0);
    bytes
}

/// The id of a request.
///
/// # Errors
///
/// [`ReflectorError::Malformed`] for anything that [`encode_request`] does not make.
pub fn decode_request(bytes: &[u8]) -> Result<TransactionId, ReflectorError> {
    let (id, rest) = split(bytes, KIND_REQUEST)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(ReflectorError::Malformed);
    }
    Ok(id)
}

/// The answer to request `id`, which came from `observed`.
#[must_use]
pub fn encode_response(id: TransactionId, observed: SocketAddr) -> [u8; MESSAGE_LEN] {
    let mut bytes = [0; MESSAGE_LEN];
    put(&mut bytes, 0, &[KIND_RESPONSE]);
    put(&mut bytes, 4, &id.0);
    put(&mut bytes, 16, &mask(encode_addr(observed), id));
    bytes
}

/// The id of an answer and the address it carries.
///
/// # Errors
///
/// [`ReflectorError::Malformed`] for anything that [`encode_response`] does not make.
pub fn decode_response(bytes: &[u8]) -> Result<(TransactionId, SocketAddr), ReflectorError> {
    let (id, masked) = split(bytes, KIND_RESPONSE)?;
    let addr = decode_addr(&mask(masked, id)).ok_or(ReflectorError::Malformed)?;
    Ok((id, addr))
}

fn split(bytes: &[u8], kind: u8) -> Result<(TransactionId, [u8; ADDR_LEN]), ReflectorError> {
    let bytes: &[u8; MESSAGE_LEN] = bytes.try_into().map_err(|_| ReflectorError::Malformed)?;
    if array(bytes, 0) != Some([kind, 0, 0, 0]) {
        return Err(ReflectorError::Malformed);
    }
    match (array(bytes, 4), array(bytes, 16)) {
        (Some(id), Some(rest)) => Ok((TransactionId(id), rest)),
        _ => Err(ReflectorError::Malformed),
    }
}

/// XORs port and address, its own inverse.
fn mask(mut addr: [u8; ADDR_LEN], id: TransactionId) -> [u8; ADDR_LEN] {
    for (byte, key) in addr.iter_mut().skip(2).zip(id.0.iter().cycle()) {
        *byte ^= key;
    }
    addr
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire_bytes::canonical;

    #[test]
    fn known_answer() {
        let id = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let bytes = encode_response(id, "192.0.2.1:22611".parse().unwrap());
        let port = 22611u16.to_be_bytes();
        assert_eq!(bytes[..4], [0x06, 0, 0, 0]);
        assert_eq!(bytes[16..20], [4, 0, port[0] ^ 1, port[1] ^ 2]);
        assert_eq!(bytes[20..24], [192 ^ 3, 4, 2 ^ 5, 1 ^ 6]);
    }

    proptest! {
        #[test]
        fn round_trip(id in any::<[u8; 12]>(), addr in any::<SocketAddr>()) {
            let id = TransactionId(id);
            prop_assert_eq!(decode_request(&encode_request(id)), Ok(id));
            let response = encode_response(id, addr);
            prop_assert_eq!(decode_response(&response), Ok((id, canonical(addr))));
            prop_assert!(decode_request(&response).is_err());
            prop_assert!(decode_response(&encode_request(id)).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_request(&bytes);
            let _ = decode_response(&bytes);
        }
    }
}
