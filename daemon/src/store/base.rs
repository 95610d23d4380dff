//! What sealed and open store share: the physical store, ids, the barrier's sequence, the quarantine list, and the one way to commit.

use super::{
    batch::{Batch, Committed, Lane},
    change::{Change, Do},
    error::{CommitError, StoreError},
    frame,
    keyring::Keyring,
    local::Physical,
    quarantine::Quarantine,
    raw::RawRecord,
    record::{self, Algorithm, Ids},
    sequence::Sequence,
    table::{self, RawTable},
};
use crate::base::{id::OpId, limits::VALUE_BYTES_MAX, random::Random};
use std::sync::Arc;
use strongroom_audit::Encoded;
use tokio::sync::RwLock;

/// Changes with more plain bytes than this go by the bulk lane.
const BULK_BYTES: usize = 64 << 10;
/// The longest plain value: 1 MiB and its room's frame.
const PLAIN_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Records that one AES-256-GCM key may seal (NIST SP 800-38D, 8.3).
const GCM_SEALS_MAX: u64 = 1 << 32;
/// From here on the keyring asks to be rotated.
const GCM_SEALS_ROTATE: u64 = 1 << 30;

pub(super) struct Base {
    pub physical: Arc<dyn Physical>,
    pub ids: Ids,
    pub random: Arc<dyn Random>,
    pub sequence: Sequence,
    pub quarantine: Arc<Quarantine>,
    /// Read by commits that seal, written by rotation: after a rotation nothing is under way under an older key.
    pub rotation: RwLock<()>,
}

impl Base {
    pub async fn get_raw(&self, table: RawTable, id: &[u8]) -> Result<Option<RawRecord>, StoreError> {
        let key = table::raw_key(table, id);
        let Some(stored) = self.physical.get(&key).await? else { return Ok(None) };
        match frame::decode(&key, &stored.bytes) {
            Some(value) => Ok(Some(RawRecord { value: stored.bytes.slice_ref(value), version: stored.version })),
            None => {
                let words = table::digest_words(&key);
                self.quarantine(&key, &words);
                Err(StoreError::Damaged { record: words })
            }
        }
    }

    /// Seals, frames and commits. `keyring` gives the keys of an open store.
    pub async fn commit(&self, keyring: Option<&super::Inner>, change: Change, records: Vec<Encoded>) -> Result<Committed, CommitError> {
        // Held until the commit is answered: see `rotation`.
        let _rotation = self.rotation.read().await;
        let keyring = keyring.map(|inner| inner.keyring()).transpose().map_err(CommitError::from_read)?;
        self.commit_with(keyring.as_deref(), change, records).await
    }

    pub async fn commit_with(&self, keyring: Option<&Keyring>, change: Change, records: Vec<Encoded>) -> Result<Committed, CommitError> {
        let Change { acts, conditions, mut then, mut lane, refused } = change;
        if let Some(refused) = refused {
            return Err(CommitError::from_read(refused));
        }
        let plain: usize = acts.iter().map(|(_, act)| if let Do::Put(value) = act { value.len() } else { 0 }).sum();
        if lane == Lane::Normal && plain > BULK_BYTES {
            lane = Lane::Bulk;
        }
        let seals = acts.iter().filter(|(_, act)| matches!(act, Do::Put(_))).count() as u64;
        let mut sequence = if seals > 0 { self.sequence.take(&*self.physical, &*self.random, seals).await? } else { 0 };
        let mut writes = Vec::with_capacity(acts.len());
        let mended = self.quarantine.mended_by(acts.iter().map(|(key, _)| key));
        for (key, act) in acts {
            let row = match act {
                Do::Delete => None,
                Do::PutRaw(value) => Some(frame::encode(&key, &value)),
                Do::Put(value) if value.len() > PLAIN_BYTES_MAX => return Err(CommitError::TooLarge { max_bytes: PLAIN_BYTES_MAX }),
                Do::Put(value) => {
                    let generation = keyring.and_then(Keyring::current).ok_or(CommitError::Sealed)?;
                    if generation.algorithm == Algorithm::Aes256Gcm && sequence.saturating_sub(generation.first_sequence) >= GCM_SEALS_MAX {
                        return Err(CommitError::KeySpent);
                    }
                    let row = record::seal(generation, &self.ids, sequence, &key, &value, &*self.random);
                    sequence += 1;
                    Some(row)
                }
            };
            writes.push((key, row));
        }
        if !mended.is_empty() {
            writes.extend(mended.iter().map(|key| (Quarantine::row_key(key), None)));
            let list = self.quarantine.clone();
            then.push(Box::new(move || list.forget(&mended)));
        }
        let op = OpId::random(&*self.random);
        self.physical.commit(Batch { op, lane, conditions, writes, audit: records, then }).await
    }

    /// Whether the current key has sealed so much that the keyring should be rotated.
    pub fn wants_rotation(&self, keyring: &Keyring) -> bool {
        keyring.current().is_some_and(|generation| {
            let seals = self.sequence.now().saturating_sub(generation.first_sequence);
            generation.algorithm == Algorithm::Aes256Gcm && seals >= GCM_SEALS_ROTATE
        })
    }

    /// Puts a record on the quarantine list: in memory at once, in the store by the next commit.
    pub fn quarantine(&self, key: &[u8], words: &str) {
        if !self.quarantine.note(key, words) {
            return;
        }
        let (physical, op) = (self.physical.clone(), OpId::random(&*self.random));
        let row = (Quarantine::row_key(key), Some(frame::encode(&Quarantine::row_key(key), key)));
        let batch =
            Batch { op, lane: Lane::Normal, conditions: Vec::new(), writes: vec![row], audit: Vec::new(), then: Vec::new() };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Not awaited: a read must not wait for it, and the list in memory already has it.
            drop(runtime.spawn(async move { drop(physical.commit(batch).await) }));
        }
    }
}
