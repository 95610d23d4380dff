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
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use strongroom_audit::Encoded;
use tokio::sync::RwLock;

/// Changes with more plain bytes than this go by the bulk lane.
const BULK_BYTES: usize = 64 << 10;
/// The keyring once more, among rows that engines keep in other files.
const KEYRING_TWIN: &[u8] = b"keyring";

/// Writes a sealed keyring, both times.
pub(super) fn put_keyring(change: &mut Change, sealed: Vec<u8>) {
    change.put_raw(RawTable::Heads, KEYRING_TWIN, sealed.clone());
    change.put_raw(RawTable::Keyring, &[], sealed);
}

/// The longest plain value: 1 MiB and its room's frame.
const PLAIN_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Records that one AES-256-GCM key may seal (NIST SP 800-38D, 8.3).
const GCM_SEALS_MAX: u64 = 1 << 32;
/// From here on the keyring asks to be rotated.
const GCM_SEALS_ROTATE: u64 = 1 << 30;

/// Ids of batches: one draw of the dice an open store, then counted.
pub(super) struct Ops {
    prefix: [u8; 8],
    count: AtomicU64,
}

impl Ops {
    pub fn new(random: &dyn Random) -> Self {
        let mut prefix = [0; 8];
        random.fill(&mut prefix);
        Self {
            prefix,
            count: AtomicU64::new(0),
        }
    }

    pub fn next(&self) -> OpId {
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut id = [0; 16];
        id.iter_mut()
            .zip(self.prefix.into_iter().chain(count))
            .for_each(|(byte, from)| *byte = from);
        OpId::from_bytes(id)
    }
}

pub(super) struct Base {
    pub physical: Arc<dyn Physical>,
    pub ids: Ids,
    pub random: Arc<dyn Random>,
    pub sequence: Sequence,
    pub quarantine: Arc<Quarantine>,
    pub ops: Ops,
    /// Read by commits that seal, written by rotation: after a rotation nothing is under way under an older key.
    pub rotation: RwLock<()>,
}

impl Base {
    pub async fn get_raw(&self, table: RawTable, id: &[u8]) -> Result<Option<RawRecord>, StoreError> {
        let key = table::raw_key(table, id);
        let Some(stored) = self.physical.get(&key).await? else {
            return Ok(None);
        };
        match frame::decode(&key, &stored.bytes) {
            Some(value) => Ok(Some(RawRecord {
                value: stored.bytes.slice_ref(value),
                version: stored.version,
            })),
            None => {
                let words = table::digest_words(&key);
                self.quarantine(&key, &words);
                Err(StoreError::Damaged { record: words })
            }
        }
    }

    /// The sealed keyring, and its twin: losing the one row would lose everything. Damaged ones are listed.
    pub async fn sealed_keyrings(&self) -> Result<Vec<RawRecord>, StoreError> {
        let mut found = Vec::new();
        let mut damaged = None;
        for (table, id) in [(RawTable::Keyring, &[][..]), (RawTable::Heads, KEYRING_TWIN)] {
            match self.get_raw(table, id).await {
                Ok(record) => found.extend(record),
                Err(error @ StoreError::Damaged { .. }) => damaged = Some(error),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            damaged.map_or(Ok(found), Err)
        } else {
            Ok(found)
        }
    }

    /// Seals, frames and commits. `keyring` gives the keys of an open store.
    pub async fn commit(
        &self,
        keyring: Option<&super::Inner>,
        change: Change,
        records: Vec<Encoded>,
    ) -> Result<Committed, CommitError> {
        // Held until the commit is answered: see `rotation`.
        let _rotation = self.rotation.read().await;
        let keyring = keyring
            .map(|inner| inner.keyring())
            .transpose()
            .map_err(CommitError::from_read)?;
        self.commit_with(keyring.as_deref(), change, records).await
    }

    pub async fn commit_with(
        &self,
        keyring: Option<&Keyring>,
        change: Change,
        records: Vec<Encoded>,
    ) -> Result<Committed, CommitError> {
        let Change {
            acts,
            conditions,
            mut then,
            mut lane,
            relaxed,
            tending,
            refused,
            // Told by the open store, which knows who watches.
            tells: _,
        } = change;
        if let Some(refused) = refused {
            return Err(CommitError::from_read(refused));
        }
        let plain: usize = acts
            .iter()
            .map(|(_, act)| if let Do::Put(value) = act { value.len() } else { 0 })
            .sum();
        if lane == Lane::Normal && plain > BULK_BYTES {
            lane = Lane::Bulk;
        }
        let seals = acts.iter().filter(|(_, act)| matches!(act, Do::Put(_))).count() as u64;
        let mut sequence = if seals > 0 {
            self.sequence.take(&*self.physical, &self.ops, seals).await?
        } else {
            0
        };
        let mut writes = Vec::with_capacity(acts.len());
        let mended = self.quarantine.mended_by(acts.iter().map(|(key, _)| key));
        for (key, act) in acts {
            let row = match act {
                Do::Delete => None,
                Do::PutRaw(value) => Some(frame::encode(&key, &value)),
                Do::Put(value) if value.len() > PLAIN_BYTES_MAX => {
                    return Err(CommitError::TooLarge {
                        max_bytes: PLAIN_BYTES_MAX,
                    });
                }
                Do::Put(value) => {
                    let generation = keyring.and_then(Keyring::current).ok_or(CommitError::Sealed)?;
                    if generation.algorithm == Algorithm::Aes256Gcm
                        && sequence.saturating_sub(generation.first_sequence) >= GCM_SEALS_MAX
                    {
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
        let op = self.ops.next();
        self.physical
            .commit(Batch {
                op,
                lane,
                conditions,
                writes,
                audit: records,
                then,
                relaxed,
                tending,
            })
            .await
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
        let (physical, op) = (self.physical.clone(), self.ops.next());
        let row = (
            Quarantine::row_key(key),
            Some(frame::encode(&Quarantine::row_key(key), key)),
        );
        let batch = Batch {
            op,
            lane: Lane::Normal,
            conditions: Vec::new(),
            writes: vec![row],
            audit: Vec::new(),
            then: Vec::new(),
            relaxed: false,
            tending: false,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Not awaited: a read must not wait for it, and the list in memory already has it.
            drop(runtime.spawn(async move { drop(physical.commit(batch).await) }));
        }
    }
}
