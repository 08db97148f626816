//! The records that a server of the DHT keeps: verified before they are stored, and thereby before they are
//! acknowledged.
//!
//! Owners republish their records, and the local clock alone says when one lapses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overlay_proto::directory::StoredRecord;
use overlay_proto::ids::{OverlayId, PeerId};

use crate::messages::MAX_RECORD;

/// Records in the store: at 4 KiB each never more than 256 MiB, as sent by members some 30 MiB.
pub const MAX_RECORDS: usize = 65_536;

/// Records that one connected member may have stored here.
pub const MAX_RECORDS_PER_PEER: usize = 4_096;

/// A record lapses after this long by the local clock (DIRECTORY.md, "Storage and lookup").
pub const MAX_TTL: Duration = Duration::from_secs(600);

/// Judges DHT records without knowing the network they belong to.
pub trait RecordRules: Send + Sync {
    /// Whether `value` is well formed, belongs to `key` and is signed by the key that `key` names.
    fn check(&self, key: &[u8; 32], value: &[u8]) -> bool;

    /// Whether `new` takes the place of `old`; both have been checked for `key`.
    fn supersedes(&self, key: &[u8; 32], new: &[u8], old: &[u8]) -> bool;
}

/// The rules of the directory's records (DIRECTORY.md, "Storage and lookup").
#[derive(Debug, Clone, Copy)]
pub struct SignedRecords {
    /// The overlay that the signatures cover.
    pub overlay: OverlayId,
}

impl RecordRules for SignedRecords {
    fn check(&self, key: &[u8; 32], value: &[u8]) -> bool {
        StoredRecord::verify(&self.overlay, key, value).is_ok()
    }

    fn supersedes(&self, key: &[u8; 32], new: &[u8], old: &[u8]) -> bool {
        let read = |bytes| StoredRecord::verify(&self.overlay, key, bytes);
        match (read(new), read(old)) {
            (Ok(new), Ok(old)) => new.supersedes(&old),
            _ => false,
        }
    }
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is kept.
    Fresh,
    /// The very bytes are here; their age goes on.
    Same,
    /// It is not kept.
    Refused(RefusedRecord),
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedRecord {
    /// It is too large, or does not belong to its key.
    Invalid,
    /// A newer one is here.
    Older,
    /// The store, or the share of whoever sent it, is full.
    Full,
}

/// A record that is kept.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its bytes.
    pub value: Vec<u8>,
    /// When it lapses.
    pub expires: Instant,
    /// The local node has published it.
    pub is_own: bool,
    /// Who stored it here; its share is bounded. `None`: the local node, or not attributed yet.
    source: Option<PeerId>,
}

/// Bounded by [`MAX_RECORDS`] and [`MAX_RECORDS_PER_PEER`]; [`Self::sweep`] removes what lapsed.
pub struct Records {
    rules: Arc<dyn RecordRules>,
    held: BTreeMap<[u8; 32], Held>,
    counts: BTreeMap<PeerId, usize>,
}

