//! An open store for the unit tests of any room: memory, or a real directory, with a drain that keeps the frames.

use super::{
    Algorithm, Caches, Disk, Drain, EngineKind, OpenError, Store,
    commit::{Evidence, Space},
    physical::{
        Engine,
        faulty::{Faults, Faulty},
        memory::{Memory, MemoryEngine},
    },
};
use crate::{
    audit::{Outcome, Paths, Recorder, Trail},
    base::{
        id::{BootId, ClusterId},
        locked::LockedKey,
        random::{OsRandom, Random},
        time::{ManualClock, Timestamp},
    },
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use strongroom_audit::{ChainHead, Encoded, Frame, Id};

/// Keeps the frames; says that they are drained at once.
#[derive(Default)]
pub(crate) struct Kept {
    pub frames: Mutex<Vec<Frame>>,
    pub unavailable: Mutex<Option<String>>,
    /// Nothing is drained: all stays in the outbox.
    pub behind: bool,
}

/// Dice that always fall the same way.
pub(crate) struct FixedDice(AtomicU64);

impl FixedDice {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0)))
    }
}

impl Random for FixedDice {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&super::table::digest(&count.to_be_bytes())[..chunk.len()]);
        }
    }
}

/// A record of evidence, the same every time.
pub(crate) fn evidence(op: &'static str) -> Encoded {
    let recorder = Recorder::new(
        BootId::from_bytes([5; 16]),
        Arc::new(ManualClock::at(Timestamp(1_795_000_000_000))),
        Paths::Clear,
    );
    Trail::of_system(&recorder, op).response(&Outcome::ok())
}

/// What the drainer checks at open: the outbox (here all of it) leads to the head.
pub(crate) fn follow(
    cluster: ClusterId,
    head: ChainHead,
    rows: &mut dyn Iterator<Item = Result<Bytes, super::StoreError>>,
) -> Result<(), String> {
    let mut chain = ChainHead::genesis(Id(*cluster.as_bytes()));
    for row in rows {
        let row = row.map_err(|error| error.to_string())?;
        let view = strongroom_audit::decode_frame(&row).map_err(|error| error.to_string())?;
        chain = chain.follow(&view).map_err(|error| error.to_string())?;
    }
    if chain == head {
        Ok(())
    } else {
        Err("the heads differ".into())
    }
}

impl Drain for Kept {
    fn ready(&self, _reserved: bool) -> Result<(), String> {
        self.unavailable.lock().clone().map_or(Ok(()), Err)
    }
    fn submit(&self, frame: Frame) {
        self.frames.lock().push(frame);
    }
    fn drained_through(&self) -> u64 {
        if self.behind {
            0
        } else {
            self.frames.lock().last().map_or(0, Frame::end_seq)
        }
    }
}

/// A vault's disk in memory that can fail and be opened again.
#[derive(Clone, Default)]
pub(crate) struct Rig {
    pub memory: Memory,
    pub faults: Faults,
    pub kept: Arc<Kept>,
    pub reserve_bytes: u64,
    pub evidence: Evidence,
}

impl Rig {
    /// Whose frames all stay in the outbox.
    pub(crate) fn behind() -> Self {
        Self {
            kept: Arc::new(Kept {
                behind: true,
                ..Kept::default()
            }),
            ..Self::default()
        }
    }

    pub(crate) fn open(&self) -> Disk {
        self.open_by(Arc::new(OsRandom)).unwrap()
    }

    pub(crate) fn open_by(&self, random: Arc<dyn Random>) -> Result<Disk, OpenError> {
        let (memory, faults) = (self.memory.clone(), self.faults.clone());
        let opener = move || {
            faults.open(|| {
                Ok(Box::new(Faulty::over(MemoryEngine::open(memory.clone()), faults.clone())) as Box<dyn Engine>)
            })
        };
        let (kept, space) = (
            self.kept.clone(),
            (Space::new(None, self.reserve_bytes, Duration::ZERO), self.evidence),
        );
        Disk::open_with(
            (Box::new(opener), Caches::default()),
            None,
            space,
            random,
            move |cluster, head, rows| {
                if kept.behind {
                    follow(cluster, head, rows)
                        .map_err(|why| OpenError::Audit(crate::audit::OpenError::OutboxRead(why)))?;
                }
                Ok(kept)
            },
        )
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
    Disk::open_with(
        (kind.opener(dir, Caches::default()), Caches::default()),
        None,
        (Space::new(None, 0, Duration::ZERO), Evidence::Synced),
        Arc::new(OsRandom),
        move |_, _, rows| {
            rows.for_each(drop);
            Ok(kept)
        },
    )
    .unwrap()
}
