//! Opening the disk: lock, engine, format, heads, audit log; and unlocking the barrier. Usable while sealed for raw records and evidence.

use super::{
    Store,
    base::{Base, Ops, put_keyring},
    batch::{Stored, Version},
    change::Change,
    commit::{Committer, Drain, Evidence, Heads, Low, Space, outbox_key},
    error::{OpenError, StoreError, UnlockError},
    frame,
    keyring::Keyring,
    local::Local,
    physical::{
        Embedded, EngineError, Opener, Write, fjall::FjallEngine, memory, memory::MemoryEngine, sled::SledEngine,
    },
    quarantine::Quarantine,
    raw::RawStore,
    record::{self, Algorithm, Ids},
    sequence::{SEQUENCE_BLOCK, Sequence},
    table::{self, HEAD_BYTES, RawTable, Table},
};
use crate::{
    audit::{self, Drainer, TornTail},
    base::{
        id::{ClusterId, StoreId},
        locked::{LockError, LockedKey},
        random::Random,
    },
};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strongroom_audit::{ChainHead, Id};
use tokio::sync::RwLock;

/// The newest store format this build knows. Older ones would be migrated by numbered steps; there are none yet.
pub const FORMAT_VERSION: u32 = 1;
/// Rows read at once at open.
const OPEN_ROWS: usize = 1024;
/// How often free space is asked for while there is plenty: in that time an engine writes less than a tenth of the reserve.
const SPACE_EVERY: Duration = Duration::from_millis(50);
const OPEN_BYTES: usize = 4 << 20;

/// Which engine keeps the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    /// The default.
    Fjall,
    /// Loses acknowledged writes on power loss: docs/KNOWN_ISSUES.
    Sled,
    /// Nothing survives the process.
    Memory,
}

impl EngineKind {
    /// Its name in the configuration and in the directory's `ENGINE` file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Memory => "memory",
        }
    }

    /// How it is opened in `dir` (its own directory, made when missing).
    pub fn opener(self, dir: &Path, caches: Caches) -> Opener {
        let (dir, blocks) = (dir.to_owned(), caches.block_bytes);
        match self {
            Self::Fjall => Box::new(move || Ok(Box::new(FjallEngine::open_with_cache(&dir, blocks)?))),
            Self::Sled => Box::new(move || Ok(Box::new(SledEngine::open_with_cache(&dir, blocks)?))),
            Self::Memory => {
                let memory = memory::Memory::default();
                Box::new(move || Ok(Box::new(MemoryEngine::open(memory.clone()))))
            }
        }
    }
}

/// Memory for what is read again: all of it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// Records, in front of the engine.
    pub record_bytes: u64,
    /// The engine's blocks.
    pub block_bytes: u64,
}

impl Caches {
    /// Two parts records, three parts blocks, of `bytes` in all.
    pub const fn of(bytes: u64) -> Self {
        let record_bytes = bytes / 5 * 2;
        Self {
            record_bytes,
            block_bytes: bytes - record_bytes,
        }
    }
}

impl Default for Caches {
    fn default() -> Self {
        Self::of(40 << 20)
    }
}

/// Where the store is.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The store's directory: engine, lock, reserve. Made when missing.
    pub dir: PathBuf,
    /// Which engine.
    pub engine: EngineKind,
    /// Space kept for revoke, seal and recovery, and as much again left free by everything else. 0: none, for tests.
    pub reserve_bytes: u64,
    /// The audit log.
    pub audit: audit::Settings,
    /// When a read or a refusal counts as recorded.
    pub evidence: Evidence,
    /// How much is kept in memory.
    pub caches: Caches,
}

/// An open disk. Cheap to clone; the last clone closes it, if [`Disk::close`] did not.
#[derive(Clone)]
pub struct Disk {
    base: Arc<Base>,
    drainer: Option<Arc<Drainer>>,
    low: Low,
}

