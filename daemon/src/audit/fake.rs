//! A directory in memory for tests: it fills up, fails to sync, holds writes back, and remembers every act, so that a test can ask
//! what a power cut at any moment would have left.

use super::disk::{LogDir, LogFile};
use parking_lot::{Condvar, Mutex};
use std::{collections::BTreeMap, io, path::Path, sync::Arc};
use strongroom_audit::{ReadAt, segment_seq};

/// One act on the disk, in order.
#[derive(Clone, Debug)]
pub enum Act {
    Create(String, usize),
    Write(usize, u64, Vec<u8>),
    Sync(usize),
    Rename(String, String),
    Remove(String),
    SyncDir,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    acts: Vec<Act>,
    /// Bytes that files may still grow by.
    free: Option<u64>,
    sync_error: Option<i32>,
    syncs: usize,
    held: bool,
}

/// Clones share the disk.
#[derive(Clone, Default)]
pub struct FakeDisk(Arc<(Mutex<State>, Condvar)>);

struct FakeFile(FakeDisk, usize);

/// What a power cut keeps of what was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    Nothing,
    Everything,
    /// Each sector of 512 bytes, and each further act on names, by the toss of a coin with this seed.
    Some(u64),
    /// Everything but the last write, of which only so many bytes.
    LastWrite(usize),
}

impl FakeDisk {
    pub fn acts(&self) -> Vec<Act> {
        self.0.0.lock().acts.clone()
    }
    pub fn set_free(&self, free: Option<u64>) {
        self.0.0.lock().free = free;
    }
    pub fn fail_syncs(&self, errno: Option<i32>) {
        self.0.0.lock().sync_error = errno;
    }
    pub fn syncs(&self) -> usize {
        self.0.0.lock().syncs
    }
    /// Writes wait until they are let go.
    pub fn hold(&self, held: bool) {
        self.0.0.lock().held = held;
        self.0.1.notify_all();
    }
    pub fn names(&self) -> Vec<String> {
        self.0.0.lock().names.keys().cloned().collect()
    }
    /// All files and their bytes.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.0.lock();
        state
            .names
            .iter()
            .map(|(name, id)| (name.clone(), state.files[*id].clone()))
            .collect()
    }
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.0.lock();
        let id = state.names[name];
        change(&mut state.files[id]);
    }
    /// As if somebody had removed the log.
    pub fn forget_all(&self) {
        self.0.0.lock().names.clear();
    }
    /// Writes the files to a real directory, for readers that need one.
    pub fn copy_to(&self, dir: &Path) {
        for (name, bytes) in self.contents() {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }

    /// The disk after a power cut behind the first `acts` acts.
    pub fn after_cut(acts: &[Act], kept: Kept) -> Self {
        let mut seed = if let Kept::Some(seed) = kept { seed } else { 0 };
        let mut keep = |last_write: bool| match kept {
            Kept::Nothing => false,
            Kept::Everything => true,
            Kept::LastWrite(_) => !last_write,
            Kept::Some(_) => {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                seed >> 63 == 1
            }
        };
        let synced_names = acts.iter().rposition(|act| matches!(act, Act::SyncDir)).unwrap_or(0);
        let last_write = acts.iter().rposition(|act| matches!(act, Act::Write(..)));
        let (mut state, mut names_end) = (State::default(), false);
        for (at, act) in acts.iter().enumerate() {
            // Acts on names come back in order, up to some one.
            let names = at <= synced_names || (!names_end && keep(false));
            match act {
                Act::Create(name, id) => {
                    state.files.resize_with(state.files.len().max(id + 1), Vec::new);
                    if names {
                        state.names.insert(name.clone(), *id);
                    }
                    names_end = !names;
                }
                Act::Rename(from, to) => match state.names.remove(from) {
                    Some(id) if names => drop(state.names.insert(to.clone(), id)),
                    Some(id) => {
                        state.names.insert(from.clone(), id);
                        names_end = true;
                    }
                    None => {}
                },
                Act::Remove(name) if names => drop(state.names.remove(name)),
                Act::Remove(_) => names_end = true,
                Act::Write(id, offset, bytes) => {
                    let synced = acts[at..]
                        .iter()
                        .any(|later| matches!(later, Act::Sync(file) if file == id));
                    let limit = match kept {
                        Kept::LastWrite(bytes) if Some(at) == last_write => bytes,
                        _ => usize::MAX,
                    };
                    write_sectors(
                        &mut state.files[*id],
                        *offset,
                        bytes,
                        |_| synced || keep(Some(at) == last_write),
                        limit,
                    );
                }
                Act::Sync(_) | Act::SyncDir => {}
            }
        }
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
}

fn write_sectors(file: &mut Vec<u8>, offset: u64, bytes: &[u8], mut keep: impl FnMut(u64) -> bool, limit: usize) {
    let offset = usize::try_from(offset).unwrap();
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    let mut done = 0;
    while done < bytes.len() {
        let sector = (offset + done) / 512;
        let end = bytes.len().min((sector + 1) * 512 - offset);
        if keep(sector as u64) {
            file[offset + done..offset + end].copy_from_slice(&bytes[done..end]);
        } else if limit != usize::MAX && done < limit {
            let end = end.min(limit);
            file[offset + done..offset + end].copy_from_slice(&bytes[done..end]);
        }
        done = end;
    }
}

impl ReadAt for FakeFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.0.0.lock().files[self.1].as_slice().read_at(out, offset)
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.0.0.lock().files[self.1].len() as u64)
    }
}

impl LogFile for FakeFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.0.0.lock();
        while state.held {
            self.0.0.1.wait(&mut state);
        }
        let (size, end) = (state.files[self.1].len() as u64, offset + bytes.len() as u64);
        let growth = end.saturating_sub(size);
        let mut bytes = bytes;
        let mut result = Ok(());
        if let Some(free) = &mut state.free {
            if *free < growth {
                // As write(2): what fits is written, then it fails.
                let fits = bytes.len() - usize::try_from(growth - *free).unwrap();
                bytes = &bytes[..fits];
                *free = 0;
                result = Err(io::ErrorKind::StorageFull.into());
            } else {
                *free -= growth;
            }
        }
        write_sectors(&mut state.files[self.1], offset, bytes, |_| true, usize::MAX);
        state.acts.push(Act::Write(self.1, offset, bytes.to_vec()));
        result
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.0.0.lock();
        state.syncs += 1;
        if let Some(errno) = state.sync_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        state.acts.push(Act::Sync(self.1));
        Ok(())
    }
}

impl LogDir for FakeDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self
            .0
            .0
            .lock()
            .names
            .keys()
            .filter_map(|name| segment_seq(name))
            .collect())
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let id = self
            .0
            .0
            .lock()
            .names
            .get(name)
            .copied()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FakeFile(self.clone(), id)))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut state = self.0.0.lock();
        state.files.push(Vec::new());
        let id = state.files.len() - 1;
        state.names.insert(name.into(), id);
        state.acts.push(Act::Create(name.into(), id));
        drop(state);
        Ok(Box::new(FakeFile(self.clone(), id)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.0.lock();
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), id);
        state.acts.push(Act::Rename(from.into(), to.into()));
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.0.lock();
        if let Some(id) = state.names.remove(name) {
            let freed = state.files[id].len() as u64;
            if let Some(free) = &mut state.free {
                *free += freed;
            }
            state.acts.push(Act::Remove(name.into()));
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.0.0.lock().acts.push(Act::SyncDir);
        Ok(())
    }
}
