//! `Physical`: what the barrier stands on, and its implementation on this machine (an embedded engine and its committer).
//! An engine on other machines (etcd) implements the same trait; `watch` and `lead` come with it: here one process has the directory,
//! by its lock file.

use super::{
    batch::{Answer, Batch, Committed, Stored},
    commit::{self, Committer},
    error::StoreError,
    physical::Embedded,
};
use crate::base::id::OpId;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{fs::File, sync::Arc};

/// Ordered records with versions, changed by atomic durable batches.
#[async_trait]
pub trait Physical: Send + Sync {
    /// A record.
    async fn get(&self, key: &Bytes) -> Result<Option<Stored>, StoreError>;
    /// Records with `from <= key < to`, in order, until there are `rows` of them or their values pass `bytes`; at least one if any
    /// exists.
    async fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<(Bytes, Stored)>, StoreError>;
    /// Makes a batch durable, or nothing of it.
    async fn commit(&self, batch: Batch) -> Answer;
    /// Whether a batch was made; settles [`super::CommitError::Indeterminate`].
    async fn outcome(&self, op: OpId) -> Result<Option<Committed>, StoreError>;
    /// Batches waiting now.
    fn depth(&self) -> usize;
    /// Makes what is queued, then lets go of everything. Blocks.
    fn close(&self);
}

/// An embedded engine on this machine.
pub struct Local {
    embedded: Arc<Embedded>,
    committer: Committer,
    /// Held as long as the store is open: one writer a directory.
    lock: Mutex<Option<File>>,
}

impl Local {
    /// An open engine, its committer, and the directory's lock.
    pub(super) fn new(embedded: Arc<Embedded>, committer: Committer, lock: Option<File>) -> Self {
        Self {
            embedded,
            committer,
            lock: Mutex::new(lock),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Physical for Local {
    async fn get(&self, key: &Bytes) -> Result<Option<Stored>, StoreError> {
        // Inline: a cached record takes under a microsecond, a cold one one read of a block.
        self.embedded.get(key)
    }

    async fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<(Bytes, Stored)>, StoreError> {
        let embedded = self.embedded.clone();
        let scan = move || embedded.scan_rows(&from, &to, rows, bytes);
        let rows = tokio::task::spawn_blocking(scan)
            .await
            .map_err(|_| StoreError::Poisoned)??;
        Ok(rows.into_iter().map(|(key, row)| (key, Stored::parse(row))).collect())
    }

    async fn commit(&self, batch: Batch) -> Answer {
        self.committer.commit(batch).await
    }

    async fn outcome(&self, op: OpId) -> Result<Option<Committed>, StoreError> {
        let embedded = self.embedded.clone();
        tokio::task::spawn_blocking(move || commit::outcome(&embedded, op))
            .await
            .map_err(|_| StoreError::Poisoned)?
    }

    fn depth(&self) -> usize {
        self.committer.depth()
    }

    fn close(&self) {
        self.committer.close();
        self.embedded.close();
        drop(self.lock.lock().take());
    }
}
