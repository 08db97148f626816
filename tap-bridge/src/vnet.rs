//! The `virtio_net_hdr` in front of each frame on a tap (virtio 1.2, section 5.1.6).
//!
//! ```text
//!  0      1         2         4          6            8             10
//! +------+---------+---------+----------+------------+-------------+ - - - - - - -+
//! | flags| gso_type| hdr_len | gso_size | csum_start | csum_offset | num_buffers  |
//! +------+---------+---------+----------+------------+-------------+ - - - - - - -+
//! ```
//!
//! All fields are little-endian; the last one exists in the 12-byte form only. No field of it
//! crosses the wire, and one that comes from a QEMU socket is hostile input.

use crate::offload::{Family, Layout, Protocol};

/// Bytes of the header without `num_buffers`: the form used on taps.
pub const VNET_HDR_LEN: usize = 10;

/// Bytes of the header with `num_buffers` (`VIRTIO_NET_F_MRG_RXBUF`).
pub const VNET_HDR_MRG_LEN: usize = 12;

/// The checksum at `csum_start + csum_offset` is still to be completed.
pub(crate) const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified.
pub(crate) const F_DATA_VALID: u8 = 2;

pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
pub(crate) const GSO_ECN: u8 = 0x80;

/// One parsed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport header; a hint.
    pub hdr_len: u16,
    /// Bytes of payload a segment.
    pub gso_size: u16,
    /// Where the checksummed range begins, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is, in bytes from `csum_start`.
    pub csum_offset: u16,
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VnetHdrError {
    /// Fewer than [`VNET_HDR_LEN`] bytes.
    #[error("shorter than the header")]
    Short,
    /// A flag or a kind of segmentation that is not known.
    #[error("unknown flags or segmentation")]
    Unknown,
    /// Fields that contradict the frame's length.
    #[error("fields that contradict the frame")]
    Inconsistent,
}

impl VnetHdr {
    /// The header of a frame whose checksums are complete and which needs no cutting.
    pub const PLAIN: Self = Self {
        flags: 0,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the first ten bytes; the caller skips `num_buffers` where there is one.
    ///
    /// # Errors
    /// [`VnetHdrError::Short`].
    pub fn parse(bytes: &[u8]) -> Result<Self, VnetHdrError> {
        let Some(&[flags, gso_type, a, b, c, d, e, f, g, h]) = bytes.first_chunk::<VNET_HDR_LEN>()
        else {
            return Err(VnetHdrError::Short);
        };
        Ok(Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([a, b]),
            gso_size: u16::from_le_bytes([c, d]),
            csum_start: u16::from_le_bytes([e, f]),
            csum_offset: u16::from_le_bytes([g, h]),
        })
    }

    /// Is the header consistent with a frame of `frame_len` bytes?
    ///
    /// # Errors
    /// [`VnetHdrError::Unknown`] or [`VnetHdrError::Inconsistent`].
    pub fn validate(&self, frame_len: usize) -> Result<(), VnetHdrError> {
        if self.flags & !(F_NEEDS_CSUM | F_DATA_VALID) != 0 {
            return Err(VnetHdrError::Unknown);
        }
        if self.needs_checksum() {
            let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
            if end > frame_len {
                return Err(VnetHdrError::Inconsistent);
            }
        }
        match self.gso_type & !GSO_ECN {
            GSO_NONE if self.gso_type == GSO_NONE => Ok(()),
            GSO_TCPV4 | GSO_TCPV6 | GSO_UDP | GSO_UDP_L4 => {
                let fits = usize::from(self.hdr_len) <= frame_len;
                if fits && self.gso_size > 0 {
                    Ok(())
                } else {
                    Err(VnetHdrError::Inconsistent)
                }
            }
            _ => Err(VnetHdrError::Unknown),
        }
    }

    /// Must somebody complete a checksum?
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & F_NEEDS_CSUM != 0
    }

    /// Has somebody found the checksum right?
    #[must_use]
    pub const fn is_data_valid(&self) -> bool {
        self.flags & F_DATA_VALID != 0
    }

    /// Is the checksum to be completed the one of the frame's own TCP or UDP header?
    pub(crate) fn is_checksum_of(&self, layout: &Layout) -> bool {
        usize::from(self.csum_start) == layout.l4
            && usize::from(self.csum_offset) == layout.protocol.checksum_offset()
    }

    /// The header of a frame whose own TCP or UDP checksum is partial. `segment`: bytes of payload
    /// of each of its segments, or 0 if it is only one.
    pub(crate) fn of_own_checksum(layout: &Layout, segment: usize) -> Self {
        // A layout bounds offsets to MAX_HEADERS, a length field the segment.
        let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
        let gso_type = match (segment, layout.protocol, layout.family) {
            (0, ..) => GSO_NONE,
            (_, Protocol::Udp, _) => GSO_UDP_L4,
            (_, Protocol::Tcp, Family::V4) => GSO_TCPV4,
            (_, Protocol::Tcp, Family::V6) => GSO_TCPV6,
        };
        Self {
            flags: F_NEEDS_CSUM,
            gso_type,
            hdr_len: short(layout.payload),
            gso_size: short(segment),
            csum_start: short(layout.l4),
            csum_offset: short(layout.protocol.checksum_offset()),
        }
    }

    /// Is the frame to be cut into segments?
    #[must_use]
    pub const fn is_super_frame(&self) -> bool {
        self.gso_type != GSO_NONE
    }

    /// May the frame go out as it is: checksums complete, one segment?
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !self.needs_checksum() && !self.is_super_frame()
    }

    /// The ten bytes; the caller appends `num_buffers` = 1 where there is one.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; VNET_HDR_LEN] {
        let [a, b] = self.hdr_len.to_le_bytes();
        let [c, d] = self.gso_size.to_le_bytes();
        let [e, f] = self.csum_start.to_le_bytes();
        let [g, h] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_round_trip(bytes: [u8; VNET_HDR_LEN], len in 0_usize..70_000) {
            let header = VnetHdr::parse(&bytes).unwrap();
            prop_assert_eq!(header.to_bytes(), bytes);
            if header.validate(len).is_ok() && header.needs_checksum() {
                prop_assert!(usize::from(header.csum_start) + usize::from(header.csum_offset) < len);
            }
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(VnetHdr::parse(&[0; 9]), Err(VnetHdrError::Short));
        assert_eq!(VnetHdr::PLAIN.validate(14), Ok(()));
        let checksum = VnetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHdr::PLAIN
        };
        assert_eq!(checksum.validate(52), Ok(()));
        assert_eq!(checksum.validate(51), Err(VnetHdrError::Inconsistent));
        let empty_segments = VnetHdr {
            gso_type: GSO_TCPV4,
            gso_size: 0,
            ..VnetHdr::PLAIN
        };
        assert_eq!(
            empty_segments.validate(1_500),
            Err(VnetHdrError::Inconsistent)
        );
        let unknown = VnetHdr {
            flags: 4,
            ..VnetHdr::PLAIN
        };
        assert_eq!(unknown.validate(1_500), Err(VnetHdrError::Unknown));
    }
}
