//! The receiving half: which messages are new, and what must be acknowledged.

use std::collections::VecDeque;

/// Sequence numbers that are told apart. A sender keeps its unacknowledged ones closer together
/// than this, so one below the window has been seen or given up.
pub(super) const WINDOW: u32 = 1024;

/// Former channels of the peer whose late packets are known as such. A peer has a new channel
/// with each session.
const MAX_RETIRED: usize = 8;

/// Acknowledgements that wait to be sent: more than a sender has in flight, several times over.
/// One that finds no place comes again with the retransmission.
const MAX_ACKS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Receiver {
    channel: Option<u32>,
    retired: VecDeque<u32>,
    highest: u32,
    /// Bit `sequence % WINDOW`, for the `WINDOW` numbers up to `highest`.
    seen: [u64; (WINDOW / 64) as usize],
    acks: VecDeque<u32>,
}

impl Receiver {
    /// The peer's channel.
    pub(super) const fn channel(&self) -> Option<u32> {
        self.channel
    }

    /// A packet of the peer's channel `channel` came. False for a late one of a former channel.
    pub(super) fn enter(&mut self, channel: u32) -> bool {
        if self.channel == Some(channel) {
            return true;
        }
        if self.retired.contains(&channel) {
            return false;
        }
        if let Some(old) = self.channel {
            self.retired.push_back(old);
        }
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_front();
        }
        *self = Self {
            channel: Some(channel),
            retired: std::mem::take(&mut self.retired),
            ..Self::default()
        };
        true
    }

    /// Notes that `sequence` came and must be acknowledged; true when it is new.
    pub(super) fn note(&mut self, sequence: u32) -> bool {
        if self.acks.len() < MAX_ACKS {
            self.acks.push_back(sequence);
        }
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            for step in 1..=ahead.min(WINDOW) {
                self.set(self.highest.wrapping_add(step), false);
            }
            self.highest = sequence;
        } else if self.highest - sequence >= WINDOW || self.get(sequence) {
            return false;
        }
        self.set(sequence, true);
        true
    }

    /// Is there something to acknowledge?
    pub(super) fn has_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// The oldest acknowledgements, at most `limit`.
    pub(super) fn take_acks(&mut self, limit: usize) -> Vec<u32> {
        let count = limit.min(self.acks.len());
        self.acks.drain(..count).collect()
    }

    fn get(&self, sequence: u32) -> bool {
        let (word, bit) = place(sequence);
        self.seen.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, sequence: u32, seen: bool) {
        let (word, bit) = place(sequence);
        if let Some(word) = self.seen.get_mut(word) {
            *word = if seen { *word | bit } else { *word & !bit };
        }
    }
}

const fn place(sequence: u32) -> (usize, u64) {
    let at = sequence % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn late_packets_of_a_former_channel() {
        let mut receiver = Receiver::default();
        assert!(receiver.enter(1) && receiver.note(5) && !receiver.note(5));
        assert!(receiver.enter(2) && receiver.note(5));
        assert_eq!(receiver.take_acks(9), [5], "those of channel 1 are void");
        assert!(!receiver.enter(1));
        assert_eq!(receiver.channel(), Some(2));
        for channel in 3..100 {
            assert!(receiver.enter(channel));
        }
        assert_eq!(receiver.retired.len(), MAX_RETIRED);
    }

    #[test]
    fn bounded_acks() {
        let mut receiver = Receiver::default();
        for sequence in 1..=2000 {
            assert!(receiver.note(sequence));
        }
        assert_eq!(receiver.take_acks(usize::MAX).len(), MAX_ACKS);
        assert!(!receiver.note(2000) && !receiver.note(977) && !receiver.note(976));
    }

    proptest! {
        #[test]
        fn new_once_within_the_window(steps in prop::collection::vec((0u32..1500, any::<bool>()), 1..300)) {
            let (mut receiver, mut model, mut highest) = (Receiver::default(), BTreeSet::new(), 0u32);
            for (step, forward) in steps {
                let sequence = if forward {
                    highest.saturating_add(step % 40)
                } else {
                    highest.saturating_sub(step)
                }.max(1);
                let expected = (sequence > highest || highest - sequence < WINDOW)
                    && model.insert(sequence);
                highest = highest.max(sequence);
                prop_assert_eq!(receiver.note(sequence), expected);
            }
        }

        #[test]
        fn leaps_never_panic(sequences in prop::collection::vec(any::<u32>(), 1..50)) {
            let mut receiver = Receiver::default();
            for sequence in sequences {
                receiver.note(sequence);
            }
        }
    }
}
