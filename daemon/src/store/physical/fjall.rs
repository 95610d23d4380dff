//! The default engine: fjall 3.1, an LSM tree in pure Rust. One `fdatasync` of its journal a commit.
//! Two keyspaces: `state`, and `log` for rows that come and go (outbox, heads, outcomes), so that the audit traffic does not
//! make compaction rewrite the secrets. What it was measured to hold: docs/adr on storage; it silently drops a damaged journal's tail, which
//! the comparison of the audit heads at open finds.

use super::{Engine, EngineError, Failure, Limits, Row, Write, free_bytes, is_full, sound};
use crate::store::table::{self, RawTable};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::{
    fs::{self, File},
    io::{self, Read},
    panic::catch_unwind,
    path::{Path, PathBuf},
};

const NAME: &str = "fjall";
/// Blocks kept in memory, for both keyspaces together.
const BLOCK_CACHE_BYTES: u64 = 24 << 20;
/// The least fjall allows; older journals are flushed away past it.
const JOURNALS_BYTES_MAX: u64 = 64 << 20;
/// Written rows kept in memory, a keyspace, until they are flushed to a table.
const STATE_MEMTABLE_BYTES: u64 = 8 << 20;
const LOG_MEMTABLE_BYTES: u64 = 4 << 20;
/// fjall sleeps inside commit at 4 sealed memtables: bulk waits well before.
const BULK_SEALED_MEMTABLES_MAX: usize = 1;
/// fjall stalls writers at 20 tables in level 0.
const BULK_L0_TABLES_MAX: usize = 12;

/// So much of a journal is looked at to see whether anything was ever written.
const UNFINISHED_BYTES: u64 = 64 << 10;

/// See the module.
pub struct FjallEngine {
    database: Database,
    state: Keyspace,
    log: Keyspace,
    path: PathBuf,
}

fn failed(what: Failure) -> impl FnOnce(fjall::Error) -> EngineError {
    move |error| EngineError::new(NAME, what, error)
}

/// A failed sync leaves it open what is on the disk, so the store must stop. Two failures are told apart: a disk that is full refuses what fjall's
/// buffer writes on this occasion, and fjall refuses before it writes anything once a thread of its own could not flush a table. After both, the
/// disk's own word is asked for by opening anew ([`forget_cached`]).
fn sync_failed(error: fjall::Error) -> EngineError {
    let what = if is_full(&error) || matches!(error, fjall::Error::Poisoned) {
        Failure::Write
    } else {
        Failure::Sync
    };
    EngineError::new(NAME, what, error)
}

fn io_failed(error: io::Error) -> EngineError {
    EngineError::new(NAME, Failure::Open, error)
}

