//! Free space: looked at before the engine sees a group. Below the reserve ordinary batches are refused, and service resumes by itself. The reserve
//! is a file that was filled ahead: it is given up for whoever must get through, and nobody else gets what it was.

use crate::store::{batch::Need, physical::Embedded};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// Between two attempts to fill the reserve where that failed.
const REFILL_PAUSE: Duration = Duration::from_secs(10);

/// Whether ordinary batches are refused for want of space, as of the last group.
#[derive(Clone, Default)]
pub struct Low(Arc<AtomicBool>);

impl Low {
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The reserve of one store.
pub struct Space {
    /// Bytes of the reserve, and as many that ordinary batches leave free beside it.
    keep_free: u64,
    /// The file to give up; `None` where there is no disk.
    file: Option<PathBuf>,
    held: bool,
    low: bool,
    /// `low`, for whoever asks from elsewhere.
    shown: Low,
    /// While there is plenty, the disk is asked again only after this long.
    every: Duration,
    looked: Option<Instant>,
    refill: Option<Instant>,
}

impl Space {
    /// Keeps `reserve_bytes` in `file`, and refuses ordinary batches below as much free space again. The disk is asked not more often than
    /// `every` while there is plenty: what the engine writes in that time must be small beside the reserve.
    pub fn new(file: Option<PathBuf>, reserve_bytes: u64, every: Duration) -> Self {
        let mut space = Self {
            keep_free: reserve_bytes,
            file,
            held: false,
            low: false,
            shown: Low::default(),
            every,
            looked: None,
            refill: None,
        };
        let free = space
            .file
            .as_deref()
            .and_then(|file| rustix::fs::statvfs(file.parent()?).ok());
        let free = free.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        space.held = space.is_there();
        if space.held && free < reserve_bytes / 4 {
            // The engine could not even open.
            space.make_room();
        } else if !space.held && free >= reserve_bytes.saturating_mul(2) {
            space.fill();
        }
        space
    }

    /// Whether the file is there, and of real blocks: a copy may be sparse.
    fn is_there(&self) -> bool {
        let meta = self.file.as_ref().and_then(|file| fs::metadata(file).ok());
        meta.is_some_and(|meta| meta.len() == self.keep_free && meta.blocks().saturating_mul(512) >= self.keep_free)
    }

    /// The least need that is met now. The first to come with more than an ordinary one when it is low makes the reserve given up.
    pub fn look(&mut self, embedded: &Embedded, most: Need) -> Need {
        if !self.low && self.is_whole() && self.looked.is_some_and(|at| at.elapsed() < self.every) {
            return Need::Ordinary;
        }
        self.looked = Some(Instant::now());
        // An engine that cannot say will tell at the write.
        let free = || embedded.free_bytes().unwrap_or(u64::MAX);
        let mut left = free();
        if !self.is_whole()
            && left >= self.keep_free.saturating_mul(2)
            && self.refill.is_none_or(|at| at <= Instant::now())
        {
            self.fill();
            left = free();
        }
        // What the reserve was is not for ordinary batches.
        let needed = self.keep_free.saturating_mul(if self.is_whole() { 1 } else { 2 });
        self.note(left, left < needed);
        if !self.low {
            return Need::Ordinary;
        }
        if most > Need::Ordinary && self.held {
            self.give_up();
            left = free();
        }
        if self.held || left >= self.keep_free / 2 {
            Need::Tending
        } else {
            Need::Urgent
        }
    }

    /// Gives the reserve up, if there is one: the engine cannot even open without room. Whether there was.
    pub fn make_room(&mut self) -> bool {
        let held = self.held;
        if held {
            self.set_low(true);
            self.give_up();
        }
        held
    }

    /// Whether ordinary batches are refused for want of space, as of the last group.
    pub fn shown(&self) -> Low {
        self.shown.clone()
    }

