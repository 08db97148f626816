//! Randomness of a simulation: one stream for each consumer.
//!
//! With one stream for all, a link that draws once more changes every number after it, and a failing seed
//! fails no more once a host is added. So each consumer has its own, from the simulation's seed and its name.

use nat_traversal::entropy::{Entropy, SeededEntropy};

/// The stream of the consumer `name`. Its numbers depend on nothing else; two consumers of the same name draw
/// the same numbers, so names say whose they are ("link home-7 up").
#[must_use]
pub fn stream(seed: u64, name: &str) -> SeededEntropy {
    // FNV-1a over the name; a turn of the generator on either side, so that close seeds and names are far apart.
    let seed = SeededEntropy::new(seed).next_u64();
    let mixed = name.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut start = SeededEntropy::new(mixed);
    SeededEntropy::new(start.next_u64())
}

/// A number below `bound`, 0 if that is 0. The bias is below `bound` / 2^64.
pub fn below(chance: &mut SeededEntropy, bound: u64) -> u64 {
    chance.next_u64().checked_rem(bound).unwrap_or(0)
}

/// How often something happens, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Never.
    pub const NEVER: Self = Self(0);
    const WHOLE: u32 = 1_000_000;

    /// `count` times in a million; more than a million is always.
    #[must_use]
    pub const fn millionths(count: u32) -> Self {
        Self(count)
    }

    /// `count` times in a hundred; more than a hundred is always.
    #[must_use]
    pub const fn percent(count: u32) -> Self {
        Self(count.saturating_mul(Self::WHOLE / 100))
    }

    /// Whether it happens this time. What never happens draws nothing.
    pub fn happens(self, chance: &mut SeededEntropy) -> bool {
        self.0 > 0 && below(chance, u64::from(Self::WHOLE)) < u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn streams_are_the_same_by_name_and_apart_from_each_other() {
        let draws = |seed, name: &str| {
            let mut chance = stream(seed, name);
            [0; 4].map(|_: u64| chance.next_u64())
        };
        assert_eq!(draws(1, "nat a"), draws(1, "nat a"));
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            for name in ["", "a", "b", "ab", "ba", "nat a", "link a up"] {
                seen.extend(draws(seed, name));
            }
        }
        assert_eq!(seen.len(), 50 * 7 * 4);
    }

    #[test]
    fn shares_are_kept() {
        let mut chance = stream(7, "shares");
        let mut count = |share: Share| (0..100_000).filter(|_| share.happens(&mut chance)).count();
        assert_eq!(count(Share::NEVER), 0);
        assert_eq!(count(Share::percent(100)), 100_000);
        // Five standard deviations: 5 * sqrt(100,000 * 0.03 * 0.97) = 270.
        assert!(count(Share::percent(3)).abs_diff(3_000) < 270);
        assert_eq!(below(&mut chance, 0), 0);
        let mut same = chance.clone();
        assert!(!Share::NEVER.happens(&mut chance));
        assert_eq!(
            chance.next_u64(),
            same.next_u64(),
            "nothing is drawn for it"
        );
    }
}
