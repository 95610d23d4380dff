//! The quarantine list: records that did not open. Outside the barrier and therefore without plain names: it keeps stored keys, and says
//! them in words only to those who have the names key. R-STORE-4.

use super::table::{self, RawTable};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tracing::error;

/// Records listed; further ones are only counted.
pub const QUARANTINE_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Quarantine {
    listed: Mutex<BTreeMap<Bytes, ()>>,
    /// Times a damaged record was met since the start.
    met: std::sync::atomic::AtomicU64,
}

impl Quarantine {
    pub fn with(listed: impl Iterator<Item = Bytes>) -> Self {
        Self {
            listed: Mutex::new(listed.take(QUARANTINE_MAX).map(|key| (key, ())).collect()),
            met: 0.into(),
        }
    }

    /// The row of a listed record.
    pub fn row_key(key: &[u8]) -> Bytes {
        table::raw_key(RawTable::Quarantine, &table::digest(key))
    }

    /// Notes a record; whether it is new to the list.
    pub fn note(&self, key: &[u8], words: &str) -> bool {
        self.met.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut listed = self.listed.lock();
        if listed.len() >= QUARANTINE_MAX || listed.contains_key(key) {
            return false;
        }
        error!(record = words, "a damaged record is refused and listed in quarantine");
        listed.insert(Bytes::copy_from_slice(key), ());
        true
    }

    /// Those of `keys` that are listed: writing them anew mends them.
    pub fn mended_by<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) -> Vec<Bytes> {
        let listed = self.listed.lock();
        if listed.is_empty() {
            return Vec::new();
        }
        keys.filter(|key| listed.contains_key(*key)).cloned().collect()
    }

    pub fn forget(&self, keys: &[Bytes]) {
        let mut listed = self.listed.lock();
        for key in keys {
            listed.remove(key);
        }
    }

    pub fn keys(&self) -> Vec<Bytes> {
        self.listed.lock().keys().cloned().collect()
    }

    pub fn met(&self) -> u64 {
        self.met.load(std::sync::atomic::Ordering::Relaxed)
    }
}
