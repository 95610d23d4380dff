//! Private to the store: engines that keep ordered bytes. One [`Engine`] = one ordered map with atomic, durable commits. What is common
//! (versions, cache, group commit, poison, outcomes) lies above them, in `embedded` and in the committer.
//! Reading order: this file, `embedded`, then the engines `memory`, `fjall`, `sled`; `faulty` wraps any; `conformance` tries all.

mod embedded;
pub mod faulty;
pub mod fjall;
pub mod memory;
pub mod sled;
mod sound;

#[cfg(test)]
mod conformance;

pub use embedded::{Embedded, Opener, is_final, is_full};

use super::table::{self, Namespace, RawTable, Table};
use bytes::Bytes;
use std::path::Path;

/// What an engine failed at; decides what the store does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Opening it.
    Open,
    /// Reading: the caller is told, nothing else happens.
    Read,
    /// Writing: the commit is indeterminate, the store is reopened through the checks of open.
    Write,
    /// Syncing, or any EIO: what is on the disk is unknown, and a second fsync would lie. The store stops.
    Sync,
}

/// An engine's failure with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{engine}: {what:?} failed")]
pub struct EngineError {
    /// Which engine.
    pub engine: &'static str,
    /// At what.
    pub what: Failure,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl EngineError {
    pub(super) fn new(
        engine: &'static str,
        what: Failure,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            engine,
            what,
            source: source.into(),
        }
    }
}

/// What an engine can take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Keys and values of one commit together.
    pub commit_bytes_max: usize,
}

/// One write of a commit. No key appears twice in one commit.
#[derive(Debug, Clone)]
pub struct Write {
    /// The stored key.
    pub key: Bytes,
    /// The stored value; `None` deletes.
    pub value: Option<Bytes>,
}

/// A row of a scan.
pub type Row = (Bytes, Bytes);

/// Ordered bytes with atomic, durable commits. Blocking; `commit` is only ever called by one thread at a time.
pub trait Engine: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;
    /// The value of a key.
    /// # Errors
    /// [`EngineError`] of the kind `Read`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
    /// Rows with `from <= key < to`, in order, until there are `rows` of them or their values pass `bytes`; at least one if any exists.
    /// # Errors
    /// [`EngineError`] of the kind `Read`.
    fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError>;
    /// Makes all writes durable, or none.
    /// # Errors
    /// [`EngineError`] of the kind `Write` or `Sync`; afterwards the engine must be reopened.
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError>;
    /// As `commit`, but a power loss may undo it, and all such since, until the next `commit` or `sync` has returned. The death of the process
    /// does not. An engine that knows no difference commits.
    /// # Errors
    /// As `commit`.
    fn write(&self, writes: &[Write]) -> Result<(), EngineError> {
        self.commit(writes)
    }
    /// Makes everything durable that was written.
    /// # Errors
    /// [`EngineError`] of the kind `Sync`.
    fn sync(&self) -> Result<(), EngineError> {
        Ok(())
    }
    /// Whether a large commit now would not stall.
    fn takes_bulk(&self) -> bool;
    /// Its limits.
    fn limits(&self) -> Limits;
    /// Free bytes on its disk, for those who may not use the superuser's share.
    /// # Errors
    /// [`EngineError`] of the kind `Read`.
    fn free_bytes(&self) -> Result<u64, EngineError>;
}

/// Free bytes of the file system that holds `path`.
pub(super) fn free_bytes(engine: &'static str, path: &Path) -> Result<u64, EngineError> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| EngineError::new(engine, Failure::Read, std::io::Error::from(error)))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Every row of an engine, table by table, as it is stored: for campaigns that flip what lies on the disk.
/// # Errors
/// The engine's.
pub fn all_rows(engine: &dyn Engine) -> Result<Vec<Row>, EngineError> {
    let tables = RawTable::ALL
        .iter()
        .map(|table| table.id())
        .chain(Table::ALL.iter().map(|table| table.id()));
    let mut rows = Vec::new();
    for id in tables {
        let (from, to) = (table::head(Namespace::ROOT, id), table::head(Namespace::ROOT, id + 1));
        rows.extend(engine.scan(&from, &to, usize::MAX, usize::MAX)?);
    }
    Ok(rows)
}
