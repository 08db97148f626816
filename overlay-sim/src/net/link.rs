//! A link in one direction: delay, jitter, loss, reordering, duplication, MTU, rate and queue.

use std::num::NonZeroU64;
use std::time::Duration;

use nat_traversal::entropy::SeededEntropy;

use super::random::{self, Share};

/// What a link does, as data. [`Self::PERFECT`] does nothing at all; set what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkBehaviour {
    /// From one end to the other, without what waiting and sending take.
    pub delay: Duration,
    /// At most so much longer, evenly spread. Datagrams keep their order: one that comes behind a late one is
    /// late too, as in a queue.
    pub jitter: Duration,
    /// Datagrams that vanish.
    pub loss: Share,
    /// Datagrams that come twice.
    pub duplication: Share,
    /// Datagrams that are held back for [`Self::held_back`], so that later ones overtake them.
    pub reordering: Share,
    /// How long those are held back.
    pub held_back: Duration,
    /// The largest IP packet, bytes: UDP payload plus 28 (IPv4) or 48 (IPv6).
    pub mtu: usize,
    /// Whether the sender hears of a larger one (ICMP "packet too big", "fragmentation needed").
    pub too_large: TooLarge,
    /// Bytes of IP packets a second; `None` is unlimited.
    pub rate: Option<NonZeroU64>,
    /// How long a datagram waits at most for those before it: the queue holds `rate` times this. What comes to a full
    /// queue is dropped.
    pub queue: Duration,
}

/// What becomes of a datagram above the MTU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TooLarge {
    /// It is dropped, as by a path whose ICMP messages are filtered.
    #[default]
    Silent,
    /// It is dropped and its sender is told.
    Told,
}

impl LinkBehaviour {
    /// No delay, no loss, no limit but the MTU of an Ethernet.
    pub const PERFECT: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: Share::NEVER,
        duplication: Share::NEVER,
        reordering: Share::NEVER,
        held_back: Duration::ZERO,
        mtu: 1_500,
        too_large: TooLarge::Silent,
        rate: None,
        queue: Duration::from_millis(100),
    };

    /// A perfect link but for its delay.
    #[must_use]
    pub const fn with_delay(delay: Duration) -> Self {
        let mut link = Self::PERFECT;
        link.delay = delay;
        link
    }

    /// Whether it treats a datagram the same whatever went before. Such a link may be crossed in thought ahead of time.
    pub(super) const fn is_stateless(&self) -> bool {
        self.rate.is_none() && self.jitter.is_zero()
    }
}

/// A datagram at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// When.
    pub at: Duration,
    /// Whether a second copy comes with it.
    pub twice: bool,
}

/// A datagram that did not reach the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It vanished.
    Lost,
    /// The queue was full.
    QueueFull,
    /// It was too large, and nobody hears of it.
    TooLarge,
    /// It was too large, and the sender is told the MTU, bytes.
    Told(usize),
}

/// A link in one direction.
#[derive(Debug, Clone)]
pub struct Link {
    behaviour: LinkBehaviour,
    chance: SeededEntropy,
    /// When the last datagram so far has been put on the wire. Only links with a rate use it.
    idle_at: Duration,
    /// When the last one that was not held back comes out. Only links with jitter use it.
    last_out: Duration,
}

impl Link {
    /// An idle link. `chance` is its own stream, see [`random::stream`].
    #[must_use]
    pub const fn new(behaviour: LinkBehaviour, chance: SeededEntropy) -> Self {
        Self {
            behaviour,
            chance,
            idle_at: Duration::ZERO,
            last_out: Duration::ZERO,
        }
    }

    /// What it does.
    #[must_use]
    pub const fn behaviour(&self) -> &LinkBehaviour {
        &self.behaviour
    }

    /// It behaves otherwise from now on. What waits in the queue goes at the old rate.
    pub const fn set_behaviour(&mut self, behaviour: LinkBehaviour) {
        self.behaviour = behaviour;
    }

    /// An IP packet of `len` bytes is put on the link at the time `at`. O(1), and nothing is kept of it: a queue is the
    /// time at which it will be empty. Calls come in the order of their times, at least roughly: an earlier one after
    /// a later one finds the queue as the later one left it.
    ///
    /// # Errors
    ///
    /// Why it does not come out.
    pub fn cross(&mut self, at: Duration, len: usize) -> Result<Crossed, Dropped> {
        let does = &self.behaviour;
        if len > does.mtu {
            return Err(match does.too_large {
                TooLarge::Silent => Dropped::TooLarge,
                TooLarge::Told => Dropped::Told(does.mtu),
            });
        }
        let sent = match does.rate {
            None => at,
            Some(rate) => {
                let start = self.idle_at.max(at);
                if start - at > does.queue {
                    return Err(Dropped::QueueFull);
                }
                self.idle_at = start.saturating_add(time_on_wire(len, rate));
                self.idle_at
            }
        };
        // It has used the wire, whatever becomes of it behind it.
        if does.loss.happens(&mut self.chance) {
            return Err(Dropped::Lost);
        }
        let mut out = sent.saturating_add(does.delay);
        if !does.jitter.is_zero() {
            let nanos = u64::try_from(does.jitter.as_nanos()).unwrap_or(u64::MAX);
            let late = random::below(&mut self.chance, nanos.saturating_add(1));
            out = out
                .saturating_add(Duration::from_nanos(late))
                .max(self.last_out);
        }
        if does.reordering.happens(&mut self.chance) {
            out = out.saturating_add(does.held_back);
        } else {
            self.last_out = self.last_out.max(out);
        }
        Ok(Crossed {
            at: out,
            twice: does.duplication.happens(&mut self.chance),
        })
    }
}

