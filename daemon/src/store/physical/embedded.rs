//! The engine in its slot, with what every embedded engine shares: versions beside values, a bounded cache of stored (encrypted) records in
//! front, and closing and reopening in process. Only the committer writes.

use super::{Engine, EngineError, Failure, Limits, Row, Write};
use crate::store::{
    StoreError,
    batch::{Stored, Version},
};
use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use quick_cache::{
    DefaultHashBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, GuardResult},
};

/// Opens the engine, the first time and after a failure.
pub type Opener = Box<dyn Fn() -> Result<Box<dyn Engine>, EngineError> + Send + Sync>;

/// No record takes more than this of the cache.
const CACHED_VALUE_BYTES_MAX: usize = 64 << 10;
/// The usual size of a record, for the cache's own tables.
const CACHED_VALUE_BYTES_USUAL: u64 = 1 << 10;
/// What an entry costs beside its bytes.
const CACHE_ENTRY_OVERHEAD: u64 = 160;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Stored> for ByBytes {
    fn weight(&self, key: &Bytes, stored: &Stored) -> u64 {
        key.len() as u64 + stored.bytes.len() as u64 + CACHE_ENTRY_OVERHEAD
    }
}

enum Slot {
    Open(Box<dyn Engine>),
    Reopening,
    Stopped(String),
    Closed,
}

/// See the module.
pub struct Embedded {
    slot: RwLock<Slot>,
    opener: Opener,
    limits: Limits,
    cache: Cache<Bytes, Stored, ByBytes>,
}

impl Embedded {
    /// Opens the engine, with so much memory for records.
    /// # Errors
    /// The engine's.
    pub fn open(opener: Opener, cache_bytes: u64) -> Result<Self, EngineError> {
        let engine = attempt(&opener)?;
        let cache = Cache::with(
            usize::try_from(cache_bytes / CACHED_VALUE_BYTES_USUAL).unwrap_or(usize::MAX),
            cache_bytes,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Ok(Self {
            limits: engine.limits(),
            slot: RwLock::new(Slot::Open(engine)),
            opener,
            cache,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&dyn Engine) -> Result<T, EngineError>) -> Result<T, StoreError> {
        let slot: RwLockReadGuard<'_, Slot> = self.slot.read();
        match &*slot {
            Slot::Open(engine) => Ok(work(engine.as_ref())?),
            Slot::Reopening => Err(StoreError::Poisoned),
            Slot::Stopped(reason) => Err(StoreError::Stopped { reason: reason.clone() }),
            Slot::Closed => Err(StoreError::Stopped {
                reason: "it was closed".into(),
            }),
        }
    }

    /// A record, from the cache or the engine. A record whose envelope does not read is `Some` with no version: see [`Stored::damaged`].
    pub fn get(&self, key: &Bytes) -> Result<Option<Stored>, StoreError> {
        // The guard makes the cache follow the commit order: a commit of the same key while we read replaces the placeholder, and
        // our older value is then not kept.
        match self.cache.get_value_or_guard(key, None) {
            GuardResult::Value(stored) => Ok(Some(stored)),
            GuardResult::Guard(guard) => {
                let stored = self.with(|engine| engine.get(key))?.map(Stored::parse);
                if let Some(stored) = stored
                    .as_ref()
                    .filter(|stored| stored.bytes.len() <= CACHED_VALUE_BYTES_MAX)
                {
                    drop(guard.insert(stored.clone()));
                }
                Ok(stored)
            }
            GuardResult::Timeout => Ok(self.with(|engine| engine.get(key))?.map(Stored::parse)),
        }
    }

    /// The version of a record, for preconditions.
    pub fn version(&self, key: &[u8]) -> Result<Option<Version>, StoreError> {
        if let Some(stored) = self.cache.peek(key) {
            return Ok(Some(stored.version));
        }
        Ok(self
            .with(|engine| engine.get(key))?
            .map(|bytes| Stored::parse(bytes).version))
    }

    /// A row as the engine has it.
    pub fn get_row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|engine| engine.get(key))
    }

    /// Rows as the engine has them.
    pub fn scan_rows(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, StoreError> {
        self.with(|engine| engine.scan(from, to, rows, bytes))
    }

    /// Commits; the cache is brought up to date by [`Self::remember`].
    pub fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        self.with(|engine| engine.commit(writes))
    }