impl Records {
    /// An empty store that goes by `rules`.
    #[must_use]
    pub fn new(rules: Arc<dyn RecordRules>) -> Self {
        Self {
            rules,
            held: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Stores a record that `source` sent.
    pub fn put_from(
        &mut self,
        source: PeerId,
        key: [u8; 32],
        value: Vec<u8>,
        now: Instant,
    ) -> Stored {
        let stored = self.put(key, value, false, now);
        if stored == Stored::Fresh && !self.attribute(key, source) {
            return Stored::Refused(RefusedRecord::Full);
        }
        stored
    }

    /// May `value` be stored under `key` at all?
    #[must_use]
    pub fn is_valid(&self, key: &[u8; 32], value: &[u8]) -> bool {
        value.len() <= MAX_RECORD && self.rules.check(key, value)
    }

    /// The record under `key`, unless it has lapsed.
    #[must_use]
    pub fn get(&self, key: &[u8; 32], now: Instant) -> Option<&Held> {
        self.held.get(key).filter(|held| held.expires > now)
    }

    /// Removes what lapsed.
    pub fn sweep(&mut self, now: Instant) {
        let counts = &mut self.counts;
        self.held.retain(|_, held| {
            let lives = held.expires > now;
            if !lives {
                release(counts, held.source);
            }
            lives
        });
    }

    /// Removes one record.
    pub fn remove(&mut self, key: &[u8; 32]) {
        if let Some(held) = self.held.remove(key) {
            release(&mut self.counts, held.source);
        }
    }

    /// Removes the records that everybody whom `gone` names has brought.
    pub fn remove_sources(&mut self, gone: impl Fn(&PeerId) -> bool) {
        let is_gone = |source: &Option<PeerId>| source.as_ref().is_some_and(&gone);
        self.held.retain(|_, held| !is_gone(&held.source));
        self.counts.retain(|source, _| !gone(source));
    }

    /// Stores a record of the local node (`is_own`), or one whose sender is said by [`Self::attribute`].
    pub fn put(&mut self, key: [u8; 32], value: Vec<u8>, is_own: bool, now: Instant) -> Stored {
        if !self.is_valid(&key, &value) {
            return Stored::Refused(RefusedRecord::Invalid);
        }
        let mut source = None;
        match self.held.get(&key).filter(|old| old.expires > now) {
            Some(old) if old.value == value => return Stored::Same,
            Some(old) if !self.rules.supersedes(&key, &value, &old.value) => {
                return Stored::Refused(RefusedRecord::Older);
            }
            Some(old) => source = old.source,
            None if self.held.len() >= MAX_RECORDS => {
                self.sweep(now);
                if self.held.len() >= MAX_RECORDS {
                    return Stored::Refused(RefusedRecord::Full);
                }
            }
            None => {}
        }
        let held = Held {
            value,
            expires: now + MAX_TTL,
            is_own,
            source,
        };
        if let Some(old) = self.held.insert(key, held)
            && source.is_none()
        {
            release(&mut self.counts, old.source);
        }
        Stored::Fresh
    }

    /// Books a record on `source`'s share; removes the record and says `false` when that is full.
    pub fn attribute(&mut self, key: [u8; 32], source: PeerId) -> bool {
        let Some(held) = self.held.get_mut(&key) else {
            return true;
        };
        // A newer record stays on the share of who brought the first.
        if held.source.is_some() {
            return true;
        }
        let count = self.counts.entry(source).or_default();
        if *count >= MAX_RECORDS_PER_PEER {
            self.held.remove(&key);
            return false;
        }
        *count += 1;
        held.source = Some(source);
        true
    }
}

fn release(counts: &mut BTreeMap<PeerId, usize>, source: Option<PeerId>) {
    if let Some(source) = source
        && let Some(count) = counts.get_mut(&source)
    {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);

    /// A record is its key's first byte and a generation.
    struct Toy;

    impl RecordRules for Toy {
        fn check(&self, key: &[u8; 32], value: &[u8]) -> bool {
            matches!(value, [first, _] if *first == key[0])
        }

        fn supersedes(&self, _: &[u8; 32], new: &[u8], old: &[u8]) -> bool {
            new[1] > old[1]
        }
    }

    fn store() -> (Records, Instant) {
        (Records::new(Arc::new(Toy)), crate::some_instant())
    }

    fn value(store: &Records, key: u8, now: Instant) -> Option<&[u8]> {
        store.get(&[key; 32], now).map(|held| &*held.value)
    }

    #[test]
    fn refuses_wrong_key_bad_and_older_records() {
        let (mut store, now) = store();
        let mut put = |value: &[u8]| {
            let stored = store.put_from(ONE, [1; 32], value.to_vec(), now);
            (
                stored,
                store.get(&[1; 32], now).map(|held| held.value.clone()),
            )
        };
        let refused = |why| Stored::Refused(why);
        assert_eq!(put(&[2, 1]), (refused(RefusedRecord::Invalid), None));
        assert_eq!(put(&[1, 5]), (Stored::Fresh, Some(vec![1, 5])));
        assert_eq!(
            put(&[1, 4]),
            (refused(RefusedRecord::Older), Some(vec![1, 5]))
        );
        assert_eq!(put(&[1, 6]), (Stored::Fresh, Some(vec![1, 6])));
    }

    #[test]
    fn age_restarts_only_with_a_newer_record() {
        let (mut store, start) = store();
        let put =
            |store: &mut Records, value: &[u8], at| store.put([1; 32], value.to_vec(), false, at);
        let later = start + MAX_TTL / 2;
        assert_eq!(put(&mut store, &[1, 1], start), Stored::Fresh);
        assert_eq!(put(&mut store, &[1, 1], later), Stored::Same);
        assert_eq!(value(&store, 1, start + MAX_TTL), None);
        store.sweep(start + MAX_TTL);
        assert!(store.held.is_empty());
        assert_eq!(put(&mut store, &[1, 1], start), Stored::Fresh);
        assert_eq!(put(&mut store, &[1, 2], later), Stored::Fresh);
        store.sweep(start + MAX_TTL);
        assert_eq!(store.held.len(), 1);
    }

    #[test]
    fn trust_8_the_records_of_a_revoked_node_go() {
        let (mut store, now) = store();
        store.put_from(ONE, [1; 32], vec![1, 1], now);
        store.put_from(OTHER, [2; 32], vec![2, 1], now);
        store.remove_sources(|peer| *peer == ONE);
        assert_eq!(value(&store, 1, now), None);
        assert!(value(&store, 2, now).is_some() && !store.counts.contains_key(&ONE));
    }

    #[test]
    fn one_peer_has_one_share() {
        let (mut store, now) = store();
        let key = |n: usize| {
            let mut key = [0; 32];
            key[1..9].copy_from_slice(&n.to_be_bytes());
            key
        };
        for n in 0..MAX_RECORDS_PER_PEER {
            assert_eq!(store.put_from(ONE, key(n), vec![0, 1], now), Stored::Fresh);
        }
        let full = Stored::Refused(RefusedRecord::Full);
        assert_eq!(store.put_from(ONE, key(9999), vec![0, 1], now), full);
        assert_eq!(store.put_from(ONE, key(1), vec![0, 2], now), Stored::Fresh);
        store.put(key(7777), vec![0, 1], false, now);
        assert!(!store.attribute(key(7777), ONE));
        assert!(store.get(&key(7777), now).is_none());
        assert_eq!(
            store.put_from(OTHER, key(9999), vec![0, 1], now),
            Stored::Fresh
        );
        store.sweep(now + MAX_TTL);
        assert!(store.counts.is_empty());
    }
}
