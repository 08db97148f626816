//! The record store of Kademlia around [`Records`]. Kademlia's own jobs, caching and provider records are off.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Instant;

use control_proto::records::{Records, RefusedRecord, Stored};
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use crate::addr;

/// What Kademlia stores, and who sent it.
pub(crate) struct VerifyingStore {
    local: PeerId,
    /// Does it keep what the local node publishes? A node that serves nobody has no use for that: it would
    /// hold each of its records a second time.
    keeps_own: bool,
    pub(crate) records: Records,
    /// Keys stored by Kademlia itself, in order: who sent them arrives in an event of the same
    /// order. No longer than the events that Kademlia has queued. `None`: nothing new was stored.
    unattributed: VecDeque<Option<[u8; 32]>>,
}

impl VerifyingStore {
    /// `serves`: others ask this node for records.
    pub(crate) fn new(local: PeerId, records: Records, serves: bool) -> Self {
        Self {
            local,
            keeps_own: serves,
            records,
            unattributed: VecDeque::new(),
        }
    }

    /// Kademlia has stored one record; `source` sent it. A source past its share loses it again.
    pub(crate) fn attribute_next(&mut self, source: PeerId) {
        let stored = self.unattributed.pop_front().flatten();
        // The name of whoever was admitted is always one of ours.
        if let (Some(key), Some(source)) = (stored, addr::from_libp2p(&source)) {
            self.records.attribute(key, source);
        }
    }
}

fn key_of(key: &RecordKey) -> Option<[u8; 32]> {
    key.as_ref().try_into().ok()
}

impl RecordStore for VerifyingStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    /// The publisher is named for own records alone: by it Kademlia knows what `remove_record` may forget. Of others it
    /// is what a stranger has written and no signature covers; Kademlia reads it in its jobs for publication and
    /// replication, which are off, and when a record comes, where this store has the last word on the age.
    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        let held = self.records.get(&key_of(key)?, Instant::now())?;
        Some(Cow::Owned(Record {
            key: key.clone(),
            value: held.value.clone(),
            publisher: held.is_own.then_some(self.local),
            expires: Some(held.expires),
        }))
    }

    /// Kademlia resets the stream of a put that fails here, and acknowledges the others.
    fn put(&mut self, record: Record) -> StoreResult<()> {
        let key = key_of(&record.key).ok_or(Error::ValueTooLarge)?;
        // Kademlia does not let a peer name the local node as publisher.
        let own = record.publisher == Some(self.local);
        if own && !self.keeps_own {
            let fits = self.records.is_valid(&key, &record.value);
            return fits.then_some(()).ok_or(Error::ValueTooLarge);
        }
        match self.records.put(key, record.value, own, Instant::now()) {
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
        if let Some(key) = key_of(key) {
            self.records.remove(&key);
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
    use std::sync::Arc;

    use control_proto::records::{MAX_TTL, RecordRules};

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

    fn store(local: PeerId, serves: bool) -> VerifyingStore {
        VerifyingStore::new(local, Records::new(Arc::new(Toy)), serves)
    }

    fn record(key: u8, value: &[u8]) -> Record {
        Record::new(vec![key; 32], value.to_vec())
    }

    #[test]
    fn who_serves_nobody_checks_its_own_records_and_keeps_none() {
        let local = PeerId::random();
        for serves in [true, false] {
            let mut store = store(local, serves);
            let own = |value: &[u8]| Record {
                publisher: Some(local),
                ..record(1, value)
            };
            assert!(store.put(own(&[2, 1])).is_err(), "not of this key");
            assert!(store.put(own(&[1, 1])).is_ok());
            let kept = store.get(&own(&[]).key).map(Cow::into_owned);
            assert_eq!(kept.is_some(), serves);
            // By this Kademlia knows what it may forget when the node takes it back.
            assert!(kept.is_none_or(|kept| kept.publisher == Some(local)));
        }
    }

    #[test]
    fn a_wire_ttl_does_not_count() {
        let mut store = store(PeerId::random(), true);
        assert!(store.put(Record::new(vec![1; 31], vec![1, 1])).is_err());
        let mut forever = record(1, &[1, 1]);
        forever.expires = Some(Instant::now() + 100 * MAX_TTL);
        store.put(forever).unwrap();
        store.records.sweep(Instant::now() + MAX_TTL);
        assert!(store.get(&record(1, &[]).key).is_none());
    }
}
