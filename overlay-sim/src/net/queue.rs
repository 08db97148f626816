//! Events in the order of their times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// An event queue. Events of the same time come in the order in which they were pushed.
///
/// `push` and `pop` are O(log n). What is sorted are keys of 24 bytes; an event lies still in its slot until it is
/// popped, whatever its size. The queue grows with what is pushed: its bound is what its user lets wait, see
/// [`Queue::len`]. Slots are used again, so memory is that of the fullest moment.
#[derive(Debug)]
pub struct Queue<E> {
    order: BinaryHeap<Reverse<Key>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    pushed: u64,
    popped_at: u64,
}

/// Compared in this order. Nanoseconds since the start; 64 bits hold 584 years.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: u64,
    number: u64,
    slot: usize,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Queue<E> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            pushed: 0,
            popped_at: 0,
        }
    }

    /// Adds an event for the time `at`. What is due before the last popped event is due at once, after
    /// everything that is due then: time does not go back.
    pub fn push(&mut self, at: Duration, event: E) {
        let at = u64::try_from(at.as_nanos())
            .unwrap_or(u64::MAX)
            .max(self.popped_at);
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(free) => *free = Some(event),
            None => self.slots.push(Some(event)),
        }
        self.order.push(Reverse(Key {
            at,
            number: self.pushed,
            slot,
        }));
        self.pushed += 1;
    }

    /// The first event and its time.
    pub fn pop(&mut self) -> Option<(Duration, E)> {
        let Reverse(key) = self.order.pop()?;
        self.popped_at = key.at;
        let event = self.slots.get_mut(key.slot)?.take()?;
        self.free.push(key.slot);
        Some((Duration::from_nanos(key.at), event))
    }

    /// The first event, if its time has come.
    pub fn pop_until(&mut self, now: Duration) -> Option<(Duration, E)> {
        self.next_at().filter(|at| *at <= now)?;
        self.pop()
    }

    /// The time of the first event.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let Reverse(key) = self.order.peek()?;
        Some(Duration::from_nanos(key.at))
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_does_not_go_back() {
        let mut queue = Queue::new();
        queue.push(ms(10), 'a');
        queue.push(ms(10), 'b');
        assert_eq!(queue.pop(), Some((ms(10), 'a')));
        queue.push(ms(3), 'c');
        assert_eq!(queue.next_at(), Some(ms(10)));
        assert_eq!(queue.pop_until(ms(9)), None);
        assert_eq!(queue.pop_until(ms(10)), Some((ms(10), 'b')));
        assert_eq!(queue.pop(), Some((ms(10), 'c')));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn slots_are_used_again() {
        let mut queue = Queue::new();
        for round in 0..1_000 {
            queue.push(ms(round), round);
            queue.push(ms(round), round);
            queue.pop();
            queue.pop();
        }
        assert!(queue.is_empty());
        assert_eq!(queue.slots.len(), 2);
    }

    proptest! {
        /// Against a stable sort.
        #[test]
        fn events_come_by_time_and_then_by_turn(times in proptest::collection::vec(0u64..20, 0..200)) {
            let mut queue = Queue::new();
            for (turn, at) in times.iter().enumerate() {
                queue.push(ms(*at), turn);
            }
            prop_assert_eq!(queue.len(), times.len());
            let mut expected: Vec<_> = times.iter().enumerate().map(|(turn, at)| (ms(*at), turn)).collect();
            expected.sort_by_key(|(at, _)| *at);
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(popped, expected);
        }
    }
}
