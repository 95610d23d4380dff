//! sled 0.34, selectable with `accept_risk`. Its own `flush` issues no device flush, so we sync its files and directory ourselves after each
//! one, remove half-written snapshots before opening, and refuse commits that come near a segment. What remains is in docs/KNOWN_ISSUES.

use super::{Engine, EngineError, Failure, Limits, Row, Write, free_bytes};
use bytes::Bytes;
use sled::{Batch, Db};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const NAME: &str = "sled";
const CACHE_BYTES: u64 = 24 << 20;
/// How long sled's threads may take to let go of a store that was closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// A segment has 512 KiB; a commit that spans segments is not atomic over a power cut.
const COMMIT_BYTES_MAX: usize = 384 << 10;

/// See the module.
pub struct SledEngine {
    db: Option<Db>,
    /// The file with sled's segments, opened apart: fdatasync works on the file, whoever wrote.
    segments: File,
    directory: File,
    path: PathBuf,
    /// Files besides the segments that were synced already (blobs, snapshots).
    synced: parking_lot::Mutex<std::collections::BTreeSet<PathBuf>>,
}

fn failed(what: Failure) -> impl FnOnce(sled::Error) -> EngineError {
    move |error| EngineError::new(NAME, what, error)
}

fn io_failed(what: Failure) -> impl FnOnce(io::Error) -> EngineError {
    move |error| EngineError::new(NAME, what, error)
}

impl SledEngine {
    /// Opens or makes the store in `path`.
    /// # Errors
    /// [`EngineError`] of the kind `Open`.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        Self::open_with_cache(path, CACHE_BYTES)
    }

    /// The same, with so much memory for pages.
    /// # Errors
    /// As [`SledEngine::open`].
    pub fn open_with_cache(path: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        remove_half_written_snapshots(path).map_err(io_failed(Failure::Open))?;
        let db = open_unlocked(path, cache_bytes).map_err(failed(Failure::Open))?;
        let open = |path: &Path| File::open(path).map_err(io_failed(Failure::Open));
        let (segments, directory) = (open(&path.join("db"))?, open(path)?);
        let engine = Self {
            db: Some(db),
            segments,
            directory,
            path: path.to_owned(),
            synced: Default::default(),
        };
        engine.sync().map_err(io_failed(Failure::Open))?;
        Ok(engine)
    }

    fn db(&self) -> Result<&Db, EngineError> {
        self.db
            .as_ref()
            .ok_or_else(|| EngineError::new(NAME, Failure::Read, "closed"))
    }

    /// Syncs what sled only wrote: its segments, new snapshots and blobs, then the directory that names them.
    fn sync(&self) -> io::Result<()> {
        self.segments.sync_data()?;
        let mut synced = self.synced.lock();
        for folder in [self.path.clone(), self.path.join("blobs")] {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let file = entry.path();
                if entry.file_type()?.is_file() && !file.ends_with("db") && synced.insert(file.clone()) {
                    match File::open(&file) {
                        Ok(file) => file.sync_data()?,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => drop(synced.remove(&file)), // a snapshot that was replaced
                        Err(error) => return Err(error),
                    }
                }
            }
            if folder != self.path {
                File::open(&folder)?.sync_all()?;
            }
        }
        synced.retain(|file| file.exists());
        self.directory.sync_all()
    }
}

/// sled's own threads hold its lock for a moment after its last handle is gone, so a store that is closed and opened again may find it taken.
/// Other processes are kept out by the data directory's lock, which is ours.
fn open_unlocked(path: &Path, cache_bytes: u64) -> sled::Result<Db> {
    let began = Instant::now();
    loop {
        let opened = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .open();
        match opened {
            Err(sled::Error::Io(error))
                if error.to_string().starts_with("could not acquire lock") && began.elapsed() < LOCK_PATIENCE =>
            {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// A partial `snap.*.generating` would be read as a snapshot (sled#1527).
fn remove_half_written_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let file = entry?.path();
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&file)?;
        }
    }
    File::open(path)?.sync_all()
}

impl Engine for SledEngine {
    fn name(&self) -> &'static str {
        NAME
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self
            .db()?
            .get(key)
            .map_err(failed(Failure::Read))?
            .map(|value| Bytes::copy_from_slice(&value)))
    }
    fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (mut found, mut taken) = (Vec::new(), 0);
        for row in self.db()?.range(from..to).take(rows) {
            let (key, value) = row.map_err(failed(Failure::Read))?;
            taken += value.len();
            found.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)));
            if taken > bytes {
                break;
            }
        }
        Ok(found)
    }
    fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for write in writes {
            match &write.value {
                Some(value) => batch.insert(&write.key[..], &value[..]),
                None => batch.remove(&write.key[..]),
            }
        }
        let db = self.db()?;
        db.apply_batch(batch).map_err(failed(Failure::Write))?;
        db.flush().map_err(failed(Failure::Sync))?;
        self.sync().map_err(io_failed(Failure::Sync))
    }
    fn takes_bulk(&self) -> bool {
        true
    }
    fn limits(&self) -> Limits {
        Limits {
            commit_bytes_max: COMMIT_BYTES_MAX,
        }
    }
    fn free_bytes(&self) -> Result<u64, EngineError> {
        free_bytes(NAME, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock that is held for a moment, as by sled's threads after its last handle is gone, is waited for.
    #[test]
    fn a_lock_that_is_let_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledEngine::open(dir.path()).unwrap());
        let file = File::open(dir.path().join("db")).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let held = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(file);
        });
        let began = Instant::now();
        SledEngine::open(dir.path()).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(200), "it was locked");
        held.join().unwrap();
    }

    /// sled alone would take the half-written snapshot for one, and not open (sled#1527).
    #[test]
    fn a_half_written_snapshot_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |value: &'static [u8]| {
            [Write {
                key: Bytes::from_static(b"key"),
                value: Some(Bytes::from_static(value)),
            }]
        };
        SledEngine::open(dir.path()).unwrap().commit(&write(b"value")).unwrap();
        let junk = dir.path().join("snap.0000000000000FFF.generating");
        fs::write(&junk, b"half").unwrap();
        let engine = SledEngine::open(dir.path()).unwrap();
        assert!(!junk.exists());
        assert_eq!(engine.get(b"key").unwrap().unwrap(), &b"value"[..]);
    }
}