/// What a process wrote that was killed before its sync is read at open, and the audit log is finished by it: it must not vanish with the power
/// later. Tables are synced by fjall before they are known.
fn sync_journals(path: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let file = entry?.path();
        if file.extension().is_some_and(|kind| kind == "jnl") {
            File::open(file)?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}

/// What the kernel keeps of a journal may never have reached the disk, if a sync of it failed: it is read from the disk. (What is yet to be
/// written stays: only clean pages go.)
fn forget_cached(path: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let file = entry?.path();
        if file.extension().is_some_and(|kind| kind == "jnl") {
            rustix::fs::fadvise(File::open(file)?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// A power cut while fjall makes a store can leave its first journal without the marker that says that the store is made; fjall then neither
/// recovers nor makes it. Nothing can have been acknowledged: a store without a marker, with no table and nothing but zeros in its journals, is
/// made anew.
fn clear_unfinished(path: &Path) -> io::Result<()> {
    let marker = path.join("version");
    if fs::metadata(&marker).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let mut leftovers: Vec<PathBuf> = marker.exists().then_some(marker).into_iter().collect();
    for entry in path.read_dir()? {
        let file = entry?.path();
        if file.extension().is_some_and(|kind| kind == "jnl") {
            let mut start = Vec::new();
            // A batch has no such run of zeros at its start.
            File::open(&file)?.take(UNFINISHED_BYTES).read_to_end(&mut start)?;
            if start.iter().any(|byte| *byte != 0) {
                return Ok(());
            }
            leftovers.push(file);
        }
    }
    let tables = path.join("keyspaces");
    if tables.exists() && tables.read_dir()?.next().is_some() {
        return Ok(());
    }
    leftovers.iter().try_for_each(fs::remove_file)
}

impl FjallEngine {
    /// Opens or makes the store in `path`.
    /// # Errors
    /// [`EngineError`] of the kind `Open`.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::open_with_cache(path, BLOCK_CACHE_BYTES)
    }

    /// The same, with so much memory for blocks.
    /// # Errors
    /// As [`FjallEngine::open`].
    pub fn open_with_cache(path: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        if path.exists() {
            forget_cached(path)
                .and_then(|()| clear_unfinished(path))
                .map_err(io_failed)?;
        }
        sound::check(path).map_err(io_failed)?;
        // Damaged files run into assertions of fjall's. A panic here must not be one of the daemon's.
        catch_unwind(|| Self::open_sound(path, cache_bytes))
            .unwrap_or_else(|_| Err(io_failed(sound::damaged("the engine panicked at damaged files"))))
    }

    fn open_sound(path: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .manual_journal_persist(true)
            .worker_threads(2) // so that a flush need not wait for a compaction
            .open()
            .map_err(failed(Failure::Open))?;
        let keyspace = |name, memtable: u64| {
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable)
                    .manual_journal_persist(true)
            };
            database.keyspace(name, options).map_err(failed(Failure::Open))
        };
        let (state, log) = (
            keyspace("state", STATE_MEMTABLE_BYTES)?,
            keyspace("log", LOG_MEMTABLE_BYTES)?,
        );
        sync_journals(path).map_err(io_failed)?;
        Ok(Self {
            state,
            log,
            database,
            path: path.to_owned(),
        })
    }

    fn batch(&self, writes: &[Write]) -> Result<(), EngineError> {
        let mut batch = self.database.batch();
        for write in writes {
            let keyspace = self.keyspace(&write.key);
            match &write.value {
                Some(value) => batch.insert(keyspace, &write.key[..], &value[..]),
                None => batch.remove(keyspace, &write.key[..]),
            }
        }
        batch.commit().map_err(failed(Failure::Write))
    }

    fn keyspace(&self, key: &[u8]) -> &Keyspace {
        const COME_AND_GO: [u8; 3] = [RawTable::Outbox.id(), RawTable::Heads.id(), RawTable::Outcomes.id()];
        match table::parse_head(key) {
            Some((_, id)) if COME_AND_GO.contains(&id) => &self.log,
            _ => &self.state,
        }
    }
}

impl Engine for FjallEngine {
    fn name(&self) -> &'static str {
        NAME
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        // Copied out: a slice of fjall's would keep its whole block alive in our cache.
        Ok(self
            .keyspace(key)
            .get(key)
            .map_err(failed(Failure::Read))?
            .map(|value| Bytes::copy_from_slice(&value)))
    }
    fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (mut found, mut taken) = (Vec::new(), 0);
        for row in self.keyspace(from).range(from..to).take(rows) {
            let (key, value) = row.into_inner().map_err(failed(Failure::Read))?;
            taken += value.len();
            found.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)));
            if taken > bytes {
                break;
            }
        }
        Ok(found)
    }
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        // Two steps, so that a failed sync is told from a failed write. Readers may see the batch before it is durable; no answer
        // leaves before a later commit of this same journal (the answer's audit record) was synced.
        self.batch(writes)?;
        self.sync()
    }
    fn write(&self, writes: &[Write]) -> Result<(), EngineError> {
        self.batch(writes)?;
        self.database
            .persist(PersistMode::Buffer)
            .map_err(failed(Failure::Write))
    }
    fn sync(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncData).map_err(sync_failed)
    }
    fn takes_bulk(&self) -> bool {
        [&self.state, &self.log].iter().all(|keyspace| {
            keyspace.sealed_memtable_count() <= BULK_SEALED_MEMTABLES_MAX
                && keyspace.l0_table_count() <= BULK_L0_TABLES_MAX
        })
    }
    fn limits(&self) -> Limits {
        Limits {
            commit_bytes_max: 4 << 20,
        }
    }
    fn free_bytes(&self) -> Result<u64, EngineError> {
        free_bytes(NAME, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-STORE-1: what a power cut left of a store that was being made is made anew; a journal in which something stands is never taken away.
    #[test]
    fn a_making_that_was_cut_off_is_begun_anew() {
        for marker in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (journal, keyspaces) = (dir.path().join("0.jnl"), dir.path().join("keyspaces"));
            fs::write(&journal, vec![0; 4096]).unwrap();
            fs::create_dir(&keyspaces).unwrap();
            if marker {
                fs::write(dir.path().join("version"), b"").unwrap();
            }
            FjallEngine::open(dir.path()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("0.jnl");
        fs::write(&journal, b"something").unwrap();
        assert!(FjallEngine::open(dir.path()).is_err());
        assert_eq!(fs::read(&journal).unwrap(), b"something");
    }
}
