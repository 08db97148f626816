//! One Ethernet frame: where it goes, where it comes from, its VLAN and what it carries.
//!
//! ```text
//!  0        6        12
//! | dst 6  | src 6  | [0x8100 or 0x88a8, PCP+DEI+VID] x 0..2 | ethertype 2 | payload |
//! ```

use super::addr::{MacAddr, VlanId};

/// Bytes of an untagged Ethernet header: the least a frame has.
pub const HEADER_LEN: usize = 14;

/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;

/// Tags that the parser looks behind. A third is left to be the ethertype and payload.
const MAX_TAGS: usize = 2;

/// The ethertypes that Farlan looks at (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP (RFC 903), which hypervisors send for a guest that has moved.
    pub const RARP: u16 = 0x8035;
    /// An 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Why bytes are no Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than an Ethernet header.
    #[error("{0} bytes are fewer than an Ethernet header's 14")]
    TooShort(usize),
    /// The ethertype announces a VLAN tag that is not there.
    #[error("the frame ends within a VLAN tag")]
    TruncatedTag,
    /// VLAN id 4,095, which IEEE 802.1Q reserves.
    #[error("the VLAN id 4095 is reserved")]
    ReservedVlan,
}

#[cfg(feature = "full")]
impl From<FrameError> for crate::drop_reason::DropReason {
    fn from(_: FrameError) -> Self {
        Self::MalformedFrame
    }
}

/// A parsed view of one frame, without preamble and check sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetFrame<'a> {
    bytes: &'a [u8],
    dst: MacAddr,
    src: MacAddr,
    vlan: VlanId,
    ethertype: u16,
    payload: &'a [u8],
}

impl<'a> EthernetFrame<'a> {
    /// Reads the header and up to two tags: constant time, no allocation.
    ///
    /// # Errors
    /// A [`FrameError`] when the bytes end within the header or a tag, or a tag within the first
    /// two has the reserved VLAN id.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, mut payload) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FrameError::TooShort(bytes.len()))?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let mut ethertype = u16::from_be_bytes([t0, t1]);
        let mut vlan = VlanId::UNTAGGED;
        for depth in 0..MAX_TAGS {
            if !matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) {
                break;
            }
            let (tag, rest) = payload
                .split_first_chunk::<TAG_LEN>()
                .ok_or(FrameError::TruncatedTag)?;
            let [c0, c1, t0, t1] = *tag;
            let id = VlanId::new(u16::from_be_bytes([c0, c1]) & 0x0fff)
                .ok_or(FrameError::ReservedVlan)?;
            if depth == 0 {
                vlan = id;
            }
            ethertype = u16::from_be_bytes([t0, t1]);
            payload = rest;
        }
        Ok(Self {
            bytes,
            dst: MacAddr([d0, d1, d2, d3, d4, d5]),
            src: MacAddr([s0, s1, s2, s3, s4, s5]),
            vlan,
            ethertype,
            payload,
        })
    }

    /// The destination.
    #[must_use]
    pub const fn dst(&self) -> MacAddr {
        self.dst
    }

    /// The source.
    #[must_use]
    pub const fn src(&self) -> MacAddr {
        self.src
    }

    /// The VLAN of the outermost tag. A priority tag (id 0) is [`VlanId::UNTAGGED`].
    #[must_use]
    pub const fn vlan(&self) -> VlanId {
        self.vlan
    }

    /// The ethertype behind up to two tags. Below 0x0600 it is an 802.3 length.
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// What follows the ethertype, with the padding that short frames have.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The whole frame as parsed.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A frame from its parts, with an 802.1Q tag of priority 0 unless `vlan` is untagged. It is not
/// padded to 60 bytes: taps take short frames, network cards pad themselves.
#[must_use]
pub fn build_frame(
    dst: MacAddr,
    src: MacAddr,
    vlan: VlanId,
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_LEN + TAG_LEN + payload.len());
    frame.extend_from_slice(&dst.0);
    frame.extend_from_slice(&src.0);
    if vlan != VlanId::UNTAGGED {
        frame.extend_from_slice(&ethertype::VLAN.to_be_bytes());
        frame.extend_from_slice(&vlan.get().to_be_bytes());
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    fn header(tail: &[u8]) -> Vec<u8> {
        [&A.0[..], &B.0[..], tail].concat()
    }

    #[test]
    fn untagged() {
        let bytes = header(&[0x08, 0x00, 1, 2, 3]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!((frame.dst(), frame.src()), (A, B));
        assert_eq!(frame.vlan(), VlanId::UNTAGGED);
        assert_eq!(frame.ethertype(), ethertype::IPV4);
        assert_eq!(frame.payload(), [1, 2, 3]);
        assert_eq!(frame.bytes(), bytes);
    }

    #[test]
    fn outermost_tag_counts_and_two_are_skipped() {
        let bytes = header(&[0x88, 0xa8, 0x20, 7, 0x81, 0x00, 0x00, 9, 0x86, 0xdd, 5]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(frame.vlan().get(), 7);
        assert_eq!(frame.ethertype(), ethertype::IPV6);
        assert_eq!(frame.payload(), [5]);

        let third = header(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x08, 0x00]);
        let frame = EthernetFrame::parse(&third).unwrap();
        assert_eq!(frame.ethertype(), ethertype::VLAN);
        assert_eq!(frame.payload(), [0, 3, 0x08, 0x00]);
    }

    #[test]
    fn priority_tag_is_untagged() {
        let bytes = header(&[0x81, 0x00, 0xe0, 0, 0x08, 0x06]);
        let frame = EthernetFrame::parse(&bytes).unwrap();
        assert_eq!(frame.vlan(), VlanId::UNTAGGED);
        assert_eq!(frame.ethertype(), ethertype::ARP);
        assert!(frame.payload().is_empty());
    }

    #[test]
    fn refused() {
        let short = header(&[8]);
        assert_eq!(
            EthernetFrame::parse(&short),
            Err(FrameError::TooShort(short.len()))
        );
        for tail in [&[0x81, 0, 0, 1, 8][..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 1]] {
            let bytes = header(tail);
            assert_eq!(EthernetFrame::parse(&bytes), Err(FrameError::TruncatedTag));
        }
        let reserved = header(&[0x81, 0, 0x0f, 0xff, 8, 0]);
        assert_eq!(
            EthernetFrame::parse(&reserved),
            Err(FrameError::ReservedVlan)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(frame) = EthernetFrame::parse(&bytes) {
                prop_assert!(bytes.ends_with(frame.payload()));
            }
        }

        #[test]
        fn built_frames_parse(
            dst in any::<[u8; 6]>(), src in any::<[u8; 6]>(), vlan in 0u16..=4094,
            payload in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let vlan = VlanId::new(vlan).unwrap();
            let bytes = build_frame(MacAddr(dst), MacAddr(src), vlan, 0x1234, &payload);
            let frame = EthernetFrame::parse(&bytes).unwrap();
            prop_assert_eq!(frame.dst(), MacAddr(dst));
            prop_assert_eq!(frame.src(), MacAddr(src));
            prop_assert_eq!(frame.vlan(), vlan);
            prop_assert_eq!(frame.ethertype(), 0x1234);
            prop_assert_eq!(frame.payload(), &payload[..]);
        }
    }
}
