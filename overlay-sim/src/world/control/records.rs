//! What a bootstrap keeps of the DHT.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_proto::ids::PeerId;

/// A record dies at this age.
const LIFETIME: Duration = Duration::from_secs(600);

/// How the DHT at a bootstrap is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreMood {
    /// It has what was put last.
    #[default]
    Keeps,
    /// It takes everything and has nothing.
    Forgets,
    /// It has what was put first, for ever.
    Stale,
}

#[derive(Debug)]
struct Record {
    from: PeerId,
    bytes: Vec<u8>,
    put: Duration,
}

/// Bound: the MACs of the world, once for each epoch of their networks.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) mood: StoreMood,
    records: BTreeMap<[u8; 32], Record>,
}

impl Records {
    pub(super) fn put(&mut self, now: Duration, from: PeerId, key: [u8; 32], bytes: Vec<u8>) {
        if self.mood == StoreMood::Stale && self.records.contains_key(&key) {
            return;
        }
        let put = now;
        self.records.insert(key, Record { from, bytes, put });
    }

    pub(super) fn get(&self, now: Duration, key: &[u8; 32]) -> Option<Vec<u8>> {
        let lives = |record: &&Record| match self.mood {
            StoreMood::Keeps => now.saturating_sub(record.put) < LIFETIME,
            StoreMood::Forgets => false,
            StoreMood::Stale => true,
        };
        let record = self.records.get(key).filter(lives);
        record.map(|record| record.bytes.clone())
    }

    /// The records of everybody whom `gone` names are removed.
    pub(super) fn remove(&mut self, gone: impl Fn(&PeerId) -> bool) {
        self.records.retain(|_, record| !gone(&record.from));
    }
}
