//! A bounded table whose entries end when nobody uses them: what a router keeps its mappings in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Entries that end `expiry` after their last use. At most `limit`: for a new one the least recently used makes
/// room. A use is one look-up: the order of ages is mended only when something has to leave.
#[derive(Debug)]
pub(super) struct Aging<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Each key once, at its last use or before it.
    order: BTreeSet<(Duration, K)>,
    expiry: Duration,
    limit: usize,
    evicted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry<V> {
    used: Duration,
    /// Its place in the order.
    listed: Duration,
    value: V,
}

impl<K: Ord + Copy, V: Copy> Aging<K, V> {
    pub(super) const fn new(expiry: Duration, limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            expiry,
            limit,
            evicted: 0,
        }
    }

    /// The value of `key`, unless it has ended.
    pub(super) fn get(&self, now: Duration, key: &K) -> Option<V> {
        let entry = self.entries.get(key)?;
        (now < entry.used.saturating_add(self.expiry)).then_some(entry.value)
    }

    /// The same, and it is used now.
    pub(super) fn touch(&mut self, now: Duration, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        if now >= entry.used.saturating_add(self.expiry) {
            return None;
        }
        entry.used = entry.used.max(now);
        Some(entry.value)
    }

    /// Removes one entry that has ended or, without room for another, the least recently used. To be called until
    /// it gives nothing, before [`Self::insert`].
    pub(super) fn make_room(&mut self, now: Duration) -> Option<(K, V)> {
        loop {
            let (listed, key) = *self.order.first()?;
            let entry = self.entries.get_mut(&key)?;
            let used = entry.used;
            if used > listed {
                entry.listed = used;
                self.order.remove(&(listed, key));
                self.order.insert((used, key));
                continue;
            }
            let ended = now >= used.saturating_add(self.expiry);
            if !ended && self.entries.len() < self.limit {
                return None;
            }
            self.evicted += u64::from(!ended);
            return Some((key, self.remove(&key)?));
        }
    }

    /// Adds an entry that is used now, or replaces one. There is room: [`Self::make_room`] was asked.
    pub(super) fn insert(&mut self, now: Duration, key: K, value: V) {
        let entry = Entry {
            used: now,
            listed: now,
            value,
        };
        if let Some(old) = self.entries.insert(key, entry) {
            self.order.remove(&(old.listed, key));
        }
        self.order.insert((now, key));
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&(entry.listed, *key));
        Some(entry.value)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// Entries, with those that have ended and are not swept yet.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries that had to make room before they ended.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPIRY: Duration = Duration::from_secs(10);

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut table = Aging::new(EXPIRY, 2);
        table.insert(s(0), 'a', 1);
        table.insert(s(1), 'b', 2);
        assert_eq!(table.touch(s(2), &'a'), Some(1));
        assert_eq!(table.make_room(s(3)), Some(('b', 2)));
        assert_eq!(table.make_room(s(3)), None);
        table.insert(s(3), 'c', 3);
        assert_eq!(table.get(s(11), &'a'), Some(1));
        assert_eq!(table.get(s(12), &'a'), None, "10 s after its last use");
        assert_eq!(table.touch(s(12), &'a'), None, "and nothing wakes it");
        assert_eq!(table.make_room(s(12)), Some(('a', 1)));
        assert_eq!(table.evicted(), 1, "b, while a had ended");
        table.clear();
        assert_eq!((table.len(), table.make_room(s(99))), (0, None));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Insert(u8),
        Touch(u8),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..8u8).prop_map(Step::Insert),
            (0..8u8).prop_map(Step::Touch),
            (1..6u64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..120)
    }

    proptest! {
        /// Against a list from the least to the most recently used.
        #[test]
        fn it_is_a_list_by_last_use(steps in steps()) {
            let limit = 4;
            let mut table = Aging::new(EXPIRY, limit);
            let mut model: Vec<(u8, Duration)> = Vec::new();
            let mut now = s(0);
            for step in steps {
                // Uses are apart from each other, so that no ties are to be broken.
                now += Duration::from_millis(1);
                model.retain(|(_, used)| now < *used + EXPIRY);
                match step {
                    Step::Wait(wait) => now += s(wait),
                    Step::Touch(key) => {
                        let known = model.iter().position(|(known, _)| *known == key);
                        prop_assert_eq!(table.touch(now, &key).is_some(), known.is_some());
                        if let Some(known) = known {
                            model.remove(known);
                            model.push((key, now));
                        }
                    }
                    Step::Insert(key) => {
                        if table.touch(now, &key).is_none() {
                            while table.make_room(now).is_some() {}
                            table.insert(now, key, ());
                        }
                        model.retain(|(known, _)| *known != key);
                        if model.len() == limit {
                            model.remove(0);
                        }
                        model.push((key, now));
                    }
                }
                model.retain(|(_, used)| now < *used + EXPIRY);
                for key in 0..8 {
                    let known = model.iter().any(|(known, _)| *known == key);
                    prop_assert_eq!(table.get(now, &key).is_some(), known, "{} at {:?}", key, now);
                }
                prop_assert!(table.len() <= limit);
                prop_assert_eq!(table.len(), table.order.len());
            }
        }
    }
}
