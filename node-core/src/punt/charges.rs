//! Who pays for a punt: a token bucket for each network's tap and for each peer in a network (ADR 44).
//!
//! A worker asks before it copies a frame for the slow path. Each worker has buckets of its own, so that no worker waits
//! for another one.

use std::cell::Cell;

use overlay_proto::ids::PeerId;
use overlay_proto::switching::NetIndex;

/// Taps with buckets of their own. With more networks two of them share a rate.
const TAPS: usize = 64;
/// Buckets of peers. Those whose hashes meet share a rate.
const PEERS: usize = 256;

/// Who caused a punt.
///
/// A port (what a guest is plugged into) is no type yet. When it is one, it pays before its network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    /// The guests behind the tap of a network.
    Tap(NetIndex),
    /// The guests of a peer in a network.
    Peer(NetIndex, PeerId),
}

/// What a punt is charged as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A frame of a guest here that the `Fib` has no place for.
    Frame,
    /// A frame that tells an address of its sender. The guest's next such frame says the same again.
    Address,
    /// A frame by which nodes on one LAN find each other. This is enough for all nodes on a LAN with many VLANs; in a loop
    /// more come.
    Beacon,
    /// Word that a broadcast may be in a loop. The slow path then sends a beacon, which finds the loop.
    Loop,
    /// Word that a frame was dropped because this node stands by. So the slow path finds VLANs that no node forwards.
    Standby,
    /// A frame of a peer. While a guest's move becomes known, all that talkers send in a round trip goes this way.
    PeerFrame,
}

/// A rate, and how much of it may be taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Punts a second.
    pub per_second: u32,
    /// Punts at once.
    pub burst: u32,
}

impl Cause {
    /// What taps pay for: each but the last.
    const OF_TAPS: usize = Self::PeerFrame as usize;

    /// What one payer may cause in one worker.
    #[must_use]
    pub const fn rate(self) -> Rate {
        let (per_second, burst) = match self {
            Self::Frame => (1000, 256),
            Self::Address => (100, 100),
            Self::Beacon => (1000, 1000),
            Self::Loop | Self::Standby => (10, 10),
            Self::PeerFrame => (4000, 1024),
        };
        Rate { per_second, burst }
    }
}

/// A token bucket. It is full when it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Tokens taken and not yet refilled, in thousandths.
    taken: u64,
    /// When that was so, ms.
    at_ms: u64,
}

/// A punt, in thousandths of a token.
const TOKEN: u64 = 1000;

impl Bucket {
    /// Is there a token left at `now_ms`?
    #[must_use]
    pub fn has(&self, now_ms: u64, rate: Rate) -> bool {
        self.at(now_ms, rate).taken + TOKEN <= u64::from(rate.burst) * TOKEN
    }

    /// Takes a token at `now_ms`; `false` if there is none.
    pub fn take(&mut self, now_ms: u64, rate: Rate) -> bool {
        let has = self.has(now_ms, rate);
        if has {
            *self = self.at(now_ms, rate);
            self.taken += TOKEN;
        }
        has
    }

    /// As it is at `now_ms`. Time that goes back refills nothing.
    fn at(&self, now_ms: u64, rate: Rate) -> Self {
        // A thousandth of a token for each millisecond and token a second.
        let refilled = now_ms.saturating_sub(self.at_ms) * u64::from(rate.per_second);
        Self {
            taken: self.taken.saturating_sub(refilled),
            at_ms: self.at_ms.max(now_ms),
        }
    }
}

/// The buckets of one worker. Bounds: `TAPS` and `PEERS`, never more.
#[derive(Debug)]
pub struct Charges {
    taps: [[Cell<Bucket>; Cause::OF_TAPS]; TAPS],
    peers: Box<[Cell<Bucket>; PEERS]>,
    seed: u64,
}

