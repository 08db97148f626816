//! What cutting means, slow and obvious: each frame is built from its description, byte by byte,
//! with full checksums. Shares no code with what it checks.

use proptest::prelude::*;

use crate::vnet::VnetHdr;

/// A TCP or UDP packet of a guest.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) vlans: usize,
    pub(super) is_v6: bool,
    pub(super) is_udp: bool,
    /// IPv4 options, or one extension header with its first two bytes left out.
    pub(super) ip_options: Vec<u8>,
    pub(super) tcp_options: Vec<u8>,
    pub(super) dont_fragment: bool,
    pub(super) id: u16,
    pub(super) seq: u32,
    pub(super) tcp_flags: u8,
    pub(super) payload: Vec<u8>,
}

/// Which checksum a frame is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    Full,
    Partial,
}

/// RFC 1071 as it says: 16-bit words, the carry added at once.
pub(super) fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) * 256 + u32::from(low);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

impl Packet {
    pub(super) fn l4_offset(&self) -> usize {
        let ip = if self.is_v6 { 40 } else { 20 };
        let extension = usize::from(self.is_v6 && !self.ip_options.is_empty()) * 2;
        14 + 4 * self.vlans + ip + extension + self.ip_options.len()
    }

    pub(super) fn headers(&self) -> usize {
        let l4 = if self.is_udp {
            8
        } else {
            20 + self.tcp_options.len()
        };
        self.l4_offset() + l4
    }

    fn pseudo_header(&self, l4_len: usize) -> Vec<u8> {
        let len = u32::try_from(l4_len).unwrap().to_be_bytes();
        let (source, target) = self.addresses();
        let protocol = [0, 0, 0, if self.is_udp { 17 } else { 6 }];
        [source, target, len.to_vec(), protocol.to_vec()].concat()
    }

