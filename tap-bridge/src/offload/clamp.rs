//! The MSS of a SYN (RFC 9293, 3.7.1), lowered so that one segment of a guest is one datagram.

use super::layout::is_signed;
use super::{FrameChecksum, Layout, Protocol, get_u16, put_u16};

const SYN: u8 = 0x02;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS that a SYN announces so that a full segment without options fits an Ethernet
/// frame of `max_frame` bytes. Never raises it, adds none, and leaves a SYN alone that TCP signs (MD5,
/// AO). `true` if the frame was changed.
///
/// The MSS counts no options (RFC 6691): who sends them sends so much less payload. Extension
/// headers of IPv6 and options of IPv4 count as options. A partial checksum covers only the pseudo
/// header and stays; a full one is updated (RFC 1624), so a wrong one stays wrong.
pub fn clamp_mss(frame: &mut [u8], max_frame: usize, checksum: FrameChecksum) -> bool {
    let Some(layout) = Layout::parse(frame).filter(|layout| layout.protocol == Protocol::Tcp)
    else {
        return false;
    };
    if frame
        .get(layout.l4 + 13)
        .is_none_or(|flags| flags & SYN == 0)
    {
        return false;
    }
    let fixed = layout.ip + layout.family.header_len() + 20;
    let limit = u16::try_from(max_frame.saturating_sub(fixed)).unwrap_or(u16::MAX);
    let options = layout.l4 + 20;
    let Some(found) = frame.get(options..layout.payload).and_then(find_mss) else {
        return false;
    };
    let value = options + found;
    let Some(old) = get_u16(frame, value).filter(|&old| old > limit) else {
        return false;
    };
    put_u16(frame, value, limit);
    if checksum != FrameChecksum::Partial {
        let field = layout.checksum();
        if let Some(sum) = get_u16(frame, field) {
            // A number on an odd offset is summed with its bytes swapped (RFC 1071, 2 B).
            let is_odd = (value - layout.l4) % 2 == 1;
            let (old, new) = if is_odd {
                (old.swap_bytes(), limit.swap_bytes())
            } else {
                (old, limit)
            };
            put_u16(frame, field, updated(sum, old, new));
        }
    }
    true
}

/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    super::checksum::finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Where the value of the first MSS option is in `options`; `None` also where TCP signs the
/// segment or the options are malformed before it.
fn find_mss(options: &[u8]) -> Option<usize> {
    if is_signed(options) {
        return None;
    }
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match kind {
            0 => return None,
            1 => at += 1,
            _ => {
                let len = usize::from(*options.get(at + 1)?);
                if kind == OPTION_MSS {
                    return (len == 4 && at + 4 <= options.len()).then_some(at + 2);
                }
                at += if len >= 2 { len } else { return None };
            }
        }
    }
    None
}
