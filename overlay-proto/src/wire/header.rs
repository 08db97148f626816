//! What is in the clear: the kind of a datagram, and the header of a data datagram.
//!
//! ```text
//!  0      1        4                8                  9                16                 -16
//! | 0x04 | 0 0 0  | receiver u32   | lane u8          | counter u56    | sealed bytes ... | tag 16 |
//! |      clear, authenticated as AAD; bytes 8..16 are the AEAD's nonce |
//! ```

use super::{Lane, SessionIndex};
use crate::drop_reason::DropReason;

/// Bytes of the AEAD's tag behind the sealed bytes.
pub const TAG_LEN: usize = 16;

/// The largest counter of a lane. A session ends at 2^32 packets on a lane (TRUST.md 12), long
/// before it.
pub const MAX_COUNTER: u64 = (1 << COUNTER_BITS) - 1;

const COUNTER_BITS: u32 = 56;

/// What a datagram is, by its first byte. All are below 0x40; QUIC's are above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DatagramKind {
    /// Message 1 of the handshake.
    HandshakeInit = 0x01,
    /// Message 2 of the handshake.
    HandshakeResponse = 0x02,
    /// "Come again with this cookie", from a responder under load.
    CookieReply = 0x03,
    /// Sealed bytes of a session.
    Data = 0x04,
    /// "Which address do you see?"
    ReflectorRequest = 0x05,
    /// The answer to it.
    ReflectorResponse = 0x06,
    /// A datagram carried by a relay.
    Relayed = 0x07,
    /// Binds an allocation to the address it comes from.
    RelayBind = 0x08,
    /// The relay's challenge to a bind.
    RelayChallenge = 0x09,
    /// The relay's word that the bind holds.
    RelayAck = 0x0a,
}

impl DatagramKind {
    /// The kind of `datagram`.
    ///
    /// # Errors
    /// [`DropReason::MalformedDatagram`] for an empty one, [`DropReason::UnknownDatagramKind`] for a
    /// first byte that is none of ours.
    pub const fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let [first, ..] = datagram else {
            return Err(DropReason::MalformedDatagram);
        };
        Ok(match *first {
            0x01 => Self::HandshakeInit,
            0x02 => Self::HandshakeResponse,
            0x03 => Self::CookieReply,
            0x04 => Self::Data,
            0x05 => Self::ReflectorRequest,
            0x06 => Self::ReflectorResponse,
            0x07 => Self::Relayed,
            0x08 => Self::RelayBind,
            0x09 => Self::RelayChallenge,
            0x0a => Self::RelayAck,
            _ => return Err(DropReason::UnknownDatagramKind),
        })
    }

    /// The first byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// The clear header of a data datagram; all of it is additional authenticated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataHeader {
    /// The session, by its receiver's index.
    pub receiver: SessionIndex,
    /// The sending worker's lane.
    pub lane: Lane,
    /// The lane's packet counter, at most [`MAX_COUNTER`].
    pub counter: u64,
}

impl DataHeader {
    /// Bytes of the header.
    pub const LEN: usize = 16;

