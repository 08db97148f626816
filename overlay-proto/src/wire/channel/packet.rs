//! The bytes of a control packet; it travels sealed, behind the inner header of kind Control.
//!
//! ```text
//!  0     1             2     4             8                   12             12 + 4n
//! | 1   | ack count n | 0 0 | channel u32 | acked channel u32 | n x ack u32  | [sequence u32 | message] |
//! ```

use super::{MAX_MESSAGE, PACKET_LIMIT};
use crate::drop_reason::DropReason;

const VERSION: u8 = 1;
const FIXED_LEN: usize = 12;
const SEQUENCE_LEN: usize = 4;
const ACK_LEN: usize = 4;

// The largest message leaves room for an acknowledgement, so neither starves the other.
const _: () = assert!(FIXED_LEN + ACK_LEN + SEQUENCE_LEN + MAX_MESSAGE <= PACKET_LIMIT);

/// A parsed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// The sender's channel.
    pub(super) channel: u32,
    /// The channel whose sequence numbers the acknowledgements are; 0 without any.
    pub(super) acked_channel: u32,
    acks: &'a [[u8; ACK_LEN]],
    /// A sequence number and its message.
    pub(super) message: Option<(u32, &'a [u8])>,
}

impl<'a> Packet<'a> {
    /// [`DropReason::ControlMalformed`] for anything that [`write()`] cannot have written.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        Self::read(bytes).ok_or(DropReason::ControlMalformed)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_LEN>()?;
        let [version, count, z0, z1, c0, c1, c2, c3, acked @ ..] = *fixed;
        if version != VERSION || z0 | z1 != 0 {
            return None;
        }
        let (acks, rest) = rest.split_at_checked(usize::from(count) * ACK_LEN)?;
        let (acks, _) = acks.as_chunks::<ACK_LEN>();
        let acked_channel = u32::from_be_bytes(acked);
        let message = if rest.is_empty() {
            None
        } else {
            let (sequence, message) = rest.split_first_chunk::<SEQUENCE_LEN>()?;
            if message.is_empty() || message.len() > MAX_MESSAGE {
                return None;
            }
            Some((u32::from_be_bytes(*sequence), message))
        };
        if acks.is_empty() && (message.is_none() || acked_channel != 0) {
            return None;
        }
        Some(Self {
            channel: u32::from_be_bytes([c0, c1, c2, c3]),
            acked_channel,
            acks,
            message,
        })
    }

    /// The acknowledged sequence numbers.
    pub(super) fn acks(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.acks.iter().map(|ack| u32::from_be_bytes(*ack))
    }
}

/// How many acknowledgements fit a packet with a message of `message_len` bytes, or with none.
pub(super) fn ack_room(message_len: Option<usize>) -> usize {
    let message = message_len.map_or(0, |length| length + SEQUENCE_LEN);
    let room = PACKET_LIMIT.saturating_sub(FIXED_LEN + message) / ACK_LEN;
    room.min(usize::from(u8::MAX))
}

/// A packet's bytes; of `acks` at most [`ack_room`].
pub(super) fn write(
    channel: u32,
    acked_channel: u32,
    acks: impl ExactSizeIterator<Item = u32>,
    message: Option<(u32, &[u8])>,
) -> Vec<u8> {
    let count = u8::try_from(acks.len()).unwrap_or(u8::MAX);
    let acked_channel = if count == 0 { 0 } else { acked_channel };
    let mut bytes = vec![VERSION, count, 0, 0];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&acked_channel.to_be_bytes());
    for ack in acks.take(count.into()) {
        bytes.extend_from_slice(&ack.to_be_bytes());
    }
    if let Some((sequence, message)) = message {
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(message);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let bytes = write(0x0102_0304, 7, [9].into_iter(), Some((5, b"hi")));
        let expected = [
            1, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, b'h', b'i',
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn refused() {
        let good = write(1, 2, [3].into_iter(), Some((4, b"x")));
        assert!(Packet::parse(&good).is_ok());
        // Version, too many acknowledgements, reserved bytes.
        for (at, value) in [(0, 2), (1, 9), (2, 1), (3, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Packet::parse(&bad), Err(DropReason::ControlMalformed));
        }
        // Cut off, or a sequence number without a message.
        for length in (0..16).chain(17..21) {
            assert!(Packet::parse(&good[..length]).is_err(), "{length}");
        }
        let nothing = write(1, 0, std::iter::empty(), None);
        assert!(Packet::parse(&nothing).is_err());
        let large = write(1, 0, std::iter::empty(), Some((1, &[0; MAX_MESSAGE + 1])));
        assert!(Packet::parse(&large).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(
            channel in any::<u32>(), acked in any::<u32>(),
            acks in prop::collection::vec(any::<u32>(), 1..=255),
            message in prop::option::of((
                any::<u32>(), prop::collection::vec(any::<u8>(), 1..=MAX_MESSAGE),
            )),
        ) {
            let message = message.as_ref().map(|(sequence, bytes)| (*sequence, &bytes[..]));
            let acks = &acks[..acks.len().min(ack_room(message.map(|(_, bytes)| bytes.len())))];
            let bytes = write(channel, acked, acks.iter().copied(), message);
            prop_assert!(bytes.len() <= PACKET_LIMIT);
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(packet.channel, channel);
            prop_assert_eq!(packet.acked_channel, acked);
            prop_assert_eq!(packet.acks().collect::<Vec<_>>(), acks);
            prop_assert_eq!(packet.message, message);
        }

        #[test]
        fn parse_then_write_is_identity(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0u8..4,
        ) {
            for (to, from) in bytes.iter_mut().zip([1, count, 0, 0]) {
                *to = from;
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let acks: Vec<_> = packet.acks().collect();
                let again = write(
                    packet.channel, packet.acked_channel, acks.into_iter(), packet.message,
                );
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packet::parse(&bytes);
        }
    }
}