fn time_on_wire(len: usize, rate: NonZeroU64) -> Duration {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    Duration::from_nanos(len.saturating_mul(1_000_000_000) / rate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn link(behaviour: LinkBehaviour) -> Link {
        Link::new(behaviour, random::stream(1, "link"))
    }

    #[test]
    fn a_perfect_link_does_nothing_but_refuse_what_is_too_large() {
        let mut perfect = link(LinkBehaviour::PERFECT);
        let crossed = Crossed {
            at: ms(5),
            twice: false,
        };
        assert_eq!(perfect.cross(ms(5), 1_500), Ok(crossed));
        assert_eq!(perfect.cross(ms(5), 1_501), Err(Dropped::TooLarge));
        let mut telling = LinkBehaviour::PERFECT;
        telling.too_large = TooLarge::Told;
        telling.mtu = 1_400;
        perfect.set_behaviour(telling);
        assert_eq!(perfect.cross(ms(5), 1_401), Err(Dropped::Told(1_400)));
    }

    #[test]
    fn a_rate_makes_a_queue_and_a_queue_is_bounded() {
        let mut slow = LinkBehaviour::with_delay(ms(10));
        // A packet of 1,000 bytes a millisecond; three wait.
        slow.rate = NonZeroU64::new(1_000_000);
        slow.queue = ms(3);
        let mut slow = link(slow);
        let mut cross = |at| slow.cross(ms(at), 1_000).map(|crossed| crossed.at);
        let out = [0; 5].map(&mut cross);
        let full = Err(Dropped::QueueFull);
        assert_eq!(out, [Ok(ms(11)), Ok(ms(12)), Ok(ms(13)), Ok(ms(14)), full]);
        assert_eq!(cross(1), Ok(ms(15)), "one has left");
        assert_eq!(cross(100), Ok(ms(111)), "all have");
    }

    #[test]
    fn shares_are_those_of_the_behaviour() {
        let mut lossy = LinkBehaviour::with_delay(ms(10));
        lossy.loss = Share::percent(10);
        lossy.duplication = Share::percent(20);
        lossy.reordering = Share::percent(30);
        lossy.held_back = ms(50);
        let mut lossy = link(lossy);
        let (mut lost, mut twice, mut held) = (0usize, 0usize, 0usize);
        for _ in 0..10_000 {
            match lossy.cross(ms(0), 100) {
                Ok(crossed) => {
                    twice += usize::from(crossed.twice);
                    held += usize::from(crossed.at == ms(60));
                }
                Err(dropped) => {
                    assert_eq!(dropped, Dropped::Lost);
                    lost += 1;
                }
            }
        }
        // Five standard deviations.
        assert!(lost.abs_diff(1_000) < 150, "{lost}");
        assert!(twice.abs_diff(1_800) < 200, "{twice}");
        assert!(held.abs_diff(2_700) < 230, "{held}");
    }

    fn behaviours() -> impl Strategy<Value = LinkBehaviour> {
        let share = || prop_oneof![Just(0), 0..500_000u32].prop_map(Share::millionths);
        let times = (0..50u64, 0..50u64, 0..50u64, 0..20u64);
        (times, share(), share(), share(), 0..1_000_000u64).prop_map(
            |((delay, jitter, held_back, queue), loss, duplication, reordering, rate)| {
                LinkBehaviour {
                    delay: ms(delay),
                    jitter: ms(jitter),
                    loss,
                    duplication,
                    reordering,
                    held_back: ms(held_back),
                    mtu: 1_500,
                    too_large: TooLarge::Silent,
                    rate: NonZeroU64::new(rate),
                    queue: ms(queue),
                }
            },
        )
    }

    proptest! {
        /// Nothing is faster than the delay and the wire; nothing is later than all that may hold it up; what is
        /// not held back keeps its order.
        #[test]
        fn what_comes_out_comes_in_time(
            behaviour in behaviours(),
            seed in any::<u64>(),
            sends in proptest::collection::vec((0..30u64, 20..1_500usize), 1..100),
        ) {
            let mut link = Link::new(behaviour, random::stream(seed, "link"));
            let (mut at, mut last) = (ms(0), ms(0));
            for (pause, len) in sends {
                at += ms(pause);
                let Ok(crossed) = link.cross(at, len) else { continue };
                let wire = behaviour.rate.map_or(ms(0), |rate| time_on_wire(len, rate));
                prop_assert!(crossed.at >= at + behaviour.delay + wire);
                let most = behaviour.queue + wire + behaviour.delay + behaviour.jitter;
                // Behind one that jitter made late it is as late as that one.
                prop_assert!(crossed.at <= at + most + behaviour.held_back);
                if behaviour.reordering == Share::NEVER {
                    prop_assert!(crossed.at >= last);
                    last = crossed.at;
                }
            }
        }
    }
}