    /// Reads the header of a whole data datagram: sealed bytes are behind [`Self::LEN`].
    ///
    /// # Errors
    /// [`DropReason::MalformedDatagram`] when it is too short for header and tag,
    /// [`DropReason::UnknownDatagramKind`] when it is no data datagram, [`DropReason::UnknownFlags`]
    /// when the reserved bytes are not 0.
    pub const fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        if datagram.len() < Self::LEN + TAG_LEN {
            return Err(DropReason::MalformedDatagram);
        }
        let Some(header) = datagram.first_chunk::<{ Self::LEN }>() else {
            return Err(DropReason::MalformedDatagram);
        };
        let [kind, z0, z1, z2, r0, r1, r2, r3, nonce @ ..] = *header;
        if kind != DatagramKind::Data.byte() {
            return Err(DropReason::UnknownDatagramKind);
        }
        if z0 | z1 | z2 != 0 {
            return Err(DropReason::UnknownFlags);
        }
        Ok(Self {
            receiver: SessionIndex(u32::from_be_bytes([r0, r1, r2, r3])),
            lane: Lane(nonce[0]),
            counter: u64::from_be_bytes(nonce) & MAX_COUNTER,
        })
    }

    /// The nonce: lane in the top 8 bits, counter below. Bits of the counter above
    /// [`MAX_COUNTER`] are cut off; sessions end long before.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        (self.lane.0 as u64) << COUNTER_BITS | (self.counter & MAX_COUNTER)
    }

    /// The header's bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        let [r0, r1, r2, r3] = self.receiver.0.to_be_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.nonce().to_be_bytes();
        let kind = DatagramKind::Data.byte();
        [
            kind, 0, 0, 0, r0, r1, r2, r3, n0, n1, n2, n3, n4, n5, n6, n7,
        ]
    }

    /// Writes the header to the front of `out` and returns its length; 0, with nothing written,
    /// when `out` is shorter.
    pub const fn write(&self, out: &mut [u8]) -> usize {
        match out.first_chunk_mut::<{ Self::LEN }>() {
            Some(front) => {
                *front = self.to_bytes();
                Self::LEN
            }
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trust_14_kinds_are_their_bytes_and_below_quic() {
        let mut known = 0;
        for first in 0..=u8::MAX {
            match DatagramKind::parse(&[first, 9]) {
                Ok(kind) => {
                    assert_eq!(kind.byte(), first);
                    assert!(first < 0x40);
                    known += 1;
                }
                Err(reason) => assert_eq!(reason, DropReason::UnknownDatagramKind),
            }
        }
        assert_eq!(known, 10);
        assert_eq!(DatagramKind::parse(&[]), Err(DropReason::MalformedDatagram));
    }

    #[test]
    fn known_bytes() {
        let header = DataHeader {
            receiver: SessionIndex(0x0102_0304),
            lane: Lane(5),
            counter: 0x66_7788,
        };
        let bytes = header.to_bytes();
        assert_eq!(
            bytes,
            [4, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0x66, 0x77, 0x88]
        );
    }

    #[test]
    fn refused() {
        let mut datagram = [0; DataHeader::LEN + TAG_LEN];
        assert_eq!(
            DataHeader::parse(&datagram),
            Err(DropReason::UnknownDatagramKind)
        );
        datagram[0] = 4;
        assert!(DataHeader::parse(&datagram).is_ok());
        assert_eq!(
            DataHeader::parse(&datagram[1..]),
            Err(DropReason::MalformedDatagram)
        );
        for reserved in 1..4 {
            let mut bad = datagram;
            bad[reserved] = 1;
            assert_eq!(DataHeader::parse(&bad), Err(DropReason::UnknownFlags));
        }
        assert_eq!(DataHeader::parse(&datagram).unwrap().write(&mut [0; 15]), 0);
    }

    proptest! {
        #[test]
        fn round_trip(receiver in any::<u32>(), lane in any::<u8>(), counter in 0..=MAX_COUNTER) {
            let header = DataHeader {
                receiver: SessionIndex(receiver),
                lane: Lane(lane),
                counter,
            };
            let mut datagram = [0; DataHeader::LEN + TAG_LEN];
            prop_assert_eq!(header.write(&mut datagram), DataHeader::LEN);
            prop_assert_eq!(DataHeader::parse(&datagram), Ok(header));
        }

        #[test]
        fn parse_then_write_is_identity(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64), zero in any::<bool>(),
        ) {
            if zero && let [kind, z0, z1, z2, ..] = bytes.as_mut_slice() {
                (*kind, *z0, *z1, *z2) = (4, 0, 0, 0);
            }
            if let Ok(header) = DataHeader::parse(&bytes) {
                prop_assert_eq!(Some(&header.to_bytes()), bytes.first_chunk());
            }
        }
    }
}
