//! A network's keys change with its epochs, and with them where in the DHT its records lie.
//!
//! Own claims are published under the new key, all within 5 s. Others may not know it yet: until
//! the records of the epoch before have died, look-ups ask under both keys. Whoever still has the
//! old key, a revoked node too, can write records under it; they count for their signers'
//! certificates alone, as all do.

use std::time::Instant;

use super::{Directory, DirectoryAction};
use crate::directory::claim::VerifiedClaim;
use crate::directory::record::{RecordKey, RecordReader};
use crate::drop_reason::DropReason;
use crate::switching::MacKey;

impl Directory {
    /// The network's epoch key is `key` now; records are still read under `old`. Harmless to repeat.
    pub fn set_epoch(&mut self, now: Instant, key: [u8; 32], old: Option<[u8; 32]>) {
        let begins = key != self.config.epoch_key;
        self.config.epoch_key = key;
        self.config.old_epoch_key = old;
        if !begins {
            return;
        }
        self.publish_all_soon(now);
        // What was not found under the old key may lie under the new one.
        for mac in self.asking.lookups.ask_again() {
            self.ask_dht(mac, &[key]);
        }
    }

    /// Asks the DHT under each of the keys that its records may lie under; how often it was asked.
    pub(super) fn ask_dht_for(&mut self, mac: MacKey) -> usize {
        let keys: Vec<_> = self.epoch_keys().collect();
        self.ask_dht(mac, &keys);
        keys.len()
    }

    /// Opens a record of `mac` under the key that it was sealed with.
    pub(super) fn open_record(
        &self,
        now: Instant,
        mac: &MacKey,
        bytes: &[u8],
    ) -> Result<VerifiedClaim, DropReason> {
        let generation_limit = self.generation_limit(now);
        for epoch_key in self.epoch_keys() {
            let reader = RecordReader {
                overlay: &self.config.overlay,
                network: &self.config.network,
                epoch_key: &epoch_key,
                generation_limit,
            };
            // One of another key fails before its signature is looked at.
            match reader.open_record(mac, bytes) {
                Err(DropReason::RecordInvalid) => {}
                outcome => return outcome,
            }
        }
        Err(DropReason::RecordInvalid)
    }

    fn ask_dht(&mut self, mac: MacKey, epoch_keys: &[[u8; 32]]) {
        for epoch_key in epoch_keys {
            let dht_key = RecordKey::derive(epoch_key, &mac).dht_key();
            let key = mac;
            self.actions.push(DirectoryAction::DhtGet { key, dht_key });
        }
    }

    /// The current one first.
    fn epoch_keys(&self) -> impl Iterator<Item = [u8; 32]> + use<> {
        let keys = [Some(self.config.epoch_key), self.config.old_epoch_key];
        keys.into_iter().flatten()
    }
}
