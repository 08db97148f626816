//! The content of an admission message.
//!
//! ```text
//! length (2, big-endian) | version = 1 (1) | postcard of `Hello`        length <= 4,096
//! ```
//! After a `Pull`, and after a hello whose sender holds newer revocation lists than the other side
//! has said, these follow: `count (1) | count times: length (4, big-endian) | list`.

use std::net::SocketAddr;

use overlay_proto::ids::OverlayId;
use overlay_proto::membership::{ListState, SignedPart, WitnessRefusal};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// The largest hello in bytes, without its length prefix.
pub const MAX_HELLO: usize = 4096;

/// Data-plane addresses that a bootstrap may name.
pub const MAX_DATA_ADDRS: usize = 8;

const VERSION: u8 = 1;

/// Who a node says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// A member, with everything needed to check that offline.
    Member {
        /// All root documents it knows, from version 1 on, each encoded.
        roots: Vec<Vec<u8>>,
        /// The encoded certificate chain.
        chain: Vec<u8>,
        /// The highest root version it knows.
        root_number: u32,
        /// The revocation lists it holds.
        lists: ListState,
    },
    /// A bootstrap; its peer id is its proof.
    Infra {
        /// The overlay it serves here.
        overlay: OverlayId,
        /// UDP addresses of its reflector and relay, at most [`MAX_DATA_ADDRS`]; an unspecified IP
        /// stands for the one at which it is connected.
        data_addrs: Vec<SocketAddr>,
        /// The revocation lists it holds.
        lists: ListState,
        /// To a node whose certificate had none: the receipt of its witness.
        receipt: Option<SignedPart>,
    },
    /// The witness, to a node that gets no receipt: the last word of this connection.
    NoReceipt(WitnessRefusal),
    /// The listener, to a dialer that holds newer revocation lists: send them, then I judge.
    Pull,
    /// To a member that is revoked: the last word of this connection, but for the lists that say so.
    Revoked(ListState),
}

impl Hello {
    /// The revocation lists that the sender holds, where it says so.
    #[must_use]
    pub const fn lists(&self) -> Option<ListState> {
        match self {
            Self::Member { lists, .. } | Self::Infra { lists, .. } | Self::Revoked(lists) => {
                Some(*lists)
            }
            Self::NoReceipt(_) | Self::Pull => None,
        }
    }

    /// The version byte and the content, without the length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // Cannot fail for these types; an empty hello is refused by everybody.
        bytes.extend(postcard::to_stdvec(self).unwrap_or_default());
        bytes
    }

    /// The reverse of [`Self::encode`].
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for anything else, such as trailing bytes or too many addresses.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_HELLO {
            return Err(Refusal::Malformed);
        }
        let Some((&VERSION, body)) = bytes.split_first() else {
            return Err(Refusal::Malformed);
        };
        match postcard::take_from_bytes(body) {
            Ok((Self::Infra { data_addrs, .. }, _)) if data_addrs.len() > MAX_DATA_ADDRS => {
                Err(Refusal::Malformed)
            }
            Ok((hello, [])) => Ok(hello),
            _ => Err(Refusal::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn infra(addrs: usize) -> Hello {
        Hello::Infra {
            overlay: OverlayId([3; 32]),
            data_addrs: vec!["192.0.2.1:22611".parse().unwrap(); addrs],
            lists: ListState::default(),
            receipt: None,
        }
    }

    #[test]
    fn bounds() {
        let bytes = infra(MAX_DATA_ADDRS).encode();
        assert_eq!(Hello::decode(&bytes), Ok(infra(MAX_DATA_ADDRS)));
        let many = infra(MAX_DATA_ADDRS + 1).encode();
        assert_eq!(Hello::decode(&many), Err(Refusal::Malformed));
        let mut trailing = bytes.clone();
        trailing.push(0);
        assert_eq!(Hello::decode(&trailing), Err(Refusal::Malformed));
        let mut later = bytes;
        later[0] = VERSION + 1;
        assert_eq!(Hello::decode(&later), Err(Refusal::Malformed));
        assert_eq!(Hello::decode(&[]), Err(Refusal::Malformed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn member_round_trip(
            roots in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..16),
            chain in prop::collection::vec(any::<u8>(), 0..800),
            root_number: u32,
            number: u64,
            digest: u64,
        ) {
            let lists = ListState { number, digest };
            let hello = Hello::Member { roots, chain, root_number, lists };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Hello::decode(&bytes);
        }
    }
}
