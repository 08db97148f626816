//! The header inside the sealed bytes: what they are and for which network.
//!
//! ```text
//!  0      1       2      3   4              8
//! | kind | flags | hops | 0 | selector u32 | [piece 8] [forwarded 24] body ... |
//!
//! piece:      | frame id u32 | index u8 | count u8 | frame length u16 |
//! forwarded:  | origin tag u64 | sequence u64 | generation u64 |
//! flags:      bits 0-1 L4 checksum (0 complete, 1 partial, 2 verified), bit 2 forwarded
//! ```
//!
//! Kinds and flags that this version does not know are dropped, and so is a reserved byte that is
//! not 0: a later version may give them a meaning, and a guess would deliver a wrong frame.

use super::{Selector, sizes};
use crate::drop_reason::DropReason;

/// Bytes of the inner header without extensions.
pub const INNER_LEN: usize = 8;

/// Bytes of the piece extension.
pub const PIECE_LEN: usize = 8;

/// The most pieces of one frame (TRUST.md 17).
pub const MAX_PIECES: u8 = 8;

const CHECKSUM_MASK: u8 = 0b011;
const FORWARDED: u8 = 0b100;

/// The largest frame, in bytes with its Ethernet header, that one datagram of `datagram_limit`
/// bytes carries.
#[must_use]
pub const fn max_frame(datagram_limit: usize) -> usize {
    sizes::frame_of_sealed(datagram_limit)
}

/// The largest piece, in bytes of the frame, that one datagram of `datagram_limit` bytes carries.
#[must_use]
pub const fn max_piece(datagram_limit: usize) -> usize {
    max_frame(datagram_limit).saturating_sub(PIECE_LEN)
}

/// What the sender knows about the frame's TCP or UDP checksum: the only thing about offloads that
/// crosses the wire (TRUST.md 16).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L4Checksum {
    /// The frame holds it; nothing is known about whether it is right.
    #[default]
    Complete = 0,
    /// The frame holds the pseudo header's sum only: the receiver completes it.
    Partial = 1,
    /// The frame holds it and the sender's kernel found it right.
    Verified = 2,
}

/// Which part of a split frame the body is (TRUST.md 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceHeader {
    /// The same for all pieces of a frame and different for all frames of the session within a
    /// second. Each lane has its own share: the lane in the top 8 bits, a counter below.
    pub frame_id: u32,
    /// 0 to `count - 1`.
    pub index: u8,
    /// 2 to [`MAX_PIECES`].
    pub count: u8,
    /// Bytes of the whole frame.
    pub frame_len: u16,
}

/// Whose frame it is, when not the sender's (TRUST.md 15; DIRECTORY.md, Frames on behalf of
/// others).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Forwarded {
    /// Tag of the origin's `PeerId`.
    pub origin: u64,
    /// The origin's count of such frames.
    pub sequence: u64,
    /// The generation of the claim by which the frame was sent.
    pub generation: u64,
}

impl Forwarded {
    /// Bytes of the extension; take them off the datagram limit when splitting such a frame.
    pub const LEN: usize = 24;
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InnerKind {
    /// A whole Ethernet frame.
    Frame,
    /// A part of one.
    Piece(PieceHeader),
    /// A packet of the reliable channel.
    Control,
    /// A path probe.
    Probe,
    /// Nothing: it keeps NAT mappings open and tells that the sender lives.
    KeepAlive,
}

impl InnerKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Frame => 0,
            Self::Piece(_) => 1,
            Self::Control => 2,
            Self::Probe => 3,
            Self::KeepAlive => 4,
        }
    }
}

/// The inner header with its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InnerHeader {
    /// What the body is.
    pub kind: InnerKind,
    /// The frame's checksum; [`L4Checksum::Complete`] for what is no frame or piece.
    pub checksum: L4Checksum,
    /// How often the frame was forwarded.
    pub hops: u8,
    /// The network, as its receiver named it; 0 for what belongs to none.
    pub selector: Selector,
    /// Set for frames and pieces on behalf of another node only.
    pub forwarded: Option<Forwarded>,
}

impl InnerHeader {
    /// The most bytes that [`Self::write`] writes.
    pub const MAX_LEN: usize = INNER_LEN + PIECE_LEN + Forwarded::LEN;

    /// The header of a whole frame of this node, checksums complete.
    #[must_use]
    pub const fn frame(selector: Selector) -> Self {
        Self {
            kind: InnerKind::Frame,
            checksum: L4Checksum::Complete,
            hops: 0,
            selector,
            forwarded: None,
        }
    }

    /// The header of one piece of a frame of this node, checksums complete.
    #[must_use]
    pub const fn piece(selector: Selector, piece: PieceHeader) -> Self {
        Self {
            kind: InnerKind::Piece(piece),
            ..Self::frame(selector)
        }
    }

    /// The header of a control packet, probe or keep-alive, which belong to no network.
    #[must_use]
    pub const fn plain(kind: InnerKind) -> Self {
        Self {
            kind,
            ..Self::frame(Selector(0))
        }
    }