    fn set_low(&mut self, low: bool) {
        self.low = low;
        self.shown.0.store(low, Ordering::Relaxed);
    }

    fn is_whole(&self) -> bool {
        self.held == self.file.is_some()
    }

    fn note(&mut self, free_bytes: u64, low: bool) {
        match (self.low, low) {
            (false, true) => warn!(
                free_bytes,
                "disk nearly full: changes and audited answers are refused until there is space"
            ),
            (true, false) => info!(free_bytes, "disk space is back: service resumes"),
            _ => {}
        }
        self.set_low(low);
    }

    fn give_up(&mut self) {
        if let Some(file) = &self.file {
            warn!("giving up the disk reserve for revoke, seal, recovery or an operator's look");
            drop(fs::remove_file(file));
        }
        self.held = false;
    }

    fn fill(&mut self) {
        let Some(path) = &self.file else { return };
        let filled = fs::File::create(path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.keep_free)
                .map_err(io::Error::from)
        });
        self.held = filled.is_ok();
        if let Err(error) = filled {
            warn!(%error, "the disk reserve cannot be filled: twice as much is left free instead");
            self.refill = Some(Instant::now() + REFILL_PAUSE);
            drop(fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::physical::{
        Engine,
        faulty::{Faults, Faulty},
        memory::MemoryEngine,
    };

    const RESERVE: u64 = 1 << 20;

    fn over(faults: &Faults) -> Embedded {
        let opened = faults.clone();
        let opener = move || Ok(Box::new(Faulty::over(MemoryEngine::default(), opened.clone())) as Box<dyn Engine>);
        Embedded::open(Box::new(opener), 1 << 20).unwrap()
    }

    /// The reserve is real blocks, given up to the first on a full disk who must get through, and filled again when there is space. Until then
    /// ordinary batches do not get what it was.
    #[test]
    fn the_reserve_is_given_up_and_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let faults = Faults::default();
        let embedded = over(&faults);
        let mut space = Space::new(Some(path.clone()), RESERVE, Duration::ZERO);
        let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
        assert!(blocks() >= RESERVE);
        faults.free_bytes(Some(RESERVE - 1));
        assert_eq!(space.look(&embedded, Need::Ordinary), Need::Tending);
        assert!(path.exists(), "ordinary batches do not touch it");
        assert_eq!(space.look(&embedded, Need::Urgent), Need::Tending);
        assert!(!path.exists());
        faults.free_bytes(Some(2 * RESERVE - 1));
        assert_eq!(
            space.look(&embedded, Need::Ordinary),
            Need::Tending,
            "that is the reserve"
        );
        faults.free_bytes(Some(RESERVE / 2 - 1));
        assert_eq!(
            space.look(&embedded, Need::Tending),
            Need::Urgent,
            "the rest is for those"
        );
        faults.free_bytes(Some(2 * RESERVE));
        assert_eq!(space.look(&embedded, Need::Ordinary), Need::Ordinary);
        assert!(blocks() >= RESERVE);
    }

    /// A copy of the reserve without its blocks is none.
    #[test]
    fn a_sparse_reserve_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        fs::File::create(&path).unwrap().set_len(RESERVE).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < RESERVE, "it is sparse");
        drop(Space::new(Some(path.clone()), RESERVE, Duration::ZERO));
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= RESERVE);
    }

    /// Where nothing can be set aside, as much is left free.
    #[test]
    fn a_reserve_that_cannot_be_filled_is_left_free() {
        let faults = Faults::default();
        let embedded = over(&faults);
        let mut space = Space::new(Some("/dev/null/reserve".into()), RESERVE, Duration::ZERO);
        for (free, met) in [
            (2 * RESERVE, Need::Ordinary),
            (2 * RESERVE - 1, Need::Tending),
            (0, Need::Urgent),
        ] {
            faults.free_bytes(Some(free));
            assert_eq!(space.look(&embedded, Need::Urgent), met, "{free}");
        }
    }
}
