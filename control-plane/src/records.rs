//! The record store of Kademlia: verifies before it stores, and thereby before it acknowledges.
//!
//! Kademlia's own jobs, caching and provider records are off: owners republish their records, and
//! the local clock alone says when one lapses.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use overlay_proto::directory::StoredRecord;
use overlay_proto::ids::OverlayId;

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
pub(crate) enum Stored {
    Fresh,
    /// The very bytes are here; their age goes on.
    Same,
    Refused(RefusedRecord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedRecord {
    Invalid,
    Older,
    Full,
}

struct Held {
    record: Record,
    expires: Instant,
    /// Who stored it here; its share is bounded. `None`: the local node, or not attributed yet.
    source: Option<PeerId>,
}

/// Bounded by [`MAX_RECORDS`] and [`MAX_RECORDS_PER_PEER`]; [`Self::sweep`] removes what lapsed.
pub(crate) struct VerifyingStore {
    local: PeerId,
    /// Does it keep what the local node publishes? A node that serves nobody has no use for that: it would
    /// hold each of its records a second time.
    keeps_own: bool,
    rules: Arc<dyn RecordRules>,
    held: HashMap<[u8; 32], Held>,
    counts: HashMap<PeerId, usize>,
    /// Keys stored by Kademlia itself, in order: who sent them arrives in an event of the same
    /// order. No longer than the events that Kademlia has queued. `None`: nothing new was stored.
    unattributed: VecDeque<Option<[u8; 32]>>,
}

impl VerifyingStore {
    /// `serves`: others ask this node for records.
    pub(crate) fn new(local: PeerId, rules: Arc<dyn RecordRules>, serves: bool) -> Self {
        Self {
            local,
            keeps_own: serves,
            rules,
            held: HashMap::new(),
            counts: HashMap::new(),
            unattributed: VecDeque::new(),
        }
    }

    /// Stores a record that `source` sent.
    pub(crate) fn put_from(&mut self, source: PeerId, key: [u8; 32], value: Vec<u8>) -> Stored {
        let stored = self.store(key, Record::new(key.to_vec(), value), Instant::now());
        if stored == Stored::Fresh && !self.attribute(key, source) {
            return Stored::Refused(RefusedRecord::Full);
        }
        stored
    }

    /// Kademlia has stored one record; `source` sent it. A source past its share loses it again.
    pub(crate) fn attribute_next(&mut self, source: PeerId) {
        if let Some(Some(key)) = self.unattributed.pop_front() {
            self.attribute(key, source);
        }
    }

    pub(crate) fn value(&self, key: &[u8; 32]) -> Option<&[u8]> {
        let held = self.held.get(key)?;
        (held.expires > Instant::now()).then_some(held.record.value.as_slice())
    }

    /// Removes the records that everybody whom `gone` names has brought.
    pub(crate) fn remove_sources(&mut self, gone: impl Fn(&PeerId) -> bool) {
        let is_gone = |source: &Option<PeerId>| source.as_ref().is_some_and(&gone);
        self.held.retain(|_, held| !is_gone(&held.source));
        self.counts.retain(|source, _| !gone(source));
    }

    /// Removes what lapsed.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let counts = &mut self.counts;
        self.held.retain(|_, held| {
            let lives = held.expires > now;
            if !lives {
                release(counts, held.source);
            }
            lives
        });
    }

    fn store(&mut self, key: [u8; 32], mut record: Record, now: Instant) -> Stored {
        if record.value.len() > MAX_RECORD || !self.rules.check(&key, &record.value) {
            return Stored::Refused(RefusedRecord::Invalid);
        }
        let mut source = None;
        match self.held.get(&key).filter(|old| old.expires > now) {
            Some(old) if old.record.value == record.value => return Stored::Same,
            Some(old)
                if !self
                    .rules
                    .supersedes(&key, &record.value, &old.record.value) =>
            {
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
        let expires = now + MAX_TTL;
        record.expires = Some(expires);
        let held = Held {
            record,
            expires,
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
    fn attribute(&mut self, key: [u8; 32], source: PeerId) -> bool {
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

fn release(counts: &mut HashMap<PeerId, usize>, source: Option<PeerId>) {
    if let Some(source) = source
        && let Some(count) = counts.get_mut(&source)
    {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

fn key_of(key: &RecordKey) -> Option<[u8; 32]> {
    key.as_ref().try_into().ok()
}

impl RecordStore for VerifyingStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let held = self.held.get(&key_of(key)?)?;
        (held.expires > Instant::now()).then_some(Cow::Borrowed(&held.record))
    }

    /// Kademlia resets the stream of a put that fails here, and acknowledges the others.
    fn put(&mut self, record: Record) -> StoreResult<()> {
        let key = key_of(&record.key).ok_or(Error::ValueTooLarge)?;
        // Kademlia does not let a peer name the local node as publisher.
        let own = record.publisher == Some(self.local);
        if own && !self.keeps_own {
            let fits = record.value.len() <= MAX_RECORD && self.rules.check(&key, &record.value);
            return fits.then_some(()).ok_or(Error::ValueTooLarge);
        }
        match self.store(key, record, Instant::now()) {
            stored @ (Stored::Fresh | Stored::Same) => {
                if !own {
                    let fresh = stored == Stored::Fresh;
                    self.unattributed.push_back(fresh.then_some(key));
                }
                Ok(())
            }
            Stored::Refused(RefusedRecord::Full) => Err(Error::MaxRecords),
            Stored::Refused(_) => Err(Error::ValueTooLarge),
        }
    }

    fn remove(&mut self, key: &RecordKey) {
        if let Some(held) = key_of(key).and_then(|key| self.held.remove(&key)) {
            release(&mut self.counts, held.source);
        }
    }

    /// For the jobs that are off.
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> StoreResult<()> {
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &RecordKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn store() -> VerifyingStore {
        VerifyingStore::new(PeerId::random(), Arc::new(Toy), true)
    }

    fn record(key: u8, value: &[u8]) -> Record {
        Record::new(vec![key; 32], value.to_vec())
    }

    #[test]
    fn refuses_wrong_key_bad_and_older_records() {
        let mut store = store();
        assert!(store.put(record(1, &[2, 1])).is_err());
        assert!(store.put(Record::new(vec![1; 31], vec![1, 1])).is_err());
        assert!(store.put(record(1, &[1, 5])).is_ok());
        assert!(store.put(record(1, &[1, 4])).is_err());
        assert_eq!(store.value(&[1; 32]), Some(&[1, 5][..]));
        assert!(store.put(record(1, &[1, 6])).is_ok());
        assert_eq!(store.value(&[1; 32]), Some(&[1, 6][..]));
    }

    #[test]
    fn who_serves_nobody_checks_its_own_records_and_keeps_none() {
        let local = PeerId::random();
        for serves in [true, false] {
            let mut store = VerifyingStore::new(local, Arc::new(Toy), serves);
            let own = |value: &[u8]| Record {
                publisher: Some(local),
                ..record(1, value)
            };
            assert!(store.put(own(&[2, 1])).is_err(), "not of this key");
            assert!(store.put(own(&[1, 1])).is_ok());
            assert_eq!(store.value(&[1; 32]).is_some(), serves);
        }
    }

    #[test]
    fn age_restarts_only_with_a_newer_record() {
        let mut store = store();
        let key = [1; 32];
        let start = Instant::now();
        let put = |store: &mut VerifyingStore, value: &[u8], at| {
            store.store(key, Record::new(key.to_vec(), value.to_vec()), at)
        };
        let later = start + MAX_TTL / 2;
        assert_eq!(put(&mut store, &[1, 1], start), Stored::Fresh);
        assert_eq!(put(&mut store, &[1, 1], later), Stored::Same);
        store.sweep(start + MAX_TTL);
        assert!(store.held.is_empty());
        assert_eq!(put(&mut store, &[1, 1], start), Stored::Fresh);
        assert_eq!(put(&mut store, &[1, 2], later), Stored::Fresh);
        store.sweep(start + MAX_TTL);
        assert_eq!(store.held.len(), 1);
    }

    #[test]
    fn a_wire_ttl_does_not_count() {
        let mut store = store();
        let mut forever = record(1, &[1, 1]);
        forever.expires = Some(Instant::now() + 100 * MAX_TTL);
        store.put(forever).unwrap();
        store.sweep(Instant::now() + MAX_TTL);
        assert!(store.held.is_empty());
    }

    #[test]
    fn trust_8_the_records_of_a_revoked_node_go() {
        let mut store = store();
        let (out, other) = (PeerId::random(), PeerId::random());
        store.put_from(out, [1; 32], vec![1, 1]);
        store.put_from(other, [2; 32], vec![2, 1]);
        store.remove_sources(|peer| *peer == out);
        assert_eq!(store.value(&[1; 32]), None);
        assert!(store.value(&[2; 32]).is_some() && !store.counts.contains_key(&out));
    }

    #[test]
    fn one_peer_has_one_share() {
        let mut store = store();
        let peer = PeerId::random();
        let key = |n: usize| {
            let mut key = [0; 32];
            key[1..9].copy_from_slice(&n.to_be_bytes());
            key
        };
        for n in 0..MAX_RECORDS_PER_PEER {
            assert_eq!(store.put_from(peer, key(n), vec![0, 1]), Stored::Fresh);
        }
        let full = Stored::Refused(RefusedRecord::Full);
        assert_eq!(store.put_from(peer, key(9999), vec![0, 1]), full);
        assert_eq!(store.put_from(peer, key(1), vec![0, 2]), Stored::Fresh);
        store
            .put(Record::new(key(7777).to_vec(), vec![0, 1]))
            .unwrap();
        store.attribute_next(peer);
        assert_eq!(store.value(&key(7777)), None);
        let other = PeerId::random();
        assert_eq!(store.put_from(other, key(9999), vec![0, 1]), Stored::Fresh);
        store.sweep(Instant::now() + MAX_TTL);
        assert!(store.counts.is_empty());
    }
}