    /// Reads the header and its extensions; the rest is the body.
    ///
    /// # Errors
    /// [`DropReason::MalformedDatagram`] when the bytes end within the header or a keep-alive has a
    /// body, [`DropReason::UnknownFlags`] for a kind or flags of a later version or flags that the
    /// kind cannot have, [`DropReason::BadPiece`] for numbers that no split frame has.
    pub fn parse(plaintext: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let (header, body) = plaintext
            .split_first_chunk::<INNER_LEN>()
            .ok_or(DropReason::MalformedDatagram)?;
        let [kind, flags, hops, reserved, selector @ ..] = *header;
        if reserved != 0 || flags & !(CHECKSUM_MASK | FORWARDED) != 0 {
            return Err(DropReason::UnknownFlags);
        }
        let checksum = match flags & CHECKSUM_MASK {
            0 => L4Checksum::Complete,
            1 => L4Checksum::Partial,
            2 => L4Checksum::Verified,
            _ => return Err(DropReason::UnknownFlags),
        };
        let (kind, body) = match kind {
            0 => (InnerKind::Frame, body),
            1 => PieceHeader::parse(body).map(|(piece, body)| (InnerKind::Piece(piece), body))?,
            2..=4 if flags != 0 => return Err(DropReason::UnknownFlags),
            2 => (InnerKind::Control, body),
            3 => (InnerKind::Probe, body),
            4 if !body.is_empty() => return Err(DropReason::MalformedDatagram),
            4 => (InnerKind::KeepAlive, body),
            _ => return Err(DropReason::UnknownFlags),
        };
        let (forwarded, body) = if flags & FORWARDED == 0 {
            (None, body)
        } else {
            Forwarded::parse(body).map(|(forwarded, body)| (Some(forwarded), body))?
        };
        let header = Self {
            kind,
            checksum,
            hops,
            selector: Selector(u32::from_be_bytes(selector)),
            forwarded,
        };
        Ok((header, body))
    }

    /// Bytes that [`Self::write`] writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let piece = if matches!(self.kind, InnerKind::Piece(_)) {
            PIECE_LEN
        } else {
            0
        };
        let forwarded = if self.forwarded.is_some() {
            Forwarded::LEN
        } else {
            0
        };
        INNER_LEN + piece + forwarded
    }

    /// Writes the header and its extensions to the front of `out` and returns their length; 0, with
    /// nothing written, when `out` is shorter.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let length = self.encoded_len();
        let Some(out) = out.get_mut(..length) else {
            return 0;
        };
        let mut flags = self.checksum as u8;
        if self.forwarded.is_some() {
            flags |= FORWARDED;
        }
        let [s0, s1, s2, s3] = self.selector.0.to_be_bytes();
        let mut rest = put(out, [self.kind.byte(), flags, self.hops, 0, s0, s1, s2, s3]);
        if let InnerKind::Piece(piece) = self.kind {
            rest = put(rest, piece.to_bytes());
        }
        if let Some(forwarded) = self.forwarded {
            for word in [forwarded.origin, forwarded.sequence, forwarded.generation] {
                rest = put(rest, word.to_be_bytes());
            }
        }
        length - rest.len()
    }
}

/// Writes eight bytes and returns what is left of `out`.
fn put(out: &mut [u8], bytes: [u8; 8]) -> &mut [u8] {
    match out.split_first_chunk_mut::<8>() {
        Some((front, rest)) => {
            *front = bytes;
            rest
        }
        None => &mut [],
    }
}

impl PieceHeader {
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let (extension, body) = bytes
            .split_first_chunk::<PIECE_LEN>()
            .ok_or(DropReason::MalformedDatagram)?;
        let [i0, i1, i2, i3, index, count, l0, l1] = *extension;
        let piece = Self {
            frame_id: u32::from_be_bytes([i0, i1, i2, i3]),
            index,
            count,
            frame_len: u16::from_be_bytes([l0, l1]),
        };
        let legal = (2..=MAX_PIECES).contains(&count)
            && index < count
            && piece.frame_len >= u16::from(count);
        if legal {
            Ok((piece, body))
        } else {
            Err(DropReason::BadPiece)
        }
    }

    const fn to_bytes(self) -> [u8; PIECE_LEN] {
        let [i0, i1, i2, i3] = self.frame_id.to_be_bytes();
        let [l0, l1] = self.frame_len.to_be_bytes();
        [i0, i1, i2, i3, self.index, self.count, l0, l1]
    }
}