impl Charges {
    /// All full. `seed` is random: it keeps peers from choosing whom they share a bucket with.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            taps: std::array::from_fn(|_| std::array::from_fn(|_| Cell::default())),
            peers: Box::new(std::array::from_fn(|_| Cell::default())),
            seed,
        }
    }

    /// Could `payer` pay for a punt at `now_ms`?
    #[must_use]
    pub fn can_pay(&self, now_ms: u64, payer: Payer, cause: Cause) -> bool {
        let bucket = self.bucket(payer, cause);
        bucket.is_some_and(|bucket| bucket.get().has(now_ms, cause.rate()))
    }

    /// Charges `payer` for a punt at `now_ms`; `false` if it cannot pay.
    pub fn pay(&self, now_ms: u64, payer: Payer, cause: Cause) -> bool {
        let Some(cell) = self.bucket(payer, cause) else {
            return false;
        };
        let mut bucket = cell.get();
        let paid = bucket.take(now_ms, cause.rate());
        cell.set(bucket);
        paid
    }

    fn bucket(&self, payer: Payer, cause: Cause) -> Option<&Cell<Bucket>> {
        match payer {
            Payer::Tap(net) => {
                let tap = self.taps.get(usize::from(net.0) % TAPS)?;
                tap.get(cause as usize)
            }
            Payer::Peer(net, peer) => {
                let hash = keyed_hash(self.seed, net, peer);
                self.peers.get(hash as usize % PEERS)
            }
        }
    }
}

/// Spreads peers over buckets. Not cryptographic: who finds two that meet has halved a rate.
fn keyed_hash(seed: u64, net: NetIndex, peer: PeerId) -> u64 {
    let mix = |hash: u64, word: u64| {
        let wide = u128::from(hash ^ word) * u128::from(seed | 1 << 63 | 1);
        (wide >> 64) as u64 ^ wide as u64
    };
    let (words, _) = peer.0.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(u64::from(net.0) ^ seed, mix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: Payer = Payer::Peer(NetIndex(0), PeerId([1; 32]));

    #[test]
    fn one_network_does_not_pay_for_another() {
        let charges = Charges::new(7);
        let (a, b) = (Payer::Tap(NetIndex(0)), Payer::Tap(NetIndex(1)));
        let burst = Cause::Frame.rate().burst;
        let paid = (0..10_000)
            .filter(|_| charges.pay(5, a, Cause::Frame))
            .count();
        assert_eq!(paid, burst as usize);
        assert!(charges.pay(5, b, Cause::Frame) && charges.pay(5, PEER, Cause::PeerFrame));
        let more = (0..10_000).filter(|_| charges.pay(5, PEER, Cause::PeerFrame));
        assert_eq!(more.count(), Cause::PeerFrame.rate().burst as usize - 1);
        assert!(charges.pay(5, a, Cause::Beacon), "each cause has its own");
        assert!(!charges.can_pay(5, a, Cause::Frame));
        assert!(charges.can_pay(6, a, Cause::Frame));
    }

    #[test]
    fn peers_are_spread_and_the_seed_moves_them() {
        let bucket = |seed, n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_le_bytes());
            keyed_hash(seed, NetIndex(0), PeerId(id)) as usize % PEERS
        };
        for seed in [0, 1, 0x1234_5678_9abc_def0] {
            let used: std::collections::BTreeSet<_> = (0..64).map(|n| bucket(seed, n)).collect();
            assert!(used.len() > 40, "{seed}: {}", used.len());
        }
        assert!((0..64).any(|n| bucket(1, n) != bucket(2, n)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// In whatever stretch of time: no more than the burst and the rate.
        #[test]
        fn the_rate_holds(
            steps in prop::collection::vec((0_u64..50, 1_usize..100), 1..80),
            per_second in 1_u32..5000,
            burst in 1_u32..500,
        ) {
            let (mut bucket, rate) = (Bucket::default(), Rate { per_second, burst });
            let (mut now, mut taken) = (0, Vec::new());
            for (pause, asked) in steps {
                now += pause;
                let got = (0..asked).filter(|_| bucket.take(now, rate)).count() as u64;
                taken.push((now, got));
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, got) in &taken[first..] {
                    sum += got;
                    let most = u64::from(burst) + (to - from) * u64::from(per_second) / 1000 + 1;
                    prop_assert!(sum <= most, "{sum} of {most} from {from} to {to}");
                }
            }
        }

        /// Who keeps to the rate is never refused.
        #[test]
        fn who_keeps_to_the_rate_pays(per_second in 1_u32..1000, many in 1_usize..500) {
            let (mut bucket, rate) = (Bucket::default(), Rate { per_second, burst: 2 });
            for n in 0..many as u64 {
                let now = (n * 1000).div_ceil(u64::from(per_second));
                prop_assert!(bucket.take(now, rate), "punt {n} at {now}");
            }
        }
    }
}
