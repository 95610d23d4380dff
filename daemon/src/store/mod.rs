//! Durable bytes, encrypted before they leave. Rooms above see a [`View`] (plain names, plain values) and build a [`Change`]; the store
//! seals, commits change and evidence as one, and refuses what does not open. May use `base`, `audit` and `notice` (who is told of a
//! change), nothing else.
//!
//! Reading order: `table` (keys), `change` and `view` (what rooms see), `base` (the one way to commit), then the barrier: `record`, `xaes`,
//! `names`, `keyring`, `sequence`; then the disk: `batch`, `local`, `commit/` (group commit), `physical/` (private: engines), `disk` (open, unlock);
//! aside: `raw` and `frame` (outside the barrier), `quarantine`, `rewrap` (background re-encryption). Byte tables: docs/FORMATS.md.

mod base;
mod batch;
mod change;
mod commit;
mod disk;
mod error;
mod frame;
mod keyring;
mod local;
mod names;
pub mod physical;
mod quarantine;
mod raw;
mod record;
mod repair;
mod rewrap;
mod sequence;
mod table;
mod view;
mod xaes;

pub use batch::{Committed, Version};
pub use change::Change;
pub use commit::{Drain, Evidence};
pub use disk::{Caches, Disk, DiskConfig, EngineKind, FORMAT_VERSION};
pub use error::{CommitError, OpenError, StoreError, UnlockError};
pub use keyring::{GENERATIONS_MAX, Keyring, KeyringEdit, KeyringError, PEPPERS_MAX, Pepper};
pub use quarantine::QUARANTINE_MAX;
pub use raw::{RAW_ROWS_MAX, RawRecord, RawStore};
pub use record::{Algorithm, Ids};
pub use rewrap::{REWRAP_ROWS_MAX, Rewrapped};
pub use table::{Namespace, OwnedPart, Part, RawTable, Table};
pub use view::{Child, Children, Cursor, Entry, Page, Record, View};
pub(crate) use xaes::{TAG_BYTES, XAES_NONCE_BYTES, Xaes};

use crate::{
    base::{id::OpId, locked::LockedKey},
    notice::Notices,
};
use arc_swap::ArcSwapOption;
use base::Base;
use std::sync::Arc;
use strongroom_audit::Encoded;

/// What views hold: an open store's keys, until it is locked.
pub(in crate::store) struct Inner {
    base: Arc<Base>,
    keyring: ArcSwapOption<Keyring>,
    notices: Arc<Notices>,
}

impl Inner {
    fn keyring(&self) -> Result<Arc<Keyring>, StoreError> {
        self.keyring.load_full().ok_or(StoreError::Sealed)
    }
}

/// An open store: the barrier has its keys. Dropping it, or [`Store::lock`], wipes them once the last operation under way has let go.
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    fn open(base: Arc<Base>, keyring: Keyring) -> Self {
        Self {
            inner: Arc::new(Inner {
                base,
                keyring: ArcSwapOption::from_pointee(keyring),
                notices: Arc::default(),
            }),
        }
    }

    /// One table of one namespace.
    pub fn view(&self, namespace: Namespace, table: Table) -> View {
        View {
            inner: self.inner.clone(),
            namespace,
            table,
        }
    }

    /// Records outside the barrier.
    pub fn raw(&self) -> RawStore {
        RawStore {
            base: self.inner.base.clone(),
        }
    }

    /// Makes a change and its records of evidence durable, together; an empty change commits the records alone. The caller's leaving does not
    /// stop it once it is queued.
    /// # Errors
    /// [`CommitError`]. Nothing was made, except perhaps with `Indeterminate`.
    pub async fn commit(&self, mut change: Change, records: Vec<Encoded>) -> Result<Committed, CommitError> {
        let tells = std::mem::take(&mut change.tells);
        if !tells.is_empty() {
            let notices = Arc::clone(&self.inner.notices);
            change.then(move || notices.post(tells));
        }
        self.inner.base.commit(Some(&self.inner), change, records).await
    }

    /// Who watches what, as long as the store is open.
    pub fn notices(&self) -> &Arc<Notices> {
        &self.inner.notices
    }

    /// Settles [`CommitError::Indeterminate`]: whether that batch was made (as far back as the last 256 groups).
    /// # Errors
    /// [`StoreError`].
    pub async fn outcome(&self, op: OpId) -> Result<Option<Committed>, StoreError> {
        self.inner.base.physical.outcome(op).await
    }

    /// The keys for token hashes and audit hashes, as of now.
    /// # Errors
    /// `Sealed`.
    pub fn keyring(&self) -> Result<Arc<Keyring>, StoreError> {
        self.inner.keyring()
    }

    /// Changes the keyring and seals it by `root` (the present root key, or a new one), in one commit with `change` (slot records, say).
    /// Commits under way finish first: afterwards nothing is sealed by an older data key any more.
    /// # Errors
    /// [`KeyringChangeError`].
    pub async fn change_keyring(
        &self,
        root: &LockedKey,
        edits: &[KeyringEdit],
        mut change: Change,
        records: Vec<Encoded>,
    ) -> Result<Committed, KeyringChangeError> {
        let base = &self.inner.base;
        let _alone = base.rotation.write().await;
        let old = self.inner.keyring().map_err(CommitError::from_read)?;
        let first_sequence = base.sequence.take(&*base.physical, &base.ops, 1).await?;
        let new = Arc::new(old.edited(edits, first_sequence, &*base.random)?);
        base::put_keyring(&mut change, new.seal(root, base.ids.cluster, &*base.random));
        // By hook, not after the answer: if this commit's fate is settled late, memory still follows the disk.
        let (inner, next) = (self.inner.clone(), new.clone());
        change.then(move || inner.follow(next));
        Ok(base.commit_with(Some(&new), change, records).await?)
    }

    /// Whether the data key has sealed so much (2^30 records by AES-256-GCM) that it should be rotated.
    pub fn wants_rotation(&self) -> bool {
        self.inner
            .keyring()
            .is_ok_and(|keyring| self.inner.base.wants_rotation(&keyring))
    }

    /// The damaged records met so far, in words, and how often one was met since the start.
    pub fn quarantined(&self) -> (Vec<String>, u64) {
        let words = |key: &bytes::Bytes| match self.inner.keyring() {
            Ok(keyring) => keyring.names().words(key),
            Err(_) => table::digest_words(key),
        };
        (
            self.inner.base.quarantine.keys().iter().map(words).collect(),
            self.inner.base.quarantine.met(),
        )
    }

    /// Forgets the keys. Whatever still holds a view gets `Sealed`.
    pub fn lock(&self) {
        self.inner.keyring.store(None);
    }
}

impl Inner {
    /// Takes a changed keyring, unless the store was locked meanwhile.
    fn follow(&self, next: Arc<Keyring>) {
        self.keyring.rcu(|now| now.as_ref().map(|_| next.clone()));
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store(redacted)")
    }
}

/// Why the keyring was not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringChangeError {
    /// The edit is not possible.
    #[error(transparent)]
    Edit(#[from] KeyringError),
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