impl Forwarded {
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let (extension, body) = bytes
            .split_first_chunk::<{ Self::LEN }>()
            .ok_or(DropReason::MalformedDatagram)?;
        let (words, _) = extension.as_chunks::<8>();
        let [origin, sequence, generation] = *words else {
            return Err(DropReason::MalformedDatagram);
        };
        let forwarded = Self {
            origin: u64::from_be_bytes(origin),
            sequence: u64::from_be_bytes(sequence),
            generation: u64::from_be_bytes(generation),
        };
        Ok((forwarded, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = InnerKind> {
        let piece = (any::<u32>(), 2..=MAX_PIECES, any::<u8>(), 8u16..).prop_map(
            |(frame_id, count, index, frame_len)| {
                InnerKind::Piece(PieceHeader {
                    frame_id,
                    index: index % count,
                    count,
                    frame_len,
                })
            },
        );
        prop_oneof![
            Just(InnerKind::Frame),
            piece,
            Just(InnerKind::Control),
            Just(InnerKind::Probe),
            Just(InnerKind::KeepAlive),
        ]
    }

    fn headers() -> impl Strategy<Value = InnerHeader> {
        let checksum = prop::sample::select(vec![
            L4Checksum::Complete,
            L4Checksum::Partial,
            L4Checksum::Verified,
        ]);
        let forwarded = prop::option::of(any::<(u64, u64, u64)>());
        (kinds(), checksum, any::<u8>(), any::<u32>(), forwarded).prop_map(
            |(kind, checksum, hops, selector, forwarded)| {
                let of_frame = matches!(kind, InnerKind::Frame | InnerKind::Piece(_));
                InnerHeader {
                    kind,
                    checksum: if of_frame {
                        checksum
                    } else {
                        L4Checksum::Complete
                    },
                    hops,
                    selector: Selector(selector),
                    forwarded: forwarded.filter(|_| of_frame).map(
                        |(origin, sequence, generation)| Forwarded {
                            origin,
                            sequence,
                            generation,
                        },
                    ),
                }
            },
        )
    }

    #[test]
    fn known_bytes() {
        let piece = PieceHeader {
            frame_id: 0x0102_0304,
            index: 1,
            count: 2,
            frame_len: 1514,
        };
        let mut out = [0xee; InnerHeader::MAX_LEN];
        let header = InnerHeader::piece(Selector(0x0a0b_0c0d), piece);
        assert_eq!(header.write(&mut out), 16);
        assert_eq!(
            out[..16],
            [1, 0, 0, 0, 10, 11, 12, 13, 1, 2, 3, 4, 1, 2, 0x05, 0xea]
        );
        let keep_alive = InnerHeader::plain(InnerKind::KeepAlive);
        assert_eq!(keep_alive.write(&mut out), 8);
        assert_eq!(out[..8], [4, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn sizes() {
        assert_eq!(max_frame(1200), 1160);
        assert_eq!(max_piece(1200), 1152);
        assert_eq!((max_frame(20), max_piece(0)), (0, 0));
    }

    #[test]
    fn trust_15_unknown_flags_and_kinds_are_refused() {
        let parse = |bytes: &[u8]| InnerHeader::parse(bytes).map(|_| ());
        let with = |at: usize, value: u8| {
            let mut bytes = [0; INNER_LEN];
            bytes[at] = value;
            parse(&bytes)
        };
        assert_eq!(with(0, 0), Ok(()));
        assert_eq!(with(0, 5), Err(DropReason::UnknownFlags));
        assert_eq!(with(1, 3), Err(DropReason::UnknownFlags));
        assert_eq!(with(1, 8), Err(DropReason::UnknownFlags));
        assert_eq!(with(3, 1), Err(DropReason::UnknownFlags));
        assert_eq!(with(0, 1), Err(DropReason::MalformedDatagram));
        assert_eq!(with(1, 4), Err(DropReason::MalformedDatagram));
        let malformed = Err(DropReason::MalformedDatagram);
        assert_eq!(parse(&[0; 7]), malformed);
        assert_eq!(parse(&[4, 0, 0, 0, 0, 0, 0, 0, 0]), malformed);
        // Only frames have a checksum or an origin.
        for flags in [1, 4] {
            let control = [2, flags, 0, 0, 0, 0, 0, 0];
            assert_eq!(parse(&control), Err(DropReason::UnknownFlags));
        }
    }

    #[test]
    fn impossible_pieces() {
        for (index, count, length) in [(0, 1, 100), (0, 9, 100), (2, 2, 100), (0, 8, 7)] {
            let bytes = [
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, index, count, 0, length, 5,
            ];
            assert_eq!(InnerHeader::parse(&bytes), Err(DropReason::BadPiece));
        }
    }

    proptest! {
        #[test]
        fn round_trip(header in headers(), body in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = [0; InnerHeader::MAX_LEN];
            let length = header.write(&mut bytes);
            prop_assert_eq!(length, header.encoded_len());
            prop_assert_eq!(header.write(&mut bytes[..length - 1]), 0);
            let body = if header.kind == InnerKind::KeepAlive { Vec::new() } else { body };
            let plaintext = [&bytes[..length], &body].concat();
            prop_assert_eq!(InnerHeader::parse(&plaintext), Ok((header, &body[..])));
        }

        #[test]
        fn parse_then_write_is_identity(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u8..6, flags in 0u8..9,
        ) {
            if let [first, second, _, reserved, ..] = bytes.as_mut_slice() {
                (*first, *second, *reserved) = (kind, flags, 0);
            }
            if let Ok((header, body)) = InnerHeader::parse(&bytes) {
                let mut out = [0; InnerHeader::MAX_LEN];
                let length = header.write(&mut out);
                prop_assert_eq!([&out[..length], body].concat(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = InnerHeader::parse(&bytes);
        }
    }
}
