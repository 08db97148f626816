//! The probe: what two agents say to each other inside a sealed datagram.
//!
//! ```text
//! 0   1          2       4          12                        32
//! | 1 | 0 ask    | flags | id u64   | zeros                   | zeros, as many as wanted    challenge
//! | 1 | 1 answer | 0     | id u64   | observed address or 0   |                             answer
//! ```
//! Byte 0 is the version. The address is `4 or 6 | 0 | port u16 | 16 bytes`. A challenge is never
//! shorter than its answer. The id is random: only who received the challenge can answer it, so
//! nobody can make us send to an address where he does not listen.

use std::net::SocketAddr;

use crate::wire_bytes::{ADDR_LEN, array, canonical, decode_addr, encode_addr, put, u64_at};

/// Bytes of an answer and of a challenge without padding.
pub const PROBE_LEN: usize = 32;
/// The longest padded challenge: no UDP payload is longer.
pub const MAX_PROBE_LEN: usize = 65_507;

const VERSION: u8 = 1;
const KIND_CHALLENGE: u8 = 0;
const KIND_ANSWER: u8 = 1;
const FLAG_IN_USE: u16 = 1;
const FLAG_CLIMB: u16 = 2;

/// A probe message. The session that carried it has authenticated the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeMessage {
    /// "Answer this where it came from."
    Challenge {
        /// Random.
        id: u64,
        /// The sender's frames use this path: a hint for the other side's choice.
        in_use: bool,
        /// The sender probes all candidates now: do so too, at the same time.
        climb: bool,
    },
    /// The answer to the challenge `id`.
    Answer {
        /// The challenge's id.
        id: u64,
        /// Where the challenge came from; none on a relayed path.
        observed: Option<SocketAddr>,
    },
}

/// The bytes are no probe of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the probe does not parse")]
pub struct ProbeError;

impl ProbeMessage {
    /// The message, filled with zeros up to `padded_len` bytes, which is held between
    /// [`PROBE_LEN`] and [`MAX_PROBE_LEN`].
    #[must_use]
    pub fn encode(&self, padded_len: usize) -> Vec<u8> {
        let len = match self {
            Self::Challenge { .. } => padded_len.clamp(PROBE_LEN, MAX_PROBE_LEN),
            Self::Answer { .. } => PROBE_LEN,
        };
        let mut bytes = vec![0; len];
        match *self {
            Self::Challenge { id, in_use, climb } => {
                let flags = (u16::from(in_use) * FLAG_IN_USE) | (u16::from(climb) * FLAG_CLIMB);
                put(&mut bytes, 0, &[VERSION, KIND_CHALLENGE]);
                put(&mut bytes, 2, &flags.to_be_bytes());
                put(&mut bytes, 4, &id.to_be_bytes());
            }
            Self::Answer { id, observed } => {
                put(&mut bytes, 0, &[VERSION, KIND_ANSWER]);
                put(&mut bytes, 4, &id.to_be_bytes());
                if let Some(addr) = observed {
                    put(&mut bytes, 12, &encode_addr(addr));
                }
            }
        }
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`ProbeError`] for anything that [`ProbeMessage::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProbeError> {
        if !(PROBE_LEN..=MAX_PROBE_LEN).contains(&bytes.len()) {
            return Err(ProbeError);
        }
        let kind: [u8; 2] = array(bytes, 0).ok_or(ProbeError)?;
        let flags = array(bytes, 2).map(u16::from_be_bytes).ok_or(ProbeError)?;
        let id = u64_at(bytes, 4).ok_or(ProbeError)?;
        match kind {
            [VERSION, KIND_CHALLENGE] => {
                let padded = bytes.iter().skip(12).all(|byte| *byte == 0);
                if !padded || flags & !(FLAG_IN_USE | FLAG_CLIMB) != 0 {
                    return Err(ProbeError);
                }
                Ok(Self::Challenge {
                    id,
                    in_use: flags & FLAG_IN_USE != 0,
                    climb: flags & FLAG_CLIMB != 0,
                })
            }
            [VERSION, KIND_ANSWER] if flags == 0 && bytes.len() == PROBE_LEN => {
                let addr: [u8; ADDR_LEN] = array(bytes, 12).ok_or(ProbeError)?;
                let observed = if addr == [0; ADDR_LEN] {
                    None
                } else {
                    Some(decode_addr(&addr).ok_or(ProbeError)?)
                };
                Ok(Self::Answer { id, observed })
            }
            _ => Err(ProbeError),
        }
    }

    /// The answer to a challenge that came from `source`.
    pub(super) fn answer(id: u64, source: Option<SocketAddr>) -> Self {
        Self::Answer {
            id,
            observed: source.map(canonical),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn challenges_round_trip(id in any::<u64>(), in_use in any::<bool>(), climb in any::<bool>(), len in 0usize..2_000) {
            let message = ProbeMessage::Challenge { id, in_use, climb };
            let bytes = message.encode(len);
            prop_assert_eq!(bytes.len(), len.max(PROBE_LEN));
            prop_assert_eq!(ProbeMessage::decode(&bytes), Ok(message));
        }

        #[test]
        fn answers_round_trip(id in any::<u64>(), addr in any::<Option<SocketAddr>>()) {
            let message = ProbeMessage::answer(id, addr);
            prop_assert_eq!(ProbeMessage::decode(&message.encode(0)), Ok(message));
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0u8..3) {
            if bytes.len() > 1 {
                bytes[0] = 1;
                bytes[1] = kind;
            }
            if let Ok(message) = ProbeMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(bytes.len()), bytes);
            }
        }
    }
}