    fn addresses(&self) -> (Vec<u8>, Vec<u8>) {
        if self.is_v6 {
            let prefix = [0xfd, 0xfa, 0, 1, 0xff, 0xff, 0xff, 0xff];
            let source = [&prefix[..], &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
            (source, [&prefix[..], &[0xff; 8]].concat())
        } else {
            (vec![10, 255, 0, 1], vec![10, 255, 255, 254])
        }
    }

    /// The frame with a checksum of that kind.
    pub(super) fn build(&self, kind: Sum) -> Vec<u8> {
        let mut l4 = self.transport();
        let field = if self.is_udp { 6 } else { 16 };
        let pseudo = self.pseudo_header(l4.len());
        let sum = match kind {
            Sum::Partial => ones_sum(&pseudo),
            Sum::Full => match !ones_sum(&[&pseudo[..], &l4].concat()) {
                0 => 0xffff,
                sum => sum,
            },
        };
        l4[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];
        for tag in 0..self.vlans {
            let kind = if tag + 1 == self.vlans {
                0x8100_u16
            } else {
                0x88a8
            };
            frame.extend(kind.to_be_bytes());
            frame.extend([0, 7]);
        }
        if self.is_v6 {
            self.ipv6(&mut frame, l4.len());
        } else {
            self.ipv4(&mut frame, l4.len());
        }
        frame.extend(l4);
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut l4 = [40_000_u16.to_be_bytes(), 5_201_u16.to_be_bytes()].concat();
        if self.is_udp {
            let len = u16::try_from(8 + self.payload.len()).unwrap();
            l4.extend(len.to_be_bytes());
            l4.extend([0, 0]);
        } else {
            l4.extend(self.seq.to_be_bytes());
            l4.extend([0, 0, 1, 1]);
            let words = u8::try_from(5 + self.tcp_options.len() / 4).unwrap();
            l4.extend([words << 4, self.tcp_flags, 0x20, 0, 0, 0, 0, 0]);
            l4.extend(&self.tcp_options);
        }
        l4.extend(&self.payload);
        l4
    }

    fn ipv4(&self, frame: &mut Vec<u8>, l4_len: usize) {
        let header_len = 20 + self.ip_options.len();
        let total = u16::try_from(header_len + l4_len).unwrap();
        let first = 0x40 | u8::try_from(header_len / 4).unwrap();
        let mut header = vec![first, 0x02];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
        header.extend([64, if self.is_udp { 17 } else { 6 }, 0, 0]);
        let (source, target) = self.addresses();
        header.extend([source, target].concat());
        header.extend(&self.ip_options);
        let sum = !ones_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([0x08, 0x00]);
        frame.extend(header);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, l4_len: usize) {
        let protocol = if self.is_udp { 17 } else { 6 };
        let mut extension = self.ip_options.clone();
        let mut next = protocol;
        if !extension.is_empty() {
            let units = u8::try_from((extension.len() + 2) / 8 - 1).unwrap();
            extension.splice(0..0, [protocol, units]);
            next = 0;
        }
        let len = u16::try_from(extension.len() + l4_len).unwrap();
        frame.extend([0x86, 0xdd, 0x60, 0x20, 0x12, 0x34]);
        frame.extend(len.to_be_bytes());
        frame.extend([next, 64]);
        let (source, target) = self.addresses();
        frame.extend([source, target, extension].concat());
    }

    /// The frames that a guest without offload would have sent, `segment` bytes of payload each.
    pub(super) fn cut(&self, segment: usize) -> Vec<Self> {
        let pieces: Vec<&[u8]> = self.payload.chunks(segment).collect();
        let mut segments = Vec::new();
        for (i, payload) in pieces.iter().enumerate() {
            let mut flags = self.tcp_flags;
            if i + 1 < pieces.len() {
                flags &= !0x09;
            }
            if i > 0 {
                flags &= !0x80;
            }
            segments.push(Self {
                id: self.id.wrapping_add(u16::try_from(i).unwrap()),
                seq: self.seq.wrapping_add(u32::try_from(i * segment).unwrap()),
                tcp_flags: flags,
                payload: payload.to_vec(),
                ..self.clone()
            });
        }
        segments
    }

    /// What a guest's kernel says of it in front of a super-frame of `gso_size`; 0: of one frame.
    pub(super) fn header(&self, gso_size: usize) -> VnetHdr {
        VnetHdr {
            flags: 1,
            gso_type: match (gso_size, self.is_udp, self.is_v6) {
                (0, ..) => 0,
                (_, true, _) => 5,
                (_, false, false) => 1,
                (_, false, true) => 4,
            },
            hdr_len: u16::try_from(self.headers()).unwrap(),
            gso_size: u16::try_from(gso_size).unwrap(),
            csum_start: u16::try_from(self.l4_offset()).unwrap(),
            csum_offset: if self.is_udp { 6 } else { 16 },
        }
    }
}

/// Any packet with up to `max` bytes of payload.
pub(super) fn packet(max: usize) -> impl Strategy<Value = Packet> {
    let shape = (0..=2_usize, any::<[bool; 3]>(), 0..=10_usize, 0..=10_usize);
    // One byte in eight: the flags that make a segment special are rare.
    let flags = prop_oneof![4 => Just(0x10), 2 => Just(0x18), 1 => Just(0x11), 1 => any::<u8>()];
    let payload = (1..=max, any::<u8>());
    (shape, any::<(u16, u32)>(), flags, payload).prop_map(
        |((vlans, [is_v6, is_udp, df], ip, tcp), (id, seq), tcp_flags, (len, filler))| {
            let ip_options = match (is_v6, ip % 4) {
                (_, 0 | 1) => Vec::new(),
                (false, _) => vec![1; ip * 4],
                // Padding options of no length: 8 or 16 bytes with the two in front.
                (true, words) => vec![0; (words - 1) * 8 - 2],
            };
            let payload = (0..len).map(|i| (i * 7) as u8 ^ (i >> 8) as u8 ^ filler);
            Packet {
                vlans,
                is_v6,
                is_udp,
                ip_options,
                tcp_options: [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8].repeat(tcp % 4),
                dont_fragment: df,
                id,
                seq,
                tcp_flags,
                payload: payload.collect(),
            }
        },
    )
}
