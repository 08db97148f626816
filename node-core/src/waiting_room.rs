//! Frames that wait for something: a look-up, a session, a claim.
//!
//! One bounded room serves all three. When it is full the oldest frame of the same key leaves, then
//! the oldest of all; what waited too long leaves at the next [`WaitingRoom::expire`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The bounds of a room.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Frames per key.
    pub per_key: usize,
    /// Frames in all.
    pub in_all: usize,
    /// How long a frame may wait.
    pub max_wait: Duration,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    frame: Vec<u8>,
}

/// Frames by what they wait for.
#[derive(Debug)]
pub struct WaitingRoom<K> {
    bounds: Bounds,
    queues: BTreeMap<K, VecDeque<Waiting>>,
    count: usize,
}

impl<K: Ord + Copy> WaitingRoom<K> {
    /// An empty room.
    #[must_use]
    pub const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queues: BTreeMap::new(),
            count: 0,
        }
    }

    /// How many frames wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Does none wait?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lets `frame` wait for `key`. Returns how many older frames had to leave (0 or 1).
    pub fn push(&mut self, now: Instant, key: K, frame: Vec<u8>) -> u64 {
        let mut left = 0;
        if self
            .queues
            .get(&key)
            .is_some_and(|queue| queue.len() >= self.bounds.per_key)
        {
            left += self.pop_oldest_of(key);
        } else if self.count >= self.bounds.in_all {
            left += self.pop_oldest();
        }
        self.queues
            .entry(key)
            .or_default()
            .push_back(Waiting { since: now, frame });
        self.count += 1;
        left
    }

    /// Everything that waited for `key`, oldest first.
    pub fn take(&mut self, key: K) -> Vec<Vec<u8>> {
        let queue = self.queues.remove(&key).unwrap_or_default();
        self.count -= queue.len();
        queue.into_iter().map(|waiting| waiting.frame).collect()
    }

    /// The newest that waits for `key`.
    pub fn take_newest(&mut self, key: K) -> Option<Vec<u8>> {
        let queue = self.queues.get_mut(&key)?;
        let newest = queue.pop_back()?;
        let empty = queue.is_empty();
        self.count -= 1;
        if empty {
            self.queues.remove(&key);
        }
        Some(newest.frame)
    }

    /// Copies of everything that waits for `key`, oldest first.
    pub fn peek(&self, key: K) -> Vec<Vec<u8>> {
        let queue = self.queues.get(&key).into_iter().flatten();
        queue.map(|waiting| waiting.frame.clone()).collect()
    }

    /// The keys that something waits for.
    pub fn keys(&self) -> Vec<K> {
        self.queues.keys().copied().collect()
    }

    /// Removes what waited too long; returns how many frames that were.
    pub fn expire(&mut self, now: Instant) -> u64 {
        let (max_wait, before) = (self.bounds.max_wait, self.count);
        let mut count = 0;
        self.queues.retain(|_, queue| {
            while queue
                .front()
                .is_some_and(|w| now.duration_since(w.since) >= max_wait)
            {
                queue.pop_front();
            }
            count += queue.len();
            !queue.is_empty()
        });
        self.count = count;
        u64::try_from(before - count).unwrap_or(u64::MAX)
    }

    /// When the next frame will have waited too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.queues.values().filter_map(|queue| queue.front());
        oldest
            .map(|waiting| waiting.since + self.bounds.max_wait)
            .min()
    }

    fn pop_oldest_of(&mut self, key: K) -> u64 {
        let popped = self
            .queues
            .get_mut(&key)
            .and_then(VecDeque::pop_front)
            .is_some();
        self.count -= usize::from(popped);
        u64::from(popped)
    }

    fn pop_oldest(&mut self) -> u64 {
        let oldest = self
            .queues
            .iter()
            .filter_map(|(key, queue)| queue.front().map(|waiting| (waiting.since, *key)))
            .min_by_key(|(since, _)| *since);
        let Some((_, key)) = oldest else { return 0 };
        let popped = self.pop_oldest_of(key);
        if self.queues.get(&key).is_some_and(VecDeque::is_empty) {
            self.queues.remove(&key);
        }
        popped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        per_key: 2,
        in_all: 3,
        max_wait: Duration::from_millis(200),
    };

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_oldest_of_the_key_leaves_first() {
        let now = self::now();
        let mut room = WaitingRoom::new(BOUNDS);
        assert_eq!(room.push(now, 'a', vec![1]), 0);
        assert_eq!(room.push(now, 'a', vec![2]), 0);
        assert_eq!(room.push(now, 'a', vec![3]), 1);
        assert_eq!(room.take('a'), vec![vec![2], vec![3]]);
        assert!(room.keys().is_empty());
    }

    #[test]
    fn the_newest_can_go_first() {
        let now = self::now();
        let mut room = WaitingRoom::new(BOUNDS);
        assert_eq!(room.take_newest('a'), None);
        room.push(now, 'a', vec![1]);
        room.push(now, 'a', vec![2]);
        assert_eq!(room.take_newest('a'), Some(vec![2]));
        assert_eq!(room.take_newest('a'), Some(vec![1]));
        assert!(room.keys().is_empty());
        assert_eq!(room.next_expiry(), None);
        assert_eq!(room.expire(now), 0);
    }

    #[test]
    fn the_oldest_of_all_leaves_when_the_room_is_full() {
        let now = self::now();
        let mut room = WaitingRoom::new(BOUNDS);
        for (delay, key) in [(0, 'a'), (1, 'b'), (2, 'c')] {
            assert_eq!(
                room.push(now + Duration::from_millis(delay), key, vec![0]),
                0
            );
        }
        assert_eq!(room.push(now + Duration::from_millis(3), 'd', vec![0]), 1);
        assert!(room.take('a').is_empty());
        assert_eq!(room.take('d').len(), 1);
    }

    #[test]
    fn waiting_too_long_ends_the_wait() {
        let now = self::now();
        let mut room = WaitingRoom::new(BOUNDS);
        room.push(now, 'a', vec![1]);
        room.push(now + Duration::from_millis(100), 'a', vec![2]);
        assert_eq!(room.next_expiry(), Some(now + Duration::from_millis(200)));
        assert_eq!(room.expire(now + Duration::from_millis(200)), 1);
        assert_eq!(room.take('a'), vec![vec![2]]);
        assert_eq!(room.next_expiry(), None);
    }
}
