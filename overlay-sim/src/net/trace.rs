//! What happened, as one number, and the last of it as text.
//!
//! Two runs of a seed are the same if their digests are. The number is no secret and no proof, only a check: anybody
//! could make two histories of the same digest on purpose, nobody does by accident.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::topology::{HostId, Lost};

/// A running 64-bit digest: FNV-1a over words of 64 bits instead of bytes, folded so that high bits reach low ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes in a number.
    pub const fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Takes in bytes and how many they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let tail = rest
            .iter()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.word(tail);
    }

    /// The number so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    fn addr(&mut self, addr: SocketAddr) {
        match addr {
            SocketAddr::V4(addr) => {
                let ip = u64::from(addr.ip().to_bits());
                self.word((ip << 16) | u64::from(addr.port()));
            }
            SocketAddr::V6(addr) => {
                let [high, low] = [addr.ip().to_bits() >> 64, addr.ip().to_bits()]
                    .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
                self.word(high);
                self.word(low);
                self.word(u64::from(addr.port()));
            }
        }
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It reached this host.
    Delivered(HostId),
    /// It was lost.
    Lost(Lost),
    /// Its sender was told that it is larger than this MTU, bytes.
    Told(usize),
}

/// One line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Duration,
    /// Who sent it.
    pub sender: HostId,
    /// The source as it was seen last.
    pub from: SocketAddr,
    /// The destination as it was seen last.
    pub to: SocketAddr,
    /// Its UDP payload, bytes.
    pub len: usize,
    /// What became of it.
    pub fate: Fate,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            sender,
            from,
            to,
            len,
            fate,
        } = self;
        let seconds = at.as_secs_f64();
        write!(f, "{seconds:.6} {sender} {from} > {to} {len} B ")?;
        match fate {
            Fate::Delivered(host) => write!(f, "to {host}"),
            Fate::Lost(lost) => write!(f, "lost: {lost}"),
            Fate::Told(mtu) => write!(f, "told: MTU {mtu}"),
        }
    }
}

/// The digest of a history, and its last lines if somebody wants them.
#[derive(Debug, Default)]
pub struct Trace {
    digest: Digest,
    /// At most `keep`; the oldest leaves.
    lines: VecDeque<Line>,
    keep: usize,
}

impl Trace {
    /// Keeps the last `lines` lines from now on: to be switched on for a seed that fails. None at first.
    pub fn keep(&mut self, lines: usize) {
        self.keep = lines;
        while self.lines.len() > lines {
            self.lines.pop_front();
        }
    }

    /// The digest of everything so far.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// What became of a datagram with this payload.
    pub(super) fn record(&mut self, line: Line, payload: &[u8]) {
        let nanos = u64::try_from(line.at.as_nanos()).unwrap_or(u64::MAX);
        self.digest.word(nanos);
        let (kind, detail) = match line.fate {
            Fate::Delivered(host) => (0, host.number().into()),
            Fate::Lost(lost) => (1, lost.number()),
            Fate::Told(mtu) => (2, u64::try_from(mtu).unwrap_or(u64::MAX)),
        };
        self.digest.word((detail << 2) | kind);
        self.digest.word(line.sender.number().into());
        self.digest.addr(line.from);
        self.digest.addr(line.to);
        self.digest.bytes(payload);
        if self.keep > 0 {
            if self.lines.len() >= self.keep {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn line(at: u64, port: u16, fate: Fate) -> Line {
        Line {
            at: Duration::from_micros(at),
            sender: HostId::of(3),
            from: SocketAddr::from(([10, 0, 0, 2], 22_611)),
            to: SocketAddr::from(([192, 0, 2, 1], port)),
            len: 4,
            fate,
        }
    }

    #[test]
    fn each_bit_of_a_line_counts() {
        let delivered = Fate::Delivered(HostId::of(1));
        let histories = [
            (line(1, 9, delivered), &b"abcd"[..]),
            (line(2, 9, delivered), b"abcd"),
            (line(1, 8, delivered), b"abcd"),
            (line(1, 9, Fate::Delivered(HostId::of(2))), b"abcd"),
            (line(1, 9, Fate::Lost(Lost::OnALink)), b"abcd"),
            (line(1, 9, Fate::Lost(Lost::HostDown)), b"abcd"),
            (line(1, 9, Fate::Told(1)), b"abcd"),
            (line(1, 9, delivered), b"abce"),
            (line(1, 9, delivered), b"abcd\0"),
            (line(1, 9, delivered), b"\0\0\0\0\0\0\0\0"),
            (line(1, 9, delivered), b"\0\0\0\0\0\0\0\0\0"),
        ];
        let digests = histories.map(|(line, payload)| {
            let mut trace = Trace::default();
            trace.record(line, payload);
            trace.digest()
        });
        assert_eq!(BTreeSet::from(digests).len(), histories.len());
    }

    #[test]
    fn addresses_of_both_families_count_and_so_does_the_order() {
        let digest = |addrs: &[&str]| {
            let mut digest = Digest::default();
            for addr in addrs {
                digest.addr(addr.parse().unwrap());
            }
            digest.value()
        };
        let all = [
            digest(&["[2001:db8::1]:5"]),
            digest(&["[2001:db8::2]:5"]),
            digest(&["[2001:db9::1]:5"]),
            digest(&["[2001:db8::1]:6"]),
            digest(&["192.0.2.1:5", "192.0.2.2:5"]),
            digest(&["192.0.2.2:5", "192.0.2.1:5"]),
        ];
        assert_eq!(BTreeSet::from(all).len(), all.len());
    }

    #[test]
    fn the_last_lines_are_kept_when_somebody_wants_them() {
        let mut trace = Trace::default();
        let lost = Fate::Lost(Lost::Filtered);
        trace.record(line(0, 1, lost), b"");
        assert_eq!(trace.lines().count(), 0);
        trace.keep(2);
        for at in 1..=3 {
            trace.record(line(at, 1, lost), b"");
        }
        let text: Vec<String> = trace.lines().map(Line::to_string).collect();
        assert_eq!(
            text,
            [
                "0.000002 host 3 10.0.0.2:22611 > 192.0.2.1:1 4 B lost: the filter of a NAT or firewall",
                "0.000003 host 3 10.0.0.2:22611 > 192.0.2.1:1 4 B lost: the filter of a NAT or firewall",
            ]
        );
        trace.keep(1);
        assert_eq!(trace.lines().count(), 1);
    }
}
