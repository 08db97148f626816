//! Seeded mutations of byte strings.

use nat_traversal::entropy::{Entropy, SeededEntropy};

/// No input grows beyond this, in bytes: more than any datagram or document.
pub const MAX_LEN: usize = 4096;

/// Numbers at which code often turns.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// A source of mutations; the same seed gives the same ones.
#[derive(Debug)]
pub struct Mutator(SeededEntropy);

impl Mutator {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// Below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n.max(1)).unwrap();
        usize::try_from(self.0.next_u64() % n).unwrap()
    }

    /// Changes `bytes` in one to eight places. `other` is another input, to take parts of.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(8) {
            self.once(bytes, other);
        }
        bytes.truncate(MAX_LEN);
    }

    fn once(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let len = bytes.len();
        let at = self.below(len);
        match self.below(12) {
            0 | 1 if len > 0 => bytes[at] ^= 1 << self.below(8),
            2 if len > 0 => bytes[at] = self.0.next_u32() as u8,
            3 if len > 0 => {
                let step = self.below(35) as u8;
                let back = self.below(2) == 0;
                let byte = &mut bytes[at];
                *byte = if back {
                    byte.wrapping_sub(step)
                } else {
                    byte.wrapping_add(step)
                };
            }
            4 | 5 => self.write_edge(bytes, at),
            6 if len > 0 => bytes.truncate(at),
            7 if len > 0 => {
                let end = (at + 1 + self.below(32)).min(len);
                bytes.drain(at..end);
            }
            8 => {
                let mut new = vec![0; 1 + self.below(32)];
                if self.below(2) == 0 {
                    self.0.fill(&mut new);
                }
                bytes.splice(at..at, new);
            }
            9 if len > 0 => {
                // A piece of itself again, elsewhere.
                let end = (at + 1 + self.below(64)).min(len);
                let piece = bytes[at..end].to_vec();
                let to = self.below(len);
                bytes.splice(to..to, piece);
            }
            10 if !other.is_empty() => {
                let from = self.below(other.len());
                let end = (from + 1 + self.below(128)).min(other.len());
                let replaced = (at + end - from).min(len);
                bytes.splice(at..replaced.max(at), other[from..end].iter().copied());
            }
            _ if !other.is_empty() => {
                // Its beginning, the other's end.
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len())..]);
            }
            _ => bytes.push(self.0.next_u32() as u8),
        }
    }

    /// Writes an edge number of 1, 2, 4 or 8 bytes, big- or little-endian.
    fn write_edge(&mut self, bytes: &mut [u8], at: usize) {
        let number = EDGES[self.below(EDGES.len())];
        let width = 1 << self.below(4);
        let little = self.below(2) == 0;
        let mut word = number.to_le_bytes()[..width].to_vec();
        if !little {
            word.reverse();
        }
        for (to, from) in bytes.iter_mut().skip(at).zip(word) {
            *to = from;
        }
    }
}
