//! Records outside the barrier, readable while sealed: slots, keyring, heads, fence.

use super::{
    base::Base,
    batch::{Committed, Version},
    change::Change,
    error::{CommitError, StoreError},
    frame,
    table::{self, RawTable},
};
use crate::base::id::OpId;
use bytes::Bytes;
use std::sync::Arc;
use strongroom_audit::Encoded;

/// Raw records of one table listed at once.
pub const RAW_ROWS_MAX: usize = 4096;

/// A record outside the barrier.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Its value.
    pub value: Bytes,
    /// For preconditions.
    pub version: Version,
}

/// See the module. Cheap to clone; works sealed and open.
#[derive(Clone)]
pub struct RawStore {
    pub(super) base: Arc<Base>,
}

impl RawStore {
    /// A raw record.
    /// # Errors
    /// [`StoreError`]; `Damaged` when its checksum is wrong.
    pub async fn get(&self, table: RawTable, id: &[u8]) -> Result<Option<RawRecord>, StoreError> {
        self.base.get_raw(table, id).await
    }

    /// Every raw record of a table, in order of their ids; damaged ones are left out, told in the second list.
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, table: RawTable) -> Result<(Vec<(Vec<u8>, RawRecord)>, Vec<String>), StoreError> {
        let start = table::raw_key(table, &[]);
        let end = table::successor(&start).ok_or(StoreError::Key("the table has no end"))?;
        let rows = self
            .base
            .physical
            .scan(start.to_vec(), end, RAW_ROWS_MAX, usize::MAX)
            .await?;
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for (key, stored) in rows {
            match frame::decode(&key, &stored.bytes) {
                Some(value) => {
                    let record = RawRecord {
                        value: stored.bytes.slice_ref(value),
                        version: stored.version,
                    };
                    records.push((key.get(table::HEAD_BYTES..).unwrap_or_default().to_vec(), record));
                }
                None => {
                    let words = table::digest_words(&key);
                    self.base.quarantine(&key, &words);
                    damaged.push(words);
                }
            }
        }
        Ok((records, damaged))
    }

    /// Commits raw writes and records of evidence. Works while sealed, therefore without writes inside the barrier.
    /// # Errors
    /// [`CommitError`]; `Sealed` when the change has writes inside the barrier.
    pub async fn commit(&self, change: Change, records: Vec<Encoded>) -> Result<Committed, CommitError> {
        self.base.commit(None, change, records).await
    }

    /// Settles [`CommitError::Indeterminate`]: whether that batch was made.
    /// # Errors
    /// [`StoreError`].
    pub async fn outcome(&self, op: OpId) -> Result<Option<Committed>, StoreError> {
        self.base.physical.outcome(op).await
    }
}