    /// As `commit`, durable with the next commit or [`Self::sync`].
    pub fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        self.with(|engine| engine.write(writes))
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.with(|engine| engine.sync())
    }

    /// Brings the cache up to a commit that was made.
    pub fn remember(&self, key: &Bytes, value: Option<Stored>) {
        match value.filter(|stored| stored.bytes.len() <= CACHED_VALUE_BYTES_MAX) {
            Some(stored) => self.cache.insert(key.clone(), stored),
            None => drop(self.cache.remove(key)),
        }
    }

    /// Whether a large commit now would not stall.
    pub fn takes_bulk(&self) -> bool {
        self.with(|engine| Ok(engine.takes_bulk())).unwrap_or(false)
    }

    /// The engine's limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Free bytes on the disk.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        self.with(|engine| engine.free_bytes())
    }

    /// Closes the engine and opens it anew; waits for readers.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.slot.write();
        if matches!(*slot, Slot::Closed | Slot::Stopped(_)) {
            return Err(StoreError::Poisoned);
        }
        *slot = Slot::Reopening; // drops the old engine first: it holds the files
        self.cache.clear();
        *slot = Slot::Open(attempt(&self.opener)?);
        Ok(())
    }

    /// Stops for good: the operator restarts the daemon.
    pub fn stop(&self, reason: String) {
        let mut slot = self.slot.write();
        if !matches!(*slot, Slot::Closed) {
            *slot = Slot::Stopped(reason);
        }
        self.cache.clear();
    }

    /// Closes the engine.
    pub fn close(&self) {
        *self.slot.write() = Slot::Closed;
        self.cache.clear();
    }
}

/// Opens; an engine that panics over damaged files (sled does) is one that does not open.
fn attempt(opener: &Opener) -> Result<Box<dyn Engine>, EngineError> {
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(opener));
    opened.unwrap_or_else(|_| {
        Err(EngineError::new(
            "engine",
            Failure::Open,
            "it panicked while opening: its files are damaged",
        ))
    })
}

/// Whether the store must stop after this error instead of reopening: a sync or the device failed.
pub fn is_final(error: &StoreError) -> bool {
    let StoreError::Engine(error) = error else {
        return matches!(error, StoreError::Stopped { .. });
    };
    if error.what == Failure::Sync {
        return true;
    }
    io_causes(&*error.source).any(|cause| cause.raw_os_error() == Some(libc::EIO))
}

/// Whether there was no room.
pub fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    io_causes(error).any(|cause| matches!(cause.kind(), StorageFull | QuotaExceeded))
}

fn io_causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a std::io::Error> {
    std::iter::successors(Some(error), |at| at.source()).filter_map(|at| at.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::{super::memory::MemoryEngine, *};
    use std::sync::{Arc, mpsc};

    /// Reads a value, then waits before it gives it.
    struct Paused {
        memory: MemoryEngine,
        pause: parking_lot::Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
    }

    impl Engine for Paused {
        fn name(&self) -> &'static str {
            "paused"
        }
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
            let value = self.memory.get(key);
            if let Some((read, go)) = self.pause.lock().take() {
                read.send(()).unwrap();
                go.recv().unwrap();
            }
            value
        }
        fn scan(&self, from: &[u8], to: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, EngineError> {
            self.memory.scan(from, to, rows, bytes)
        }
        fn commit(&self, writes: &[Write]) -> Result<(), EngineError> {
            self.memory.commit(writes)
        }
        fn takes_bulk(&self) -> bool {
            true
        }
        fn limits(&self) -> Limits {
            self.memory.limits()
        }
        fn free_bytes(&self) -> Result<u64, EngineError> {
            Ok(u64::MAX)
        }
    }

    fn row(value: &[u8]) -> Bytes {
        [&[0; 8], value].concat().into()
    }

    /// A read that a commit overtakes must not leave its older value in the cache.
    #[test]
    fn the_cache_follows_the_commit_order() {
        for deleted in [false, true] {
            let key = Bytes::from_static(b"key");
            let ((read, has_read), (go, goes)) = (mpsc::channel(), mpsc::channel());
            let pause = parking_lot::Mutex::new(Some((read, goes)));
            let parts = parking_lot::Mutex::new(Some(Paused {
                memory: MemoryEngine::default(),
                pause,
            }));
            let opener: Opener = Box::new(move || Ok(Box::new(parts.lock().take().unwrap())));
            let embedded = Arc::new(Embedded::open(opener, 1 << 20).unwrap());
            embedded
                .commit(&[Write {
                    key: key.clone(),
                    value: Some(row(b"old")),
                }])
                .unwrap();
            let reader = {
                let (embedded, key) = (embedded.clone(), key.clone());
                std::thread::spawn(move || embedded.get(&key).unwrap().unwrap())
            };
            has_read.recv().unwrap();
            let new = (!deleted).then(|| row(b"new"));
            embedded
                .commit(&[Write {
                    key: key.clone(),
                    value: new.clone(),
                }])
                .unwrap();
            embedded.remember(&key, new.map(Stored::parse));
            go.send(()).unwrap();
            assert_eq!(&reader.join().unwrap().bytes[..], b"old");
            let now = embedded.get(&key).unwrap().map(|stored| stored.bytes.to_vec());
            assert_eq!(now, (!deleted).then(|| b"new".to_vec()));
        }
    }
}
