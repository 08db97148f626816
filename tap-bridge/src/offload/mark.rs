//! The mark in a frame's IP header: DSCP, by which routers sort, and ECN, by which they say that a
//! queue is long instead of dropping (RFC 2474, RFC 3168). A tunnel carries both (RFC 6040):
//!
//! ```text
//! inner IP header --outward--> outer IP header --routers--> outer IP header --inward--> inner IP header
//! ```

use super::checksum::fold;
use super::{get_u16, put_u16};

/// Not capable of ECN.
const NOT_ECT: u8 = 0;
/// Capable; the two codepoints mean the same to most.
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
/// Congestion experienced.
const CE: u8 = 3;
const ECN: u8 = 3;

const ETHERNET: usize = 14;
const MAX_VLAN_TAGS: usize = 2;

/// What of a frame's mark the datagram that carries it gets, and the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// DSCP is copied outward.
    pub dscp: bool,
    /// ECN is copied outward, and congestion inward.
    pub ecn: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            dscp: true,
            ecn: true,
        }
    }
}

impl Marks {
    /// The mark of the datagram in which `frame` travels; 0 for what is no IP.
    #[must_use]
    pub fn outward(self, frame: &[u8]) -> u8 {
        let mask = match (self.dscp, self.ecn) {
            (true, true) => 0xff,
            (true, false) => !ECN,
            (false, true) => ECN,
            (false, false) => return 0,
        };
        find(frame).map_or(0, |place| place.get(frame)) & mask
    }

    /// Tells a frame what routers said to the datagram that it came in, which has the mark `outer`
    /// (RFC 6040, 4.2). `false`: the frame is to be dropped, for congestion is marked on it and its
    /// sender would not understand.
    #[must_use]
    pub fn inward(self, frame: &mut [u8], outer: u8) -> bool {
        let outer = outer & ECN;
        if !self.ecn || matches!(outer, NOT_ECT | ECT_0) {
            return true;
        }
        let place = find(frame);
        let inner = place
            .as_ref()
            .map_or(NOT_ECT, |place| place.get(frame) & ECN);
        match (inner, outer, place) {
            (NOT_ECT, CE, _) => false,
            (ECT_0 | ECT_1, CE, Some(place)) | (ECT_0, ECT_1, Some(place)) => {
                place.set_ecn(frame, outer);
                true
            }
            _ => true,
        }
    }
}

/// Where an IP header with a mark is.
#[derive(Debug, Clone, Copy)]
enum Place {
    V4(usize),
    V6(usize),
}

/// Behind at most two VLAN tags.
fn find(frame: &[u8]) -> Option<Place> {
    let mut ip = ETHERNET;
    let mut ethertype = get_u16(frame, ip - 2)?;
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            break;
        }
        ip += 4;
        ethertype = get_u16(frame, ip - 2)?;
    }
    let first = *frame.get(ip)?;
    match (ethertype, first >> 4) {
        (0x0800, 4) if frame.len() >= ip + 20 => Some(Place::V4(ip)),
        (0x86dd, 6) if frame.len() >= ip + 40 => Some(Place::V6(ip)),
        _ => None,
    }
}

impl Place {
    /// TOS or traffic class.
    fn get(self, frame: &[u8]) -> u8 {
        let at = |at: usize| frame.get(at).copied().unwrap_or(0);
        match self {
            Self::V4(ip) => at(ip + 1),
            Self::V6(ip) => at(ip) << 4 | at(ip + 1) >> 4,
        }
    }

    /// Changes ECN, and with it the IPv4 header's checksum: one that was wrong stays wrong
    /// (RFC 1624).
    fn set_ecn(self, frame: &mut [u8], ecn: u8) {
        match self {
            Self::V4(ip) => {
                let (Some(old), Some(sum)) = (get_u16(frame, ip), get_u16(frame, ip + 10)) else {
                    return;
                };
                let new = old & !u16::from(ECN) | u16::from(ecn);
                put_u16(frame, ip, new);
                let sum = u64::from(!sum) + u64::from(!old) + u64::from(new);
                put_u16(frame, ip + 10, !fold(sum));
            }
            Self::V6(ip) => {
                let Some(old) = get_u16(frame, ip) else {
                    return;
                };
                put_u16(
                    frame,
                    ip,
                    old & !(u16::from(ECN) << 4) | u16::from(ecn) << 4,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::sum;
    use super::*;

    fn frame(v6: bool, tags: usize, mark: u8) -> Vec<u8> {
        let mut out = vec![2; 12];
        for _ in 0..tags {
            out.extend([0x81, 0, 0, 7]);
        }
        if v6 {
            out.extend([0x86, 0xdd, 0x60 | mark >> 4, mark << 4 | 5]);
            out.resize(out.len() + 60, 9);
        } else {
            out.extend([8, 0, 0x45, mark, 0, 50]);
            out.resize(out.len() + 46, 9);
            let ip = 14 + 4 * tags;
            put_u16(&mut out, ip + 10, 0);
            let checksum = !fold(sum(&out[ip..ip + 20]));
            put_u16(&mut out, ip + 10, checksum);
        }
        out
    }

    #[test]
    fn marks_go_outward_as_switched() {
        for (v6, tags) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 2)] {
            let one = frame(v6, tags, 0b1011_1001);
            for (dscp, ecn, expected) in [
                (true, true, 0b1011_1001),
                (true, false, 0b1011_1000),
                (false, true, 0b01),
                (false, false, 0),
            ] {
                assert_eq!(Marks { dscp, ecn }.outward(&one), expected, "{v6} {tags}");
            }
        }
        let arp = [&[2; 12][..], &[8, 6], &[0xff; 28]].concat();
        assert_eq!(Marks::default().outward(&arp), 0);
        assert_eq!(Marks::default().outward(&[8; 14]), 0);
        assert_eq!(Marks::default().outward(&frame(false, 3, 0xff)), 0);
    }

    /// The table of RFC 6040, figure 4.
    #[test]
    fn congestion_goes_inward_as_rfc_6040_says() {
        let (drop, n, o, i, c) = (None, Some(0), Some(2), Some(1), Some(3));
        let table = [
            (NOT_ECT, [n, n, n, drop]),
            (ECT_0, [o, o, i, c]),
            (ECT_1, [i, i, i, c]),
            (CE, [c, c, c, c]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                for (v6, tags) in [(false, 0), (false, 2), (true, 0), (true, 1)] {
                    let mut one = frame(v6, tags, 0xb8 | inner);
                    let before = one.clone();
                    let stays = Marks::default().inward(&mut one, 0x28 | outer);
                    let got = stays.then(|| Marks::default().outward(&one) & ECN);
                    assert_eq!(got, expected, "{inner} in {outer}, {v6} {tags}");
                    let other = frame(v6, tags, 0xb8 | expected.unwrap_or(inner));
                    assert_eq!(one, other, "nothing else but the checksum changes");
                    let mut off = before.clone();
                    let ecn_off = Marks {
                        ecn: false,
                        ..Marks::default()
                    };
                    assert!(ecn_off.inward(&mut off, outer) && off == before);
                }
            }
        }
        let mut arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
        assert!(!Marks::default().inward(&mut arp, CE));
        assert!(Marks::default().inward(&mut arp, ECT_1));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut one = frame(false, 0, ECT_0);
        one[24] ^= 0x10;
        assert!(Marks::default().inward(&mut one, CE));
        assert_ne!(fold(sum(&one[14..34])), 0xffff);
    }
}
