//! An open store for the unit tests of any room: memory, or a real directory, with a drain that keeps the frames.

use super::{
    Algorithm, Disk, Drain, EngineKind, Store,
    commit::Space,
    physical::{
        Engine,
        faulty::{Faults, Faulty},
        memory::{Memory, MemoryEngine},
    },
};
use crate::base::{locked::LockedKey, random::OsRandom};
use parking_lot::Mutex;
use std::{path::Path, sync::Arc};
use strongroom_audit::Frame;

/// Keeps the frames; says that they are drained at once.
#[derive(Default)]
pub(crate) struct Kept {
    pub frames: Mutex<Vec<Frame>>,
    pub unavailable: Mutex<Option<String>>,
}

impl Drain for Kept {
    fn ready(&self, _reserved: bool) -> Result<(), String> {
        self.unavailable.lock().clone().map_or(Ok(()), Err)
    }
    fn submit(&self, frame: Frame) {
        self.frames.lock().push(frame);
    }
    fn drained_through(&self) -> u64 {
        self.frames.lock().last().map_or(0, Frame::end_seq)
    }
}

/// A vault's disk in memory that can fail and be opened again.
#[derive(Clone, Default)]
pub(crate) struct Rig {
    pub memory: Memory,
    pub faults: Faults,
    pub kept: Arc<Kept>,
    pub reserve_bytes: u64,
}

impl Rig {
    pub(crate) fn open(&self) -> Disk {
        let (memory, faults) = (self.memory.clone(), self.faults.clone());
        let opener = move || faults.open(|| Ok(Box::new(Faulty::over(MemoryEngine::open(memory.clone()), faults.clone())) as Box<dyn Engine>));
        let (kept, space) = (self.kept.clone(), Space::new(None, self.reserve_bytes));
        Disk::open_with(Box::new(opener), None, space, Arc::new(OsRandom), move |_, _, rows| {
            rows.for_each(drop);
            Ok(kept)
        })
        .unwrap()
    }
}

pub(crate) fn root() -> LockedKey {
    LockedKey::copy_of(&[7; 32]).unwrap()
}

/// Makes a keyring and unlocks.
pub(crate) async fn init(disk: &Disk, algorithm: Algorithm) -> Arc<Store> {
    let change = disk.new_keyring(&root(), algorithm).unwrap();
    disk.raw().commit(change, Vec::new()).await.unwrap();
    disk.unlock(&root()).await.unwrap()
}

/// An open store in memory, for rooms that only want one.
pub(crate) async fn store() -> Arc<Store> {
    init(&Rig::default().open(), Algorithm::default()).await
}

/// A disk over a real engine in `dir`.
pub(crate) fn disk(kind: EngineKind, dir: &Path) -> Disk {
    let kept = Arc::new(Kept::default());
    Disk::open_with(kind.opener(dir), None, Space::new(None, 0), Arc::new(OsRandom), move |_, _, rows| {
        rows.for_each(drop);
        Ok(kept)
    })
    .unwrap()
}