impl Disk {
    /// Opens or makes the store and its audit log. Blocks. A torn tail of the log that was cut is for the first commit to record.
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &DiskConfig, random: Arc<dyn Random>) -> Result<(Self, Option<TornTail>), OpenError> {
        let engine_dir = config.dir.join("engine");
        fs::create_dir_all(&engine_dir).map_err(io_error(&engine_dir))?;
        let lock = lock(&config.dir)?;
        same_engine(&config.dir, config.engine)?;
        let mut opened = None;
        let reserve = (config.reserve_bytes > 0).then(|| config.dir.join("reserve"));
        let space = Space::new(reserve, config.reserve_bytes, SPACE_EVERY);
        let disk = Self::open_with(
            (config.engine.opener(&engine_dir, config.caches), config.caches),
            Some(lock),
            (space, config.evidence),
            random,
            |cluster, head, rows| {
                let log = Drainer::open(&config.audit, cluster, head, rows)?;
                let drainer = Arc::new(log.drainer);
                opened = Some((drainer.clone(), log.torn));
                Ok(drainer)
            },
        )?;
        let (drainer, torn) = opened.unzip();
        Ok((Self { drainer, ..disk }, torn.flatten()))
    }

    /// The same over any engine and any drain.
    pub(super) fn open_with(
        (opener, caches): (Opener, Caches),
        lock: Option<File>,
        (space, evidence): (Space, Evidence),
        random: Arc<dyn Random>,
        drain: impl FnOnce(
            ClusterId,
            ChainHead,
            &mut dyn Iterator<Item = Result<Bytes, StoreError>>,
        ) -> Result<Arc<dyn Drain>, OpenError>,
    ) -> Result<Self, OpenError> {
        let embedded = Arc::new(Embedded::open(opener, caches.record_bytes)?);
        let (ids, heads) = match read_format(&embedded)? {
            Some(ids) => (ids, read_heads(&embedded)?),
            None => make(&embedded, &*random)?,
        };
        let mut outbox = Vec::new();
        let mut rows = Outbox {
            embedded: &embedded,
            next: heads.outbox_from,
            page: Vec::new().into_iter(),
            seen: &mut outbox,
            done: false,
        };
        let drain = drain(ids.cluster, heads.chain, &mut rows)?;
        rows.by_ref().for_each(drop);
        let sequence = Sequence::from(read_sequence(&embedded)?);
        let low = space.shown();
        let quarantine = Arc::new(Quarantine::with(read_quarantine(&embedded)?.into_iter()));
        let committer = Committer::start(embedded.clone(), heads, outbox, drain, space, evidence)
            .map_err(io_error(Path::new("store-commit thread")))?;
        let base = Arc::new(Base {
            physical: Arc::new(Local::new(embedded, committer, lock)),
            ids,
            ops: Ops::new(&*random),
            random,
            sequence,
            quarantine,
            rotation: RwLock::new(()),
        });
        let drainer = None;
        Ok(Self { base, drainer, low })
    }

    /// Records outside the barrier.
    pub fn raw(&self) -> RawStore {
        RawStore {
            base: self.base.clone(),
        }
    }

    /// Made with the store, before `init`.
    pub fn ids(&self) -> Ids {
        self.base.ids
    }

    /// Whether changes are refused for want of space, as of the last commit.
    pub fn is_nearly_full(&self) -> bool {
        self.low.is_so()
    }

    /// The audit log's drainer, to tail the log.
    pub fn drainer(&self) -> Option<&Arc<Drainer>> {
        self.drainer.as_ref()
    }

    /// The audit chain's head as of the last group that was made.
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_head(&self) -> Result<ChainHead, StoreError> {
        let row = self.base.get_raw(RawTable::Heads, b"head").await?;
        let damaged = || StoreError::Damaged {
            record: RawTable::Heads.words().to_owned(),
        };
        row.and_then(|row| Heads::of_value(&row.value))
            .map(|heads| heads.chain)
            .ok_or_else(damaged)
    }

    /// Batches waiting to be committed.
    pub fn depth(&self) -> usize {
        self.base.physical.depth()
    }

    /// For `init`: a change that writes a new keyring sealed by `root`, with the precondition that there is none. Commit it by
    /// [`Disk::raw`] together with the slots, then [`Disk::unlock`].
    /// # Errors
    /// No locked memory.
    pub fn new_keyring(&self, root: &LockedKey, algorithm: Algorithm) -> Result<Change, LockError> {
        let keyring = Keyring::create(algorithm, self.base.sequence.now(), &*self.base.random)?;
        let mut change = Change::new();
        change.require_raw_absent(RawTable::Keyring, &[]);
        put_keyring(
            &mut change,
            keyring.seal(root, self.base.ids.cluster, &*self.base.random),
        );
        Ok(change)
    }

    /// Whether there is a keyring, that is whether `init` was done.
    /// # Errors
    /// [`StoreError`].
    pub async fn is_initialised(&self) -> Result<bool, StoreError> {
        match self.base.sealed_keyrings().await {
            Ok(keyrings) => Ok(!keyrings.is_empty()),
            Err(StoreError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Opens the barrier by the root key. Only one store at a time should be open.
    /// # Errors
    /// [`UnlockError`].
    pub async fn unlock(&self, root: &LockedKey) -> Result<Arc<Store>, UnlockError> {
        let mut failed = UnlockError::Blank;
        for sealed in self.base.sealed_keyrings().await? {
            match Keyring::open(root, self.base.ids.cluster, &sealed.value) {
                Ok(keyring) => return Ok(Arc::new(Store::open(self.base.clone(), keyring))),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The way past the barrier, for the store's own tests.
    #[cfg(test)]
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// Makes what is queued, then closes the engine and gives the directory back. Blocks.
    pub fn close(&self) {
        self.base.physical.close();
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.display().to_string();
    move |source| OpenError::Io { path, source }
}

/// One writer a directory, for as long as the file is open.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(io_error(&path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
            path: dir.display().to_string(),
        }),
        Err(error) => Err(io_error(&path)(error.into())),
    }
}

/// The directory belongs to the engine that made it.
pub(super) fn same_engine(dir: &Path, engine: EngineKind) -> Result<(), OpenError> {
    let path = dir.join("ENGINE");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == engine.name() => Ok(()),
        Ok(found) => Err(OpenError::Engine {
            found: found.trim().into(),
            configured: engine.name().into(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => claim(dir, &path, engine).map_err(io_error(&path)),
        Err(error) => Err(io_error(&path)(error)),
    }
}

/// Writes the engine's name whole or not at all: a power cut that left an empty file here made a store that no engine may open.
fn claim(dir: &Path, path: &Path, engine: EngineKind) -> io::Result<()> {
    let fresh = dir.join("ENGINE.new");
    let mut file = File::create(&fresh)?;
    file.write_all(format!("{}\n", engine.name()).as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The format record and its twin, among rows that engines keep in other files: without the ids nothing opens.
fn format_keys() -> [Bytes; 2] {
    [
        table::raw_key(RawTable::Format, &[]),
        table::raw_key(RawTable::Heads, b"format"),
    ]
}

fn read_format(embedded: &Embedded) -> Result<Option<Ids>, OpenError> {
    let damaged = || OpenError::Raw(RawTable::Format);
    let mut found = None;
    for key in format_keys() {
        let row = read(embedded.get_row(&key))?.map(Stored::parse);
        found = found.or(row.and_then(|stored| frame::decode(&key, &stored.bytes).map(<[u8]>::to_vec)));
    }
    let Some(value) = found else {
        // No format record: fine in an empty store, a loss in any other.
        let any = read(embedded.scan_rows(&[0; HEAD_BYTES], &[u8::MAX; HEAD_BYTES], 1, 0))?;
        let heads = read(embedded.scan_rows(&table::raw_key(RawTable::Heads, &[]), &[u8::MAX; HEAD_BYTES], 1, 0))?;
        return if any.is_empty() && heads.is_empty() {
            Ok(None)
        } else {
            Err(damaged())
        };
    };
    let (version, ids) = value.split_first_chunk::<4>().ok_or_else(damaged)?;
    let found = u32::from_be_bytes(*version);
    if found > FORMAT_VERSION {
        return Err(OpenError::Newer {
            found,
            known: FORMAT_VERSION,
        });
    }
    let (cluster, store) = ids.split_first_chunk::<16>().ok_or_else(damaged)?;
    let store = store.try_into().map_err(|_| damaged())?;
    Ok(Some(Ids {
        cluster: ClusterId::from_bytes(*cluster),
        store: StoreId::from_bytes(store),
    }))
}

/// The first commit of a store: format and heads.
fn make(embedded: &Embedded, random: &dyn Random) -> Result<(Ids, Heads), OpenError> {
    let ids = Ids {
        cluster: ClusterId::random(random),
        store: StoreId::random(random),
    };
    let chain = ChainHead::genesis(Id(*ids.cluster.as_bytes()));
    let heads = Heads {
        commit_seq: 1,
        chain,
        outbox_from: 0,
    };
    let value = [
        &FORMAT_VERSION.to_be_bytes()[..],
        ids.cluster.as_bytes(),
        ids.store.as_bytes(),
    ]
    .concat();
    let formats = format_keys().map(|key| Write {
        value: Some(frame::encode(&key, &value).stamp(Version(1))),
        key,
    });
    let heads_row = Write {
        key: Heads::key(),
        value: Some(heads.row()),
    };
    read(embedded.commit(&[&formats[..], &[heads_row]].concat()))?;
    Ok((ids, heads))
}

pub(super) fn read_heads(embedded: &Embedded) -> Result<Heads, OpenError> {
    read(embedded.get_row(&Heads::key()))?
        .and_then(Heads::parse)
        .ok_or(OpenError::Raw(RawTable::Heads))
}

/// The reserved end of the sequence. A damaged or missing row is made up for by looking at every record.
fn read_sequence(embedded: &Embedded) -> Result<u64, OpenError> {
    let row = read(embedded.get_row(&Sequence::key()))?.map(Stored::parse);
    if let Some(reserved) = row.and_then(|stored| Sequence::parse(&stored.bytes)) {
        return Ok(reserved);
    }
    let (mut from, end) = (vec![0, 0, 0, 0, Table::Mount.id()], vec![u8::MAX; HEAD_BYTES]);
    let mut highest = None;
    loop {
        let rows = read(embedded.scan_rows(&from, &end, OPEN_ROWS, OPEN_BYTES))?;
        let Some((last, _)) = rows.last() else { break };
        from = [&last[..], &[0]].concat();
        let sequences = rows
            .iter()
            .filter_map(|(_, row)| record::parse_header(&Stored::parse(row.clone()).bytes));
        highest = sequences.map(|header| header.sequence).chain(highest).max();
    }
    // Without records there is nothing to lie above, even if a row is missing.
    Ok(highest.map_or(0, |highest| highest.saturating_add(SEQUENCE_BLOCK)))
}

fn read_quarantine(embedded: &Embedded) -> Result<Vec<Bytes>, OpenError> {
    let from = table::raw_key(RawTable::Quarantine, &[]);
    let end = table::successor(&from).unwrap_or_default();
    let rows = read(embedded.scan_rows(&from, &end, super::QUARANTINE_MAX, usize::MAX))?;
    let listed =
        |(key, row): (Bytes, Bytes)| frame::decode(&key, &Stored::parse(row).bytes).map(Bytes::copy_from_slice);
    Ok(rows.into_iter().filter_map(listed).collect())
}

fn read<T>(result: Result<T, StoreError>) -> Result<T, OpenError> {
    result.map_err(|error| match error {
        StoreError::Engine(error) => OpenError::Physical(error),
        other => OpenError::Physical(EngineError::new("store", super::physical::Failure::Open, other)),
    })
}

/// The outbox in order, page by page; notes the first sequences it saw.
struct Outbox<'a> {
    embedded: &'a Embedded,
    next: u64,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    seen: &'a mut Vec<u64>,
    done: bool,
}

impl Iterator for Outbox<'_> {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, row)) = self.page.next() {
                let seq = u64::from_be_bytes(key.get(HEAD_BYTES..)?.try_into().ok()?);
                self.next = seq.saturating_add(1);
                self.seen.push(seq);
                return Some(Ok(row));
            }
            if self.done {
                return None;
            }
            let end = table::successor(&table::raw_key(RawTable::Outbox, &[]))?;
            match self
                .embedded
                .scan_rows(&outbox_key(self.next), &end, OPEN_ROWS, OPEN_BYTES)
            {
                Ok(rows) => {
                    self.done = rows.is_empty();
                    self.page = rows.into_iter();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
